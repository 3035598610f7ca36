//! What changes on a live bucket: limits, flags, the entity's parent, and time itself.

use std::time::Duration;

use zae_limiter_core::acquire::{Acquire, AcquireError, Ask, Decision, DisabledAt, Reply};
use zae_limiter_core::config::Resolved;
use zae_limiter_core::sync::{Drift, reconcile};
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Value};
use zae_limiter_core::{Bucket, EpochMillis, Level, Limit, RecordError};

use crate::drive::{Desk, per_minute, per_second};

#[test]
fn limits_given_with_the_call_replace_the_stored_ones() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.limits = Some(vec![per_minute("rpm", 5)]);
    desk.admitted("u", &[("rpm", 3)]);
    assert_eq!(desk.int("u", 0, "b_rpm_cp"), 5000);
    desk.rejected("u", &[("rpm", 3)]);
    desk.limits = Some(vec![per_minute("rpm", 50)]);
    let why = desk.rejected("u", &[("rpm", 3)]);
    assert_eq!(
        why.worst().unwrap().capacity,
        50,
        "a raised capacity gives no tokens at once"
    );
    desk.now += 1200;
    desk.admitted("u", &[("rpm", 3)]);
    assert_eq!(desk.int("u", 0, "b_rpm_cp"), 50_000);
}

#[test]
fn a_lower_override_cuts_the_balance() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    desk.limits = Some(vec![per_minute("rpm", 5)]);
    desk.admitted("u", &[("rpm", 3)]);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 2000);
}

#[test]
fn an_override_needs_no_configuration_and_never_rejects_from_memory() {
    let mut desk = Desk::new();
    desk.remembers = true;
    desk.limits = Some(vec![per_minute("rpm", 5)]);
    desk.admitted("u", &[("rpm", 5)]);
    desk.rejected("u", &[("rpm", 1)]);
    desk.rejected("u", &[("rpm", 1)]);
    assert_eq!(desk.ops.len(), 1);
}

#[test]
fn a_limit_added_later_is_seeded_full_on_its_first_use() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    desk.configure_resource(&[per_minute("rpm", 100), per_minute("tpm", 1000)]);
    desk.admitted("u", &[("rpm", 1)]);
    assert!(!desk.item("u", 0).contains_key("b_tpm_tk"));
    desk.admitted("u", &[("rpm", 1), ("tpm", 10)]);
    assert_eq!(desk.int("u", 0, "b_tpm_tk"), 990_000);
    assert_eq!(desk.item("u", 0)["b_tpm_sched"], Value::text("-"));
    desk.rejected("u", &[("tpm", 991)]);
    desk.admitted("u", &[("tpm", 990)]);
}

#[test]
fn a_stub_left_by_an_old_client_is_replaced_when_its_limit_is_seeded() {
    let mut desk = Desk::with(&[per_minute("rpm", 100), per_minute("tpm", 1000)]);
    desk.configure_resource(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke(
        "u",
        0,
        &[("b_tpm_tk", Value::int(-5)), ("b_tpm_tc", Value::int(5))],
    );
    desk.configure_resource(&[per_minute("rpm", 100), per_minute("tpm", 1000)]);
    desk.admitted("u", &[("tpm", 10)]);
    assert_eq!(desk.int("u", 0, "b_tpm_tk"), 990_000);
}

#[test]
fn a_disabled_entity_gets_no_bucket() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.remembers = true;
    desk.configure_entity("u", &[per_minute("rpm", 100)]);
    let key = desk.entity_config_key("u");
    let mut item = desk.table.get(&key).unwrap().clone();
    item.insert("disabled".into(), Value::Bool(true));
    desk.table.insert(item).unwrap();
    let Decision::Disabled { bucket, at } = desk.acquire("u", &[("rpm", 1)]) else {
        panic!("not disabled");
    };
    assert_eq!(
        (bucket.entity.as_str(), at),
        ("u", DisabledAt::Config(Level::Entity))
    );
    assert!(desk.table.get(&desk.id("u").key(0)).is_none());
}

#[test]
fn a_disabled_bucket_refuses_and_what_the_parent_gave_is_returned() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("parent"), true);
    desk.admitted("child", &[("rpm", 1)]);
    desk.poke("child", 0, &[("disabled", Value::Bool(true))]);
    let Decision::Disabled { bucket, at } = desk.acquire("child", &[("rpm", 1)]) else {
        panic!("not disabled");
    };
    assert_eq!((bucket.entity.as_str(), at), ("child", DisabledAt::Bucket));
    assert_eq!(desk.int("parent", 0, "b_rpm_tc"), 1000);
}

