//! Requests that get no answer: which of them certainly did not happen?

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::future::ProvideCredentials as Providing;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use zae_limiter::table::{Connection, DynamoTable, EmbeddedEngine, TableExt as _, Timeouts, definition};
use zae_limiter::{Error, Limit, RateLimiter, Repository};
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
        ("429 Too Many", FailureKind::Throttled, Applied::Unknown),
        ("413 Too Large", FailureKind::BadRequest, Applied::Unknown),
        ("301 Moved", FailureKind::BadRequest, Applied::Unknown),
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
        // DynamoDB's answer where there is no item is an empty object.
        let item = table.get(k, false).await;
        match item.map_err(facts) {
            Err(found) => assert_eq!((found, body), (unread, "")),
            Ok(item) => assert!(item.is_none() && !body.is_empty(), "{body}"),
        }
        server.abort();
    }
}

#[tokio::test]
async fn a_damaged_answer_is_a_lost_one() {
    let body = r#"{"Attributes":{"PK":{"S":"p"},"SK":{"S":"s"},"n":{"N":"1"}}}"#;
    for (checksum, is_right) in [("3463713013", false), ("CRC", true), ("none", true)] {
        let checksum = checksum.replace("CRC", &crc(body.as_bytes()).to_string());
        let (port, server) = server(ok(
            body,
            &format!("x-amz-crc32: {checksum}\r\nConnection: close\r\n"),
        ))
        .await;
        let table = table_at(port).await;
        match table.update(add(&key("p", "s"), "n", 1)).await {
            Ok(_) => assert!(is_right, "{checksum}"),
            Err(err) => {
                assert!(!is_right, "{checksum}: {err}");
                assert_eq!((err.kind, err.applied), (FailureKind::Internal, Applied::Unknown));
                assert!(err.message.contains("checksum"), "{err}");
            }
        }
        server.abort();
    }
}

/// CRC-32 as in zlib, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Credentials with the number of the load as their id; each load takes this long.
#[derive(Debug, Default)]
struct Slow {
    takes: Duration,
    loads: Arc<AtomicUsize>,
}

impl ProvideCredentials for Slow {
    fn provide_credentials<'a>(&'a self) -> Providing<'a>
    where
        Self: 'a,
    {
        Providing::new(async {
            tokio::time::sleep(self.takes).await;
            let load = self.loads.fetch_add(1, Ordering::SeqCst);
            Ok(Credentials::new(
                format!("id{load}"),
                "secret",
                None,
                None,
                "test",
            ))
        })
    }
}

async fn table_with(port: u16, takes: Duration, loads: &Arc<AtomicUsize>) -> DynamoTable {
    let loads = Arc::clone(loads);
    let client = Connection {
        endpoint_url: Some(format!("http://127.0.0.1:{port}")),
        credentials: Some(SharedCredentialsProvider::new(Slow { takes, loads })),
        timeouts: Timeouts {
            operation: Duration::from_millis(300),
            ..Timeouts::default()
        },
        ..Connection::default()
    };
    DynamoTable::new(client.client().await, "limits")
}

#[tokio::test]
async fn credentials_that_come_late_are_used_by_later_requests() {
    let (port, server) = server(ok("{}", "Connection: close\r\n")).await;
    let table = table_with(port, Duration::from_millis(500), &Arc::default()).await;
    let err = table.update(add(&key("p", "s"), "n", 1)).await.unwrap_err();
    assert_eq!(
        (err.kind, err.applied),
        (FailureKind::Unreachable, Applied::No),
        "{err}"
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(table.get(key("p", "s"), false).await.unwrap(), None);
    server.abort();
}

#[tokio::test]
async fn new_credentials_that_are_called_expired_are_not_loaded_for_each_request() {
    let body = r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"expired"}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let (port, server) = server(answer).await;
    let loads = Arc::new(AtomicUsize::new(0));
    let table = table_with(port, Duration::ZERO, &loads).await;
    for _ in 0..5 {
        let err = table.update(add(&key("p", "s"), "n", 1)).await.unwrap_err();
        assert_eq!(
            (err.kind, err.applied),
            (FailureKind::AccessDenied, Applied::No),
            "{err}"
        );
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    server.abort();
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
        let (update, get) = meet(port).await;
        assert_eq!(
            (update.kind, update.applied, get.applied),
            (FailureKind::BadRequest, Applied::Unknown, Applied::No),
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

/// Reads one request; its operation and its body.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned())
    };
    let length: usize = header("content-length")?.parse().ok()?;
    while read.len() < end + length {
        stream.read_buf(&mut read).await.ok()?;
    }
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let target = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("x-amz-target"))?;
    let (_, target) = target.split_once(':')?;
    Some((target.trim().to_owned(), read[end..].to_vec()))
}

#[tokio::test]
async fn a_server_that_falls_silent_is_sent_no_more_connections_than_may_be_in_flight() {
    use tokio::io::AsyncWriteExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let engine = EmbeddedEngine::memory().unwrap();
    definition::create_table(&engine.client(), "limits")
        .await
        .unwrap();
    let silent = Arc::new(AtomicBool::new(false));
    let held = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn({
        let (silent, held) = (Arc::clone(&silent), Arc::clone(&held));
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (engine, silent, held) = (engine.clone(), Arc::clone(&silent), Arc::clone(&held));
                tokio::spawn(async move {
                    if silent.load(Ordering::Acquire) {
                        held.fetch_add(1, Ordering::AcqRel);
                        return std::future::pending().await;
                    }
                    let (target, body) = request(&mut stream).await?;
                    let reply = engine.answer(&target, &body);
                    let status = format!(
                        "HTTP/1.1 {} -\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\
                         Connection: close\r\n\r\n",
                        reply.status,
                        reply.body.len()
                    );
                    stream.write_all((status + &reply.body).as_bytes()).await.ok()
                });
            }
        }
    });
    let long = Duration::from_mins(1);
    let repo = Repository::builder()
        .stack("limits")
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .timeouts(Timeouts {
            connect: long,
            attempt: long,
            operation: long,
        })
        .max_in_flight(20)
        // Each call sends a write of its own.
        .group_commit(false)
        .auto_provision(false)
        .open()
        .await
        .unwrap();
    repo.admin()
        .set_system_defaults([Limit::per_minute("rpm", 1000)], None)
        .await
        .unwrap();
    let limiter = RateLimiter::new(repo);
    limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    silent.store(true, Ordering::Release);
    // Writes, which are finished in the background and hold their permits.
    let calls = (0..300).map(|_| {
        let call = limiter.acquire("k", "r").consume("rpm", 1);
        call.timeout(Duration::from_millis(500)).into_future()
    });
    let ends = futures_util::future::join_all(calls).await;
    let doubtful = ends
        .iter()
        .filter(|end| end.as_ref().is_err_and(Error::in_doubt))
        .count();
    assert!(ends.iter().all(Result::is_err));
    assert_eq!(doubtful, 20, "the others were not sent");
    let connections = held.load(Ordering::Acquire);
    assert!((1..=20).contains(&connections), "{connections}");
    server.abort();
}
