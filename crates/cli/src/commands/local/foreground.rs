//! The endpoint itself, in this process.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use tracing_subscriber::EnvFilter;
use zae_limiter::clock::{Clock as _, SystemClock};
use zae_limiter_core::EpochMillis;
use zae_limiter_local::endpoint::{Data, Endpoint, Options, StartError};
use zae_limiter_local::lambda::Python;
use zae_limiter_local::process;
use zae_limiter_local::state::Running;

use super::{data, kept, state, unusable};
use crate::args::local::Up;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::failure::Failure;

/// How many threads answer requests, at most.
const THREADS: usize = 4;

/// Runs the endpoint until it gets a signal.
pub(crate) fn serve(args: &Up) -> Outcome {
    if args.announce {
        process::close_inherited();
    }
    log(args.verbose);
    process::keep_private();
    if let Err(err) = process::allow_files() {
        tracing::warn!(error = %err, "the number of open files cannot be raised");
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(THREADS))
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let outcome = runtime.block_on(run(args));
    runtime.shutdown_background();
    match (&outcome, args.announce) {
        // The process that started it prints the message.
        (Err(Failure::Message { text, .. }), true) => {
            announce(&json!({ "error": text }))?;
            Ok(Exit::Failure)
        }
        _ => outcome,
    }
}

async fn run(args: &Up) -> Outcome {
    let state = state()?;
    let held = state.hold().map_err(|err| unusable(&state, &err))?;
    let Some(held) = held else {
        let running = state.running().map_err(|err| unusable(&state, &err))?;
        return already(args, running.as_ref());
    };
    let directory = data(args, &state);
    let python = Python::find(args.python.as_deref());
    let python = python.map_err(|err| Failure::usage(format!("{err}.")))?;
    let options = Options {
        python: python.clone(),
        address: SocketAddr::new(args.host(), args.port()),
        data: match &directory {
            Some(path) => Data::Directory(path.clone()),
            None => Data::Ephemeral(state.directory().join("ephemeral")),
        },
    };
    // Before the start, so that no signal is missed once others know of it.
    let stop = stopped().map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let endpoint = Endpoint::start(options).await.map_err(|err| refused(&err))?;
    let running = Running {
        pid: std::process::id(),
        port: endpoint.port(),
        host: args.host().to_string(),
        data: directory.map(|path| absolute(&path)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: EpochMillis::from(SystemClock.now()).0,
        logs: args.announce,
        verbose: Some(args.verbose),
        born: process::born(std::process::id()).ok().flatten(),
        python: python.path().map(Path::to_owned),
    };
    held.announce(&running).map_err(|err| unusable(&state, &err))?;
    tracing::info!(url = running.url(), data = ?running.data, pid = running.pid, "the endpoint is ready");
    if !args.host().is_loopback() {
        tracing::warn!(
            address = running.host,
            "every client that reaches this address has full access: signatures are not checked"
        );
    }
    if args.announce {
        announce(&json!({ "ready": running }))?;
    } else {
        let mut out = io::stdout().lock();
        writeln!(out, "Local endpoint is ready at {}", running.url())?;
        writeln!(out, "Press Ctrl-C to stop it.")?;
    }
    let stop = async {
        stop.await;
        if let Err(err) = held.end() {
            tracing::warn!(error = %err, "other processes cannot tell that the endpoint is about to end");
        }
    };
    endpoint
        .run(stop)
        .await
        .map_err(|err| Failure::error(format!("The endpoint failed: {err}")))?;
    tracing::info!("the endpoint has stopped");
    drop(held);
    Ok(Exit::Success)
}

fn already(args: &Up, running: Option<&Running>) -> Outcome {
    if args.announce {
        announce(&json!({ "running": running }))?;
        return Ok(Exit::Success);
    }
    let mut out = io::stdout().lock();
    match running {
        Some(running) => {
            writeln!(out, "Local endpoint is already running at {}", running.url())?;
            if let Some(note) = kept::note(args, running) {
                crate::say(&note);
            }
        }
        None => writeln!(out, "Another local endpoint is just starting")?,
    }
    Ok(Exit::Success)
}

/// Reports progress to the process that started this one. Ignores an error, since that process may have ended.
fn announce(message: &serde_json::Value) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{message}") {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn refused(err: &StartError) -> Failure {
    let advice = match err {
        StartError::PortInUse(_) => ". Stop what uses it, or use --port.",
        _ => "",
    };
    let mut text = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        let said = err.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = err.source();
    }
    Failure::error(format!("{text}{advice}"))
}

/// Ends when the process is asked to.
#[cfg(unix)]
fn stopped() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

/// Ends when the process is asked to.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn stopped() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Writes the log on standard error; `RUST_LOG` says more precisely what.
fn log(verbose: bool) {
    let usual = if verbose {
        "warn,zae_limiter_local=debug"
    } else {
        "warn,zae_limiter_local=info,zae_limiter=info"
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{usual},zae_limiter_cli=info")));
    // Fails only if there is one already, which then is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would be written to standard error as well, and end the endpoint if that has no reader any more.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
