//! What the layers did with requests, as values of labels.

use http::StatusCode;
use zae_limiter::Error;

use crate::answer::{Cause, Refused};
use crate::rejection::Rejection;

/// What [`RateLimitLayer`](crate::RateLimitLayer) did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Admitted,
    Degraded,
    Unlimited,
    Refused,
    Never,
    Concurrency,
    Disabled,
    Unconfigured,
    Unauthenticated,
    Invalid,
    Unavailable,
    Failed,
    #[cfg(feature = "metrics")]
    Cancelled,
}

impl Outcome {
    #[cfg(feature = "metrics")]
    pub(super) const ALL: [Self; 13] = [
        Self::Admitted,
        Self::Degraded,
        Self::Unlimited,
        Self::Refused,
        Self::Never,
        Self::Concurrency,
        Self::Disabled,
        Self::Unconfigured,
        Self::Unauthenticated,
        Self::Invalid,
        Self::Unavailable,
        Self::Failed,
        Self::Cancelled,
    ];

    pub(crate) fn of(refused: &Refused<'_>) -> Self {
        match refused.cause() {
            Cause::Limiter(Error::RateLimitExceeded(exceeded)) if exceeded.retry_after().is_none() => {
                Self::Never
            }
            Cause::Limiter(Error::RateLimitExceeded(_)) => Self::Refused,
            Cause::Limiter(Error::ConcurrencyExceeded(_)) => Self::Concurrency,
            Cause::Limiter(Error::Disabled { .. }) => Self::Disabled,
            Cause::Limiter(Error::NotConfigured { .. }) if refused.status() == StatusCode::FORBIDDEN => {
                Self::Unconfigured
            }
            Cause::Limiter(Error::Unavailable(_)) => Self::Unavailable,
            Cause::Limiter(_) if refused.status() == StatusCode::BAD_REQUEST => Self::Invalid,
            Cause::Request(rejection) if rejection.status() == StatusCode::UNAUTHORIZED => {
                Self::Unauthenticated
            }
            Cause::Request(rejection) if !rejection.status().is_server_error() => Self::Invalid,
            Cause::Limiter(_) | Cause::Request(_) => Self::Failed,
        }
    }

    #[cfg(feature = "metrics")]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Degraded => "degraded",
            Self::Unlimited => "unlimited",
            Self::Refused => "refused",
            Self::Never => "never",
            Self::Concurrency => "concurrency",
            Self::Disabled => "disabled",
            Self::Unconfigured => "unconfigured",
            Self::Unauthenticated => "unauthenticated",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What [`EstimateLayer`](crate::EstimateLayer) did with the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyOutcome {
    Estimated,
    TooLarge,
    Slow,
    Encoded,
    Invalid,
    #[cfg(feature = "metrics")]
    Cancelled,
}

impl BodyOutcome {
    #[cfg(feature = "metrics")]
    pub(super) const ALL: [Self; 6] = [
        Self::Estimated,
        Self::TooLarge,
        Self::Slow,
        Self::Encoded,
        Self::Invalid,
        Self::Cancelled,
    ];

    pub(crate) fn of(rejection: &Rejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::REQUEST_TIMEOUT => Self::Slow,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::Encoded,
            _ => Self::Invalid,
        }
    }

    #[cfg(feature = "metrics")]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Estimated => "estimated",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::Encoded => "encoded",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
        }
    }
}
