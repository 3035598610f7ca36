//! Inside the function: one call is one test.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value as Json;
use tokio::time::Instant;
use zae_limiter::{Repository, Stack};
use zae_limiter_lambda::{Call, CallError};
use zae_limiter_loadtest::function::{self, Allotment, Generator, Headless};

use crate::say;

/// The function's handler.
pub(crate) const NAME: &str = "load-worker";

/// The stack that load is put on.
const TARGET: &str = "TARGET_STACK_NAME";

/// The region of that stack.
const REGION: &str = "TARGET_REGION";

/// Where Lambda unpacks the function's code.
const ROOT: &str = "LAMBDA_TASK_ROOT";

/// The folder with scenario files in the function's code.
const FOLDER: &str = "locustfiles";

/// Serves calls until the environment is shut down.
pub(crate) fn serve() -> ExitCode {
    // Users run on all processors.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(zae_limiter_lambda::run_with(answer))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(err)) => {
            say(&format!("Error: {err}"));
            ExitCode::FAILURE
        }
        Err(err) => {
            say(&format!("Error: Cannot start: {err}"));
            ExitCode::FAILURE
        }
    }
}

async fn answer(call: Call) -> Result<Json, CallError> {
    let began = Instant::now();
    match function::Call::read(&call.event) {
        Ok(function::Call::Headless(test)) => headless(&test, &call, began).await,
        Ok(function::Call::Worker(config)) => worker(&config),
        Err(err) => Err(failed("InvalidEvent", &err)),
    }
}

fn failed(kind: &'static str, err: &dyn std::fmt::Display) -> CallError {
    CallError {
        kind,
        message: err.to_string(),
    }
}

/// One of several workers of a master.
fn worker(config: &Json) -> Result<Json, CallError> {
    Err(failed(
        "InvalidEvent",
        &format!(
            "'mode' is {}; this release of the function only runs tests of mode \"headless\"",
            config["mode"]
        ),
    ))
}

/// A test of this call alone.
async fn headless(test: &Headless, call: &Call, began: Instant) -> Result<Json, CallError> {
    let time = Allotment::new(call.remaining);
    let generator = Generator {
        memory_mb: call.memory_mb,
    };
    let folder = PathBuf::from(std::env::var_os(ROOT).unwrap_or_default()).join(FOLDER);
    let served = function::serve(test, target().await?, &folder, began, time, generator).await;
    let answer = served.map_err(|err| failed("LoadTestError", &err))?;
    answer.to_json().map_err(|err| failed("InvalidAnswer", &err))
}

/// The stack that load is put on. Each call has connections of its own, as those of the call before may have ended.
async fn target() -> Result<Stack, CallError> {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    let Some(name) = variable(TARGET) else {
        return Err(failed(
            "InvalidSetting",
            &format!("{TARGET} is not set; it must be the target stack's name"),
        ));
    };
    let mut builder = Repository::builder().stack(name).measure();
    if let Some(region) = variable(REGION) {
        builder = builder.region(region);
    }
    builder
        .stack_handle()
        .await
        .map_err(|err| failed("InvalidSetting", &err))
}
