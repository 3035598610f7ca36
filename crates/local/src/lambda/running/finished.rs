//! How invocations end: the answer, or the error in its place.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::machine::Unfit;

/// How an invocation ended.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) request_id: String,
    /// Whether the payload is an error's.
    pub(crate) failed: bool,
    pub(crate) payload: Bytes,
    /// The last of the log.
    pub(crate) tail: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    TimedOut,
    OutOfMemory,
    Exited(String),
    /// The process's error if it could not start.
    Said(Bytes),
}

impl Trouble {
    /// The error that the caller gets.
    pub(super) fn payload(self, request_id: &str, timeout: Duration) -> Bytes {
        let (kind, message) = match self {
            Self::Said(payload) => return payload,
            Self::TimedOut => ("Sandbox.Timedout", timed_out(timeout)),
            Self::OutOfMemory => (
                "Runtime.OutOfMemory",
                "Runtime exited with error: signal: killed".to_owned(),
            ),
            Self::Exited(how) => ("Runtime.ExitError", format!("Runtime exited {how}")),
        };
        error(kind, &format!("RequestId: {request_id} Error: {message}"))
    }
}

impl Unfit {
    /// The error of an invocation of a function that cannot be started.
    pub(crate) fn finished(&self, request_id: String) -> Finished {
        let message = format!("RequestId: {request_id} Error: {}", self.message);
        Finished {
            request_id,
            failed: true,
            payload: error(self.kind, &message),
            tail: String::new(),
        }
    }
}

/// An error as a payload.
pub(super) fn error(kind: &str, message: &str) -> Bytes {
    json!({"errorType": kind, "errorMessage": message})
        .to_string()
        .into()
}

/// The message of an invocation that took too long.
pub(super) fn timed_out(timeout: Duration) -> String {
    format!("Task timed out after {:.2} seconds", timeout.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_told_as_lambda_does() {
        let said = |trouble: Trouble| {
            let payload = trouble.payload("id", Duration::from_secs(3));
            let error: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let text = |name: &str| error[name].as_str().unwrap().to_owned();
            (text("errorType"), text("errorMessage"))
        };
        let (kind, message) = said(Trouble::TimedOut);
        assert_eq!(kind, "Sandbox.Timedout");
        assert_eq!(message, "RequestId: id Error: Task timed out after 3.00 seconds");
        let (kind, message) = said(Trouble::Exited("with error: exit status 7".into()));
        assert_eq!(kind, "Runtime.ExitError");
        assert_eq!(
            message,
            "RequestId: id Error: Runtime exited with error: exit status 7"
        );
    }
}
