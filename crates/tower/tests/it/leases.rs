//! How leases end: by the status, by what a response says was used, and when a client goes away.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tower::{Layer as _, Service, ServiceExt as _};
use zae_limiter::{Limit, RateLimiter};
use zae_limiter_tower::{Settle, Used, usage};

use crate::world::{World, answering, call, request};

fn with_status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body("x".into()).unwrap()
}

fn json(text: &'static str) -> Response<Body> {
    let head = Response::builder().header("content-type", "application/json");
    head.body(text.into()).unwrap()
}

#[tokio::test]
async fn faults_of_the_service_give_tokens_back() {
    let w = World::new().await;
    for (key, status, left) in [
        ("a", StatusCode::OK, (9, 900)),
        ("b", StatusCode::BAD_REQUEST, (9, 900)),
        ("c", StatusCode::INTERNAL_SERVER_ERROR, (10, 1000)),
        ("d", StatusCode::BAD_GATEWAY, (10, 1000)),
        ("e", StatusCode::NO_CONTENT, (9, 900)),
    ] {
        let service = w.layer().layer(answering(move || with_status(status)));
        assert_eq!(call(service, request(key)).await.status(), status);
        assert_eq!(w.left(key).await, left, "{status}");
    }
}

#[tokio::test]
async fn a_function_decides_by_the_status() {
    let w = World::new().await;
    let layer = w.layer().settle(|ending| match ending.status {
        StatusCode::BAD_REQUEST => Settle::Rollback,
        _ => Settle::Commit,
    });
    for (key, status, left) in [
        ("a", StatusCode::BAD_REQUEST, (10, 1000)),
        ("b", StatusCode::BAD_GATEWAY, (9, 900)),
    ] {
        call(layer.layer(answering(move || with_status(status))), request(key)).await;
        assert_eq!(w.left(key).await, left, "{status}");
    }
}

#[tokio::test]
async fn a_service_that_fails_gives_tokens_back() {
    let w = World::new().await;
    let service = w.layer().layer(tower::service_fn(async |_: Request<Body>| {
        Err::<Response<Body>, _>("broken")
    }));
    assert_eq!(service.oneshot(request("a")).await.unwrap_err(), "broken");
    assert_eq!(w.left("a").await, (10, 1000));
}

#[tokio::test]
async fn the_body_says_what_was_used() {
    let w = World::new().await;
    let layer = w.layer().correct("tpd", usage::openai()).unwrap();
    for (key, text, left) in [
        ("less", r#"{"usage":{"total_tokens":30}}"#, 970),
        ("more", r#"{"usage":{"total_tokens":300}}"#, 700),
        // Into debt.
        ("debt", r#"{"usage":{"total_tokens":1300}}"#, -300),
        ("nothing", r#"{"usage":{}}"#, 900),
        ("malformed", r#"{"usage":{"total_tokens":30"#, 900),
        ("absurd", r#"{"usage":{"total_tokens":99999999999999999}}"#, 900),
    ] {
        let response = call(layer.layer(answering(move || json(text))), request(key)).await;
        assert_eq!(response.body(), text);
        assert_eq!(w.left(key).await, (9, left), "{key}");
    }
    // Of a failure, nothing.
    let failed = || {
        let mut response = json(r#"{"usage":{"total_tokens":30}}"#);
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    };
    call(layer.layer(answering(failed)), request("failed")).await;
    assert_eq!(w.left("failed").await, (10, 1000));
}

#[tokio::test]
async fn a_header_field_or_a_handler_says_what_was_used() {
    let w = World::new().await;
    let field = usage::header(HeaderName::from_static("x-used"));
    let layer = w.layer().correct("tpd", field).unwrap();
    let told = || {
        Response::builder()
            .header("x-used", "30")
            .body("x".into())
            .unwrap()
    };
    call(layer.layer(answering(told)), request("a")).await;
    assert_eq!(w.left("a").await, (9, 970));
    let handled = move || {
        let mut response = told();
        response
            .extensions_mut()
            .insert(Used::new("tpd", 40).and("rpd", 2));
        response
    };
    call(layer.layer(answering(handled)), request("b")).await;
    assert_eq!(w.left("b").await, (8, 960));
    // A limit that the request does not take is an error in the log, and no more.
    let unknown = || {
        let mut response = Response::new(Body::from("x"));
        response.extensions_mut().insert(Used::new("other", 40));
        response
    };
    call(w.layer().layer(answering(unknown)), request("c")).await;
    assert_eq!(w.left("c").await, (9, 900));
}

fn events(text: &'static [&'static str]) -> Response<Body> {
    let frames = text
        .iter()
        .map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes()))));
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    let head = Response::builder().header("content-type", "text/event-stream");
    head.body(body).unwrap()
}

const EVENTS: &[&str] = &[
    "data: {\"message\":{\"usage\":{\"input_tokens\":150}}}\n\n",
    "data: {\"usage\":{\"output_tokens\":20}}\n\n",
    "data: {\"usage\":{\"output_tokens\":70}}\n\n",
    "data: {\"type\":\"message_stop\"}\n\n",
];

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let w = World::new().await;
    let layer = w.layer().correct("tpd", usage::anthropic()).unwrap();
    let response = layer
        .layer(answering(|| events(EVENTS)))
        .oneshot(request("a"))
        .await
        .unwrap();
    let mut body = response.into_body();
    for part in EVENTS {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), *part);
        assert_eq!(w.limiter.available("a", "api").await.unwrap()["tpd"], 900);
    }
    assert!(body.frame().await.is_none());
    assert_eq!(w.left("a").await, (9, 780));
}

