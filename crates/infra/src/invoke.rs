//! Calling a function.

use std::time::Duration;

use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;

use crate::StackManager;
use crate::error::{Error, failed};

/// The result of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoked {
    /// The returned value; after a failure, a JSON object with `errorMessage`.
    pub payload: Vec<u8>,
    /// How it failed, such as `Unhandled`, if it did.
    pub failure: Option<String>,
}

impl StackManager {
    /// Has Lambda call a function, whose answer is discarded.
    ///
    /// # Errors
    /// [`Error::Aws`].
    pub async fn invoke_and_forget(&self, function: &str, payload: Vec<u8>) -> Result<(), Error> {
        let call = self.clients.functions.invoke().function_name(function);
        call.invocation_type(InvocationType::Event)
            .payload(Blob::new(payload))
            .send()
            .await
            .map_err(failed("Invoke"))?;
        Ok(())
    }

    /// Calls a function once, and waits this long for its answer. It is not called again whatever happens: a
    /// function that did not answer in time may still be at work.
    ///
    /// # Errors
    /// [`Error::Aws`]: of kind [`Timeout`](crate::AwsFailure::Timeout) if there was no answer in time; with the code
    /// `ResourceNotFoundException` if there is no such function, and `TooManyRequestsException` if it may not run
    /// now. A function that ran and failed is not an error: see [`Invoked::failure`].
    pub async fn invoke(
        &self,
        function: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Invoked, Error> {
        let patient = Builder::new()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .read_timeout(timeout)
                    .operation_attempt_timeout(timeout)
                    .build(),
            )
            // While the function works nothing moves.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let call = self.clients.functions.invoke().function_name(function);
        let answer = call
            .payload(Blob::new(payload))
            .customize()
            .config_override(patient)
            .send()
            .await
            .map_err(failed("Invoke"))?;
        Ok(Invoked {
            payload: answer.payload.map(Blob::into_inner).unwrap_or_default(),
            failure: answer.function_error,
        })
    }
}
