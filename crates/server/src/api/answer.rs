//! Answers: how limits stand, and why a request is not answered with success.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use zae_limiter::{Error, InputKind, InvalidInput, LimitStatus, Repository};
use zae_limiter_tower::Fields;

use crate::problem::problem;

/// The header fields that tell how limits stand.
const FIELDS: [Fields; 1] = [Fields::Ietf];

/// A request that is not answered with success.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    /// On the heap, since most have none.
    headers: Box<HeaderMap>,
    body: Value,
}

impl Refused {
    fn new(status: StatusCode, error: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            headers: Box::default(),
            body: problem(error, &message.into()),
        }
    }

    /// A body that cannot be read.
    pub(super) fn body(err: &serde_json::Error) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", err.to_string())
    }

    /// The same with the field that is wrong, if it is a part of the body.
    pub(super) fn of_field(mut self, field: &str) -> Self {
        // The whole, and what has no name because the text ends before.
        if !matches!(field, "." | "?") {
            self.body["field"] = json!(field);
            let message = self.body["message"].as_str().unwrap_or_default();
            self.body["message"] = json!(format!("{field}: {message}"));
        }
        self
    }

    /// A body that could not be received: it is too long, or its client has gone.
    pub(super) fn unreceived(err: &BytesRejection) -> Self {
        let status = err.status();
        let error = if status == StatusCode::PAYLOAD_TOO_LARGE {
            "body_too_large"
        } else {
            "invalid_body"
        };
        let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
            "the body is longer than this service accepts (--max-body-bytes)".to_owned()
        } else {
            err.body_text()
        };
        Self::new(status, error, message)
    }

    /// A text that this service has not issued as a lease.
    pub(super) fn no_lease() -> Self {
        let message = "the lease was not issued by this service, or with a key that it does not have";
        Self::new(StatusCode::NOT_FOUND, "unknown_lease", message)
    }

    /// What the limiter refused, or could not do.
    pub(super) fn of(err: &Error, repo: &Repository) -> Self {
        if let Some(refusal) = err.refusal() {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let mut headers = Box::<HeaderMap>::default();
            if let Error::RateLimitExceeded(refused) = err {
                Fields::write(&FIELDS, refused.statuses(), repo.now(), &mut headers);
            }
            if let Some(wait) = refusal.retry_after_header()
                && let Ok(wait) = HeaderValue::from_str(wait)
            {
                headers.insert(RETRY_AFTER, wait);
            }
            return Self {
                status,
                headers,
                body: refusal.into_body(),
            };
        }
        let (status, code) = match err {
            Error::InvalidInput(err) if err.kind() == InputKind::Request => return err.clone().into(),
            Error::NotConfigured { .. } => (StatusCode::NOT_FOUND, "not_configured"),
            Error::LeaseEnded(Some(how)) if how == "expired" => (StatusCode::GONE, "lease_expired"),
            Error::LeaseEnded(_) => (StatusCode::CONFLICT, "lease_ended"),
            Error::LeaseExpired => (StatusCode::GONE, "lease_expired"),
            _ => {
                // What failed, and where, is for the operator.
                tracing::error!(error = %err, "a request failed");
                let message = "the service failed; its log says why";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message);
            }
        };
        let mut refused = Self::new(status, code, err.to_string());
        if let Error::LeaseEnded(Some(how)) = err {
            refused.body["ended"] = json!(how);
        }
        refused
    }
}

impl From<InvalidInput> for Refused {
    fn from(err: InvalidInput) -> Self {
        let mut refused = Self::new(StatusCode::BAD_REQUEST, "invalid_input", err.to_string());
        refused.body["field"] = json!(err.field());
        refused
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, *self.headers, Json(self.body)).into_response()
    }
}

/// The header fields about limits of a request that was admitted.
pub(super) fn fields(statuses: &[LimitStatus], repo: &Repository) -> HeaderMap {
    let mut headers = HeaderMap::new();
    Fields::write(&FIELDS, statuses, repo.now(), &mut headers);
    headers
}

/// How limits stand, as in the published bodies of refusals.
pub(super) fn limits(statuses: &[LimitStatus]) -> Value {
    statuses.iter().map(LimitStatus::to_json).collect()
}
