//! Limits with schedules, quotas and session limits, from the first acquire to the last refund.

use std::time::Duration;

use zae_limiter_core::acquire::{Acquire, Decision};
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::schedule::ScheduleEntry;
use zae_limiter_core::table::{Applied, FailureKind, Op, TableError, Value};
use zae_limiter_core::{EpochMillis, Limit, LimitBuilder, Wait};

use crate::drive::{Desk, per_minute};

pub(crate) fn at(text: &str) -> i64 {
    EpochMillis::parse(text).unwrap().0
}

pub(crate) fn desk(limits: &[LimitBuilder], now: &str) -> Desk {
    let limits: Vec<Limit> = limits
        .iter()
        .map(|limit| limit.clone().build().unwrap())
        .collect();
    let mut desk = Desk::with(&limits);
    desk.now = at(now);
    desk
}

/// 600 a minute, and half of that from 9:00 to 18:00.
pub(crate) fn scheduled() -> LimitBuilder {
    let office = ScheduleEntry::on("* 9-17 * * *").scale(0.5);
    Limit::per_minute("rpm", 600).scheduled([office])
}

/// 1000 a day of Berlin.
pub(crate) fn daily() -> LimitBuilder {
    Limit::quota("rpd", 1000).resets("0 0 * * *", "Europe/Berlin")
}

/// 50 in five hours.
pub(crate) fn session() -> LimitBuilder {
    Limit::session("ses", 50, Duration::from_hours(5))
}

#[track_caller]
fn check_item(desk: &Desk, expected: &[(&str, Value)]) {
    let item = desk.item("u", 0);
    for (attr, value) in expected {
        assert_eq!(item.get(*attr), Some(value), "{attr} of {item:?}");
    }
}

fn wait_of(desk: &mut Desk, consume: &[(&str, i64)]) -> Option<Duration> {
    desk.rejected("u", consume).retry_after()
}

/// Items as the original creates them (observed).
#[test]
fn a_new_bucket_has_the_shapes_of_its_limits() {
    let int = |n: i64| Value::int(n);
    let mut desk = desk(
        &[
            scheduled(),
            Limit::per_minute("tpm", 1000),
            session(),
            Limit::quota("rpd", 1000).resets("0 0 * * *", "UTC"),
        ],
        "2027-03-10T08:30:00Z",
    );
    desk.admitted("u", &[("rpm", 1), ("tpm", 1), ("ses", 1), ("rpd", 1)]);
    check_item(
        &desk,
        &[
            ("sched", Value::text("1h9-17s500")),
            ("rsched", Value::text("1m0h0")),
            ("sched_tz", Value::text("UTC")),
            ("b_tpm_sched", Value::text("-")),
            ("b_tpm_rsched", Value::text("-")),
            ("b_ses_sched", Value::text("-")),
            ("b_ses_rsched", Value::text("-")),
            ("b_rpm_rsched", Value::text("-")),
            ("b_rpd_sched", Value::text("-")),
            ("b_rpd_gc", int(1)),
            ("b_ses_gc", int(1)),
            ("b_ses_rsa", int(18_000)),
            ("b_ses_ws", int(1_804_667_400_000)),
            ("b_ses_wa", int(1_804_667_400_000)),
            ("b_rpd_ra", int(0)),
            ("b_rpd_rp", int(1000)),
            ("b_rpd_tk", int(999_000)),
            ("b_rpm_tk", int(599_000)),
            ("vu", int(1_804_669_200_000)),
        ],
    );
    let item = desk.item("u", 0);
    for absent in ["b_rpm_sched", "b_rpd_rsched", "b_ses_wtc", "b_rpd_tu", "b_rpd_ws"] {
        assert_eq!(item.get(absent), None, "{absent}");
    }
    // The same half as large where it begins in the window.
    desk = self::desk(&[scheduled()], "2027-03-10T09:30:00Z");
    desk.admitted("u", &[("rpm", 1)]);
    check_item(&desk, &[("b_rpm_tk", int(299_000)), ("b_rpm_cp", int(600_000))]);
}

