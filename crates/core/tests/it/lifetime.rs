//! Buckets that a wrong clock has dated, and how long buckets are kept.

use std::time::Duration;

use zae_limiter_core::table::{Answer, Item, Value};
use zae_limiter_core::{Limit, Millitokens};

use crate::drive::{Desk, NOW, per_minute, per_second};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_bucket_dated_far_in_the_future_is_dated_back_and_earns_again() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 100)]);
    for ahead in [HOUR_MS, 24 * HOUR_MS, 75 * 365 * 24 * HOUR_MS] {
        desk.poke(
            "u",
            0,
            &[("rf", Value::int(desk.now + ahead)), ("b_rpm_tk", Value::int(0))],
        );
        let why = desk.rejected("u", &[("rpm", 1)]);
        assert_eq!(why.retry_after().unwrap().as_millis(), 600, "{ahead} ms ahead");
        assert_eq!(desk.int("u", 0, "rf"), i128::from(desk.now));
        assert_eq!(
            desk.int("u", 0, "b_rpm_tk"),
            0,
            "nothing is paid for the time between"
        );
        desk.now += 600;
        desk.admitted("u", &[("rpm", 1)]);
    }
}

#[test]
fn a_bucket_dated_a_little_ahead_is_waited_for() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 100)]);
    let ahead = desk.now + 5000;
    desk.poke("u", 0, &[("rf", Value::int(ahead))]);
    let why = desk.rejected("u", &[("rpm", 1)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 5600);
    assert_eq!(desk.int("u", 0, "rf"), i128::from(ahead));
}

#[test]
fn what_a_bucket_from_the_future_holds_may_be_spent() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke("u", 0, &[("rf", Value::int(desk.now + HOUR_MS))]);
    desk.admitted("u", &[("rpm", 99)]);
    desk.rejected("u", &[("rpm", 1)]);
}

#[test]
fn an_expiry_never_moves_backwards() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "ttl"), i128::from(NOW / 1000 + 420));
    let late = desk.now / 1000 + 5000;
    desk.poke("u", 0, &[("ttl", Value::int(late))]);
    desk.now += 20_000;
    desk.admitted("u", &[("rpm", 50)]);
    assert_eq!(desk.int("u", 0, "rf"), i128::from(desk.now), "it was refilled");
    assert_eq!(desk.int("u", 0, "ttl"), i128::from(late));
}

#[test]
fn a_bucket_in_debt_lives_until_it_has_paid() {
    // 10 a second: expires after 7 s if idle. A debt of 10,000 takes 1,000 s.
    let mut desk = Desk::with(&[per_second("rps", 10)]);
    let grants = desk.admitted("u", &[("rps", 10)]);
    let _ = desk.credit(&grants[0], &[("rps", -10_000)]);
    assert_eq!(desk.ops.len(), 2, "the charge, and the expiry that follows it");
    let why = desk.rejected("u", &[("rps", 10)]);
    assert_eq!(why.retry_after().unwrap().as_secs(), 1001);
    let ttl = desk.int("u", 0, "ttl");
    assert!(
        ttl > i128::from(NOW / 1000 + 1001),
        "{}",
        ttl - i128::from(NOW / 1000)
    );
    // Once; further refusals write nothing.
    let before = desk.item("u", 0).clone();
    desk.now += 500_000;
    desk.rejected("u", &[("rps", 10)]);
    assert_eq!(*desk.item("u", 0), before);
    desk.now = NOW + 1_000_999;
    desk.rejected("u", &[("rps", 10)]);
    desk.now = NOW + 1_001_000;
    desk.admitted("u", &[("rps", 10)]);
}

#[test]
fn a_debt_whose_expiry_was_not_moved_is_kept_by_the_next_sending() {
    for answer in [None, Some(Item::new())] {
        let mut desk = Desk::with(&[per_second("rps", 10)]);
        let grants = desk.admitted("u", &[("rps", 10)]);
        desk.meddle = Some(Box::new(move |number, _, _| {
            (number == 1).then(|| Ok(Answer::Applied(answer.clone())))
        }));
        let _ = desk.credit(&grants[0], &[("rps", -10_000)]);
        assert_eq!(desk.ops.len(), 3, "the charge, and two sendings of the expiry");
        assert!(desk.int("u", 0, "ttl") > i128::from(NOW / 1000 + 1001));
    }
}

#[test]
fn a_debt_that_another_client_left_is_kept_by_the_first_refusal() {
    let mut desk = Desk::with(&[per_second("rps", 10)]);
    desk.admitted("u", &[("rps", 10)]);
    desk.poke("u", 0, &[("b_rps_tk", Value::int(-10_000_000))]);
    desk.rejected("u", &[("rps", 10)]);
    assert!(desk.int("u", 0, "ttl") > i128::from(NOW / 1000 + 1001));
}

#[test]
fn a_bucket_lives_long_enough_for_the_limits_of_a_single_call() {
    let mut desk = Desk::with(&[per_second("rps", 10)]);
    desk.limits = Some(vec![Limit::per_day("daily", 5).build().unwrap()]);
    desk.admitted("u", &[("daily", 5)]);
    desk.limits = None;
    for _ in 0..5 {
        desk.now += 1500;
        desk.admitted("u", &[("rps", 1)]);
    }
    let ttl = desk.int("u", 0, "ttl");
    assert!(ttl >= i128::from(NOW / 1000 + 86_400), "{ttl}");
    desk.limits = Some(vec![Limit::per_day("daily", 5).build().unwrap()]);
    desk.rejected("u", &[("daily", 1)]);
}

#[test]
fn a_stale_configuration_does_not_stretch_the_horizon() {
    // The process knows a slow limit, whose balance may be spent for 30 s after a refill.
    let mut desk = Desk::with(&[Limit::custom("rpm", 3252, 813, Duration::from_mins(1))
        .build()
        .unwrap()]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1)]);
    // On the item it is fast by now: full again after 2.25 s, and spent as it stands for 0.28 s.
    let fast = Limit::custom("rpm", 355, 9463, Duration::from_mins(1))
        .build()
        .unwrap();
    let params = fast.params();
    desk.poke(
        "u",
        0,
        &[
            ("b_rpm_tk", Value::int(355_000)),
            ("b_rpm_cp", Value::int(params.capacity)),
            ("b_rpm_ra", Value::int(params.refill)),
        ],
    );
    desk.now += 11_000;
    desk.admitted("u", &[("rpm", 300)]);
    assert_eq!(
        desk.int("u", 0, "rf"),
        i128::from(desk.now),
        "it was refilled first"
    );
    let why = desk.rejected("u", &[("rpm", 100)]);
    assert_eq!(why.worst().unwrap().available, 55);
    assert_eq!(
        desk.int("u", 0, "b_rpm_tk"),
        (Millitokens::from_tokens(355) - Millitokens::from_tokens(300)).0
    );
}
