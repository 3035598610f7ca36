//! Quotas and session limits that the shards of a split bucket gain one after the other, and those that are left over there.

use zae_limiter_core::acquire::Decision;
use zae_limiter_core::random::Random as _;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Value};
use zae_limiter_core::{Limit, Wait};

use crate::drive::{Desk, Dice, per_minute, per_second};
use crate::shapes::{at, daily, session};

const HOUR: i64 = 3_600_000;

/// A refill from an image without the limit would move the bucket past the time in which the limit has earned.
#[test]
fn a_limit_that_is_gained_before_a_refill_of_a_faster_clock_earns_from_then_on() {
    let mut desk = Desk::with(&[per_minute("rpm", 60)]);
    desk.admitted("u", &[("rpm", 60)]);
    let begun = desk.now;
    // The clock of one client is four seconds ahead, and its refill is on its way for a while.
    desk.now = begun + 4000;
    desk.meddle =
        Some(Box::new(|_, op, _| match op {
            Op::Update(update) if update.set.iter().any(|(attr, _)| attr == "rf") => Some(Err(
                TableError::new(FailureKind::AccessDenied, Applied::No, "on its way"),
            )),
            _ => None,
        }));
    desk.failed("u", &[("rpm", 1)]);
    desk.meddle = None;
    let refill = desk.ops.last().unwrap().clone();
    // Another one has just refilled the bucket by its own clock, and adds a limit.
    desk.now = begun;
    desk.configure_resource(&[per_minute("rpm", 60), per_second("rps", 10)]);
    desk.admitted("u", &[("rps", 10)]);
    assert_eq!(desk.int("u", 0, "rf"), i128::from(begun + 1));
    assert!(matches!(desk.table.call(&refill), Ok(Answer::Refused(Some(_)))));
    desk.now = begun + 1001;
    desk.admitted("u", &[("rps", 10)]);
}

/// A bucket of 1000 a minute in two shards, whose clients know nothing but that.
fn split() -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", 1000)]);
    desk.now = at("2027-03-10T09:00:00Z");
    desk.admitted("u", &[("rpm", 0)]);
    let mut second = desk.item("u", 0).clone();
    second.insert("PK".into(), Value::S(desk.id("u").key(1).pk));
    desk.table.insert(second).unwrap();
    for shard in 0..2 {
        desk.poke(
            "u",
            shard,
            &[("shard_count", Value::int(2)), ("b_rpm_tk", Value::int(500_000))],
        );
    }
    desk.now += 1000;
    desk.remember_only_the_count("u", 2);
    desk
}

fn configure(desk: &mut Desk, limits: &[Limit]) {
    desk.configure_resource(limits);
    desk.remember_only_the_count("u", 2);
}

fn with(limit: &Limit) -> [Limit; 2] {
    [per_minute("rpm", 1000), limit.clone()]
}

/// Acquires from this shard.
#[track_caller]
fn admitted_on(desk: &mut Desk, shard: u32, consume: &[(&str, i64)]) {
    desk.remember_only_the_count("u", 2);
    let draws = |seed: &u64| Dice(*seed).below(2) == shard;
    desk.dice = Dice((0..1000).find(draws).unwrap());
    let grants = desk.admitted("u", consume);
    assert_eq!(
        grants.iter().map(|grant| grant.shard).collect::<Vec<_>>(),
        [shard]
    );
}

/// How many single requests are admitted now.
fn admits(desk: &mut Desk, limit: &str) -> usize {
    let mut admitted = 0;
    loop {
        desk.remember_only_the_count("u", 2);
        match desk.acquire("u", &[(limit, 1)]) {
            Decision::Admitted(_) => admitted += 1,
            Decision::Rejected(_) => return admitted,
            other => panic!("{other:?}"),
        }
    }
}

/// In two sessions out of step, 25 of the second shard's first and of its second session would come on top of 25 of the first one's.
#[test]
fn a_session_limit_that_a_split_bucket_gains_has_one_session_on_all_shards() {
    // Told of the session by the shard that began it, or not: then the other shards are looked at.
    for is_told in [true, false] {
        let mut desk = split();
        configure(&mut desk, &with(&session().build().unwrap()));
        let begin = desk.now;
        admitted_on(&mut desk, 0, &[("ses", 1)]);
        assert_eq!(desk.int("u", 1, "b_ses_ws"), i128::from(begin));
        if !is_told {
            let mut second = desk.item("u", 1).clone();
            second.retain(|name, _| !name.starts_with("b_ses"));
            desk.table.insert(second).unwrap();
        }
        desk.now = begin + 4 * HOUR;
        admitted_on(&mut desk, 1, &[("ses", 1)]);
        for (attr, value) in [
            ("b_ses_ws", begin),
            ("b_ses_wa", begin),
            ("b_ses_tk", 24_000),
            ("vu", begin + 5 * HOUR),
        ] {
            assert_eq!(desk.int("u", 1, attr), i128::from(value), "{attr}");
        }
        // The second session, of both.
        desk.now = begin + 5 * HOUR;
        admitted_on(&mut desk, 0, &[("ses", 1)]);
        desk.now += 3 * HOUR;
        let mut admitted = 1 + admits(&mut desk, "ses");
        desk.now += 90 * 60_000;
        admitted += admits(&mut desk, "ses");
        assert_eq!(admitted, 50, "in one session");
    }
}