#[test]
fn a_forced_pass_cuts_the_surplus_before_anybody_spends() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke(
        "u",
        0,
        &[
            ("b_rpm_cp", Value::int(20_000)),
            ("b_rpm_ra", Value::int(20_000)),
            ("vu", Value::int(0)),
        ],
    );
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.ops.len(), 2);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 19_000);
    assert!(!desk.item("u", 0).contains_key("vu"));
    let why = desk.rejected("u", &[("rpm", 20)]);
    assert_eq!(why.worst().unwrap().available, 19);
}

/// A credit above the ceiling leaves `vu` at 0 if it was 0 before: only the balance tells.
#[test]
fn a_forced_pass_is_not_lifted_by_who_has_not_seen_the_surplus() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    let grants = desk.admitted("u", &[("rpm", 50)]);
    desk.poke("u", 0, &[("vu", Value::int(0))]);
    let key = desk.id("u").key(0);
    desk.meddle = Some(Box::new(move |call, _, table| {
        if call == 1 {
            // Between the look at the image and the refilling write: 80 come back to a bucket at 50 of 100.
            let mut item = table.get(&key).unwrap().clone();
            item.insert("b_rpm_tk".into(), Value::int(130_000));
            table.insert(item).unwrap();
        }
        None
    }));
    desk.admitted("u", &[("rpm", 1)]);
    desk.meddle = None;
    assert!(desk.int("u", 0, "b_rpm_tk") <= 99_000, "{:?}", desk.item("u", 0));
    drop(grants);
}

#[test]
fn an_expired_bucket_is_refilled_before_it_is_spent() {
    let mut desk = Desk::with(&[per_second("rps", 10)]);
    desk.admitted("u", &[("rps", 10)]);
    desk.now += 60_000;
    desk.admitted("u", &[("rps", 10)]);
    assert_eq!(desk.ops.len(), 2);
    assert_eq!(desk.int("u", 0, "ttl"), i128::from(desk.now / 1000 + 7));
}

#[test]
fn limits_of_one_entity_keep_its_bucket_for_ever() {
    let mut desk = Desk::with(&[per_second("rps", 10)]);
    desk.admitted("u", &[("rps", 10)]);
    assert!(desk.item("u", 0).contains_key("ttl"));
    desk.configure_entity("u", &[per_second("rps", 10)]);
    desk.now += 1000;
    desk.admitted("u", &[("rps", 10)]);
    assert!(!desk.item("u", 0).contains_key("ttl"));
    desk.ttl_multiplier = 0;
    desk.configure_resource(&[per_second("rps", 10)]);
    desk.admitted("v", &[("rps", 10)]);
    assert!(!desk.item("v", 0).contains_key("ttl"));
}

#[test]
fn a_moved_child_debits_its_new_parent_even_if_its_bucket_is_of_an_old_client() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("old"), true);
    desk.admitted("child", &[("rpm", 1)]);
    let mut item = desk.item("child", 0).clone();
    item.remove("pgen");
    item.remove("pinc");
    desk.table.insert(item).unwrap();
    desk.entity("child", Some("new"), true);
    let grants = desk.admitted("child", &[("rpm", 1)]);
    assert_eq!(grants[1].id.entity.as_str(), "new");
    assert_eq!(desk.int("old", 0, "b_rpm_tc"), 1000);
}

#[test]
fn a_cached_parent_is_overruled_by_the_bucket_and_refunded() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("old"), true);
    desk.admitted("child", &[("rpm", 1)]);
    // Another client stamped the bucket after a later move.
    desk.poke(
        "child",
        0,
        &[("parent_id", Value::text("new")), ("pgen", Value::int(8))],
    );
    let grants = desk.admitted("child", &[("rpm", 1)]);
    assert_eq!(grants[1].id.entity.as_str(), "new");
    assert_eq!(desk.int("old", 0, "b_rpm_tc"), 1000, "taken and given back");
}

