//! A daemon with at most one container, on a socket or a port of its own.
//!
//! It answers the calls that are made of it from a [`World`] that the test sets up and looks at afterwards. Whatever it
//! is asked beyond that, it answers with status 501, and remembers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use zae_limiter_local::docker::Docker;

/// What is where the daemon is, and how it will behave.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// The images that are there.
    pub(crate) images: Vec<String>,
    /// The container, if there is one.
    pub(crate) container: Option<Container>,
    /// What a pull streams, one JSON value a line.
    pub(crate) pull: Vec<Value>,
    /// Whether a pull ends with the image being there.
    pub(crate) pull_brings_image: bool,
    /// Calls (method and path) and the status and message they are refused with.
    pub(crate) refusals: Vec<(&'static str, u16, &'static str)>,
    /// State and health from one inspection after the start to the next; the last stays.
    pub(crate) course: VecDeque<(&'static str, &'static str)>,
    /// After this many calls, another client removes the container.
    pub(crate) vanish_after: Option<usize>,
    /// The log's pieces: 1 for standard output or 2 for standard error, and the bytes.
    pub(crate) log: Vec<(u8, Vec<u8>)>,
    /// What comes after the log.
    pub(crate) log_end: LogEnd,
    /// Every call so far: method, path and query.
    pub(crate) calls: Vec<String>,
    /// The body of the last creation.
    pub(crate) created: Option<Value>,
}

/// What comes after the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// The answer ends.
    #[default]
    Ends,
    /// The connection breaks.
    Breaks,
    /// The container may write more.
    StaysOpen,
}

/// The container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) state: &'static str,
    pub(crate) health: &'static str,
    pub(crate) image: String,
    /// The bound port of the host.
    pub(crate) port: Option<String>,
}

impl Container {
    /// One that runs and is healthy.
    pub(crate) fn running() -> Self {
        Self::in_state("running", "healthy", Some("4567"))
    }

    pub(crate) fn in_state(state: &'static str, health: &'static str, port: Option<&str>) -> Self {
        Self {
            state,
            health,
            image: "localstack/localstack:4.14".to_owned(),
            port: port.map(str::to_owned),
        }
    }

    fn json(&self) -> Value {
        let mut state = json!({ "Status": self.state, "Running": self.state == "running", "Error": "" });
        if !self.health.is_empty() {
            state["Health"] = json!({ "Status": self.health, "FailingStreak": 0, "Log": [] });
        }
        let ports = match &self.port {
            Some(port) => json!({ "4566/tcp": [
                { "HostIp": "0.0.0.0", "HostPort": port },
                { "HostIp": "::", "HostPort": port },
            ], "5678/tcp": null }),
            None => json!({}),
        };
        json!({
            "Id": "c0ffee",
            "Name": "/zae-limiter-localstack",
            "State": state,
            "Config": { "Image": self.image },
            "NetworkSettings": { "Ports": ports },
        })
    }
}

type Shared = Arc<Mutex<World>>;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A daemon that serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    world: Shared,
    /// What `DOCKER_HOST` would say.
    pub(crate) host: String,
    task: JoinHandle<()>,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    /// On a socket.
    pub(crate) fn on_socket(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let world = Arc::new(Mutex::new(world));
        let shared = Arc::clone(&world);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, Arc::clone(&shared));
            }
        });
        Self {
            world,
            host: format!("unix://{}", path.display()),
            task,
            _dir: Some(dir),
        }
    }

    /// On a port.
    pub(crate) async fn on_port(world: World) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(world));
        let shared = Arc::clone(&world);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, Arc::clone(&shared));
            }
        });
        Self {
            world,
            host,
            task,
            _dir: None,
        }
    }

    /// The client of this daemon.
    pub(crate) async fn connect(&self) -> Docker {
        Docker::connect(Some(&self.host)).await.unwrap()
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The calls since connecting, without their queries.
    pub(crate) fn calls(&self) -> Vec<String> {
        let world = self.world();
        let path = |call: &String| call.split('?').next().unwrap_or_default().to_owned();
        world
            .calls
            .iter()
            .map(path)
            .filter(|call| call != "GET /_ping")
            .collect()
    }

    /// The query of the last call of the method and path.
    pub(crate) fn query(&self, call: &str) -> Vec<(String, String)> {
        let world = self.world();
        let line = world
            .calls
            .iter()
            .rfind(|line| line.split('?').next() == Some(call));
        let query = line.expect(call).split_once('?').map_or("", |(_, query)| query);
        let mut pairs: Vec<_> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/").replace("%3A", ":")))
            .collect();
        pairs.sort();
        pairs
    }
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, world: Shared) {
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let world = Arc::clone(&world);
            async move { Ok::<_, Infallible>(answer(request, &world).await) }
        });
        // A client that went away is its own affair.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
}

