//! Tests of the arithmetic of a limit of any shape.

use super::*;
use crate::schedule::Zone;
use proptest::prelude::*;

fn at(text: &str) -> EpochMillis {
    EpochMillis::parse(text).unwrap()
}

const BASE: Params = Params {
    capacity: 600_000,
    refill: 600_000,
    period_ms: 60_000,
};

fn schedule(text: &str) -> Schedule {
    Schedule::decode(text, &Zone::UTC).unwrap()
}

#[track_caller]
fn check(text: &str, from: (&str, i128), to: &str, expected: i128) {
    let schedule = schedule(text);
    let terms = Terms::new(BASE, Some(&schedule), 1);
    let balance = Balance::new(Millitokens(from.1), at(from.0));
    let after = terms.refilled(balance, at(to));
    assert_eq!(after.tokens, Millitokens(expected));
    assert_eq!(after.at, at(to));
}

#[test]
fn each_part_of_the_time_counts_at_its_own_rate() {
    let nine_to_six = "1h9-17s100";
    check(
        nine_to_six,
        ("2026-03-02T08:59:58Z", 0),
        "2026-03-02T09:00:03Z",
        23_000,
    );
    check(
        nine_to_six,
        ("2026-03-02T17:59:30Z", 0),
        "2026-03-02T18:00:30Z",
        330_000,
    );
    // Cut where the capacity falls, although it rises again.
    check(
        nine_to_six,
        ("2026-03-02T08:00:00Z", 600_000),
        "2026-03-02T09:00:01Z",
        60_000,
    );
    check(
        nine_to_six,
        ("2026-03-02T08:59:59Z", 600_000),
        "2026-03-02T18:00:01Z",
        70_000,
    );
    // A debt is not cut.
    check(
        nine_to_six,
        ("2026-03-02T08:59:59Z", -100_000),
        "2026-03-02T09:00:01Z",
        -89_000,
    );
    // Exactly at the change, what was earned before counts, up to the new capacity.
    check(
        nine_to_six,
        ("2026-03-02T08:59:58Z", 0),
        "2026-03-02T09:00:00Z",
        20_000,
    );
    check(
        nine_to_six,
        ("2026-03-02T08:59:50Z", 0),
        "2026-03-02T09:00:00Z",
        60_000,
    );
    check(
        nine_to_six,
        ("2026-03-02T17:59:50Z", 0),
        "2026-03-02T18:00:00Z",
        10_000,
    );
    // Another period.
    check(
        "1h9c1000a1p7",
        ("2026-03-02T08:59:59Z", 0),
        "2026-03-02T09:00:07Z",
        11_000,
    );
}

/// As many changes as are followed, most of them between entries with the same parameters.
#[test]
fn entries_with_the_same_parameters_do_not_count_as_changes() {
    check(
        "1h0-6s10;M1-3s10",
        ("2026-01-08T00:00:00Z", 0),
        "2026-04-17T07:00:00Z",
        6_000,
    );
}

#[test]
fn a_clock_that_is_behind_does_not_cut_a_quota_by_a_window_that_is_over() {
    let (schedule, zone) = (schedule("1h9-17s100"), Zone::UTC);
    let resets = ResetSchedule::decode("1m0h0", &zone).unwrap();
    let allowance = Allowance { shards: 1, extra: 0 };
    let base = Params { refill: 0, ..BASE };
    let terms = Terms::new(base, Some(&schedule), 1).with_regain(Regain::Resets(&resets, allowance));
    let balance = Balance::new(Millitokens(500_000), at("2026-03-02T18:00:00Z"));
    assert_eq!(terms.refilled(balance, balance.at.plus(-1000)), balance);
}

#[test]
fn shards_have_their_part_of_the_parameters_in_force() {
    let schedule = schedule("1h9s333");
    let terms = Terms::new(BASE, Some(&schedule), 4);
    assert_eq!(terms.share(at("2026-03-02T09:00:00Z")).capacity, 199_800 / 4);
    assert_eq!(terms.share(at("2026-03-02T10:00:00Z")).capacity, 600_000 / 4);
}

#[test]
fn waits_end_when_a_later_window_covers_the_request() {
    let schedule = schedule("1h9-17s100");
    let terms = Terms::new(BASE, Some(&schedule), 1);
    let noon = at("2026-03-02T12:00:00Z");
    let empty = Balance::new(Millitokens(0), noon);
    let wait = |need| terms.wait(empty, Millitokens(need), noon);
    assert_eq!(wait(0), Wait::Millis(0));
    assert_eq!(wait(60_000), Wait::Millis(60_000));
    assert_eq!(wait(61_000), Wait::Millis(6 * 3_600_000 + 100));
    assert_eq!(wait(600_001), Wait::Never);
    let quota = Terms::new(Params { refill: 0, ..BASE }, Some(&schedule), 1);
    assert_eq!(quota.wait(empty, Millitokens(1), noon), Wait::Never);
}

