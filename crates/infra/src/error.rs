//! What can go wrong with a stack, and what to do about it.

use aws_sdk_cloudformation::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use zae_limiter_core::InvalidInput;

use crate::events::StackEvent;
use crate::summary::StackSummary;

/// How a call of AWS failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsFailure {
    /// The service answered with an error.
    Service,
    /// There are no credentials, or they could not be loaded.
    Credentials,
    /// No region is configured.
    Region,
    /// No server answered at the address.
    Unreachable,
    /// There was no answer in time.
    Timeout,
    /// The answer made no sense.
    Other,
}

/// Why something was not done to a stack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option was refused before anything was called.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),

    /// The file that the functions are to run cannot run there. Says why, and how to get one that can.
    #[error("{0}")]
    Package(String),

    /// There is no such stack.
    #[error("stack '{stack}' does not exist")]
    NotFound {
        /// The stack.
        stack: String,
    },

    /// Another process created the stack at the same moment.
    #[error("stack '{stack}' was created by another process in the meantime; run the command again")]
    AlreadyExists {
        /// The stack.
        stack: String,
    },

    /// The stack lacks outputs that another stack imports.
    #[error("stack '{stack}' has no outputs {}", outputs.join(" and "))]
    MissingOutputs {
        /// The stack.
        stack: String,
        /// The outputs.
        outputs: Vec<&'static str>,
    },

    /// The stack is in a state in which it cannot be used or changed.
    #[error("stack '{stack}' is {status}: {advice}")]
    State {
        /// The stack.
        stack: String,
        /// Its status, as CloudFormation calls it.
        status: String,
        /// The advice.
        advice: &'static str,
    },

    /// The stack cannot be deleted as a whole. Nothing was deleted.
    #[error("stack '{stack}' was not deleted, as these would be left:\n  {}", obstacles.join("\n  "))]
    Protected {
        /// The stack.
        stack: String,
        /// Each resource, and why it cannot be deleted.
        obstacles: Vec<String>,
    },

    /// An operation was begun and did not succeed.
    #[error("{}", operation(stack, reason, failed))]
    Operation {
        /// The stack.
        stack: String,
        /// How it ended.
        reason: String,
        /// The resources that failed first, the first one first.
        failed: Vec<StackEvent>,
    },

    /// A new template or setting would remove or replace resources. Nothing was changed.
    #[error(
        "Stack '{stack}' operation failed: Template update refused, nothing was applied: it would replace or \
         remove resources, which can lose data. {}{}",
        resources.join("; "),
        if *can_be_allowed { ". To allow it, add --allow-removal" } else { "" }
    )]
    Refused {
        /// The stack.
        stack: String,
        /// Each resource, and what would become of it.
        resources: Vec<String>,
        /// Whether the table is not among them.
        can_be_allowed: bool,
    },

    /// A bucket that is to hold the functions' code cannot be used.
    #[error("code bucket '{bucket}': {reason}")]
    CodeBucket {
        /// The bucket.
        bucket: String,
        /// Why not, and what to do.
        reason: String,
    },

    /// A call of AWS failed.
    #[error("{message}")]
    Aws {
        /// How.
        kind: AwsFailure,
        /// The service's code, such as `AccessDenied`; empty if it did not answer.
        code: String,
        /// The failure, with the operation.
        message: String,
    },
}

impl Error {
    /// An operation on a stack that did not succeed, without a resource that failed.
    pub(crate) fn operation(stack: &StackSummary, reason: String) -> Self {
        Self::Operation {
            stack: stack.name.clone(),
            reason,
            failed: Vec::new(),
        }
    }

    /// An answer of a service that makes no sense.
    pub(crate) fn unreadable(operation: &str, why: &str) -> Self {
        Self::Aws {
            kind: AwsFailure::Other,
            code: String::new(),
            message: format!("Calling {operation}: the answer cannot be read: {why}"),
        }
    }

    /// Whether the service answered with this code.
    pub fn is_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Aws { code, .. } if code == wanted)
    }

    /// Whether a retry may help: no answer, an answer that took too long, or throttling.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Aws { kind, code, .. } => match kind {
                AwsFailure::Unreachable | AwsFailure::Timeout | AwsFailure::Other => true,
                AwsFailure::Service => matches!(
                    code.as_str(),
                    "Throttling"
                        | "ThrottlingException"
                        | "TooManyRequestsException"
                        | "RequestLimitExceeded"
                        | "ServiceUnavailable"
                        | "InternalFailure"
                        | "ServiceException"
                        | "InternalError"
                ),
                AwsFailure::Credentials | AwsFailure::Region => false,
            },
            _ => false,
        }
    }
}

