//! Splitting a bucket: what shards hold together never exceeds the limit.

use std::sync::Arc;

use zae_limiter_core::acquire::{Decision, Grant};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, Part, TableError, Value};
use zae_limiter_core::{Limit, LimitName, Millitokens};

use crate::drive::{Desk, Dice, per_minute};

/// A bucket whose write units are used up at this very instant.
fn exhausted(limit: i64) -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", limit)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(0))]);
    desk
}

fn tokens(desk: &Desk, shards: u32) -> i128 {
    (0..shards)
        .filter_map(|shard| desk.table.get(&desk.id("u").key(shard)))
        .map(|item| item["b_rpm_tk"].as_int().unwrap())
        .sum()
}

#[test]
fn an_exhausted_shard_doubles_and_gives_the_new_one_what_it_holds_beyond_its_share() {
    let mut desk = exhausted(100);
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "shard_count"), 2);
    assert_eq!(desk.int("u", 1, "shard_count"), 2);
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 50_000);
    assert_eq!(desk.int("u", 1, "b_rpm_tk"), 48_000);
    assert_eq!(tokens(&desk, 2), 98_000, "nothing was minted");
}

#[test]
fn a_bucket_that_is_gone_with_all_its_shards_begins_again_with_the_whole_limit() {
    let mut desk = exhausted(100);
    desk.admitted("u", &[("rpm", 1)]);
    for shard in 0..2 {
        let id = desk.id("u").key(shard);
        let gone = Op::BatchDelete(vec![id]);
        desk.table.call(&gone).unwrap();
    }
    // The process remembers two shards.
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "shard_count"), 1);
    assert_eq!(tokens(&desk, 2), 99_000);
    desk.admitted("u", &[("rpm", 99)]);
}

#[test]
fn a_first_shard_that_is_missing_beside_others_begins_with_its_share() {
    let mut desk = exhausted(100);
    desk.admitted("u", &[("rpm", 1)]);
    let first = Op::BatchDelete(vec![desk.id("u").key(0)]);
    desk.table.call(&first).unwrap();
    for _ in 0..5 {
        desk.acquire("u", &[("rpm", 1)]);
    }
    assert_eq!(desk.int("u", 0, "shard_count"), 2);
    assert!(tokens(&desk, 2) <= 98_000, "{}", tokens(&desk, 2));
}

#[test]
fn a_new_shard_of_an_empty_bucket_starts_empty() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 90)]);
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(0))]);
    let decision = desk.acquire("u", &[("rpm", 5)]);
    let admitted = matches!(decision, Decision::Admitted(_));
    assert!(
        admitted,
        "shard 0 still holds enough: {decision:?} {:#?}",
        desk.ops
    );
    assert_eq!(tokens(&desk, 2), 5000);
}

#[test]
fn doubling_stops_at_32_shards_and_tells_every_sibling() {
    let mut desk = exhausted(1_000_000);
    for _ in 0..400 {
        for shard in 0..32 {
            if desk.table.get(&desk.id("u").key(shard)).is_some() {
                desk.poke("u", shard, &[("b_wcu_tk", Value::int(0))]);
            }
        }
        desk.admitted("u", &[("rpm", 1)]);
    }
    let counts: Vec<i128> = (0..32)
        .filter_map(|shard| desk.table.get(&desk.id("u").key(shard)))
        .map(|item| item["shard_count"].as_int().unwrap())
        .collect();
    assert!(
        counts.len() > 16 && counts.iter().all(|count| *count == 32),
        "{counts:?}"
    );
    // What a shard held beyond its share when it was refilled was cut.
    assert!(tokens(&desk, 32) <= 1_000_000_000 - 401_000);
}

#[test]
fn shares_too_small_for_the_request_are_not_split() {
    let mut desk = exhausted(100);
    desk.admitted("u", &[("rpm", 60)]);
    assert_eq!(desk.int("u", 0, "shard_count"), 1);
}

