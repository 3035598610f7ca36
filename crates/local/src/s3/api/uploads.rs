//! Uploads in parts, as requests ask for them.

use hyper::StatusCode;

use super::answers::document;
use super::body::Upload;
use super::call::Call;
use super::{reading, writing};
use crate::clock;
use crate::s3::checksum::{Algorithm, Checksum};
use crate::s3::conditions::{self, WriteConditions};
use crate::s3::multipart::NamedPart;
use crate::s3::xml::Element;
use crate::wire::{Refusal, Reply, Xml};

/// Answers what is asked of an object with `uploads`, `uploadId` or `partNumber`.
pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let id = call.query.get("uploadId");
    let number = call.query.get("partNumber");
    match (call.request.method.as_str(), id, number) {
        ("POST", None, None) => start(call),
        ("PUT", Some(id), Some(number)) => part(call, id, number),
        ("POST", Some(id), None) => complete(call, id),
        ("DELETE", Some(id), None) => {
            let started = call.s3.started(id, &call.bucket, &call.key)?;
            call.s3.abort(&started)?;
            Ok(Reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(call.unsupported()),
    }
}

fn start(call: &Call<'_>) -> Result<Reply, Refusal> {
    let described = writing::described(call.request)?;
    let algorithm = match call.request.header("x-amz-checksum-algorithm") {
        Some(name) => Algorithm::of(name)?,
        None => Algorithm::Crc64nvme,
    };
    let whole = match (call.request.header("x-amz-checksum-type"), algorithm) {
        (None | Some("FULL_OBJECT"), Algorithm::Crc64nvme)
        | (Some("FULL_OBJECT"), Algorithm::Crc32 | Algorithm::Crc32c) => true,
        (None | Some("COMPOSITE"), _) if algorithm != Algorithm::Crc64nvme => false,
        (kind, _) => {
            return Err(Refusal::new(
                "InvalidRequest",
                format!(
                    "The {} checksum type cannot be used with the {} checksum algorithm.",
                    kind.unwrap_or_default(),
                    algorithm.name()
                ),
            ));
        }
    };
    let started = call
        .s3
        .start(&call.bucket, &call.key, described, algorithm, whole)?;
    let mut xml = Xml::default();
    xml.element("Bucket", &started.bucket)
        .element("Key", &started.key)
        .element("UploadId", &started.id);
    Ok(document("InitiateMultipartUploadResult", &xml)
        .with("x-amz-checksum-algorithm", algorithm.name())
        .with(
            "x-amz-checksum-type",
            if whole { "FULL_OBJECT" } else { "COMPOSITE" },
        )
        .with("x-amz-server-side-encryption", "AES256"))
}

fn part(call: &Call<'_>, id: &str, number: &str) -> Result<Reply, Refusal> {
    let started = call.s3.started(id, &call.bucket, &call.key)?;
    let number = number.parse().map_err(|_| {
        Refusal::new(
            "InvalidArgument",
            format!("Part number must be an integer, not {number}"),
        )
    })?;
    if call.request.header("x-amz-copy-source").is_none() {
        let upload = Upload::read(call.request)?;
        let part = call
            .s3
            .take_part(&started, number, &upload.bytes, upload.checksum)?;
        return Ok(Reply::empty(StatusCode::OK)
            .with("etag", &format!("\"{}\"", part.etag))
            .with(part.checksum.algorithm.header(), &part.checksum.value)
            .with("x-amz-server-side-encryption", "AES256"));
    }
    let (bucket, key) = writing::source(call.request)?;
    let (_, bytes) = call.s3.read(&bucket, &key, |object| {
        conditions::check_read(
            call.request,
            "x-amz-copy-source-",
            &object.etag,
            object.modified_ms,
        )?;
        match call.request.header("x-amz-copy-source-range") {
            Some(range) => reading::range_of(range, object.size),
            None => Ok(None),
        }
    })?;
    let checksum = Checksum::verified(None, &bytes)?;
    let part = call.s3.take_part(&started, number, &bytes, checksum)?;
    let mut xml = Xml::default();
    xml.element("LastModified", &clock::iso(part.modified_ms))
        .element("ETag", &format!("\"{}\"", part.etag))
        .element(part.checksum.algorithm.element(), &part.checksum.value);
    Ok(document("CopyPartResult", &xml))
}

fn complete(call: &Call<'_>, id: &str) -> Result<Reply, Refusal> {
    let started = call.s3.started(id, &call.bucket, &call.key)?;
    let root = Element::expect(&call.request.body, "CompleteMultipartUpload")?;
    let mut named = Vec::new();
    for part in root.all("Part") {
        let number = part.need("PartNumber")?;
        named.push(NamedPart {
            number: number.parse().map_err(|_| {
                Refusal::new(
                    "MalformedXML",
                    format!("PartNumber must be a number, not {number}"),
                )
            })?,
            etag: part.need("ETag")?.trim_matches('"').to_owned(),
            checksum: part.get(started.algorithm.element()).map(str::to_owned),
        });
    }
    let conditions = WriteConditions::of(call.request)?;
    let expected = Checksum::sent(&call.request.headers);
    let object = call
        .s3
        .complete(&started, &named, &conditions, expected.as_ref())?;
    let mut xml = Xml::default();
    xml.element("Location", &format!("/{}/{}", call.bucket, call.key))
        .element("Bucket", &call.bucket)
        .element("Key", &call.key)
        .element("ETag", &format!("\"{}\"", object.etag))
        .element(object.checksum.algorithm.element(), &object.checksum.value)
        .element("ChecksumType", object.checksum.kind());
    Ok(document("CompleteMultipartUploadResult", &xml).with("x-amz-server-side-encryption", "AES256"))
}
