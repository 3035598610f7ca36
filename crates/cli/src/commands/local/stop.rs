//! The end of the endpoint that runs in the background.

use std::time::Duration;

use serde_json::json;
use zae_limiter_local::endpoint::FINISH;
#[cfg(unix)]
use zae_limiter_local::health;
use zae_limiter_local::state::{Running, State};

use super::state;
#[cfg(unix)]
use super::unusable;
use crate::args::Format;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// How long an endpoint may take to end by itself: it ends its functions after what is under way.
pub(super) const GRACE: Duration = FINISH.saturating_add(Duration::from_secs(15));

/// How often to look whether it has ended.
#[cfg(unix)]
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn down(running: Option<Running>, format: &Format) -> Outcome {
    let mut out = Out::to_the_end(format);
    let Some(running) = running else {
        out.answer("Local endpoint is not running.", &json!({ "stopped": false }))?;
        return Ok(Exit::Success);
    };
    if !out.is_json() {
        out.line("Stopping the local endpoint...")?;
        out.flush()?;
    }
    let state = state()?;
    let ended = stop(&running, &state).await?;
    let told = if ended {
        "Local endpoint stopped."
    } else {
        "Local endpoint stopped by force: it did not end by itself."
    };
    out.answer(told, &json!({ "stopped": true, "by_force": !ended }))?;
    Ok(Exit::Success)
}

/// Asks the endpoint to end, and makes it if it does not. Returns whether asking was enough.
#[cfg(unix)]
pub(super) async fn stop(running: &Running, state: &State) -> Result<bool, Failure> {
    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let pid = i32::try_from(running.pid).ok().filter(|pid| *pid > 1);
    let pid =
        pid.ok_or_else(|| Failure::error(format!("The endpoint's process id {} is invalid", running.pid)))?;
    if let Err(refusal) = check(running).await {
        // It may have ended by itself just now.
        return if has_ended(running, state)? {
            Ok(true)
        } else {
            Err(refusal)
        };
    }
    for (signal, by_itself) in [(Signal::SIGTERM, true), (Signal::SIGKILL, false)] {
        // The record is still the one that was checked, but its process may have gone meanwhile.
        if running.is_its_process() == Some(false) {
            return Ok(true);
        }
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(err) => {
                return Err(Failure::error(format!(
                    "The endpoint's process {pid} could not be stopped: {err}"
                )));
            }
        }
        let mut waited = Duration::ZERO;
        while waited < GRACE {
            if has_ended(running, state)? {
                return Ok(by_itself);
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
    }
    Err(Failure::error(format!(
        "The endpoint's process {pid} does not end"
    )))
}

/// Whether the lock is free, or another endpoint has it.
#[cfg(unix)]
fn has_ended(running: &Running, state: &State) -> Result<bool, Failure> {
    let found = state.running().map_err(|err| unusable(state, &err))?;
    Ok(found.as_ref() != Some(running))
}

/// Makes sure that the process of the record's id is the endpoint, and not another that has it by now.
#[cfg(unix)]
async fn check(running: &Running) -> Result<(), Failure> {
    let why = match running.is_its_process() {
        Some(true) => return Ok(()),
        Some(false) => "it is not the one that was started as the endpoint",
        None => match health::ask(running.address()).await {
            Ok(health) if health.pid == running.pid => return Ok(()),
            _ => "it does not answer as the endpoint",
        },
    };
    Err(Failure::error(format!(
        "Process {pid} is not stopped: {why}, although the state file names it as the local endpoint at {url}. \
         Check the process, and stop it yourself if it is the endpoint.",
        pid = running.pid,
        url = running.url()
    )))
}

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "elsewhere it waits")]
pub(super) async fn stop(running: &Running, _: &State) -> Result<bool, Failure> {
    Err(Failure::error(format!(
        "Processes cannot be stopped from here on this system; stop process {} yourself",
        running.pid
    )))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that has nothing to do with the endpoint.
    struct Stranger(Child);

    impl Stranger {
        fn start() -> Self {
            let mut command = Command::new("sleep");
            Self(command.arg("600").stdin(Stdio::null()).spawn().unwrap())
        }

        fn is_alive(&mut self) -> bool {
            self.0.try_wait().unwrap().is_none()
        }
    }

    impl Drop for Stranger {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn record(pid: u32, born: Option<u64>) -> Running {
        // Nothing listens at port 1.
        let text = json!({
            "pid": pid, "port": 1, "host": "127.0.0.1", "data": null, "version": "0", "started": 0, "logs": true,
            "born": born,
        });
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn a_process_that_is_not_the_endpoint_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        let held = state.hold().unwrap().unwrap();
        let mut stranger = Stranger::start();
        let pid = stranger.0.id();
        // Started at another time than the record says; and one of which the record does not say when.
        for born in [Some(1), None] {
            let running = record(pid, born);
            held.announce(&running).unwrap();
            let Err(Failure::Message { text, .. }) = stop(&running, &state).await else {
                panic!("it was stopped");
            };
            assert!(text.contains(&format!("Process {pid} is not stopped")), "{text}");
            assert!(stranger.is_alive());
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn another_endpoint_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        let held = state.hold().unwrap().unwrap();
        let mut stranger = Stranger::start();
        let pid = stranger.0.id();
        let running = record(pid, zae_limiter_local::process::born(pid).unwrap());
        // The place has another's record by now, so the first has ended.
        held.announce(&record(1, None)).unwrap();
        assert!(stop(&running, &state).await.unwrap());
        assert!(stranger.0.wait().is_ok(), "it was asked to end");
    }
}
