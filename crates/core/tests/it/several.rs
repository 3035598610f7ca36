//! Several resources in one acquire: all or nothing.

use std::collections::BTreeMap;

use zae_limiter_core::acquire::{Acquire, AcquireError, Decision, DisabledAt, Request};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Applied, FailureKind, Op, TableError, Value};
use zae_limiter_core::{EntityId, EpochMillis, LimitName, Millitokens, RateLimitExceeded, ResourceName};

use crate::drive::{Desk, per_minute};

/// A resource with one limit, stored for all entities.
fn configure(desk: &mut Desk, resource: &str, limit: &str, rate: i64) {
    let was = std::mem::replace(&mut desk.resource, ResourceName::new(resource).unwrap());
    desk.configure_resource(&[per_minute(limit, rate)]);
    desk.resource = was;
}

/// A model and a budget.
fn desk() -> Desk {
    let mut desk = Desk::new();
    configure(&mut desk, "gpt-4", "rpm", 100);
    configure(&mut desk, "budget", "usd", 10);
    desk
}

fn request(desk: &Desk, entity: &str, parts: &[(&str, &str, i64)]) -> Request {
    let part = |(resource, limit, tokens): &(&str, &str, i64)| {
        let amounts = vec![(LimitName::new(limit).unwrap(), Millitokens::from_tokens(*tokens))];
        (ResourceName::new(resource).unwrap(), amounts)
    };
    let mut also: Vec<_> = parts.iter().map(part).collect();
    let (resource, consume) = also.remove(0);
    Request {
        id: BucketId {
            resource,
            ..desk.id(entity)
        },
        consume,
        also,
        ..desk.request(entity, &[])
    }
}

fn acquire(desk: &mut Desk, entity: &str, parts: &[(&str, &str, i64)]) -> Decision {
    let mut acquire = Acquire::new(request(desk, entity, parts));
    desk.drive(&mut acquire)
}

fn id(desk: &Desk, entity: &str, resource: &str) -> BucketId {
    BucketId {
        resource: ResourceName::new(resource).unwrap(),
        ..desk.id(entity)
    }
}

/// Whole tokens of a limit in a bucket.
fn left(desk: &Desk, entity: &str, resource: &str, limit: &str) -> i128 {
    let item = desk
        .table
        .get(&id(desk, entity, resource).key(0))
        .expect("the bucket exists");
    item[format!("b_{limit}_tk").as_str()].as_int().unwrap() / 1000
}

/// Whole tokens taken, by entity and resource.
#[track_caller]
fn taken(decision: &Decision) -> BTreeMap<(String, String), i64> {
    let Decision::Admitted(grants) = decision else {
        panic!("{decision:?}");
    };
    let mut taken = BTreeMap::new();
    for grant in grants {
        let key = (grant.id.entity.to_string(), grant.id.resource.to_string());
        let sum: i64 = grant
            .amounts
            .iter()
            .map(|(_, amount)| amount.floor_tokens())
            .sum();
        *taken.entry(key).or_default() += sum;
    }
    taken
}

#[track_caller]
fn refused(decision: Decision) -> RateLimitExceeded {
    match decision {
        Decision::Rejected(why) => why,
        other => panic!("{other:?}"),
    }
}

fn key(entity: &str, resource: &str) -> (String, String) {
    (entity.to_owned(), resource.to_owned())
}

/// Whether an operation is a write of a bucket of this resource.
fn writes(op: &Op, resource: &str) -> bool {
    let Op::Update(update) = op else {
        return false;
    };
    BucketId::parse(&update.key).is_some_and(|(id, _)| id.resource.as_str() == resource)
}

const BOTH: [(&str, &str, i64); 2] = [("gpt-4", "rpm", 1), ("budget", "usd", 4)];

#[test]
fn all_resources_are_taken_with_one_write_each_and_no_read() {
    let mut desk = desk();
    desk.remembers = true;
    let first = acquire(&mut desk, "k", &BOTH);
    assert_eq!(
        taken(&first),
        BTreeMap::from([(key("k", "budget"), 4), (key("k", "gpt-4"), 1)])
    );
    let warm = acquire(&mut desk, "k", &BOTH);
    assert_eq!(taken(&warm).len(), 2);
    assert_eq!((desk.ops.len(), desk.configs_read), (2, 0));
    assert_eq!(
        (
            left(&desk, "k", "gpt-4", "rpm"),
            left(&desk, "k", "budget", "usd")
        ),
        (98, 2)
    );
}