#[test]
fn a_window_is_one_write_until_it_ends_and_then_one_refill() {
    let mut desk = desk(&[scheduled()], "2027-03-10T08:59:50Z");
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1)]);
    desk.now += 5000;
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.ops.len(), 1);
    // Over the boundary: cut to 300, in the write that takes.
    desk.now = at("2027-03-10T09:00:00Z");
    desk.admitted("u", &[("rpm", 10)]);
    assert_eq!(desk.ops.len(), 1);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 290_000);
    assert_eq!(desk.int("u", 0, "vu"), i128::from(at("2027-03-10T18:00:00Z")));
    // A client that has not seen the bucket needs one more write.
    desk.now = at("2027-03-10T18:00:01Z");
    desk.forget();
    desk.admitted("u", &[("rpm", 10)]);
    assert_eq!(desk.ops.len(), 2);
    // 300 at 18:00, and a second at 10 a second.
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 300_000);
}

#[test]
fn waits_cross_the_boundary() {
    let mut desk = desk(&[scheduled()], "2027-03-10T08:59:00Z");
    desk.admitted("u", &[("rpm", 600)]);
    desk.now = at("2027-03-10T08:59:50Z");
    desk.admitted("u", &[("rpm", 500)]);
    // 10 seconds at 10 a second, then 20 at 5.
    assert_eq!(wait_of(&mut desk, &[("rpm", 200)]), Some(Duration::from_secs(30)));
    // 600 are there again after 18:00: 300 at once, and 30 seconds at 10 a second.
    let evening = Duration::from_secs(9 * 3600 + 10 + 30);
    assert_eq!(wait_of(&mut desk, &[("rpm", 600)]), Some(evening));
    assert!(desk.rejected("u", &[("rpm", 601)]).is_never());
    desk.now += 30_000;
    desk.admitted("u", &[("rpm", 200)]);
}

#[test]
fn a_quota_is_whole_again_at_local_midnight_and_not_before() {
    let mut desk = desk(&[daily()], "2027-03-10T08:30:00Z");
    desk.admitted("u", &[("rpd", 900)]);
    let midnight = at("2027-03-10T23:00:00Z");
    desk.now = midnight - 1;
    let refused = desk.rejected("u", &[("rpd", 200)]);
    let status = refused.worst().unwrap();
    assert_eq!((status.wait, status.available), (Wait::Millis(1), 100));
    assert_eq!(status.resets_at, Some(EpochMillis(midnight)));
    let body = status.to_json();
    assert_eq!(
        (&body["kind"], &body["resets_at_ms"]),
        (&"quota".into(), &midnight.into())
    );
    assert_eq!(body.get("refill_amount"), None);

    desk.now = midnight;
    desk.admitted("u", &[("rpd", 200)]);
    check_item(
        &desk,
        &[
            ("b_rpd_tk", Value::int(800_000)),
            ("b_rpd_gc", Value::int(1)),
            ("vu", Value::int(midnight + 86_400_000)),
        ],
    );
    // Several edges count once.
    desk.now = midnight + 3 * 86_400_000 + 5;
    desk.admitted("u", &[("rpd", 1)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 999_000);
    assert!(desk.rejected("u", &[("rpd", 1001)]).is_never());
}

#[test]
fn what_others_took_in_the_last_period_is_not_missing_in_the_new_one() {
    for (limit, name, edge) in [
        (daily(), "rpd", "2027-03-10T23:00:00Z"),
        (session(), "ses", "2027-03-10T13:30:00Z"),
    ] {
        let amount = if name == "rpd" { 1000 } else { 50 };
        let mut desk = desk(&[limit], "2027-03-10T08:30:00Z");
        desk.remembers = true;
        desk.admitted("u", &[(name, 1)]);
        // Another client takes most of the rest, and this one does not see it.
        let attr = |part| format!("b_{name}_{part}");
        desk.poke(
            "u",
            0,
            &[
                (&attr("tk"), Value::int(5000)),
                (&attr("tc"), Value::int(amount * 1000 - 5000)),
            ],
        );
        desk.now = at(edge);
        desk.admitted("u", &[(name, 2)]);
        assert_eq!(desk.int("u", 0, &attr("tk")), (amount - 2) * 1000, "{name}");
    }
}

#[test]
fn an_undeclared_quota_is_reset_with_the_others_and_its_debt_forgiven() {
    let mut desk = desk(&[daily(), Limit::per_minute("rpm", 60)], "2027-03-10T08:30:00Z");
    let grants = desk.admitted("u", &[("rpd", 1000), ("rpm", 60)]);
    assert!(matches!(
        desk.credit(&grants[0], &[("rpd", -40)]),
        CreditEnd::Applied
    ));
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), -40_000);
    desk.now = at("2027-03-10T23:00:00Z");
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 1_000_000);
}

