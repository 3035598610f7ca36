//! Limits that can be built, and those that cannot.

use super::*;
use crate::schedule::ScheduleEntryBuilder;
use crate::units::{MAX_PERIOD_SECS, MAX_TOKENS};

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (builder, field) in [
        (Limit::per_minute("rpm", 0), "rpm.capacity"),
        (Limit::per_minute("rpm", u64::MAX), "rpm.capacity"),
        (Limit::per_minute("rpm", 5).burst(0), "rpm.capacity"),
        (
            Limit::custom("rpm", 5, 0, Duration::from_mins(1)),
            "rpm.refill_amount",
        ),
        (
            Limit::custom("rpm", 5, u64::MAX, Duration::from_mins(1)),
            "rpm.refill_amount",
        ),
        (Limit::per_day("rpm", MAX_TOKENS + 1), "rpm.capacity"),
        (Limit::per_day("wcu", 1), "limit_name"),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
}

#[test]
fn an_amount_above_the_bound_is_shown_with_the_bound() {
    let err = Limit::per_hour("tpm", u64::MAX).build().unwrap_err();
    assert_eq!(
        err.to_string(),
        "invalid tpm.capacity '18446744073709551615': must be between 1 and 1000000000000000"
    );
}

#[test]
fn periods_are_whole_seconds() {
    for (period, shown) in [
        (Duration::ZERO, "0 s"),
        (Duration::from_millis(500), "0.5 s"),
        (Duration::from_nanos(60_000_000_001), "60.000000001 s"),
        (Duration::from_secs(MAX_PERIOD_SECS + 1), "1000000001 s"),
        (Duration::new(MAX_PERIOD_SECS, 1), "1000000000.000000001 s"),
        (Duration::MAX, "18446744073709551615.999999999 s"),
    ] {
        let err = Limit::custom("rpm", 5, 5, period).build().unwrap_err();
        assert_eq!((err.field(), err.value()), ("rpm.refill_period", shown));
        assert_eq!(
            err.reason(),
            "must be a whole number of seconds from 1 to 1000000000"
        );
    }
    let longest = Duration::from_secs(MAX_PERIOD_SECS);
    let limit = Limit::custom("rpm", 5, 5, longest).build().unwrap();
    assert_eq!(limit.refill_period(), longest);
}

#[test]
fn the_time_to_fill_is_exact_and_never_overflows() {
    let check = |capacity, amount, period, expected| {
        let limit = Limit::custom("x", capacity, amount, Duration::from_secs(period));
        assert_eq!(limit.build().unwrap().time_to_fill(), expected);
    };
    check(100, 100, 60, Duration::from_mins(1));
    check(1000, 10, 60, Duration::from_mins(100));
    check(7, 3, 1, Duration::new(2, 333_333_334));
    check(MAX_TOKENS, MAX_TOKENS, 1, Duration::from_secs(1));
    check(MAX_TOKENS, 1, MAX_PERIOD_SECS, Duration::MAX);
}

#[test]
fn a_burst_below_the_rate_is_allowed() {
    let limit = Limit::per_minute("rpm", 100).burst(10).build().unwrap();
    assert_eq!((limit.capacity(), limit.refill_amount()), (10, 100));
}

#[test]
fn a_set_of_limits_has_distinct_names() {
    let twice = check_limits([Limit::per_minute("rpm", 1), Limit::per_hour("rpm", 1)]);
    assert!(twice.unwrap_err().reason().contains("twice"));
    assert!(check_limits(Vec::<Limit>::new()).is_err());
}

fn berlin() -> LimitBuilder {
    Limit::quota("rpd", 10_000).resets("0 0 * * *", "Europe/Berlin")
}

fn half() -> ScheduleEntryBuilder {
    ScheduleEntry::on("* 9-17 * * *").scale(0.5)
}

#[track_caller]
fn check_error(builder: LimitBuilder, expected: &str) {
    assert_eq!(builder.build().unwrap_err().to_string(), expected);
}

#[test]
fn shapes_are_shown_by_their_parts() {
    let quota = berlin().build().unwrap();
    assert!(quota.is_quota() && !quota.is_soft());
    assert_eq!(quota.reset_schedule().unwrap().encode(), "1m0h0");
    assert_eq!(quota.zone().unwrap().name(), "Europe/Berlin");
    assert_eq!((quota.time_to_fill(), quota.refill_rate()), (Duration::MAX, 0.0));
    assert_eq!(quota.session_length(), None);

    let session = Limit::session("s", 50, Duration::from_hours(5))
        .soft()
        .build()
        .unwrap();
    assert!(session.is_quota() && session.is_soft());
    assert_eq!(session.recovery(), &Recovery::Session { secs: 18_000 });
    assert_eq!((session.reset_schedule(), session.zone()), (None, None));

    let scheduled = Limit::per_minute("rpm", 100).scheduled([half()]).build().unwrap();
    assert!(!scheduled.is_quota());
    assert_eq!(scheduled.schedule().unwrap().entries().len(), 1);
    let none: [ScheduleEntryBuilder; 0] = [];
    let cleared = Limit::per_minute("rpm", 100).scheduled([half()]).scheduled(none);
    assert_eq!(cleared.build().unwrap().schedule(), None);
}

