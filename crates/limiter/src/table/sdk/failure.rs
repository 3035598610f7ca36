//! Errors of the SDK as [`TableError`].

use std::error::Error;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use super::empty::EmptyAnswer;
use crate::table::failure::{Access, EMPTY, chain, failure, meaning, service_message, undelivered};

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
/// The meaning of a missing answer.
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
    let causes = std::iter::successors(Some(&err as &(dyn Error + 'static)), |&err| err.source());
    let is_empty = causes.into_iter().any(<dyn Error>::is::<EmptyAnswer>);
    let message = if is_empty { EMPTY.to_owned() } else { chain(&err) };
    Err(failure(kind, applied, message, err, access))
}

/// Says what an error of the service means, by its code, or else by its HTTP status.
pub fn from_service<E>(err: E, status: u16, access: Access) -> TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (kind, applied) = meaning(err.code().unwrap_or_default(), status);
    let message = service_message(err.code(), err.message(), status);
    failure(kind, applied, message, err, access)
}
