//! The functions of zae-limiter's table, native for AWS Lambda (`provided.al2023`).
//!
//! - [`aggregator`] is fed by the table's stream. It counts usage, reports limits that are nearly used up, refills and splits
//!   hot buckets, and archives audit events that expire.
//! - [`provisioner`] is called by `zae-limiter limits` and by CloudFormation.
//!
//! One executable serves both: [`run`] starts the function that the handler's name asks for. [`run_with`] runs a function of the
//! caller's. Around them, [`settings`] reads the environment, [`log`] writes JSON lines, [`archive`] keeps expired audit events.

pub mod aggregator;
pub mod archive;
pub mod log;
pub mod provisioner;
pub mod settings;

use std::sync::Arc;
use std::time::Duration;

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value as Json;
use zae_limiter::Repository;
use zae_limiter::clock::{Clock, SystemClock};
use zae_limiter::table::{Connection, Timeouts};
use zae_limiter_core::EpochMillis;

use aggregator::{Aggregator, Invocation};
use archive::Bucket;
use log::Log;
use provisioner::Provisioner;
use settings::{AggregatorSettings, BadSetting, table_name};

/// The variable with the address of Lambda's runtime interface; set only inside a function.
pub const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

/// The variable with the function's handler.
pub const HANDLER: &str = "_HANDLER";

/// How long the provisioner waits for an answer. No caller waits for tokens here, and a write of a hundred items that
/// was given up too early may have happened.
const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    attempt: Duration::from_secs(10),
    operation: Duration::from_secs(10),
};

/// Why a function did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The handler's name is not one of ours.
    #[error("there is no handler '{0}'; the function's handler must be 'aggregator' or 'provisioner'")]
    UnknownHandler(String),
    /// A variable of the environment is wrong.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// The table's name is invalid, or the SDK's configuration cannot be used.
    #[error(transparent)]
    Table(#[from] zae_limiter::Error),
    /// The runtime interface failed.
    #[error("the runtime interface failed: {0}")]
    Runtime(lambda_runtime::Error),
}

/// Serves invocations until the environment is shut down.
///
/// # Errors
/// [`RunError`] if the function cannot start. It is also logged: what ends the process before the first
/// invocation is an error of initialisation to Lambda.
pub async fn run(handler: &str) -> Result<(), RunError> {
    let log = Log::from_env(Arc::new(SystemClock));
    let outcome = Box::pin(serve(handler, log.clone())).await;
    if let Err(err) = &outcome {
        log.error(
            "zae_limiter_lambda",
            "Function cannot run",
            &[("exception", err.to_string().into())],
        );
    }
    outcome
}

/// One call of a function.
#[derive(Debug, Clone)]
pub struct Call {
    /// The event.
    pub event: Json,
    /// The call's id.
    pub request_id: String,
    /// The function's memory, by which it has processors.
    pub memory_mb: u32,
    /// How long the call may take.
    pub remaining: Duration,
}

impl From<LambdaEvent<Json>> for Call {
    fn from(event: LambdaEvent<Json>) -> Self {
        Self {
            remaining: remaining(event.context.deadline),
            memory_mb: u32::try_from(event.context.env_config.memory).unwrap_or(0),
            request_id: event.context.request_id,
            event: event.payload,
        }
    }
}

/// The answer to a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// A word for the kind of failure, such as `InvalidEvent`.
    pub kind: &'static str,
    /// What failed.
    pub message: String,
}

impl From<CallError> for Diagnostic {
    fn from(err: CallError) -> Self {
        Self {
            error_type: err.kind.into(),
            error_message: err.message,
        }
    }
}

/// Serves the calls of a function with a handler of the caller's, until the environment is shut down. Failures of calls are
/// logged.
///
/// # Errors
/// [`RunError::Runtime`].
pub async fn run_with<F, Fut>(handler: F) -> Result<(), RunError>
where
    F: Fn(Call) -> Fut,
    Fut: Future<Output = Result<Json, CallError>>,
{
    let log = Log::from_env(Arc::new(SystemClock));
    serve_with(move |event: LambdaEvent<Json>| {
        let call = Call::from(event);
        let (log, request_id) = (log.clone(), call.request_id.clone());
        let answer = handler(call);
        async move {
            let answer = answer.await;
            if let Err(err) = &answer {
                log.warning(
                    "zae_limiter_lambda",
                    "Call failed",
                    &[
                        ("request_id", request_id.into()),
                        ("exception", err.message.clone().into()),
                    ],
                );
            }
            answer
        }
    })
    .await
}

/// The time until a deadline in epoch milliseconds.
fn remaining(deadline: u64) -> Duration {
    let now = EpochMillis::from(SystemClock.now()).0.unsigned_abs();
    Duration::from_millis(deadline.saturating_sub(now))
}

async fn serve(handler: &str, log: Log) -> Result<(), RunError> {
    match handler {
        "aggregator" => {
            let settings = AggregatorSettings::from_env()?;
            let config = Connection::default().sdk_config().await;
            let stack = Repository::builder()
                .stack(&settings.table)
                .stack_handle()
                .await?;
            let archive = settings
                .archive_bucket
                .as_ref()
                .map(|name| Bucket::new(&config, name));
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let aggregator = Arc::new(Aggregator::new(stack, settings, archive, clock, log));
            serve_with(move |event: LambdaEvent<Json>| {
                let aggregator = Arc::clone(&aggregator);
                async move {
                    let invocation = Invocation::from(&event.context);
                    Ok::<_, lambda_runtime::Error>(aggregator.handle(&event.payload, &invocation).await)
                }
            })
            .await
        }
        "provisioner" => {
            let stack = Repository::builder()
                .stack(table_name())
                .timeouts(PATIENT)
                .stack_handle()
                .await?;
            let provisioner = Arc::new(Provisioner::new(stack, log));
            serve_with(move |event: LambdaEvent<Json>| {
                let provisioner = Arc::clone(&provisioner);
                async move {
                    let left = remaining(event.context.deadline);
                    provisioner.handle(&event.payload, Some(left)).await
                }
            })
            .await
        }
        other => Err(RunError::UnknownHandler(other.to_owned())),
    }
}

async fn serve_with<F, Fut, E>(handler: F) -> Result<(), RunError>
where
    F: Fn(LambdaEvent<Json>) -> Fut,
    Fut: Future<Output = Result<Json, E>>,
    E: Into<lambda_runtime::Diagnostic> + std::fmt::Debug,
{
    lambda_runtime::run(service_fn(handler))
        .await
        .map_err(RunError::Runtime)
}
