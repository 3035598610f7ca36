//! Connections to a server, each used by one request at a time.
//!
//! The task that sends a request also drives its connection. HTTP clients in general give a connection a task of its own, and
//! then wake it for each request and are woken for each answer, which costs more CPU than the rest of a request.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, timeout};
use tower::Service as _;

/// How long a connection is kept without a request. Servers and networks drop idle ones, most after a minute or more.
const KEPT: Duration = Duration::from_secs(50);

/// The largest answer that is read. DynamoDB's have 16 MB of items at most, which escapes in JSON can make larger.
const LARGEST: usize = 64 * 1024 * 1024;

/// How many connections are kept without a request.
const MOST: usize = 1024;

/// How long after its last use the end of a connection may not have shown yet.
const UNSEEN: Duration = Duration::from_millis(100);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection, so nothing was sent.
    Unconnected(Box<dyn Error + Send + Sync>),
    /// The request may have been executed.
    Lost(hyper::Error),
    /// The head of an answer came, and not all of its body.
    CutOff(Box<dyn Error + Send + Sync>),
}

/// The connections of a client.
pub(super) struct Pool {
    connect: Duration,
    /// The one that was used last is at the end.
    idle: Mutex<VecDeque<Connection>>,
}

/// A connection, and the part of it that reads and writes when it is polled.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` when it has ended. It is dropped then, since only that gives back a request that was not taken.
    driver: Option<http1::Connection<Stream, Full<Bytes>>>,
    server: Server,
    /// The runtime that it belongs to: another one may never wake it.
    runtime: Id,
    used: Instant,
}

/// What a connection leads to. The endpoint can change with the account of the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server(Option<Scheme>, Option<Authority>);

impl Server {
    fn of(uri: &Uri) -> Self {
        Self(uri.scheme().cloned(), uri.authority().cloned())
    }
}

impl Pool {
    /// A pool whose connections are made within this time.
    pub(super) fn new(connect: Duration) -> Self {
        Self {
            connect,
            idle: Mutex::default(),
        }
    }

    /// Sends a request, and reads the answer to its end.
    pub(super) async fn exchange(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let server = Server::of(uri);
        let mut request = request;
        loop {
            let (mut connection, is_new) = match self.take(&server).await {
                Some(connection) => (connection, false),
                None => (self.open(uri).await.map_err(Failure::Unconnected)?, true),
            };
            let sent = connection.sender.try_send_request(request);
            match connection.drive(sent).await {
                Ok(answer) => return self.finish(connection, answer).await,
                // A request that hyper gives back was not written, not even in part.
                Err(mut err) => match err.take_message() {
                    Some(_) if is_new => return Err(Failure::Unconnected(err.into_error().into())),
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Lost(err.into_error())),
                },
            }
        }
    }

    async fn finish(
        &self,
        mut connection: Connection,
        answer: Response<Incoming>,
    ) -> Result<Response<Bytes>, Failure> {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST).collect();
        let body = connection.drive(body).await.map_err(Failure::CutOff)?;
        if connection.is_reusable().await {
            self.put(connection);
        }
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// An open connection of this runtime to this server.
    async fn take(&self, server: &Server) -> Option<Connection> {
        let runtime = Handle::current().id();
        loop {
            // Without a budget, the end of a connection does not show.
            tokio::task::coop::consume_budget().await;
            let mut connection = {
                let mut idle = self.idle();
                prune(&mut idle);
                let fits = |found: &Connection| found.runtime == runtime && found.server == *server;
                let at = idle.iter().rposition(fits)?;
                idle.remove(at)?
            };
            if connection.used.elapsed() > UNSEEN {
                // A runtime of one thread looks for the end of a connection when its tasks have yielded.
                tokio::task::yield_now().await;
            }
            if connection.is_reusable().await {
                return Some(connection);
            }
        }
    }

    fn put(&self, mut connection: Connection) {
        connection.used = Instant::now();
        let mut idle = self.idle();
        idle.push_back(connection);
        prune(&mut idle);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, uri: &Uri) -> Result<Connection, Box<dyn Error + Send + Sync>> {
        let opening = async {
            let stream = connect(uri).await?;
            let (sender, driver) = http1::handshake(stream).await?;
            Ok(Connection {
                sender,
                driver: Some(driver),
                server: Server::of(uri),
                runtime: Handle::current().id(),
                used: Instant::now(),
            })
        };
        let late = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {:?}", self.connect),
            )
        };
        timeout(self.connect, opening).await.map_err(|_| late())?
    }
}

