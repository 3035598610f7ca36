//! A bearer token as a key.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::header::only;
use super::{Key, hashed};
use crate::rejection::Rejection;

/// The hash of a bearer token: see [`bearer`].
#[derive(Debug, Clone)]
pub struct Bearer {
    challenge: HeaderValue,
}

/// The [hash](super::hashed) of the token of `Authorization: Bearer ...`. A request without one is answered with status 401 and `WWW-Authenticate: Bearer`,
/// one with two such fields with 400.
///
/// This does not authenticate: a token that was made up has a bucket of its own. Check tokens in a layer in front of this one, or
/// configure no defaults, so that only entities with limits are admitted.
pub fn bearer() -> Bearer {
    Bearer {
        challenge: HeaderValue::from_static("Bearer"),
    }
}

impl Default for Bearer {
    fn default() -> Self {
        bearer()
    }
}

impl Bearer {
    /// The field `WWW-Authenticate` of answers with status 401, such as `Bearer realm="api"`. Default: `Bearer`.
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = challenge;
        self
    }
}

impl Key for Bearer {
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        let with_challenge = |rejection: Rejection| rejection.with_challenge(self.challenge.clone());
        let value = only(request, &AUTHORIZATION).map_err(with_challenge)?;
        let token = value
            .split_at_checked(b"bearer ".len())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token.trim_ascii())
            .filter(|token| !token.is_empty());
        match token {
            Some(token) => Ok(hashed(token).into()),
            None => Err(with_challenge(Rejection::unauthenticated(
                "the field authorization has no bearer token",
            ))),
        }
    }
}
