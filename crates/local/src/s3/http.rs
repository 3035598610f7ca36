//! S3's REST API: which bucket, key and operation a request is for, and how S3 says no.

use std::collections::BTreeMap;

use hyper::header::HOST;
use hyper::{Method, StatusCode};

use super::administration::owned;
use super::settings::NAMESPACE;
use super::xml::Element;
use super::{S3, reading, uploads, writing};
use crate::wire::{ACCOUNT, Refusal, Reply, Request, Xml, decoded, request_id};

/// What can be asked of a bucket or an object beside itself, by the parameter that asks.
const ASPECTS: [&str; 38] = [
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataConfiguration",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub s3: &'a S3,
    pub request: &'a Request,
    /// The bucket; empty if it is about none.
    pub bucket: String,
    /// The key; empty if it is about the bucket.
    pub key: String,
    pub query: BTreeMap<String, String>,
}

/// Serves a request.
pub(super) fn serve(s3: &S3, request: &Request) -> Reply {
    let answer = Call::of(s3, request).and_then(|call| call.answer());
    let mut reply = answer.unwrap_or_else(|refusal| refused(&refusal, request));
    if request.method == Method::HEAD {
        reply.body = bytes::Bytes::new();
    }
    let id = request_id();
    reply.with("x-amz-request-id", &id).with("x-amzn-requestid", &id)
}

/// A refusal in S3's form.
pub(crate) fn refused(refusal: &Refusal, request: &Request) -> Reply {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if request.method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Reply::empty(status);
    }
    let mut xml = Xml::default();
    xml.nest("Error", |error| {
        error
            .element("Code", &refusal.code)
            .element("Message", &refusal.message)
            .element("Resource", &decoded(&request.path))
            .element("RequestId", &request_id());
    });
    Reply::new(status, "application/xml", declared(xml.as_str()))
}

/// A document with its declaration.
pub(super) fn declared(xml: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{xml}")
}

/// The answer with a root and what is in it.
pub(super) fn document(root: &str, inner: &Xml) -> Reply {
    let xml = format!("<{root} xmlns=\"{NAMESPACE}\">{}</{root}>", inner.as_str());
    Reply::new(StatusCode::OK, "application/xml", declared(&xml))
}

/// Tags as S3 writes them.
pub(super) fn tagging(tags: &BTreeMap<String, String>) -> Reply {
    let mut xml = Xml::default();
    xml.nest("TagSet", |set| {
        for (key, value) in tags {
            set.nest("Tag", |tag| {
                tag.element("Key", key).element("Value", value);
            });
        }
    });
    document("Tagging", &xml)
}

/// Tags as S3 reads them.
pub(super) fn tags_of(body: &[u8], most: usize) -> Result<BTreeMap<String, String>, Refusal> {
    let root = Element::expect(body, "Tagging")?;
    let mut tags = BTreeMap::new();
    for tag in root.all("TagSet").flat_map(|set| set.all("Tag")) {
        let (key, value) = (tag.need("Key")?, tag.need("Value")?);
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Refusal::new(
                "InvalidTag",
                format!("Cannot provide multiple Tags with the same key: {key}"),
            ));
        }
    }
    if tags.len() > most {
        return Err(Refusal::new(
            "BadRequest",
            format!("There are {} tags; at most {most} may be", tags.len()),
        ));
    }
    Ok(tags)
}

impl<'a> Call<'a> {
    fn of(s3: &'a S3, request: &'a Request) -> Result<Self, Refusal> {
        let path = request.path.strip_prefix('/').unwrap_or(&request.path);
        let host = request.header(HOST.as_str()).unwrap_or_default();
        let (bucket, key) = if let Some(bucket) = virtual_bucket(host) {
            (bucket.to_owned(), path)
        } else {
            let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
            (decoded(bucket), key)
        };
        let key = percent_encoding::percent_decode_str(key)
            .decode_utf8()
            .map_err(|_| {
                Refusal::new(
                    "InvalidURI",
                    format!("Couldn't parse the specified URI: the key {key} is not UTF-8"),
                )
            })?
            .into_owned();
        Ok(Self {
            s3,
            request,
            bucket,
            key,
            query: request.query_pairs().into_iter().rev().collect(),
        })
    }

    fn answer(&self) -> Result<Reply, Refusal> {
        self.check_owner()?;
        if self.bucket.is_empty() {
            return match self.request.method {
                Method::GET | Method::HEAD => self.list_buckets(),
                _ => Err(self.unsupported()),
            };
        }
        let aspect = ASPECTS
            .into_iter()
            .find(|aspect| self.query.contains_key(*aspect));
        if self.key.is_empty() {
            self.on_bucket(aspect)
        } else {
            self.on_object(aspect)
        }
    }

