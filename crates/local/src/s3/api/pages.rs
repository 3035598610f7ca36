//! Listings of objects, in the first and the second form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::answers::document;
use super::call::Call;
use crate::clock;
use crate::s3::listing::{Listing, Page};
use crate::wire::{ACCOUNT, Refusal, Reply, Xml};

/// The most that a page holds.
const MOST: usize = 1000;

/// The encoding of keys, if the caller requests one.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// Answers `ListObjects` and `ListObjectsV2`.
pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let get = |name: &str| call.query.get(name).filter(|value| !value.is_empty()).cloned();
    let second = match call.query.get("list-type").map(String::as_str) {
        None => false,
        Some("2") => true,
        Some(other) => {
            return Err(Refusal::new(
                "InvalidArgument",
                format!("list-type must be 2, not {other}"),
            ));
        }
    };
    let encoded = match get("encoding-type").as_deref() {
        None => false,
        Some("url") => true,
        Some(other) => {
            return Err(Refusal::new(
                "InvalidArgument",
                format!("Invalid Encoding Method specified in Request: {other}; use url"),
            ));
        }
    };
    let token = get("continuation-token");
    let after = match (second, &token) {
        (false, _) => get("marker"),
        (true, Some(token)) => Some(read_token(token)?),
        (true, None) => get("start-after"),
    };
    let asked = call.number("max-keys", MOST)?;
    let listing = Listing {
        prefix: get("prefix").unwrap_or_default(),
        delimiter: get("delimiter"),
        after,
        limit: asked.min(MOST),
    };
    let page = call.s3.list(&call.bucket, &listing)?;
    let show = |text: &str| shown(encoded, text);
    let mut xml = Xml::default();
    xml.element("Name", &call.bucket)
        .element("Prefix", &show(&listing.prefix))
        .element("MaxKeys", &asked.to_string())
        .optional("Delimiter", listing.delimiter.as_deref().map(show).as_deref())
        .optional("EncodingType", encoded.then_some("url"))
        .element("IsTruncated", if page.next.is_some() { "true" } else { "false" });
    if second {
        let next = page.next.as_ref().map(|next| URL_SAFE_NO_PAD.encode(next));
        xml.element("KeyCount", &(page.objects.len() + page.folders.len()).to_string())
            .optional("ContinuationToken", token.as_deref())
            .optional("StartAfter", get("start-after").as_deref().map(show).as_deref())
            .optional("NextContinuationToken", next.as_deref());
    } else {
        xml.element("Marker", &show(&get("marker").unwrap_or_default()));
        // Without folders the last key says where to continue.
        let next = page.next.as_deref().filter(|_| listing.delimiter.is_some());
        xml.optional("NextMarker", next.map(show).as_deref());
    }
    let owner = !second || get("fetch-owner").as_deref() == Some("true");
    contents(&mut xml, &page, owner, show);
    Ok(document("ListBucketResult", &xml))
}

/// A key as it is shown: encoded, if the caller asks for it.
fn shown(encoded: bool, text: &str) -> String {
    if encoded {
        utf8_percent_encode(text, ENCODED).to_string()
    } else {
        text.to_owned()
    }
}

fn contents(xml: &mut Xml, page: &Page, owner: bool, show: impl Fn(&str) -> String) {
    for object in &page.objects {
        xml.nest("Contents", |entry| {
            entry
                .element("Key", &show(&object.key))
                .element("LastModified", &clock::iso(object.modified_ms))
                .element("ETag", &format!("\"{}\"", object.etag))
                .element("ChecksumAlgorithm", object.checksum.algorithm.name())
                .element("ChecksumType", object.checksum.kind())
                .element("Size", &object.size.to_string())
                .element(
                    "StorageClass",
                    object.described.storage_class.as_deref().unwrap_or("STANDARD"),
                );
            if owner {
                entry.nest("Owner", |owner| {
                    owner.element("ID", ACCOUNT);
                });
            }
        });
    }
    for folder in &page.folders {
        xml.nest("CommonPrefixes", |entry| {
            entry.element("Prefix", &show(folder));
        });
    }
}

fn read_token(token: &str) -> Result<String, Refusal> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| {
            Refusal::new(
                "InvalidArgument",
                format!("The continuation token provided is incorrect: {token}"),
            )
        })
}