/// The first shard was granted the whole quota before there was another one, and the other one was created when no level named it.
#[test]
fn a_quota_that_a_shard_gains_is_taken_from_the_one_that_was_granted_its_part() {
    let mut desk = split();
    let quota = daily().build().unwrap();
    configure(&mut desk, &with(&quota));
    admitted_on(&mut desk, 0, &[("rpd", 100)]);
    desk.poke(
        "u",
        0,
        &[("b_rpd_gc", Value::int(1)), ("b_rpd_tk", Value::int(900_000))],
    );
    admitted_on(&mut desk, 1, &[("rpd", 10)]);
    assert!(matches!(desk.ops.last(), Some(Op::Transact(_))));
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 400_000);
    assert_eq!(desk.int("u", 1, "b_rpd_tk"), 490_000);
    assert_eq!(desk.int("u", 1, "b_rpd_gc"), 2);
    assert_eq!(admits(&mut desk, "rpd"), 890);
    // Each has its part from the next reset on.
    desk.now = at("2027-03-10T23:00:00Z");
    assert_eq!(admits(&mut desk, "rpd"), 1000);
}

/// What the other shard gives is taken in between.
#[test]
fn a_quota_that_is_gained_is_not_taken_twice() {
    let mut desk = split();
    configure(&mut desk, &with(&daily().build().unwrap()));
    admitted_on(&mut desk, 0, &[("rpd", 0)]);
    desk.poke(
        "u",
        0,
        &[("b_rpd_gc", Value::int(1)), ("b_rpd_tk", Value::int(1_000_000))],
    );
    let key = desk.id("u").key(0);
    let mut is_taken = false;
    desk.meddle = Some(Box::new(move |_, op, table| {
        if let Op::Transact(_) = op
            && !std::mem::replace(&mut is_taken, true)
        {
            let mut first = table.get(&key).unwrap().clone();
            first.insert("b_rpd_tk".into(), Value::int(300_000));
            table.insert(first).unwrap();
        }
        None
    }));
    admitted_on(&mut desk, 1, &[("rpd", 10)]);
    assert_eq!(desk.int("u", 0, "b_rpd_tk"), 0);
    assert_eq!(desk.int("u", 1, "b_rpd_tk"), 290_000);
}

/// A shard has the mark of a session of a limit that has become a rate since.
#[test]
fn what_is_left_of_a_session_does_not_spoil_the_limit_that_a_shard_gains() {
    let mut desk = split();
    configure(&mut desk, &with(&session().build().unwrap()));
    admitted_on(&mut desk, 0, &[("ses", 1)]);
    assert!(desk.item("u", 1).contains_key("b_ses_rsa"));
    configure(&mut desk, &with(&per_minute("ses", 100)));
    let mut first = desk.item("u", 0).clone();
    first.retain(|name, _| !name.starts_with("b_ses"));
    desk.table.insert(first).unwrap();
    for _ in 0..2 {
        admitted_on(&mut desk, 1, &[("ses", 50)]);
        desk.now += 60_000;
    }
    assert!(!desk.item("u", 1).contains_key("b_ses_rsa"));
    assert!(!desk.item("u", 1).contains_key("b_ses_ws"));
}

/// A shard that still has the limit as a rate does not get the mark of a session.
#[test]
fn a_rate_is_not_given_a_session() {
    let mut desk = split();
    configure(&mut desk, &with(&session().build().unwrap()));
    let rate = [
        ("tk", 1000),
        ("tc", 0),
        ("cp", 2000),
        ("ra", 2000),
        ("rp", 60_000),
    ];
    let rate = rate.map(|(part, n)| (format!("b_ses_{part}"), Value::int(n)));
    let rate: Vec<_> = rate.iter().map(|(name, n)| (name.as_str(), n.clone())).collect();
    desk.poke("u", 1, &rate);
    let before = desk.item("u", 1).clone();
    admitted_on(&mut desk, 0, &[("ses", 1)]);
    assert_eq!(*desk.item("u", 1), before);
}

