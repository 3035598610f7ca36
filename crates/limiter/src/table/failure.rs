//! What a failed request means: errors of the SDK as [`TableError`].
//!
//! The question that matters is whether a write may have happened all the same ([`Applied`]). The answer is
//! `No` only where the service says so or where it is certain that nothing was sent; in all other cases it
//! is `Unknown`. What each error code means is from the DynamoDB developer guide, "Error handling with
//! DynamoDB".

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

/// Whether a request could have changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only reads: whatever happened, nothing was written.
    Read,
    /// It writes.
    Write,
}

/// Says what an error of the SDK means for the request that met it.
///
/// A refused condition and a cancelled transaction are answers, not failures: sort them out first, with
/// [`service_error`].
pub fn from_sdk<E>(err: SdkError<E, HttpResponse>, access: Access) -> TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match service_error(err, access) {
        Ok((err, status)) => from_service(err, status, access),
        Err(failure) => failure,
    }
}

/// The service's own error and its HTTP status, if the service answered at all.
///
/// # Errors
/// What it means if there was no answer.
pub fn service_error<E>(err: SdkError<E, HttpResponse>, access: Access) -> Result<(E, u16), TableError>
where
    E: Error + Send + Sync + 'static,
{
    let (kind, applied) = match err {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            return Ok((answer.into_err(), status));
        }
        // The request could not even be written down.
        SdkError::ConstructionFailure(_) => (FailureKind::BadRequest, Applied::No),
        SdkError::TimeoutError(_) => (FailureKind::Timeout, Applied::Unknown),
        SdkError::DispatchFailure(ref failure) => undelivered(&err, failure.is_timeout()),
        // There was an answer, but it broke off or made no sense.
        _ => (FailureKind::Internal, Applied::Unknown),
    };
    Err(failure(kind, applied, chain(&err), err, access))
}

/// Says what an error of the service means, by its code, or else by its HTTP status.
pub fn from_service<E>(err: E, status: u16, access: Access) -> TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (kind, applied) = refused(err.code().unwrap_or_default(), status);
    failure(kind, applied, service_message(&err), err, access)
}

fn failure<E: Error + Send + Sync + 'static>(
    kind: FailureKind,
    applied: Applied,
    message: String,
    err: E,
    access: Access,
) -> TableError {
    let applied = if access == Access::Read {
        Applied::No
    } else {
        applied
    };
    TableError {
        kind,
        applied,
        message,
        source: Some(Arc::new(err)),
    }
}

/// What an error code says. The status decides where the code is unknown, as behind a proxy.
fn refused(code: &str, status: u16) -> (FailureKind, Applied) {
    use FailureKind as Kind;
    match code {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException" => (Kind::Throttled, Applied::No),
        "TransactionConflictException" | "ReplicatedWriteConflictException" => (Kind::Conflict, Applied::No),
        // Every transaction carries a token of its own, so the one in progress can only be this very one, sent
        // twice below us. Whether it goes through is not known yet.
        "TransactionInProgressException" => (Kind::Conflict, Applied::Unknown),
        "ResourceNotFoundException" => (Kind::TableMissing, Applied::No),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "OptInRequired"
        | "KMSAccessDeniedException" => (Kind::AccessDenied, Applied::No),
        "InternalServerError"
        | "InternalServerErrorException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => (Kind::Internal, Applied::Unknown),
        _ if status == 429 => (Kind::Throttled, Applied::No),
        _ if status == 401 || status == 403 => (Kind::AccessDenied, Applied::No),
        _ if (400..500).contains(&status) => (Kind::BadRequest, Applied::No),
        _ => (Kind::Internal, Applied::Unknown),
    }
}

/// A request that got no answer: was it ever sent?
///
/// The SDK itself does not tell ("the request MAY have been sent"). Three cases are certain all the same:
/// credentials or endpoint could not be had, which comes before sending; and the HTTP client's own error
/// says that there was no connection to send over. That error is recognised by its type; should the SDK one
/// day use another HTTP client, the case falls back to "unknown", which is safe.
fn undelivered(err: &(dyn Error + 'static), timeout: bool) -> (FailureKind, Applied) {
    for cause in std::iter::successors(Some(err), |&err| err.source()) {
        if cause.is::<CredentialsError>() {
            return (FailureKind::AccessDenied, Applied::No);
        }
        if let Some(http) = cause.downcast_ref::<hyper_util::client::legacy::Error>()
            && http.is_connect()
        {
            return (FailureKind::Unreachable, Applied::No);
        }
        // These two have no public type. Both come before anything is sent.
        let text = cause.to_string();
        if text.starts_with("failed to select an auth scheme") {
            return (FailureKind::AccessDenied, Applied::No);
        }
        if text.starts_with("Invalid Configuration: ") {
            return (FailureKind::BadRequest, Applied::No);
        }
    }
    let kind = if timeout {
        FailureKind::Timeout
    } else {
        FailureKind::Unreachable
    };
    (kind, Applied::Unknown)
}

fn service_message<E: ProvideErrorMetadata + Error + 'static>(service: &E) -> String {
    match (service.code(), service.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, Some(message)) => message.to_owned(),
        (None, None) => chain(service),
    }
}

/// An error and its causes, on one line.
fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    for cause in std::iter::successors(err.source(), |&err| err.source()) {
        let _ = write!(text, ": {cause}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_from_the_service_counts_as_not_applied() {
        assert_eq!(
            refused("ThrottlingException", 400),
            (FailureKind::Throttled, Applied::No)
        );
        assert_eq!(
            refused("ValidationException", 400),
            (FailureKind::BadRequest, Applied::No)
        );
        assert_eq!(
            refused("TransactionInProgressException", 400),
            (FailureKind::Conflict, Applied::Unknown)
        );
        assert_eq!(
            refused("InternalServerError", 500),
            (FailureKind::Internal, Applied::Unknown)
        );
        assert_eq!(refused("", 502), (FailureKind::Internal, Applied::Unknown));
        assert_eq!(refused("", 429), (FailureKind::Throttled, Applied::No));
    }
}