    fn on_object(&self, aspect: Option<&str>) -> Result<Reply, Refusal> {
        if let Some(version) = self.query.get("versionId").filter(|version| *version != "null") {
            return Err(Refusal::new(
                "NoSuchVersion",
                format!(
                    "The specified version does not exist: {version}; the local endpoint keeps no versions"
                ),
            )
            .status(404));
        }
        match (self.request.method.as_str(), aspect) {
            (_, Some("partNumber" | "uploadId" | "uploads")) => uploads::answer(self),
            ("PUT", None) if self.request.header("x-amz-copy-source").is_some() => writing::copy(self),
            ("PUT", None) => writing::put(self),
            ("GET" | "HEAD", None | Some("versionId")) => reading::answer(self),
            ("DELETE", None | Some("versionId")) => {
                if self.request.headers.contains_key("if-match") {
                    return Err(Refusal::unsupported("S3", "DeleteObject with If-Match"));
                }
                self.s3.delete(&self.bucket, &self.key)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            ("GET", Some("tagging")) => {
                let object = self.s3.head(&self.bucket, &self.key)?;
                Ok(tagging(&object.described.tags))
            }
            ("PUT", Some("tagging")) => {
                let tags = tags_of(&self.request.body, 10)?;
                self.s3.tag_object(&self.bucket, &self.key, tags)?;
                Ok(Reply::empty(StatusCode::OK))
            }
            ("DELETE", Some("tagging")) => {
                self.s3.tag_object(&self.bucket, &self.key, BTreeMap::new())?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            ("GET", Some("acl")) => {
                self.s3.head(&self.bucket, &self.key)?;
                Ok(owned())
            }
            _ => Err(self.unsupported()),
        }
    }

    /// A number in the query, or what it is without.
    pub(super) fn number(&self, name: &'static str, without: usize) -> Result<usize, Refusal> {
        let Some(text) = self.query.get(name) else {
            return Ok(without);
        };
        text.parse().map_err(|_| {
            Refusal::new(
                "InvalidArgument",
                format!("Argument {name} must be an integer between 0 and 2147483647, not {text}"),
            )
        })
    }

    /// Checks that the caller expects the buckets' owner.
    fn check_owner(&self) -> Result<(), Refusal> {
        for header in [
            "x-amz-expected-bucket-owner",
            "x-amz-source-expected-bucket-owner",
        ] {
            if self.request.header(header).is_some_and(|owner| owner != ACCOUNT) {
                return Err(Refusal::new(
                    "AccessDenied",
                    format!("Access Denied: every bucket here belongs to account {ACCOUNT}, which is not what {header} says"),
                )
                .status(403));
            }
        }
        Ok(())
    }

    pub(super) fn unsupported(&self) -> Refusal {
        let aspect = ASPECTS
            .into_iter()
            .find(|aspect| self.query.contains_key(*aspect));
        let of = match (self.bucket.is_empty(), self.key.is_empty()) {
            (true, _) => "the account",
            (_, true) => "a bucket",
            _ => "an object",
        };
        let what = aspect.map_or_else(String::new, |aspect| format!("?{aspect}"));
        Refusal::unsupported("S3", &format!("{} {what} of {of}", self.request.method))
    }
}

/// The bucket that a host's name begins with, if it does.
fn virtual_bucket(host: &str) -> Option<&str> {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if host.starts_with("s3.") || host.starts_with("s3-") {
        return None;
    }
    let end = host
        .find(".s3.")
        .or_else(|| host.find(".s3-"))
        .or_else(|| host.strip_suffix(".localhost").map(str::len))?;
    Some(&host[..end]).filter(|bucket| !bucket.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_may_name_the_bucket() {
        for (host, bucket) in [
            ("127.0.0.1:4566", None),
            ("localhost:4566", None),
            ("localhost", None),
            ("[::1]:4566", None),
            ("s3.localhost:4566", None),
            ("s3.eu-west-1.amazonaws.com", None),
            ("bucket.localhost:4566", Some("bucket")),
            ("a.b.s3.localhost:4566", Some("a.b")),
            ("bucket.s3.eu-west-1.amazonaws.com", Some("bucket")),
            ("bucket.s3-eu-west-1.amazonaws.com", Some("bucket")),
            ("bucket.s3.localhost.localstack.cloud:4566", Some("bucket")),
            (".localhost", None),
            ("", None),
        ] {
            assert_eq!(virtual_bucket(host), bucket, "{host}");
        }
    }

    #[test]
    fn tags_are_read_once_each() {
        let tag = |key: &str| format!("<Tag><Key>{key}</Key><Value>v</Value></Tag>");
        let body = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        assert_eq!(tags_of(body(&tag("a")).as_bytes(), 10).unwrap().len(), 1);
        let twice = body(&(tag("a") + &tag("a")));
        assert_eq!(tags_of(twice.as_bytes(), 10).unwrap_err().code, "InvalidTag");
        let many = body(&(tag("a") + &tag("b")));
        assert_eq!(tags_of(many.as_bytes(), 1).unwrap_err().code, "BadRequest");
    }
}