fn operation(stack: &str, reason: &str, failed: &[StackEvent]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("Stack '{stack}' operation failed: {reason}");
    for event in failed {
        let _ = write!(text, "\n  {} ({})", event.logical_id, event.resource_type);
        let _ = write!(text, " {}", event.status);
        if let Some(reason) = &event.reason {
            let _ = write!(text, ": {reason}");
        }
        if let Some(advice) = event.advice() {
            let _ = write!(text, "\n    {advice}");
        }
    }
    text
}

/// Turns an error of the SDK into ours, naming the operation.
pub(crate) fn failed<E>(operation: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    move |err| {
        let chain = DisplayErrorContext(&err).to_string();
        let aws = |kind, code: &str, message| Error::Aws {
            kind,
            code: code.to_owned(),
            message,
        };
        if let SdkError::ServiceError(answer) = &err {
            let Some(code) = answer.err().code() else {
                // An answer that makes no sense counts as one, too.
                let status = answer.raw().status().as_u16();
                let message = format!(
                    "Calling {operation}: HTTP status {status} without an error of AWS; a proxy may have answered"
                );
                return aws(AwsFailure::Other, "", message);
            };
            let text = answer.err().message().unwrap_or("the service gave no reason");
            return refused(operation, code, text);
        }
        if chain.contains("no credentials found in chain") || chain.contains("no providers in chain") {
            let message = "Unable to locate credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                           AWS_SECRET_ACCESS_KEY, or log in.";
            return aws(AwsFailure::Credentials, "", message.to_owned());
        }
        if chain.contains("CredentialsError") || chain.contains("loading credentials") {
            let message = format!("Unable to load credentials: {}", without_layers(&shown(&err)));
            return aws(AwsFailure::Credentials, "", message);
        }
        if chain.contains("Missing Region") || chain.contains("A region must be set") {
            let message = "You must specify a region. Use --region, AWS_REGION, or a profile that has one.";
            return aws(AwsFailure::Region, "", message.to_owned());
        }
        unanswered(operation, &err)
    }
}

/// A call that the service has refused.
pub(crate) fn refused(operation: &str, code: &str, text: &str) -> Error {
    Error::Aws {
        kind: AwsFailure::Service,
        code: code.to_owned(),
        message: format!("An error occurred ({code}) when calling the {operation} operation: {text}"),
    }
}

/// A call without an answer of the service.
pub(crate) fn unanswered<E, R>(operation: &str, err: &SdkError<E, R>) -> Error
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let (kind, what) = match err {
        SdkError::TimeoutError(_) => (AwsFailure::Timeout, "no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (AwsFailure::Timeout, "no answer in time")
        }
        SdkError::DispatchFailure(_) => (AwsFailure::Unreachable, "could not connect"),
        _ => (AwsFailure::Other, "the call failed"),
    };
    let cause = shown(err);
    // There was a connection then.
    let broke = cause.contains("(SendRequest)");
    let what = if broke {
        "the connection ended before the answer came"
    } else {
        what
    };
    Error::Aws {
        kind,
        code: String::new(),
        message: format!("Calling {operation}: {what}: {}", without_layers(&cause)),
    }
}

/// The last causes of a failed request, without the layers of the HTTP client before them.
///
/// ```
/// use zae_limiter_infra::without_layers;
///
/// let causes = "dispatch failure: io error: client error (Connect): tcp connect error: Connection refused";
/// assert_eq!(without_layers(causes), "Connection refused");
/// ```
pub fn without_layers(causes: &str) -> &str {
    const LAYERS: [&str; 11] = [
        "the connection ended before the answer came: ",
        "timeout: ",
        "an error occurred while loading credentials: ",
        "dispatch failure: ",
        "io error: ",
        "other: ",
        "client error (Connect): ",
        "client error (SendRequest): ",
        "tcp connect error: ",
        "dns error: ",
        "connection error: ",
    ];
    let mut rest = causes;
    while let Some(inner) = LAYERS.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = inner;
    }
    rest
}

/// An error's causes on one line, each once.
pub(crate) fn shown(err: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = err.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&more);
        }
        next = cause.source();
    }
    if text.is_empty() { err.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_operation_names_what_failed_first_and_what_to_do() {
        let bucket = StackEvent {
            id: "1".into(),
            timestamp: "2026-01-01T00:00:00Z".into(),
            logical_id: "AuditArchiveBucket".into(),
            resource_type: "AWS::S3::Bucket".into(),
            status: "DELETE_FAILED".into(),
            reason: Some("The bucket you tried to delete is not empty".into()),
        };
        let err = Error::Operation {
            stack: "my-app".into(),
            reason: "it ended as DELETE_FAILED".into(),
            failed: vec![bucket],
        };
        assert_eq!(
            err.to_string(),
            "Stack 'my-app' operation failed: it ended as DELETE_FAILED\n  AuditArchiveBucket (AWS::S3::Bucket) \
             DELETE_FAILED: The bucket you tried to delete is not empty\n    Empty the bucket (the archived audit \
             events are lost), then delete the stack again."
        );
    }
}
