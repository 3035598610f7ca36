//! What the layers report about themselves, and the documents that list it.

mod documents;
mod recorder;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tower::{Layer as _, ServiceExt as _};
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{Access, Limit, RateLimiter};
use zae_limiter_tower::estimate::{EstimateLayer, Replayed};
use zae_limiter_tower::{RateLimitLayer, Rules, Settle, Used, key, usage};

use crate::world::{World, answering, call, request, rules};
use recorder::Recorded;

const REQUESTS: &str = "zae_limiter_tower_requests_total";
const IN_FLIGHT: &str = "zae_limiter_tower_requests_in_flight";
const ESTIMATED: &str = "zae_limiter_tower_estimated_tokens_total";
const USED: &str = "zae_limiter_tower_used_tokens_total";
const MISSING: &str = "zae_limiter_tower_usage_missing_total";
const BROKEN_OFF: &str = "zae_limiter_tower_broken_off_total";
const BODIES: &str = "zae_limiter_tower_bodies_total";

fn ok() -> Response<Body> {
    Response::new(Body::from("x"))
}

fn reporting(text: &'static str) -> Response<Body> {
    let head = Response::builder().header("content-type", "application/json");
    head.body(text.into()).unwrap()
}

#[tokio::test]
async fn requests_count_by_what_the_layer_did() {
    let recorded = Recorded::new();
    let _guard = recorded.install();
    let w = World::new().await;
    let admin = w.repo.admin();
    admin
        .set_entity_access("off", "api", Access::Disabled)
        .await
        .unwrap();
    let small = [Limit::per_day("rpd", 1), Limit::per_day("tpd", 50)];
    admin.set_entity_limits("small", "api", small).await.unwrap();
    let rules = rules().unless(|request| request.uri.path() == "/healthz");
    let layer = RateLimitLayer::new(w.limiter.clone(), rules).unwrap();
    let service = layer.layer(answering(ok));
    for key in ["off", "small", "bad#name", "", "a", "b"] {
        call(service.clone(), request(key)).await;
    }
    for _ in 0..12 {
        call(service.clone(), request("many")).await;
    }
    let health = Request::get("/healthz").body(Body::empty()).unwrap();
    call(service.clone(), health).await;
    let unknown = RateLimitLayer::new(w.limiter.clone(), Rules::new("a", "unknown").consume("rpd", 1));
    call(unknown.unwrap().layer(answering(ok)), request("a")).await;
    let misconfigured = RateLimitLayer::new(w.limiter.clone(), Rules::new("a", "api").consume("rpm", 1));
    call(misconfigured.unwrap().layer(answering(ok)), request("a")).await;
    // One that is dropped before it is decided.
    let patient = crate::world::rules().wait(Duration::from_hours(24));
    let patient = RateLimitLayer::new(w.limiter.clone(), patient).unwrap();
    let mut waiting = Box::pin(patient.layer(answering(ok)).oneshot(request("many")));
    assert!((&mut waiting).now_or_never().is_none());
    drop(waiting);
    assert!(w.repo.drain().await.is_complete());
    let expected = [
        ("admitted", 12),
        ("cancelled", 1),
        ("disabled", 1),
        ("failed", 1),
        ("invalid", 1),
        ("never", 1),
        ("refused", 2),
        ("unauthenticated", 1),
        ("unconfigured", 1),
        ("unlimited", 1),
    ];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(recorded.counts_by(REQUESTS, "outcome"), expected.into());
    assert_eq!(recorded.gauge(IN_FLIGHT), Some(0));
    // Outcomes that have not occurred are there, so that a first one is a growth.
    assert!(recorded.has(REQUESTS, "outcome", "unavailable"));
    assert!(recorded.has(BROKEN_OFF, "tokens", "kept"));
    // Nothing that a client sent is a label.
    for value in recorded.label_values() {
        assert!(
            !["many", "small", "bad#name", "gone"].contains(&&*value),
            "{value}"
        );
    }
    assert!(recorded.is_described());
}

