//! [`Rejection`]: a request that is refused before a limit is asked.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderValue, StatusCode};
use zae_limiter::InvalidInput;

/// A request that cannot be limited, such as one without a key: a status, a word for programs, and a message for people.
///
/// The default answer has the body `{"error": <code>, "message": <message>}`. Messages go to clients: leave out what they must
/// not know.
///
/// ```
/// use http::StatusCode;
/// use zae_limiter_tower::Rejection;
///
/// let rejection = Rejection::new(StatusCode::FORBIDDEN, "unknown_tenant", "the tenant has no contract");
/// assert_eq!(rejection.to_string(), "the tenant has no contract");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    challenge: Option<HeaderValue>,
}

impl Rejection {
    /// A rejection with a status.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            challenge: None,
        }
    }

    /// How to authenticate, for the field `WWW-Authenticate` of answers with status 401
    /// ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1)). Default: none, and `Bearer` of [`key::bearer`](crate::key::bearer).
    ///
    /// ```
    /// use http::HeaderValue;
    /// use zae_limiter_tower::Rejection;
    ///
    /// let challenge = HeaderValue::from_static("Basic realm=\"api\"");
    /// let rejection = Rejection::unauthenticated("sign in first").with_challenge(challenge.clone());
    /// assert_eq!(rejection.challenge(), Some(&challenge));
    /// ```
    pub fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Status 400, `bad_request`: the request is malformed.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Status 401, `unauthenticated`: the request has no key.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }

    /// Status 500, `misconfigured`: a fault of the service. The message is logged, and clients do not see it.
    pub fn misconfigured(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        tracing::error!(%message, "requests cannot be limited");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "misconfigured",
            "the service cannot limit this request",
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// How to authenticate: see [`with_challenge`](Self::with_challenge).
    pub fn challenge(&self) -> Option<&HeaderValue> {
        self.challenge.as_ref()
    }

    /// A word for programs.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// A message for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}

/// Status 400, with the field, the value and what would be right.
impl From<InvalidInput> for Rejection {
    fn from(err: InvalidInput) -> Self {
        Self::bad_request(err.to_string())
    }
}
