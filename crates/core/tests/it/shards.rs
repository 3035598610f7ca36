//! Splitting a bucket: what shards hold together never exceeds the limit.

use zae_limiter_core::Limit;
use zae_limiter_core::acquire::Decision;
use zae_limiter_core::table::{Op, Part, Value};

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
    // Shard 1 of 2 has not been told of the doubling to 4 yet, and still earns shard 3's part.
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
        assert_eq!(count(&desk), 32, "seed {seed}");
        // 62.5 tokens a shard.
        assert!(taken >= 32 * 62, "seed {seed}: {taken}");
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
