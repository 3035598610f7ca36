//! The master's task: found, started, waited for and stopped.

use std::time::Duration;

use tokio::time::sleep;
use zae_limiter_infra::{AwsFailure, Error as Infra, MasterOptions, MasterTask, StackManager, names};

use super::super::infrastructure::failure;
use super::super::interrupts::Interrupts;
use crate::args::Connection;
use crate::exit::Exit;
use crate::failure::{Failure, options};

/// How often a task is looked at, and the pause before.
const LOOKS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(2);

/// Why a task is stopped, for those who look at it in ECS.
const REASON: &str = "zae-limiter loadtest has ended";

/// Prints a line of progress.
pub(super) type Tell<'a> = dyn Fn(&str) -> Result<(), Failure> + 'a;

/// Starts a task for a master.
pub(super) async fn start(
    manager: &StackManager,
    at: &Connection,
    wanted: &MasterOptions,
) -> Result<MasterTask, Failure> {
    // To its end, so that it is known whether there is a task.
    let started = manager.start_master(&at.name, wanted).await;
    started.map_err(|err| match err {
        Infra::Operation { reason, .. } => {
            Failure::with(format!("Failed to start Fargate task: {reason}"), Exit::Failure)
        }
        Infra::NotFound { .. } => no_stack(at),
        // The answer is missing, and the task may be there.
        Infra::Aws {
            kind: AwsFailure::Unreachable | AwsFailure::Timeout | AwsFailure::Other,
            ref message,
            ..
        } if message.contains("RunTask") => match failure(&err, at) {
            Failure::Message { text, exit } => Failure::bare(format!("{text}\n{}", may_run(at)), exit),
            closed @ Failure::NobodyReads => closed,
        },
        err => failure(&err, at),
    })
}

/// The message about a target without load generators.
pub(super) fn no_stack(at: &Connection) -> Failure {
    Failure::error(format!(
        "Stack not found: {}\nDeploy first with: zae-limiter loadtest deploy --name ...",
        names::load::stack(&at.name)
    ))
}

/// Waits until a task can be reached. Returns the target of a session with it.
pub(super) async fn reachable(
    manager: &StackManager,
    at: &Connection,
    task: &MasterTask,
    interrupts: &Interrupts,
    tell: &Tell<'_>,
) -> Result<String, Failure> {
    let mut is_running = false;
    for _ in 0..LOOKS {
        let look = async {
            manager
                .master(&at.name, task)
                .await
                .map_err(|err| failure(&err, at))
        };
        let found = interrupts.unless(look).await?;
        if let Some(found) = found {
            if found.is_ending() {
                return Err(Failure::error(format!(
                    "The Fargate task {} has ended: {}. Its log is in /aws/ecs/{}.",
                    task.id(),
                    if found.stopped_reason.is_empty() {
                        "ECS gave no reason"
                    } else {
                        &found.stopped_reason
                    },
                    names::load::master(&at.name)
                )));
            }
            if found.is_running() && !is_running {
                is_running = true;
                tell(&format!("  Task running: {}", task.id()))?;
            }
            if let Some(target) = found.session_target(&at.name) {
                tell("  SSM agent ready")?;
                return Ok(target);
            }
        }
        interrupts.during(sleep(PAUSE)).await?;
    }
    Err(Failure::error(if is_running {
        "SSM agent failed to start"
    } else {
        "Task failed to start within 2 minutes"
    }))
}

/// Has a task stopped, and waits until it has ended: it removes what its test has made.
pub(super) async fn stop(manager: &StackManager, at: &Connection, task: &MasterTask) -> Result<(), Failure> {
    let stopped = async {
        manager.stop_master(&at.name, task, REASON).await?;
        manager.master_ended(&at.name, task).await
    };
    stopped.await.map_err(|err| {
        let why = match failure(&err, at) {
            Failure::Message { text, .. } => text.trim_start_matches("Error: ").to_owned(),
            Failure::NobodyReads => String::new(),
        };
        Failure::error(still_runs(at, task, &why))
    })
}

/// What a second signal leaves while a task is started.
pub(super) fn may_run(at: &Connection) -> String {
    let cluster = names::load::cluster(&at.name);
    format!(
        "Error: A Fargate task may have been started: see 'aws ecs list-tasks --cluster {cluster}{}'.",
        region(at)
    )
}

fn region(at: &Connection) -> String {
    at.region
        .as_deref()
        .map_or_else(String::new, |region| format!(" --region {region}"))
}

/// How to stop a task that was not.
pub(super) fn still_runs(at: &Connection, task: &MasterTask, why: &str) -> String {
    let cluster = names::load::cluster(&at.name);
    let region = region(at);
    format!(
        "The Fargate task may still run: {why}. Stop it with 'aws ecs stop-task --cluster {cluster} --task {}{region}', or with \
         'zae-limiter loadtest delete{}' and all load generators of the stack. Without a test it ends after 15 minutes.",
        task.id(),
        options(at)
    )
}

/// Stops a task at the end of a command, in any case.
pub(super) async fn stop_at_end(
    manager: &StackManager,
    at: &Connection,
    task: &MasterTask,
    tell: &Tell<'_>,
) -> Result<(), Failure> {
    // If the output is closed, the task is stopped nevertheless.
    let _ = tell("\nStopping Fargate task...");
    stop(manager, at, task).await?;
    let _ = tell("  Fargate task stopped.");
    Ok(())
}
