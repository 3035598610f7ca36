//! Answers to refused requests, and header fields.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value as Json, json};
use tower::Layer as _;
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{ALL_RESOURCES, Access, Limit, NewEntity, RateLimiter};
use zae_limiter_tower::{BodyShape, Cause, Fields, RateLimitLayer, Rejection, key};

use crate::world::{World, answering, call, request, rules};

fn ok() -> Response<Body> {
    Response::new("x".into())
}

fn field<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

fn body(response: &Response<Bytes>) -> Json {
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn a_refusal_has_its_wait_and_the_published_body() {
    let w = World::new().await;
    let service = w.layer().layer(answering(ok));
    for left in (0..10).rev() {
        let response = call(service.clone(), request("a")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let told = field(response.headers(), "ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"rpd\";r={left};t=")), "{told}");
        assert!(told.contains(&format!("\"tpd\";r={};t=", left * 100)), "{told}");
        let policy = field(response.headers(), "ratelimit-policy");
        assert_eq!(policy, Some("\"rpd\";q=10;w=86400, \"tpd\";q=1000;w=86400"));
    }
    let response = call(service, request("a")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = field(response.headers(), "retry-after").unwrap().parse().unwrap();
    assert!((8000..=8640).contains(&wait), "{wait}");
    assert!(
        field(response.headers(), "ratelimit")
            .unwrap()
            .starts_with(&format!("\"rpd\";r=0;t={wait}"))
    );
    assert_eq!(
        field(response.headers(), "content-type"),
        Some("application/json")
    );
    let body = body(&response);
    assert_eq!(
        (&body["error"], &body["limits"][0]["limit_name"]),
        (&json!("rate_limit_exceeded"), &json!("rpd"))
    );
}

#[tokio::test]
async fn other_refusals() {
    let w = World::new().await;
    let admin = w.repo.admin();
    admin
        .set_entity_access("off", "api", Access::Disabled)
        .await
        .unwrap();
    admin
        .set_entity_limits(
            "small",
            "api",
            [Limit::per_day("rpd", 10), Limit::per_day("tpd", 50)],
        )
        .await
        .unwrap();
    let service = w.layer().layer(answering(ok));
    for (key, status, error) in [
        ("off", StatusCode::FORBIDDEN, "resource_disabled"),
        ("small", StatusCode::PAYLOAD_TOO_LARGE, "rate_limit_exceeded"),
        ("bad#name", StatusCode::BAD_REQUEST, "bad_request"),
        ("", StatusCode::UNAUTHORIZED, "unauthenticated"),
    ] {
        let response = call(service.clone(), request(key)).await;
        assert_eq!(response.status(), status, "{key}");
        assert_eq!(body(&response)["error"], error);
        assert_eq!(field(response.headers(), "retry-after"), None);
    }
    let layer = RateLimitLayer::new(
        w.limiter.clone(),
        zae_limiter_tower::Rules::new("a", "unknown").consume("rpd", 1),
    );
    let response = call(layer.unwrap().layer(answering(ok)), request("a")).await;
    assert_eq!(
        (response.status(), body(&response)["error"].as_str()),
        (StatusCode::FORBIDDEN, Some("not_configured"))
    );
}

#[tokio::test]
async fn an_outage_is_no_fault_of_the_client() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [Limit::per_day("rpd", 10), Limit::per_day("tpd", 1000)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    table.fail(Fault::Unreachable);
    let rules = rules().timeout(std::time::Duration::from_millis(50));
    let layer = RateLimitLayer::new(RateLimiter::new(repo), rules).unwrap();
    let response = call(layer.layer(answering(ok)), request("a")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(response.headers(), "retry-after"), Some("1"));
    assert_eq!(body(&response)["error"], "rate_limiter_unavailable");
}

#[tokio::test]
async fn problem_details() {
    let w = World::new().await;
    let service = w.layer().body_shape(BodyShape::Problem).layer(answering(ok));
    for _ in 0..10 {
        call(service.clone(), request("a")).await;
    }
    let response = call(service.clone(), request("a")).await;
    assert_eq!(
        field(response.headers(), "content-type"),
        Some("application/problem+json")
    );
    let problem = body(&response);
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], json!(["rpd", "tpd"]));
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .starts_with("rate limit exceeded")
    );
    let problem = body(&call(service, request("")).await);
    assert_eq!(
        (&problem["type"], &problem["title"]),
        (&json!("about:blank"), &json!("Unauthorized"))
    );
    let empty = w.layer().body_shape(BodyShape::Empty).layer(answering(ok));
    let response = call(empty, request("")).await;
    assert!(response.body().is_empty() && !response.headers().contains_key("content-type"));
}