#[test]
fn a_refund_of_a_quota_is_paid_in_its_period_only() {
    let mut desk = desk(&[daily(), Limit::per_minute("rpm", 60)], "2027-03-10T08:30:00Z");
    let grants = desk.admitted("u", &[("rpd", 100), ("rpm", 10)]);
    assert!(matches!(
        desk.credit(&grants[0], &[("rpd", 30)]),
        CreditEnd::Applied
    ));
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 930_000);
    // The next acquire resets it.
    desk.now = at("2027-03-11T10:00:00Z");
    desk.admitted("u", &[("rpd", 500)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 500_000);
    let end = desk.credit(&grants[0], &[("rpd", 70), ("rpm", 5)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 500_000);
    assert_eq!(desk.int("u", 0, "b_rpd_tc"), 570_000);
    let end = desk.credit(&grants[0], &[("rpd", 70)]);
    assert!(matches!(end, CreditEnd::Gone), "{end:?}");
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 500_000);
    // What is charged afterwards counts in any period.
    assert!(matches!(
        desk.credit(&grants[0], &[("rpd", -7)]),
        CreditEnd::Applied
    ));
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 493_000);
}

#[test]
fn a_session_begins_with_the_first_use_after_the_last_one() {
    let mut desk = desk(&[session(), Limit::per_minute("rpm", 60)], "2027-03-10T09:00:00Z");
    let begin = desk.now;
    desk.admitted("u", &[("ses", 45), ("rpm", 1)]);
    desk.now = begin + 18_000_000 - 1;
    let refused = desk.rejected("u", &[("ses", 10)]);
    let status = refused.worst().unwrap();
    assert_eq!(status.wait, Wait::Millis(1));
    assert_eq!(status.resets_at, Some(EpochMillis(begin + 18_000_000)));
    assert_eq!(
        desk.int("u", 0, "b_ses_ws"),
        i128::from(begin),
        "a refusal begins nothing"
    );

    // Idle for two hours more: the next session begins with the use, not on the grid of the first.
    desk.now = begin + 25_200_000;
    assert!(desk.rejected("u", &[("ses", 51)]).is_never());
    desk.admitted("u", &[("ses", 10)]);
    let now = desk.now;
    check_item(
        &desk,
        &[
            ("b_ses_tk", Value::int(40_000)),
            ("b_ses_ws", Value::int(now)),
            ("b_ses_wa", Value::int(now)),
            ("vu", Value::int(now + 18_000_000)),
        ],
    );
    // Any use of the bucket begins one.
    desk.now = now + 20_000_000;
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "b_ses_ws"), i128::from(desk.now));
    assert_eq!(desk.int("u", 0, "b_ses_tk"), 50_000);
}

#[test]
fn a_session_that_another_shard_has_begun_is_joined() {
    let mut desk = desk(&[session()], "2027-03-10T09:00:00Z");
    let begin = desk.now;
    desk.admitted("u", &[("ses", 45)]);
    let next = begin + 18_000_000;
    // As the first use of the other shard leaves it, and 3 more were taken since.
    desk.poke(
        "u",
        0,
        &[
            ("b_ses_ws", Value::int(next)),
            ("b_ses_wtc", Value::int(45_000)),
            ("b_ses_tc", Value::int(48_000)),
            ("b_ses_tk", Value::int(2000)),
            ("vu", Value::int(0)),
        ],
    );
    desk.now = next + 1000;
    desk.admitted("u", &[("ses", 10)]);
    check_item(
        &desk,
        &[
            ("b_ses_tk", Value::int(37_000)),
            ("b_ses_ws", Value::int(next)),
            ("b_ses_wa", Value::int(next)),
            ("vu", Value::int(next + 18_000_000)),
        ],
    );
}

