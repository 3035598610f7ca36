//! Leases as texts that clients hold: signed, so that a client cannot make one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zae_limiter::DetachedLease;

use crate::error::Error;
use crate::files;

/// The fewest bytes of a key.
const SHORTEST: usize = 32;

/// Begins every lease, with the version of its form.
const PREFIX: &str = "zl1.";

type Key = Arc<[u8]>;

/// The keys that sign leases: the first signs, and all are accepted, so that keys can be replaced one by one.
#[derive(Debug)]
pub struct LeaseKeys {
    path: Option<PathBuf>,
    keys: RwLock<Vec<Key>>,
}

impl LeaseKeys {
    /// A key that only this process has: its leases cannot be ended by another server, or after it has ended.
    pub fn random() -> Self {
        let mut key = [0; SHORTEST];
        // Without the system's random numbers, TLS would not start either.
        let is_random = getrandom::fill(&mut key).is_ok();
        Self {
            path: None,
            // No key: nothing is signed, and nothing accepted.
            keys: RwLock::new(if is_random {
                vec![Key::from(&key[..])]
            } else {
                Vec::new()
            }),
        }
    }

    /// Reads keys from a file: one on each line, of at least 32 characters. Empty lines, and what follows `#`, are left out.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or has one that is too short.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: Some(path.to_owned()),
            keys: RwLock::new(read(path)?),
        })
    }

    /// The file that they are from.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads the file again. If it is bad, the old keys stay.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        if let Some(path) = &self.path {
            let keys = read(path)?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        Ok(())
    }

    /// A lease for a client.
    pub(crate) fn sign(&self, lease: &DetachedLease) -> Option<String> {
        let payload = BASE64.encode(lease.encode());
        let key = self.keys().first().cloned()?;
        let signature = BASE64.encode(mac(&key, &payload)?.finalize().into_bytes());
        Some(format!("{PREFIX}{payload}.{signature}"))
    }

    /// The lease that a client holds; `None` if this service has not issued it.
    pub(crate) fn verify(&self, text: &str) -> Option<DetachedLease> {
        let (payload, signature) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        let is_of = |key: &Key| mac(key, payload).is_some_and(|mac| mac.verify_slice(&signature).is_ok());
        self.keys().iter().any(is_of).then_some(())?;
        let payload = BASE64.decode(payload).ok()?;
        DetachedLease::decode(str::from_utf8(&payload).ok()?).ok()
    }

    fn keys(&self) -> Vec<Key> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The code of a text, compared in constant time by [`Mac::verify_slice`](hmac::Mac::verify_slice).
fn mac(key: &[u8], text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(PREFIX.as_bytes());
    mac.update(text.as_bytes());
    Some(mac)
}

fn read(path: &Path) -> Result<Vec<Key>, Error> {
    let wrong = |reason: String| Error::File {
        option: "--lease-keys",
        path: path.to_owned(),
        reason,
    };
    let mut keys = Vec::new();
    for (number, key) in files::lines(path).map_err(wrong)? {
        if key.len() < SHORTEST {
            // The key is not shown.
            return Err(wrong(format!(
                "the key on line {number} must have at least {SHORTEST} characters"
            )));
        }
        keys.push(Key::from(key.as_bytes()));
    }
    if keys.is_empty() {
        return Err(wrong(
            "it has no key; 'openssl rand -hex 32' prints one".to_owned(),
        ));
    }
    Ok(keys)
}
