//! Buckets that are deleted and created again under traffic: nothing of one life reaches the next.

use std::cell::RefCell;
use std::rc::Rc;

use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::removal::delete_bucket;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Item, Op, Part, TableError, Value};

use crate::drive::{Desk, Dice, per_minute};

const LIMIT: i64 = 1600;

/// A bucket of 1,600 tokens in this many shards, of which 100 tokens are left. `life` tells lives apart.
fn split(life: u64, shards: u32) -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", LIMIT)]);
    desk.dice = Dice(life);
    desk.admitted("u", &[("rpm", LIMIT - 100)]);
    desk.poke("u", 0, &[("shard_count", Value::int(shards))]);
    // No shard covers it, so all that are missing are created.
    desk.rejected("u", &[("rpm", LIMIT)]);
    desk
}

fn items(table: &MemoryTable, id: &BucketId) -> Vec<Item> {
    (0..32)
        .filter_map(|shard| table.get(&id.key(shard)).cloned())
        .collect()
}

/// Deletes a bucket, and puts these items in its place.
fn replace(table: &mut MemoryTable, id: &BucketId, next: &[Item]) {
    let first = Bucket::decode(table.get(&id.key(0)).unwrap()).unwrap();
    let op = delete_bucket(id, &first, []).unwrap();
    assert!(matches!(table.call(&op), Ok(Answer::Applied(_))));
    assert_eq!(items(table, id), [] as [Item; 0]);
    for item in next {
        table.insert(item.clone()).unwrap();
    }
}

fn sums(desk: &Desk) -> (i128, i128) {
    let items = items(&desk.table, &desk.id("u"));
    let sum = |name: &str| items.iter().map(|item| item[name].as_int().unwrap()).sum();
    (sum("b_rpm_tk"), sum("b_rpm_tc"))
}

#[test]
fn a_bucket_is_deleted_with_all_shards_of_its_count_or_not_at_all() {
    for shards in [1, 2, 8, 32] {
        let mut desk = split(7, 1);
        let id = desk.id("u");
        let unsplit = Bucket::decode(desk.item("u", 0)).unwrap();
        let too_late = delete_bucket(&id, &unsplit, []).unwrap();
        desk = split(7, shards);
        let answer = desk.table.call(&too_late).unwrap();
        assert_eq!(matches!(answer, Answer::Applied(_)), shards == 1, "{answer:?}");
        if shards > 1 {
            assert_eq!(items(&desk.table, &id).len(), shards as usize);
            replace(&mut desk.table, &id, &[]);
        }
        assert_eq!(items(&desk.table, &id).len(), 0);
        let gone = desk.table.call(&too_late).unwrap();
        assert_eq!(gone, Answer::Refused(None));
        assert_eq!(items(&desk.table, &id).len(), 0, "nothing was created");
    }
    let mut image = Bucket::decode(split(7, 1).item("u", 0)).unwrap();
    image.shard_count = 64;
    assert_eq!(delete_bucket(&split(7, 1).id("u"), &image, []), None);
}

/// The request has found shard 2 or 3 without write units, and then the bucket is deleted and created again in one
/// piece, without tokens.
#[test]
fn no_shard_of_a_former_life_is_created_beside_the_first_of_the_next() {
    for dice in 0..40 {
        let mut desk = split(7, 4);
        for shard in 0..4 {
            let has_tokens = ("b_rpm_tk", Value::int(100_000));
            desk.poke("u", shard, &[("b_wcu_tk", Value::int(0)), has_tokens]);
        }
        let mut next = split(8, 1);
        next.poke("u", 0, &[("b_rpm_tk", Value::int(0))]);
        let (id, next) = (desk.id("u"), items(&next.table, &desk.id("u")));
        desk.dice = Dice(dice);
        desk.meddle = Some(Box::new(move |call, _, table| {
            if call == 1 {
                replace(table, &id, &next);
            }
            None
        }));
        desk.rejected("u", &[("rpm", 1)]);
        assert_eq!(items(&desk.table, &desk.id("u")).len(), 1, "{dice}");
    }
}

/// The refund does not fit the shard that was debited, since the bucket was split. Before the shards are read, or while
/// they are, the bucket is deleted and created again.
#[test]
fn a_refund_of_a_former_life_is_not_divided_over_the_shards_of_the_next() {
    for reads_between in [false, true] {
        let mut desk = Desk::with(&[per_minute("rpm", LIMIT)]);
        let grant = desk.admitted("u", &[("rpm", LIMIT - 100)]).remove(0);
        desk.poke("u", 0, &[("shard_count", Value::int(4))]);
        desk.rejected("u", &[("rpm", LIMIT)]);
        let (id, next) = (desk.id("u"), items(&split(8, 4).table, &desk.id("u")));
        desk.meddle = Some(Box::new(move |call, op, table| {
            if call != 1 {
                return None;
            }
            assert!(matches!(op, Op::BatchGet { .. }));
            let home = table.get(&id.key(0))?.clone();
            replace(table, &id, &next);
            let mixed = std::iter::once(home).chain(next[1..].iter().cloned());
            reads_between.then(|| Ok(Answer::Items(mixed.collect())))
        }));
        let end = desk.credit(&grant, &[("rpm", LIMIT - 100)]);
        assert!(matches!(end, CreditEnd::Gone), "{end:?}");
        assert_eq!(sums(&desk), (100_000, 1_500_000), "{reads_between}");
    }
}

