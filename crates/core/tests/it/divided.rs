//! Refunds of leases that were held while their bucket was split: nothing that the bucket has room for is lost.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use zae_limiter_core::acquire::Grant;
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Value};

use crate::drive::{Desk, Dice, per_minute};
use crate::shapes::{at, daily};

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

/// The bucket has a quota as well, which its level names or does not name any more. It was split by another client.
#[test]
fn a_refund_is_divided_although_the_bucket_has_a_quota() {
    for is_named in [true, false] {
        let rate = per_minute("rpm", LIMIT);
        let limits = [rate.clone(), daily().build().unwrap()];
        let mut desk = Desk::with(&limits);
        desk.now = at("2027-03-10T09:00:00Z");
        let grant = desk.admitted("u", &[("rpm", 1500), ("rpd", 300)]).remove(0);
        let mut second = desk.item("u", 0).clone();
        second.insert("PK".into(), Value::S(desk.id("u").key(1).pk));
        second.insert("b_rpd_tk".into(), Value::int(300_000));
        second.insert("b_rpd_gc".into(), Value::int(2));
        desk.table.insert(second).unwrap();
        desk.poke("u", 0, &[("b_rpd_tk", Value::int(400_000))]);
        for shard in 0..2 {
            let parts = [("shard_count", 2), ("b_rpm_tk", 50_000)];
            desk.poke("u", shard, &parts.map(|(name, n)| (name, Value::int(n))));
        }
        if !is_named {
            desk.configure_resource(std::slice::from_ref(&rate));
        }
        let end = desk.credit(&grant, &[("rpm", 1500), ("rpd", 300)]);
        assert!(matches!(end, CreditEnd::Applied), "{end:?}");
        for (shard, quota) in [(0, 700_000), (1, 300_000)] {
            assert_eq!(desk.int("u", shard, "b_rpm_tk"), 800_000, "{is_named}");
            assert_eq!(desk.int("u", shard, "b_rpd_tk"), quota, "{is_named}");
        }
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

/// Loses the answers to these calls, whether what they asked for happens or not.
fn lose(desk: &mut Desk, calls: Vec<usize>, happens: bool) {
    desk.meddle = Some(Box::new(move |call, op, table| {
        let is_lost = calls.contains(&call) && matches!(op, Op::Update(_));
        is_lost.then(|| {
            if happens {
                table.call(op).unwrap();
            }
            let kind = FailureKind::Timeout;
            Err(TableError::new(kind, Applied::Unknown, "no answer"))
        })
    }));
}

#[test]
fn each_part_happens_once_whatever_becomes_of_its_answer() {
    for (first, second) in (0..10).flat_map(|first| (first..10).map(move |second| (first, second))) {
        for happens in [false, true] {
            let (mut desk, grant) = lease(1500, 4);
            let (before, counted) = sums(&desk);
            desk.dice = Dice(first as u64);
            lose(&mut desk, vec![first, second], happens);
            let end = desk.credit(&grant, &[("rpm", 1500)]);
            assert!(
                matches!(end, CreditEnd::Applied),
                "calls {first}, {second}: {end:?}"
            );
            let given_back = (before + 1_500_000, counted - 1_500_000);
            assert_eq!(sums(&desk), given_back, "calls {first}, {second}");
            desk.meddle = None;
            for shard in 0..4 {
                assert!(
                    !desk.item("u", shard).contains_key("vu"),
                    "calls {first}, {second}"
                );
            }
            desk.admitted("u", &[("rpm", 1500)]);
        }
    }
}

/// A part does not fit any more, and from then on the shards cannot be read.
#[test]
fn a_refund_ends_although_the_shards_can_never_be_read_again() {
    fn fails(kind: FailureKind) -> Result<Answer, TableError> {
        Err(TableError::new(kind, Applied::No, "fails"))
    }
    type Answers = fn() -> Result<Answer, TableError>;
    let answers: [(Answers, usize); 4] = [
        (|| fails(FailureKind::AccessDenied), 1),
        (|| fails(FailureKind::Timeout), 31),
        (|| fails(FailureKind::Throttled), 31),
        (|| Ok(Answer::Applied(None)), 1),
    ];
    for (answer, reads) in answers {
        let (mut desk, grant) = lease(1500, 4);
        let before = sums(&desk).0;
        let others = [1, 2, 3].map(|shard| desk.id("u").key(shard));
        let mut has_read = false;
        desk.meddle = Some(Box::new(move |_, op, table| {
            if !matches!(op, Op::BatchGet { .. }) {
                return None;
            }
            if has_read {
                return Some(answer());
            }
            has_read = true;
            let shards = table.call(op);
            for key in &others {
                let mut full = table.get(key)?.clone();
                full.insert("b_rpm_tk".into(), Value::int(400_000));
                table.insert(full).ok()?;
            }
            Some(shards)
        }));
        let end = desk.credit(&grant, &[("rpm", 1500)]);
        assert!(matches!(end, CreditEnd::Applied), "{end:?}");
        let read = desk.ops.iter().filter(|op| matches!(op, Op::BatchGet { .. }));
        assert_eq!(read.count(), 1 + reads);
        // The shard that was debited has all of it, the next refill cuts what is above its share.
        assert!(sums(&desk).0 > before + 1_500_000);
        assert_eq!(desk.item("u", 0).get("vu"), Some(&Value::int(0)));
    }
}

/// The first sending arrives after the refund was divided, when its shard has room for it again.
#[test]
fn what_was_sent_before_the_division_cannot_happen_after_it() {
    let mut arrived = 0;
    for late_before in 3..8 {
        let (mut desk, grant) = lease(300, 4);
        desk.poke("u", 0, &[("b_rpm_tk", Value::int(0))]);
        let latest = Bucket::decode(desk.item("u", 0)).unwrap();
        desk.poke("u", 0, &[("b_rpm_tk", Value::int(400_000))]);
        let (before, counted) = sums(&desk);
        let (key, hits) = (desk.id("u").key(0), Rc::new(Cell::new(0)));
        let (mut late, seen) = (None, Rc::clone(&hits));
        desk.meddle = Some(Box::new(move |call, op, table| {
            if call == 0 {
                late = Some(op.clone());
                let kind = FailureKind::Timeout;
                return Some(Err(TableError::new(kind, Applied::Unknown, "no answer")));
            }
            if call == late_before {
                let full = table.get(&key)?.clone();
                let mut spent = full.clone();
                spent.insert("b_rpm_tk".into(), Value::int(0));
                table.insert(spent).ok()?;
                let answer = table.call(late.as_ref()?);
                assert!(matches!(answer, Ok(Answer::Refused(_))), "{answer:?}");
                seen.set(seen.get() + 1);
                table.insert(full).ok()?;
            }
            None
        }));
        let end = desk.credit_by(&grant, Some(Arc::new(latest)), &[("rpm", 300)]);
        assert!(matches!(end, CreditEnd::Applied), "{end:?}");
        assert_eq!(sums(&desk), (before + 300_000, counted - 300_000));
        arrived += hits.get();
    }
    assert!(arrived > 1);
}

/// Another client's repetition moves the fence while the sendings before are fenced off.
#[test]
fn a_fence_moved_by_another_does_not_lose_the_refund() {
    let (mut desk, grant) = lease(1500, 4);
    let (before, counted) = sums(&desk);
    let key = desk.id("u").key(0);
    desk.meddle = Some(Box::new(move |call, op, table| {
        let kind = FailureKind::Timeout;
        if call == 0 {
            return Some(Err(TableError::new(kind, Applied::Unknown, "no answer")));
        }
        if call == 2 {
            assert!(matches!(op, Op::Update(update) if update.set.iter().all(|(attr, _)| attr == "cf")));
            let mut item = table.get(&key)?.clone();
            let fence = item["cf"].as_text()?.to_owned();
            item.insert("cf".into(), Value::S(format!("{fence}.other")));
            table.insert(item).ok()?;
        }
        None
    }));
    let end = desk.credit(&grant, &[("rpm", 1500)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    assert_eq!(sums(&desk), (before + 1_500_000, counted - 1_500_000));
    desk.meddle = None;
    desk.admitted("u", &[("rpm", 1500)]);
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

/// While a bucket is split under load, shards are filled and emptied between each look and the part that follows it.
#[test]
fn a_refund_whose_parts_are_displaced_again_and_again_is_not_cut() {
    let (mut desk, grant) = lease(900, 4);
    let (id, mut displaced) = (desk.id("u"), 0);
    desk.meddle = Some(Box::new(move |_, op, table| {
        let Op::Update(update) = op else { return None };
        let (_, target) = zae_limiter_core::schema::BucketId::parse(&update.key)?;
        if target == 0 || displaced == 8 {
            return None;
        }
        displaced += 1;
        // There is room, but not where the part goes.
        for shard in 1..4 {
            let mut item = table.get(&id.key(shard))?.clone();
            let held = if shard == target { 400_000 } else { 0 };
            item.insert("b_rpm_tk".into(), Value::int(held));
            table.insert(item).ok()?;
        }
        None
    }));
    let end = desk.credit(&grant, &[("rpm", 900)]);
    assert!(matches!(end, CreditEnd::Applied), "{end:?}");
    for shard in 0..4 {
        assert!(desk.int("u", shard, "b_rpm_tk") <= 400_000, "shard {shard}");
        assert!(!desk.item("u", shard).contains_key("vu"), "shard {shard}");
    }
}
