//! Requests over connections that break off, are slow, or send what they should not: nothing panics, and no token is lost.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceBuilder;
use zae_limiter_tower::{EstimateLayer, RateLimitLayer, Rules, Settle, key, usage};

use crate::world::{KEY, World};

/// Counts the responses that are not dropped before their end.
#[derive(Debug, Clone, Default)]
struct Served(Arc<AtomicUsize>);

async fn serve(w: &World, on_disconnect: Settle, served: Served) -> SocketAddr {
    let rules = Rules::new(key::header(KEY), "api")
        .consume("rpd", 1)
        .consume_estimate("tpd");
    let limits = RateLimitLayer::new(w.limiter.clone(), rules)
        .unwrap()
        .correct("tpd", usage::openai())
        .unwrap()
        .on_disconnect(on_disconnect);
    let estimates = EstimateLayer::new()
        .max_body(1000)
        .default_output(100)
        .body_timeout(Duration::from_millis(300));
    let stream = async move || {
        let served = served.clone();
        let events = stream::iter(0..3).then(async |_| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, Infallible>(Bytes::from_static(b"data: {\"usage\":null}\n\n"))
        });
        let last = stream::once(async move {
            served.0.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(
                b"data: {\"usage\":{\"total_tokens\":7}}\n\ndata: [DONE]\n\n",
            ))
        });
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(events.chain(last)),
        )
    };
    let app = Router::new()
        .route("/stream", post(stream))
        .route("/text", get(async || "text"))
        .layer(ServiceBuilder::new().layer(estimates).layer(limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends bytes, reads what comes until the end or for a while, and hangs up.
async fn send(address: SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    // The server can have hung up.
    let _ = connection.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, connection.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn posted(key: &str, length: usize, body: &str) -> String {
    format!(
        "POST /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-key: {key}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_stream_over_a_connection() {
    let w = World::new().await;
    let served = Served::default();
    let address = serve(&w, Settle::Rollback, served.clone()).await;
    let answer = send(address, posted("a", 2, "{}").as_bytes(), LONG).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("[DONE]"),
        "{answer}"
    );
    assert_eq!(w.left("a").await, (9, 993));
    let head = "GET /text HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-key: b\r\n\r\n";
    let answer = send(address, head.as_bytes(), LONG).await;
    assert!(answer.ends_with("text"), "{answer}");
    assert_eq!(w.left("b").await, (9, 1000));
}

#[tokio::test]
async fn what_is_malformed_takes_nothing() {
    let w = World::new().await;
    let address = serve(&w, Settle::Commit, Served::default()).await;
    let huge = "x".repeat(100_000);
    for (bytes, status) in [
        ("garbage\r\n\r\n".to_owned(), "400"),
        (posted("a", 5000, ""), "413"),
        // The rest of the body does not come.
        (posted("a", 500, "{"), "408"),
        (posted("a\r\nx-key: a", 2, "{}"), "400"),
        (posted("a#b", 2, "{}"), "400"),
        (posted(&"a".repeat(300), 2, "{}"), "400"),
        (
            "POST /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
            "401",
        ),
        (posted(&huge, 2, "{}"), ""),
    ] {
        let answer = send(address, bytes.as_bytes(), LONG).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{status}: {answer}"
        );
    }
    assert_eq!(w.left("a").await, (10, 1000));
}

#[tokio::test]
async fn connections_that_break_off_at_any_time_lose_no_tokens() {
    let w = World::new().await;
    let served = Served::default();
    w.repo
        .admin()
        .set_entity_limits(
            "a",
            "api",
            [
                zae_limiter::Limit::quota("rpd", 1000).resets("0 0 1 1 *", "UTC"),
                zae_limiter::Limit::quota("tpd", 100_000).resets("0 0 1 1 *", "UTC"),
            ],
        )
        .await
        .unwrap();
    let address = serve(&w, Settle::Rollback, served.clone()).await;
    let tasks = (0..60).map(|index| {
        let bytes = posted("a", 2, "{}");
        tokio::spawn(async move {
            // From before the head to after the end.
            let cut = if index % 9 == 1 {
                bytes.len() / 2
            } else {
                bytes.len()
            };
            let patience = if index % 3 == 0 {
                LONG
            } else {
                Duration::from_millis(index * 3)
            };
            send(address, &bytes.as_bytes()[..cut], patience).await
        })
    });
    let mut whole = 0;
    for task in tasks.collect::<Vec<_>>() {
        whole += i64::from(task.await.unwrap().contains("[DONE]"));
    }
    assert!(whole >= 20, "{whole}");
    // The server notices at its next write that a client has gone. A request in flight holds 100 tokens.
    for _ in 0..250 {
        let (requests, tokens) = w.left("a").await;
        let kept = 1000 - requests;
        let made = i64::try_from(served.0.load(Ordering::SeqCst)).unwrap();
        // A last event can be lost with the connection after it was made.
        if (whole..=made).contains(&kept) && tokens == 100_000 - 7 * kept {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "{whole} of {served:?} are served, and the table says {:?}",
        w.left("a").await
    );
}

/// Streams of one connection that are reset: before the head has come, after the first piece, and after all.
#[tokio::test]
async fn streams_that_are_reset_give_back_or_keep() {
    let w = World::new().await;
    let address = serve(&w, Settle::Rollback, Served::default()).await;
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let call = |key: &str| {
        let request = Request::post(format!("http://{address}/stream")).header(KEY, key);
        client
            .clone()
            .send_request(request.body(Full::<Bytes>::from("{}")).unwrap())
    };
    for (key, pieces, left) in [
        ("none", 0, (10, 1000)),
        ("some", 1, (10, 1000)),
        ("all", usize::MAX, (9, 993)),
    ] {
        let mut body = call(key).await.unwrap().into_body();
        let mut read = 0;
        while read < pieces && body.frame().await.is_some() {
            read += 1;
        }
        drop(body);
        settles(&w, key, left).await;
    }
    drop(tokio::time::timeout(Duration::from_millis(1), call("early")).await);
    settles(&w, "early", (10, 1000)).await;
}

/// Waits until the server has noticed that a client has gone.
async fn settles(w: &World, key: &str, expected: (i64, i64)) {
    for _ in 0..250 {
        if w.left(key).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{key} has {:?} left", w.left(key).await);
}

#[tokio::test]
async fn many_requests_at_once_are_admitted_as_the_limit_says() {
    let w = World::new().await;
    let address = serve(&w, Settle::Commit, Served::default()).await;
    let head = "GET /text HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-key: a\r\n\r\n";
    let tasks: Vec<_> = (0..50)
        .map(|_| tokio::spawn(send(address, head.as_bytes(), LONG)))
        .collect();
    let mut admitted = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
        match StatusCode::from_u16(status).unwrap() {
            StatusCode::OK => admitted += 1,
            StatusCode::TOO_MANY_REQUESTS => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(admitted, 10);
    assert_eq!(w.left("a").await.0, 0);
}
