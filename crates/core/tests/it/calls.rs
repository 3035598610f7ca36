//! What each path costs, in requests to the table.

use zae_limiter_core::acquire::Decision;
use zae_limiter_core::table::{Op, Value};

use crate::drive::{Desk, per_minute};

fn is_read(op: &Op) -> bool {
    matches!(op, Op::Get { .. } | Op::BatchGet { .. } | Op::Query(_))
}

#[track_caller]
fn check_calls(desk: &Desk, calls: usize, configs: usize) {
    assert_eq!(
        (desk.ops.len(), desk.configs_read),
        (calls, configs),
        "{:#?}",
        desk.ops
    );
    assert!(
        !desk.ops.iter().any(is_read),
        "no path reads a bucket: {:#?}",
        desk.ops
    );
}

#[test]
fn a_new_bucket_costs_its_configuration_a_refused_debit_and_a_transaction() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    check_calls(&desk, 2, 1);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 99_000);
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 1000);
}

#[test]
fn a_new_bucket_reads_its_flags_now_even_if_its_configuration_is_cached() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1)]);
    desk.now += 5;
    desk.table.remove(&desk.id("u").key(0));
    desk.admitted("u", &[("rpm", 1)]);
    check_calls(&desk, 2, 1);
}

#[test]
fn an_admission_costs_one_write() {
    let mut desk = Desk::with(&[per_minute("rpm", 100), per_minute("tpm", 1000)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1), ("tpm", 10)]);
    desk.admitted("u", &[("rpm", 1), ("tpm", 10)]);
    check_calls(&desk, 1, 0);
    assert_eq!(desk.int("u", 0, "b_tpm_tk"), 980_000);
    assert_eq!(desk.int("u", 0, "b_wcu_tk"), 999_000);
}

#[test]
fn a_due_refill_costs_two_writes_and_no_read() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 100)]);
    desk.now += 30_000;
    desk.admitted("u", &[("rpm", 50)]);
    check_calls(&desk, 2, 1);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 0);
    assert_eq!(desk.int("u", 0, "rf"), i128::from(desk.now));
}

#[test]
fn a_due_refill_of_a_bucket_that_nobody_else_uses_costs_one_write() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 100)]);
    desk.now += 30_000;
    desk.admitted("u", &[("rpm", 49)]);
    check_calls(&desk, 1, 0);
    // If what is remembered is no longer true, the write is refused, and the answer shows what is.
    let mut item = desk.table.get(&desk.id("u").key(0)).unwrap().clone();
    item.insert("rf".into(), Value::int(desk.now + 1000));
    item.insert("b_rpm_tk".into(), Value::int(2000));
    desk.table.insert(item).unwrap();
    desk.now += 30_000;
    desk.admitted("u", &[("rpm", 50)]);
    check_calls(&desk, 2, 0);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 333);
}

#[test]
fn an_idle_bucket_earns_nothing_beyond_its_capacity() {
    for remembers in [false, true] {
        let mut desk = Desk::with(&[per_minute("rpm", 1000)]);
        desk.remembers = remembers;
        desk.admitted("u", &[("rpm", 1)]);
        // Long since full.
        desk.now += 3_600_000;
        let mut admitted = 0;
        while matches!(desk.acquire("u", &[("rpm", 50)]), Decision::Admitted(_)) {
            admitted += 50;
        }
        assert_eq!(admitted, 1000, "remembers: {remembers}");
        // Idle for a while, but not for long enough to be looked at: an eighth at most.
        desk.now += 60_000;
        desk.admitted("u", &[("rpm", 1)]);
        desk.now += 7_400;
        let mut admitted = 0;
        while matches!(desk.acquire("u", &[("rpm", 1)]), Decision::Admitted(_)) {
            admitted += 1;
        }
        assert!((1000..=1124).contains(&admitted), "{admitted}");
    }
}

#[test]
fn a_rejection_costs_one_write_and_a_repeated_one_nothing() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 100)]);
    desk.forget();
    let table = desk.rejected("u", &[("rpm", 1)]);
    check_calls(&desk, 1, 1);
    let memory = desk.rejected("u", &[("rpm", 1)]);
    check_calls(&desk, 0, 0);
    assert_eq!(table, memory);
}

