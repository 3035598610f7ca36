//! Who may ask: bearer tokens, and certificates of clients.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::files;

/// What clients must show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Auth {
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// Whether a certificate that the authority of the options has signed is needed.
    pub(crate) needs_certificate: bool,
}

/// Whether the peer of a connection has shown a certificate that was verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HasCertificate(pub(crate) bool);

impl Auth {
    /// Whether every client may ask.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_none() && !self.needs_certificate
    }

    /// Checks a request.
    ///
    /// # Errors
    /// What is missing. It does not say which part of a token is wrong.
    pub(crate) fn check(&self, headers: &HeaderMap, peer: HasCertificate) -> Result<(), &'static str> {
        if self.needs_certificate && !peer.0 {
            return Err("a client certificate is required");
        }
        match &self.tokens {
            Some(tokens) if !tokens.admit(headers) => Err("a valid bearer token is required"),
            _ => Ok(()),
        }
    }
}

type Hash = [u8; 32];

/// The hashes of tokens that are admitted, from a file.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    hashes: RwLock<Vec<Hash>>,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or has a line that is not a hash, or no hash.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            hashes: RwLock::new(read(path)?),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again. If it is bad, the old hashes stay.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let hashes = read(&self.path)?;
        *self.hashes.write().unwrap_or_else(PoisonError::into_inner) = hashes;
        Ok(())
    }

    fn admit(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (given.next(), given.next()) else {
            return false;
        };
        let token = field
            .as_bytes()
            .split_at_checked(b"bearer ".len())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token.trim_ascii());
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return false;
        };
        let hash: Hash = Sha256::digest(token).into();
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        // All of them, so that the time does not say which one is near.
        hashes
            .iter()
            .fold(false, |found, known| found | is_same(known, &hash))
    }
}

/// Compares in constant time.
fn is_same(a: &Hash, b: &Hash) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

fn read(path: &Path) -> Result<Vec<Hash>, Error> {
    let wrong = |reason: String| Error::File {
        option: "--token-file",
        path: path.to_owned(),
        reason,
    };
    let mut hashes = Vec::new();
    for (number, line) in files::lines(path).map_err(wrong)? {
        let word = line.split_whitespace().next().unwrap_or_default();
        let hash = hash(word.strip_prefix("sha256:").unwrap_or(word));
        // The line may be a token by mistake, and is not shown.
        let hash = hash.ok_or_else(|| {
            wrong(format!(
                "line {number} must begin with the SHA-256 of a token, as 64 hexadecimal digits"
            ))
        })?;
        hashes.push(hash);
    }
    if hashes.is_empty() {
        return Err(wrong(
            "it has no token; a line is the SHA-256 of one, which 'printf %s TOKEN | sha256sum' prints"
                .to_owned(),
        ));
    }
    Ok(hashes)
}

fn hash(digits: &str) -> Option<Hash> {
    let bytes = digits.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(bytes.chunks(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_digits() {
        let digits = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(hash(digits), Some(Sha256::digest(b"secret").into()));
        assert_eq!(hash(&digits.to_uppercase()), hash(digits));
        assert_eq!(hash(&digits[1..]), None);
        assert_eq!(hash(&digits.replace('2', "g")), None);
        assert_eq!(hash(&"é".repeat(32)), None);
    }
}