/// Closes the connections that were not used for long, and the oldest of too many.
fn prune(idle: &mut VecDeque<Connection>) {
    while idle.len() > MOST || idle.front().is_some_and(|oldest| oldest.used.elapsed() >= KEPT) {
        idle.pop_front();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Waits for something that the connection does.
    async fn drive<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = pin!(wanted);
        poll_fn(|context| {
            if let Poll::Ready(done) = wanted.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            self.poll_driver(context);
            wanted.as_mut().poll(context)
        })
        .await
    }

    /// Whether another request can be sent now.
    async fn is_reusable(&mut self) -> bool {
        poll_fn(|context| {
            self.poll_driver(context);
            let is_ready = matches!(self.sender.poll_ready(context), Poll::Ready(Ok(())));
            Poll::Ready(is_ready && self.driver.is_some())
        })
        .await
    }

    fn poll_driver(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(context).is_ready()
        {
            self.driver = None;
        }
    }
}

/// Opens a connection, with TLS unless the scheme is `http`.
async fn connect(uri: &Uri) -> Result<Stream, Box<dyn Error + Send + Sync>> {
    if uri.scheme() == Some(&Scheme::HTTP) {
        return Ok(MaybeHttpsStream::Http(tcp().call(uri.clone()).await?));
    }
    let mut connector = match TLS.get() {
        Some(connector) => connector.clone(),
        None => tokio::task::spawn_blocking(tls).await??,
    };
    connector.call(uri.clone()).await
}

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector
}

/// The connector with the certificates of the system, which are read once.
static TLS: OnceLock<HttpsConnector<HttpConnector>> = OnceLock::new();