/// An administrator deleted the entity and created it under another parent, and its bucket survived.
#[test]
fn a_bucket_of_a_former_life_debits_the_parent_that_meta_names() {
    for remembers in [false, true] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        desk.remembers = remembers;
        desk.entity("child", Some("old"), true);
        desk.admitted("child", &[("rpm", 1)]);
        // Created again by a process whose clock is behind, so that generations do not tell.
        desk.entity_of("child", Some("new"), true, (5, "another life"));
        desk.forget();
        let grants = desk.admitted("child", &[("rpm", 1)]);
        assert_eq!(grants.len(), 2);
        assert_eq!(grants[1].id.entity.as_str(), "new");
        assert_eq!(desk.int("old", 0, "b_rpm_tc"), 1000);
        assert_eq!(desk.int("new", 0, "b_rpm_tc"), 1000);

        desk.entity_of("child", None, false, (4, "a third life"));
        desk.forget();
        assert_eq!(desk.admitted("child", &[("rpm", 1)]).len(), 1);
        desk.table.remove(&zae_limiter_core::schema::meta_key(
            &desk.namespace,
            &desk.id("child").entity,
        ));
        desk.forget();
        assert_eq!(desk.admitted("child", &[("rpm", 1)]).len(), 1, "deleted for good");
        assert_eq!(desk.int("old", 0, "b_rpm_tc"), 1000);
        assert_eq!(desk.int("new", 0, "b_rpm_tc"), 1000);
    }
}

/// The other way round: the process has not heard of the new life, which the bucket belongs to.
#[test]
fn a_cached_entity_of_a_former_life_does_not_overrule_the_bucket() {
    for parent in [Some("new"), None] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        desk.remembers = true;
        desk.entity("child", Some("old"), true);
        desk.admitted("child", &[("rpm", 1)]);
        desk.entity_of("child", parent, parent.is_some(), (5, "another life"));
        let mut item = desk.item("child", 0).clone();
        item.remove("parent_id");
        item.extend([
            ("cascade".into(), Value::Bool(parent.is_some())),
            ("pgen".into(), Value::int(5)),
            ("pinc".into(), Value::text("another life")),
        ]);
        item.extend(parent.map(|parent| ("parent_id".to_owned(), Value::text(parent))));
        desk.table.insert(item).unwrap();
        let grants = desk.admitted("child", &[("rpm", 1)]);
        let debited = grants.get(1).map(|grant| grant.id.entity.to_string());
        assert_eq!(debited.as_deref(), parent);
        assert_eq!(desk.int("old", 0, "b_rpm_tc"), 1000, "taken and given back");
        // Now it has: nothing is read, and nothing is taken from the wrong parent.
        desk.admitted("child", &[("rpm", 1)]);
        assert_eq!(
            (desk.configs_read, desk.ops.len()),
            (0, 1 + usize::from(parent.is_some()))
        );
    }
}

#[test]
fn without_knowing_its_parent_an_acquire_fails_and_gives_back() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("old"), true);
    desk.admitted("child", &[("rpm", 1)]);
    desk.entity_of("child", Some("new"), true, (5, "another life"));
    desk.forget();
    let mut acquire = Acquire::new(desk.request("child", &[("rpm", 1)]));
    let now = EpochMillis(desk.now);
    let mut calls = acquire.start(&|_, _| None, now, &mut desk.dice);
    let mut fresh_reads = 0;
    while !calls.is_empty() {
        let call = calls.remove(0);
        let reply = match call.ask {
            Ask::Wait => Reply::Waited,
            Ask::GiveBack(grant) => desk.give_back(&grant),
            Ask::Table(op) => Reply::Table(desk.call(&op)),
            Ask::Debit(debit) => Reply::Table(desk.debit(&debit)),
            Ask::Config { fresh: true, .. } => {
                fresh_reads += 1;
                let error = TableError::new(FailureKind::Timeout, Applied::No, "no answer");
                Reply::Config(Err(error.into()))
            }
            Ask::Config { entity, .. } => Reply::Config(desk.config(&entity, false)),
        };
        calls.extend(acquire.answer(call.id, reply, now, &mut desk.dice));
    }
    let decision = acquire.finish().unwrap();
    assert!(
        matches!(decision, Decision::Failed(AcquireError::Table(_))),
        "{decision:?}"
    );
    assert_eq!(fresh_reads, 1);
    assert_eq!(desk.int("child", 0, "b_rpm_tc"), 1000);
}