/// A bucket with a quota of which 400 and 500 are left, and that no level names any more.
fn left_over() -> (Desk, Limit) {
    let mut desk = split();
    let quota = daily().build().unwrap();
    configure(&mut desk, &with(&quota));
    admitted_on(&mut desk, 0, &[("rpd", 100)]);
    admitted_on(&mut desk, 1, &[("rpd", 0)]);
    configure(&mut desk, &[per_minute("rpm", 1000)]);
    (desk, quota)
}

#[test]
fn a_quota_that_is_left_over_does_not_keep_a_request_from_several_shards() {
    let (mut desk, quota) = left_over();
    let grants = desk.admitted("u", &[("rpm", 900)]);
    assert_eq!(grants.len(), 2);
    // And not from a wait for them.
    desk.remember_only_the_count("u", 2);
    let refused = desk.rejected("u", &[("rpm", 800)]);
    assert_eq!(refused.worst().unwrap().wait, Wait::Millis(42_000));
    desk.now += 42_000;
    assert_eq!(desk.admitted("u", &[("rpm", 800)]).len(), 2);
    // It is what it was when it is named again.
    configure(&mut desk, &with(&quota));
    assert_eq!(admits(&mut desk, "rpd"), 900);
}

/// The rate of a shard that is missing lies with the other one, and so does its part of the quota.
#[test]
fn a_quota_that_is_left_over_does_not_keep_a_shard_from_being_created() {
    for (amount, counted) in [(1, true), (900, true), (1, false), (900, false)] {
        let mut desk = Desk::with(&with(&daily().build().unwrap()));
        desk.now = at("2027-03-10T09:00:00Z");
        desk.admitted("u", &[("rpm", 0), ("rpd", 100)]);
        desk.poke("u", 0, &[("shard_count", Value::int(2))]);
        if !counted {
            // As it was a rate before.
            let mut item = desk.item("u", 0).clone();
            item.remove("b_rpd_gc");
            desk.table.insert(item).unwrap();
        }
        configure(&mut desk, &[per_minute("rpm", 1000)]);
        if amount == 1 {
            admitted_on(&mut desk, 1, &[("rpm", 1)]);
        } else {
            desk.admitted("u", &[("rpm", amount)]);
        }
        desk.remember_only_the_count("u", 2);
        desk.admitted("u", &[("rpm", 1000 - amount)]);
        assert!(!desk.item("u", 1).contains_key("b_rpd_tk"));
        configure(&mut desk, &with(&daily().build().unwrap()));
        assert_eq!(admits(&mut desk, "rpd"), 900);
    }
}

/// Two shards were granted halves of a quota, whose counts are not stored. The count of one is raised by the creation of another shard.
#[test]
fn what_a_shard_was_granted_of_a_quota_that_is_left_over_is_counted_when_there_are_more() {
    let (mut desk, quota) = left_over();
    for shard in 0..2 {
        let mut item = desk.item("u", shard).clone();
        item.remove("b_rpd_gc");
        desk.table.insert(item).unwrap();
    }
    desk.poke("u", 0, &[("shard_count", Value::int(4))]);
    desk.remember_only_the_count("u", 4);
    desk.dice = Dice((0..1000).find(|seed| Dice(*seed).below(4) == 3).unwrap());
    let grants = desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(grants[0].shard, 3);
    assert_eq!(desk.int("u", 1, "shard_count"), 4);
    assert_eq!(desk.int("u", 1, "b_rpd_gc"), 2);
    desk.configure_resource(&with(&quota));
    let mut admitted = 0;
    for _ in 0..5000 {
        desk.remember_only_the_count("u", 4);
        if let Decision::Admitted(_) = desk.acquire("u", &[("rpd", 1)]) {
            admitted += 1;
        }
    }
    assert_eq!(admitted, 900);
}

