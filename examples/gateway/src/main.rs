//! A gateway with limits in front of a model that is made up, in one process and without an account.
//!
//! ```text
//! cargo run -p gateway
//! cargo run -p gateway --features otlp -- --otlp http://localhost:4318/v1/traces
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use zae_limiter::{RateLimiter, Repository};

#[cfg(feature = "otlp")]
use gateway_example::traces;
use gateway_example::{gateway, model, setup};

/// Serves a made-up language model with limits per key and project.
#[derive(Debug, Parser)]
struct Args {
    /// The port of the gateway
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Keep the limits and tokens in this directory [default: in memory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[cfg(feature = "otlp")]
    #[arg(
        long,
        value_name = "URL",
        help = "Send spans to this collector, such as http://localhost:4318/v1/traces"
    )]
    otlp: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(LevelFilter::INFO);
    let subscriber = tracing_subscriber::registry().with(logs);
    #[cfg(feature = "otlp")]
    let provider = args.otlp.as_deref().map(traces::exporting).transpose()?;
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(provider.as_ref().map(traces::layer));
    subscriber.init();
    let builder = Repository::builder();
    let repo = match args.data_dir {
        Some(dir) => builder.embedded(dir).open().await?,
        None => builder.in_memory().open().await?,
    };
    setup::store(&repo, setup::Allowance::default()).await?;

    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let upstream = TcpListener::bind(local(0)).await?;
    let authority = upstream.local_addr()?.to_string().parse()?;
    let served = model::Served::default();
    let model = model::app(served.clone(), Duration::from_millis(20));
    tokio::spawn(async move { axum::serve(upstream, model).await });

    let listener = TcpListener::bind(local(args.port)).await?;
    let app = gateway::app(RateLimiter::new(repo.clone()), authority)?;
    tracing::info!(
        "curl -i http://{}/v1/chat/completions -H 'Authorization: Bearer {}' -d '{}'",
        listener.local_addr()?,
        setup::KEYS[0].0,
        r#"{"model":"gpt-4o","stream":true,"max_tokens":40,"messages":[{"role":"user","content":"Hello"}]}"#,
    );
    let stopped = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "signals are not caught");
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
    // Leases end in the background.
    let left = repo.drain().await;
    tracing::info!(
        requests = served.requests(),
        tokens = served.tokens(),
        complete = left.is_complete(),
        "served"
    );
    // Spans of the last corrections have ended, and are sent.
    #[cfg(feature = "otlp")]
    if let Some(provider) = provider {
        tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    }
    Ok(())
}
