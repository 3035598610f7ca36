//! The server's life: it binds its ports, serves, and drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use zae_limiter::Drained;

use crate::activity::STEP;
use crate::app::App;
use crate::auth::{Auth, Tokens};
use crate::connection::{Port, Setup};
use crate::error::Error;
use crate::guard::{self, Guard};
use crate::options::Options;
use crate::reload::{Reload, Watched};
use crate::sweep::sweep;
use crate::tls::Tls;
use crate::{envoy, http, listener};

/// The options that name addresses, for messages.
const GRPC: &str = "--grpc-listen";
const HTTP: &str = "--http-listen";

/// A server that listens and does not yet answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use zae_limiter::{RateLimiter, Repository};
/// use zae_limiter_server::{App, Options, Rules, Server};
///
/// let app = App::new(RateLimiter::new(Repository::in_memory().await?), Rules::none());
/// let mut options = Options::default();
/// (options.grpc, options.http) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
/// let server = Server::bind(app, options).await?;
/// let stop = async {}; // a signal
/// assert!(server.run(stop).await.is_complete());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    app: App,
    options: Options,
    auth: Auth,
    tls: Option<Arc<Tls>>,
    reload: Reload,
    grpc: TcpListener,
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
    /// A port or a file cannot be used, or clients on other machines would not be authenticated.
    pub async fn bind(app: App, options: Options) -> Result<Self, Error> {
        let is_protected = options.tokens.is_some()
            || options
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_authorities.is_some());
        for (address, option) in [(options.grpc, GRPC), (options.http, HTTP)] {
            if !address.ip().is_loopback() && !is_protected && !options.insecure {
                return Err(Error::Unprotected { address, option });
            }
        }
        let tls = options.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let tokens = options.tokens.as_deref().map(Tokens::load).transpose()?;
        let auth = Auth {
            tokens: tokens.map(Arc::new),
            needs_certificate: options
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_authorities.is_some()),
        };
        let grpc = bind(options.grpc, GRPC).await?;
        let http = bind(options.http, HTTP).await?;
        Ok(Self {
            app,
            options,
            auth,
            tls,
            reload: Reload::default(),
            grpc,
            http,
        })
    }

    /// Where gRPC is served: the port that was found, if the options say 0.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.local_addr().unwrap_or(self.options.grpc)
    }

    /// Where HTTP is served: the port that was found, if the options say 0.
    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr().unwrap_or(self.options.http)
    }

    /// Lets the running server read its files again at once.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves until `stop` ends. Then accepts no more, finishes what is in flight, and waits for the limiter's refunds.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Stopped {
        let Self {
            app,
            options,
            auth,
            tls,
            reload,
            grpc,
            http,
        } = self;
        let (drain, draining) = watch::channel(false);
        let limits = options.limits;
        let (router, health) = envoy::router(app.clone(), &limits).await;
        let setup = |port, address, router: Router| {
            let guard = Guard::new((port, address), auth.clone(), limits, draining.clone());
            Arc::new(Setup {
                router: router.layer(from_fn_with_state(Arc::new(guard), guard::guard)),
                port,
                tls: tls.clone(),
                limits,
            })
        };
        let for_grpc = setup(Port::Grpc, options.grpc, router);
        let for_http = setup(Port::Http, options.http, http::router(app.clone(), &limits));
        let rules = options.rules.clone().map(|path| (app.clone(), path));
        let watched = Watched::new(rules, auth.tokens.clone(), tls.clone(), app.leases());
        let watching = tokio::spawn(watched.watch(reload, options.reload_every));
        let sweeping = tokio::spawn(sweep(app.clone(), options.sweep_every));
        let keeping = tokio::spawn(keep_up(app.clone()));
        let stopping = async {
            stop.await;
            app.drain();
            envoy::drain(&health).await;
            tokio::time::sleep(options.drain_delay).await;
            drain.send_replace(true);
        };
        let (of_grpc, of_http, ()) = tokio::join!(
            listener::accept(grpc, for_grpc, draining.clone()),
            listener::accept(http, for_http, draining.clone()),
            stopping,
        );
        watching.abort();
        // What it has not settled, another server or the next start does.
        sweeping.abort();
        keeping.abort();
        end(&app, vec![of_grpc, of_http], options.drain_timeout).await
    }
}

/// Ends the steps of the page, and puts samples of histograms into their buckets, which else happens only when metrics are read.
async fn keep_up(app: App) {
    let Some(metrics) = app.metrics() else { return };
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one ends at once.
    steps.tick().await;
    loop {
        steps.tick().await;
        metrics.activity.step(app.limiter().repository().now());
        metrics.prometheus.run_upkeep();
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