#[tokio::test]
async fn older_fields_and_those_of_open_ai() {
    let w = World::new().await;
    let service = w
        .layer()
        .fields([Fields::XRateLimit, Fields::openai("rpd", "tpd")])
        .layer(answering(ok));
    call(service.clone(), request("a")).await;
    let response = call(service, request("a")).await;
    let headers = response.headers();
    assert_eq!(field(headers, "ratelimit"), None);
    for (name, value) in [
        ("x-ratelimit-limit", "10"),
        ("x-ratelimit-remaining", "8"),
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "8"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "800"),
    ] {
        assert_eq!(field(headers, name), Some(value), "{name}");
    }
    let reset = field(headers, "x-ratelimit-reset-tokens").unwrap();
    assert!(reset.starts_with("4h4") && reset.ends_with('s'), "{reset}");
    let none = w.layer().fields([]).layer(answering(ok));
    let response = call(none, request("b")).await;
    assert!(response.headers().is_empty(), "{:?}", response.headers());
}

#[tokio::test]
async fn fields_tell_the_tightest_of_a_chain_and_not_whose_it_is() {
    let w = World::new().await;
    let admin = w.repo.admin();
    admin
        .create_entity(NewEntity::new("a").parent("proj").cascade(true))
        .await
        .unwrap();
    admin
        .set_entity_limits(
            "proj",
            ALL_RESOURCES,
            [Limit::per_day("rpd", 100), Limit::per_day("tpd", 200)],
        )
        .await
        .unwrap();
    let service = w.layer().layer(answering(ok));
    let response = call(service, request("a")).await;
    let told = field(response.headers(), "ratelimit").unwrap();
    assert!(
        told.starts_with("\"rpd\";r=9;") && told.contains("\"tpd\";r=100;"),
        "{told}"
    );
    assert!(!told.contains("proj"));
    assert_eq!(
        field(response.headers(), "ratelimit-policy"),
        Some("\"rpd\";q=10;w=86400, \"tpd\";q=200;w=86400")
    );
}

#[tokio::test]
async fn bodies_do_not_say_who_is_above() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let key = NewEntity::new("a").parent("secret-parent").cascade(true);
    admin.create_entity(key).await.unwrap();
    let limits = [Limit::per_day("rpd", 1), Limit::per_day("tpd", 200)];
    admin
        .set_entity_limits("secret-parent", ALL_RESOURCES, limits)
        .await
        .unwrap();
    let layers = [
        w.layer(),
        w.layer().body_shape(BodyShape::Problem),
        w.layer().body_shape(BodyShape::JsonWithEntities),
    ];
    call(w.layer().layer(answering(ok)), request("a")).await;
    for (layer, says) in layers.into_iter().zip([false, false, true]) {
        let response = call(layer.layer(answering(ok)), request("a")).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(text.contains("secret-parent"), says, "{text}");
        if !says {
            let body = body(&response);
            assert_eq!(body["limits"].as_array().unwrap().len(), 2);
            let message = body["message"].as_str().unwrap();
            assert!(
                message.starts_with("rate limit exceeded: rpd; retry after "),
                "{message}"
            );
        }
    }
    admin
        .set_entity_access("secret-parent", "api", Access::Disabled)
        .await
        .unwrap();
    let response = call(w.layer().layer(answering(ok)), request("a")).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(!String::from_utf8_lossy(response.body()).contains("secret-parent"));
}

