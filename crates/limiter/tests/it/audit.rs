//! The audit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use zae_limiter::table::TableExt as _;
use zae_limiter::{ALL_RESOURCES, AuditEvent, Error, Limit, NewEntity, OnUnavailable, Repository};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::schema::{audit_key, audit_pk, system_config_key};
use zae_limiter_core::table::{Index, Op, Query, Value};

use crate::admin::{Admin, rpm};
use crate::world::{Fault, START};

async fn events(repo: &Repository, subject: &str) -> Vec<AuditEvent> {
    repo.admin()
        .audit_events(subject, None)
        .unwrap()
        .all()
        .await
        .unwrap()
}

/// Some changes of one entity, a second apart: limits of 1, 2, ... a minute.
async fn changes(a: &Admin, count: u64) {
    for rate in 1..=count {
        a.repo
            .admin()
            .set_entity_limits("k", "gpt-4", rpm(rate))
            .await
            .unwrap();
        a.clock.advance(Duration::from_secs(1));
    }
}

fn rate(event: &AuditEvent) -> i128 {
    let Some(Value::L(limits)) = event.details.get("limits") else {
        panic!("{event:?}")
    };
    let Value::M(limit) = &limits[0] else {
        panic!("{event:?}")
    };
    limit["capacity"].as_int().unwrap()
}

#[tokio::test]
async fn each_subject_has_its_changes_and_no_others() {
    let a = Admin::new().await;
    let (repo, text) = (&a.repo, |text: &str| Value::text(text));
    repo.admin()
        .create_entity(
            NewEntity::new("k")
                .name("Key")
                .parent("proj")
                .metadata("tier", "gold"),
        )
        .await
        .unwrap();
    a.clock.advance(Duration::from_secs(1));
    repo.admin()
        .set_entity_limits("k", ALL_RESOURCES, rpm(1))
        .await
        .unwrap();
    a.clock.advance(Duration::from_secs(1));
    repo.admin()
        .delete_entity_limits("k", ALL_RESOURCES)
        .await
        .unwrap();
    let two = [Limit::per_minute("rpm", 5).burst(7), Limit::per_day("tpm", 9)];
    repo.admin().set_resource_defaults("gpt-4", two).await.unwrap();
    repo.admin()
        .set_resource_defaults("gpt-4o", rpm(1))
        .await
        .unwrap();
    repo.admin()
        .set_system_defaults(rpm(3), Some(OnUnavailable::Allow))
        .await
        .unwrap();
    a.clock.advance(Duration::from_secs(1));
    repo.admin().delete_system_defaults().await.unwrap();

    let of = |events: Vec<AuditEvent>| -> Vec<_> {
        let part = |event: AuditEvent| (event.action, event.resource, event.timestamp);
        events.into_iter().map(part).collect()
    };
    let all = Some(ALL_RESOURCES.to_owned());
    let at = |second: u64| Some(SystemTime::from(EpochMillis(START)) + Duration::from_secs(second));
    assert_eq!(
        of(events(repo, "k").await),
        [
            ("limits_deleted".into(), all.clone(), at(2)),
            ("limits_set".into(), all, at(1)),
            ("entity_created".into(), None, at(0)),
        ]
    );
    let created = &events(repo, "k").await[2];
    assert_eq!((created.subject.as_str(), &created.principal), ("k", &None));
    assert_eq!(created.details["name"], text("Key"));
    assert_eq!(created.details["parent_id"], text("proj"));
    assert_eq!(created.details["cascade"], Value::Bool(false));
    let metadata = Value::M([("tier".to_owned(), text("gold"))].into());
    assert_eq!(created.details["metadata"], metadata);

    let resource = events(repo, "$RESOURCE:gpt-4").await;
    assert_eq!(resource.len(), 1, "another resource's log is another one");
    assert_eq!(resource[0].resource.as_deref(), Some("gpt-4"));
    let limit = |name, capacity: i64, amount: i64, period: i64| {
        Value::M(
            [
                ("name".to_owned(), text(name)),
                ("capacity".to_owned(), Value::int(capacity)),
                ("refill_amount".to_owned(), Value::int(amount)),
                ("refill_period_seconds".to_owned(), Value::int(period)),
            ]
            .into(),
        )
    };
    let expected = Value::L(vec![limit("rpm", 7, 5, 60), limit("tpm", 9, 9, 86_400)]);
    assert_eq!(resource[0].details["limits"], expected);

    let system = events(repo, "$SYSTEM").await;
    assert_eq!(system[0].details["limits"], Value::L(vec![text("rpm")]));
    assert_eq!(system[1].details["on_unavailable"], text("allow"));
    assert!(events(repo, "nobody").await.is_empty());
}

