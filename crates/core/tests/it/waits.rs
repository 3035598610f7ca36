//! Waits of refusals are exact: a millisecond earlier is too early, if no other client takes tokens.

use std::time::Duration;

use proptest::prelude::*;
use zae_limiter_core::acquire::Decision;
use zae_limiter_core::{Limit, MAX_PERIOD_SECS, MAX_TOKENS};

use crate::drive::{Desk, per_minute};

#[test]
fn a_wait_counts_from_the_balance_in_the_table() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 100)]);
    let why = desk.rejected("u", &[("rpm", 1)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 600);
    desk.now += 599;
    desk.rejected("u", &[("rpm", 1)]);
    desk.now += 1;
    desk.admitted("u", &[("rpm", 1)]);
}

#[test]
fn more_than_a_limit_holds_is_never_possible() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    assert!(desk.rejected("new", &[("rpm", 101)]).is_never());
    desk.admitted("u", &[("rpm", 100)]);
    assert!(desk.rejected("u", &[("rpm", 101)]).is_never());
    assert!(!desk.rejected("u", &[("rpm", 100)]).is_never());
}

#[test]
fn numbers_at_the_bounds_of_the_format() {
    let limits = [
        Limit::custom("most", MAX_TOKENS, MAX_TOKENS, Duration::from_secs(1))
            .build()
            .unwrap(),
        Limit::custom("slow", MAX_TOKENS, 1, Duration::from_secs(MAX_PERIOD_SECS))
            .build()
            .unwrap(),
    ];
    let most = MAX_TOKENS.cast_signed();
    let mut desk = Desk::with(&limits);
    desk.admitted("u", &[("most", most), ("slow", most)]);
    let why = desk.rejected("u", &[("most", most), ("slow", 0)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 1000);
    let why = desk.rejected("u", &[("slow", 1)]);
    assert_eq!(why.retry_after().unwrap().as_secs(), MAX_PERIOD_SECS);
    desk.now += 1000;
    let grants = desk.admitted("u", &[("most", most), ("slow", 0)]);
    for _ in 0..5 {
        let _ = desk.credit(&grants[0], &[("most", -most), ("slow", -most)]);
    }
    assert_eq!(desk.int("u", 0, "b_most_tk"), -5000 * i128::from(MAX_TOKENS));
    let why = desk.rejected("u", &[("most", 1)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 5001);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However a bucket was spent before, on one limit or two, with its parent or alone.
    #[test]
    fn waits_are_exact_end_to_end(
        capacity in 1_u64..2000,
        refill in 1_u64..2000,
        period in prop::sample::select(vec![1_u64, 7, 60, 3600, 86_400]),
        parent_capacity in 1_u64..2000,
        cascade: bool,
        history in prop::collection::vec((1_i64..500, 0_i64..100_000), 0..12),
        ask in 1_i64..2000,
        remembers: bool,
    ) {
        let child = Limit::custom("tpm", capacity, refill, Duration::from_secs(period)).build().unwrap();
        let parent = Limit::custom("tpm", parent_capacity, refill, Duration::from_secs(period)).build().unwrap();
        let mut desk = Desk::with(&[child]);
        desk.remembers = remembers;
        desk.entity("child", Some("parent"), cascade);
        desk.configure_entity("parent", &[parent]);
        for (amount, later) in history {
            desk.acquire("child", &[("tpm", amount)]);
            desk.now += later;
        }
        let ask = ask.min(capacity.cast_signed());
        let Some(wait) = first_wait(&mut desk, ask) else { return Ok(()) };
        desk.now += (wait - 1).max(0);
        if wait > 0 {
            prop_assert!(!is_admitted(&mut desk, ask), "1 ms early");
            desk.now += 1;
        }
        prop_assert!(is_admitted(&mut desk, ask), "at the promised instant");
    }
}

fn is_admitted(desk: &mut Desk, amount: i64) -> bool {
    matches!(desk.acquire("child", &[("tpm", amount)]), Decision::Admitted(_))
}

/// Spends until refused. The wait promised then; `None` if never, or if it refills faster than it is spent.
fn first_wait(desk: &mut Desk, amount: i64) -> Option<i64> {
    for _ in 0..3000 {
        if let Decision::Rejected(why) = desk.acquire("child", &[("tpm", amount)]) {
            return why
                .retry_after()
                .map(|wait| i64::try_from(wait.as_millis()).unwrap());
        }
    }
    None
}
