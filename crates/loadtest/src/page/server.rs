//! The page's port.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY};
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::view::{State, View};
use super::web::{Refusal, Wish, check};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The most connections at a time.
const CONNECTIONS: usize = 64;

/// How long a client may take to send the head of a request, and then its body.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest body, in bytes.
const LARGEST: usize = 64 << 10;

/// The pause after a failure to accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What the page asks its owner for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Begin a test. The view is in the state `Starting` then.
    Start(Wish),
    /// End it. The view is in the state `Stopping` then.
    Stop,
}

/// A page that is served as long as this.
#[derive(Debug)]
pub struct Page {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Ends with this.
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    view: Mutex<View>,
    requests: mpsc::Sender<Request>,
    html: Bytes,
    policy: String,
}

impl Page {
    /// Serves a page on a port of the loopback address. Returns it with what it asks for.
    ///
    /// # Errors
    /// The system's, such as a port in use.
    pub async fn serve(port: u16, view: View) -> io::Result<(Self, mpsc::Receiver<Request>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        // One of each can wait: there is one test at a time.
        let (requests, asked) = mpsc::channel(2);
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        let html = HTML.replace("{style}", STYLE).replace("{script}", SCRIPT);
        let shared = Arc::new(Shared {
            view: Mutex::new(view),
            requests,
            html: html.into(),
            policy: format!(
                "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'",
                hash(STYLE),
                hash(SCRIPT)
            ),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        let page = Self {
            shared,
            address,
            _serving: serving,
        };
        Ok((page, asked))
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it shows.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.shared.view()
    }
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                tracing::warn!(error = %err, "a connection to the page cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(err) = connection.await {
                tracing::trace!(error = %err, "a connection to the page broke off");
            }
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = match check(request.method(), request.headers()) {
        Ok(()) => route(&shared, request).await,
        Err(refusal) => Err(refusal),
    };
    let (status, kind, body) = match answered {
        Ok((kind, body)) => (200, kind, body),
        Err(Refusal { status, why }) => {
            let body = serde_json::json!({ "error": why }).to_string();
            (status, JSON, body.into())
        }
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (CONTENT_SECURITY_POLICY, &*shared.policy),
    ];
    let head = Response::builder().status(status);
    let head = headers
        .into_iter()
        .fold(head, |head, (name, value)| head.header(name, value));
    Ok(head
        .body(Full::new(body))
        .unwrap_or_else(|_| Response::new(Full::new(Bytes::new()))))
}

const JSON: &str = "application/json";

async fn route(shared: &Shared, request: hyper::Request<Incoming>) -> Result<(&'static str, Bytes), Refusal> {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/") => Ok(("text/html; charset=utf-8", shared.html.clone())),
        (&Method::GET, "/stats") => {
            let view = shared.view().clone();
            json(&view)
        }
        (&Method::GET, "/report") => {
            let sample = shared.view().sample();
            json(&sample)
        }
        (&Method::POST, "/start") => {
            let body = read(body).await?;
            let mut view = shared.view();
            let wish = Wish::read(&body, view.classes())?;
            if view.state() != State::Ready {
                return Err(Refusal::new(409, "a test runs; stop it first"));
            }
            ask(shared, Request::Start(wish))?;
            view.begin();
            Ok((JSON, "{}".into()))
        }
        (&Method::POST, "/stop") => {
            read(body).await?;
            let mut view = shared.view();
            match view.state() {
                State::Ready => return Err(Refusal::new(409, "no test runs")),
                State::Stopping => {}
                State::Starting | State::Running => {
                    ask(shared, Request::Stop)?;
                    view.stopping();
                }
            }
            Ok((JSON, "{}".into()))
        }
        (_, "/" | "/report" | "/stats" | "/start" | "/stop") => {
            Err(Refusal::new(405, "this method is not supported here"))
        }
        (_, path) => Err(Refusal::new(404, format!("there is nothing at {path}"))),
    }
}

fn json(value: &impl Serialize) -> Result<(&'static str, Bytes), Refusal> {
    let text = serde_json::to_vec(value).map_err(|err| Refusal::new(500, err.to_string()))?;
    Ok((JSON, text.into()))
}

fn ask(shared: &Shared, request: Request) -> Result<(), Refusal> {
    let asked = shared.requests.try_send(request);
    asked.map_err(|_| Refusal::new(503, "the master is busy; try again"))
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let whole = timeout(PATIENCE, Limited::new(body, LARGEST).collect()).await;
    match whole {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(err)) => Err(Refusal::new(400, format!("the request cannot be read: {err}"))),
        Err(_) => Err(Refusal::new(408, "the request did not come in time")),
    }
}