#[tokio::test]
async fn an_event_is_stored_as_all_clients_read_it() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .set_resource_defaults("gpt-4", rpm(5))
        .await
        .unwrap();
    let ns = a.repo.namespace_id();
    let event = &events(&a.repo, "$RESOURCE:gpt-4").await[0];
    let key = audit_key(ns, "$RESOURCE:gpt-4", &event.id);
    assert_eq!(key.pk, format!("{ns}/AUDIT#$RESOURCE:gpt-4"));
    let item = a.item(key.clone()).await.unwrap();
    for (attr, value) in [
        ("event_id", Value::text(&event.id)),
        ("entity_id", Value::text("$RESOURCE:gpt-4")),
        ("timestamp", Value::text("2027-01-15T08:00:00Z")),
        ("action", Value::text("limits_set")),
        ("principal", Value::Null),
        ("resource", Value::text("gpt-4")),
        ("ttl", Value::int(START / 1000 + 90 * 86_400)),
        ("GSI4PK", Value::text(ns.as_str())),
        ("GSI4SK", Value::text(&key.pk)),
    ] {
        assert_eq!(item[attr], value, "{attr}");
    }
    assert_eq!(event.id.len(), 26);
}

#[tokio::test]
async fn the_newest_come_first_page_by_page_and_before_an_event() {
    let a = Admin::new().await;
    changes(&a, 7).await;
    let all = events(&a.repo, "k").await;
    assert_eq!(all.iter().map(rate).collect::<Vec<_>>(), [7, 6, 5, 4, 3, 2, 1]);
    let mut pages = a.repo.admin().audit_events("k", None).unwrap().page_size(3);
    for expected in [&all[..3], &all[3..6], &all[6..]] {
        assert_eq!(pages.next_page().await.unwrap().as_deref(), Some(expected));
    }
    // The event itself is not among those before it.
    for (n, event) in all.iter().enumerate() {
        let before = a.repo.admin().audit_events("k", Some(&event.id)).unwrap();
        assert_eq!(before.page_size(2).all().await.unwrap(), all[n + 1..]);
    }
    // Ids are upper case, in whatever case they are asked for.
    let lower = all[3].id.to_lowercase();
    let before = a
        .repo
        .admin()
        .audit_events("k", Some(&lower))
        .unwrap()
        .all()
        .await
        .unwrap();
    assert_eq!(before, all[4..]);
}

