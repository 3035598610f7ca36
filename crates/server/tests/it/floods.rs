//! Clients that do not read, that open and reset streams, and that send malformed messages.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::frames::{
    CALL, END_HEADERS, END_STREAM, begin, block, continuation, data, headers, message, ping, request_block,
    reset,
};
use crate::hostile::exchange;
use crate::reload::{get, until};
use crate::world::{RULES, World, ask, is_over, of_key, options, repository};

/// A server with one connection on each port, which gives up soon.
async fn with_one_connection() -> World {
    let mut options = options();
    options.limits.connections = 1;
    options.limits.request_timeout = Duration::from_millis(300);
    World::with(RULES, repository().await, options).await.unwrap()
}

/// Sends bytes and reads nothing.
async fn send_only(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server stops reading when it cannot write.
    let _ = tokio::time::timeout(Duration::from_millis(500), stream.write_all(bytes)).await;
    stream
}

async fn has_a_place(world: &World) {
    until("the connection is closed", async || {
        get(&world.http, "/healthz").await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_no_answer_is_closed() {
    let world = with_one_connection().await;
    let many = b"GET /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(4000);
    let silent = send_only(&world.http, &many).await;
    has_a_place(&world).await;
    drop(silent);
    // Answers to pings are written, too.
    let pings = [begin(65_535), ping().repeat(2_000_000)].concat();
    let silent = send_only(&world.http, &pings).await;
    has_a_place(&world).await;
    drop(silent);
}

/// The client reads from its socket, and has no window for an answer.
#[tokio::test]
async fn a_client_without_a_window_is_closed() {
    let world = with_one_connection().await;
    let mut bytes = begin(0);
    for stream in [1, 3, 5] {
        let request = request_block("GET", "/v1/rules");
        bytes.extend(headers(stream, END_STREAM | END_HEADERS, &request));
    }
    exchange(&world.http, &bytes).await;
    has_a_place(&world).await;
}

#[tokio::test]
async fn streams_that_last_are_bounded_and_stay() {
    let mut options = options();
    options.limits.connections = 2;
    options.limits.request_timeout = Duration::from_millis(100);
    let world = World::with(RULES, repository().await, options).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", world.grpc)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let of_all = tonic_health::pb::HealthCheckRequest::default;
    let mut one = health.watch(of_all()).await.unwrap().into_inner();
    let mut two = health.watch(of_all()).await.unwrap().into_inner();
    let refused = health.watch(of_all()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(one.message().await.unwrap().is_some());
    drop(one);
    until("a place is free", async || health.watch(of_all()).await.is_ok()).await;
    // Longer than a request may take.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(two.message().await.unwrap().is_some());
    health.check(of_all()).await.unwrap();
}

#[tokio::test]
async fn floods_end_their_connection_only() {
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    let request = request_block("POST", CALL);
    let mut resets = begin(65_535);
    let mut streams = begin(65_535);
    for number in 0..20_000 {
        let stream = 2 * number + 1;
        resets.extend(headers(stream, END_HEADERS, &request));
        resets.extend(reset(stream));
    }
    // The field names are new each time, and the block has no end.
    streams.extend(headers(1, 0, &request));
    for number in 0..100_000 {
        let name = format!("x-{number}");
        streams.extend(continuation(1, 0, &block(&[(&name, &"a".repeat(100))])));
    }
    let mut empty = begin(65_535);
    empty.extend(headers(1, 0, &request));
    empty.extend(continuation(1, 0, b"").repeat(100_000));
    for flood in [resets, streams, empty] {
        for address in [&world.grpc, &world.http] {
            exchange(address, &flood).await;
        }
        assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
    }
    // Calls without a message have taken nothing.
    assert_eq!(world.left("key-1", "gpt-4").await, 2);
}

/// Streams above the bound are refused, and those within it are answered when their message is complete or in time.
#[tokio::test]
async fn slow_bodies_are_answered_in_time() {
    let mut options = options();
    options.limits.request_timeout = Duration::from_millis(200);
    let world = World::with(RULES, repository().await, options).await.unwrap();
    let body = b"POST /v1/acquire HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"entity_id\"";
    let answer = exchange(&world.http, body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    let mut channel = channel(&world).await;
    let stalled = futures_util::stream::iter([Ok::<_, tonic::Status>(hyper::body::Frame::data(
        message(0, 100, b"\x0a").into(),
    ))]);
    let stalled = futures_util::StreamExt::chain(stalled, futures_util::stream::pending());
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(stalled));
    let answer = channel.ready().await.unwrap().call(of_body(body)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
}

async fn channel(world: &World) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", world.grpc)).unwrap();
    endpoint.connect().await.unwrap()
}

/// The gRPC status, or that of HTTP if there is none.
async fn status(channel: &mut Channel, request: http::Request<tonic::body::Body>) -> String {
    let answer = channel.ready().await.unwrap().call(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned();
    let status = head.headers.get("grpc-status").cloned();
    let status = status.or_else(|| trailers?.get("grpc-status").cloned());
    let status = status.map(|status| status.to_str().unwrap().to_owned());
    status.unwrap_or_else(|| head.status.to_string())
}

fn of_body(body: tonic::body::Body) -> http::Request<tonic::body::Body> {
    http::Request::post(CALL)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn malformed_messages_are_refused() {
    let world = World::new(RULES).await;
    let mut channel = channel(&world).await;
    let good = of_key("key-1").encode_to_vec();
    let length = u32::try_from(good.len()).unwrap();
    let whole = message(0, length, &good);
    for (what, body) in [
        ("nothing", Vec::new()),
        ("a part of the prefix", vec![0, 0, 0]),
        ("less than the prefix says", message(0, length + 1, &good)),
        (
            "a message and a part of another one",
            [&whole[..], &[0, 0]].concat(),
        ),
        (
            "a message more than the prefix says",
            [&whole[..], &good].concat(),
        ),
        ("a length of 4 GiB", message(0, u32::MAX, &good)),
        (
            "a compressed message without its encoding",
            message(1, length, &good),
        ),
        ("an unknown flag", message(7, length, &good)),
        ("no protobuf", message(0, 4, b"\xff\xff\xff\xff")),
        ("text that is not UTF-8", message(0, 3, b"\x0a\x01\xff")),
        (
            "a field that is longer than the message",
            message(0, 3, b"\x12\x7f\x0a"),
        ),
    ] {
        let request = of_body(tonic::body::Body::new(Full::from(body)));
        assert_ne!(status(&mut channel, request).await, "0", "{what}");
    }
    let mut text = of_body(tonic::body::Body::new(Full::from(whole.clone())));
    let kind = http::HeaderValue::from_static("text/plain");
    text.headers_mut().insert("content-type", kind);
    let answer = channel.ready().await.unwrap().call(text).await.unwrap();
    assert_eq!(answer.status(), 415);
    let got = http::Request::get(CALL).body(tonic::body::Body::empty()).unwrap();
    assert_ne!(status(&mut channel, got).await, "0");
    assert_eq!(world.left("key-1", "gpt-4").await, 5);
    // Frames of one message in pieces, and a message in pieces that does not end.
    let mut pieces = begin(65_535);
    pieces.extend(headers(1, END_HEADERS, &request_block("POST", CALL)));
    for byte in &whole {
        pieces.extend(data(1, 0, &[*byte]));
    }
    pieces.extend(data(1, END_STREAM, b""));
    let mut stream = TcpStream::connect(&world.grpc).await.unwrap();
    stream.write_all(&pieces).await.unwrap();
    until("the message in pieces is decided", async || {
        world.left("key-1", "gpt-4").await == 4
    })
    .await;
}
