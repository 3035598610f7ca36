//! Refusals of gRPC calls: a response without a body whose status is in the header fields.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use zae_limiter::Error;

use super::{Cause, Refused};

/// The answer, if the request is a gRPC call.
pub(super) fn answer(refused: &Refused<'_>) -> Option<Response<Bytes>> {
    let media_type = refused.request.headers.get(CONTENT_TYPE)?.as_bytes();
    if !media_type.starts_with(b"application/grpc") {
        return None;
    }
    let code = match refused.status {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    let mut details = ErrorDetails::new();
    if let Some(wait) = wait(refused) {
        details.set_retry_info(Some(wait));
    }
    if let Cause::Limiter(Error::RateLimitExceeded(exceeded)) = refused.cause {
        let statuses = exceeded.statuses();
        let tightest = super::fields::tightest(statuses, refused.now, refused.owner);
        let told = tightest.iter().map(|index| &statuses[*index]);
        for status in told.filter(|status| status.exceeded) {
            let of = format!("{} of {}", status.limit_name, status.resource);
            let missing = format!("{} requested, {} available", status.requested, status.available);
            details.add_quota_failure_violation(of, missing);
        }
    }
    let body = refused.private_body();
    let message = body["message"].as_str().unwrap_or_default();
    Some(Status::with_error_details(code, message, details).into_http())
}

/// How long the client is to wait, to the millisecond.
fn wait(refused: &Refused<'_>) -> Option<Duration> {
    if let Cause::Limiter(Error::RateLimitExceeded(exceeded)) = refused.cause {
        return exceeded.retry_after();
    }
    let secs = refused.retry_after.as_ref()?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(secs))
}