/// On a fast table, several changes fall into one millisecond.
#[tokio::test]
async fn changes_within_one_millisecond_keep_their_order() {
    let a = Admin::new().await;
    for rate in 1..=12 {
        a.repo
            .admin()
            .set_entity_limits("k", "gpt-4", rpm(rate))
            .await
            .unwrap();
    }
    let rates: Vec<_> = events(&a.repo, "k").await.iter().map(rate).collect();
    assert_eq!(rates, (1..=12).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn subjects_and_event_ids_that_cannot_be_are_refused_by_field() {
    let a = Admin::new().await;
    let field = |subject: &str, before: Option<&str>| match a.repo.admin().audit_events(subject, before) {
        Err(Error::InvalidInput(input)) => (input.field().to_owned(), input.value().to_owned()),
        other => panic!("{other:?}"),
    };
    let pair = |field: &str, value: &str| (field.to_owned(), value.to_owned());
    for subject in ["", "a#b", "$system", "$RESOURCES:x", "$"] {
        assert_eq!(field(subject, None), pair("entity_id", subject));
    }
    for resource in ["", "9", "a#b"] {
        assert_eq!(
            field(&format!("$RESOURCE:{resource}"), None),
            pair("resource", resource)
        );
    }
    for id in ["", "x", "01M7ZT4WJXXM3NYR6V7H64WNW", "01M7ZT4WJXXM3NYR6V7H64WNW!"] {
        assert_eq!(field("k", Some(id)), pair("start_event_id", id));
    }
}

#[tokio::test]
async fn the_builder_says_who_made_a_change() {
    let a = Admin::new().await;
    for principal in ["ops@example.com", "arn:aws:iam::123456789012:role/Ops+Admin"] {
        let named = |builder: zae_limiter::RepositoryBuilder| builder.principal(principal);
        let repo = a.over(a.repo.table(), named).await;
        a.clock.advance(Duration::from_secs(1));
        repo.admin().set_resource_defaults("gpt-4", rpm(5)).await.unwrap();
        let event = &events(&a.repo, "$RESOURCE:gpt-4").await[0];
        assert_eq!(event.principal.as_deref(), Some(principal));
        // A namespace opened from it has the same.
        let other = repo.stack_handle().open("other").await.unwrap();
        other.admin().set_system_defaults(rpm(5), None).await.unwrap();
        assert_eq!(
            events(&other, "$SYSTEM").await[0].principal.as_deref(),
            Some(principal)
        );
    }
    let bad = Repository::builder()
        .in_memory()
        .principal("no#body")
        .open()
        .await;
    assert!(matches!(bad, Err(Error::InvalidInput(input)) if input.field() == "principal"));
}

#[tokio::test]
async fn events_are_kept_as_long_as_the_namespace_says() {
    let a = Admin::new().await;
    let key = system_config_key(a.repo.namespace_id());
    for (days, kept) in [(7, 7), (400, 400), (0, 90), (-1, 90)] {
        a.write(&key.pk, &key.sk, [("audit_retention_days", Value::int(days))])
            .await;
        a.clock.advance(Duration::from_secs(1));
        a.repo
            .admin()
            .set_entity_limits("k", "gpt-4", rpm(5))
            .await
            .unwrap();
        let event = &events(&a.repo, "k").await[0];
        let item = a
            .item(audit_key(a.repo.namespace_id(), "k", &event.id))
            .await
            .unwrap();
        let now = EpochMillis::from(zae_limiter::clock::Clock::now(&a.clock)).secs();
        assert_eq!(item["ttl"], Value::int(now + kept * 86_400), "{days} days");
    }
    // Setting limits keeps the retention.
    a.write(&key.pk, &key.sk, [("audit_retention_days", Value::int(7))])
        .await;
    a.repo.admin().set_system_defaults(rpm(5), None).await.unwrap();
    assert_eq!(a.item(key).await.unwrap()["audit_retention_days"], Value::int(7));
}

#[tokio::test]
async fn damaged_events_do_not_hide_others() {
    let a = Admin::new().await;
    changes(&a, 2).await;
    let good = events(&a.repo, "k").await;
    let pk = audit_pk(a.repo.namespace_id(), "k");
    a.write(&pk, "#AUDIT#00000000000000000000000000", []).await;
    let wrong = [
        ("event_id", Value::int(1)),
        ("action", Value::Null),
        ("details", Value::text("none")),
        ("timestamp", Value::Bool(true)),
        ("principal", Value::L(vec![])),
    ];
    a.write(&pk, "#AUDIT#7ZZZZZZZZZZZZZZZZZZZZZZZZZ", wrong).await;
    let foreign = [("action", Value::text("bucket_reset")), ("x", Value::int(1))];
    a.write(&pk, "#AUDIT#not-an-ulid", foreign).await;
    let read = events(&a.repo, "k").await;
    let kept: Vec<_> = read.iter().filter(|event| good.contains(event)).collect();
    assert_eq!(kept.len(), 2);
    let ids: Vec<_> = read.iter().map(|event| event.id.as_str()).collect();
    let (first, last) = ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "00000000000000000000000000");
    assert_eq!(ids, ["not-an-ulid", first, &good[0].id, &good[1].id, last]);
    assert_eq!(
        (read[0].action.as_str(), read[1].action.as_str()),
        ("bucket_reset", "")
    );
    assert!(read.iter().all(|event| event.subject == "k"));
}

/// Whether it was written or not, and however often its answer was lost.
#[tokio::test]
async fn an_event_whose_answer_was_lost_is_logged_once() {
    let a = Admin::new().await;
    let plan = [
        Fault::LostAfter,
        Fault::Throttled,
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::None,
    ];
    let puts = Arc::new(AtomicI64::new(0));
    let count = Arc::clone(&puts);
    let lossy = a.ruled(move |op| match op {
        Op::Put(_) => plan[count.fetch_add(1, Ordering::SeqCst) as usize % plan.len()],
        _ => Fault::None,
    });
    let lossy = lossy.await;
    puts.store(0, Ordering::SeqCst);
    lossy
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(5))
        .await
        .unwrap();
    assert_eq!(puts.load(Ordering::SeqCst), 5, "it was sent five times");
    assert!(lossy.admin().delete_entity_limits("k", "gpt-4").await.unwrap());
    assert_eq!(
        lossy.admin().set_entity_limits("k", "gpt-4", rpm(6)).await.ok(),
        Some(())
    );
    let query = Query::new(Index::Primary, audit_pk(a.repo.namespace_id(), "k"));
    assert_eq!(a.repo.table().query_all(query).await.unwrap().len(), 3);
}