/// Its relatives lack the limit, too, and have no mark of the session.
#[test]
fn a_new_shard_begins_no_session_beside_the_one_that_goes_on() {
    let mut desk = split();
    let third = |desk: &mut Desk, shard: u32| {
        let mut item = desk.item("u", 0).clone();
        item.insert("PK".into(), Value::S(desk.id("u").key(shard).pk));
        desk.table.insert(item).unwrap();
    };
    for shard in 0..2 {
        let parts = [("shard_count", 4), ("b_rpm_tk", 250_000)];
        desk.poke("u", shard, &parts.map(|(name, n)| (name, Value::int(n))));
    }
    third(&mut desk, 2);
    desk.configure_resource(&with(&session().build().unwrap()));
    let begin = desk.now;
    let draw = |desk: &mut Desk, shard: u32| {
        desk.remember_only_the_count("u", 4);
        desk.dice = Dice((0..1000).find(|seed| Dice(*seed).below(4) == shard).unwrap());
        let grants = desk.admitted("u", &[("ses", 1)]);
        assert_eq!(grants[0].shard, shard);
    };
    draw(&mut desk, 2);
    for shard in 0..2 {
        let mut item = desk.item("u", shard).clone();
        item.retain(|name, _| !name.starts_with("b_ses"));
        desk.table.insert(item).unwrap();
    }
    desk.now += HOUR;
    draw(&mut desk, 3);
    assert_eq!(desk.int("u", 3, "b_ses_ws"), i128::from(begin));
    assert_eq!(desk.int("u", 3, "b_ses_tk"), 11_500);
}

/// The bucket has no write units left when the limit is named first.
#[test]
fn a_rate_that_is_set_before_a_split_is_full_after_it() {
    let mut desk = Desk::with(&[per_minute("rpm", 1000)]);
    desk.admitted("u", &[("rpm", 0)]);
    desk.now += 1000;
    configure(&mut desk, &with(&per_minute("tpm", 60)));
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(-9_000_000))]);
    desk.admitted("u", &[("tpm", 10)]);
    assert_eq!(desk.int("u", 0, "shard_count"), 2);
    desk.forget();
    desk.admitted("u", &[("tpm", 50)]);
    desk.forget();
    desk.rejected("u", &[("tpm", 1)]);
}

/// It still counts on one shard when it gains the limit, just before the other one is created.
#[test]
fn a_shard_that_gains_a_rate_while_another_one_is_created_does_not_double_it() {
    let mut desk = split();
    for shard in 0..2 {
        let parts = [("shard_count", 4), ("b_rpm_tk", 250_000)];
        desk.poke("u", shard, &parts.map(|(name, n)| (name, Value::int(n))));
    }
    desk.poke("u", 1, &[("shard_count", Value::int(2))]);
    let tpm = per_minute("tpm", 60);
    desk.configure_resource(&with(&tpm));
    let key = desk.id("u").key(1);
    let mut is_gained = false;
    desk.meddle = Some(Box::new(move |_, op, table| {
        if let Op::Transact(_) = op
            && !std::mem::replace(&mut is_gained, true)
        {
            let mut item = table.get(&key).unwrap().clone();
            for (part, n) in [
                ("tk", 30_000),
                ("tc", 0),
                ("cp", 60_000),
                ("ra", 60_000),
                ("rp", 60_000),
            ] {
                item.insert(format!("b_tpm_{part}"), Value::int(n));
            }
            table.insert(item).unwrap();
        }
        None
    }));
    desk.remember_only_the_count("u", 4);
    desk.dice = Dice((0..1000).find(|seed| Dice(*seed).below(4) == 3).unwrap());
    desk.admitted("u", &[("tpm", 1)]);
    let held = [1, 3].map(|shard| desk.int("u", shard, "b_tpm_tk"));
    // With what both have earned in the second since they were refilled.
    assert!((29_000..=29_500).contains(&held.iter().sum::<i128>()), "{held:?}");
}

/// The other shards are read before that, and none has the limit.
#[test]
fn a_shard_that_is_told_of_a_session_while_it_gains_the_limit_joins_it() {
    let mut desk = split();
    configure(&mut desk, &with(&session().build().unwrap()));
    desk.poke("u", 1, &[("vu", Value::int(0))]);
    let begin = desk.now - 1000;
    let key = desk.id("u").key(1);
    let mut is_told = false;
    desk.meddle = Some(Box::new(move |_, op, table| {
        if let Op::Update(update) = op
            && update.set.iter().any(|(name, _)| name == "b_ses_tk")
            && !std::mem::replace(&mut is_told, true)
        {
            let mut item = table.get(&key).unwrap().clone();
            item.insert("b_ses_ws".into(), Value::int(begin));
            item.insert("b_ses_rsa".into(), Value::int(18_000));
            item.insert("b_ses_wtc".into(), Value::int(0));
            table.insert(item).unwrap();
        }
        None
    }));
    admitted_on(&mut desk, 1, &[("ses", 1)]);
    assert_eq!(desk.int("u", 1, "b_ses_ws"), i128::from(begin));
    assert!(!desk.item("u", 1).contains_key("b_ses_wtc"));
}
