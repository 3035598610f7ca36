//! The HTTP API: tokens and leases, of several servers that share keys.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{Access, Limit, NewEntity, RateLimiter, Repository};
use zae_limiter_server::{App, LeaseKeys, Limits, Rules, http_router};

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

/// Servers over one table.
struct Service {
    table: TestTable,
    repo: Repository,
    _directory: tempfile::TempDir,
    keys: PathBuf,
    app: App,
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

impl Service {
    /// A key below a project: 100 requests a day of each key, 1000 tokens of both.
    async fn new() -> Self {
        let table = TestTable::new();
        let repo = table.open().await.unwrap();
        let admin = repo.admin();
        let daily = |name, n| Limit::quota(name, n).resets("0 0 * * *", "UTC");
        admin
            .set_resource_defaults("gpt-4", [daily("rpd", 100), daily("tpd", 1000)])
            .await
            .unwrap();
        admin
            .set_resource_defaults("budget", [daily("cents", 50)])
            .await
            .unwrap();
        admin.create_entity(NewEntity::new("proj")).await.unwrap();
        admin
            .create_entity(NewEntity::new("key").parent("proj").cascade(true))
            .await
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        std::fs::write(&keys, format!("# comment\n{KEY} # first\n")).unwrap();
        let app = Self::app(&repo, &keys);
        Self {
            table,
            repo,
            _directory: directory,
            keys,
            app,
        }
    }

    fn app(repo: &Repository, keys: &std::path::Path) -> App {
        let app = App::new(RateLimiter::new(repo.clone()), Rules::none());
        app.with_leases(LeaseKeys::load(keys).unwrap())
    }

    /// Another server with the same keys.
    async fn other(&self) -> App {
        Self::app(&self.table.open().await.unwrap(), &self.keys)
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        send(&self.app, Method::POST, path, &body.to_string()).await
    }

    async fn acquire(&self, body: Value) -> Answer {
        self.post("/v1/acquire", body).await
    }

    /// A lease of a request and 100 tokens.
    async fn lease(&self, more: Value) -> String {
        let mut body = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"rpd": 1, "tpd": 100}});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = self.acquire(body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body["lease"].as_str().unwrap().to_owned()
    }

    /// Tokens that are left: of the key, and of its project.
    async fn left(&self) -> [i64; 2] {
        let limiter = RateLimiter::new(self.table.open().await.unwrap());
        let key = limiter.available("key", "gpt-4").await.unwrap()["tpd"];
        [key, limiter.available("proj", "gpt-4").await.unwrap()["tpd"]]
    }
}

async fn send(app: &App, method: Method, path: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = http_router(app.clone(), &Limits::default())
        .oneshot(request)
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    }
}

async fn end(app: &App, lease: &str, how: &str, body: &str) -> Answer {
    send(app, Method::POST, &format!("/v1/leases/{lease}/{how}"), body).await
}

