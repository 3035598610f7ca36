//! The checksums that an object may be sent with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use hyper::HeaderMap;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::wire::Refusal;

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// CRC-32, as zip files have it.
    Crc32,
    /// CRC-32 of Castagnoli.
    Crc32c,
    /// CRC-64 of `NVMe`: what S3 computes of its own accord.
    Crc64nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// Its name in S3.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The algorithm of a name.
    pub(super) fn of(name: &str) -> Result<Self, Refusal> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                Refusal::new(
                    "InvalidRequest",
                    format!("Checksum algorithm {name} is not supported: use CRC32, CRC32C, CRC64NVME, SHA1 or SHA256"),
                )
            })
    }

    /// The header that carries it.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The element that carries it.
    pub(super) const fn element(self) -> &'static str {
        match self {
            Self::Crc32 => "ChecksumCRC32",
            Self::Crc32c => "ChecksumCRC32C",
            Self::Crc64nvme => "ChecksumCRC64NVME",
            Self::Sha1 => "ChecksumSHA1",
            Self::Sha256 => "ChecksumSHA256",
        }
    }

    /// The checksum of some bytes, in Base64.
    pub(super) fn of_bytes(self, bytes: &[u8]) -> String {
        let crc = |algorithm| crc_fast::checksum(algorithm, bytes);
        match self {
            Self::Crc32 => STANDARD.encode((crc(CrcAlgorithm::Crc32IsoHdlc) as u32).to_be_bytes()),
            Self::Crc32c => STANDARD.encode((crc(CrcAlgorithm::Crc32Iscsi) as u32).to_be_bytes()),
            Self::Crc64nvme => STANDARD.encode(crc(CrcAlgorithm::Crc64Nvme).to_be_bytes()),
            Self::Sha1 => STANDARD.encode(Sha1::digest(bytes)),
            Self::Sha256 => STANDARD.encode(Sha256::digest(bytes)),
        }
    }
}

/// A checksum of an object or a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// Its value in Base64; of one that is put together of those of the parts, with their number.
    pub value: String,
}

impl Checksum {
    /// Whether it is of the whole object or put together of those of its parts, in S3's words.
    pub(super) fn kind(&self) -> &'static str {
        if self.value.contains('-') {
            "COMPOSITE"
        } else {
            "FULL_OBJECT"
        }
    }

    /// The checksum that headers or trailers carry.
    pub(super) fn sent(headers: &HeaderMap) -> Option<Self> {
        Algorithm::ALL.into_iter().find_map(|algorithm| {
            let value = headers.get(algorithm.header())?.to_str().ok()?.to_owned();
            Some(Self { algorithm, value })
        })
    }

    /// The checksum of some bytes, which must be the one that was sent.
    pub(super) fn verified(sent: Option<Self>, bytes: &[u8]) -> Result<Self, Refusal> {
        let algorithm = sent.as_ref().map_or(Algorithm::Crc64nvme, |sent| sent.algorithm);
        let value = algorithm.of_bytes(bytes);
        match sent {
            Some(sent) if sent.value != value => Err(Refusal::new(
                "BadDigest",
                format!(
                    "The {} you specified did not match the calculated checksum: it says {}, and of what arrived it is {value}",
                    algorithm.name(),
                    sent.value
                ),
            )),
            _ => Ok(Self { algorithm, value }),
        }
    }

    /// The checksum of an object of parts, put together of theirs.
    pub(super) fn composite<'a>(
        algorithm: Algorithm,
        parts: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<Self, Refusal> {
        let count = parts.len();
        let mut all = Vec::new();
        for part in parts {
            all.extend(STANDARD.decode(part).map_err(|err| Refusal::internal(&err))?);
        }
        Ok(Self {
            algorithm,
            value: format!("{}-{count}", algorithm.of_bytes(&all)),
        })
    }
}

/// The MD5 of some bytes.
pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The MD5 of some bytes in hexadecimal.
pub(crate) fn md5_hex(bytes: &[u8]) -> String {
    hex(&md5(bytes))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Checks a body against the header `Content-MD5`.
pub(super) fn check_md5(header: Option<&str>, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(header) = header else { return Ok(()) };
    match STANDARD.decode(header) {
        Ok(sent) if sent.len() == 16 && sent == md5(bytes) => Ok(()),
        Ok(sent) if sent.len() == 16 => Err(Refusal::new(
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
        )),
        _ => Err(Refusal::new(
            "InvalidDigest",
            format!("The Content-MD5 you specified is not valid: {header} is not the Base64 of 16 bytes"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_gives_its_check_value() {
        // The check values of the CRCs' catalogue, and of the hashes' own standards.
        let of = |algorithm: Algorithm| hex(&STANDARD.decode(algorithm.of_bytes(b"123456789")).unwrap());
        assert_eq!(of(Algorithm::Crc32), "cbf43926");
        assert_eq!(of(Algorithm::Crc32c), "e3069283");
        assert_eq!(of(Algorithm::Crc64nvme), "ae8b14860a799888");
        assert_eq!(of(Algorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert_eq!(
            of(Algorithm::Sha256),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
        assert_eq!(md5_hex(b""), "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn a_checksum_that_does_not_fit_is_refused() {
        let sent = |value: &str| {
            Some(Checksum {
                algorithm: Algorithm::Crc32,
                value: value.into(),
            })
        };
        assert!(Checksum::verified(sent("y/Q5Jg=="), b"123456789").is_ok());
        let refused = Checksum::verified(sent("AAAAAA=="), b"123456789").unwrap_err();
        assert_eq!(refused.code, "BadDigest");
        let own = Checksum::verified(None, b"123456789").unwrap();
        assert_eq!((own.algorithm, own.kind()), (Algorithm::Crc64nvme, "FULL_OBJECT"));
        assert!(check_md5(Some("1B2M2Y8AsgTpgAmY7PhCfg=="), b"").is_ok());
        assert_eq!(
            check_md5(Some("1B2M2Y8AsgTpgAmY7PhCfg=="), b"x")
                .unwrap_err()
                .code,
            "BadDigest"
        );
        assert_eq!(check_md5(Some("short"), b"x").unwrap_err().code, "InvalidDigest");
        assert!(Algorithm::of("MD4").is_err());
    }

    #[test]
    fn checksums_of_parts_are_put_together() {
        let parts = ["y/Q5Jg==", "y/Q5Jg=="];
        let whole = Checksum::composite(Algorithm::Crc32, parts.into_iter()).unwrap();
        assert!(whole.value.ends_with("==-2"), "{}", whole.value);
        assert_eq!(whole.kind(), "COMPOSITE");
    }
}
