//! A header field as a key.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use super::{Key, hashed};
use crate::rejection::Rejection;

/// The value of a header field: see [`header`].
#[derive(Debug, Clone)]
pub struct Header {
    name: HeaderName,
    is_hashed: bool,
    challenge: Option<HeaderValue>,
}

/// The value of a header field. A request without it is answered with status 401, one that has it twice with 400.
///
/// Clients can send any value: use fields that a proxy or an authentication layer has checked, or keys that are secret. If no defaults are
/// configured, only entities with limits are admitted, and others are answered with status 403.
///
/// ```
/// use http::HeaderName;
/// use zae_limiter_tower::{Rules, key};
///
/// // A secret is not stored as it is.
/// let by_key = key::header(HeaderName::from_static("x-api-key")).hashed();
/// let rules = Rules::new(by_key, "api").consume("rpm", 1);
/// # let _ = rules;
/// ```
pub fn header(name: HeaderName) -> Header {
    Header {
        name,
        is_hashed: false,
        challenge: None,
    }
}

impl Header {
    /// The [hash](super::hashed) of the value, because it is a secret.
    pub fn hashed(mut self) -> Self {
        self.is_hashed = true;
        self
    }
}

impl Header {
    /// The field `WWW-Authenticate` of answers with status 401, such as `ApiKey realm="api"`. Default: none, since there is no registered scheme
    /// for other fields than `Authorization`.
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }
}

impl Key for Header {
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        let value = only(request, &self.name).map_err(|rejection| match &self.challenge {
            Some(challenge) => rejection.with_challenge(challenge.clone()),
            None => rejection,
        })?;
        if self.is_hashed {
            return Ok(hashed(value.trim_ascii()).into());
        }
        match std::str::from_utf8(value) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(Rejection::bad_request(format!(
                "the field {} is not text",
                self.name
            ))),
        }
    }
}

/// The one value of a field.
pub(super) fn only<'r>(request: &'r Parts, name: &HeaderName) -> Result<&'r [u8], Rejection> {
    let mut values = request.headers.get_all(name).iter();
    let Some(value) = values.next().filter(|value| !value.is_empty()) else {
        return Err(Rejection::unauthenticated(format!("the field {name} is missing")));
    };
    if values.next().is_some() {
        return Err(Rejection::bad_request(format!("the field {name} is given twice")));
    }
    Ok(value.as_bytes())
}