#[test]
fn a_refund_of_a_session_is_paid_in_that_session_only() {
    let mut desk = desk(&[session()], "2027-03-10T09:00:00Z");
    let grants = desk.admitted("u", &[("ses", 45)]);
    assert!(matches!(
        desk.credit(&grants[0], &[("ses", 5)]),
        CreditEnd::Applied
    ));
    assert_eq!(desk.int("u", 0, "b_ses_tk"), 10_000);
    desk.now += 18_000_000;
    desk.admitted("u", &[("ses", 1)]);
    assert!(matches!(desk.credit(&grants[0], &[("ses", 40)]), CreditEnd::Gone));
    assert_eq!(desk.int("u", 0, "b_ses_tk"), 49_000);
}

#[test]
fn shapes_beside_each_other_count_each_by_itself() {
    let mut desk = desk(
        &[scheduled(), daily(), session(), Limit::per_minute("tpm", 1000)],
        "2027-03-10T08:59:00Z",
    );
    desk.remembers = true;
    let all = [("rpm", 10), ("rpd", 10), ("ses", 10), ("tpm", 10)];
    desk.admitted("u", &all);
    // The session ends at 14:00, within the window of the schedule and the day.
    assert_eq!(desk.int("u", 0, "vu"), i128::from(at("2027-03-10T09:00:00Z")));
    desk.now = at("2027-03-10T09:00:00Z");
    desk.admitted("u", &all);
    assert_eq!(desk.int("u", 0, "vu"), i128::from(at("2027-03-10T13:59:00Z")));
    desk.now = at("2027-03-10T13:59:00Z");
    desk.admitted("u", &all);
    for (limit, tokens) in [("rpm", 290), ("rpd", 970), ("ses", 40), ("tpm", 990)] {
        let attr = format!("b_{limit}_tk");
        assert_eq!(desk.int("u", 0, &attr), tokens * 1000, "{limit}");
    }
    assert_eq!(desk.int("u", 0, "vu"), i128::from(at("2027-03-10T18:00:00Z")));
}

