//! Many clients at once: what the model has served is what the table says.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use gateway_example::setup::{Allowance, KEYS, MODELS};
use gateway_example::{gateway, model, setup};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use zae_limiter::clock::ManualClock;
use zae_limiter::{RateLimiter, Repository};
use zae_limiter_tower::key::hashed;

struct World {
    repo: Repository,
    limiter: RateLimiter,
    app: axum::Router,
    served: model::Served,
}

/// A clock that stands still, so that nothing is refilled.
async fn world(allowance: Allowance) -> World {
    let clock = ManualClock::at(std::time::UNIX_EPOCH + Duration::from_hours(500_000));
    let repo = Repository::builder()
        .in_memory()
        .clock(clock)
        .open()
        .await
        .unwrap();
    setup::store(&repo, allowance).await.unwrap();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
    let served = model::Served::default();
    let model = model::app(served.clone(), Duration::from_millis(2));
    tokio::spawn(async move { axum::serve(listener, model).await });
    let limiter = RateLimiter::new(repo.clone());
    let app = gateway::app(limiter.clone(), authority).unwrap();
    World {
        repo,
        limiter,
        app,
        served,
    }
}

impl World {
    /// Requests and tokens that the keys have used, and tokens that the projects have.
    async fn used(&self, allowance: Allowance) -> (u64, u64, u64) {
        assert!(self.repo.drain().await.is_complete());
        let (mut requests, mut tokens, mut of_projects) = (0, 0, 0);
        let used = |of: u64, left: i64| u64::try_from(i64::try_from(of).unwrap() - left).unwrap();
        for model in MODELS {
            for (key, _) in KEYS {
                let left = self.limiter.available(hashed(key), model).await.unwrap();
                requests += used(allowance.requests, left["rpm"]);
                // With the project's, the lesser.
                let check = self.limiter.check(hashed(key), model).await.unwrap();
                tokens += used(allowance.tokens, check.status("tpm").unwrap().available);
            }
            for project in ["search", "support"] {
                of_projects += used(
                    allowance.project_tokens,
                    self.limiter.available(project, model).await.unwrap()["tpm"],
                );
            }
        }
        (requests, tokens, of_projects)
    }
}

fn request(index: usize) -> Request<Body> {
    let (key, _) = KEYS[index % KEYS.len()];
    let body = json!({
        "model": MODELS[index / 4 % 2],
        "stream": !index.is_multiple_of(3),
        "max_tokens": 30,
        "messages": [{ "role": "user", "content": "x".repeat(index * 7 % 90) }],
    });
    let head = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {key}"));
    head.header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

#[tokio::test]
async fn what_the_model_has_served_is_what_the_table_says() {
    let allowance = Allowance {
        requests: 20,
        tokens: 1500,
        project_tokens: 2000,
    };
    let w = world(allowance).await;
    let calls = (0..240).map(|index| {
        let app = w.app.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::try_from(index).unwrap() % 50)).await;
            let response = app.oneshot(request(index)).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let is_whole = status != StatusCode::OK || body.windows(12).any(|part| part == b"total_tokens");
            assert!(is_whole, "{status}: {body:?}");
            status
        })
    });
    let (mut ok, mut failed, mut refused) = (0, 0, 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            StatusCode::OK => ok += 1,
            StatusCode::SERVICE_UNAVAILABLE => failed += 1,
            StatusCode::TOO_MANY_REQUESTS => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(ok > 50 && failed > 0 && refused > 20, "{ok} {failed} {refused}");
    assert_eq!(w.served.requests(), ok);
    assert_eq!(
        w.used(allowance).await,
        (ok, w.served.tokens(), w.served.tokens())
    );
}

#[tokio::test]
async fn clients_that_go_away_are_not_served_for_nothing() {
    let allowance = Allowance {
        requests: 1000,
        tokens: 100_000,
        project_tokens: 200_000,
    };
    let w = world(allowance).await;
    let calls = (0..120).map(|index| {
        let app = w.app.clone();
        tokio::spawn(async move {
            let mut body = app.oneshot(request(index)).await.unwrap().into_body();
            // Every fourth reads all, the others leave after some pieces.
            let pieces = if index.is_multiple_of(4) {
                usize::MAX
            } else {
                index % 5
            };
            let mut read = 0;
            while read < pieces && body.frame().await.is_some() {
                read += 1;
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let (requests, tokens, of_projects) = w.used(allowance).await;
    assert_eq!(tokens, of_projects);
    // Of those that went away, the estimate is kept, which is more than they can have got.
    assert!(tokens >= w.served.tokens(), "{tokens} {}", w.served.tokens());
    assert!(
        w.served.requests() >= 20 && requests >= w.served.requests() && requests <= 120,
        "{requests}"
    );
}

#[tokio::test]
async fn strangers_and_other_models_have_no_buckets() {
    let w = world(Allowance::default()).await;
    let call = |key: &str, body: &str| {
        let head = Request::post("/v1/chat/completions").header("authorization", key);
        w.app
            .clone()
            .oneshot(head.body(Body::from(body.to_owned())).unwrap())
    };
    for (key, body, status) in [
        (
            "Bearer sk-stranger",
            r#"{"model":"gpt-4o"}"#,
            StatusCode::FORBIDDEN,
        ),
        ("Basic x", r#"{"model":"gpt-4o"}"#, StatusCode::UNAUTHORIZED),
        (
            "Bearer sk-search-1",
            r#"{"model":"other"}"#,
            StatusCode::NOT_FOUND,
        ),
        ("Bearer sk-search-1", "{}", StatusCode::BAD_REQUEST),
        ("Bearer sk-search-1", "not json", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(call(key, body).await.unwrap().status(), status, "{key} {body}");
    }
    assert_eq!(w.served.requests(), 0);
    let health = w
        .app
        .clone()
        .oneshot(Request::get("/healthz").body(Body::empty()).unwrap());
    assert_eq!(health.await.unwrap().status(), StatusCode::OK);
}