#[tokio::test]
async fn a_client_that_goes_away_keeps_or_gives_back() {
    let w = World::new().await;
    let keeping = w.layer().correct("tpd", usage::anthropic()).unwrap();
    let giving = keeping.clone().on_disconnect(Settle::Rollback);
    for (key, layer, parts, left) in [
        // The estimate, and what was reported if that is more.
        ("keeps 0", &keeping, 0, (9, 900)),
        ("keeps 1", &keeping, 1, (9, 850)),
        ("keeps 2", &keeping, 2, (9, 830)),
        ("keeps 3", &keeping, 3, (9, 780)),
        ("gives 0", &giving, 0, (10, 1000)),
        ("gives 3", &giving, 3, (10, 1000)),
        // The end was not met.
        ("gives 4", &giving, 4, (10, 1000)),
    ] {
        let key = key.replace(' ', "-");
        let response = layer
            .layer(answering(|| events(EVENTS)))
            .oneshot(request(&key))
            .await
            .unwrap();
        let mut body = response.into_body();
        for _ in 0..parts {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(w.left(&key).await, left, "{key}");
    }
}

#[tokio::test]
async fn less_than_the_estimate_is_not_believed_of_a_response_without_an_end() {
    let w = World::new().await;
    let layer = w.layer().correct("tpd", usage::openai()).unwrap();
    let parts: &[&str] = &["data: {\"usage\":{\"total_tokens\":5}}\n\n", "data: [DONE]\n\n"];
    let response = layer
        .layer(answering(move || events(parts)))
        .oneshot(request("a"))
        .await
        .unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(w.left("a").await, (9, 900));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_response_keeps_or_gives_back() {
    let w = World::new().await;
    for (key, settle, left) in [
        ("a", Settle::Commit, (9, 900)),
        ("b", Settle::Rollback, (10, 1000)),
    ] {
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let began = std::sync::Arc::new(std::sync::Mutex::new(Some(began)));
        let service = w
            .layer()
            .on_disconnect(settle)
            .layer(tower::service_fn(move |_: Request<Body>| {
                let began = began.lock().unwrap().take();
                async move {
                    began.unwrap().send(()).unwrap();
                    std::future::pending::<Result<Response<Body>, Infallible>>().await
                }
            }));
        let task = tokio::spawn(service.oneshot(request(key)));
        has_begun.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(w.left(key).await, left, "{settle:?}");
    }
}

#[tokio::test]
async fn a_service_that_panics_gives_tokens_back() {
    let w = World::new().await;
    let service = tower::service_fn(async |request: Request<Body>| {
        let response = Response::new(Body::empty());
        assert!(request.uri().path() != "/", "as the test wants");
        Ok::<_, Infallible>(response)
    });
    let task = tokio::spawn(w.layer().layer(service).oneshot(request("a")));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(w.left("a").await, (10, 1000));
}

#[tokio::test]
async fn a_response_that_breaks_off_counts_as_one_whose_client_has_gone() {
    let w = World::new().await;
    let broken = || {
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Err("broken")];
        Response::new(Body::new(StreamBody::new(stream::iter(frames))))
    };
    for (key, settle, left) in [
        ("a", Settle::Commit, (9, 900)),
        ("b", Settle::Rollback, (10, 1000)),
    ] {
        let service = w.layer().on_disconnect(settle).layer(answering(broken));
        let response = service.oneshot(request(key)).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(w.left(key).await, left);
    }
}

/// A server goes by the field, and does not ask a body that it says has ended.
#[tokio::test]
async fn a_stream_with_a_content_length_has_an_end() {
    let w = World::new().await;
    let layer = w
        .layer()
        .on_disconnect(Settle::Rollback)
        .correct("tpd", usage::openai())
        .unwrap();
    let text = r#"{"usage":{"total_tokens":30}}"#;
    let copied = move || {
        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(
            text.as_bytes(),
        )))];
        let body = Body::new(StreamBody::new(stream::iter(frames).chain(stream::pending())));
        let head = Response::builder().header("content-type", "application/json");
        head.header("content-length", text.len()).body(body).unwrap()
    };
    let response = layer
        .layer(answering(copied))
        .oneshot(request("a"))
        .await
        .unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(w.left("a").await, (9, 970));
    // One that breaks off before has none.
    let response = layer
        .layer(answering(copied))
        .oneshot(request("b"))
        .await
        .unwrap();
    drop(response);
    assert_eq!(w.left("b").await, (10, 1000));
}

