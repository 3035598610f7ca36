//! Objects as they are read: whole or in part, if their conditions hold.

use std::ops::Range;

use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::call::Call;
use crate::clock;
use crate::s3::conditions;
use crate::s3::objects::Object;
use crate::wire::{Refusal, Reply};

/// Headers of the answer that a parameter of the query may set.
const OVERRIDES: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

/// Answers GET and HEAD.
pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let request = call.request;
    let mut range = None;
    let mut choose = |object: &Object| {
        conditions::check_read(request, "", &object.etag, object.modified_ms)?;
        range = match request.header("range") {
            Some(header) => range_of(header, object.size)?,
            None => None,
        };
        Ok(range.clone())
    };
    let (object, body) = if request.method == Method::HEAD {
        let object = call.s3.head(&call.bucket, &call.key)?;
        choose(&object)?;
        (object, bytes::Bytes::new())
    } else {
        call.s3.read(&call.bucket, &call.key, choose)?
    };
    let mut reply = Reply::empty(StatusCode::OK);
    describe(&object, &mut reply.headers);
    for name in OVERRIDES {
        if let Some(value) = call.query.get(&format!("response-{name}")) {
            set(&mut reply.headers, name, value);
        }
    }
    let mut length = object.size;
    if let Some(range) = &range {
        reply.status = StatusCode::PARTIAL_CONTENT;
        length = range.end - range.start;
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
        set(&mut reply.headers, "content-range", &text);
    } else if request
        .header("x-amz-checksum-mode")
        .is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"))
    {
        checksum(&object, &mut reply.headers);
    }
    // HEAD says it too, though no body follows.
    reply.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    reply.body = body;
    Ok(reply)
}

/// The headers that describe an object.
fn describe(object: &Object, headers: &mut HeaderMap) {
    set(headers, "content-type", "binary/octet-stream");
    for (name, value) in &object.described.headers {
        set(headers, name, value);
    }
    for (name, value) in &object.described.metadata {
        set(headers, &format!("x-amz-meta-{name}"), value);
    }
    set(headers, "etag", &format!("\"{}\"", object.etag));
    set(headers, "last-modified", &clock::http(object.modified_ms));
    set(headers, "accept-ranges", "bytes");
    set(headers, "x-amz-server-side-encryption", "AES256");
    if let Some(class) = &object.described.storage_class {
        set(headers, "x-amz-storage-class", class);
    }
    if !object.described.tags.is_empty() {
        set(
            headers,
            "x-amz-tagging-count",
            &object.described.tags.len().to_string(),
        );
    }
}

/// The headers with an object's checksum.
pub(super) fn checksum(object: &Object, headers: &mut HeaderMap) {
    set(
        headers,
        object.checksum.algorithm.header(),
        &object.checksum.value,
    );
    set(headers, "x-amz-checksum-type", object.checksum.kind());
}

/// Sets a header, unless it cannot be one.
pub(super) fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (
        HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_bytes(value.as_bytes()),
    ) {
        headers.insert(name, value);
    }
}

/// The bytes that a header `Range` asks for; `None` means all, as for several ranges or a unit that is not bytes.
pub(super) fn range_of(header: &str, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let Some((first, last)) = header
        .strip_prefix("bytes=")
        .filter(|ranges| !ranges.contains(','))
        .and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..size,
        (Err(_), Ok(count)) if first.trim().is_empty() => size.saturating_sub(count)..size,
        _ => return Ok(None),
    };
    if range.is_empty() {
        return Err(Refusal::new(
            "InvalidRange",
            format!("The requested range is not satisfiable: {header} of {size} bytes"),
        )
        .status(416));
    }
    Ok(Some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        let of = |header: &str| range_of(header, 10).map_err(|refusal| refusal.status);
        assert_eq!(of("bytes=0-0"), Ok(Some(0..1)));
        assert_eq!(of("bytes=2-5"), Ok(Some(2..6)));
        assert_eq!(of("bytes=8-99"), Ok(Some(8..10)));
        assert_eq!(of("bytes=0-18446744073709551615"), Ok(Some(0..10)));
        assert_eq!(of("bytes=4-"), Ok(Some(4..10)));
        assert_eq!(of("bytes=-3"), Ok(Some(7..10)));
        assert_eq!(of("bytes=-30"), Ok(Some(0..10)));
        for unsatisfiable in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
            assert_eq!(of(unsatisfiable), Err(416), "{unsatisfiable}");
        }
        for whole in [
            "bytes=5-2",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=a-b",
            "bytes=-",
            "bytes=",
        ] {
            assert_eq!(of(whole), Ok(None), "{whole}");
        }
        assert_eq!(range_of("bytes=0-", 0).unwrap_err().status, 416);
    }
}
