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

/// Answers every request at a port of its own with `answer`, one for each connection.
async fn server(answer: String) -> (u16, tokio::task::JoinHandle<()>) {
    use tokio::io::AsyncWriteExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16384]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, server)
}

fn ok(body: &str, headers: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn table_at(port: u16) -> DynamoTable {
    let client = Connection {
        endpoint_url: Some(format!("http://127.0.0.1:{port}")),
        ..Connection::default()
    }
    .client()
    .await;
    DynamoTable::new(client, "limits")
}

#[tokio::test]
async fn a_success_without_the_parts_that_dynamodb_sends_is_none() {
    let of_another = r#"{"Attributes":{"PK":{"S":"other"},"SK":{"S":"s"},"n":{"N":"1"}}}"#;
    for body in [
        "",
        "{}",
        r#"{"Attributes":{}}"#,
        r#"{"Attributes":{"n":{"N":"1"}}}"#,
        of_another,
    ] {
        let (port, server) = server(ok(body, "Connection: close\r\n")).await;
        let table = table_at(port).await;
        let k = key("p", "s");
        let lost = (FailureKind::Internal, Applied::Unknown);
        let unread = (FailureKind::Internal, Applied::No);
        let facts = |err: TableError| (err.kind, err.applied);
        assert_eq!(
            facts(table.update(add(&k, "n", 1)).await.unwrap_err()),
            lost,
            "{body}"
        );
        assert_eq!(
            facts(table.delete_all(vec![k.clone()]).await.unwrap_err()),
            lost,
            "{body}"
        );
        assert_eq!(
            facts(table.batch_get(vec![k.clone()], false).await.unwrap_err()),
            unread,
            "{body}"
        );
        let query = zae_limiter_core::table::Query::new(zae_limiter_core::table::Index::Primary, "p");
        assert_eq!(
            facts(table.query_page(query).await.unwrap_err()),
            unread,
            "{body}"
        );
        server.abort();
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_is_named_by_its_status() {
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "407 Proxy Authentication Required",
    ] {
        let page = "<html>no</html>";
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
            page.len()
        );
        let (port, server) = server(answer).await;
        let (update, _) = meet(port).await;
        assert_eq!(
            (update.kind, update.applied),
            (FailureKind::BadRequest, Applied::No),
            "{status}"
        );
        assert!(
            update.message.contains(&format!("HTTP status {}", &status[..3])),
            "{update}"
        );
        server.abort();
    }
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_while_idle_is_replaced() {
    let (port, server) = server(ok("{}", "Connection: keep-alive\r\n")).await;
    let table = table_at(port).await;
    for _ in 0..5 {
        assert_eq!(table.get(key("p", "s"), false).await.unwrap(), None);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.abort();
}

#[tokio::test]
async fn keys_that_stay_unread_count_as_throttling() {
    let body = r#"{"Responses":{"limits":[]},"UnprocessedKeys":{"limits":{"Keys":[{"PK":{"S":"p"},"SK":{"S":"s"}}]}}}"#;
    let (port, server) = server(ok(body, "Connection: close\r\n")).await;
    let table = table_at(port).await;
    let err = table.batch_get(vec![key("p", "s")], false).await.unwrap_err();
    assert_eq!(
        (err.kind, err.applied),
        (FailureKind::Throttled, Applied::No),
        "{err}"
    );
    server.abort();
}