#[tokio::test]
async fn an_outage_and_places_in_flight_count() {
    let recorded = Recorded::new();
    let _guard = recorded.install();
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [Limit::per_day("rpd", 10), Limit::per_day("tpd", 1000)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    repo.admin().set_system_concurrency(1).await.unwrap();
    let limiter = RateLimiter::new(repo.clone());
    let layer = RateLimitLayer::new(limiter.clone(), rules().in_flight()).unwrap();
    let first = layer.layer(answering(ok)).oneshot(request("a")).await.unwrap();
    assert_eq!(recorded.gauge(IN_FLIGHT), Some(1));
    call(layer.layer(answering(ok)), request("a")).await;
    first.into_body().collect().await.unwrap();
    assert_eq!(recorded.gauge(IN_FLIGHT), Some(0));
    assert!(repo.drain().await.is_complete());
    table.fail(Fault::Unreachable);
    let short = rules().timeout(Duration::from_millis(50));
    let refusing = RateLimitLayer::new(limiter.clone(), short).unwrap();
    call(refusing.layer(answering(ok)), request("b")).await;
    let open = rules().on_unavailable(zae_limiter::OnUnavailable::Allow);
    let admitting = RateLimitLayer::new(limiter, open).unwrap();
    call(admitting.layer(answering(ok)), request("b")).await;
    let expected = [
        ("admitted", 1),
        ("concurrency", 1),
        ("degraded", 1),
        ("unavailable", 1),
    ];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(recorded.counts_by(REQUESTS, "outcome"), expected.into());
}

#[tokio::test]
async fn estimates_count_beside_what_was_used() {
    let recorded = Recorded::new();
    let _guard = recorded.install();
    let w = World::new().await;
    let layer = w.layer().correct("tpd", usage::openai()).unwrap();
    assert!(recorded.has(MISSING, "limit", "tpd"));
    for text in [
        r#"{"usage":{"total_tokens":30}}"#,
        r#"{"usage":{"total_tokens":250}}"#,
        r#"{"usage":{}}"#,
    ] {
        call(layer.layer(answering(move || reporting(text))), request("a")).await;
    }
    // What a handler says counts before what a body says, and for limits that are taken only.
    let told = || {
        let mut response = reporting(r#"{"usage":{"total_tokens":30}}"#);
        let used = Used::new("tpd", 7).and("other", 9);
        response.extensions_mut().insert(used);
        response
    };
    call(layer.layer(answering(told)), request("a")).await;
    // An error says nothing of a use, and none is expected of it.
    for status in [StatusCode::BAD_REQUEST, StatusCode::BAD_GATEWAY] {
        let failed = move || {
            let mut response = reporting(r#"{"error":{}}"#);
            *response.status_mut() = status;
            response
        };
        call(layer.layer(answering(failed)), request("a")).await;
    }
    // Nor is any expected of a field that a service without `correct` has.
    call(w.layer().layer(answering(ok)), request("a")).await;
    let by_limit = |name| recorded.counts_by(name, "limit");
    assert_eq!(by_limit(ESTIMATED), [("tpd".to_owned(), 300)].into());
    assert_eq!(by_limit(USED), [("tpd".to_owned(), 287)].into());
    assert_eq!(by_limit(MISSING), [("tpd".to_owned(), 1)].into());
}

#[tokio::test]
async fn responses_that_break_off_count() {
    let recorded = Recorded::new();
    let _guard = recorded.install();
    let w = World::new().await;
    let layer = w.layer().correct("tpd", usage::openai()).unwrap();
    let broken = || {
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Err("broken")];
        Response::new(Body::new(StreamBody::new(stream::iter(frames))))
    };
    for (key, settle) in [
        ("a", Settle::Commit),
        ("b", Settle::Rollback),
        ("c", Settle::Rollback),
    ] {
        let service = layer.clone().on_disconnect(settle).layer(answering(broken));
        let response = service.oneshot(request(key)).await.unwrap();
        assert_eq!(recorded.gauge(IN_FLIGHT), Some(1));
        drop(response);
    }
    // A panic and an error are faults of the service, and no disconnection.
    let panicking = tower::service_fn(async |_: Request<Body>| {
        assert!(std::hint::black_box(false), "as the test wants");
        Ok::<_, Infallible>(ok())
    });
    let task = tokio::spawn(layer.layer(panicking).oneshot(request("d")));
    assert!(task.await.unwrap_err().is_panic());
    let failing = tower::service_fn(async |_: Request<Body>| Err::<Response<Body>, _>("broken"));
    layer.layer(failing).oneshot(request("e")).await.unwrap_err();
    let expected = [("kept".to_owned(), 1), ("returned".to_owned(), 2)];
    assert_eq!(recorded.counts_by(BROKEN_OFF, "tokens"), expected.into());
    assert_eq!(recorded.gauge(IN_FLIGHT), Some(0));
    assert!(recorded.counts_by(MISSING, "limit").is_empty());
}

#[tokio::test(start_paused = true)]
async fn bodies_count_by_what_became_of_them() {
    let recorded = Recorded::new();
    let _guard = recorded.install();
    let layer = EstimateLayer::new().max_body(20);
    let service = layer.layer(tower::service_fn(async |_: Request<Replayed<Body>>| {
        Ok::<_, Infallible>(ok())
    }));
    let post = |body: Body| Request::post("/").body(body).unwrap();
    for body in ["{}", "", "[]", "{\"prompt\":\"123456789\"}"] {
        call(service.clone(), post(body.into())).await;
    }
    let encoded = Request::post("/").header("content-encoding", "gzip");
    call(service.clone(), encoded.body("x".into()).unwrap()).await;
    let endless = || {
        Body::new(StreamBody::new(
            stream::pending::<Result<Frame<Bytes>, Infallible>>(),
        ))
    };
    call(service.clone(), post(endless())).await;
    let mut gone = Box::pin(service.oneshot(post(endless())));
    assert!((&mut gone).now_or_never().is_none());
    drop(gone);
    let expected = [
        ("cancelled", 1),
        ("encoded", 1),
        ("estimated", 2),
        ("invalid", 1),
        ("slow", 1),
        ("too_large", 1),
    ];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(recorded.counts_by(BODIES, "outcome"), expected.into());
}

/// The number of series does not grow with what clients send.
#[tokio::test]
async fn clients_make_no_series() {
    let recorded = Recorded::new();
    let _guard = recorded.install();
    let w = World::new().await;
    let by_field = key::header(HeaderName::from_static("x-resource"));
    w.repo
        .admin()
        .set_system_defaults([Limit::per_day("rpd", 10)], None)
        .await
        .unwrap();
    let rules = Rules::new(key::header(crate::world::KEY), by_field).consume("rpd", 1);
    let service = RateLimitLayer::new(w.limiter.clone(), rules)
        .unwrap()
        .layer(answering(ok));
    let mut series = None;
    for client in 0..40 {
        let mut request = request(&format!("client-{client}"));
        let resource = format!("resource-{client}").try_into().unwrap();
        request.headers_mut().insert("x-resource", resource);
        call(service.clone(), request).await;
        let now = recorded.series();
        assert_eq!(*series.get_or_insert(now), now);
    }
}