#[test]
fn a_bucket_gains_a_limit_with_a_shape() {
    let mut desk = Desk::with(&[per_minute("rpm", 60)]);
    desk.now = at("2027-03-10T08:30:00Z");
    desk.admitted("u", &[("rpm", 1)]);
    let limits = [Limit::per_minute("rpm", 60), daily(), session()];
    desk.configure_resource(&limits.map(|limit| limit.build().unwrap()));
    desk.now += 1000;
    desk.admitted("u", &[("rpm", 1), ("rpd", 5), ("ses", 1)]);
    let now = desk.now;
    check_item(
        &desk,
        &[
            ("b_rpd_tk", Value::int(995_000)),
            ("b_rpd_gc", Value::int(1)),
            ("b_rpd_rsched", Value::text("1m0h0")),
            ("b_rpd_sched", Value::text("-")),
            ("b_ses_ws", Value::int(now)),
            ("b_ses_tk", Value::int(49_000)),
            ("sched_tz", Value::text("Europe/Berlin")),
            ("vu", Value::int(now + 18_000_000)),
        ],
    );
    desk.now = at("2027-03-10T23:00:00Z");
    desk.admitted("u", &[("rpd", 1)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 999_000);
}

/// A bucket with this session limit, split in two by another client after 5 of 50 were taken.
fn split_session() -> Desk {
    let mut desk = desk(&[session()], "2027-03-10T09:00:00Z");
    desk.admitted("u", &[("ses", 5)]);
    desk.poke(
        "u",
        0,
        &[("shard_count", Value::int(2)), ("b_ses_tk", Value::int(20_000))],
    );
    let mut second = desk.item("u", 0).clone();
    second.insert("PK".into(), Value::S(desk.id("u").key(1).pk));
    for (attr, value) in [("b_ses_tk", 25_000), ("b_ses_tc", 0), ("b_ses_gc", 2)] {
        second.insert(attr.into(), Value::int(value));
    }
    desk.table.insert(second).unwrap();
    desk.remember_only_the_count("u", 2);
    desk
}

/// Each shard holds more than its part, and what it was granted is not stored.
#[test]
fn shards_of_a_rate_that_becomes_a_quota_have_no_more_than_it_together() {
    let mut desk = split_session();
    for shard in 0..2 {
        let mut item = desk.item("u", shard).clone();
        item.remove("b_ses_gc");
        item.insert("b_ses_tk".into(), Value::int(50_000));
        item.insert("vu".into(), Value::int(0));
        desk.table.insert(item).unwrap();
    }
    let admitted = (0..100).filter(|_| {
        desk.forget();
        desk.remember_only_the_count("u", 2);
        matches!(desk.acquire("u", &[("ses", 1)]), Decision::Admitted(_))
    });
    assert_eq!(admitted.count(), 50);
}

#[test]
fn the_first_use_after_a_session_begins_the_next_one_on_all_shards() {
    let mut desk = split_session();
    let begin = desk.now;
    for round in 1..=4 {
        desk.now = begin + round * 18_000_000 + 1000 * round;
        let now = desk.now;
        let grant = desk.admitted("u", &[("ses", 1)]).remove(0);
        let (opener, sibling) = (grant.shard, 1 - grant.shard);
        assert_eq!(desk.int("u", opener, "b_ses_tk"), 24_000);
        for (attr, value) in [("ws", now), ("wa", now), ("gc", 2)] {
            assert_eq!(desk.int("u", opener, &format!("b_ses_{attr}")), i128::from(value));
        }
        for (attr, value) in [("b_ses_ws", now), ("b_ses_rsa", 18_000), ("vu", 0)] {
            assert_eq!(desk.int("u", sibling, attr), i128::from(value), "{attr}");
        }
        let taken = desk.int("u", sibling, "b_ses_tc");
        assert_eq!(desk.int("u", sibling, "b_ses_wtc"), taken);
        assert_ne!(desk.int("u", sibling, "b_ses_wa"), i128::from(now));
        // The rest of both shards, and not more, until the session is over.
        for _ in 0..49 {
            desk.admitted("u", &[("ses", 1)]);
        }
        let refused = desk.rejected("u", &[("ses", 1)]);
        assert_eq!(refused.retry_after(), Some(Duration::from_hours(5)));
        assert_eq!(desk.int("u", sibling, "b_ses_wa"), i128::from(now));
        desk.remembers = round % 2 == 1;
    }
}

#[test]
fn a_shard_whose_session_goes_on_is_not_told_of_another_one() {
    let mut desk = split_session();
    let ahead = desk.now + 17_000_000;
    // By a clock that is ahead.
    for shard in [0, 1] {
        desk.poke(
            "u",
            shard,
            &[("b_ses_ws", Value::int(ahead)), ("b_ses_wa", Value::int(ahead))],
        );
    }
    desk.poke(
        "u",
        0,
        &[("b_ses_ws", Value::int(0)), ("b_ses_wa", Value::int(0))],
    );
    desk.now += 18_001_000;
    let sibling = desk.item("u", 1).clone();
    while desk.int("u", 0, "b_ses_ws") == 0 {
        desk.forget_images();
        desk.admitted("u", &[("ses", 0)]);
    }
    assert_eq!(*desk.item("u", 1), sibling);
}

#[test]
fn tokens_are_kept_if_the_shards_cannot_be_told() {
    let mut desk = split_session();
    desk.now += 18_001_000;
    desk.meddle = Some(Box::new(|_, op, _| match op {
        Op::Update(update) if !update.copy.is_empty() => Some(Err(TableError::new(
            FailureKind::Unreachable,
            Applied::Unknown,
            "lost",
        ))),
        _ => None,
    }));
    let grants = desk.admitted("u", &[("ses", 1)]);
    assert_eq!(grants.len(), 1);
    desk.meddle = None;
    // The other one begins its own.
    for _ in 0..49 {
        desk.admitted("u", &[("ses", 1)]);
    }
    desk.rejected("u", &[("ses", 1)]);
}

/// A key under a project with a session limit, which the key has as well.
fn cascading(of_key: LimitBuilder) -> Desk {
    let mut desk = desk(&[of_key], "2027-03-10T09:00:00Z");
    desk.entity("project", None, false);
    desk.entity("u", Some("project"), true);
    desk.configure_entity("project", &[session().build().unwrap()]);
    desk
}

#[test]
fn a_refused_request_begins_no_session_of_the_parent() {
    for of_key in [
        Limit::session("ses", 5, Duration::from_hours(1)),
        Limit::per_hour("ses", 5),
    ] {
        let mut desk = cascading(of_key);
        // Neither in a new bucket.
        desk.rejected("u", &[("ses", 6)]);
        assert!(desk.table.get(&desk.id("project").key(0)).is_none());
        desk.admitted("u", &[("ses", 5)]);
        let first = desk.now;
        for remembers in [false, true] {
            desk.remembers = remembers;
            desk.forget();
            desk.now += 18_000_000;
            // The key's bucket holds 5 again.
            let refused = desk.rejected("u", &[("ses", 6)]);
            let names: Vec<_> = refused
                .statuses()
                .iter()
                .map(|s| (s.entity.as_str(), s.exceeded))
                .collect();
            assert_eq!(names, [("u", true), ("project", false)]);
            assert_eq!(refused.statuses()[1].available, 50);
        }
        assert_eq!(desk.int("project", 0, "b_ses_ws"), i128::from(first));
        desk.now += 1000;
        desk.admitted("u", &[("ses", 5)]);
        assert_eq!(desk.int("project", 0, "b_ses_ws"), i128::from(desk.now));
        assert_eq!(desk.int("project", 0, "b_ses_tk"), 45_000);
    }
}

#[test]
fn a_session_that_both_begin_begins_for_both_or_not_at_all() {
    let mut desk = cascading(Limit::session("ses", 100, Duration::from_hours(5)));
    desk.remembers = true;
    desk.admitted("u", &[("ses", 1)]);
    let first = desk.now;
    desk.now += 18_001_000;
    // The project refuses.
    desk.rejected("u", &[("ses", 51)]);
    for entity in ["u", "project"] {
        assert_eq!(desk.int(entity, 0, "b_ses_ws"), i128::from(first), "{entity}");
    }
    desk.admitted("u", &[("ses", 50)]);
    for entity in ["u", "project"] {
        assert_eq!(desk.int(entity, 0, "b_ses_ws"), i128::from(desk.now), "{entity}");
    }
    // One write for each, although they waited for each other.
    assert_eq!(desk.ops.len(), 2, "{:?}", desk.ops);
}

#[test]
fn a_call_that_is_given_up_while_a_leg_waits_keeps_nothing() {
    for steps in 0..12 {
        let mut desk = cascading(Limit::per_hour("ses", 5));
        let mut acquire = Acquire::new(desk.request("u", &[("ses", 1)]));
        let now = EpochMillis(desk.now);
        let mut calls = acquire.start(&|_, _| None, now, &mut desk.dice);
        let mut step = 0;
        while !calls.is_empty() {
            if step == steps {
                acquire.abandon();
            }
            step += 1;
            let call = calls.remove(0);
            let reply = desk.reply(call.ask);
            calls.extend(acquire.answer(call.id, reply, now, &mut desk.dice));
        }
        let Some(decision) = acquire.decision() else {
            panic!("no decision after {step} steps")
        };
        if steps < step {
            assert!(
                !matches!(decision, Decision::Admitted(_)),
                "{steps}: {decision:?}"
            );
            for (entity, held) in [("u", 5000), ("project", 50_000)] {
                if desk.table.get(&desk.id(entity).key(0)).is_some() {
                    assert_eq!(desk.int(entity, 0, "b_ses_tk"), held, "{steps}: {entity}");
                }
            }
        }
    }
}

/// A new shard of a quota would be free allowance.
#[test]
fn a_quota_is_not_split_however_many_writes_there_are() {
    let mut desk = desk(&[daily()], "2027-03-10T08:30:00Z");
    desk.admitted("u", &[("rpd", 1)]);
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(0))]);
    desk.admitted("u", &[("rpd", 1)]);
    assert_eq!(desk.int("u", 0, "shard_count"), 1);
    // Another client has split it, and its second shard is gone.
    desk.poke("u", 0, &[("shard_count", Value::int(2))]);
    for _ in 0..20 {
        desk.forget();
        desk.admitted("u", &[("rpd", 1)]);
    }
    assert!(desk.table.get(&desk.id("u").key(1)).is_none());
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 978_000);
}