/// Whole again at 12 minutes past each hour, in an even minute. Without another client that refills it in that minute, it is whole
/// in the next one.
#[test]
fn a_quota_that_windows_narrow_at_a_reset_covers_more_after_them() {
    let (schedule, zone) = (schedule("1m*/2s333"), Zone::UTC);
    let resets = ResetSchedule::decode("1m12", &zone).unwrap();
    let allowance = Allowance { shards: 1, extra: 0 };
    let base = Params { refill: 0, ..BASE };
    let terms = Terms::new(base, Some(&schedule), 1).with_regain(Regain::Resets(&resets, allowance));
    let now = at("2026-03-02T12:14:00Z");
    let empty = Balance::new(Millitokens(0), now);
    assert_eq!(
        terms.wait(empty, Millitokens(199_000), now),
        Wait::Millis(58 * 60_000)
    );
    assert_eq!(
        terms.wait(empty, Millitokens(200_000), now),
        Wait::Millis(59 * 60_000)
    );
    // At a later hour than the search through all windows reaches.
    let resets = ResetSchedule::decode("1m13h5", &zone).unwrap();
    let terms = Terms::new(base, Some(&schedule), 1).with_regain(Regain::Resets(&resets, allowance));
    let wait = at("2026-03-03T05:13:00Z").since(now);
    assert_eq!(terms.wait(empty, Millitokens(200_000), now), Wait::Millis(wait));
}

/// Narrow in each even minute, also in the one in which the session ends, after more changes than the search follows.
#[test]
fn a_session_that_ends_in_a_window_covers_more_after_it() {
    let schedule = schedule("1m*/2s333");
    let allowance = Allowance { shards: 1, extra: 0 };
    let now = at("2026-03-02T12:14:00Z");
    let session = Session {
        millis: 86_400_000,
        start: Some(now),
        is_applied: true,
        spent: 0,
    };
    let base = Params { refill: 0, ..BASE };
    let terms = Terms::new(base, Some(&schedule), 1).with_regain(Regain::Session(session, allowance));
    let empty = Balance::new(Millitokens(0), now);
    let wait = |need| terms.wait(empty, Millitokens(need), now);
    assert_eq!(wait(199_000), Wait::Millis(86_400_000));
    assert_eq!(wait(200_000), Wait::Millis(86_400_000 + 60_000));
    assert_eq!(wait(600_001), Wait::Never);
}

/// A quota that is whole again each 20 minutes, and grows in one hour of the day, after more changes than are followed.
#[test]
fn a_quota_that_grows_in_a_later_window_is_waited_for() {
    let (schedule, zone) = (schedule("1h11c900;m*/2s333"), Zone::UTC);
    let resets = ResetSchedule::decode("1m*/20", &zone).unwrap();
    let allowance = Allowance { shards: 1, extra: 0 };
    let base = Params { refill: 0, ..BASE };
    let terms = Terms::new(base, Some(&schedule), 1).with_regain(Regain::Resets(&resets, allowance));
    let now = at("2026-03-02T12:14:00Z");
    let wait = terms.wait(Balance::new(Millitokens(0), now), Millitokens(900_000), now);
    assert_eq!(wait, Wait::Millis(at("2026-03-03T11:00:00Z").since(now)));
}

/// Each reset comes in an even minute, after more changes than are followed: it is whole in the minute after the first one.
#[test]
fn a_quota_whose_resets_all_come_in_windows_covers_more_after_them() {
    let (schedule, zone) = (schedule("1m*/2s333"), Zone::UTC);
    let resets = ResetSchedule::decode("1m30h5", &zone).unwrap();
    let allowance = Allowance { shards: 1, extra: 0 };
    let base = Params { refill: 0, ..BASE };
    let terms = Terms::new(base, Some(&schedule), 1).with_regain(Regain::Resets(&resets, allowance));
    let now = at("2026-03-02T12:14:00Z");
    let wait = terms.wait(Balance::new(Millitokens(0), now), Millitokens(200_000), now);
    assert_eq!(wait, Wait::Millis(at("2026-03-03T05:31:00Z").since(now)));
}

/// No entry is in force while an earlier one is.
#[test]
fn an_entry_that_is_never_in_force_covers_nothing() {
    let covers = |text: &str, need| {
        let schedule = schedule(text);
        Terms::new(BASE, Some(&schedule), 1).ever_covers(Millitokens(need))
    };
    assert!(covers("1h23s250;h22c700", 700_000));
    assert!(!covers("1h23s250;h23c700", 601_000));
    assert!(!covers("1h9-17s250;m30h12w1c700", 601_000));
    assert!(covers("1h9-17w1s250;h12D1c700", 601_000));
    // A day of the month or a weekday, and both of them.
    assert!(!covers("1D1w1s250;D1w*/1c700", 601_000));
    assert!(covers("1D1w*/1s250;D1w1c700", 601_000));
    assert!(!covers("1D1-2w1-2s250;D2w1c700", 601_000));
    assert!(covers("1D1-2w1-2s250;D2w3c700", 601_000));
}