#[tokio::test]
async fn tokens_are_taken_and_corrected_by_another_server() {
    let service = Service::new().await;
    let body = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"rpd": 1, "tpd": 100}});
    let answer = service.acquire(body).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.headers["ratelimit-policy"],
        "\"rpd\";q=100, \"tpd\";q=1000"
    );
    assert_eq!(
        answer.body["limits"][1],
        json!({
            "entity_id": "key", "resource": "gpt-4", "limit_name": "tpd", "kind": "quota", "capacity": 1000, "available": 900,
            "requested": 100, "exceeded": false, "retry_after_seconds": 0.0, "resets_at_ms": 1_800_057_600_000_i64, "soft": false,
        })
    );
    assert_eq!(
        (&answer.body["on_expiry"], &answer.body["degraded"]),
        (&json!("keep"), &json!(false))
    );
    let lease = answer.body["lease"].as_str().unwrap();
    let other = service.other().await;
    let committed = end(&other, lease, "commit", r#"{"actual": {"tpd": 30}}"#).await;
    assert_eq!(
        (committed.status, committed.body),
        (StatusCode::OK, json!({"ended": "commit", "repeated": false}))
    );
    let again = end(&service.app, lease, "commit", r#"{"actual": {"tpd": 30}}"#).await;
    assert_eq!(again.body, json!({"ended": "commit", "repeated": true}));
    let other_end = end(&service.app, lease, "rollback", "").await;
    assert_eq!(
        (
            other_end.status,
            &other_end.body["error"],
            &other_end.body["ended"]
        ),
        (StatusCode::CONFLICT, &json!("lease_ended"), &json!("commit"))
    );
    assert_eq!(service.left().await, [970, 970]);
    let lease = service.lease(json!({})).await;
    let rolled_back = end(&other, &lease, "rollback", "{}").await;
    assert_eq!(rolled_back.body, json!({"ended": "rollback", "repeated": false}));
    assert_eq!(service.left().await, [970, 970]);
}

#[tokio::test]
async fn several_resources_are_taken_together() {
    let service = Service::new().await;
    let also = json!([{"resource": "budget", "consume": {"cents": 5}}]);
    let lease = service.lease(json!({"also": also})).await;
    let used = json!({"actual": {"tpd": 40}, "also": [{"resource": "budget", "actual": {"cents": 4}}]});
    assert_eq!(
        end(&service.app, &lease, "commit", &used.to_string())
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(service.left().await, [960, 960]);
    let limiter = RateLimiter::new(service.table.open().await.unwrap());
    assert_eq!(limiter.available("key", "budget").await.unwrap()["cents"], 46);
}

#[tokio::test]
async fn refusals_have_the_published_bodies() {
    let service = Service::new().await;
    let ask = |tokens: u64| json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": tokens}, "lease": false});
    let taken = service.acquire(ask(990)).await;
    assert_eq!(
        (taken.status, &taken.body["lease"]),
        (StatusCode::OK, &Value::Null)
    );
    let refused = service.acquire(ask(20)).await;
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limit_exceeded"))
    );
    assert_eq!(refused.body["limits"][0]["limit_name"], "tpd");
    assert!(refused.headers.contains_key("retry-after") && refused.headers.contains_key("ratelimit"));
    assert_eq!(
        service.acquire(ask(1001)).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    service
        .repo
        .admin()
        .set_resource_access("gpt-4", Access::Disabled)
        .await
        .unwrap();
    assert_eq!(service.acquire(ask(1)).await.status, StatusCode::FORBIDDEN);
    let unknown = json!({"entity_id": "key", "resource": "unheard-of", "consume": {"tpd": 1}});
    let unknown = service.acquire(unknown).await;
    assert_eq!(
        (unknown.status, &unknown.body["error"]),
        (StatusCode::NOT_FOUND, &json!("not_configured"))
    );
    service.table.fail(Fault::Unreachable);
    let down = service
        .acquire(json!({"entity_id": "key", "resource": "budget", "consume": {"cents": 1}}))
        .await;
    assert_eq!(
        (down.status, &down.body["error"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &json!("rate_limiter_unavailable")
        )
    );
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let service = Service::new().await;
    let good = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1}});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, field) in [
        (with("consume", json!({})), "consume"),
        (with("consume", json!({"none": 1})), "consume.none"),
        (
            with("consume", json!({"tpd": 1_000_000_000_000_001_u64})),
            "consume.tpd",
        ),
        (with("entity_id", json!("a#b")), "entity_id"),
        (with("resource", json!("")), "resource"),
        (
            with("also", json!([{"resource": "gpt-4", "consume": {"tpd": 1}}])),
            "also",
        ),
        (
            with("also", json!([{"resource": "budget", "consume": {}}])),
            "also.consume",
        ),
        (with("wait_ms", json!(9_001)), "wait_ms"),
        (with("ttl_ms", json!(999)), "ttl_ms"),
        (with("ttl_ms", json!(86_400_001)), "ttl_ms"),
    ] {
        let answer = service.acquire(body.clone()).await;
        assert_eq!(
            (answer.status, &answer.body["field"]),
            (StatusCode::BAD_REQUEST, &json!(field)),
            "{body}: {}",
            answer.body
        );
    }
    assert_eq!(service.left().await, [1000, 1000]);
}

