//! Spans arrive at an exporter of OpenTelemetry, with the fields that `docs/observability.md` lists.

#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use gateway_example::setup::{Allowance, KEYS};
use gateway_example::{gateway, model, setup, traces};
use http_body_util::BodyExt as _;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use zae_limiter::{RateLimiter, Repository};
use zae_limiter_tower::key::hashed;

/// Keeps the spans that have ended.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> Vec<SpanData> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|span| span.name == name).cloned().collect()
    }
}

/// The fields of the limiter's spans by their names, as the page lists them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/observability.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `zae_limiter."));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let name: BTreeSet<String> = quoted(cells[1]);
        (name.into_iter().next().unwrap(), quoted(cells[3]))
    })
    .collect()
}

/// The fields of a span, without what the layer adds to all: the place in the code, the thread, and times.
fn fields(span: &SpanData) -> BTreeMap<String, String> {
    let is_own = |key: &str| !key.contains('.') && !["busy_ns", "idle_ns", "target", "level"].contains(&key);
    let fields = span.attributes.iter();
    fields
        .filter(|field| is_own(field.key.as_str()))
        .map(|field| (field.key.to_string(), field.value.to_string()))
        .collect()
}

fn place(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.span_context.span_id())
}

fn parent(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.parent_span_id)
}

#[tokio::test]
async fn the_spans_of_a_request_arrive_with_the_documented_fields() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(kept.clone())
        .build();
    let subscriber = tracing_subscriber::registry().with(traces::layer(&provider));
    let _guard = tracing::subscriber::set_default(subscriber);

    let repo = Repository::in_memory().await.unwrap();
    let allowance = Allowance {
        requests: 1,
        ..Allowance::default()
    };
    setup::store(&repo, allowance).await.unwrap();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    let model = model::app(model::Served::default(), Duration::ZERO);
    tokio::spawn(async move { axum::serve(listener, model).await });
    let app = gateway::app(RateLimiter::new(repo.clone()), authority).unwrap();
    let call = || {
        let head = Request::post("/v1/chat/completions");
        let head = head.header("authorization", format!("Bearer {}", KEYS[0].0));
        let body = r#"{"model":"gpt-4o","max_tokens":40,"messages":[{"role":"user","content":"Hello"}]}"#;
        let head = head.header("content-type", "application/json");
        app.clone().oneshot(head.body(Body::from(body)).unwrap())
    };
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let response = call().await.unwrap();
        assert_eq!(response.status(), status);
        response.into_body().collect().await.unwrap();
    }
    assert!(repo.drain().await.is_complete());
    provider.shutdown().unwrap();

    let requests = kept.named("request");
    let statuses: Vec<String> = requests
        .iter()
        .map(|span| fields(span)["status"].clone())
        .collect();
    assert_eq!(statuses, ["200", "429"]);
    let acquires = kept.named("zae_limiter.acquire");
    let outcomes: Vec<_> = acquires.iter().map(fields).collect();
    assert_eq!(acquires.len(), 2);
    for (fields, outcome) in outcomes.iter().zip(["admitted", "refused"]) {
        assert_eq!(fields["outcome"], outcome);
        assert_eq!(fields["entity"], hashed(KEYS[0].0));
        assert_eq!(fields["resource"], "gpt-4o");
        assert!(fields.contains_key("requests") && fields.contains_key("writes"));
    }
    assert_eq!(outcomes[1]["limit"], "rpm");
    // The call is within the span of its request.
    let parents: Vec<_> = acquires.iter().map(parent).collect();
    assert_eq!(parents, requests.iter().map(place).collect::<Vec<_>>());

    // What a call asks the table is within its span.
    let tables = kept.named("zae_limiter.table");
    let of_call: Vec<_> = tables
        .iter()
        .filter(|span| parent(span) == place(&acquires[0]))
        .collect();
    assert!(!of_call.is_empty());
    assert!(of_call.iter().any(|span| fields(span)["operation"] == "update"));
    assert!(tables.iter().all(|span| fields(span).contains_key("result")));

    // What was estimated too high is given back to the key and its project, in the background.
    let corrections = kept.named("zae_limiter.correction");
    let entities: BTreeSet<String> = corrections
        .iter()
        .map(|span| fields(span)["entity"].clone())
        .collect();
    assert_eq!(entities, [hashed(KEYS[0].0), KEYS[0].1.to_owned()].into());
    for span in &corrections {
        assert_eq!(fields(span)["outcome"], "applied");
        assert_eq!(span.parent_span_id, SpanId::INVALID);
    }

    let documented = documented();
    assert_eq!(documented.len(), 3);
    for (name, known) in documented {
        for span in kept.named(&name) {
            let unknown: Vec<String> = fields(&span)
                .into_keys()
                .filter(|field| !known.contains(field))
                .collect();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
        }
    }
}
