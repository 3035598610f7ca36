//! Bodies of uploads: plain, or in the chunks that SDKs send so that a checksum may follow the data.

use bytes::{Bytes, BytesMut};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::s3::checksum::{self, Checksum};
use crate::wire::{Refusal, Request};

/// The longest line between chunks: a size and a signature, or a trailer.
const LONGEST_LINE: usize = 4096;

/// The uploaded content.
#[derive(Debug)]
pub(super) struct Upload {
    /// The data.
    pub bytes: Bytes,
    /// Its checksum: the one sent, which fits, or else S3's own.
    pub checksum: Checksum,
}

impl Upload {
    /// Reads and checks the body of a request.
    pub(super) fn read(request: &Request) -> Result<Self, Refusal> {
        let (bytes, trailers) = decoded(request)?;
        checksum::check_md5(request.header("content-md5"), &bytes)?;
        let sent = Checksum::sent(&request.headers).or_else(|| Checksum::sent(&trailers));
        if let Some(announced) = request.header("x-amz-trailer")
            && announced.starts_with("x-amz-checksum-")
            && sent.is_none()
        {
            return Err(Refusal::new(
                "MalformedTrailerError",
                format!("the trailer {announced} was announced and did not follow"),
            ));
        }
        let checksum = Checksum::verified(sent, &bytes)?;
        Ok(Self { bytes, checksum })
    }
}

/// Whether the body comes in chunks of `aws-chunked`.
fn is_chunked(request: &Request) -> bool {
    let streaming = request
        .header("x-amz-content-sha256")
        .is_some_and(|hash| hash.starts_with("STREAMING-"));
    let encoded = request
        .header("content-encoding")
        .is_some_and(|encodings| encodings.split(',').any(|one| one.trim() == "aws-chunked"));
    streaming || encoded
}

/// The content encoding without that of the transfer.
pub(super) fn content_encoding(header: &str) -> Option<String> {
    let rest: Vec<&str> = header
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty() && *one != "aws-chunked")
        .collect();
    (!rest.is_empty()).then(|| rest.join(","))
}

fn decoded(request: &Request) -> Result<(Bytes, HeaderMap), Refusal> {
    if !is_chunked(request) {
        return Ok((request.body.clone(), HeaderMap::new()));
    }
    let (bytes, trailers) = unchunked(request.body.clone())?;
    if let Some(length) = request.header("x-amz-decoded-content-length")
        && length.parse() != Ok(bytes.len())
    {
        return Err(incomplete(&format!(
            "x-amz-decoded-content-length says {length}, and {} bytes arrived",
            bytes.len()
        )));
    }
    Ok((bytes, trailers))
}

/// Takes the chunks apart. Their signatures are not looked at.
fn unchunked(mut body: Bytes) -> Result<(Bytes, HeaderMap), Refusal> {
    let mut data = BytesMut::with_capacity(body.len());
    loop {
        let line = next_line(&mut body)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| incomplete(&format!("{line:?} is not the size of a chunk")))?;
        if size == 0 {
            break;
        }
        if body.len() < size {
            return Err(incomplete(&format!("a chunk has {} bytes of {size}", body.len())));
        }
        data.extend_from_slice(&body.split_to(size));
        if !next_line(&mut body)?.is_empty() {
            return Err(incomplete(&"a chunk does not end where it should"));
        }
    }
    let mut trailers = HeaderMap::new();
    while !body.is_empty() {
        let line = next_line(&mut body)?;
        if line.is_empty() {
            break;
        }
        let pair = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = pair.ok_or_else(|| incomplete(&format!("{line:?} is not a trailer")))?;
        trailers.insert(name, value);
    }
    Ok((data.freeze(), trailers))
}

/// Takes a line off, without its end. What follows the last line may lack one.
fn next_line(body: &mut Bytes) -> Result<String, Refusal> {
    let window = &body[..body.len().min(LONGEST_LINE)];
    let end = window
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| incomplete(&"a line between chunks does not end"))?;
    let line = body.split_to(end + 1);
    String::from_utf8(line.to_vec())
        .map(|line| line.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|err| incomplete(&err))
}

fn incomplete(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        "IncompleteBody",
        format!("The request body terminated unexpectedly: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;

    fn request(headers: &[(&'static str, &str)], body: &str) -> Request {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        Request {
            method: Method::PUT,
            path: "/bucket/key".into(),
            query: String::new(),
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    const TRAILED: [(&str, &str); 2] = [
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];

    #[test]
    fn chunks_are_joined_and_their_trailer_is_checked() {
        let body =
            "4\r\n1234\r\n5;chunk-signature=abc\r\n56789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
        let upload = Upload::read(&request(&TRAILED, body)).unwrap();
        assert_eq!(&*upload.bytes, b"123456789");
        assert_eq!(upload.checksum.value, "y/Q5Jg==");
        let wrong = body.replace("56789", "56780");
        assert_eq!(
            Upload::read(&request(&TRAILED, &wrong)).unwrap_err().code,
            "BadDigest"
        );
        let mut long = TRAILED.to_vec();
        long.push(("x-amz-decoded-content-length", "8"));
        assert_eq!(
            Upload::read(&request(&long, body)).unwrap_err().code,
            "IncompleteBody"
        );
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let body = "4\r\n1234\r\n0\r\nx-amz-checksum-crc32:m+PAAQ==\r\n\r\n";
        for end in 0..body.len() - 3 {
            assert!(
                Upload::read(&request(&TRAILED, &body[..end])).is_err(),
                "{:?}",
                &body[..end]
            );
        }
        for bad in [
            "-1\r\n",
            "ffffffffffffffffff\r\n",
            "zz\r\n",
            "2\r\nabcd\r\n0\r\n\r\n",
        ] {
            assert!(Upload::read(&request(&TRAILED, bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn plain_bodies_are_taken_as_they_are() {
        let upload = Upload::read(&request(&[], "123456789")).unwrap();
        assert_eq!(&*upload.bytes, b"123456789");
        assert_eq!(content_encoding("gzip, aws-chunked").as_deref(), Some("gzip"));
        assert_eq!(content_encoding("aws-chunked"), None);
    }
}