/// The client's limits are there: that those of an entity above it are not is a fault of the configuration.
#[tokio::test]
async fn a_parent_without_limits_is_no_unknown_key() {
    let repo = zae_limiter::Repository::in_memory().await.unwrap();
    let admin = repo.admin();
    let limits = [Limit::per_day("rpd", 1), Limit::per_day("tpd", 200)];
    for key in ["a", "stranger"] {
        let new = NewEntity::new(key).parent("secret-parent").cascade(true);
        admin.create_entity(new).await.unwrap();
    }
    admin.set_entity_limits("a", "api", limits).await.unwrap();
    let layer = RateLimitLayer::new(RateLimiter::new(repo), rules()).unwrap();
    for (key, status, error) in [
        ("a", StatusCode::INTERNAL_SERVER_ERROR, "misconfigured"),
        ("stranger", StatusCode::FORBIDDEN, "not_configured"),
        ("other", StatusCode::FORBIDDEN, "not_configured"),
    ] {
        let response = call(layer.layer(answering(ok)), request(key)).await;
        assert_eq!(
            (response.status(), body(&response)["error"].as_str()),
            (status, Some(error)),
            "{key}"
        );
        assert!(!String::from_utf8_lossy(response.body()).contains("secret-parent"));
    }
}

#[tokio::test]
async fn only_limits_of_the_client_can_be_told() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let key = NewEntity::new("a").parent("proj").cascade(true);
    admin.create_entity(key).await.unwrap();
    let limits = [Limit::per_day("rpd", 100), Limit::per_day("tpd", 200)];
    admin
        .set_entity_limits("proj", ALL_RESOURCES, limits)
        .await
        .unwrap();
    let own = || w.layer().own_limits_only();
    for left in [900, 800] {
        let response = call(own().layer(answering(ok)), request("a")).await;
        let told = field(response.headers(), "ratelimit").unwrap();
        assert!(told.contains(&format!("\"tpd\";r={left};")), "{told}");
    }
    // The project refuses, and the client's own limits stand as they did.
    for (layer, media_type) in [
        (own(), "application/json"),
        (own().body_shape(BodyShape::Problem), "application/problem+json"),
    ] {
        let response = call(layer.layer(answering(ok)), request("a")).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let headers = response.headers();
        assert_eq!(field(headers, "content-type"), Some(media_type));
        assert!(field(headers, "retry-after").is_some());
        let policy = field(headers, "ratelimit-policy");
        assert_eq!(policy, Some("\"rpd\";q=10;w=86400, \"tpd\";q=1000;w=86400"));
        let body = body(&response);
        let capacities: Vec<_> = body["limits"].as_array().unwrap().iter().collect();
        assert_eq!(capacities.len(), 2, "{body}");
        assert!(
            capacities
                .iter()
                .all(|limit| limit["capacity"] != 200 && limit["exceeded"] == false)
        );
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .starts_with("rate limit exceeded; retry after ")
        );
        assert!(
            body.get("violated-policies")
                .is_none_or(|names| names.as_array().unwrap().is_empty())
        );
    }
    // By default, the project's are reported, because they are tighter.
    let response = call(w.layer().layer(answering(ok)), request("a")).await;
    let told = field(response.headers(), "ratelimit").unwrap();
    assert!(told.contains("\"tpd\";r=0;"), "{told}");
}