/// Reads files. A failure is not kept: the certificates may be there the next time.
fn tls() -> Result<HttpsConnector<HttpConnector>, Box<dyn Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_native_roots()
        .map_err(|_| "this machine has no certificates of authorities; see SSL_CERT_FILE and SSL_CERT_DIR")?
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    let made = builder.https_only().enable_http1().wrap_connector(tcp());
    Ok(TLS.get_or_init(|| made).clone())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers `answers` requests of each connection and then closes it, and the number of its connections.
    async fn server(answers: usize, answer: &'static str) -> (Uri, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    for _ in 0..answers {
                        if !matches!(stream.read(&mut buffer).await, Ok(1..)) {
                            return;
                        }
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (uri, connections)
    }

    fn request(uri: &Uri) -> Request<Full<Bytes>> {
        Request::post(uri.clone())
            .body(Full::new(Bytes::from_static(b"{}")))
            .unwrap()
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

    async fn exchange(pool: &Pool, uri: &Uri) -> Result<Bytes, Failure> {
        pool.exchange(uri, request(uri)).await.map(Response::into_body)
    }

    #[tokio::test]
    async fn a_connection_serves_many_requests() {
        let (uri, connections) = server(usize::MAX, OK).await;
        let pool = Pool::new(Duration::from_secs(1));
        for _ in 0..20 {
            assert_eq!(exchange(&pool, &uri).await.unwrap(), "hi");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        let all = futures_util::future::join_all((0..8).map(|_| exchange(&pool, &uri))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(connections.load(Ordering::SeqCst), 8);
        assert_eq!(pool.idle().len(), 8);
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_is_not_used() {
        let (uri, connections) = server(1, OK).await;
        let pool = Pool::new(Duration::from_secs(1));
        for count in 1..=10 {
            assert_eq!(exchange(&pool, &uri).await.unwrap(), "hi");
            assert_eq!(connections.load(Ordering::SeqCst), count);
            // Time for the end of the connection to arrive.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// More connections than a task may poll in one turn; all of them have ended.
    #[tokio::test]
    async fn many_closed_connections_do_not_delay_a_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let (close, closing) = tokio::sync::watch::channel(false);
        let open = Arc::new(tokio::sync::Barrier::new(300));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut closing, open) = (closing.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    if !*closing.borrow() {
                        open.wait().await;
                    }
                    let _ = stream.write_all(OK.as_bytes()).await;
                    let _ = closing.wait_for(|closing| *closing).await;
                });
            }
        });
        let pool = Pool::new(Duration::from_secs(5));
        let all = futures_util::future::join_all((0..300).map(|_| exchange(&pool, &uri))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(pool.idle().len(), 300);
        close.send_replace(true);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = timeout(Duration::from_secs(5), exchange(&pool, &uri)).await;
        assert_eq!(answer.expect("not after its timeout").unwrap(), "hi");
        assert!(pool.idle().is_empty(), "all were looked at");
    }

    /// Between two calls of a runtime with one thread nothing looks for the end of a connection.
    #[test]
    fn a_connection_that_ended_while_its_runtime_stood_still_is_not_used() {
        let others = tokio::runtime::Runtime::new().unwrap();
        let (uri, connections) = others.block_on(server(1, OK));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let pool = Pool::new(Duration::from_secs(1));
        for count in 1..=3 {
            assert_eq!(runtime.block_on(exchange(&pool, &uri)).unwrap(), "hi");
            assert_eq!(connections.load(Ordering::SeqCst), count);
            std::thread::sleep(UNSEEN + Duration::from_millis(50));
        }
    }

    #[tokio::test]
    async fn a_connection_is_used_for_its_server_only() {
        let ((first, _), (second, connections)) = (server(9, OK).await, server(9, OK).await);
        let pool = Pool::new(Duration::from_secs(1));
        exchange(&pool, &first).await.unwrap();
        exchange(&pool, &second).await.unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn answers_that_ask_to_close_are_the_last_of_their_connection() {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
        let (uri, connections) = server(usize::MAX, answer).await;
        let pool = Pool::new(Duration::from_secs(1));
        for _ in 0..3 {
            assert_eq!(exchange(&pool, &uri).await.unwrap(), "hi");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        assert!(pool.idle().is_empty());
    }

    #[tokio::test]
    async fn what_was_sent_counts_as_lost_and_what_was_not_as_unconnected() {
        let pool = Pool::new(Duration::from_millis(200));
        // Reads the request, and closes.
        let (uri, _) = server(1, "").await;
        assert!(matches!(exchange(&pool, &uri).await, Err(Failure::Lost(_))));
        let (uri, _) = server(1, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi").await;
        assert!(matches!(exchange(&pool, &uri).await, Err(Failure::CutOff(_))));
        let (uri, _) = server(1, "no HTTP\r\n\r\n").await;
        assert!(matches!(exchange(&pool, &uri).await, Err(Failure::Lost(_))));
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        for uri in [format!("http://{closed}/"), "http://x.invalid/".to_owned()] {
            let uri = uri.parse().unwrap();
            assert!(
                matches!(exchange(&pool, &uri).await, Err(Failure::Unconnected(_))),
                "{uri}"
            );
        }
        assert!(pool.idle().is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let part = vec![b' '; 1 << 20];
            while stream.write_all(&part).await.is_ok() {}
        });
        let pool = Pool::new(Duration::from_secs(1));
        let end = exchange(&pool, &uri).await;
        assert!(matches!(end, Err(Failure::CutOff(_))), "{end:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_takes_its_connection_with_it() {
        let (uri, connections) = server(0, OK).await;
        let pool = Pool::new(Duration::from_secs(1));
        let waiting = timeout(Duration::from_millis(50), exchange(&pool, &uri)).await;
        // The server closes at once or the time is over; in both cases nothing is kept.
        assert!(!matches!(waiting, Ok(Ok(_))));
        assert!(pool.idle().is_empty());
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_connection_is_not_used_in_another_runtime() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().build().unwrap()
        };
        let (first, second) = (runtime(), runtime());
        let (uri, connections) = first.block_on(server(usize::MAX, OK));
        let pool = Pool::new(Duration::from_secs(1));
        first.block_on(exchange(&pool, &uri)).unwrap();
        second.block_on(exchange(&pool, &uri)).unwrap();
        second.block_on(exchange(&pool, &uri)).unwrap();
        first.block_on(exchange(&pool, &uri)).unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        drop(second);
        let third = runtime();
        third.block_on(exchange(&pool, &uri)).unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), 3);
    }
}
