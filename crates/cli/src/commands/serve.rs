//! `serve`: the server, in this process.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use zae_limiter::RateLimiter;
use zae_limiter_server::{App, Error, Options, Server, Stopped};

use super::Outcome;
use crate::args::serve::Serve;
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;

/// Serves on all processors until a signal comes.
pub(crate) fn serve(args: &Serve) -> Outcome {
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let outcome = runtime.block_on(run(args));
    runtime.shutdown_background();
    outcome
}

async fn run(args: &Serve) -> Outcome {
    // Before the ports are open, so that no signal is missed once others know of them.
    let stop = stopped().map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let repository = connect::service(&args.at).await?;
    let mut options = Options::default();
    options.http = args.http_listen;
    options.drain_delay = args.drain_delay;
    options.drain_timeout = args.drain_timeout;
    let app = App::new(RateLimiter::new(repository));
    let server = Server::bind(app, options).await.map_err(|err| refused(&err))?;
    tracing::info!(http = %server.http_address(), "ready");
    let stopped = server.run(stop).await;
    ended(&stopped)
}

fn refused(err: &Error) -> Failure {
    Failure::error(format!("{err}."))
}

fn ended(stopped: &Stopped) -> Outcome {
    if stopped.is_complete() {
        tracing::info!("the server has ended");
        return Ok(Exit::Success);
    }
    Err(Failure::error(format!(
        "The server has ended before all was done: {} connections were cut, {}.",
        stopped.connections, stopped.limiter
    )))
}

/// Ends when the process is asked to end.
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

/// Ends when the process is asked to end.
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
fn log() {
    let usual = "warn,zae_limiter_server=info,zae_limiter=info,zae_limiter_cli=info";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    // Fails only if there is one already, which then is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
