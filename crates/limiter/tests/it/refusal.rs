//! The HTTP answers to refused requests, and their JSON Schema.

use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::{Access, Error, Limit, NewEntity, Refusal};

use crate::world::{Fault, Faulty, START, World};

/// Checks a value against a schema that has the keywords of this one. Returns the places where it differs.
fn differences(root: &Json, schema: &Json, value: &Json, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{at} {what}: {value}"));
        }
    };
    let is_of = |name: &Json| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    let mut below = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let path = rule.as_str().unwrap().strip_prefix('#').unwrap();
                below.extend(differences(root, root.pointer(path).unwrap(), value, at));
            }
            "oneOf" => {
                let one_of = rule.as_array().unwrap();
                let fits = |schema: &&Json| differences(root, schema, value, at).is_empty();
                expect(one_of.iter().filter(fits).count() == 1, "is not of one kind");
            }
            "const" => expect(value == rule, "differs"),
            "enum" => expect(rule.as_array().unwrap().contains(value), "is none of these"),
            "type" => expect(
                rule.as_array()
                    .map_or_else(|| is_of(rule), |types| types.iter().any(is_of)),
                "is of another type",
            ),
            "minimum" => expect(
                value
                    .as_f64()
                    .is_none_or(|number| number >= rule.as_f64().unwrap()),
                "is too small",
            ),
            "required" => {
                let has = |name: &Json| value.get(name.as_str().unwrap()).is_some();
                expect(rule.as_array().unwrap().iter().all(has), "lacks a property");
            }
            "properties" => {
                let rules = rule.as_object().unwrap();
                let names = value.as_object().into_iter().flatten().map(|(name, _)| name);
                // The schema allows others, but these are all that there are at present.
                expect(
                    names.clone().all(|name| rules.contains_key(name)),
                    "has a property without description",
                );
                for (name, rule) in rules {
                    if let Some(value) = value.get(name) {
                        below.extend(differences(root, rule, value, &format!("{at}.{name}")));
                    }
                }
            }
            "items" => {
                for value in value.as_array().into_iter().flatten() {
                    below.extend(differences(root, rule, value, &format!("{at}[]")));
                }
            }
            other => panic!("keyword {other}"),
        }
    }
    found.extend(below);
    found
}

#[track_caller]
fn check(refusal: &Refusal) {
    let schema: Json = serde_json::from_str(Refusal::SCHEMA).unwrap();
    let found = differences(&schema, &schema, refusal.body(), "body");
    assert!(found.is_empty(), "{found:#?}\n{:#}", refusal.body());
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, status: u16, retry_after: Option<&str>) -> Json {
    let Err(err) = result else {
        panic!("not refused");
    };
    let refusal = err.refusal().unwrap_or_else(|| panic!("{err:?}"));
    check(&refusal);
    assert_eq!(
        (refusal.status(), refusal.retry_after_header()),
        (status, retry_after)
    );
    refusal.into_body()
}

#[tokio::test]
async fn limits_of_each_kind() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let limits = [
        Limit::per_minute("rpm", 60),
        Limit::quota("rpd", 100).resets("0 0 * * *", "UTC"),
        Limit::session("ses", 50, Duration::from_hours(5)),
        Limit::per_minute("tpm", 10).soft(),
    ];
    admin.set_system_defaults(limits, None).await.unwrap();
    admin
        .create_entity(NewEntity::new("k").parent("p").cascade(true))
        .await
        .unwrap();
    let all = |tokens| {
        let request = w.limiter.acquire("k", "r").consume("rpm", 1).consume("tpm", 20);
        async move { request.consume("rpd", tokens).consume("ses", 10).await }
    };
    all(95).await.unwrap().commit().await.unwrap();
    // From START, which is 08:00, to midnight.
    let body = refused(all(10).await, 429, Some("57600"));
    assert_eq!(body["retry_after_ms"], 57_600_000);
    assert_eq!(body["contended"], false);
    let limit = |entity: &str, name: &str| {
        let limits = body["limits"].as_array().unwrap();
        let is_it = |limit: &&Json| limit["entity_id"] == entity && limit["limit_name"] == name;
        limits.iter().find(is_it).unwrap().clone()
    };
    for entity in ["k", "p"] {
        assert_eq!(
            limit(entity, "rpm"),
            json!({
                "entity_id": entity, "resource": "r", "limit_name": "rpm", "kind": "rate",
                "capacity": 60, "refill_amount": 60, "refill_period_seconds": 60,
                "available": 59, "requested": 1, "exceeded": false, "retry_after_seconds": 0.0, "soft": false,
            })
        );
        assert_eq!(
            limit(entity, "rpd"),
            json!({
                "entity_id": entity, "resource": "r", "limit_name": "rpd", "kind": "quota",
                "capacity": 100, "resets_at_ms": START + 57_600_000,
                "available": 5, "requested": 10, "exceeded": true, "retry_after_seconds": 57_600.0, "soft": false,
            })
        );
        assert_eq!(limit(entity, "ses")["resets_at_ms"], START + 5 * 3_600_000);
        assert_eq!(limit(entity, "tpm")["available"], -10);
        assert_eq!(limit(entity, "tpm")["soft"], true);
    }
    let body = refused(all(101).await, 413, None);
    assert_eq!(body["retry_after_ms"], Json::Null);
}

