//! The embedded engine behind a port, for clients that speak DynamoDB's protocol over HTTP.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use zae_limiter::table::EmbeddedEngine;

/// Serves the engine until standard input ends. Prints the port it listens on first.
#[expect(clippy::print_stdout, reason = "the parent process reads the port there")]
pub(crate) async fn serve(data_dir: Option<PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    let engine = match data_dir {
        Some(path) => EmbeddedEngine::open(path)?,
        None => EmbeddedEngine::memory()?,
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await?;
            let engine = engine.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| respond(engine.clone(), request));
                // A client that hangs up is its own affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    };
    let (mut input, mut ignored) = (tokio::io::stdin(), Vec::new());
    tokio::select! {
        failed = accept => failed,
        _ = input.read_to_end(&mut ignored) => Ok(()),
    }
}

async fn respond(
    engine: EmbeddedEngine,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = request.headers().get("x-amz-target");
    let target = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = target.to_owned();
    let Ok(body) = request.into_body().collect().await else {
        return Ok(response(400, "the request broke off".to_owned()));
    };
    // The engine blocks while it works.
    let answer = tokio::task::spawn_blocking(move || {
        let reply = engine.answer(&target, &body.to_bytes());
        (reply.status, in_order(reply.body))
    })
    .await;
    Ok(match answer {
        Ok((status, body)) => response(status, body),
        Err(err) => response(500, err.to_string()),
    })
}

/// An answer with its attributes by name, so that a sequence of calls can be repeated: some clients go by their order.
fn in_order(body: String) -> String {
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(&body) else {
        return body;
    };
    value.sort_all_objects();
    value.to_string()
}

fn response(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if let Ok(status) = hyper::StatusCode::from_u16(status) {
        *response.status_mut() = status;
    }
    let json = hyper::header::HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}
