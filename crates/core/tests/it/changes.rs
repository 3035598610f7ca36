//! What changes on a live bucket: limits, flags, the entity's parent, and time itself.

use zae_limiter_core::acquire::{AcquireError, Decision, DisabledAt};
use zae_limiter_core::table::{Op, Value};
use zae_limiter_core::{Level, Limit, RecordError};

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
    let Decision::Disabled { entity, at } = desk.acquire("u", &[("rpm", 1)]) else {
        panic!("not disabled");
    };
    assert_eq!((entity.as_str(), at), ("u", DisabledAt::Config(Level::Entity)));
    assert!(desk.table.get(&desk.id("u").key(0)).is_none());
}

#[test]
fn a_disabled_bucket_refuses_and_what_the_parent_gave_is_returned() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("parent"), true);
    desk.admitted("child", &[("rpm", 1)]);
    desk.poke("child", 0, &[("disabled", Value::Bool(true))]);
    let Decision::Disabled { entity, at } = desk.acquire("child", &[("rpm", 1)]) else {
        panic!("not disabled");
    };
    assert_eq!((entity.as_str(), at), ("child", DisabledAt::Bucket));
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
    // The bucket was stamped by somebody who knows of a later move than we do.
    desk.poke(
        "child",
        0,
        &[("parent_id", Value::text("new")), ("pgen", Value::int(8))],
    );
    let grants = desk.admitted("child", &[("rpm", 1)]);
    assert_eq!(grants[1].id.entity.as_str(), "new");
    assert_eq!(desk.int("old", 0, "b_rpm_tc"), 1000, "taken and given back");
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
    let mut desk = Desk::with(&[Limit::custom("rpm", 10, 10, 1).build().unwrap()]);
    desk.admitted("u", &[("rpm", 10)]);
    desk.now -= 5000;
    let why = desk.rejected("u", &[("rpm", 1)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 5100);
    desk.now += 5100;
    desk.admitted("u", &[("rpm", 1)]);
    assert!(matches!(desk.ops.last(), Some(Op::Update(_))));
}
