//! A machine whose clock is wrong, in front of a table that tells the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zae_limiter::clock::{Clock as _, ManualClock, SystemClock};
use zae_limiter::table::{EmbeddedEngine, TableExt as _, definition};
use zae_limiter::{Error, Limit, RateLimiter, Repository, RepositoryBuilder, ResourceName};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::{Bucket, EntityId, schema::BucketId};

use crate::telemetry::recorder::Recorded;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A table behind HTTP whose clock differs from the machine's, as if the machine's were wrong.
#[derive(Debug, Clone)]
struct Server {
    engine: EmbeddedEngine,
    port: u16,
    /// Milliseconds that its clock is ahead of the machine's.
    ahead: i64,
    manners: Manners,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// Takes any signature.
    Lenient,
    /// Refuses what is signed five minutes off, as AWS does.
    Strict,
    /// Refuses everything for that reason.
    Refusing,
    /// Its answers have no request id, as a proxy's own.
    Unnamed,
}

impl Server {
    async fn start(ahead: i64, manners: Manners) -> Self {
        let engine = EmbeddedEngine::memory().unwrap();
        definition::create_table(&engine.client(), "limits")
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            engine,
            port: listener.local_addr().unwrap().port(),
            ahead,
            manners,
            asked: Arc::default(),
            refused: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        server
    }

