//! One connection: its protocol, and the end of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutWriter;
use tower::ServiceExt as _;

use crate::auth::HasCertificate;
use crate::options::Limits;
use crate::tls::Tls;
use crate::unsent::{Sending, Unsent};

/// How often an HTTP/2 connection is asked whether its peer is still there, and how long the answer may take.
const KEEP_ALIVE: (std::time::Duration, std::time::Duration) = (
    std::time::Duration::from_secs(30),
    std::time::Duration::from_secs(10),
);

/// The most streams that clients have opened and reset, and that were not yet accepted.
const MAX_PENDING_RESETS: usize = 64;

/// The least that the HTTP/1 reader takes.
const LEAST_BUFFER: usize = 8192;

/// A port of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// HTTP/2 only.
    Grpc,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

impl Port {
    /// Its label in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What the connections of one port share.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The routes.
    pub(crate) router: Router,
    pub(crate) port: Port,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) limits: Limits,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    setup: &Setup,
    draining: watch::Receiver<bool>,
) {
    // Answers are small; a failure costs time only.
    let _ = stream.set_nodelay(true);
    // A client that does not read what is written to it would else be kept forever.
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(setup.limits.request_timeout));
    let stream = Box::pin(stream);
    let Some(tls) = &setup.tls else {
        return http(stream, (peer, HasCertificate(false)), setup, draining).await;
    };
    let handshake = tls.acceptor(setup.port).accept(stream);
    let handshake = tokio::time::timeout(setup.limits.header_timeout, handshake);
    let mut ending = draining.clone();
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        // No request can be in flight.
        _ = ending.wait_for(|draining| *draining) => return,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let (_, session) = stream.get_ref();
            // One that was shown is verified.
            let has_certificate = HasCertificate(session.peer_certificates().is_some());
            http(stream, (peer, has_certificate), setup, draining).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
        Err(_) => tracing::debug!(%peer, "a handshake took too long"),
    }
}

/// Serves HTTP until the peer ends it, or the server does.
async fn http<I>(
    io: I,
    (peer, has_certificate): (SocketAddr, HasCertificate),
    setup: &Setup,
    mut draining: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let has_asked = Arc::new(AtomicBool::new(false));
    let router = setup.router.clone();
    let asked = Arc::clone(&has_asked);
    let unsent = Unsent::default();
    let sent = unsent.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(has_certificate);
        let (router, unsent) = (router.clone(), sent.clone());
        async move { Ok::<_, Infallible>(answer(router, &unsent, request.map(Body::new)).await) }
    });
    let builder = builder(setup);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let limits = &setup.limits;
    let mut silence = pin!(tokio::time::sleep(limits.header_timeout));
    let mut unread = pin!(tokio::time::sleep(limits.request_timeout));
    let (mut is_ending, mut is_heard) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection broke off");
                }
                return;
            }
            // The timers of the protocols begin with its first bytes, or with a complete handshake.
            () = silence.as_mut(), if !is_heard => {
                is_heard = has_asked.load(Ordering::Relaxed);
                if !is_heard {
                    tracing::debug!(%peer, "a connection was closed: it has sent no request in time");
                    return;
                }
            }
            () = unread.as_mut() => {
                let now = Instant::now();
                let until = unsent.oldest().unwrap_or(now) + limits.request_timeout;
                if until <= now {
                    tracing::debug!(%peer, "a connection was closed: the client does not read an answer");
                    return;
                }
                unread.as_mut().reset(until);
            }
            _ = draining.wait_for(|draining| *draining), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(router: Router, unsent: &Unsent, request: Request<Body>) -> http::Response<Sending> {
    match router.oneshot(request).await {
        Ok(response) => unsent.begin(response),
        Err(never) => match never {},
    }
}

fn builder(setup: &Setup) -> Builder<TokioExecutor> {
    let limits = &setup.limits;
    let mut builder = Builder::new(TokioExecutor::new());
    if setup.port == Port::Grpc {
        builder = builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size((limits.header_bytes as usize).max(LEAST_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}
