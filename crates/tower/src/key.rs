//! Where an entity or a resource comes from: constants, header fields, tokens, paths and addresses.
//!
//! A [closure](Key#impl-Key-for-F) serves for everything else, such as what an authentication layer has put into the extensions of the request:
//!
//! ```
//! use http::request::Parts;
//! use zae_limiter_tower::{Rejection, Rules};
//!
//! #[derive(Clone)]
//! struct Tenant(String);
//!
//! let rules = Rules::new(
//!     |request: &Parts| match request.extensions.get::<Tenant>() {
//!         Some(Tenant(id)) => Ok(id.clone()),
//!         None => Err(Rejection::unauthenticated("sign in first")),
//!     },
//!     "api",
//! );
//! # let _ = rules;
//! ```

mod bearer;
mod header;
mod path;
mod peer;

use std::borrow::Cow;

use http::request::Parts;
use sha2::{Digest as _, Sha256};

pub use bearer::{Bearer, bearer};
pub use header::{Header, header};
pub use path::{Segment, segment};
pub use peer::{Peer, PeerAddr, peer};

use crate::rejection::Rejection;

/// Finds a name in a request.
///
/// Names that the limiter cannot have, such as ones with other characters than letters, digits and `_.-:@`, are answered with
/// status 400 by the layer.
pub trait Key: Send + Sync + 'static {
    /// The name.
    ///
    /// # Errors
    /// A [`Rejection`], with which the request is answered.
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection>;
}

/// The same name for all requests.
impl Key for &'static str {
    fn key<'r>(&'r self, _: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        Ok(Cow::Borrowed(self))
    }
}

/// The same name for all requests.
impl Key for String {
    fn key<'r>(&'r self, _: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        Ok(Cow::Borrowed(self))
    }
}

/// A function of the head of the request.
impl<F> Key for F
where
    F: Fn(&Parts) -> Result<String, Rejection> + Send + Sync + 'static,
{
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        self(request).map(Cow::Owned)
    }
}

/// `sha256:` and the SHA-256 of a secret in hexadecimal: a name that does not reveal the secret.
///
/// An operator gets the same from a shell: `printf %s "$KEY" | sha256sum`.
///
/// ```
/// assert_eq!(
///     zae_limiter_tower::key::hashed("secret"),
///     "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
/// );
/// ```
pub fn hashed(secret: impl AsRef<[u8]>) -> String {
    let digest = Sha256::digest(secret.as_ref());
    let mut name = String::with_capacity(7 + 2 * digest.len());
    name.push_str("sha256:");
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit & 15)]);
    for byte in digest {
        name.extend([digit(byte >> 4), digit(byte)]);
    }
    name
}
