//! `loadtest worker`: users for a master, and what starts such processes.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};
use zae_limiter::{RateLimiter, Stack};
use zae_limiter_loadtest::cluster::worker::{Settings, work};
use zae_limiter_loadtest::cluster::{Launcher, Secret};

use super::WHAT;
use crate::args::Connection;
use crate::args::loadtest::Worker;
use crate::commands::Outcome;
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;

/// How long master and worker wait for a sign of life of each other.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// How long a worker may take to end without users.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes of standard input are read.
const LARGEST: u64 = 1024;

pub(super) async fn run(args: Worker) -> Outcome {
    let mut text = String::new();
    let read = std::io::stdin().take(LARGEST).read_to_string(&mut text);
    let secret = read.ok().and_then(|_| Secret::from_text(&text));
    let secret = secret.ok_or_else(|| {
        Failure::error("Standard input does not have the secret of a test. 'loadtest run --local --workers' starts workers itself.")
    })?;
    let stack = connect::measured_stack(&args.at, WHAT).await?;
    let connected = TcpStream::connect(args.connect).await;
    let stream = connected
        .map_err(|err| Failure::error(format!("Cannot connect to the master at {}: {err}", args.connect)))?;
    let settings = Settings {
        name: format!("process {}", std::process::id()),
        silence: SILENCE,
        leaves_after: None,
    };
    let worked = work(stream, &secret, &settings, opens(stack)).await;
    worked.map_err(|err| Failure::error(format!("This worker ends: {err}")))?;
    Ok(Exit::Success)
}

/// Opens namespaces of tests.
pub(super) fn opens(stack: Stack) -> impl Fn(String) -> BoxFuture<'static, Result<RateLimiter, String>> {
    move |namespace| {
        let stack = stack.clone();
        Box::pin(async move {
            let opened = stack.connect(namespace.as_str()).await;
            opened.map(RateLimiter::new).map_err(|err| err.to_string())
        })
    }
}

/// Starts workers as processes of this program.
#[derive(Debug)]
pub(super) struct Processes {
    at: Connection,
    master: SocketAddr,
    secret: Secret,
    children: Vec<Child>,
}

impl Processes {
    pub(super) fn new(at: &Connection, master: SocketAddr, secret: &Secret) -> Self {
        Self {
            at: at.clone(),
            master,
            secret: secret.clone(),
            children: Vec::new(),
        }
    }

    async fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["loadtest", "worker", "--connect", &self.master.to_string()])
            .args(["--name", &self.at.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let options = [
            ("--region", &self.at.region),
            ("--endpoint-url", &self.at.endpoint_url),
        ];
        for (option, value) in options {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        // A signal of the terminal is for the master, which ends the test.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended; then it does not connect.
            let _ = stdin.write_all(self.secret.to_text().as_bytes()).await;
        }
        Ok(child)
    }

    /// Waits for the end of all workers, whose connections are closed.
    pub(super) async fn end(mut self) {
        let end = Instant::now() + END_TIMEOUT;
        for child in &mut self.children {
            if timeout_at(end, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}

impl Launcher for Processes {
    async fn launch(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let started = self.start().await;
            self.children
                .push(started.map_err(|err| format!("a process of this program: {err}"))?);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        let mut failed = Ok(());
        self.children.retain_mut(|child| {
            let id = child.id();
            match child.try_wait() {
                Ok(None) | Err(_) => true,
                Ok(Some(status)) => {
                    // One that was killed is replaced, as long as the test runs.
                    if status.code().is_some_and(|code| code != 0) {
                        let id = id.map_or_else(String::new, |id| format!(" {id}"));
                        failed = Err(format!("the process{id} ended with {status}"));
                    }
                    false
                }
            }
        });
        failed
    }
}