#[tokio::test]
async fn concurrent_writers() {
    let lost = Error::from(zae_limiter::RateLimitExceeded::contended(Vec::new()));
    let body = refused(Err::<(), _>(lost), 429, Some("1"));
    assert_eq!(
        (&body["contended"], &body["retry_after_ms"]),
        (&json!(true), &json!(100))
    );
}

#[tokio::test]
async fn no_place_in_flight() {
    let w = World::new().await;
    let call = || w.limiter.acquire("k", "r").in_flight_at_most(1);
    let lease = call().await.unwrap();
    let body = refused(call().await, 429, Some("1"));
    let expected = json!({
        "error": "concurrency_limit_exceeded",
        "message": "concurrency limit exceeded for k/r: 1 of 1 requests are in flight",
        "entity_id": "k", "resource": "r", "limit": 1, "in_flight": 1,
        "retry_after_seconds": 1.0, "retry_after_ms": 1000,
    });
    assert_eq!(body, expected);
    lease.commit().await.unwrap();
}

#[tokio::test]
async fn what_is_disabled() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    let acquire = |resource: &'static str| w.limiter.acquire("k", resource).consume("rpm", 1);
    acquire("used").await.unwrap().commit().await.unwrap();
    admin
        .set_entity_access("k", "own", Access::Disabled)
        .await
        .unwrap();
    admin.set_resource_access("r", Access::Disabled).await.unwrap();
    admin.set_resource_access("used", Access::Disabled).await.unwrap();
    for (resource, level) in [("own", "entity"), ("r", "resource"), ("used", "bucket")] {
        let body = refused(acquire(resource).await, 403, None);
        assert_eq!(
            body,
            json!({
                "error": "resource_disabled",
                "message": format!("{resource} is disabled for entity 'k' (by the {level})"),
                "entity_id": "k", "resource": resource, "level": level,
            })
        );
    }
    admin
        .set_entity_access("k", zae_limiter::ALL_RESOURCES, Access::Disabled)
        .await
        .unwrap();
    assert_eq!(
        refused(acquire("new").await, 403, None)["level"],
        "entity_default"
    );
}

#[tokio::test(start_paused = true)]
async fn outages() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty
        .limiter(&w, |builder| builder.acquire_timeout(Duration::from_millis(800)))
        .await;
    faulty.always(Fault::Throttled);
    let body = refused(limiter.acquire("k", "r").consume("rpm", 1).await, 503, Some("1"));
    assert_eq!(
        (&body["in_doubt"], &body["retry_after_ms"]),
        (&json!(false), &json!(1000))
    );
    // What failed stays within the service.
    assert_eq!(body["message"], "the rate limiter is unavailable");
    let in_doubt = Refusal::unavailable(true);
    check(&in_doubt);
    assert_eq!((in_doubt.status(), in_doubt.retry_after_header()), (503, None));
}

#[tokio::test]
async fn faults_are_not_refusals() {
    let w = World::new().await;
    let err = w.limiter.acquire("k", "r").consume("rpm", 1).await.unwrap_err();
    assert!(
        matches!(err, Error::NotConfigured { .. }) && err.refusal().is_none(),
        "{err:?}"
    );
}

#[test]
fn the_checker_finds_differences() {
    let schema: Json = serde_json::from_str(Refusal::SCHEMA).unwrap();
    for body in [
        json!({}),
        json!({ "error": "resource_disabled" }),
        json!({ "error": "resource_disabled", "message": "m", "entity_id": "k", "resource": "r", "level": "system" }),
        json!({ "error": "rate_limiter_unavailable", "message": "m", "in_doubt": 1, "retry_after_seconds": 1.0, "retry_after_ms": 1000 }),
        json!({ "error": "rate_limiter_unavailable", "message": "m", "in_doubt": true, "retry_after_seconds": 1.0, "retry_after_ms": -1 }),
    ] {
        assert!(!differences(&schema, &schema, &body, "body").is_empty(), "{body}");
    }
}