/// The transaction that creates shard 1 arrives after the bucket was deleted, created again and split as far.
#[test]
fn a_shard_is_created_only_in_the_life_that_it_was_planned_for() {
    // With tokens of shard 0, and with what its part has earned in a minute.
    for held in [1600, 800] {
        let doubled = |life| {
            let mut desk = Desk::with(&[per_minute("rpm", LIMIT)]);
            desk.dice = Dice(life);
            desk.admitted("u", &[("rpm", 0)]);
            desk.poke(
                "u",
                0,
                &[("shard_count", Value::int(2)), ("rf", Value::int(desk.now))],
            );
            desk
        };
        let mut desk = doubled(7);
        desk.poke("u", 0, &[("b_rpm_tk", Value::int(held * 1000))]);
        desk.now += 60_000;
        desk.remember_only_the_count("u", 2);
        let late = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&late);
        desk.meddle = Some(Box::new(move |_, op, _| {
            let Op::Transact(parts) = op else { return None };
            assert!(matches!(parts[0], Part::Put(_)));
            kept.borrow_mut().get_or_insert_with(|| op.clone());
            let kind = FailureKind::Timeout;
            Some(Err(TableError::new(kind, Applied::Unknown, "no answer")))
        }));
        for dice in 0..20 {
            desk.dice = Dice(dice);
            if late.borrow().is_none() {
                desk.acquire("u", &[("rpm", 1)]);
            }
        }
        let late = late.borrow_mut().take().unwrap();
        let (id, next) = (desk.id("u"), items(&doubled(8).table, &desk.id("u")));
        replace(&mut desk.table, &id, &next);
        let answer = desk.table.call(&late).unwrap();
        assert!(matches!(answer, Answer::Cancelled(_)), "{held}: {answer:?}");
        assert_eq!(sums(&desk), (1_600_000, 0));
    }
}

/// The process remembers more shards than one, and looks for them when it does not find the first. By then, another
/// process has created the bucket and split it.
#[test]
fn a_bucket_that_is_found_created_and_split_is_debited_once() {
    for dice in 0..20 {
        let mut desk = split(7, 4);
        let (id, next) = (desk.id("u"), items(&split(8, 1).table, &desk.id("u")));
        let first = Bucket::decode(desk.item("u", 0)).unwrap();
        desk.table.call(&delete_bucket(&id, &first, []).unwrap()).unwrap();
        let mut next = next[0].clone();
        next.insert("shard_count".into(), Value::int(8));
        next.insert("b_rpm_tk".into(), Value::int(1_600_000));
        let mut is_there = false;
        desk.dice = Dice(dice);
        desk.meddle = Some(Box::new(move |_, op, table| {
            if matches!(op, Op::BatchGet { keys, .. } if keys[0] == id.key(0)) && !is_there {
                is_there = true;
                table.insert(next.clone()).unwrap();
            }
            None
        }));
        let grants = desk.admitted("u", &[("rpm", 10)]);
        let taken: i128 = grants.iter().flat_map(|g| &g.amounts).map(|(_, n)| n.0).sum();
        assert_eq!(taken, 10_000);
        assert_eq!(sums(&desk), (1_590_000, 1_500_000 + 10_000), "{dice}");
    }
}

/// The shards are read while the bucket is deleted.
#[test]
fn a_bucket_of_which_only_other_shards_were_seen_begins_whole() {
    let mut desk = split(7, 4);
    let (id, others) = (desk.id("u"), items(&desk.table, &desk.id("u"))[1..].to_vec());
    let first = Bucket::decode(desk.item("u", 0)).unwrap();
    desk.table.call(&delete_bucket(&id, &first, []).unwrap()).unwrap();
    let mut reads = 0;
    desk.meddle = Some(Box::new(move |_, op, _| {
        let is_read = matches!(op, Op::BatchGet { keys, .. } if keys.len() == 4);
        reads += u32::from(is_read);
        (is_read && reads == 1).then(|| Ok(Answer::Items(others.clone())))
    }));
    desk.admitted("u", &[("rpm", 10)]);
    assert_eq!(sums(&desk), (1_590_000, 10_000));
}

/// A debit cannot be read. When it is taken back, the bucket has been created again.
#[test]
fn a_debit_that_cannot_be_read_is_not_taken_back_from_the_next_life() {
    let mut desk = split(7, 1);
    let (id, next) = (desk.id("u"), items(&split(8, 1).table, &desk.id("u")));
    desk.meddle = Some(Box::new(move |call, op, table| {
        if call == 0 {
            let answer = table.call(op).unwrap();
            let Answer::Applied(Some(mut item)) = answer else {
                return None;
            };
            item.insert("rf".into(), Value::text("soon"));
            return Some(Ok(Answer::Applied(Some(item))));
        }
        replace(table, &id, &next);
        None
    }));
    desk.failed("u", &[("rpm", 50)]);
    assert_eq!(sums(&desk), (100_000, 1_500_000));
}
