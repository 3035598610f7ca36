//! What a failed request means, as [`TableError`].
//!
//! The question that matters is whether a write may have happened ([`Applied`]). The answer is
//! `No` only where the service says so, by one of its error codes, or where it is certain that nothing was sent; in all
//! other cases it is `Unknown`. A status alone says nothing about a write: the page of a proxy, of a load balancer or of
//! an API gateway may replace the answer to a request that was executed. What each error code means is from the DynamoDB
//! developer guide, "Error handling with DynamoDB".

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use super::client::answer::ServiceError;

/// The error for a success without a body. DynamoDB's answers are JSON objects: a proxy has answered.
pub(super) const EMPTY: &str = "the answer is empty, so it is not DynamoDB's; check the endpoint and proxies";

/// Whether a request could have changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only reads: whatever happened, nothing was written.
    Read,
    /// It writes.
    Write,
}

/// The meaning of an error that the service answered with.
pub(super) fn of_service(err: ServiceError, access: Access) -> TableError {
    let (kind, applied) = meaning(&err.code, err.status);
    let code = Some(&*err.code).filter(|code| !code.is_empty());
    let message = service_message(code, err.message.as_deref(), err.status);
    failure(kind, applied, message, err, access)
}

/// The meaning of missing credentials: nothing was sent.
pub(super) fn of_credentials(err: &Arc<CredentialsError>) -> TableError {
    TableError {
        kind: without_credentials(err),
        applied: Applied::No,
        message: one_line(without_output(chain(&**err))),
        source: Some(Arc::clone(err) as Arc<dyn Error + Send + Sync>),
    }
}

/// The message without what a program wrote that was to print credentials: it may be a secret.
fn without_output(message: String) -> String {
    match message.find(" Stderr:") {
        Some(at) => message[..at].to_owned(),
        None => message,
    }
}

/// The meaning of a connection that could not be made.
pub(super) fn unconnected(err: &(dyn Error + 'static)) -> TableError {
    match refused_certificate(err) {
        Some(reason) => TableError::new(FailureKind::BadRequest, Applied::No, reason),
        None => TableError::new(FailureKind::Unreachable, Applied::No, one_line(chain(err))),
    }
}

/// The meaning of a connection that ended before the answer came, or carried something else.
pub(super) fn lost(err: hyper::Error) -> TableError {
    let (kind, message) = if err.is_parse() {
        (
            FailureKind::Internal,
            format!("the answer is not HTTP: {}", chain(&err)),
        )
    } else {
        let message = format!("the connection ended before the answer came: {}", chain(&err));
        (FailureKind::Unreachable, message)
    };
    failure(kind, Applied::Unknown, message, err, Access::Write)
}

/// The meaning of an answer of which the rest did not come.
pub(super) fn cut_off(err: &(dyn Error + 'static)) -> TableError {
    damaged(format!("the answer was cut off: {}", chain(err)))
}

/// The meaning of an answer that does not tell what happened.
pub(super) fn damaged(message: String) -> TableError {
    TableError::new(FailureKind::Internal, Applied::Unknown, one_line(message))
}

/// Why a server's certificate is not accepted, if that is the cause. It does not pass: as an outage, it would admit requests
/// without limit indefinitely if the policy is to allow.
fn refused_certificate(err: &(dyn Error + 'static)) -> Option<String> {
    use rustls::CertificateError as Refused;
    let cause = std::iter::successors(Some(err), |&err| err.source()).find_map(|err| {
        // An I/O error does not name its cause as its source.
        let inner = err
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref());
        inner.or_else(|| err.downcast_ref::<rustls::Error>())
    })?;
    let rustls::Error::InvalidCertificate(refused) = cause else {
        return None;
    };
    let reason = match refused {
        Refused::UnknownIssuer => {
            "it was issued by an authority that this machine does not trust; SSL_CERT_FILE can name others"
        }
        Refused::NotValidForName | Refused::NotValidForNameContext { .. } => "it is for another name",
        Refused::Expired | Refused::ExpiredContext { .. } => {
            "it has expired, or this machine's clock is wrong"
        }
        Refused::NotValidYet | Refused::NotValidYetContext { .. } => {
            "it is not valid yet, or this machine's clock is wrong"
        }
        Refused::Revoked => "it was revoked",
        _ => {
            "it cannot be verified; a certificate that signs itself must not be marked as that of an authority"
        }
    };
    Some(format!("the server's certificate is not accepted: {reason}"))
}

/// The meaning of a request that got no answer.
pub(super) fn of_connector(err: ConnectorError) -> TableError {
    let (kind, applied) = undelivered(&err, err.is_timeout());
    let message = chain(&err);
    failure(kind, applied, message, err, Access::Write)
}

/// The same failure, of a request of this kind.
pub(super) fn for_access(err: TableError, access: Access) -> TableError {
    match access {
        Access::Read => TableError {
            applied: Applied::No,
            ..err
        },
        Access::Write => err,
    }
}

/// Whether an error says that a request was not executed because of its signature or permissions.
pub(super) fn is_refused(code: &str, status: u16) -> bool {
    meaning(code, status) == (FailureKind::AccessDenied, Applied::No)
}

pub(super) fn failure<E: Error + Send + Sync + 'static>(
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
        message: one_line(message),
        source: Some(Arc::new(err)),
    }
}