#[test]
fn debits_of_warm_resources_leave_at_the_same_time() {
    let mut desk = desk();
    configure(&mut desk, "gpu", "sec", 50);
    desk.remembers = true;
    let three = [("gpt-4", "rpm", 1), ("budget", "usd", 1), ("gpu", "sec", 2)];
    acquire(&mut desk, "k", &three);
    let found: Vec<_> = ["gpt-4", "budget", "gpu"]
        .map(|resource| {
            let resource = ResourceName::new(resource).unwrap();
            let found = desk
                .config_for(&EntityId::new("k").unwrap(), &resource, false)
                .unwrap();
            (resource, found)
        })
        .into();
    let known = |_: &EntityId, resource: &ResourceName| {
        let (_, found) = found.iter().find(|(of, _)| of == resource)?;
        Some(found.clone())
    };
    let mut acquire = Acquire::new(request(&desk, "k", &three));
    let calls = acquire.start(&known, EpochMillis(desk.now), &mut desk.dice);
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls.iter().all(|call| call.delay_ms == 0));
}

#[test]
fn the_first_resource_is_given_back_exactly_where_the_second_refuses() {
    let mut desk = desk();
    assert_eq!(taken(&acquire(&mut desk, "k", &BOTH)).len(), 2);
    let why = refused(acquire(
        &mut desk,
        "k",
        &[("gpt-4", "rpm", 7), ("budget", "usd", 8)],
    ));
    let named: Vec<_> = why
        .statuses()
        .iter()
        .map(|status| (status.resource.as_str(), status.exceeded))
        .collect();
    assert_eq!(named, [("gpt-4", false), ("budget", true)]);
    assert_eq!(
        (
            left(&desk, "k", "gpt-4", "rpm"),
            left(&desk, "k", "budget", "usd")
        ),
        (99, 6)
    );
}

#[test]
fn the_wait_covers_all_resources() {
    let mut desk = desk();
    acquire(&mut desk, "k", &[("gpt-4", "rpm", 100), ("budget", "usd", 10)]);
    // 10 of 100 in a minute come in 6 s, 5 of 10 in 30 s.
    let why = refused(acquire(
        &mut desk,
        "k",
        &[("gpt-4", "rpm", 10), ("budget", "usd", 5)],
    ));
    let wait = why.retry_after().unwrap().as_millis() as i64;
    assert_eq!(why.violations().count(), 2);
    assert!((30_000..30_010).contains(&wait), "{wait}");
    desk.now += wait - 20;
    refused(acquire(
        &mut desk,
        "k",
        &[("gpt-4", "rpm", 10), ("budget", "usd", 5)],
    ));
    desk.now += 20;
    assert_eq!(
        taken(&acquire(
            &mut desk,
            "k",
            &[("gpt-4", "rpm", 10), ("budget", "usd", 5)]
        ))
        .len(),
        2
    );
}

#[test]
fn each_resource_has_the_bucket_of_the_parent_debited_too() {
    let mut desk = desk();
    desk.entity("child", Some("parent"), true);
    let decision = acquire(&mut desk, "child", &BOTH);
    let all = [
        ("child", "gpt-4", 1),
        ("child", "budget", 4),
        ("parent", "gpt-4", 1),
        ("parent", "budget", 4),
    ];
    let all = all.map(|(entity, resource, amount)| (key(entity, resource), amount));
    assert_eq!(taken(&decision), BTreeMap::from(all));
    // The parent's budget is used up by another child.
    desk.entity("other", Some("parent"), true);
    taken(&acquire(
        &mut desk,
        "other",
        &[("gpt-4", "rpm", 1), ("budget", "usd", 5)],
    ));
    let why = refused(acquire(&mut desk, "child", &BOTH));
    let worst = why.worst().unwrap();
    assert_eq!(
        (worst.entity.as_str(), worst.resource.as_str()),
        ("parent", "budget")
    );
    assert_eq!(why.statuses().len(), 4);
    assert_eq!(
        (
            left(&desk, "child", "gpt-4", "rpm"),
            left(&desk, "child", "budget", "usd")
        ),
        (99, 6)
    );
    assert_eq!(
        (
            left(&desk, "parent", "gpt-4", "rpm"),
            left(&desk, "parent", "budget", "usd")
        ),
        (98, 1)
    );
}

