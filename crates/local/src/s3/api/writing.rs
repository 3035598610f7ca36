//! Objects as they are written, copied and deleted.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::answers::document;
use super::body::{self, Upload};
use super::call::Call;
use super::reading;
use crate::clock;
use crate::s3::checksum::{Algorithm, Checksum, md5_hex};
use crate::s3::conditions::{self, WriteConditions};
use crate::s3::objects::{Described, NewObject, Object};
use crate::s3::xml::Element;
use crate::wire::{Refusal, Reply, Request, Xml, decoded};

/// Headers of an upload that are given back with the object.
const KEPT: [&str; 5] = [
    "cache-control",
    "content-disposition",
    "content-language",
    "content-type",
    "expires",
];

/// The most bytes of names and values of an uploader's own metadata.
const MOST_METADATA: usize = 2048;

/// The storage classes that can be asked for.
const CLASSES: [&str; 8] = [
    "DEEP_ARCHIVE",
    "GLACIER",
    "GLACIER_IR",
    "INTELLIGENT_TIERING",
    "ONEZONE_IA",
    "REDUCED_REDUNDANCY",
    "STANDARD",
    "STANDARD_IA",
];

/// Beginnings of headers that ask for what is not there.
const UNKNOWN: [&str; 4] = [
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption-",
    "x-amz-website-redirect-location",
];

/// The most objects that one request deletes.
const MOST_DELETED: usize = 1000;

/// Answers `PutObject`.
pub(super) fn put(call: &Call<'_>) -> Result<Reply, Refusal> {
    let described = described(call.request)?;
    let conditions = WriteConditions::of(call.request)?;
    let upload = Upload::read(call.request)?;
    let object = NewObject {
        bucket: &call.bucket,
        key: &call.key,
        bytes: &upload.bytes,
        etag: md5_hex(&upload.bytes),
        checksum: upload.checksum,
        described,
    };
    let object = call.s3.write(object, &conditions)?;
    let mut reply = Reply::empty(StatusCode::OK);
    written(&object, &mut reply);
    Ok(reply)
}

/// The headers that describe an object just written.
pub(super) fn written(object: &Object, reply: &mut Reply) {
    reading::set(&mut reply.headers, "etag", &format!("\"{}\"", object.etag));
    reading::set(&mut reply.headers, "x-amz-server-side-encryption", "AES256");
    reading::checksum(object, &mut reply.headers);
}

/// Answers `CopyObject`.
pub(super) fn copy(call: &Call<'_>) -> Result<Reply, Refusal> {
    let request = call.request;
    let (bucket, key) = source(request)?;
    let new = directive(request, "x-amz-metadata-directive")?;
    let new_tags = directive(request, "x-amz-tagging-directive")?;
    let said = described(request)?;
    let conditions = WriteConditions::of(request)?;
    if (&bucket, &key) == (&call.bucket, &call.key) && !new && said.storage_class.is_none() {
        return Err(Refusal::new(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata or storage class.",
        ));
    }
    let (old, bytes) = call.s3.read(&bucket, &key, |object| {
        conditions::check_read(request, "x-amz-copy-source-", &object.etag, object.modified_ms)?;
        Ok(None)
    })?;
    let mut described = Described {
        storage_class: said.storage_class.clone(),
        ..old.described.clone()
    };
    if new {
        described.headers = said.headers;
        described.metadata = said.metadata;
    }
    if new_tags {
        described.tags = said.tags;
    }
    let algorithm = match request.header("x-amz-checksum-algorithm") {
        Some(name) => Some(Algorithm::of(name)?),
        // What is put together of parts is computed anew, since the copy has none.
        None => (old.checksum.kind() == "COMPOSITE").then_some(old.checksum.algorithm),
    };
    let checksum = match algorithm {
        Some(algorithm) => Checksum {
            algorithm,
            value: algorithm.of_bytes(&bytes),
        },
        None => old.checksum,
    };
    let object = NewObject {
        bucket: &call.bucket,
        key: &call.key,
        bytes: &bytes,
        etag: md5_hex(&bytes),
        checksum,
        described,
    };
    let object = call.s3.write(object, &conditions)?;
    let mut xml = Xml::default();
    xml.element("LastModified", &clock::iso(object.modified_ms))
        .element("ETag", &format!("\"{}\"", object.etag))
        .element(object.checksum.algorithm.element(), &object.checksum.value)
        .element("ChecksumType", object.checksum.kind());
    Ok(document("CopyObjectResult", &xml).with("x-amz-server-side-encryption", "AES256"))
}

