//! Refunds of leases that were held while their bucket was split: nothing that the bucket has room for is lost.

use zae_limiter_core::acquire::Grant;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::table::{Applied, FailureKind, Op, TableError, Value};

use crate::drive::{Desk, Dice, per_minute};

const LIMIT: i64 = 1600;

/// A lease of `held` of 1,600 tokens, the rest of which is spent, whose bucket has been split since into this many
/// shards, which all exist.
fn lease(held: i64, shards: u32) -> (Desk, Grant) {
    let mut desk = Desk::with(&[per_minute("rpm", LIMIT)]);
    let grant = desk.admitted("u", &[("rpm", held)]).remove(0);
    desk.admitted("u", &[("rpm", LIMIT - held - 100)]);
    desk.poke("u", 0, &[("shard_count", Value::int(shards))]);
    desk.forget();
    // No shard covers it, so all that are missing are created.
    desk.acquire("u", &[("rpm", LIMIT)]);
    (desk, grant)
}

/// What all shards hold, and what they count as consumed.
fn sums(desk: &Desk) -> (i128, i128) {
    let items = (0..32).filter_map(|shard| desk.table.get(&desk.id("u").key(shard)));
    items.fold((0, 0), |(held, counted), item| {
        let int = |name: &str| item[name].as_int().unwrap();
        (held + int("b_rpm_tk"), counted + int("b_rpm_tc"))
    })
}

#[test]
fn a_refund_is_divided_over_the_shards_of_a_bucket_that_was_split_meanwhile() {
    for (held, shards) in [(1500, 2), (1500, 8), (900, 4), (1000, 32)] {
        let (mut desk, grant) = lease(held, shards);
        let (before, counted) = sums(&desk);
        assert!(before <= 100_000);
        let end = desk.credit(&grant, &[("rpm", held)]);
        assert!(matches!(end, CreditEnd::Applied), "{end:?}");
        let refund = i128::from(held) * 1000;
        assert_eq!(
            sums(&desk),
            (before + refund, counted - refund),
            "{held} of {shards}"
        );
        // No refill has anything to cut, and all of it can be spent.
        for shard in 0..shards {
            let full = i128::from(LIMIT) * 1000 / i128::from(shards);
            assert!(desk.int("u", shard, "b_rpm_tk") <= full);
            assert!(!desk.item("u", shard).contains_key("vu"));
        }
        desk.admitted("u", &[("rpm", held)]);
    }
}

#[test]
fn what_no_shard_has_room_for_is_cut_by_the_next_refill() {
    let (mut desk, grant) = lease(1500, 4);
    desk.now += 3_600_000;
    let end = desk.credit(&grant, &[("rpm", 1500)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    // The refused write, the shards, and the write that goes above.
    assert_eq!(desk.ops.len(), 3);
    assert_eq!(desk.item("u", 0).get("vu"), Some(&Value::int(0)));
    desk.admitted("u", &[("rpm", LIMIT)]);
    desk.rejected("u", &[("rpm", 1)]);
}

#[test]
fn a_refund_that_fits_its_shard_is_not_divided() {
    let (mut desk, grant) = lease(1500, 2);
    desk.credit(&grant, &[("rpm", 700)]);
    // The first is refused: the lease knows the ceiling from before the split.
    assert_eq!(desk.ops.len(), 2);
    assert!(desk.ops.iter().all(|op| matches!(op, Op::Update(_))));
}

#[test]
fn a_surplus_stays_with_the_shard_while_those_that_descend_from_it_are_missing() {
    let mut desk = Desk::with(&[per_minute("rpm", LIMIT)]);
    let grant = desk.admitted("u", &[("rpm", 1500)]).remove(0);
    desk.poke("u", 0, &[("shard_count", Value::int(4))]);
    assert!(matches!(
        desk.credit(&grant, &[("rpm", 1500)]),
        CreditEnd::Applied
    ));
    desk.forget();
    desk.admitted("u", &[("rpm", LIMIT)]);
}

#[test]
fn each_part_happens_once_whatever_becomes_of_its_answer() {
    for lost_at in 0..10 {
        for happens in [false, true] {
            let (mut desk, grant) = lease(1500, 4);
            let (before, counted) = sums(&desk);
            desk.dice = Dice(lost_at as u64);
            desk.meddle = Some(Box::new(move |call, op, table| {
                let is_lost = call == lost_at && matches!(op, Op::Update(_));
                is_lost.then(|| {
                    if happens {
                        table.call(op).unwrap();
                    }
                    Err(TableError::new(
                        FailureKind::Timeout,
                        Applied::Unknown,
                        "no answer",
                    ))
                })
            }));
            let end = desk.credit(&grant, &[("rpm", 1500)]);
            assert!(matches!(end, CreditEnd::Applied), "call {lost_at}: {end:?}");
            assert_eq!(
                sums(&desk),
                (before + 1_500_000, counted - 1_500_000),
                "call {lost_at}"
            );
        }
    }
}

/// A sibling is deleted, or filled by others, between the look and the part: the part goes elsewhere.
#[test]
fn what_a_shard_does_not_take_any_more_goes_elsewhere() {
    for fills in [false, true] {
        let (mut desk, grant) = lease(900, 4);
        let (id, mut is_done) = (desk.id("u"), false);
        desk.meddle = Some(Box::new(move |_, op, table| {
            let Op::Update(update) = op else { return None };
            let (_, shard) = zae_limiter_core::schema::BucketId::parse(&update.key)?;
            if shard == 0 || is_done {
                return None;
            }
            is_done = true;
            let key = id.key(shard);
            if fills {
                let mut item = table.get(&key)?.clone();
                item.insert("b_rpm_tk".into(), Value::int(400_000));
                table.insert(item).ok()?;
            } else {
                table.remove(&key);
            }
            None
        }));
        let end = desk.credit(&grant, &[("rpm", 900)]);
        assert!(matches!(end, CreditEnd::Applied), "{end:?}");
        let (held, _) = sums(&desk);
        let least = if fills { 1_300_000 } else { 900_000 };
        assert!((least..=least + 100_000).contains(&held), "{held}");
        if fills {
            desk.admitted("u", &[("rpm", 1300)]);
        }
    }
}
