//! Requests that get no answer: which of them certainly did not happen?

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use zae_limiter::table::{Connection, DynamoTable, TableExt as _, Timeouts};
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use crate::support::{add, key};

/// What an update and a read meet at this port.
async fn meet(port: u16) -> (TableError, TableError) {
    let timeouts = Timeouts {
        operation: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let endpoint_url = Some(format!("http://127.0.0.1:{port}"));
    let client = Connection {
        endpoint_url,
        timeouts,
        ..Connection::default()
    }
    .client()
    .await;
    let table = DynamoTable::new(client, "limits");
    let k = key("p", "s");
    (
        table.update(add(&k, "n", 1)).await.unwrap_err(),
        table.get(k, false).await.unwrap_err(),
    )
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let started = Instant::now();
    let (update, _) = meet(port).await;
    assert_eq!(
        (update.kind, update.applied),
        (FailureKind::Unreachable, Applied::No),
        "{update}"
    );
    assert!(update.message.contains("refused"), "{update}");
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "no metadata service is asked for credentials"
    );
}

#[tokio::test]
async fn silence_leaves_it_open_whether_a_write_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let (update, get) = meet(port).await;
    assert_eq!(
        (update.kind, update.applied),
        (FailureKind::Timeout, Applied::Unknown),
        "{update}"
    );
    assert_eq!(
        (get.kind, get.applied),
        (FailureKind::Timeout, Applied::No),
        "{get}"
    );
    server.abort();
}

#[tokio::test]
async fn a_connection_that_breaks_off_leaves_it_open_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let (update, _) = meet(port).await;
    assert_eq!(update.applied, Applied::Unknown, "{update:?}");
    server.abort();
}

#[tokio::test]
async fn a_status_without_a_code_is_read_by_its_class() {
    for (status, kind, applied) in [
        ("503 Slow Down", FailureKind::Internal, Applied::Unknown),
        ("429 Too Many", FailureKind::Throttled, Applied::No),
        ("413 Too Large", FailureKind::BadRequest, Applied::No),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let server = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let (update, _) = meet(port).await;
        assert_eq!(
            (update.kind, update.applied),
            (kind, applied),
            "{status}: {update:?}"
        );
        server.abort();
    }
}