#[test]
fn a_split_bucket_keeps_the_shard_that_knows_the_count() {
    let mut desk = exhausted(100);
    assert!(desk.item("u", 0).contains_key("ttl"));
    desk.admitted("u", &[("rpm", 1)]);
    assert!(
        !desk.item("u", 0).contains_key("ttl"),
        "swept, it would start again undivided"
    );
    assert!(desk.item("u", 1).contains_key("ttl"), "any other may go");
    desk.now += 1_000_000;
    for _ in 0..10 {
        desk.admitted("u", &[("rpm", 1)]);
    }
    assert!(
        !desk.item("u", 0).contains_key("ttl"),
        "nor does a refill bring it back"
    );
}

#[test]
fn a_new_shard_earns_from_no_earlier_than_its_siblings_did() {
    let mut desk = exhausted(100);
    // Refilled by a clock that is ahead.
    desk.poke("u", 0, &[("rf", Value::int(desk.now + 500))]);
    desk.forget();
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 1, "rf"), i128::from(desk.now + 500));
}

#[test]
fn a_sibling_that_was_refilled_meanwhile_is_read_again() {
    // Shard 1 of 2 does not have the doubled count 4 yet, and still earns shard 3's part.
    let mut desk = exhausted(400);
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke("u", 0, &[("shard_count", Value::int(4))]);
    desk.forget();
    let (one, later) = (desk.id("u").key(1), desk.now + 10);
    let mut done = false;
    desk.meddle = Some(Box::new(move |_, op, table| {
        let creates = matches!(op, Op::Transact(parts) if parts.len() > 2);
        if creates && !done {
            done = true;
            let mut item = table.get(&one).unwrap().clone();
            item.insert("rf".into(), Value::int(later));
            table.insert(item).unwrap();
        }
        None
    }));
    for _ in 0..40 {
        desk.admitted("u", &[("rpm", 1)]);
        if let Some(item) = desk.table.get(&desk.id("u").key(3)) {
            assert_eq!(item["rf"], Value::int(later), "its part was earned until then");
            assert_eq!(desk.int("u", 1, "shard_count"), 4);
            return;
        }
    }
    panic!("shard 3 was never drawn");
}

#[test]
fn a_missing_relative_must_still_be_missing_when_the_shard_is_created() {
    let mut desk = exhausted(1_000_000);
    desk.poke("u", 0, &[("shard_count", Value::int(8))]);
    desk.forget();
    for _ in 0..60 {
        desk.admitted("u", &[("rpm", 1)]);
        let created = desk.ops.iter().find_map(|op| match op {
            Op::Transact(parts) if parts.len() > 2 => Some(parts),
            _ => None,
        });
        if let Some(parts) = created {
            let checks = parts
                .iter()
                .filter(|part| matches!(part, Part::Check(..)))
                .count();
            assert!(checks >= 1, "{parts:#?}");
        }
    }
    assert!(tokens(&desk, 8) <= 1_000_000_000 - 61_000);
}

/// Uses up the write units of every shard, so that the next acquire splits the bucket if it may.
fn exhaust(desk: &mut Desk) {
    for shard in 0..32 {
        if desk.table.get(&desk.id("u").key(shard)).is_some() {
            desk.poke("u", shard, &[("b_wcu_tk", Value::int(0))]);
        }
    }
}

fn count(desk: &Desk) -> i128 {
    desk.int("u", 0, "shard_count")
}

#[test]
fn however_quickly_a_bucket_is_split_it_admits_all_that_it_holds() {
    for seed in 0..10 {
        let mut desk = Desk::with(&[Limit::per_day("rpm", 2000).build().unwrap()]);
        desk.dice = Dice(seed);
        desk.remembers = seed % 2 == 0;
        let mut taken = 0;
        while let Decision::Admitted(_) = desk.acquire("u", &[("rpm", 1)]) {
            taken += 1;
            if count(&desk) < 32 {
                exhaust(&mut desk);
            }
            assert_eq!(
                tokens(&desk, 32),
                2_000_000 - taken * 1000,
                "seed {seed}, {} shards",
                count(&desk)
            );
        }
        // The last 16 are halves of tokens of 32 shards.
        assert_eq!((taken, count(&desk)), (2000, 32), "seed {seed}");
    }
}

