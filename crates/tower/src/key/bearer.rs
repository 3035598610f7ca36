//! A bearer token as a key.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::request::Parts;

use super::header::only;
use super::{Key, hashed};
use crate::rejection::Rejection;

/// The hash of a bearer token: see [`bearer`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Bearer(());

/// The [hash](super::hashed) of the token of `Authorization: Bearer ...`. A request without one is answered with status 401, one with two
/// such fields with 400.
///
/// This does not authenticate: a token that was made up has a bucket of its own. Check tokens in a layer in front of this one, or
/// configure no defaults, so that only entities with limits are admitted.
pub fn bearer() -> Bearer {
    Bearer(())
}

impl Key for Bearer {
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        let value = only(request, &AUTHORIZATION)?;
        let token = value
            .split_at_checked(b"bearer ".len())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token.trim_ascii())
            .filter(|token| !token.is_empty());
        match token {
            Some(token) => Ok(hashed(token).into()),
            None => Err(Rejection::unauthenticated(
                "the field authorization has no bearer token",
            )),
        }
    }
}
