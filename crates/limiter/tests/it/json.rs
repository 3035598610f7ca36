//! Values under the feature `serde`: round trips, forms, and bad values that are refused.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, from_value, json, to_value};
use zae_limiter::{
    AuditEvent, Availability, CapacityOf, Entity, EntityId, Error, Limit, LimitName, NamespaceId, NewEntity,
    OnUnavailable, Percent, ResourceName, UsageSnapshot, UsageSummary, Wait, Window,
};
use zae_limiter_core::table::Value;

use crate::world::World;

/// Checks the form of a value, and that it is read back from it, also from text.
#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: &T, form: &Json) {
    assert_eq!(&to_value(value).unwrap(), form);
    assert_eq!(&from_value::<T>(form.clone()).unwrap(), value);
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
}

/// Checks the error of a bad value.
#[track_caller]
fn refused<T: DeserializeOwned + fmt::Debug>(form: Json, expected: &str) {
    let err = from_value::<T>(form).unwrap_err().to_string();
    assert!(err.starts_with(expected), "{err}");
}

fn instant(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

#[test]
fn names_are_texts_and_are_checked() {
    check(&EntityId::new("key-1").unwrap(), &json!("key-1"));
    check(&ResourceName::new("a/b").unwrap(), &json!("a/b"));
    check(&LimitName::new("rpm").unwrap(), &json!("rpm"));
    check(&NamespaceId::new("dSkXlbmmfyU").unwrap(), &json!("dSkXlbmmfyU"));
    refused::<EntityId>(json!("a#b"), "invalid entity_id 'a#b': must not contain '#'");
    refused::<LimitName>(json!("wcu"), "invalid limit_name 'wcu': is reserved");
    refused::<ResourceName>(json!(7), "invalid type: integer");
}

#[test]
fn limits_have_the_keys_of_a_manifest() {
    let limit = Limit::per_hour("tpm", 10).burst(50).build().unwrap();
    let form = json!({ "name": "tpm", "capacity": 50, "refill_amount": 10, "refill_period": 3600 });
    check(&limit, &form);
    let read = |form: Json| from_value::<Limit>(form).unwrap();
    let minute = |capacity| Limit::per_minute("rpm", capacity).build().unwrap();
    assert_eq!(read(json!({ "name": "rpm", "capacity": 10 })), minute(10));
    assert_eq!(
        read(json!({ "name": "rpm", "capacity": 10, "burst": 30 })),
        minute(30)
    );
    for (form, expected) in [
        (json!({ "capacity": 1 }), "missing field `name`"),
        (json!({ "name": "rpm" }), "missing field `capacity`"),
        (json!({ "name": "9x", "capacity": 1 }), "invalid limit_name '9x'"),
        (
            json!({ "name": "rpm", "capacity": 0 }),
            "invalid rpm.capacity '0': must be between 1 and 1000000000000000",
        ),
        (
            json!({ "name": "rpm", "capacity": u64::MAX }),
            "invalid rpm.capacity '18446744073709551615'",
        ),
        (
            json!({ "name": "rpm", "capacity": -1 }),
            "invalid value: integer `-1`",
        ),
        (
            json!({ "name": "rpm", "capacity": 1.5 }),
            "invalid type: floating point",
        ),
        (
            json!({ "name": "rpm", "capacity": 1, "refill_amount": 0 }),
            "invalid rpm.refill_amount '0'",
        ),
        (
            json!({ "name": "rpm", "capacity": 1, "refill_period": 0 }),
            "invalid rpm.refill_period '0 s'",
        ),
        (
            json!({ "name": "rpm", "capacity": 1, "refil_period": 60 }),
            "unknown field `refil_period`",
        ),
    ] {
        refused::<Limit>(form, expected);
    }
}

#[test]
fn policies_and_windows() {
    check(&OnUnavailable::Block, &json!("block"));
    check(&OnUnavailable::Allow, &json!("allow"));
    let quarter = OnUnavailable::Degrade(Percent::new(25).unwrap());
    check(&quarter, &json!({ "degrade": 25 }));
    refused::<OnUnavailable>(json!({ "degrade": 0 }), "invalid degrade_percent '0'");
    refused::<OnUnavailable>(json!("shrug"), "unknown variant `shrug`");
    check(&Window::Daily, &json!("daily"));
    refused::<Window>(json!("weekly"), "unknown variant `weekly`");
    check(&Wait::Millis(1500), &json!(1500));
    check(&Wait::Never, &Json::Null);
}

#[tokio::test]
async fn refusals_and_availability() {
    let w = World::configured().await;
    let refusal = |tokens| {
        let call = w.limiter.acquire("k", "r").consume("tpm", tokens);
        async { call.await.map(drop).unwrap_err() }
    };
    let lease = w.limiter.acquire("k", "r").consume("tpm", 1000).await.unwrap();
    lease.commit().await.unwrap();
    let Error::RateLimitExceeded(refused) = refusal(10).await else {
        panic!("another error");
    };
    let status = json!({
        "entity_id": "k", "resource": "r", "limit_name": "tpm",
        "capacity": 1000, "refill_amount": 1000, "refill_period_seconds": 60, "shards": 1,
        "available": 0, "requested": 10, "exceeded": true, "retry_after_ms": 600,
    });
    check(&refused.statuses()[0], &status);
    check(&refused, &json!({ "limits": [status], "contended": false }));
    let Error::RateLimitExceeded(never) = refusal(1001).await else {
        panic!("another error");
    };
    assert_eq!(
        to_value(&never).unwrap()["limits"][0]["retry_after_ms"],
        Json::Null
    );
    let read: zae_limiter::RateLimitExceeded = from_value(to_value(&never).unwrap()).unwrap();
    assert_eq!((&read, read.is_never()), (&never, true));

    let available = w.limiter.check("k", "r").needed("tpm", 10).await.unwrap();
    let form = to_value(&available).unwrap();
    assert_eq!(form["checked_at"], "2027-01-15T08:00:00Z");
    assert_eq!(from_value::<Availability>(form).unwrap(), available);

    let capacity = w
        .repo
        .admin()
        .resource_capacity("r", "tpm", CapacityOf::Everybody);
    check(
        &capacity.await.unwrap(),
        &json!({
            "resource": "r", "limit_name": "tpm",
            "entities": [{ "entity_id": "k", "capacity": 1000, "available": 0 }],
        }),
    );
}

#[test]
fn usage() {
    let snapshot = UsageSnapshot {
        entity: "u".into(),
        resource: "gpt-4".into(),
        window: "hourly".into(),
        window_start: instant(1_768_438_800),
        total_events: 3,
        counters: [("rpm".to_owned(), 5), ("tpm".to_owned(), -7)].into(),
        overdrawn: [].into(),
    };
    let form = json!({
        "entity_id": "u", "resource": "gpt-4", "window": "hourly", "window_start": "2026-01-15T01:00:00Z",
        "total_events": 3, "counters": { "rpm": 5, "tpm": -7 },
    });
    check(&snapshot, &form);
    let mut bad = form;
    bad["window_start"] = json!("soon");
    assert!(from_value::<UsageSnapshot>(bad).is_err());

    let mut summary = UsageSummary::default();
    let nothing = json!({ "window": null, "other_windows": [], "snapshots": 0, "limits": {}, "first_window_start": null, "last_window_start": null });
    check(&summary, &nothing);
    summary.add(&snapshot);
    let form = json!({
        "window": "hourly", "other_windows": [], "snapshots": 1,
        "limits": { "rpm": { "total": 5, "snapshots": 1 }, "tpm": { "total": -7, "snapshots": 1 } },
        "first_window_start": "2026-01-15T01:00:00Z", "last_window_start": "2026-01-15T01:00:00Z",
    });
    check(&summary, &form);
}

#[tokio::test]
async fn entities_and_audit_events() {
    let w = World::new().await;
    let new = NewEntity::new("key")
        .parent("proj")
        .cascade(true)
        .metadata("tier", "gold");
    let entity = w.repo.admin().create_entity(new).await.unwrap();
    check(
        &entity,
        &json!({
            "entity_id": "key", "name": "key", "parent_id": "proj", "cascade": true,
            "metadata": { "tier": "gold" }, "created_at": "2027-01-15T08:00:00Z",
        }),
    );
    refused::<Entity>(json!({ "entity_id": "a#b" }), "invalid entity_id 'a#b'");

    let events = w
        .repo
        .admin()
        .audit_events("key", None)
        .unwrap()
        .all()
        .await
        .unwrap();
    let form = to_value(&events[0]).unwrap();
    assert_eq!(
        (&form["entity_id"], &form["action"]),
        (&json!("key"), &json!("entity_created"))
    );
    assert_eq!(from_value::<AuditEvent>(form).unwrap(), events[0]);
}

#[test]
fn details_are_plain_json() {
    let details = [
        ("text".to_owned(), Value::text("x")),
        ("int".to_owned(), Value::int(-5)),
        ("large".to_owned(), Value::int(u64::MAX)),
        ("half".to_owned(), Value::N("0.5".into())),
        ("yes".to_owned(), Value::Bool(true)),
        ("nothing".to_owned(), Value::Null),
        (
            "list".to_owned(),
            Value::L(vec![Value::int(1), Value::M([].into())]),
        ),
    ];
    let event = AuditEvent {
        id: "01M7ZT4WJXXM3NYR6V7H64WNW5".into(),
        subject: "$SYSTEM".into(),
        action: "limits_set".into(),
        principal: None,
        resource: None,
        details: details.into(),
        timestamp: None,
    };
    check(
        &event,
        &json!({
            "event_id": "01M7ZT4WJXXM3NYR6V7H64WNW5", "entity_id": "$SYSTEM", "action": "limits_set",
            "principal": null, "resource": null, "timestamp": null,
            "details": {
                "text": "x", "int": -5, "large": u64::MAX, "half": 0.5, "yes": true, "nothing": null, "list": [1, {}],
            },
        }),
    );
    let form = |value: Value| to_value(&value).unwrap();
    assert_eq!(form(Value::int(i128::MAX)), json!(i128::MAX.to_string()));
    assert_eq!(form(Value::Ss(["a".to_owned()].into())), json!(["a"]));
    assert_eq!(form(Value::Other), Json::Null);
}