#[test]
fn a_surplus_goes_to_the_shards_that_are_missing_before_a_refill_cuts_it() {
    let mut desk = exhausted(1600);
    desk.poke("u", 0, &[("shard_count", Value::int(8))]);
    desk.poke("u", 0, &[("b_wcu_tk", Value::int(1_000_000))]);
    // A forced pass, which cuts what is above the share.
    desk.poke("u", 0, &[("vu", Value::int(0))]);
    desk.remembers = false;
    desk.forget();
    desk.admitted("u", &[("rpm", 1)]);
    let held: Vec<i128> = (0..8).map(|shard| desk.int("u", shard, "b_rpm_tk")).collect();
    assert_eq!(held.iter().sum::<i128>(), 1_598_000, "{held:?}");
    assert!(held.iter().all(|held| *held <= 200_000), "{held:?}");
    // Where all shards exist, a surplus is one.
    desk.poke(
        "u",
        0,
        &[("b_rpm_tk", Value::int(300_000)), ("vu", Value::int(0))],
    );
    for _ in 0..40 {
        desk.admitted("u", &[("rpm", 1)]);
    }
    assert!(desk.int("u", 0, "b_rpm_tk") <= 200_000);
}

/// The bucket of 1600 is split from 4 shards into 8 while all 4 are read: the first one is read before, the others are
/// read afterwards.
fn split_during_the_read(desk: &mut Desk) {
    let keys: Vec<_> = (0..4).map(|shard| desk.id("u").key(shard)).collect();
    let mut is_split = false;
    desk.meddle = Some(Box::new(move |_, op, table| {
        if is_split || !matches!(op, Op::BatchGet { keys, .. } if keys.len() == 4) {
            return None;
        }
        is_split = true;
        let first = table.get(&keys[0])?.clone();
        for key in &keys {
            let mut item = table.get(key)?.clone();
            item.insert("shard_count".into(), Value::int(8));
            table.insert(item).ok()?;
        }
        let mut items = vec![first];
        items.extend(keys[1..].iter().filter_map(|key| table.get(key).cloned()));
        Some(Ok(Answer::Items(items)))
    }));
}

#[test]
fn a_surplus_is_not_cut_by_a_count_that_was_raised_while_the_shards_were_read() {
    // One that fits a shard, and one that only all of them cover.
    for need in [1, 900] {
        for seed in 0..10 {
            let mut desk = split(1600, 4);
            desk.dice = Dice(seed);
            for shard in 0..4 {
                // Refilled an hour ago; above its share, so that a refill looks at the shards first.
                let earlier = Value::int(desk.now - 3_600_000);
                desk.poke("u", shard, &[("b_rpm_tk", Value::int(401_000)), ("rf", earlier)]);
            }
            split_during_the_read(&mut desk);
            desk.remember_only_the_count("u", 4);
            desk.acquire("u", &[("rpm", need)]);
            desk.meddle = None;
            desk.forget();
            let taken = drain(&mut desk);
            assert!(taken + need > 1550, "seed {seed}, {need}: {taken} are left");
        }
    }
}

/// A bucket of 1600 a day in shards 0 and 1, both full, of which the second one was created when there were so many
/// shards, and no third one exists. Nothing is earned while a test runs.
fn two_of(shards_at_birth: i64, seed: u64) -> Option<Desk> {
    let mut desk = Desk::with(&[Limit::per_day("rpm", 1600).build().unwrap()]);
    desk.dice = Dice(seed);
    desk.admitted("u", &[("rpm", 1)]);
    desk.poke("u", 0, &[("shard_count", Value::int(shards_at_birth))]);
    let one = desk.id("u").key(1);
    for _ in 0..20 {
        if desk.table.get(&one).is_none() {
            desk.admitted("u", &[("rpm", 1)]);
        }
    }
    let others = (2..8).any(|shard| desk.table.get(&desk.id("u").key(shard)).is_some());
    if desk.table.get(&one).is_none() || others {
        return None;
    }
    let of_one = 1_600_000 / shards_at_birth;
    for (shard, full) in [(0, 1_600_000 - of_one), (1, of_one)] {
        desk.poke("u", shard, &[("b_rpm_tk", Value::int(full))]);
    }
    Some(desk)
}

