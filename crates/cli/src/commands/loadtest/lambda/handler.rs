//! Inside the function: one call is one test, or one worker of a master.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use zae_limiter::{Repository, Stack};
use zae_limiter_lambda::{Call, CallError};
use zae_limiter_loadtest::cluster::worker::{Settings, work};
use zae_limiter_loadtest::function::{self, Allotment, Generator, Headless, Join};

use super::super::worker::{SILENCE, opens};
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

/// How long connecting to a master may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
        Ok(function::Call::Worker(join)) => worker(&join, &call, began).await,
        Err(err) => Err(failed("InvalidEvent", &err)),
    }
}

fn failed(kind: &'static str, err: &dyn std::fmt::Display) -> CallError {
    CallError {
        kind,
        message: err.to_string(),
    }
}

/// One of several workers of a master, until the master dismisses it or the call's time is nearly over.
async fn worker(join: &Join, call: &Call, began: Instant) -> Result<Json, CallError> {
    let plain = call.request_id.chars().filter(char::is_ascii_alphanumeric);
    let name = format!("lambda_{}", plain.take(8).collect::<String>());
    let stack = target().await?;
    let place = (join.host.as_str(), join.port);
    let lost = |err: &dyn std::fmt::Display| {
        failed(
            "MasterLost",
            &format!(
                "The master at {}:{} cannot be reached: {err}",
                join.host, join.port
            ),
        )
    };
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await;
    let stream = connected
        .map_err(|_| lost(&format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))?
        .map_err(|err| lost(&err))?;
    let life = Allotment::new(call.remaining).stop();
    let settings = Settings {
        name: name.clone(),
        silence: SILENCE,
        leaves_after: Some(life.saturating_sub(began.elapsed())),
    };
    let worked = work(stream, &join.secret, &settings, opens(stack)).await;
    worked.map_err(|err| failed("WorkerEnded", &err))?;
    Ok(json!({"status": "worker_completed", "worker_id": name}))
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