async fn answer(request: Request<Incoming>, world: &Shared) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut world = world.lock().unwrap();
    let path = head.uri.path().to_owned();
    let call = format!("{} {path}", head.method);
    let query = head.uri.query().unwrap_or_default();
    world.calls.push(format!("{call}?{query}"));
    if world.vanish_after.is_some_and(|calls| world.calls.len() > calls) {
        world.container = None;
    }
    if let Some((_, status, message)) = world.refusals.iter().find(|(refused, ..)| *refused == call) {
        return refuse(*status, message);
    }
    if path == "/_ping" {
        return Response::new(full("OK"));
    }
    if let Some(image) = path
        .strip_prefix("/images/")
        .and_then(|rest| rest.strip_suffix("/json"))
    {
        return if world.images.iter().any(|there| there == image) {
            ok(200, &json!({ "Id": "sha256:00" }))
        } else {
            refuse(404, &format!("No such image: {image}"))
        };
    }
    if path == "/images/create" {
        return pull(&mut world);
    }
    if path == "/containers/create" {
        return create(&mut world, &body);
    }
    let Some(action) = path.strip_prefix("/containers/zae-limiter-localstack") else {
        return refuse(501, &call);
    };
    container_call(&mut world, &head.method, action)
}

fn pull(world: &mut World) -> Response<Body> {
    let lines: Vec<_> = world.pull.iter().map(|line| format!("{line}\r\n")).collect();
    if world.pull_brings_image {
        let image = "localstack/localstack:4.14".to_owned();
        world.images.push(image);
    }
    let lines = lines.into_iter().map(|line| Ok(Bytes::from(line))).collect();
    Response::new(StreamBody::new(in_pieces(lines)).boxed_unsync())
}

fn create(world: &mut World, body: &[u8]) -> Response<Body> {
    if world.container.is_some() {
        return refuse(409, "Conflict. The container name is already in use");
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    let image = body["Image"].as_str().unwrap().to_owned();
    if !world.images.contains(&image) {
        return refuse(404, &format!("No such image: {image}"));
    }
    world.container = Some(Container {
        image,
        ..Container::in_state("created", "", None)
    });
    world.created = Some(body);
    ok(201, &json!({ "Id": "c0ffee", "Warnings": [] }))
}

/// What is asked of the container itself.
fn container_call(world: &mut World, method: &Method, action: &str) -> Response<Body> {
    let World {
        container,
        course,
        created,
        ..
    } = world;
    let Some(there) = container else {
        return refuse(404, "No such container: zae-limiter-localstack");
    };
    match (method.as_str(), action) {
        ("GET", "/json") => {
            if there.state == "running" && !course.is_empty() {
                let (state, health) = course[0];
                if course.len() > 1 {
                    course.pop_front();
                }
                (there.state, there.health) = (state, health);
            }
            ok(200, &there.json())
        }
        ("POST", "/start") => {
            let bindings = created
                .as_ref()
                .map(|body| &body["HostConfig"]["PortBindings"]["4566/tcp"]);
            let port = bindings.and_then(|bindings| bindings[0]["HostPort"].as_str());
            there.port = port.map(str::to_owned);
            (there.state, there.health) = ("running", "starting");
            empty(204)
        }
        ("POST", "/stop") if there.state == "running" => {
            there.state = "exited";
            empty(204)
        }
        ("POST", "/stop") => empty(304),
        ("DELETE", "") => {
            *container = None;
            empty(204)
        }
        ("GET", "/logs") => log(world),
        _ => refuse(501, action),
    }
}

/// Docker's framing: the stream's number, three zeros, the length, the bytes.
fn log(world: &World) -> Response<Body> {
    let mut frames: Vec<_> = world
        .log
        .iter()
        .map(|(stream, piece)| {
            let mut frame = vec![*stream, 0, 0, 0];
            frame.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
            frame.extend(piece);
            Ok(Bytes::from(frame))
        })
        .collect();
    if world.log_end == LogEnd::Breaks {
        frames.push(Err(std::io::Error::other("the daemon went away")));
    }
    let frames = in_pieces(frames);
    let body = match world.log_end {
        LogEnd::StaysOpen => StreamBody::new(frames.chain(stream::pending())).boxed_unsync(),
        LogEnd::Ends | LogEnd::Breaks => StreamBody::new(frames).boxed_unsync(),
    };
    Response::new(body)
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body in pieces, so that it is sent chunked and its end can be distinguished from a broken connection.
fn in_pieces(
    pieces: Vec<Result<Bytes, std::io::Error>>,
) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static {
    stream::iter(pieces).then(|piece| async {
        // Lets the server send what it has, which it would not do after an error.
        tokio::time::sleep(Duration::from_millis(1)).await;
        piece.map(Frame::data)
    })
}

fn with_status(status: u16, body: Body) -> Response<Body> {
    Response::builder().status(status).body(body).unwrap()
}

fn ok(status: u16, value: &Value) -> Response<Body> {
    with_status(status, full(value.to_string()))
}

fn empty(status: u16) -> Response<Body> {
    with_status(status, full(Bytes::new()))
}

fn refuse(status: u16, message: &str) -> Response<Body> {
    ok(status, &json!({ "message": message }))
}
