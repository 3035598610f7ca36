//! Clients that are slow, that send too much, or that do not speak the protocol.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code as GrpcCode;
use zae_limiter::Limit;
use zae_limiter::testing::TestTable;

use crate::reload::get;
use crate::world::{RULES, World, ask, descriptor, is_over, of_key, options, repository, request};

/// Sends bytes, and reads until the server closes the connection.
pub(crate) async fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close it before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn other_protocols_and_broken_frames_end_their_connection_only() {
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let broken = [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        &[preface, &[0xff_u8; 64][..]].concat(),
        // A settings frame on a stream.
        &[preface, &[0, 0, 0, 4, 0, 0, 0, 0, 1][..]].concat(),
        // A header block without its end, then data.
        &[
            preface,
            &[
                0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0,
            ][..],
        ]
        .concat(),
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ];
    for bytes in broken {
        exchange(&world.grpc, bytes).await;
    }
    assert!(
        exchange(&world.http, b"nonsense\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
}

#[tokio::test]
async fn large_fields_and_bodies_are_refused() {
    let world = World::new(RULES).await;
    let field = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let answer = exchange(&world.http, field.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let mut client = world.client().await;
    let failed = client
        .should_rate_limit(of_key(&"x".repeat(70_000)))
        .await
        .unwrap_err();
    assert_eq!(failed.code(), GrpcCode::OutOfRange, "{failed}");
    let mut large = tonic::Request::new(of_key("key-1"));
    large
        .metadata_mut()
        .insert("x-large", "a".repeat(60_000).parse().unwrap());
    assert!(client.should_rate_limit(large).await.is_err());
    // The connection serves on, or the client opens another one.
    let mut client = world.client().await;
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
}

#[tokio::test]
async fn silent_and_slow_clients_are_closed() {
    let mut options = options();
    options.limits.header_timeout = Duration::from_millis(300);
    let world = World::with(RULES, repository().await, options).await.unwrap();
    let slow = b"GET /healthz HTTP/1.1\r\nhost:";
    let (grpc, http) = (world.grpc.clone(), world.http.clone());
    tokio::join!(
        exchange(&grpc, b""),
        exchange(&grpc, b"PRI * HTTP/2.0\r\n"),
        exchange(&http, b""),
        exchange(&http, b"G"),
        exchange(&http, slow),
    );
    // A connection that has asked stays, however long it is idle.
    let mut client = world.client().await;
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
}

#[tokio::test]
async fn requests_above_the_bound_are_shed_and_health_is_not() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [Limit::per_day("rpm", 5)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let mut options = options();
    options.limits.requests = 1;
    let world = World::with(RULES, repo, options).await.unwrap();
    table.delay(Duration::from_millis(500));
    let (mut one, mut two) = (world.client().await, world.client().await);
    let first = tokio::spawn(async move { one.should_rate_limit(of_key("key-1")).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let failed = two.should_rate_limit(of_key("key-2")).await.unwrap_err();
    assert_eq!(failed.code(), GrpcCode::Unavailable, "{failed}");
    assert!(get(&world.http, "/healthz").await.starts_with("HTTP/1.1 200"));
    first.await.unwrap().unwrap();
    table.delay(Duration::ZERO);
    assert!(!is_over(&ask(&mut two, of_key("key-2")).await));
}

#[tokio::test]
async fn connections_above_the_bound_are_closed() {
    let mut options = options();
    options.limits.connections = 3;
    let world = World::with(RULES, repository().await, options).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(&world.http).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(get(&world.http, "/healthz").await, "");
    held.pop();
    crate::reload::until("a place is free", async || {
        get(&world.http, "/healthz").await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    repo.admin()
        .set_system_defaults([Limit::per_day("rpm", 5)], None)
        .await
        .unwrap();
    let mut options = options();
    options.limits.request_timeout = Duration::from_millis(200);
    let world = World::with(RULES, repo, options).await.unwrap();
    table.delay(Duration::from_secs(1));
    let mut client = world.client().await;
    let failed = client.should_rate_limit(of_key("key-1")).await.unwrap_err();
    assert_eq!(failed.code(), GrpcCode::Unavailable, "{failed}");
    table.delay(Duration::ZERO);
    assert!(world.repo.drain().await.is_complete());
    assert_eq!(world.left("key-1", "gpt-4").await, 5);
}

#[tokio::test]
async fn many_keys_of_one_request_are_bounded() {
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    let keys: Vec<String> = (0..64).map(|index| format!("key-{index}")).collect();
    let all = keys
        .iter()
        .map(|key| descriptor(&[("api_key", key), ("model", "gpt-4")]));
    let response = ask(&mut client, request(all)).await;
    assert!(!is_over(&response));
    assert_eq!(response.statuses.len(), 64);
}