#[test]
fn a_bucket_is_stamped_anew_by_what_meta_says() {
    let resolved = |desk: &mut Desk| desk.config(&desk.id("child").entity, true).unwrap().config;
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("old"), true);
    desk.admitted("child", &[("rpm", 1)]);
    let key = desk.id("child").key(0);
    let stamp = |desk: &Desk| {
        let bucket = Bucket::decode(desk.item("child", 0)).unwrap();
        (
            bucket.owner.parent.map(|p| p.to_string()),
            bucket.owner.incarnation,
            bucket.owner.cascade,
        )
    };
    desk.entity_of("child", Some("new"), true, (5, "another life"));
    let image = Bucket::decode(desk.item("child", 0)).unwrap();
    let config = resolved(&mut desk);
    assert!(Drift::between(&image, &config, EpochMillis(desk.now)).owner);
    let update = reconcile(key.clone(), &image, &config, 7, EpochMillis(desk.now));
    desk.table.call(&Op::Update(update)).unwrap();
    assert_eq!(
        stamp(&desk),
        (Some("new".into()), Some("another life".into()), true)
    );
    let image = Bucket::decode(desk.item("child", 0)).unwrap();
    assert!(!Drift::between(&image, &config, EpochMillis(desk.now)).is_some());

    // What was read before another process stamped it is not written.
    desk.poke(
        "child",
        0,
        &[("pinc", Value::text("a third life")), ("pgen", Value::int(3))],
    );
    let update = reconcile(
        key.clone(),
        &image,
        &Resolved {
            owner: None,
            ..(*config).clone()
        },
        7,
        EpochMillis(desk.now),
    );
    assert!(matches!(
        desk.table.call(&Op::Update(update)).unwrap(),
        Answer::Refused(_)
    ));

    // The entity is gone: so is the stamp.
    desk.table.remove(&zae_limiter_core::schema::meta_key(
        &desk.namespace,
        &desk.id("child").entity,
    ));
    let image = Bucket::decode(desk.item("child", 0)).unwrap();
    let config = resolved(&mut desk);
    let update = reconcile(key, &image, &config, 7, EpochMillis(desk.now));
    desk.table.call(&Op::Update(update)).unwrap();
    assert_eq!(stamp(&desk), (None, None, false));
    assert!(!desk.item("child", 0).contains_key("pgen"));
}

/// The configuration is read again to create a bucket; what it says then counts.
#[test]
fn a_bucket_is_not_created_from_configuration_that_has_gone() {
    let desk = || {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        desk.remembers = true;
        desk.admitted("u", &[("rpm", 1)]);
        desk.table.remove(&desk.id("u").key(0));
        desk.now += 5;
        desk
    };
    let change = |desk: &mut Desk, attr: &str, value: Option<Value>| {
        let key = zae_limiter_core::schema::resource_config_key(&desk.namespace, &desk.resource);
        let mut item = desk.table.get(&key).unwrap().clone();
        match value {
            Some(value) => drop(item.insert(attr.into(), value)),
            None => drop(item.remove(attr)),
        }
        desk.table.insert(item).unwrap();
    };
    let mut quota = desk();
    change(&mut quota, "l_rpm_ra", Some(Value::int(0)));
    change(&mut quota, "l_rpm_rsched", Some(Value::text("2m0h0")));
    let err = quota.failed("u", &[("rpm", 1)]);
    assert!(
        matches!(err, AcquireError::Record(RecordError::Unsupported(_))),
        "{err}"
    );
    assert!(
        quota.table.get(&quota.id("u").key(0)).is_none(),
        "no bucket without the limit"
    );

    let mut gone = desk();
    for part in ["cp", "ra", "rp"] {
        change(&mut gone, &format!("l_rpm_{part}"), None);
    }
    let err = gone.failed("u", &[("rpm", 1)]);
    assert!(matches!(err, AcquireError::NotConfigured { .. }), "{err}");

    let mut other = desk();
    other
        .table
        .insert({
            let key = zae_limiter_core::schema::resource_config_key(&other.namespace, &other.resource);
            let mut item = zae_limiter_core::schema::key_item(&key);
            let limits = [per_minute("tpm", 5)];
            item.extend(
                zae_limiter_core::config::limit_attributes(&limits)
                    .into_iter()
                    .map(|(name, value)| (name.to_string(), value)),
            );
            item
        })
        .unwrap();
    let err = other.failed("u", &[("rpm", 1)]);
    assert!(matches!(err, AcquireError::Input(_)), "{err}");
}

#[test]
fn time_that_goes_back_gains_nothing_and_loses_nothing() {
    let mut desk = Desk::with(&[Limit::custom("rpm", 10, 10, Duration::from_secs(1))
        .build()
        .unwrap()]);
    desk.admitted("u", &[("rpm", 10)]);
    desk.now -= 5000;
    let why = desk.rejected("u", &[("rpm", 1)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 5100);
    desk.now += 5100;
    desk.admitted("u", &[("rpm", 1)]);
    assert!(matches!(desk.ops.last(), Some(Op::Update(_))));
}