/// The quota is added between the look at the bucket and the split.
#[test]
fn a_bucket_is_not_split_while_another_call_adds_a_quota() {
    let mut desk = desk(&[Limit::per_minute("rpm", 600)], "2027-03-10T08:30:00Z");
    desk.admitted("u", &[("rpm", 1)]);
    desk.configure_resource(&[
        Limit::per_minute("rpm", 600).build().unwrap(),
        daily().build().unwrap(),
    ]);
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(0))]);
    let added = [
        ("b_rpd_tk", Value::int(1_000_000)),
        ("b_rpd_tc", Value::int(0)),
        ("b_rpd_cp", Value::int(1_000_000)),
        ("b_rpd_ra", Value::int(0)),
        ("b_rpd_rp", Value::int(1000)),
        ("b_rpd_gc", Value::int(1)),
        ("b_rpd_sched", Value::text("-")),
        ("b_rpd_rsched", Value::text("1m0h0")),
        ("sched_tz", Value::text("Europe/Berlin")),
    ];
    let key = desk.id("u").key(0);
    desk.meddle = Some(Box::new(move |_, op, table| {
        let Op::Update(update) = op else { return None };
        if update.set.iter().any(|(attr, _)| attr == "shard_count") {
            let mut item = table.get(&key).unwrap().clone();
            item.extend(
                added
                    .iter()
                    .map(|(attr, value)| ((*attr).to_owned(), value.clone())),
            );
            table.insert(item).unwrap();
        }
        None
    }));
    desk.admitted("u", &[("rpm", 1), ("rpd", 1)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 999_000);
    assert_eq!(desk.int("u", 0, "shard_count"), 1);
}

