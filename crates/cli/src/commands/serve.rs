//! `serve`: the server, in this process.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use zae_limiter::RateLimiter;
#[cfg(feature = "otlp")]
use zae_limiter_server::Traces;
use zae_limiter_server::{
    App, Error, LeaseKeys, Options, Reload, Rules, Server, Stopped, TlsFiles, install_metrics,
};

use super::{Outcome, print_schema};
use crate::args::serve::{LogFormat, Serve};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Failure, of_file};
use crate::text::table::printable;

/// Serves on all processors until a signal comes.
pub(crate) fn serve(args: &Serve) -> Outcome {
    if args.schema {
        return print_schema(Rules::SCHEMA);
    }
    if let Some(path) = &args.check {
        return check(path);
    }
    #[cfg(feature = "otlp")]
    let traces = args.otlp.as_deref().map(Traces::to).transpose();
    #[cfg(feature = "otlp")]
    let traces = traces.map_err(|err| refused(&err))?;
    log(
        args.log_format,
        #[cfg(feature = "otlp")]
        traces.as_ref(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let outcome = runtime.block_on(run(args));
    runtime.shutdown_background();
    #[cfg(feature = "otlp")]
    if let Some(Err(err)) = traces.map(Traces::end) {
        tracing::warn!(error = %err, "the last traces may not have arrived");
    }
    outcome
}

fn check(path: &Path) -> Outcome {
    let rules = Rules::from_file(path).map_err(|err| refused(&err))?;
    let domains = rules.domains().count();
    let mut out = io::stdout().lock();
    let shown = path.to_string_lossy();
    io::Write::write_fmt(
        &mut out,
        format_args!("✓ {} is valid (domains: {domains})\n", printable(&shown)),
    )?;
    Ok(Exit::Success)
}

async fn run(args: &Serve) -> Outcome {
    let cannot_start = |err: io::Error| Failure::error(format!("Cannot start: {err}"));
    let Some(config) = &args.config else {
        return Err(Failure::usage("Give a file of rules with --config."));
    };
    let rules = Rules::from_file(config).map_err(|err| refused(&err))?;
    let keys = args.lease_keys.as_deref().map(LeaseKeys::load).transpose();
    let keys = keys.map_err(|err| refused(&err))?;
    let metrics = install_metrics().map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    if let Err(err) = zae_limiter_local::process::allow_files() {
        tracing::warn!(error = %err, "the number of open files cannot be raised");
    }
    // Before the ports are open, so that no signal is missed once others know of them.
    let stop = signals::stopped().map_err(cannot_start)?;
    let hang_up = signals::hang_up().map_err(cannot_start)?;
    let repository = connect::service(&args.at).await?;
    let mut app = App::new(RateLimiter::new(repository), rules).with_metrics(metrics);
    if let Some(keys) = keys {
        app = app.with_leases(keys);
    } else {
        tracing::info!("without --lease-keys, only this process can end the leases that it issues");
    }
    let server = Server::bind(app, options(args))
        .await
        .map_err(|err| refused(&err))?;
    let is_open = args.token_file.is_none() && args.client_ca.is_none();
    if is_open && (!args.grpc_listen.ip().is_loopback() || !args.http_listen.ip().is_loopback()) {
        tracing::warn!("every client that reaches an address of this server may ask: --insecure is given");
    } else if args.token_file.is_some() && args.tls_cert.is_none() {
        tracing::warn!("tokens are sent without TLS: every machine on the way can read them");
    }
    tracing::info!(grpc = %server.grpc_address(), http = %server.http_address(), "ready");
    let reloading = tokio::spawn(hang_up(server.reload()));
    let stopped = server.run(stop).await;
    reloading.abort();
    ended(&stopped)
}

fn options(args: &Serve) -> Options {
    let mut options = Options::default();
    options.grpc = args.grpc_listen;
    options.http = args.http_listen;
    options.rules.clone_from(&args.config);
    options.tokens.clone_from(&args.token_file);
    options.tls = args
        .tls_cert
        .clone()
        .zip(args.tls_key.clone())
        .map(|(certificates, key)| TlsFiles {
            certificates,
            key,
            client_authorities: args.client_ca.clone(),
        });
    options.insecure = args.insecure;
    options.drain_delay = args.drain_delay;
    options.drain_timeout = args.drain_timeout;
    let limits = &mut options.limits;
    limits.connections = args.max_connections as usize;
    limits.requests = args.max_requests as usize;
    limits.streams = args.max_streams;
    limits.header_bytes = args.max_header_bytes;
    limits.body_bytes = args.max_body_bytes as usize;
    limits.header_timeout = args.header_timeout;
    limits.request_timeout = args.request_timeout;
    options
}

fn refused(err: &Error) -> Failure {
    match err {
        Error::Rules { path, problems } => of_file(&path.to_string_lossy(), problems),
        Error::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Failure::error(format!(
            "{}. Stop what uses the port, or choose another one with the option.",
            capitalised(&err.to_string())
        )),
        Error::Unprotected { .. } => Failure::usage(format!("{}.", capitalised(&err.to_string()))),
        other => Failure::error(format!("{}.", capitalised(&other.to_string()))),
    }
}

/// A message as a sentence. Options keep their form.
fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn ended(stopped: &Stopped) -> Outcome {
    if stopped.is_complete() {
        tracing::info!("the server has ended");
        return Ok(Exit::Success);
    }
    Err(Failure::error(format!(
        "The server has ended before all was done: {} connections were cut; of the limiter, {}.",
        stopped.connections, stopped.limiter
    )))
}

/// Signals that the server gets.
#[cfg(unix)]
mod signals {
    use std::io;
    use std::pin::Pin;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::Reload;

    /// Ends when the process is asked to end. When it is asked once more, the process ends at once.
    pub(super) fn stopped() -> io::Result<impl Future<Output = ()>> {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        Ok(async move {
            let number = next(&mut terminated, &mut interrupted).await;
            let is_interrupt = number == SignalKind::interrupt().as_raw_value();
            let signal = if is_interrupt { "SIGINT" } else { "SIGTERM" };
            tracing::info!(signal, "the server is about to end");
            tokio::spawn(async move {
                let number = next(&mut terminated, &mut interrupted).await;
                std::process::exit(128 + number);
            });
        })
    }

    async fn next(terminated: &mut Signal, interrupted: &mut Signal) -> i32 {
        let (sigint, sigterm) = (SignalKind::interrupt(), SignalKind::terminate());
        tokio::select! {
            _ = terminated.recv() => sigterm.as_raw_value(),
            _ = interrupted.recv() => sigint.as_raw_value(),
        }
    }

    type Reloading = Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Reads files again at each SIGHUP.
    pub(super) fn hang_up() -> io::Result<impl FnOnce(Reload) -> Reloading> {
        let mut hung_up = signal(SignalKind::hangup())?;
        Ok(|reload: Reload| -> Reloading {
            Box::pin(async move {
                while hung_up.recv().await.is_some() {
                    reload.now();
                }
            })
        })
    }
}

/// Signals that the server gets.
#[cfg(not(unix))]
mod signals {
    use std::future::Ready;
    use std::io;

    use super::Reload;

    /// Ends when the process is asked to end.
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(super) fn stopped() -> io::Result<impl Future<Output = ()>> {
        Ok(async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    /// There is no such signal here.
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(super) fn hang_up() -> io::Result<impl FnOnce(Reload) -> Ready<()>> {
        Ok(|_| std::future::ready(()))
    }
}

/// Writes the log on standard error; `RUST_LOG` says more precisely what.
fn log(format: LogFormat, #[cfg(feature = "otlp")] traces: Option<&Traces>) {
    // h2 warns of clients that it closes, so that a client could fill the log.
    let usual = "warn,h2=error,zae_limiter_server=info,zae_limiter=info,zae_limiter_cli=info";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // It would be written to standard error as well, and end the server if that has no reader any more.
        .log_internal_errors(false)
        .with_target(false);
    let log = match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(log.with_filter(filter));
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(traces.map(Traces::layer));
    // Fails only if there is one already, which then is as good.
    let _ = subscriber.try_init();
}
