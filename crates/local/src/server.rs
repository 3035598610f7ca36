//! The port: connections, requests read to their end, replies with what AWS's have in common.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::upload::{self, Kept, Room, Unread};
use crate::web;
use crate::wire::{Refusal, Reply, Request, request_id};
use crate::world::World;

/// How long a client may take to send the head of its request, or the next piece of its body.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before accepting again when the system is out of something.
const PAUSE: Duration = Duration::from_millis(50);

/// What requests are answered with. While a request only passes through, it shares this and not the world, so that who
/// has the world sees by its count whether something works in it.
#[derive(Debug)]
struct Door {
    world: Arc<World>,
    /// Whether it is at a loopback address.
    is_local: bool,
    room: Room,
}

/// Answers requests until `stop` ends; then finishes those under way, however long their clients take.
///
/// # Errors
/// If the port cannot be listened on any longer.
pub async fn serve(
    world: Arc<World>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    let is_local = listener.local_addr()?.ip().to_canonical().is_loopback();
    let door = Arc::new(Door {
        world,
        is_local,
        room: Room::default(),
    });
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => {
                failing = false;
                stream
            }
            Err(err) => {
                if !failing {
                    tracing::warn!(error = %err, "connections cannot be accepted");
                }
                failing = true;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
        let door = Arc::clone(&door);
        let service = service_fn(move |request| respond(Arc::clone(&door), request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that hangs up is its own affair.
            if let Err(err) = connection.await {
                tracing::trace!(error = %err, "a connection broke off");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

/// Listens on an address.
///
/// # Errors
/// The system's, such as a port in use.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn respond(
    door: Arc<Door>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: Bytes::new(),
    };
    if let Err(refusal) = web::check(&request, door.is_local) {
        return Ok(finished(refusal.rest_json()));
    }
    let awaits = request.headers.contains_key(EXPECT);
    let Kept { bytes, room } = match upload::read(body, awaits, PATIENCE, &door.room).await {
        Ok(body) => body,
        Err(unread) => return Ok(finished(refused(&request, &unread))),
    };
    request.body = bytes;
    // A task of its own: what was begun is finished even if the client hangs up.
    let served = tokio::spawn(async move {
        let _working = World::is_invocation(&request).then(|| Arc::clone(&door.world));
        let target = request.header("x-amz-target").unwrap_or(&request.path).to_owned();
        let method = request.method.clone();
        let reply = door.world.serve(request).await;
        drop(room);
        tracing::debug!(%method, target, status = reply.status.as_u16(), "request");
        reply
    });
    Ok(finished(match served.await {
        Ok(reply) => reply,
        Err(err) => {
            tracing::error!(error = %err, "a request could not be served");
            let neutral = "the local endpoint failed at this request; its log says where";
            Refusal::internal(&neutral).amz_json()
        }
    }))
}

/// Answers why a request was not read. The connection cannot be used further, since the start of the next request is
/// unknown.
fn refused(request: &Request, unread: &Unread) -> Reply {
    let (status, code) = match unread {
        Unread::TooLarge => (413, "EntityTooLarge"),
        Unread::Busy => (503, "SlowDown"),
        Unread::Silent => (408, "RequestTimeout"),
        Unread::Broken(_) => (400, "IncompleteBody"),
    };
    let refusal = Refusal::new(code, unread.to_string()).status(status);
    World::unread(request, &refusal).with(CONNECTION.as_str(), "close")
}

fn finished(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(hyper::header::CONTENT_TYPE);
    }
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        response.headers_mut().entry("x-amzn-requestid").or_insert(id);
    }
    response
}