#[test]
fn a_soft_limit_refuses_nothing_and_is_counted() {
    let soft = Limit::per_minute("tpm", 100).soft();
    let mut desk = desk(&[soft, Limit::per_minute("rpm", 10)], "2027-03-10T08:30:00Z");
    desk.remembers = true;
    for _ in 0..3 {
        desk.admitted("u", &[("tpm", 70), ("rpm", 1)]);
    }
    assert_eq!(desk.int("u", 0, "b_tpm_tk"), -110_000);
    assert_eq!(desk.int("u", 0, "b_tpm_tc"), 210_000);
    assert_eq!(desk.int("u", 0, "b_tpm_soft"), i128::from(desk.now));
    // More than it could ever hold, and refilled first.
    desk.now += 30_000;
    desk.admitted("u", &[("tpm", 1000), ("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "b_tpm_tk"), -1_060_000);
    // Another limit refuses; the soft one has passed.
    let refused = desk.rejected("u", &[("tpm", 1), ("rpm", 11)]);
    let status = |name: &str| {
        refused
            .statuses()
            .iter()
            .find(|status| status.limit_name == name)
            .unwrap()
    };
    assert!(status("rpm").exceeded && !status("rpm").is_soft);
    let soft = status("tpm");
    assert!(!soft.exceeded && soft.is_soft);
    assert_eq!((soft.wait, soft.available), (Wait::Millis(0), -1060));
    assert_eq!(soft.to_json()["soft"], true);
    // So it is where memory would refuse.
    for _ in 0..20 {
        desk.acquire("u", &[("tpm", 1), ("rpm", 1)]);
    }
    let refused = desk.rejected("u", &[("tpm", 1), ("rpm", 5)]);
    assert_eq!(
        refused.statuses().iter().filter(|status| status.exceeded).count(),
        1
    );

    // Hard from now on: its debt counts.
    desk.configure_resource(&[per_minute("tpm", 100), per_minute("rpm", 10)]);
    desk.now += 60_000;
    let refused = desk.rejected("u", &[("tpm", 1), ("rpm", 1)]);
    assert_eq!(refused.worst().unwrap().limit_name, "tpm");
    desk.admitted("u", &[("rpm", 10)]);
    assert_eq!(desk.item("u", 0).get("b_tpm_soft"), None, "the mark is gone");
}

#[test]
fn a_soft_quota_is_whole_again_whatever_it_owes() {
    let mut desk = desk(&[daily().soft()], "2027-03-10T08:30:00Z");
    desk.admitted("u", &[("rpd", 5000)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), -4_000_000);
    desk.now = at("2027-03-10T23:00:00Z");
    desk.admitted("u", &[("rpd", 1)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 999_000);
}

#[test]
fn a_soft_limit_does_not_stand_in_the_way_of_a_split() {
    let soft = Limit::per_minute("tpm", 100).soft();
    let mut desk = desk(&[soft, Limit::per_minute("rpm", 100)], "2027-03-10T08:30:00Z");
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(0))]);
    desk.admitted("u", &[("tpm", 300), ("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "shard_count"), 2);
    // 80 are in no single shard, and all of the soft one can be had.
    desk.admitted("u", &[("tpm", 500), ("rpm", 80)]);
}

#[test]
fn a_session_from_a_wrong_clock_refuses_as_it_stands() {
    let mut desk = desk(&[session()], "2027-03-10T09:00:00Z");
    desk.admitted("u", &[("ses", 50)]);
    desk.now -= 3_600_000;
    let refused = desk.rejected("u", &[("ses", 1)]);
    assert_eq!(refused.retry_after(), Some(Duration::from_hours(6)));
}

#[test]
fn the_wait_for_a_quota_under_a_schedule_is_exact() {
    let twice = ScheduleEntry::on("* 9-17 * * *").scale(2.0);
    let quota = Limit::quota("x", 5).resets("0 0 * * *", "UTC").scheduled([twice]);
    let mut desk = desk(&[quota], "2027-05-07T08:00:00Z");
    desk.admitted("u", &[("x", 1)]);
    let wait = wait_of(&mut desk, &[("x", 6)]).unwrap();
    assert_eq!(wait, Duration::from_hours(25));
    desk.now += i64::try_from(wait.as_millis()).unwrap() - 1;
    desk.rejected("u", &[("x", 6)]);
    desk.now += 1;
    desk.admitted("u", &[("x", 6)]);
    assert!(desk.rejected("u", &[("x", 11)]).is_never());
}

#[test]
fn a_bucket_that_is_not_there_is_waited_for_until_it_would_have_room() {
    let noon = ScheduleEntry::on("* 12 * * *").scale(0.5);
    for limit in [
        Limit::quota("x", 10)
            .resets("0 0 * * *", "UTC")
            .scheduled([noon.clone()]),
        Limit::per_hour("x", 10).scheduled([noon]),
    ] {
        let mut desk = desk(&[limit], "2027-05-07T12:30:00Z");
        assert_eq!(wait_of(&mut desk, &[("x", 8)]), Some(Duration::from_mins(30)));
        desk.now = at("2027-05-07T13:00:00Z") - 1;
        desk.rejected("u", &[("x", 8)]);
        desk.now += 1;
        desk.admitted("u", &[("x", 8)]);
    }
}

#[test]
fn the_wait_for_a_quota_ends_with_a_window_that_it_does_not_fit_in() {
    let noon = ScheduleEntry::on("* 12 * * *").scale(0.5);
    let quota = Limit::quota("x", 10).resets("0 0 * * *", "UTC").scheduled([noon]);
    let mut desk = desk(&[quota], "2027-05-07T11:00:00Z");
    desk.admitted("u", &[("x", 1)]);
    // 9 are left, of which 5 can be used within the window. A refusal does not cut the rest.
    desk.now = at("2027-05-07T12:30:00Z");
    assert_eq!(wait_of(&mut desk, &[("x", 8)]), Some(Duration::from_mins(30)));
    desk.now = at("2027-05-07T13:00:00Z") - 1;
    desk.rejected("u", &[("x", 8)]);
    desk.now += 1;
    desk.admitted("u", &[("x", 8)]);
    // An acquire within the window cuts it.
    desk.now = at("2027-05-08T12:00:00Z");
    desk.admitted("u", &[("x", 1)]);
    assert_eq!(wait_of(&mut desk, &[("x", 8)]), Some(Duration::from_hours(12)));
}