/// Servers do not ask a body of a known length for its end.
#[tokio::test]
async fn the_last_byte_is_the_end_of_a_body_of_known_length() {
    let w = World::new().await;
    let layer = w.layer().on_disconnect(Settle::Rollback);
    let response = layer
        .layer(answering(|| Response::new("12345".into())))
        .oneshot(request("a"))
        .await
        .unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(w.left("a").await, (9, 900));
    // Nor does one ask for the body of an answer to HEAD.
    let mut head = request("b");
    *head.method_mut() = http::Method::HEAD;
    let response = layer
        .layer(answering(|| Response::new("12345".into())))
        .oneshot(head)
        .await
        .unwrap();
    drop(response);
    assert_eq!(w.left("b").await, (9, 900));
}

#[tokio::test]
async fn a_place_in_flight_is_held_until_the_body_has_ended() {
    let w = World::new().await;
    w.repo.admin().set_resource_concurrency("api", 1).await.unwrap();
    let rules = crate::world::rules().in_flight();
    let layer = zae_limiter_tower::RateLimitLayer::new(w.limiter.clone(), rules).unwrap();
    let service = layer.layer(answering(|| events(EVENTS)));
    let first = service.clone().oneshot(request("a")).await.unwrap();
    let refused = call(service.clone(), request("a")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    first.into_body().collect().await.unwrap();
    assert!(w.repo.drain().await.is_complete());
    assert_eq!(call(service, request("a")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_wait_for_tokens() {
    let w = World::new().await;
    let admin = w.repo.admin();
    admin
        .set_entity_limits(
            "a",
            "api",
            [Limit::per_second("rpd", 20).burst(1), Limit::per_day("tpd", 1000)],
        )
        .await
        .unwrap();
    let rules = crate::world::rules().wait(Duration::from_secs(5));
    let layer = zae_limiter_tower::RateLimitLayer::new(w.limiter.clone(), rules).unwrap();
    let mut service = layer.layer(answering(|| Response::new("x".into())));
    for _ in 0..3 {
        let response = service.ready().await.unwrap().call(request("a")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_can_be_exempt() {
    let w = World::new().await;
    let rules = crate::world::rules().unless(|request| request.uri.path() == "/");
    let layer = zae_limiter_tower::RateLimitLayer::new(w.limiter.clone(), rules).unwrap();
    let response = call(layer.layer(answering(|| Response::new("x".into()))), request("a")).await;
    assert!(!response.headers().contains_key("ratelimit"));
    assert_eq!(w.left("a").await, (10, 1000));
}

#[tokio::test]
async fn a_closure_takes_what_it_wants() {
    let w = World::new().await;
    w.repo
        .admin()
        .set_resource_defaults("budget", [Limit::per_day("cents", 3)])
        .await
        .unwrap();
    let charge = |limiter: &RateLimiter, _: &http::request::Parts| {
        Ok(Some(
            limiter
                .acquire("a", "api")
                .consume("rpd", 1)
                .also("budget", [("cents", 2)]),
        ))
    };
    let layer = zae_limiter_tower::RateLimitLayer::new(w.limiter.clone(), charge).unwrap();
    let service = layer.layer(answering(|| Response::new("x".into())));
    let response = call(service.clone(), request("a")).await;
    let policies = &response.headers()["ratelimit-policy"];
    assert_eq!(policies, "\"api/rpd\";q=10;w=86400, \"budget/cents\";q=3;w=86400");
    assert_eq!(
        call(service, request("a")).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(w.left("a").await, (9, 1000));
}

#[tokio::test]
async fn rules_are_checked_when_the_layer_is_made() {
    let w = World::new().await;
    let check = |rules| zae_limiter_tower::RateLimitLayer::new(w.limiter.clone(), rules).unwrap_err();
    let rules = || zae_limiter_tower::Rules::new("a", "api");
    assert_eq!(check(rules()).field(), "consume");
    assert_eq!(check(rules().consume("rpd", 1).consume("rpd", 1)).value(), "rpd");
    assert_eq!(check(rules().consume("r#d", 1)).value(), "r#d");
    assert_eq!(
        w.layer().correct("tpd", usage::json("")).unwrap_err().field(),
        "usage"
    );
    let err = w.layer().correct("tdp", usage::openai()).unwrap_err();
    assert_eq!((err.field(), err.value()), ("limit", "tdp"));
}