/// The bucket and key that a copy is made from.
pub(super) fn source(request: &Request) -> Result<(String, String), Refusal> {
    let header = request.header("x-amz-copy-source").unwrap_or_default();
    let (path, version) = header.split_once("?versionId=").unwrap_or((header, "null"));
    let path = decoded(path.trim_start_matches('/'));
    match path.split_once('/') {
        Some((bucket, key)) if !key.is_empty() && version == "null" => {
            Ok((bucket.to_owned(), key.to_owned()))
        }
        _ => Err(Refusal::new(
            "InvalidArgument",
            format!(
                "Copy Source must mention the source bucket and key, without a version: bucket/key, not {header}"
            ),
        )),
    }
}

/// Whether what the request says counts in place of what the source has.
fn directive(request: &Request, name: &str) -> Result<bool, Refusal> {
    match request.header(name) {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => Err(Refusal::new(
            "InvalidArgument",
            format!("{name} must be COPY or REPLACE, not {other}"),
        )),
    }
}

/// Answers `DeleteObjects`.
pub(super) fn delete_many(call: &Call<'_>) -> Result<Reply, Refusal> {
    let upload = Upload::read(call.request)?;
    let delete = Element::expect(&upload.bytes, "Delete")?;
    let quiet = delete.get("Quiet") == Some("true");
    if delete.all("Object").count() > MOST_DELETED {
        return Err(Refusal::new(
            "MalformedXML",
            format!("a request deletes at most {MOST_DELETED} objects"),
        ));
    }
    let mut xml = Xml::default();
    for object in delete.all("Object") {
        let key = object.need("Key")?;
        match delete_one(call, key, object) {
            Ok(()) if quiet => {}
            Ok(()) => {
                xml.nest("Deleted", |deleted| {
                    deleted.element("Key", key);
                });
            }
            // Of the bucket, it concerns all of them.
            Err(refusal) if refusal.code == "NoSuchBucket" => return Err(refusal),
            Err(refusal) => {
                xml.nest("Error", |error| {
                    error
                        .element("Key", key)
                        .element("Code", &refusal.code)
                        .element("Message", &refusal.message);
                });
            }
        }
    }
    Ok(document("DeleteResult", &xml))
}

fn delete_one(call: &Call<'_>, key: &str, object: &Element) -> Result<(), Refusal> {
    let unknown = object.children.iter().find(|child| {
        child.name != "Key" && !(child.name == "VersionId" && matches!(&*child.text, "null" | ""))
    });
    if let Some(unknown) = unknown {
        return Err(Refusal::unsupported(
            "S3",
            &format!("DeleteObjects with {}", unknown.name),
        ));
    }
    call.s3.delete(&call.bucket, key).map(|_| ())
}

/// The attributes of the written object in a request. Unsupported attributes of S3 are refused by name.
pub(super) fn described(request: &Request) -> Result<Described, Refusal> {
    refuse_unknown(request)?;
    let mut described = Described::default();
    let mut size = 0;
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if KEPT.contains(&name.as_str()) {
            described.headers.insert(name.as_str().to_owned(), value);
        } else if name == "content-encoding" {
            if let Some(encoding) = body::content_encoding(&value) {
                described.headers.insert(name.as_str().to_owned(), encoding);
            }
        } else if let Some(name) = name.as_str().strip_prefix("x-amz-meta-") {
            size += name.len() + value.len();
            described.metadata.insert(name.to_owned(), value);
        }
    }
    if size > MOST_METADATA {
        return Err(Refusal::new(
            "MetadataTooLarge",
            format!("Your metadata headers have {size} bytes; at most {MOST_METADATA} may be"),
        ));
    }
    match request.header("x-amz-storage-class") {
        None | Some("STANDARD") => {}
        Some(class) if CLASSES.contains(&class) => described.storage_class = Some(class.to_owned()),
        Some(class) => {
            return Err(Refusal::new(
                "InvalidStorageClass",
                format!(
                    "The storage class {class} is not valid; use one of {}",
                    CLASSES.join(", ")
                ),
            ));
        }
    }
    if let Some(tags) = request.header("x-amz-tagging") {
        described.tags = form_urlencoded::parse(tags.as_bytes())
            .into_owned()
            .collect::<BTreeMap<_, _>>();
    }
    Ok(described)
}

fn refuse_unknown(request: &Request) -> Result<(), Refusal> {
    if let Some(acl) = request.header("x-amz-acl")
        && !matches!(acl, "bucket-owner-full-control" | "private")
    {
        return Err(Refusal::new(
            "AccessControlListNotSupported",
            format!("The bucket does not allow ACLs: {acl}"),
        ));
    }
    if let Some(encryption) = request.header("x-amz-server-side-encryption")
        && encryption != "AES256"
    {
        return Err(Refusal::unsupported(
            "S3",
            &format!("encryption with {encryption}"),
        ));
    }
    let unknown = request
        .headers
        .keys()
        .find(|name| UNKNOWN.iter().any(|unknown| name.as_str().starts_with(unknown)));
    match unknown {
        Some(name) => Err(Refusal::unsupported("S3", &format!("header {name}"))),
        None => Ok(()),
    }
}