/// The search for a 31st does not reach from January to March, that for a new year does.
#[test]
fn a_reset_beyond_its_search_comes_before_a_later_one_of_another_pattern() {
    let zone = Zone::UTC;
    let resets = ResetSchedule::decode("1m0h0D31;m0h0D1M1", &zone).unwrap();
    let allowance = Allowance { shards: 1, extra: 0 };
    let base = Params { refill: 0, ..BASE };
    let terms = Terms::new(base, None, 1).with_regain(Regain::Resets(&resets, allowance));
    let resets_at = |text| terms.resets_at(at(text));
    assert_eq!(
        resets_at("2057-01-31T03:40:50Z"),
        Some(at("2057-03-31T00:00:00Z"))
    );
    assert_eq!(
        resets_at("2057-12-31T00:00:00Z"),
        Some(at("2058-01-01T00:00:00Z"))
    );
    let leap = ResetSchedule::decode("1m0h0D29M2", &zone).unwrap();
    assert_eq!(
        leap.first_after(at("2096-03-01T00:00:00Z")),
        Some(at("2104-02-29T00:00:00Z"))
    );
}

#[test]
fn without_a_schedule_it_is_the_plain_arithmetic() {
    let terms = Terms::new(BASE, None, 2);
    let balance = Balance::new(Millitokens(-5), EpochMillis(7));
    let now = EpochMillis(1234);
    assert_eq!(terms.refilled(balance, now), balance.refilled(BASE.share(2), now));
    let need = Millitokens(250_000);
    assert_eq!(
        terms.wait(balance, need, now),
        balance.wait(BASE.share(2), need, now)
    );
    assert_eq!(terms.valid_until(now), None);
}

#[test]
fn extreme_instants_do_not_overflow() {
    let schedule = schedule("1m*/2s100");
    let terms = Terms::new(BASE, Some(&schedule), 1);
    for instant in [i64::MIN, 0, i64::MAX] {
        let balance = Balance::new(Millitokens(0), EpochMillis(instant));
        for now in [i64::MIN, 0, i64::MAX] {
            let _ = terms.refilled(balance, EpochMillis(now));
            let _ = terms.wait(balance, Millitokens(i128::MAX), EpochMillis(now));
            let _ = terms.wait(balance, Millitokens(500_000), EpochMillis(now));
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "1h9-17w1-5s500;h0-6c200",
        "1m*/2s100",
        "1m*/3c50a7p1;m*/2s1700",
        "1m30-59h*/2s250",
        "1w1-5a5p7",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn refilling_often_gains_as_much_as_refilling_once(
        text in text(),
        start in -50_000_i128..700_000,
        minute in 0_i64..20_000,
        steps in prop::collection::vec(1_i64..90_000, 1..20),
    ) {
        let schedule = schedule(&text);
        let terms = Terms::new(BASE, Some(&schedule), 1);
        let begin = at("2026-03-01T00:00:00Z").plus(minute * 60_000 + 17_003);
        let once = terms.refilled(Balance::new(Millitokens(start), begin), begin);
        let mut often = once;
        for step in steps {
            often = terms.refilled(often, often.at.plus(step));
        }
        prop_assert_eq!(often, terms.refilled(once, often.at));
    }

    #[test]
    fn a_wait_is_exact(
        text in text(),
        start in -50_000_i128..700_000,
        need in 1_i128..1_100_000,
        minute in 0_i64..20_000,
        shards in 1_u32..4,
        probe in 0.0_f64..1.0,
    ) {
        let schedule = schedule(&text);
        let terms = Terms::new(BASE, Some(&schedule), shards);
        let now = at("2026-03-01T00:00:00Z").plus(minute * 60_000 + 17_003);
        let (balance, need) = (Balance::new(Millitokens(start), now), Millitokens(need));
        let covered = |after: i64| terms.refilled(balance, now.plus(after)).tokens >= need;
        match terms.wait(balance, need, now) {
            Wait::Millis(0) => prop_assert!(covered(0)),
            // Half of these schedules change every minute: 64 changes are at least half an hour.
            Wait::Millis(millis) if millis < 1_800_000 => {
                prop_assert!(covered(millis));
                prop_assert!(!covered(millis - 1));
                prop_assert!(!covered((millis as f64 * probe) as i64));
            }
            Wait::Millis(_) => prop_assert!(!covered(1_000_000)),
            Wait::Never => prop_assert!(!covered(100_000) && !covered(10_000_000)),
        }
    }
}
