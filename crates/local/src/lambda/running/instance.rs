//! One running function: its process with its runtime API and its log, and the invocations it serves.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::finished::{Finished, Trouble, error, timed_out};
use super::machine::{self, NotStarted, Notes, Unfit};
use super::output::{self, Drained, Output};
use super::process::{Group, Launch, describe, spawn, stream_name};
use super::runtime_api::{Answer, LARGEST, RuntimeApi, Work};
use crate::clock::{iso, now_ms};
use crate::lambda::becomes;
use crate::lambda::names::LATEST;
use crate::lambda::program::Program;
use crate::lambda::services::Services;
use crate::wire::uuid;

/// How long a process may take to ask for its first event, if the function's own time is shorter.
const INIT: Duration = Duration::from_secs(10);

/// How often the memory of a process is looked at while it works.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait for a process's last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running process.
#[derive(Debug)]
pub(crate) struct Instance {
    launch: Arc<Launch>,
    output: Arc<Output>,
    runtime_api: Arc<RuntimeApi>,
    pid: u32,
    began: Instant,
    ready: watch::Receiver<bool>,
    ended: watch::Receiver<Option<End>>,
    work: mpsc::Sender<Work>,
    drains: mpsc::Sender<Drained>,
    kill: Arc<Notify>,
    /// Whether it has served an invocation.
    used: bool,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End(String);

impl Instance {
    /// Starts a process. It is not waited for.
    pub(crate) async fn start(
        launch: Arc<Launch>,
        services: Arc<dyn Services>,
        notes: &Notes,
    ) -> Result<Self, NotStarted> {
        if launch.program == Program::Bootstrap {
            let bootstrap = launch.package.directory().join("bootstrap");
            machine::check(&bootstrap, &launch.architecture)?;
        }
        // A function has no part in this.
        let unbound =
            |err: std::io::Error| NotStarted::Lacking(format!("its runtime API cannot be opened: {err}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let stream = stream_name();
        let output = Arc::new(Output::new(
            services,
            &launch.id.region,
            &launch.id.log_group(),
            &stream,
        ));
        let began = Instant::now();
        let mut child = spawn(&launch, &address.to_string(), &stream)
            .await
            .map_err(|err| NotStarted::because(&err, &launch.program.tried()))?;
        let pid = child.id().unwrap_or_default();
        notes.add(pid);

        let (work, given) = mpsc::channel(1);
        let (runtime_api, ready) = RuntimeApi::new(given);
        let (drains, drain) = mpsc::channel(1);
        let following = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => {
                tokio::spawn(output::follow(stdout, stderr, Arc::clone(&output), drain))
            }
            _ => return Err(Unfit::entry("the process has no output".to_owned()).into()),
        };
        let kill = Arc::new(Notify::new());
        let (end, ended) = watch::channel(None);
        let notes = notes.clone();
        let killed = Arc::clone(&kill);
        let served = Arc::clone(&runtime_api);
        let package = launch.package.clone();
        tokio::spawn(async move {
            let group = Group(pid);
            let run = async {
                tokio::select! {
                    status = child.wait() => status,
                    () = killed.notified() => {
                        machine::kill(pid);
                        child.wait().await
                    }
                }
            };
            let (stop, stopped) = oneshot::channel::<()>();
            let serve = served.serve(listener, async move {
                // Ended when the other side goes.
                let _ = stopped.await;
            });
            let run = async {
                let status = run.await;
                drop(stop);
                status
            };
            let (status, ()) = tokio::join!(run, serve);
            // What it started may still run, and hold its output open.
            drop(group);
            let _ = tokio::time::timeout(LAST_WORDS, following).await;
            notes.remove(pid);
            drop(package);
            end.send_replace(Some(End(describe(status))));
        });
        Ok(Self {
            launch,
            output,
            runtime_api,
            pid,
            began,
            ready,
            ended,
            work,
            drains,
            kill,
            used: false,
        })
    }

    /// Whether it runs still.
    pub(crate) fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Kills it, and waits until it has ended.
    pub(crate) async fn end(mut self) {
        self.kill().await;
    }

    async fn kill(&mut self) -> String {
        self.kill.notify_one();
        self.has_ended().await
    }

    async fn has_ended(&mut self) -> String {
        match self.ended.wait_for(Option::is_some).await {
            Ok(end) => end.as_ref().map(|end| end.0.clone()).unwrap_or_default(),
            Err(_) => "the endpoint is being stopped".to_owned(),
        }
    }

    /// Runs an invocation. [`is_alive`](Self::is_alive) returns whether the instance may be used again.
    pub(crate) async fn invoke(&mut self, request_id: String, payload: Bytes) -> Finished {
        self.output.begin();
        let (init, trouble) = if self.used {
            (None, None)
        } else {
            self.used = true;
            self.init().await
        };
        self.write(format!("START RequestId: {request_id} Version: {LATEST}"));
        let began = Instant::now();
        let mut most = machine::memory(self.pid).unwrap_or(0);
        let outcome = match trouble {
            Some(trouble) => Err(trouble),
            None => self.answer(&request_id, payload, &mut most).await,
        };
        let took = began.elapsed();
        self.drain().await;
        if let Err(Trouble::TimedOut) = outcome {
            self.write(format!(
                "{} {request_id} {}",
                iso(now_ms()),
                timed_out(self.launch.timeout)
            ));
        }
        let (failed, payload) = match outcome {
            Ok(Answer::Response(payload)) => (false, payload),
            Ok(Answer::Error(payload)) => (true, payload),
            Ok(Answer::TooLarge) => (
                true,
                error(
                    "Function.ResponseSizeTooLarge",
                    &format!(
                        "Response payload size exceeded maximum allowed payload size ({LARGEST} bytes)."
                    ),
                ),
            ),
            Err(trouble) => (true, trouble.payload(&request_id, self.launch.timeout)),
        };
        self.report(&request_id, took, init, most);
        Finished {
            request_id,
            failed,
            payload,
            tail: self.output.last(),
        }
    }

    /// Waits until the process has asked for its first event. Returns how long it took, and what went wrong.
    async fn init(&mut self) -> (Option<Duration>, Option<Trouble>) {
        let limit = INIT.max(self.launch.timeout);
        let trouble = tokio::select! {
            biased;
            ready = becomes(&mut self.ready, |ready| *ready) => (!ready).then_some(None),
            _ = becomes(&mut self.ended, Option::is_some) => Some(None),
            () = tokio::time::sleep_until(self.began + limit) => Some(Some(Trouble::TimedOut)),
        };
        let took = Some(self.began.elapsed());
        let trouble = match trouble {
            None => return (took, None),
            Some(Some(trouble)) => {
                self.kill().await;
                trouble
            }
            Some(None) => {
                let end = self.has_ended().await;
                match self.runtime_api.init_error() {
                    Some(said) => Trouble::Said(said),
                    None => Trouble::Exited(end),
                }
            }
        };
        self.write(format!(
            "INIT_REPORT Init Duration: {} ms\tPhase: init\tStatus: {}",
            milliseconds(self.began.elapsed()),
            if matches!(trouble, Trouble::TimedOut) {
                "timeout"
            } else {
                "error"
            }
        ));
        (took, Some(trouble))
    }

    async fn answer(&mut self, request_id: &str, payload: Bytes, most: &mut u64) -> Result<Answer, Trouble> {
        let (answer, mut answered) = oneshot::channel();
        let deadline = Instant::now() + self.launch.timeout;
        let work = Work {
            request_id: request_id.to_owned(),
            deadline_ms: now_ms() + self.launch.timeout.as_millis() as i64,
            function_arn: self.launch.id.arn(),
            trace_id: trace_id(),
            payload,
            answer,
        };
        if self.work.send(work).await.is_err() {
            return Err(Trouble::Exited(self.has_ended().await));
        }
        let mut looks = tokio::time::interval(LOOK);
        let limit = u64::from(self.launch.memory_mb) * 1024 * 1024;
        let mut ended = self.ended.clone();
        loop {
            tokio::select! {
                biased;
                answer = &mut answered => {
                    *most = machine::memory(self.pid).unwrap_or(0).max(*most);
                    return match answer {
                        Ok(answer) => Ok(answer),
                        // It asked for the next event without having answered this one, or it is ending.
                        Err(_) => Err(Trouble::Exited(self.kill().await)),
                    };
                }
                _ = becomes(&mut ended, Option::is_some) => {
                    return Err(Trouble::Exited(self.has_ended().await));
                }
                () = tokio::time::sleep_until(deadline) => {
                    self.kill().await;
                    return Err(Trouble::TimedOut);
                }
                _ = looks.tick() => {
                    *most = machine::memory(self.pid).unwrap_or(0).max(*most);
                    if *most > limit {
                        self.kill().await;
                        return Err(Trouble::OutOfMemory);
                    }
                }
            }
        }
    }

    /// Waits until what the process has written is in the log.
    async fn drain(&self) {
        let (drained, done) = oneshot::channel();
        // A process that has ended has been drained.
        if self.drains.send(drained).await.is_ok() {
            let _ = tokio::time::timeout(LAST_WORDS, done).await;
        }
    }

    fn report(&self, request_id: &str, took: Duration, init: Option<Duration>, most: u64) {
        let billed = (took + init.unwrap_or_default()).as_secs_f64() * 1_000.0;
        let mut line = format!(
            "REPORT RequestId: {request_id}\tDuration: {} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory \
             Used: {} MB\t",
            milliseconds(took),
            billed.ceil() as u64,
            self.launch.memory_mb,
            most.div_ceil(1024 * 1024),
        );
        if let Some(init) = init {
            // Writing to a string does not fail.
            let _ = write!(line, "Init Duration: {} ms\t", milliseconds(init));
        }
        self.output
            .write(vec![format!("END RequestId: {request_id}"), line]);
    }

    fn write(&self, line: String) {
        self.output.write(vec![line]);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

#[cfg(test)]
impl Instance {
    /// An instance without a process: the channel that asks it to end, and the one that reports its end.
    pub(crate) fn puppet(
        launch: Arc<Launch>,
        services: Arc<dyn Services>,
    ) -> (Self, Arc<Notify>, impl FnOnce()) {
        let output = Output::new(services, &launch.id.region, &launch.id.log_group(), "stream");
        let (work, given) = mpsc::channel(1);
        let (runtime_api, ready) = RuntimeApi::new(given);
        let (kill, (end, ended)) = (Arc::new(Notify::new()), watch::channel(None));
        let instance = Self {
            launch,
            output: Arc::new(output),
            runtime_api,
            pid: 0,
            began: Instant::now(),
            ready,
            ended,
            work,
            drains: mpsc::channel(1).0,
            kill: Arc::clone(&kill),
            used: true,
        };
        let end = move || {
            end.send_replace(Some(End(String::new())));
        };
        (instance, kill, end)
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1_000.0)
}

fn trace_id() -> String {
    let hex = uuid().replace('-', "");
    format!(
        "Root=1-{:08x}-{};Parent={:016x};Sampled=0",
        now_ms() / 1_000,
        &hex[..24],
        fastrand::u64(..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_have_lambdas_form() {
        assert!(trace_id().starts_with("Root=1-"));
    }
}