#[tokio::test]
async fn debts_and_numbers_with_a_point() {
    let service = Service::new().await;
    let debt = json!({"entity_id": "debtor", "resource": "gpt-4", "consume": {"tpd": 1500}, "overdraw": true, "lease": false});
    assert_eq!(service.acquire(debt).await.status, StatusCode::OK);
    let refused = json!({"entity_id": "debtor", "resource": "gpt-4", "consume": {"tpd": 0}});
    let refused = service.acquire(refused).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.body["limits"][0]["available"], -500);
    // In JSON, 1.0 is a whole number.
    let whole = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 0.0}, "ttl_ms": 60_000.0});
    assert_eq!(service.acquire(whole).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_of_another_form_are_refused() {
    let service = Service::new().await;
    let good = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1}});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"entity_id": "key"}"#,
        r#"{"entity_id": 5}"#,
    ] {
        let answer = send(&service.app, Method::POST, "/v1/acquire", body).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_body")),
            "{body}"
        );
    }
    for (body, said) in [
        (
            r#"{"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 900, "tpd": 0}}"#,
            "limit 'tpd' is given twice",
        ),
        (
            r#"{"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": -1}}"#,
            "limit 'tpd' must be a whole number",
        ),
        (
            r#"["key", "gpt-4", {"tpd": 1}, [], 0, true, null, null]"#,
            "must be an object",
        ),
        (
            r#"{"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1}, "also": [["gpt-5", {"tpd": 1}]]}"#,
            "expected a map",
        ),
        (
            r#"{"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1}, "ttl_ms": 1000.5}"#,
            "ttl_ms: must be a whole number of milliseconds, not 1000.5",
        ),
        (
            r#"{"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1}, "overdraw": 1}"#,
            "overdraw: invalid type: integer `1`, expected a boolean",
        ),
    ] {
        let answer = send(&service.app, Method::POST, "/v1/acquire", body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(
            answer.status == StatusCode::BAD_REQUEST && message.contains(said),
            "{body}: {message}"
        );
    }
    let typo = service.acquire(with("wait", json!(1))).await;
    assert!(
        typo.body["message"]
            .as_str()
            .unwrap()
            .contains("unknown field `wait`"),
        "{}",
        typo.body
    );
    for negative in [json!(-1), json!(1.5), json!("1")] {
        assert_eq!(
            service
                .acquire(with("consume", json!({"tpd": negative})))
                .await
                .status,
            StatusCode::BAD_REQUEST
        );
    }
    assert_eq!(service.left().await, [1000, 1000]);
    let lease = service.lease(json!({})).await;
    for (how, body) in [
        ("commit", r#"{"actual": {"none": 1}}"#),
        ("commit", r#"{"used": {"tpd": 1}}"#),
        (
            "commit",
            r#"{"also": [{"resource": "budget", "actual": {"cents": 1}}]}"#,
        ),
        ("rollback", r#"{"actual": {}}"#),
        ("extend", ""),
        ("extend", r#"{"ttl_ms": 10}"#),
    ] {
        assert_eq!(
            end(&service.app, &lease, how, body).await.status,
            StatusCode::BAD_REQUEST,
            "{how} {body}"
        );
    }
    assert_eq!(
        end(&service.app, &lease, "rollback", "").await.status,
        StatusCode::OK
    );
}

/// Nothing that a client makes up ends a lease, and nothing is changed by it.
#[tokio::test]
async fn forged_leases_change_nothing() {
    let service = Service::new().await;
    let lease = service.lease(json!({"on_expiry": "give_back"})).await;
    let (body, signature) = lease.rsplit_once('.').unwrap();
    let payload = body.strip_prefix("zl1.").unwrap();
    let mut forged = vec![
        "x".to_owned(),
        "zl1..".to_owned(),
        "zl1.e30.AAAA".to_owned(),
        format!("{body}."),
        body.to_owned(),
        format!("{body}.{}", &signature[1..]),
        format!("zl2.{payload}.{signature}"),
        format!("{lease}.{signature}"),
        lease.to_lowercase(),
    ];
    // One character of the payload or of the signature is another one.
    for at in (4..lease.len()).step_by(7) {
        let other = if &lease[at..=at] == "A" { "B" } else { "A" };
        if &lease[at..=at] != "." {
            forged.push(format!("{}{other}{}", &lease[..at], &lease[at + 1..]));
        }
    }
    for text in &forged {
        for how in ["commit", "rollback"] {
            let answer = end(&service.app, text, how, "").await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{text}");
        }
        assert_eq!(
            end(&service.app, text, "extend", r#"{"ttl_ms": 70000}"#)
                .await
                .status,
            StatusCode::NOT_FOUND
        );
    }
    // A server with other keys has not issued it, nor one that has none of a file.
    let alone = App::new(
        RateLimiter::new(service.table.open().await.unwrap()),
        Rules::none(),
    );
    assert_eq!(
        end(&alone, &lease, "rollback", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(service.left().await, [900, 900]);
    assert_eq!(
        end(&service.app, &lease, "rollback", "").await.status,
        StatusCode::OK
    );
    assert_eq!(service.left().await, [1000, 1000]);
}

#[tokio::test]
async fn keys_can_be_replaced_one_by_one() {
    let service = Service::new().await;
    let lease = service.lease(json!({})).await;
    std::fs::write(&service.keys, format!("{}\n{KEY}\n", "z".repeat(32))).unwrap();
    let newer = service.other().await;
    assert_eq!(end(&newer, &lease, "rollback", "").await.status, StatusCode::OK);
    for (keys, said) in [
        ("", "no key"),
        ("# only\n", "no key"),
        ("short\n", "line 1"),
        (&format!("{KEY}\nshort"), "line 2"),
    ] {
        std::fs::write(&service.keys, keys).unwrap();
        let err = LeaseKeys::load(&service.keys).unwrap_err().to_string();
        assert!(err.contains(said) && err.contains("--lease-keys"), "{err}");
    }
}

#[tokio::test]
async fn a_lease_expires_unless_it_is_extended() {
    let service = Service::new().await;
    let kept = service.lease(json!({"ttl_ms": 1000})).await;
    let given = service
        .lease(json!({"ttl_ms": 1000, "on_expiry": "give_back"}))
        .await;
    let extended = service.lease(json!({"ttl_ms": 1000})).await;
    let until = end(&service.app, &extended, "extend", r#"{"ttl_ms": 3600000}"#).await;
    assert!(until.body["expires_at_ms"].is_i64(), "{}", until.body);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for lease in [&kept, &given] {
        let late = end(&service.app, lease, "rollback", "").await;
        assert_eq!(
            (late.status, &late.body["error"]),
            (StatusCode::GONE, &json!("lease_expired"))
        );
    }
    assert_eq!(service.repo.sweep_leases().await.unwrap().given_back, 1);
    let swept = end(&service.app, &given, "rollback", "").await;
    assert_eq!(
        (swept.status, &swept.body["error"]),
        (StatusCode::GONE, &json!("lease_expired"))
    );
    assert_eq!(
        end(&service.app, &extended, "rollback", "").await.status,
        StatusCode::OK
    );
    assert_eq!(service.left().await, [900, 900]);
}

#[tokio::test]
async fn looking_takes_nothing() {
    let service = Service::new().await;
    let look = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1000}});
    let fits = service.post("/v1/check", look).await;
    assert_eq!(
        (fits.status, &fits.body["admitted"], &fits.body["retry_after_ms"]),
        (StatusCode::OK, &json!(true), &json!(0))
    );
    let over = service
        .post(
            "/v1/check",
            json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1001}}),
        )
        .await;
    assert_eq!(
        (&over.body["admitted"], &over.body["retry_after_ms"]),
        (&json!(false), &Value::Null)
    );
    let path = "/v1/availability?entity_id=key&resource=gpt-4";
    let found = send(&service.app, Method::GET, path, "").await;
    assert_eq!(found.body["limits"][3]["entity_id"], "proj");
    for path in [
        "/v1/availability",
        "/v1/availability?entity_id=key",
        "/v1/availability?entity_id=key&resource=gpt-4&more=1",
        "/v1/availability?entity_id=a%23b&resource=gpt-4",
    ] {
        assert_eq!(
            send(&service.app, Method::GET, path, "").await.status,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
    assert_eq!(service.left().await, [1000, 1000]);
}

/// A lease of many resources does not fit into the path of a request.
#[tokio::test]
async fn a_lease_can_be_sent_in_the_body() {
    let service = Service::new().await;
    let lease = service.lease(json!({})).await;
    let send_in_body = async |how: &str, body: Value| service.post(&format!("/v1/leases/{how}"), body).await;
    let extended = send_in_body("extend", json!({"lease": lease, "ttl_ms": 70_000})).await;
    assert!(extended.body["expires_at_ms"].is_i64(), "{}", extended.body);
    let committed = send_in_body("commit", json!({"lease": lease, "actual": {"tpd": 30}})).await;
    assert_eq!(committed.body, json!({"ended": "commit", "repeated": false}));
    let rolled_back = send_in_body("rollback", json!({"lease": lease})).await;
    assert_eq!(rolled_back.status, StatusCode::CONFLICT);
    // How it ended goes before what is wrong with the new time to live.
    let extended = send_in_body("extend", json!({"lease": lease, "ttl_ms": 1_000})).await;
    assert_eq!(
        (extended.status, &extended.body["ended"]),
        (StatusCode::CONFLICT, &json!("commit"))
    );
    for body in [
        json!({}),
        json!({"lease": 1}),
        json!({"lease": lease, "more": 1}),
        json!([]),
    ] {
        assert_eq!(
            send_in_body("rollback", body.clone()).await.status,
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
    assert_eq!(service.left().await, [970, 970]);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_in_json() {
    let service = Service::new().await;
    let body = format!("{{\"entity_id\": \"{}\"}}", "x".repeat(70_000));
    for path in [
        "/v1/acquire",
        "/v1/check",
        "/v1/leases/commit",
        "/v1/leases/x/commit",
    ] {
        let answer = send(&service.app, Method::POST, path, &body).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large")),
            "{path}"
        );
    }
}

/// Many clients, of which each ends its lease by another server than the one that issued it.
#[tokio::test]
async fn no_more_is_admitted_than_the_limit_allows() {
    let service = Service::new().await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..60_u64 {
        let (one, two) = (service.app.clone(), service.other().await);
        clients.spawn(async move {
            let body = json!({"entity_id": "key", "resource": "gpt-4", "consume": {"rpd": 1, "tpd": 30}})
                .to_string();
            let answer = send(&one, Method::POST, "/v1/acquire", &body).await;
            if answer.status != StatusCode::OK {
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.body);
                return 0;
            }
            let lease = answer.body["lease"].as_str().unwrap();
            let used = 10 + client % 20;
            let body = json!({"actual": {"tpd": used}}).to_string();
            assert_eq!(end(&two, lease, "commit", &body).await.status, StatusCode::OK);
            used
        });
    }
    let mut used = 0;
    while let Some(client) = clients.join_next().await {
        used += client.unwrap();
    }
    assert!(used <= 1000);
    let left = i64::try_from(1000 - used).unwrap();
    assert_eq!(service.left().await, [left, left]);
}

/// Every route and every property of the answers is in the document.
#[tokio::test]
async fn the_document_describes_the_api() {
    let service = Service::new().await;
    let document = send(&service.app, Method::GET, "/v1/openapi.json", "").await;
    assert_eq!(
        (document.status, &document.body["openapi"]),
        (StatusCode::OK, &json!("3.1.0"))
    );
    let schema = |name: &str| document.body["components"]["schemas"][name]["properties"].clone();
    let has_all = |found: &Value, name: &str| {
        for property in found.as_object().unwrap().keys() {
            assert!(schema(name).get(property).is_some(), "{name} has no {property}");
        }
    };
    let acquired = service
        .acquire(json!({"entity_id": "key", "resource": "gpt-4", "consume": {"tpd": 1}}))
        .await;
    has_all(&acquired.body, "Acquired");
    has_all(&acquired.body["limits"][0], "Limit");
    let found = service
        .post("/v1/check", json!({"entity_id": "key", "resource": "gpt-4"}))
        .await;
    has_all(&found.body, "Availability");
    let ended = end(
        &service.app,
        acquired.body["lease"].as_str().unwrap(),
        "commit",
        "",
    )
    .await;
    has_all(&ended.body, "Ended");
    for (path, methods) in document.body["paths"].as_object().unwrap() {
        for method in methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
        {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = send(&service.app, method.clone(), &path.replace("{lease}", "none"), "").await;
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            let is_known = answer.status != StatusCode::NOT_FOUND
                || ["unknown_lease", "no_metrics"].contains(&answer.body["error"].as_str().unwrap());
            assert!(is_known, "{method} {path}");
        }
    }
}
