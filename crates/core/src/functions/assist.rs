//! What the table's functions do for hot buckets, seen through the stream: refill them before a request has to,
//! and split them before their writes are throttled.
//!
//! Images from a stream are seconds old. They never admit anything: each write is pinned to the image it was
//! made from, as a client's are, and a bucket that has moved on is left to its clients.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::bucket::{Bucket, MAX_SHARDS};
use crate::schema::BucketId;
use crate::table::Update;
use crate::terms::Turn;
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Amounts, RefillDebit, Ttl};

/// Of the write units, in percent, below which a bucket is split.
const LOW_WATER_PERCENT: i128 = 20;

/// The recent consumption of each limit.
pub type Consumed = BTreeMap<SmolStr, Millitokens>;

/// The write that refills a shard, if a limit would otherwise not cover as much again as `consumed`.
///
/// It refills every limit, so that no limit loses its refill. Guards everything that a client's refilling
/// write does; refused means that another client was first. `None` also for what this version cannot
/// evaluate, and for buckets whose next request must look for itself.
pub fn refill(
    id: &BucketId,
    shard: u32,
    image: &Bucket,
    consumed: &Consumed,
    now: EpochMillis,
) -> Option<Update> {
    // A forced pass is for a surplus, which may belong to shards that do not exist yet.
    let is_open = image.unsupported.is_none() && image.valid_until != Some(0) && !image.disabled;
    if !is_open || image.is_expired(now) {
        return None;
    }
    let has_surplus = |limit: &crate::bucket::BucketLimit| limit.balance.0 > image.ceiling(limit, now);
    if image.shard_count > 1 && image.limits.iter().any(has_surplus) {
        // It may belong to shards that do not exist yet, which a client creates before a refill cuts it.
        return None;
    }
    let refilled = write::refill_all(image, None, now);
    let runs_dry = |r: &write::Refilled<'_>| {
        let spent = consumed.get(&r.limit.name).copied().unwrap_or_default();
        r.balance.tokens > r.limit.balance && r.balance.tokens < spent
    };
    if refilled.iter().any(|r| r.turn == Turn::Opens) {
        // Only a use begins a session, and the use looks for itself.
        return None;
    }
    if image.is_valid(now) && !refilled.iter().any(runs_dry) {
        return None;
    }
    let change = RefillDebit {
        amounts: &Amounts::new(),
        seeds: &[],
        ttl: Ttl::Keep,
        is_use: false,
        config: None,
    };
    Some(write::refill_debit(id.key(shard), image, &refilled, &change, now))
}

/// The write that doubles a bucket's shards, if its first shard is about to run out of write units, and the
/// count it doubles to.
///
/// Guards the count. As a client does, it leaves every share at least a token.
pub fn split(id: &BucketId, image: &Bucket, now: EpochMillis) -> Option<(Update, u32)> {
    let wcu = image.wcu.as_ref()?;
    let capacity = wcu.params.capacity.max(0);
    let left = image.balance(wcu, now).refilled(wcu.params, now).tokens.0;
    let is_low = capacity > 0 && left.saturating_mul(100) < capacity.saturating_mul(LOW_WATER_PERCENT);
    let count = image.shard_count.saturating_mul(2);
    let is_useful =
        |limit: &crate::bucket::BucketLimit| image.terms_among(limit, count).share(now).capacity >= 1000;
    let may = image.unsupported.is_none() && !image.has_quota() && !image.disabled && count <= MAX_SHARDS;
    let held = image.limits.iter().map(|limit| limit.name.as_str());
    (is_low && may && image.limits.iter().all(is_useful))
        .then(|| (write::double(id.key(0), image.shard_count, held, []), count))
}

