//! The server's life: it binds its ports, serves, and drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use zae_limiter::Drained;

use crate::app::App;
use crate::connection::Setup;
use crate::error::Error;
use crate::options::Options;
use crate::{http, listener};

/// A server that listens and does not yet answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use zae_limiter::{RateLimiter, Repository};
/// use zae_limiter_server::{App, Options, Server};
///
/// let app = App::new(RateLimiter::new(Repository::in_memory().await?));
/// let mut options = Options::default();
/// options.http.set_port(0);
/// let server = Server::bind(app, options).await?;
/// let stop = async {}; // a signal
/// assert!(server.run(stop).await.is_complete());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    app: App,
    options: Options,
    http: TcpListener,
}

/// What was left when the server ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Stopped {
    /// Connections with requests in flight that were cut.
    pub connections: usize,
    /// Background work of the limiter.
    pub limiter: Drained,
}

impl Stopped {
    /// Whether all requests were answered, and all refunds sent.
    pub fn is_complete(&self) -> bool {
        self.connections == 0 && self.limiter.is_complete()
    }
}

impl Server {
    /// Listens on the ports of the options.
    ///
    /// # Errors
    /// A port cannot be used.
    pub async fn bind(app: App, options: Options) -> Result<Self, Error> {
        let http = bind(options.http, "--http-listen").await?;
        Ok(Self { app, options, http })
    }

    /// Where HTTP is served: the port that was found, if the options say 0.
    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr().unwrap_or(self.options.http)
    }

    /// Serves until `stop` ends. Then accepts no more, finishes what is in flight, and waits for the limiter's refunds.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Stopped {
        let Self { app, options, http } = self;
        let (drain, draining) = watch::channel(false);
        let setup = Setup {
            router: http::router(app.clone(), &options.limits),
            is_grpc: false,
            limits: options.limits,
        };
        let accepting = listener::accept(http, Arc::new(setup), draining);
        let stopping = async {
            stop.await;
            app.drain();
            tokio::time::sleep(options.drain_delay).await;
            drain.send_replace(true);
        };
        let (connections, ()) = tokio::join!(accepting, stopping);
        end(&app, vec![connections], options.drain_timeout).await
    }
}

/// Waits for connections and for the limiter.
async fn end(app: &App, all: Vec<JoinSet<()>>, timeout: Duration) -> Stopped {
    let until = tokio::time::Instant::now() + timeout;
    let mut cut = 0;
    for mut connections in all {
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout_at(until, ended).await.is_err() {
            cut += connections.len();
            connections.shutdown().await;
        }
    }
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    // Refunds of requests that were cut need some time in any case.
    let left = left.max(Duration::from_secs(1));
    Stopped {
        connections: cut,
        limiter: app.limiter().repository().drain_within(left).await,
    }
}

async fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Bind {
        address,
        option,
        source,
    })
}