/// RFC 9110 has 401 with a challenge.
#[tokio::test]
async fn answers_to_requests_without_a_key_say_how_to_authenticate() {
    let w = World::new().await;
    let challenge = http::HeaderValue::from_static;
    let layer = |entity: Box<dyn zae_limiter_tower::key::Key>| {
        let entity =
            move |request: &http::request::Parts| entity.key(request).map(std::borrow::Cow::into_owned);
        let rules = zae_limiter_tower::Rules::new(entity, "api").consume("rpd", 1);
        RateLimitLayer::new(w.limiter.clone(), rules).unwrap()
    };
    let signed_in = move |_: &http::request::Parts| -> Result<String, Rejection> {
        Err(Rejection::unauthenticated("sign in").with_challenge(challenge("Basic realm=\"x\"")))
    };
    let field_key = || key::header(crate::world::KEY);
    let request = |authorization: Option<&str>| {
        let head = http::Request::get("/");
        let head = match authorization {
            Some(value) => head.header("authorization", value),
            None => head,
        };
        head.body(Body::empty()).unwrap()
    };
    for (entity, authorization, expected) in [
        (
            Box::new(key::bearer()) as Box<dyn zae_limiter_tower::key::Key>,
            None,
            Some("Bearer"),
        ),
        (Box::new(key::bearer()), Some("Basic x"), Some("Bearer")),
        (
            Box::new(key::bearer().challenge(challenge("Bearer realm=\"api\""))),
            None,
            Some("Bearer realm=\"api\""),
        ),
        (Box::new(field_key()), None, None),
        (
            Box::new(field_key().challenge(challenge("ApiKey"))),
            None,
            Some("ApiKey"),
        ),
        (Box::new(signed_in), None, Some("Basic realm=\"x\"")),
    ] {
        let response = call(layer(entity).layer(answering(ok)), request(authorization)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(field(response.headers(), "www-authenticate"), expected);
    }
    // Not in others, and not in place of the service's own.
    let mut twice = request(Some("Bearer a"));
    twice.headers_mut().append("authorization", challenge("Bearer b"));
    let response = call(layer(Box::new(key::bearer())).layer(answering(ok)), twice).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(field(response.headers(), "www-authenticate"), None);
    let own = layer(Box::new(key::bearer())).on_refusal(|refused| {
        let head = Response::builder().status(refused.status());
        head.header("www-authenticate", "Own").body(Bytes::new()).ok()
    });
    let response = call(own.layer(answering(ok)), request(None)).await;
    assert_eq!(field(response.headers(), "www-authenticate"), Some("Own"));
}

/// That a limit is missing is a fault of the service.
#[tokio::test]
async fn a_limit_that_the_rules_name_and_the_table_lacks() {
    let w = World::new().await;
    let rules = zae_limiter_tower::Rules::new("a", "api").consume("other", 1);
    let layer = RateLimitLayer::new(w.limiter.clone(), rules).unwrap();
    let response = call(layer.layer(answering(ok)), request("a")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body(&response)["error"], "misconfigured");
    // An amount that the client has chosen is its own fault.
    let rules = zae_limiter_tower::Rules::new("a", "api").consume_by("tpd", |_| Ok(u64::MAX));
    let layer = RateLimitLayer::new(w.limiter.clone(), rules).unwrap();
    let response = call(layer.layer(answering(ok)), request("a")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_quota_has_no_window() {
    let w = World::new().await;
    let quota = Limit::quota("rpd", 10).resets("0 0 * * *", "UTC");
    w.repo
        .admin()
        .set_entity_limits(
            "a",
            "api",
            [quota, Limit::quota("tpd", 1000).resets("0 0 1 * *", "UTC")],
        )
        .await
        .unwrap();
    let response = call(w.layer().layer(answering(ok)), request("a")).await;
    assert_eq!(
        field(response.headers(), "ratelimit-policy"),
        Some("\"rpd\";q=10, \"tpd\";q=1000")
    );
    let told = field(response.headers(), "ratelimit").unwrap();
    assert!(
        told.starts_with("\"rpd\";r=9;t=") && told.contains("\"tpd\";r=900;t="),
        "{told}"
    );
}

#[tokio::test]
async fn a_service_answers_itself() {
    let w = World::new().await;
    let layer = w.layer().on_refusal(|refused| match refused.cause() {
        Cause::Request(rejection) => {
            let mut response = Response::new(Bytes::from(format!("{}: {rejection}", rejection.code())));
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            Some(response)
        }
        _ => None,
    });
    let response = call(layer.layer(answering(ok)), request("")).await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.body(), "unauthenticated: the field x-key is missing");
    // The others are answered as usual. Fields of the service are replaced: it may be a proxy.
    let own = || {
        Response::builder()
            .header("ratelimit", "mine")
            .body("x".into())
            .unwrap()
    };
    let service = layer.layer(answering(own));
    for _ in 0..10 {
        let response = call(service.clone(), request("a")).await;
        let told = field(response.headers(), "ratelimit").unwrap();
        assert!(told.starts_with("\"rpd\";"), "{told}");
    }
    assert_eq!(
        call(service, request("a")).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}