/// Writes the count of a doubling to `count` to the shards below `from`. Guards that no count is lowered.
pub fn propagate(id: &BucketId, from: u32, count: u32) -> Vec<Update> {
    (1..from.min(MAX_SHARDS))
        .map(|shard| write::propagate(id.key(shard), count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTable;
    use crate::name::{EntityId, NamespaceId, ResourceName};
    use crate::table::{Answer, Item, Op, Value};

    const START: EpochMillis = EpochMillis(1_795_290_198_000);

    fn bucket() -> BucketId {
        BucketId {
            namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
            entity: EntityId::new("key-1").unwrap(),
            resource: ResourceName::new("gpt-4").unwrap(),
        }
    }

    /// 1000 tokens a minute, of which `tk` are left; a bucket of `count` shards.
    fn item(tk: i64, wcu: i64, count: u32) -> Item {
        let mut item = bucket().key_attributes(0);
        for (name, value) in [
            ("rf", START.0),
            ("shard_count", count.into()),
            ("b_tpm_tk", tk * 1000),
            ("b_tpm_tc", 0),
            ("b_tpm_cp", 1_000_000),
            ("b_tpm_ra", 1_000_000),
            ("b_tpm_rp", 60_000),
            ("b_wcu_tk", wcu * 1000),
            ("b_wcu_tc", 0),
            ("b_wcu_cp", 1_000_000),
            ("b_wcu_ra", 1_000_000),
            ("b_wcu_rp", 1000),
        ] {
            item.insert(name.into(), Value::int(value));
        }
        item.insert("cascade".into(), Value::Bool(false));
        item
    }

    fn spent(tokens: i64) -> Consumed {
        Consumed::from([("tpm".into(), Millitokens::from_tokens(tokens))])
    }

    fn refill_of(item: &Item, tokens: i64, now: EpochMillis) -> Option<Update> {
        refill(&bucket(), 0, &Bucket::decode(item).unwrap(), &spent(tokens), now)
    }

    #[test]
    fn a_bucket_that_would_run_dry_is_refilled_once() {
        let stored = item(100, 900, 1);
        let later = START.plus(6_000);
        // 200 tokens do not cover another 300.
        let update = refill_of(&stored, 300, later).unwrap();
        let mut table = MemoryTable::new();
        table.insert(stored.clone()).unwrap();
        let answer = table.call(&Op::Update(update.clone())).unwrap();
        let Answer::Applied(Some(now)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(now["b_tpm_tk"], Value::int(200_000));
        assert_eq!(now["b_wcu_tk"], Value::int(1_000_000));
        assert_eq!(now["rf"], Value::int(later.0));
        assert_eq!(now["b_tpm_tc"], Value::int(0));
        let again = table.call(&Op::Update(update)).unwrap();
        assert!(matches!(again, Answer::Refused(_)));
        // They cover another 150.
        assert_eq!(refill_of(&stored, 150, later), None);
        // Nothing was earned.
        assert_eq!(refill_of(&stored, 300, START), None);
    }

    #[test]
    fn a_refund_in_between_is_not_stacked_on_the_refill() {
        let mut stored = item(100, 900, 1);
        let update = refill_of(&stored, 5000, START.plus(55_000)).unwrap();
        stored.insert("b_tpm_tk".into(), Value::int(900_000));
        let mut table = MemoryTable::new();
        table.insert(stored).unwrap();
        let answer = table.call(&Op::Update(update)).unwrap();
        assert!(matches!(answer, Answer::Refused(_)));
    }

    #[test]
    fn shares_are_refilled_up_to_the_share() {
        let update = refill_of(&item(0, 900, 4), 5000, START.plus(60_000)).unwrap();
        let gained = update.add.iter().find(|(name, _)| name == "b_tpm_tk").unwrap();
        assert_eq!(gained.1, 250_000);
    }

    #[test]
    fn a_bucket_without_write_units_is_split_however_few_it_has() {
        let mut stored = item(100, 0, 1);
        for tokens in [0, -1, -(10_i128.pow(38) - 1)] {
            stored.insert("b_wcu_tk".into(), Value::int(tokens));
            let image = Bucket::decode(&stored).unwrap();
            let (_, count) = split(&bucket(), &image, START).unwrap();
            assert_eq!(count, 2, "{tokens}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_left_alone() {
        for (name, value) in [
            ("disabled", Value::Bool(true)),
            ("vu", Value::int(0)),
            ("sched", Value::text("2m0s500")),
            ("b_tpm_rsa", Value::int(3600)),
            ("ttl", Value::int(START.secs())),
        ] {
            let mut stored = item(0, 900, 1);
            stored.insert(name.into(), value);
            assert_eq!(refill_of(&stored, 500, START.plus(60_000)), None, "{name}");
        }
    }

    #[test]
    fn a_bucket_is_brought_over_a_boundary() {
        let mut stored = item(1000, 900, 1);
        stored.insert("sched".into(), Value::text("1h19s500"));
        let boundary = EpochMillis::parse("2026-11-21T20:00:00Z").unwrap();
        stored.insert("vu".into(), Value::int(boundary.0));
        // 500 fit from 19:00 to 20:00.
        assert_eq!(refill_of(&stored, 5, boundary.plus(-1)), None);
        let update = refill_of(&stored, 5, boundary).unwrap();
        let set = |name: &str| {
            update
                .set
                .iter()
                .find(|(attr, _)| attr == name)
                .map(|(_, value)| value.clone())
        };
        assert_eq!(set("vu"), Some(Value::int(boundary.plus(23 * 3_600_000).0)));
        let mut after = stored.clone();
        update.apply(&mut after);
        assert_eq!(after["b_tpm_tk"], Value::int(500_000));
        // A session that is over is left to its next use.
        stored.retain(|name, _| name != "sched");
        stored.insert("b_tpm_ra".into(), Value::int(0));
        stored.insert("b_tpm_rsa".into(), Value::int(60));
        stored.insert("b_tpm_ws".into(), Value::int(START.0));
        stored.insert("vu".into(), Value::int(START.plus(60_000).0));
        assert_eq!(refill_of(&stored, 5000, START.plus(60_000)), None);
    }

    #[test]
    fn a_bucket_short_of_write_units_is_split() {
        let split_of = |item: &Item, now| split(&bucket(), &Bucket::decode(item).unwrap(), now);
        assert_eq!(split_of(&item(100, 199, 1), START).unwrap().1, 2);
        assert_eq!(split_of(&item(100, 200, 1), START), None);
        // By now it has earned them back.
        assert_eq!(split_of(&item(100, 0, 1), START.plus(500)), None);
        assert_eq!(split_of(&item(100, 0, 16), START).unwrap().1, 32);
        assert_eq!(split_of(&item(100, 0, 32), START), None);
        // No share would hold a token.
        let mut small = item(100, 0, 1);
        small.insert("b_tpm_cp".into(), Value::int(1500));
        assert_eq!(split_of(&small, START), None);
        assert_eq!(propagate(&bucket(), 4, 8).len(), 3);
        assert!(propagate(&bucket(), 1, 2).is_empty());
    }
}