/// Takes all that there is, 20 tokens at a time.
fn drain(desk: &mut Desk) -> i64 {
    let mut taken = 0;
    while let Decision::Admitted(_) = desk.acquire("u", &[("rpm", 20)]) {
        taken += 20;
        assert!(taken < 10_000);
    }
    taken
}

/// Gives 400 tokens back to a shard that has earned them again since they were taken: a surplus above the limit.
fn refund(desk: &mut Desk, shard: u32) {
    let grant = Grant {
        id: desk.id("u"),
        shard,
        amounts: vec![(LimitName::new("rpm").unwrap(), Millitokens::from_tokens(400))],
        image: Arc::new(Bucket::decode(desk.item("u", shard)).unwrap()),
        is_bypassed: false,
    };
    let end = desk.credit(&grant, &[("rpm", 400)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    assert_eq!(desk.int("u", shard, "vu"), 0);
}

#[test]
fn what_a_lowered_limit_cuts_does_not_replace_what_another_shard_has_spent() {
    let mut tried = 0;
    for seed in 0..40 {
        let Some(mut desk) = two_of(2, seed) else { continue };
        // Shard 1 does not have the doubled counts: it still holds and earns the parts of 3, 5 and 7.
        desk.poke("u", 0, &[("shard_count", Value::int(8))]);
        desk.configure_resource(&[Limit::per_day("rpm", 800).build().unwrap()]);
        for shard in 0..2 {
            let lowered = Value::int(800_000);
            desk.poke(
                "u",
                shard,
                &[
                    ("b_rpm_cp", lowered.clone()),
                    ("b_rpm_ra", lowered),
                    ("vu", Value::int(0)),
                ],
            );
        }
        desk.remember_only_the_count("u", 2);
        assert_eq!(drain(&mut desk), 800, "seed {seed}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn a_refund_above_the_share_does_not_replace_what_another_shard_has_spent() {
    let mut tried = 0;
    for seed in 0..40 {
        // Shard 1 holds the part of shard 3 if it was created before the second doubling, else shard 0 does.
        for (born_at, shard) in [(2, 0), (2, 1), (4, 0), (4, 1)] {
            let Some(mut desk) = two_of(born_at, seed) else {
                continue;
            };
            for shard in 0..2 {
                desk.poke("u", shard, &[("shard_count", Value::int(4))]);
            }
            refund(&mut desk, shard);
            desk.remember_only_the_count("u", 2);
            desk.remembers = seed % 2 == 0;
            assert_eq!(
                drain(&mut desk),
                1600,
                "seed {seed}, {born_at} shards at birth, refund to {shard}"
            );
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}

#[test]
fn a_shard_that_has_expired_comes_back_with_what_it_has_earned_since() {
    let mut desk = exhausted(1600);
    desk.admitted("u", &[("rpm", 1)]);
    let one = desk.id("u").key(1);
    desk.table.remove(&one).unwrap();
    desk.poke("u", 0, &[("b_rpm_tk", Value::int(0))]);
    // A share of 800 a minute.
    desk.now += 15_000;
    desk.remembers = false;
    while desk.table.get(&one).is_none() {
        desk.admitted("u", &[("rpm", 1)]);
    }
    assert_eq!(desk.int("u", 1, "b_rpm_tk"), 199_000);
    assert_eq!(desk.int("u", 1, "rf"), i128::from(desk.now));
}

/// A bucket of `limit` a minute that has been split into as many shards, which all exist and are full.
fn split(limit: i64, shards: u32) -> Desk {
    let mut desk = exhausted(limit);
    while count(&desk) < i128::from(shards) {
        exhaust(&mut desk);
        desk.admitted("u", &[("rpm", 1)]);
    }
    // They do not cover it, so all that are missing are created.
    desk.acquire("u", &[("rpm", limit)]);
    desk.now += 3_600_000;
    let share = i128::from(limit) * 1000 / i128::from(shards);
    for shard in 0..shards {
        let (now, full) = (Value::int(desk.now), Value::int(share));
        desk.poke(
            "u",
            shard,
            &[("rf", now), ("b_rpm_tk", full), ("b_rpm_tc", Value::int(0))],
        );
    }
    desk.forget();
    desk
}

fn transactions(desk: &Desk) -> usize {
    desk.ops.iter().filter(|op| matches!(op, Op::Transact(_))).count()
}

#[test]
fn a_request_that_no_shard_covers_takes_from_several_at_once() {
    let mut desk = split(100_000, 2);
    let grants = desk.admitted("u", &[("rpm", 60_000)]);
    let parts: Vec<i128> = grants.iter().map(|grant| grant.amounts[0].1.0).collect();
    assert_eq!(parts, [50_000_000, 10_000_000]);
    assert_eq!(tokens(&desk, 2), 40_000_000);
    // What each shard holds is known from the debit.
    for grant in &grants {
        let stored = Bucket::decode(desk.item("u", grant.shard)).unwrap();
        assert_eq!(*grant.image, stored);
    }
    let grants = desk.admitted("u", &[("rpm", 40_000)]);
    assert_eq!(grants.len(), 1);
    assert_eq!(tokens(&desk, 2), 0);
    // Where the count is known, it takes one read and one transaction.
    desk.now += 60_000;
    assert_eq!(desk.admitted("u", &[("rpm", 100_000)]).len(), 2);
    assert_eq!(desk.ops.len(), 2, "{:#?}", desk.ops);
}

#[test]
fn every_shard_gets_back_what_it_gave() {
    let mut desk = split(100_000, 8);
    let grants = desk.admitted("u", &[("rpm", 70_000)]);
    assert_eq!(grants.len(), 6);
    assert_eq!(tokens(&desk, 8), 30_000_000);
    for grant in &grants {
        let back = grant.amounts[0].1.floor_tokens();
        desk.credit(grant, &[("rpm", back)]);
    }
    assert_eq!(tokens(&desk, 8), 100_000_000);
    let consumed: i128 = (0..8).map(|shard| desk.int("u", shard, "b_rpm_tc")).sum();
    assert_eq!(consumed, 0);
}

#[test]
fn the_whole_capacity_can_be_had_of_32_shards() {
    for limit in [100_000, 33, 47] {
        let mut desk = split(limit, 32);
        desk.admitted("u", &[("rpm", limit)]);
        let left = tokens(&desk, 32);
        assert!((-31..=0).contains(&left), "{limit}: {left}");
        let why = desk.rejected("u", &[("rpm", limit)]);
        let wait = why.retry_after().unwrap();
        // The shares of the rate are rounded down, too.
        assert!((60_000..62_000).contains(&wait.as_millis()), "{limit}: {why}");
        assert_eq!(why.statuses()[0].shards, 1);
        let why = desk.rejected("u", &[("rpm", limit + 1)]);
        assert!(why.is_never());
        let text = format!(
            "never possible: {} asked of a bucket that holds {limit}",
            limit + 1
        );
        assert!(why.to_string().ends_with(&text), "{why}");
    }
}

#[test]
fn a_large_request_is_told_when_all_shards_together_cover_it() {
    let mut desk = split(1000, 4);
    desk.admitted("u", &[("rpm", 900)]);
    let why = desk.rejected("u", &[("rpm", 600)]);
    // 500 are missing, and 1000 come a minute.
    assert_eq!(why.retry_after().unwrap().as_millis(), 30_000);
    assert_eq!(
        (why.statuses()[0].available, why.statuses()[0].capacity),
        (100, 1000)
    );
    desk.now += 29_999;
    desk.rejected("u", &[("rpm", 600)]);
    desk.now += 1;
    desk.admitted("u", &[("rpm", 600)]);
}

#[test]
fn a_request_that_fits_a_share_takes_from_several_where_none_covers_it() {
    let mut desk = split(1000, 4);
    desk.remembers = false;
    desk.admitted("u", &[("rpm", 960)]);
    // 40 are left, at most 10 or so of them in one shard.
    desk.poke("u", 0, &[("b_rpm_tk", Value::int(10_000))]);
    desk.poke("u", 1, &[("b_rpm_tk", Value::int(10_000))]);
    desk.poke("u", 2, &[("b_rpm_tk", Value::int(10_000))]);
    desk.poke("u", 3, &[("b_rpm_tk", Value::int(10_000))]);
    assert_eq!(desk.admitted("u", &[("rpm", 35)]).len(), 4);
    assert_eq!(tokens(&desk, 4), 5000);
    let why = desk.rejected("u", &[("rpm", 6)]);
    assert_eq!(why.statuses()[0].available, 5);
}

#[test]
fn a_large_request_that_loses_a_race_is_decided_anew() {
    let mut desk = split(1000, 2);
    let zero = desk.id("u").key(0);
    let mut done = false;
    desk.meddle = Some(Box::new(move |_, op, table| {
        if matches!(op, Op::Transact(_)) && !done {
            done = true;
            let mut item = table.get(&zero).unwrap().clone();
            item.insert("b_rpm_tk".into(), Value::int(200_000));
            item.insert("rf".into(), Value::int(item["rf"].as_int().unwrap() + 1));
            table.insert(item).unwrap();
        }
        None
    }));
    desk.admitted("u", &[("rpm", 700)]);
    assert_eq!(transactions(&desk), 2);
    assert_eq!(tokens(&desk, 2), 0, "300 were taken by others meanwhile");
}

#[test]
fn a_large_request_whose_answer_is_lost_is_not_sent_again() {
    let mut desk = split(1000, 2);
    desk.meddle = Some(Box::new(|_, op, table| {
        let Op::Transact(_) = op else { return None };
        table.call(op).unwrap();
        Some(Err(TableError::new(
            FailureKind::Timeout,
            Applied::Unknown,
            "lost",
        )))
    }));
    desk.failed("u", &[("rpm", 700)]);
    assert_eq!(transactions(&desk), 1);
    assert_eq!(tokens(&desk, 2), 300_000, "it counts as consumed");
}

#[test]
fn a_parent_that_refuses_gives_every_shard_of_the_child_its_part_back() {
    let mut desk = split(1000, 4);
    desk.configure_entity("p", &[per_minute("rpm", 500)]);
    desk.entity("u", Some("p"), true);
    let why = desk.rejected("u", &[("rpm", 600)]);
    assert!(why.is_never(), "{why}");
    assert_eq!(
        why.statuses().len(),
        2,
        "one of the child, one of the parent: {why:?}"
    );
    assert_eq!(
        (why.statuses()[0].available, why.statuses()[0].exceeded),
        (750, false)
    );
    assert_eq!(tokens(&desk, 4), 1_000_000);
}

#[test]
fn a_large_request_under_limits_of_its_own() {
    let mut desk = split(1000, 4);
    desk.limits = Some(vec![per_minute("rpm", 400)]);
    // Balances are cut to the shares of the smaller limit.
    desk.admitted("u", &[("rpm", 400)]);
    assert_eq!(tokens(&desk, 4), 0);
    let why = desk.rejected("u", &[("rpm", 400)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 60_000);
    assert_eq!(desk.int("u", 3, "b_rpm_cp"), 400_000);
    assert!(desk.rejected("u", &[("rpm", 401)]).is_never());
}

#[test]
fn a_shard_created_under_limits_of_a_call_keeps_what_it_holds_of_others() {
    let mut desk = Desk::with(&[per_minute("rpm", 1000), per_minute("tpm", 1000)]);
    desk.remembers = true;
    desk.admitted("u", &[("rpm", 1), ("tpm", 900)]);
    desk.poke("u", 0, &[("shard_count", Value::int(2))]);
    desk.forget();
    desk.now += 10_000;
    desk.limits = Some(vec![per_minute("rpm", 1000)]);
    desk.admitted("u", &[("rpm", 600)]);
    assert_eq!(desk.int("u", 1, "b_tpm_cp"), 1_000_000);
    let held: i128 = (0..2).map(|shard| desk.int("u", shard, "b_tpm_tk")).sum();
    // 100 were left, and 10 seconds earn 166.
    assert_eq!(held, 266_666);
}