#[test]
fn a_cold_cascade_takes_both_buckets_at_once_since_the_parent_is_in_the_configuration() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.remembers = true;
    desk.entity("child", Some("parent"), true);
    desk.admitted("child", &[("rpm", 1)]);
    check_calls(&desk, 4, 2);
    desk.forget();
    let grants = desk.admitted("child", &[("rpm", 1)]);
    check_calls(&desk, 2, 2);
    assert_eq!(grants.len(), 2);
    desk.admitted("child", &[("rpm", 1)]);
    check_calls(&desk, 2, 0);
    assert_eq!(desk.int("parent", 0, "b_rpm_tk"), 97_000);
}

#[test]
fn a_child_whose_parent_refuses_is_refunded() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("parent"), true);
    desk.configure_entity("parent", &[per_minute("rpm", 5)]);
    desk.admitted("child", &[("rpm", 3)]);
    let why = desk.rejected("child", &[("rpm", 3)]);
    assert_eq!(why.worst().unwrap().entity.as_str(), "parent");
    assert_eq!(why.statuses().len(), 2);
    assert_eq!(desk.int("child", 0, "b_rpm_tk"), 97_000);
    assert_eq!(desk.int("child", 0, "b_rpm_tc"), 3000);
}

#[test]
fn a_parent_is_debited_only_for_the_limits_it_has() {
    let mut desk = Desk::new();
    desk.configure_entity("child", &[per_minute("rpm", 10), per_minute("tpm", 10)]);
    desk.configure_entity("parent", &[per_minute("tpm", 10)]);
    desk.entity("child", Some("parent"), true);
    let grants = desk.admitted("child", &[("rpm", 1), ("tpm", 1)]);
    assert_eq!(grants[1].amounts.len(), 1);
    let grants = desk.admitted("child", &[("rpm", 1)]);
    assert_eq!(grants.len(), 1, "the parent has no say on rpm");
}

#[test]
fn an_unknown_limit_is_refused_before_anything_is_written() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    let err = desk.failed("u", &[("tpm", 1)]);
    assert!(err.to_string().contains("consume.tpm"), "{err}");
    assert!(desk.ops.is_empty());
    let err = Desk::new().failed("u", &[("rpm", 1)]);
    assert!(err.to_string().contains("no limits are configured"), "{err}");
}

#[test]
fn keys_and_limits_with_odd_characters_are_kept_apart() {
    let names = ["a_cp", "a", "x.y-z_tk", "b_", "wcu2", "sched"];
    let limits: Vec<_> = names.iter().map(|name| per_minute(name, 20)).collect();
    let mut desk = Desk::with(&limits);
    desk.resource = zae_limiter_core::ResourceName::new("a/b:8b.x_y-z").unwrap();
    desk.configure_resource(&limits);
    let entity = "0-user.x_y:z@example.com";
    let consume: Vec<_> = names.iter().zip(1..).map(|(name, n)| (*name, n)).collect();
    desk.admitted(entity, &consume);
    desk.admitted(entity, &consume);
    for (name, taken) in &consume {
        let taken = 2000 * i128::from(*taken);
        assert_eq!(
            desk.int(entity, 0, &format!("b_{name}_tk")),
            20_000 - taken,
            "{name}"
        );
        assert_eq!(desk.int(entity, 0, &format!("b_{name}_tc")), taken, "{name}");
    }
}

#[test]
fn an_amount_of_zero_is_refused_only_in_debt() {
    let mut desk = Desk::with(&[per_minute("rpm", 10)]);
    let grants = desk.admitted("u", &[("rpm", 10)]);
    desk.admitted("u", &[("rpm", 0)]);
    let _ = desk.credit(&grants[0], &[("rpm", -3)]);
    let why = desk.rejected("u", &[("rpm", 0)]);
    assert_eq!(why.worst().unwrap().available, -3);
    assert!(
        matches!(desk.acquire("u", &[]), Decision::Admitted(_)),
        "what names no limit is not gated"
    );
}