    fn now(&self) -> i64 {
        EpochMillis::from(SystemClock.now()).0 + self.ahead
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut data = Vec::new();
        loop {
            let Some((target, signed_at, body)) = request(&mut stream, &mut data).await else {
                return;
            };
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.now();
            let off = (now - signed_at * 1000).abs();
            let is_refused = match self.manners {
                Manners::Strict => off > 5 * MINUTE,
                Manners::Refusing => true,
                Manners::Lenient | Manners::Unnamed => false,
            };
            let (status, body) = if is_refused {
                self.refused.fetch_add(1, Ordering::SeqCst);
                let why = r#"{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"Signature expired"}"#;
                (400, why.to_owned())
            } else {
                let reply = self.engine.answer(&target, &body);
                (reply.status, reply.body)
            };
            let time = DateTime::from_secs(now.div_euclid(1000))
                .fmt(Format::HttpDate)
                .unwrap();
            let id = match self.manners {
                Manners::Unnamed => "",
                _ => "x-amzn-RequestId: 1\r\n",
            };
            let answer = format!(
                "HTTP/1.1 {status} -\r\nDate: {time}\r\n{id}Content-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn builder(&self) -> RepositoryBuilder {
        let url = format!("http://127.0.0.1:{}", self.port);
        Repository::builder()
            .stack("limits")
            .region("us-east-1")
            .endpoint_url(url)
            // Otherwise the identity service is asked, which is not there.
            .principal("tester")
    }

    async fn bucket(&self, repo: &Repository) -> Bucket {
        let id = BucketId {
            namespace: repo.namespace_id().clone(),
            entity: EntityId::new("k").unwrap(),
            resource: ResourceName::new("r").unwrap(),
        };
        let item = repo.table().get(id.key(0), true).await.unwrap();
        Bucket::decode(&item.unwrap()).unwrap()
    }
}

/// The next request: its target, when it was signed (seconds since the epoch), and its body.
async fn request(stream: &mut TcpStream, data: &mut Vec<u8>) -> Option<(String, i64, Vec<u8>)> {
    let end = loop {
        if let Some(end) = data.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(data).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(data[..end].to_vec()).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    while data.len() < end + 4 + length {
        if stream.read_buf(data).await.ok()? == 0 {
            return None;
        }
    }
    let rest = data.split_off(end + 4 + length);
    let body = data.split_off(end + 4);
    *data = rest;
    // As in 20261128T050000Z.
    let stamp = header("x-amz-date").unwrap();
    let (day, time) = stamp.split_once('T').unwrap();
    let signed = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &day[..4],
        &day[4..6],
        &day[6..],
        &time[..2],
        &time[2..4],
        &time[4..6]
    );
    let signed = DateTime::from_str(&signed, Format::DateTime).unwrap();
    Some((header("x-amz-target").unwrap(), signed.secs(), body))
}

#[tokio::test]
async fn what_is_stored_and_told_goes_by_the_tables_clock() {
    for ahead in [10 * MINUTE, HOUR, 48 * HOUR, -HOUR, -75 * 8766 * HOUR / 100] {
        let server = Server::start(ahead, Manners::Lenient).await;
        let repo = server.builder().open().await.unwrap();
        let measured = repo.clock_offset().unwrap();
        assert!(measured.is_wrong());
        repo.admin()
            .set_system_defaults([Limit::per_minute("rpm", 100)], None)
            .await
            .unwrap();

        let begin = server.now();
        let limiter = RateLimiter::new(repo.clone());
        let lease = limiter.acquire("k", "r").consume("rpm", 100).await.unwrap();
        lease.commit().await.unwrap();
        let end = server.now();
        // One second of resolution, and the time that requests took.
        let error = i64::try_from(measured.max_error().as_millis()).unwrap() + 1;

        let bucket = server.bucket(&repo).await;
        let refilled = bucket.refilled_at.0;
        assert!(
            (begin - error..=end + error).contains(&refilled),
            "{ahead}: {begin} {refilled} {end}"
        );
        assert!(bucket.ttl.unwrap() * 1000 > end, "{ahead}: it expires at once");

        // Another client, whose clock agrees with the table's, gets the right wait: a token comes each 600 ms.
        let other = server.builder().clock(ManualClock::at(EpochMillis(end).into()));
        let other = RateLimiter::new(other.open().await.unwrap());
        let asked = other.acquire("k", "r").consume("rpm", 1).await;
        if asked.is_ok() {
            assert!(end - begin + error >= 600, "{ahead}: no token can have come yet");
            continue;
        }
        let Err(Error::RateLimitExceeded(refused)) = asked else {
            panic!("{ahead}: refused for another reason");
        };
        let most = 600 + error + (end - begin);
        let wait = refused.retry_after().unwrap();
        assert!(
            wait <= Duration::from_millis(most.unsigned_abs()),
            "{ahead}: {wait:?}"
        );
    }
}

#[tokio::test]
async fn the_offset_is_a_gauge() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let server = Server::start(HOUR, Manners::Lenient).await;
    let repo = server.builder().open().await.unwrap();
    repo.record_gauges();
    let shown = recorded.millis("zae_limiter_clock_offset_seconds", &[]);
    assert_eq!(shown, Some(repo.clock_offset().unwrap().correction_ms()));
    assert!(shown.unwrap() > HOUR / 2, "{shown:?}");
}

#[tokio::test]
async fn a_clock_that_is_right_is_not_corrected() {
    let server = Server::start(0, Manners::Lenient).await;
    let repo = server.builder().open().await.unwrap();
    for _ in 0..20 {
        let _ = repo.admin().system_defaults().await.unwrap();
        assert_eq!(repo.clock_offset().unwrap().correction_ms(), 0);
    }
}

#[tokio::test]
async fn answers_that_are_not_the_services_own_are_not_believed() {
    let server = Server::start(HOUR, Manners::Unnamed).await;
    let repo = server.builder().open().await.unwrap();
    assert_eq!(repo.clock_offset(), None);
}

#[tokio::test]
async fn a_clock_that_the_caller_brings_is_used_as_it_is() {
    let server = Server::start(HOUR, Manners::Lenient).await;
    let clock = ManualClock::at(EpochMillis(1_800_000_000_000).into());
    let repo = server.builder().clock(clock).open().await.unwrap();
    let limiter = RateLimiter::new(repo.clone());
    let acquire = limiter.acquire("k", "r").limits([Limit::per_minute("rpm", 100)]);
    let _lease = acquire.consume("rpm", 1).await.unwrap();
    assert_eq!(server.bucket(&repo).await.refilled_at.0, 1_800_000_000_000);
}

#[tokio::test]
async fn a_request_that_is_signed_too_far_off_is_sent_again_once() {
    for ahead in [10 * MINUTE, -48 * HOUR] {
        let server = Server::start(ahead, Manners::Strict).await;
        let repo = server.builder().open().await.unwrap();
        assert_eq!(server.refused.load(Ordering::SeqCst), 1);
        let limiter = RateLimiter::new(repo.clone());
        let acquire = limiter.acquire("k", "r").limits([Limit::per_minute("rpm", 100)]);
        let lease = acquire.consume("rpm", 1).await.unwrap();
        lease.commit().await.unwrap();
        assert_eq!(server.refused.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_refused_signature_tells_how_wrong_the_clock_is() {
    let server = Server::start(-HOUR, Manners::Refusing).await;
    let err = server.builder().connect().await.unwrap_err();
    assert!(matches!(err, Error::PermissionDenied { .. }), "{err:?}");
    assert_eq!(
        err.to_string(),
        "access to table 'limits' was denied: InvalidSignatureException: Signature expired; this machine's clock is \
         1h 0m ahead of the table's"
    );
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
}