#[test]
fn shapes_that_contradict_themselves_cannot_be_built() {
    check_error(
        berlin().burst(5),
        "invalid rpd.burst '5': cannot be given to a limit that is not refilled over time: it holds its amount and no more",
    );
    check_error(
        berlin().scheduled([half()]),
        "invalid rpd.tz 'UTC': must be 'Europe/Berlin', as that of the times of reset",
    );
    check_error(
        Limit::per_minute("rpm", 5).scheduled([half(), half().zone("Asia/Tokyo")]),
        "invalid rpm.tz 'Asia/Tokyo': must be the same for all entries, and another one has 'UTC'",
    );
    let refilling = |entry: ScheduleEntryBuilder| entry.zone("Europe/Berlin");
    check_error(
        berlin().scheduled([
            refilling(ScheduleEntry::on("* 1 * * *")).capacity(5),
            refilling(ScheduleEntry::on("* 2 * * *")).refill_amount(7),
        ]),
        "invalid rpd.schedule[1].refill_amount '7': \
         cannot be given for a limit that is not refilled over time; give a capacity or a scale",
    );
    let minute = Duration::from_mins(1);
    check_error(
        Limit::session("s", 5, minute).scheduled([ScheduleEntry::on("* 2 * * *").refill_period(minute)]),
        "invalid s.schedule[0].refill_period '60 s': \
         cannot be given for a limit that is not refilled over time; give a capacity or a scale",
    );
}

#[test]
fn parts_of_shapes_are_checked_by_name() {
    for (builder, field, value) in [
        (Limit::quota("q", 0).resets("0 0 * * *", "UTC"), "q.capacity", "0"),
        (
            Limit::quota("q", 1).resets("0 0 * *", "UTC"),
            "q.reset_schedule.cron",
            "0 0 * *",
        ),
        (
            Limit::quota("q", 1).resets("0 0 * * *", "Berlin"),
            "q.reset_schedule.tz",
            "Berlin",
        ),
        (
            Limit::quota("q", 1).resets_on(Vec::<(&str, &str)>::new()),
            "q.reset_schedule",
            "[]",
        ),
        (Limit::session("q", 1, Duration::ZERO), "q.reset_after", "0 s"),
        (
            Limit::session("q", 1, Duration::from_millis(1500)),
            "q.reset_after",
            "1.5 s",
        ),
        (
            Limit::session("q", 1, Duration::from_secs(MAX_PERIOD_SECS + 1)),
            "q.reset_after",
            "1000000001 s",
        ),
        (
            Limit::per_minute("q", 1).scheduled([ScheduleEntry::on("* 25 * * *").scale(1.0)]),
            "q.schedule[0].cron.hour",
            "25",
        ),
        (
            Limit::per_minute("q", 1).scheduled([half(), half().scale(0.0)]),
            "q.schedule[1].scale",
            "0",
        ),
    ] {
        let err = builder.build().unwrap_err();
        assert_eq!((err.field(), err.value()), (field, value));
    }
}

#[test]
fn a_scale_is_that_of_the_stored_form() {
    let entry = ScheduleEntry::on("* 9-17 * * *").scale(1.0 / 3.0);
    let limit = Limit::per_minute("rpm", 100).scheduled([entry]).build().unwrap();
    let schedule = limit.schedule().unwrap();
    assert_eq!(schedule.entries()[0].scale(), Some(0.333));
    assert_eq!(
        Schedule::decode(&schedule.encode(), schedule.zone()).unwrap(),
        *schedule
    );
}

#[test]
fn the_schedules_of_a_set_have_one_zone() {
    let scheduled = Limit::per_minute("rpm", 5).scheduled([half()]);
    let err = check_limits([Limit::per_day("x", 1), berlin(), scheduled]).unwrap_err();
    assert_eq!(
        err.to_string(),
        "invalid rpm.tz 'UTC': must be 'Europe/Berlin', as that of 'rpd': the schedules of a level have one time zone"
    );
    let tokyo = Limit::quota("tokyo", 5).resets("0 0 * * *", "Asia/Tokyo");
    assert_eq!(check_limits([berlin(), tokyo]).unwrap_err().field(), "tokyo.tz");
}

#[test]
fn so_many_quotas_as_one_write_can_refill() {
    let quotas =
        |count: usize| (0..count).map(|n| Limit::quota(format!("q{n}"), 5).resets("0 0 * * *", "UTC"));
    assert_eq!(check_limits(quotas(10)).unwrap().len(), 10);
    let err = check_limits(quotas(11)).unwrap_err();
    assert_eq!(
        err.to_string(),
        "invalid limits '11 of them': must hold at most 9 quotas and session limits among 11 limits, so that one write can \
         refill them all"
    );
}
