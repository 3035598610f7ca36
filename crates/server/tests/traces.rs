//! Spans of requests arrive at an exporter, within the trace of their client.

#![cfg(feature = "otlp")]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing_subscriber::layer::SubscriberExt as _;
use zae_limiter::{Limit, RateLimiter, Repository};
use zae_limiter_server::{App, Options, Rules, Server, Traces};

/// Keeps the spans that have ended.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

const BODY: &str = r#"{"entity_id": "key-1", "resource": "gpt-4", "consume": {"rpm": 1}, "lease": false}"#;

async fn acquire(address: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = BODY.len();
    let head = format!(
        "POST /v1/acquire HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n"
    );
    let request = format!("{head}{fields}\r\n{BODY}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_is_a_span_within_the_trace_of_its_client() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(kept.clone())
        .build();
    let traces = Traces::with(provider);
    let subscriber = tracing_subscriber::registry().with(traces.layer());
    let _guard = tracing::subscriber::set_default(subscriber);

    let repo = Repository::in_memory().await.unwrap();
    let limit = Limit::per_day("rpm", 1);
    repo.admin().set_system_defaults([limit], None).await.unwrap();
    let mut options = Options::default();
    options.grpc.set_port(0);
    options.http.set_port(0);
    let app = App::new(RateLimiter::new(repo), Rules::none());
    let server = Server::bind(app, options).await.unwrap();
    let address = server.http_address().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let of_client = format!("traceparent: 00-{trace}-{parent}-01\r\n");
    assert!(acquire(&address, &of_client).await.starts_with("HTTP/1.1 200"));
    assert!(acquire(&address, "").await.starts_with("HTTP/1.1 429"));
    assert!(
        acquire(&address, "traceparent: 00-nonsense\r\n")
            .await
            .starts_with("HTTP/1.1 429")
    );
    stop.send(()).unwrap();
    assert!(running.await.unwrap().is_complete());
    tokio::task::spawn_blocking(|| traces.end())
        .await
        .unwrap()
        .unwrap();

    let all = kept.0.lock().unwrap();
    let named = |name: &'static str| all.iter().filter(move |span| span.name == name);
    let requests: Vec<&SpanData> = named("zae_limiter_server.request").collect();
    assert_eq!(requests.len(), 3);
    let first = requests[0];
    assert_eq!(first.span_context.trace_id().to_string(), trace);
    assert_eq!(first.parent_span_id.to_string(), parent);
    assert_eq!(
        (&first.span_kind, &first.status),
        (&SpanKind::Server, &Status::Unset)
    );
    let fields = first.attributes.iter();
    let fields: BTreeMap<_, _> = fields
        .map(|field| (field.key.to_string(), field.value.to_string()))
        .collect();
    for (name, value) in [
        ("port", "http"),
        ("method", "POST"),
        ("route", "/v1/acquire"),
        ("code", "200"),
    ] {
        assert_eq!(fields[name], value);
    }
    for other in &requests[1..] {
        assert_ne!(other.span_context.trace_id().to_string(), trace);
    }
    // The limiter's call is within the request.
    let acquires: Vec<&SpanData> = named("zae_limiter.acquire").collect();
    assert_eq!(acquires.len(), 3);
    for (acquire, request) in acquires.iter().zip(&requests) {
        assert_eq!(acquire.parent_span_id, request.span_context.span_id());
        assert_eq!(acquire.span_context.trace_id(), request.span_context.trace_id());
    }
    assert!(named("zae_limiter.table").count() > 0);
}

#[test]
fn the_collector_is_a_url_of_plain_http() {
    for wrong in [
        "",
        "localhost",
        "https://localhost:4318/v1/traces",
        "ftp://x/",
        "http:///v1",
    ] {
        let refused = Traces::to(wrong).unwrap_err().to_string();
        assert!(refused.contains("--otlp"), "{refused}");
    }
    assert!(
        Traces::to("http://127.0.0.1:4318/v1/traces")
            .unwrap()
            .end()
            .is_ok()
    );
}