/// A message of a server or proxy can have several lines; ours are one.
fn one_line(message: String) -> String {
    if message.contains(['\n', '\r']) {
        return message.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    message
}

/// The meaning of an error code. If the code is not one of DynamoDB's, as behind a proxy, the status decides what to
/// do, but does not show whether a write happened.
pub(super) fn meaning(code: &str, status: u16) -> (FailureKind, Applied) {
    use FailureKind as Kind;
    match code {
        // DynamoDB throttles with a status of 400. API gateways use some of its codes with this one.
        _ if status == 429 => (Kind::Throttled, Applied::Unknown),
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => (Kind::Throttled, Applied::No),
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
        "ValidationException"
        | "SerializationException"
        | "UnknownOperationException"
        | "ItemCollectionSizeLimitExceededException"
        | "IdempotentParameterMismatchException"
        | "ResourceInUseException" => (Kind::BadRequest, Applied::No),
        // Something on the way did not get the answer in time. It may have passed the request on.
        _ if status == 408 => (Kind::Timeout, Applied::Unknown),
        _ if status == 401 || status == 403 => (Kind::AccessDenied, Applied::Unknown),
        // A redirection is not followed: the endpoint is wrong, or something on the way wants to be asked first.
        _ if (300..500).contains(&status) => (Kind::BadRequest, Applied::Unknown),
        _ => (Kind::Internal, Applied::Unknown),
    }
}

/// A request that got no answer: was it ever sent?
///
/// The SDK itself does not say ("the request MAY have been sent"). Three cases are still certain:
/// credentials or endpoint could not be resolved, which comes before sending; and the HTTP client's own error
/// says that there was no connection to send over. That error is recognised by its type; should the SDK one
/// day use another HTTP client, the case falls back to "unknown", which is safe.
///
/// A pooled connection that the other side has closed while it was idle needs no case of its own. If the request
/// was not written, the HTTP client takes another connection by itself. If it was written, the answer that is
/// missing may have been lost, so the outcome is unknown.
pub(super) fn undelivered(err: &(dyn Error + 'static), timeout: bool) -> (FailureKind, Applied) {
    for cause in std::iter::successors(Some(err), |&err| err.source()) {
        if let Some(credentials) = cause.downcast_ref::<CredentialsError>() {
            return (without_credentials(credentials), Applied::No);
        }
        if let Some(http) = cause.downcast_ref::<hyper_util::client::legacy::Error>()
            && http.is_connect()
        {
            let is_permanent = refused_certificate(err).is_some();
            let kind = if is_permanent {
                FailureKind::BadRequest
            } else {
                FailureKind::Unreachable
            };
            return (kind, Applied::No);
        }
        if cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse)
        {
            return (FailureKind::Internal, Applied::Unknown);
        }
        // These have no public type. All of them come before anything is sent.
        let text = cause.to_string();
        if text.starts_with("failed to select an auth scheme") {
            return (FailureKind::AccessDenied, Applied::No);
        }
        if text.starts_with("identity resolver timed out") {
            return (FailureKind::Unreachable, Applied::No);
        }
        if text.starts_with("Invalid Configuration: ") || text.starts_with("failed to apply endpoint") {
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

pub(super) fn service_message(code: Option<&str>, message: Option<&str>, status: u16) -> String {
    match (code, message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, Some(message)) => format!("HTTP status {status}: {message}"),
        (None, None) => {
            format!("HTTP status {status} without an error of DynamoDB; a proxy may have answered")
        }
    }
}

/// The meaning of missing credentials.
///
/// Credentials that are missing, refused or wrongly configured stay so. A metadata service, a container agent or
/// STS that does not answer, or fails, is an outage, which passes. In both cases nothing was sent to the table.
fn without_credentials(err: &CredentialsError) -> FailureKind {
    match err {
        CredentialsError::ProviderTimedOut(_) => FailureKind::Unreachable,
        CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_) if passes(&chain(err)) => {
            FailureKind::Unreachable
        }
        _ => FailureKind::AccessDenied,
    }
}

/// Whether a provider of credentials may answer another time. Its errors have no common type that tells, so these are
/// the words of connections, timeouts and failing services. An error without such a word counts as denied: as an
/// outage, it would admit requests without limit indefinitely if the policy is to allow.
fn passes(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "timeout",
        "timed out",
        "connect",
        "dispatch failure",
        "reset by peer",
        "broken pipe",
        "throttl",
        "unavailable",
        "statuscode(5",
        "internal server error",
        "503",
    ];
    let text = text.to_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// An error and its causes, on one line.
pub(super) fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    for cause in std::iter::successors(err.source(), |&err| err.source()) {
        let _ = write!(text, ": {cause}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_a_clear_no_from_the_service_counts_as_not_applied() {
        use FailureKind as Kind;
        for (code, status, expected) in [
            ("ThrottlingException", 400, (Kind::Throttled, Applied::No)),
            ("ValidationException", 400, (Kind::BadRequest, Applied::No)),
            (
                "ItemCollectionSizeLimitExceededException",
                400,
                (Kind::BadRequest, Applied::No),
            ),
            (
                "TransactionInProgressException",
                400,
                (Kind::Conflict, Applied::Unknown),
            ),
            ("AccessDeniedException", 400, (Kind::AccessDenied, Applied::No)),
            (
                "ResourceNotFoundException",
                400,
                (Kind::TableMissing, Applied::No),
            ),
            ("InternalServerError", 500, (Kind::Internal, Applied::Unknown)),
            ("", 400, (Kind::BadRequest, Applied::Unknown)),
            ("", 401, (Kind::AccessDenied, Applied::Unknown)),
            ("", 403, (Kind::AccessDenied, Applied::Unknown)),
            ("", 404, (Kind::BadRequest, Applied::Unknown)),
            ("", 407, (Kind::BadRequest, Applied::Unknown)),
            ("", 408, (Kind::Timeout, Applied::Unknown)),
            ("", 413, (Kind::BadRequest, Applied::Unknown)),
            ("", 429, (Kind::Throttled, Applied::Unknown)),
            (
                "TooManyRequestsException",
                429,
                (Kind::Throttled, Applied::Unknown),
            ),
            ("LimitExceededException", 429, (Kind::Throttled, Applied::Unknown)),
            ("ForbiddenException", 403, (Kind::AccessDenied, Applied::Unknown)),
            ("TOO_MANY_REQUESTS", 400, (Kind::BadRequest, Applied::Unknown)),
            ("", 502, (Kind::Internal, Applied::Unknown)),
            ("", 504, (Kind::Internal, Applied::Unknown)),
        ] {
            assert_eq!(meaning(code, status), expected, "{code} {status}");
        }
    }

    #[test]
    fn a_provider_of_credentials_that_does_not_answer_is_an_outage_and_one_that_refuses_is_not() {
        let provider = |text: &str| CredentialsError::provider_error(text.to_owned());
        let timed_out = CredentialsError::provider_timed_out(std::time::Duration::from_secs(1));
        for (err, kind) in [
            (timed_out, FailureKind::Unreachable),
            (provider("503 from STS"), FailureKind::Unreachable),
            (
                provider("dispatch failure: io error: Connection refused"),
                FailureKind::Unreachable,
            ),
            (
                CredentialsError::unhandled("unexpected credentials error: tcp connect error"),
                FailureKind::Unreachable,
            ),
            (
                provider("request forbidden: IMDS is disabled or the caller has insufficient permissions"),
                FailureKind::AccessDenied,
            ),
            (
                provider("Non-success status from HTTP credential provider: StatusCode(403)"),
                FailureKind::AccessDenied,
            ),
            (
                provider("No such file or directory (os error 2)"),
                FailureKind::AccessDenied,
            ),
            (
                provider("AccessDenied: not authorized to assume the role"),
                FailureKind::AccessDenied,
            ),
            (
                CredentialsError::not_loaded("no provider"),
                FailureKind::AccessDenied,
            ),
            (
                CredentialsError::invalid_configuration("a loop"),
                FailureKind::AccessDenied,
            ),
            (
                CredentialsError::unhandled("not UTF-8"),
                FailureKind::AccessDenied,
            ),
        ] {
            assert_eq!(undelivered(&err, false), (kind, Applied::No), "{err}");
        }
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(one_line("a\r\n  b\n".to_owned()), "a b");
        assert_eq!(one_line("a  b".to_owned()), "a  b");
    }

    #[test]
    fn a_certificate_that_is_not_accepted_is_no_outage() {
        let of = |cause: rustls::Error| unconnected(&io::Error::new(io::ErrorKind::InvalidData, cause));
        for (cause, reason) in [
            (rustls::CertificateError::UnknownIssuer, "does not trust"),
            (
                rustls::CertificateError::NotValidForName,
                "it is for another name",
            ),
            (rustls::CertificateError::Expired, "it has expired"),
            (rustls::CertificateError::BadSignature, "cannot be verified"),
        ] {
            let err = of(rustls::Error::InvalidCertificate(cause));
            assert_eq!((err.kind, err.applied), (FailureKind::BadRequest, Applied::No));
            assert!(err.message.contains(reason), "{err}");
        }
        let err = of(rustls::Error::HandshakeNotComplete);
        assert_eq!((err.kind, err.applied), (FailureKind::Unreachable, Applied::No));
    }

    #[test]
    fn the_output_of_a_program_for_credentials_is_not_shown() {
        let text = "Error retrieving credentials: external process exited with code exit status: 1. Stderr: + K=secret";
        let shown = without_output(text.to_owned());
        assert!(
            shown.ends_with("exit status: 1.") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
