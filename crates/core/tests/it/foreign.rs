//! Items and configuration of other clients: honoured where they are understood, refused where not.

use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::schedule::ScheduleEntry;
use zae_limiter_core::table::Value;
use zae_limiter_core::{Limit, RecordError};

use crate::drive::{Desk, per_minute};

#[track_caller]
fn check_unsupported(err: &AcquireError, attribute: &str) {
    match err {
        AcquireError::Record(RecordError::Unsupported(feature)) => assert_eq!(feature.attribute, attribute),
        other => panic!("{other}"),
    }
}

#[test]
fn markers_of_new_clients_mean_that_there_is_no_schedule() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 100)]);
    desk.poke(
        "u",
        0,
        &[
            ("b_rpm_sched", Value::text("-")),
            ("b_rpm_rsched", Value::text("-")),
        ],
    );
    desk.now += 6000;
    desk.admitted("u", &[("rpm", 10)]);
    assert_eq!(
        desk.item("u", 0)["b_rpm_sched"],
        Value::text("-"),
        "left as they were"
    );
}

#[test]
fn what_cannot_be_read_is_spent_while_valid_and_never_refilled() {
    for (attr, value) in [
        ("sched", Value::text("2h0-6s500")),
        ("b_rpm_sched", Value::text("1h0")),
        ("b_rpm_rsched", Value::text("1m0h0")),
        ("b_rpm_rsa", Value::int(60)),
        ("from_the_future", Value::Bool(true)),
    ] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        desk.admitted("u", &[("rpm", 40)]);
        desk.poke("u", 0, &[(attr, value), ("vu", Value::int(desk.now + 60_000))]);
        desk.admitted("u", &[("rpm", 40)]);
        desk.now += 30_000;
        let rf = desk.int("u", 0, "rf");
        check_unsupported(&desk.failed("u", &[("rpm", 40)]), attr);
        desk.now += 30_000;
        check_unsupported(&desk.failed("u", &[("rpm", 1)]), attr);
        assert_eq!(desk.int("u", 0, "rf"), rf);
        assert_eq!(desk.int("u", 0, "vu"), i128::from(desk.now));
    }
}

#[test]
fn a_quota_on_the_item_is_not_refilled_by_time() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 100)]);
    desk.poke("u", 0, &[("b_rpm_ra", Value::int(0))]);
    desk.now += 3_600_000;
    assert!(desk.rejected("u", &[("rpm", 1)]).is_never());
}

#[test]
fn configuration_that_cannot_be_enforced_fails_and_creates_nothing() {
    let session = |part, n: i32| (part, Value::int(n));
    for (attr, attrs) in [
        ("l_rpm_sched", vec![("l_rpm_sched", Value::text("2h0s500"))]),
        (
            "l_rpm_rsched",
            vec![
                ("l_rpm_rsched", Value::text("2m0h0")),
                ("l_rpm_ra", Value::int(0)),
            ],
        ),
        ("w_sess_kind", vec![session("w_sess_kind", 1)]),
    ] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        let key = zae_limiter_core::schema::resource_config_key(&desk.namespace, &desk.resource);
        let mut item = desk.table.get(&key).unwrap().clone();
        item.extend(attrs.into_iter().map(|(attr, value)| (attr.to_owned(), value)));
        desk.table.insert(item).unwrap();
        check_unsupported(&desk.failed("u", &[("rpm", 1)]), attr);
        assert!(desk.ops.is_empty());
        // Limits that come with the call can be.
        desk.limits = Some(vec![per_minute("rpm", 5)]);
        desk.admitted("u", &[("rpm", 1)]);
    }
}

#[test]
fn limits_of_a_call_that_cannot_be_enforced_fail() {
    let minute = std::time::Duration::from_mins(1);
    for (limit, part) in [
        (
            Limit::quota("rpm", 5).resets("0 0 * * *", "UTC"),
            "reset_schedule",
        ),
        (Limit::session("rpm", 5, minute), "reset_after"),
        (Limit::per_minute("rpm", 5).soft(), "soft"),
        (
            Limit::per_minute("rpm", 5).scheduled([ScheduleEntry::on("* 1 * * *").scale(2.0)]),
            "schedule",
        ),
    ] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        desk.limits = Some(vec![limit.build().unwrap()]);
        check_unsupported(&desk.failed("u", &[("rpm", 1)]), part);
        assert!(desk.ops.is_empty());
    }
}

#[test]
fn a_bucket_of_the_baseline_client_is_used_as_it_is() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    let mut item = desk.item("u", 0).clone();
    item.retain(|name, _| !["pgen", "pinc", "fr", "cr", "cf", "vu"].contains(&name.as_str()));
    desk.table.insert(item).unwrap();
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.ops.len(), 1);
}

#[test]
fn a_bucket_without_its_write_limit_gets_one() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    let mut item = desk.item("u", 0).clone();
    item.retain(|name, _| !name.starts_with("b_wcu_"));
    desk.table.insert(item).unwrap();
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "b_wcu_tk"), 1_000_000);
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.ops.len(), 1);
}

/// The baseline had no cap on shards.
#[test]
fn a_bucket_with_more_shards_than_we_would_make_is_used_by_its_own_count() {
    let mut desk = Desk::with(&[per_minute("rpm", 6400)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke(
        "u",
        0,
        &[("shard_count", Value::int(64)), ("b_rpm_tk", Value::int(100_000))],
    );
    desk.forget();
    let mut admitted = 0;
    for _ in 0..200 {
        if let zae_limiter_core::acquire::Decision::Admitted(_) = desk.acquire("u", &[("rpm", 1)]) {
            admitted += 1;
        }
    }
    assert!((95..=100).contains(&admitted), "{admitted}");
    let created = (1..64).filter_map(|shard| desk.table.get(&desk.id("u").key(shard)));
    assert!(created.clone().count() > 5);
    assert!(created.clone().all(|item| item["shard_count"] == Value::int(64)));
}
