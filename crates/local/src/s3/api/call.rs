//! Which bucket, key and aspect of them a request is for.

use std::collections::BTreeMap;

use hyper::header::HOST;

use crate::s3::S3;
use crate::wire::{ACCOUNT, Refusal, Request, decoded};

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

impl<'a> Call<'a> {
    pub(super) fn of(s3: &'a S3, request: &'a Request) -> Result<Self, Refusal> {
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
    pub(super) fn check_owner(&self) -> Result<(), Refusal> {
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

    /// What is asked of the bucket or the object beside itself.
    pub(super) fn aspect(&self) -> Option<&'static str> {
        ASPECTS
            .into_iter()
            .find(|aspect| self.query.contains_key(*aspect))
    }

    /// The refusal of an operation that is not there.
    pub(super) fn unsupported(&self) -> Refusal {
        let aspect = self.aspect();
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
}