#[test]
fn a_new_parent_is_found_out_for_each_resource() {
    let mut desk = desk();
    desk.remembers = true;
    desk.entity("child", Some("old"), true);
    taken(&acquire(&mut desk, "child", &BOTH));
    // This process goes on with what it knows; the items say otherwise.
    desk.forget_images();
    for resource in ["gpt-4", "budget"] {
        let mut item = desk
            .table
            .get(&id(&desk, "child", resource).key(0))
            .unwrap()
            .clone();
        item.insert("parent_id".into(), Value::text("new"));
        item.insert("pgen".into(), Value::int(8));
        desk.table.insert(item).unwrap();
    }
    let decision = acquire(&mut desk, "child", &BOTH);
    let all = [
        ("child", "gpt-4", 1),
        ("child", "budget", 4),
        ("new", "gpt-4", 1),
        ("new", "budget", 4),
    ];
    assert_eq!(
        taken(&decision),
        BTreeMap::from(all.map(|(e, r, amount)| (key(e, r), amount)))
    );
    assert_eq!(
        (
            left(&desk, "old", "gpt-4", "rpm"),
            left(&desk, "old", "budget", "usd")
        ),
        (99, 6)
    );
}

#[test]
fn a_disabled_resource_goes_before_a_refusal() {
    let mut desk = desk();
    taken(&acquire(&mut desk, "k", &BOTH));
    let mut item = desk.table.get(&id(&desk, "k", "budget").key(0)).unwrap().clone();
    item.insert("disabled".into(), Value::Bool(true));
    desk.table.insert(item).unwrap();
    let decision = acquire(&mut desk, "k", &[("gpt-4", "rpm", 200), ("budget", "usd", 1)]);
    match decision {
        Decision::Disabled { bucket, at } => {
            assert_eq!((bucket, at), (id(&desk, "k", "budget"), DisabledAt::Bucket));
        }
        other => panic!("{other:?}"),
    }
    let decision = acquire(&mut desk, "k", &[("gpt-4", "rpm", 5), ("budget", "usd", 1)]);
    assert!(matches!(decision, Decision::Disabled { .. }), "{decision:?}");
    assert_eq!(
        left(&desk, "k", "gpt-4", "rpm"),
        99,
        "what was taken of the other one is given back"
    );
}

#[test]
fn what_is_not_configured_is_an_error_before_anything_is_taken() {
    for parts in [
        [("gpt-4", "rpm", 1), ("unknown", "usd", 1)],
        [("unknown", "usd", 1), ("gpt-4", "rpm", 1)],
        [("gpt-4", "rpm", 1), ("budget", "eur", 1)],
    ] {
        let mut desk = desk();
        let decision = acquire(&mut desk, "k", &parts);
        let is_right = match &decision {
            Decision::Failed(AcquireError::NotConfigured { resource, .. }) => resource == "unknown",
            Decision::Failed(AcquireError::Input(err)) => err.field() == "also.budget.eur",
            _ => false,
        };
        assert!(is_right, "{parts:?}: {decision:?}");
        assert!(desk.ops.is_empty());
    }
}

/// Fails the writes of a resource in this way.
fn fail_writes(desk: &mut Desk, resource: &'static str, kind: FailureKind, applied: Applied) {
    let before = desk.meddle.take();
    let mut before = before.unwrap_or_else(|| Box::new(|_, _: &Op, _: &mut _| None));
    desk.meddle = Some(Box::new(move |number, op, table| {
        if writes(op, resource) {
            return Some(Err(TableError::new(kind, applied, "as the test wants it")));
        }
        before(number, op, table)
    }));
}

#[test]
fn the_outage_of_one_resource_gives_the_other_back() {
    let mut desk = desk();
    taken(&acquire(&mut desk, "k", &BOTH));
    fail_writes(&mut desk, "budget", FailureKind::Internal, Applied::Unknown);
    let decision = acquire(&mut desk, "k", &BOTH);
    assert!(
        matches!(&decision, Decision::Failed(AcquireError::Table(err)) if err.applied == Applied::Unknown),
        "{decision:?}"
    );
    assert_eq!(left(&desk, "k", "gpt-4", "rpm"), 99);
}

