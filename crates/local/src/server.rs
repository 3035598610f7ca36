//! The port: connections, requests read to their end, replies with what AWS's have in common.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::wire::{Refusal, Reply, Request, request_id};
use crate::world::World;

/// The largest body that is read: a package of functions may have 250 MB unpacked, and is far smaller packed.
const LARGEST: usize = 300 * 1024 * 1024;

/// How long a client may take to send the head of its request.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before accepting again when the system is out of something.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers requests until `stop` ends; then finishes those under way.
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
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(err) => {
                tracing::warn!(error = %err, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
        let world = Arc::clone(&world);
        let service = service_fn(move |request| respond(Arc::clone(&world), request));
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
    // A client that keeps its connection open and silent is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(5), graceful.shutdown()).await;
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
    world: Arc<World>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(err) => {
            let refusal = Refusal::new("RequestTooLarge", format!("the body could not be read: {err}"));
            return Ok(finished(refusal.amz_json()));
        }
    };
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    // A task of its own: what was begun is finished even if the client hangs up.
    let served = tokio::spawn(async move {
        let target = request.header("x-amz-target").unwrap_or(&request.path).to_owned();
        let method = request.method.clone();
        let reply = world.serve(request).await;
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