#[test]
fn failures_have_an_order_and_a_doubt_is_not_lost() {
    let cases = [
        // What the writes of each resource come to, and the failure of the call.
        (
            (FailureKind::BadRequest, Applied::No),
            (FailureKind::AccessDenied, Applied::No),
            (FailureKind::AccessDenied, Applied::No),
        ),
        (
            (FailureKind::AccessDenied, Applied::No),
            (FailureKind::Internal, Applied::Unknown),
            (FailureKind::AccessDenied, Applied::Unknown),
        ),
        (
            (FailureKind::Timeout, Applied::No),
            (FailureKind::Timeout, Applied::Unknown),
            (FailureKind::Timeout, Applied::Unknown),
        ),
        (
            (FailureKind::Timeout, Applied::Unknown),
            (FailureKind::BadRequest, Applied::No),
            (FailureKind::BadRequest, Applied::Unknown),
        ),
    ];
    for (first, second, expected) in cases {
        let mut desk = desk();
        taken(&acquire(&mut desk, "k", &BOTH));
        fail_writes(&mut desk, "gpt-4", first.0, first.1);
        fail_writes(&mut desk, "budget", second.0, second.1);
        let decision = acquire(&mut desk, "k", &BOTH);
        match decision {
            Decision::Failed(AcquireError::Table(err)) => assert_eq!((err.kind, err.applied), expected),
            other => panic!("{first:?} {second:?}: {other:?}"),
        }
    }
}

#[test]
fn a_refusal_goes_before_a_failure() {
    let mut desk = desk();
    taken(&acquire(&mut desk, "k", &BOTH));
    fail_writes(&mut desk, "gpt-4", FailureKind::AccessDenied, Applied::No);
    let why = refused(acquire(
        &mut desk,
        "k",
        &[("gpt-4", "rpm", 1), ("budget", "usd", 9)],
    ));
    assert_eq!(why.worst().unwrap().resource, "budget");
}

#[test]
fn a_call_that_is_given_up_at_any_point_keeps_nothing() {
    for give_up_at in 0..12 {
        let mut desk = desk();
        desk.entity("child", Some("parent"), true);
        taken(&acquire(&mut desk, "child", &BOTH));
        let mut machine = Acquire::new(request(&desk, "child", &BOTH));
        let now = EpochMillis(desk.now);
        let mut calls = machine.start(&|_, _| None, now, &mut desk.dice);
        let mut answered = 0;
        while !calls.is_empty() {
            if answered == give_up_at {
                machine.abandon();
            }
            let call = calls.remove(0);
            let reply = desk.reply(call.ask);
            calls.extend(machine.answer(call.id, reply, now, &mut desk.dice));
            answered += 1;
        }
        if answered <= give_up_at {
            assert!(matches!(machine.decision(), Some(Decision::Admitted(grants)) if grants.len() == 4));
            assert!(answered >= 8, "four configurations and four debits");
            return;
        }
        let decision = machine.decision().cloned();
        assert!(
            matches!(decision, Some(Decision::Failed(AcquireError::Abandoned))),
            "{give_up_at}: {decision:?}"
        );
        for entity in ["child", "parent"] {
            let both = (
                left(&desk, entity, "gpt-4", "rpm"),
                left(&desk, entity, "budget", "usd"),
            );
            assert_eq!(both, (99, 6), "{entity}, given up at {give_up_at}");
        }
    }
    panic!("it never came to the end");
}

#[test]
fn what_is_remembered_of_all_refuses_without_a_request() {
    let mut desk = desk();
    desk.remembers = true;
    taken(&acquire(
        &mut desk,
        "k",
        &[("gpt-4", "rpm", 1), ("budget", "usd", 10)],
    ));
    let parts = [("gpt-4", "rpm", 1), ("budget", "usd", 5)];
    let why = refused(acquire(&mut desk, "k", &parts));
    assert!(desk.ops.is_empty());
    assert_eq!(why.statuses().len(), 2);
    let wait = why.retry_after().unwrap();
    desk.forget_images();
    let again = refused(acquire(&mut desk, "k", &parts));
    assert_eq!(again.retry_after().unwrap(), wait, "as the table says it");
    // Without an image of one of them, the wait would not cover it.
    configure(&mut desk, "other", "n", 5);
    refused(acquire(
        &mut desk,
        "k",
        &[("budget", "usd", 5), ("other", "n", 1)],
    ));
    assert!(!desk.ops.is_empty());
}

#[test]
fn sixteen_resources_are_taken_or_given_back_together() {
    let mut desk = Desk::new();
    let names: Vec<String> = (0..16).map(|n| format!("resource-{n}")).collect();
    for name in &names {
        configure(&mut desk, name, "n", 10);
    }
    let mut parts: Vec<_> = names.iter().map(|name| (name.as_str(), "n", 2)).collect();
    assert_eq!(taken(&acquire(&mut desk, "k", &parts)).len(), 16);
    parts[15].2 = 9;
    assert_eq!(refused(acquire(&mut desk, "k", &parts)).statuses().len(), 16);
    for name in &names {
        assert_eq!(left(&desk, "k", name, "n"), 8, "{name}");
    }
}
