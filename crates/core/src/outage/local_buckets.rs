//! Limits in memory, for when the table is out of reach and the operator chose to continue with a part of them.
//!
//! Each process holds its own buckets at a percentage of the configured limits; with `N` processes at `p`
//! percent, at most `N * p` percent of a limit are admitted while the table is away. Nothing is written, and
//! nothing is carried over into the table when it comes back.
//!
//! A request is bounded by what the caches last held: the limits and flags of the entity, and of its parent if it
//! cascades. A bucket is removed only when it is full again, since a removed bucket starts full; and if calls with
//! different limits have debited it, when it would be full under each of them. Memory is bounded: once it holds
//! 100,000 limits that are not full, requests that need another one are refused. Debts come on top: whether a lease
//! may be charged was decided when it was granted.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Percent;
use crate::limit::{Limit, Params, Recovery};
use crate::name::{EntityId, LimitName, ResourceName};
use crate::refill::{Balance, Wait};
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::{LimitStatus, RateLimitExceeded};

/// How many limits of entities are held.
const BOUND: usize = 100_000;

/// A lock each, so that requests of different entities rarely wait for each other.
const SHARDS: usize = 64;

/// How many entries an insertion looks at, to find some that are full again. One that is removed is replaced by the
/// newest, so half of them may be checked without a result.
const STEPS: usize = 4;

/// The same, for an insertion that finds no room.
const STEPS_WITHOUT_ROOM: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    entity: EntityId,
    resource: ResourceName,
    limit: LimitName,
}

/// One limit of an entity, as this process enforces it: its part.
#[derive(Debug, Clone)]
pub struct Claim {
    key: Key,
    params: Params,
}

impl Claim {
    /// The part of a limit that this process enforces at `now`.
    pub fn new(
        entity: &EntityId,
        resource: &ResourceName,
        limit: &Limit,
        part: Percent,
        now: EpochMillis,
    ) -> Self {
        Self {
            key: Key {
                entity: entity.clone(),
                resource: resource.clone(),
                limit: limit.name().clone(),
            },
            params: scaled(limit, part, now),
        }
    }

    /// The entity that has the limit.
    pub fn entity(&self) -> &EntityId {
        &self.key.entity
    }

    /// The resource.
    pub fn resource(&self) -> &ResourceName {
        &self.key.resource
    }

    /// The limit's name.
    pub fn limit(&self) -> &LimitName {
        &self.key.limit
    }

    fn full(&self, now: EpochMillis) -> Balance {
        Balance::new(Millitokens(self.params.capacity), now)
    }
}

/// Why nothing was taken.
#[derive(Debug)]
pub enum Refused {
    /// This process's part of a limit is used up.
    Exceeded(RateLimitExceeded),
    /// There is no memory for another limit.
    Full,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    params: Params,
    balance: Balance,
    /// Until it would be full under parameters that it had before.
    kept_until: EpochMillis,
}

impl Entry {
    fn is_full(&self, now: EpochMillis) -> bool {
        now >= self.kept_until && self.balance.refilled(self.params, now).tokens.0 >= self.params.capacity
    }

    fn set(&mut self, params: Params, balance: Balance) {
        if params != self.params {
            let Balance { at, .. } = self.balance;
            let full = Millitokens(self.params.capacity);
            let full_at = match self.balance.wait(self.params, full, at) {
                Wait::Millis(millis) => at.plus(millis),
                Wait::Never => EpochMillis(i64::MAX),
            };
            self.kept_until = self.kept_until.max(full_at);
        }
        (self.params, self.balance) = (params, balance);
    }

    /// The balance under other parameters: what was earned so far was earned under the old ones.
    fn under(&self, params: Params, now: EpochMillis) -> Balance {
        if params == self.params {
            return self.balance;
        }
        let so_far = self.balance.refilled(self.params, now);
        Balance::new(so_far.tokens, so_far.at)
    }
}

/// Entries, and a hand that goes round them looking for those that may be removed.
#[derive(Debug)]
struct Shard<S> {
    index: HashMap<Key, usize, S>,
    entries: Vec<Entry>,
    hand: usize,
}

impl<S: BuildHasher> Shard<S> {
    fn get(&self, key: &Key) -> Option<&Entry> {
        self.index.get(key).and_then(|at| self.entries.get(*at))
    }

    fn balance(&self, claim: &Claim, now: EpochMillis) -> Balance {
        self.get(&claim.key)
            .map_or_else(|| claim.full(now), |entry| entry.under(claim.params, now))
    }

    /// Remembers a balance. One that is full need not be.
    fn set(&mut self, claim: &Claim, balance: Balance) {
        if let Some(entry) = self
            .index
            .get(&claim.key)
            .and_then(|at| self.entries.get_mut(*at))
        {
            entry.set(claim.params, balance);
        } else if balance.tokens.0 < claim.params.capacity {
            self.index.insert(claim.key.clone(), self.entries.len());
            self.entries.push(Entry {
                key: claim.key.clone(),
                params: claim.params,
                balance,
                kept_until: EpochMillis(i64::MIN),
            });
        }
    }

    /// From now on, a balance is earned under the parameters of this claim.
    fn retune(&mut self, claim: &Claim, now: EpochMillis) {
        if self
            .get(&claim.key)
            .is_some_and(|entry| entry.params != claim.params)
        {
            let balance = self.balance(claim, now);
            self.set(claim, balance);
        }
    }

    /// Looks at the next few entries and removes those that are full. Returns whether there is room for `more`.
    fn make_room(&mut self, more: usize, bound: usize, now: EpochMillis) -> bool {
        let has_room = |entries: &Vec<Entry>| entries.len() + more <= bound;
        let steps = if has_room(&self.entries) {
            STEPS * more
        } else {
            STEPS_WITHOUT_ROOM * more
        };
        for _ in 0..steps {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            match self.entries.get(self.hand) {
                Some(entry) if entry.is_full(now) => self.forget(self.hand),
                Some(_) => self.hand += 1,
                None => break,
            }
        }
        has_room(&self.entries)
    }

    fn forget(&mut self, at: usize) {
        let gone = self.entries.swap_remove(at);
        self.index.remove(&gone.key);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.key.clone(), at);
        }
    }
}

/// See the [module](self). The hasher is the caller's, so that a run can be repeated.
#[derive(Debug)]
pub struct LocalBuckets<S> {
    shards: Vec<Mutex<Shard<S>>>,
    hasher: S,
    /// How many entries a shard may hold.
    bound: usize,
}

impl<S: BuildHasher + Clone> LocalBuckets<S> {
    /// Buckets for a process with many callers.
    pub fn new(hasher: S) -> Self {
        Self::with_bound(SHARDS, BOUND / SHARDS, hasher)
    }

    /// Buckets under this many locks, each for up to `bound` limits.
    pub fn with_bound(shards: usize, bound: usize, hasher: S) -> Self {
        let shard = |_| {
            Mutex::new(Shard {
                index: HashMap::with_hasher(hasher.clone()),
                entries: Vec::new(),
                hand: 0,
            })
        };
        Self {
            shards: (0..shards.max(1)).map(shard).collect(),
            hasher,
            bound,
        }
    }

    /// All limits of one entity and resource are in one shard.
    fn shard_of(&self, key: &Key) -> usize {
        (self.hasher.hash_one((&key.entity, &key.resource)) % self.shards.len() as u64) as usize
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard<S>> {
        // Nothing panics while holding it.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the amounts: all or none.
    ///
    /// # Errors
    /// This process's part of a limit does not cover its amount, or there is no memory for another limit.
    pub fn take(&self, wanted: &[(Claim, Millitokens)], now: EpochMillis) -> Result<(), Refused> {
        // One lock for each bucket, always in the same order.
        let mut order: Vec<usize> = wanted
            .iter()
            .map(|(claim, _)| self.shard_of(&claim.key))
            .collect();
        order.sort_unstable();
        order.dedup();
        let mut shards: Vec<(usize, MutexGuard<'_, Shard<S>>)> =
            order.into_iter().map(|at| (at, self.lock(at))).collect();

        let mut statuses = Vec::with_capacity(wanted.len());
        let mut after = Vec::with_capacity(wanted.len());
        for (claim, need) in wanted {
            let home = self.shard_of(&claim.key);
            let Some(at) = shards.iter().position(|(shard, _)| *shard == home) else {
                continue;
            };
            let balance = shards[at].1.balance(claim, now);
            let who = (&claim.key.entity, &claim.key.resource);
            let status = LimitStatus::local(who, &claim.key.limit, claim.params, balance, *need, now);
            statuses.push(status);
            let mut left = balance.refilled(claim.params, now);
            left.tokens = left.tokens - *need;
            after.push((at, claim, left));
        }
        if statuses.iter().any(|status| status.exceeded) {
            // The returned waits are those under the limits of this call.
            for (at, claim, _) in after {
                shards[at].1.retune(claim, now);
            }
            return Err(Refused::Exceeded(RateLimitExceeded::new(statuses)));
        }
        for (at, (_, shard)) in shards.iter_mut().enumerate() {
            let is_new =
                |(home, claim, _): &&(usize, &Claim, Balance)| *home == at && shard.get(&claim.key).is_none();
            let more = after.iter().filter(is_new).count();
            if more > 0 && !shard.make_room(more, self.bound, now) {
                return Err(Refused::Full);
            }
        }
        for (at, claim, left) in after {
            shards[at].1.set(claim, left);
        }
        Ok(())
    }

    /// Gives amounts back (positive) or charges them (negative), into debt if need be.
    pub fn correct<'a>(&self, deltas: impl IntoIterator<Item = (&'a Claim, Millitokens)>, now: EpochMillis) {
        for (claim, delta) in deltas {
            let mut shard = self.lock(self.shard_of(&claim.key));
            // The limits in force are those of the last call, not those that the lease was granted under.
            let params = shard.get(&claim.key).map_or(claim.params, |entry| entry.params);
            let claim = &Claim {
                key: claim.key.clone(),
                params,
            };
            // A full bucket was removed, and takes nothing back; but a charge must be kept.
            let mut balance = shard.balance(claim, now).refilled(params, now);
            balance.tokens += delta;
            // What is full again makes room, but a debt is kept in any case.
            shard.make_room(1, self.bound, now);
            shard.set(claim, balance);
        }
    }
}

/// This process's part of a limit, at least one token and one millitoken per period. A quota or a session limit, which no client
/// can reset now, comes back evenly over its period.
fn scaled(limit: &Limit, part: Percent, now: EpochMillis) -> Params {
    let whole = Terms::of(limit, 1).whole(now);
    let period = match limit.recovery() {
        Recovery::Refill { .. } => None,
        Recovery::Resets(resets) => Some(resets.shortest_cycle()),
        Recovery::Session { secs } => Some(Duration::from_secs(*secs)),
    };
    let Params {
        capacity,
        refill,
        period_ms,
    } = period.map_or(whole, |period| Params {
        capacity: whole.capacity,
        refill: whole.capacity,
        period_ms: i128::try_from(period.as_millis()).unwrap_or(i128::MAX).max(1),
    });
    let percent = i128::from(part.get());
    Params {
        capacity: (capacity * percent / 100).max(1000),
        refill: (refill * percent / 100).max(1),
        period_ms,
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    fn new_buckets() -> LocalBuckets<RandomState> {
        LocalBuckets::new(RandomState::new())
    }

    fn small(shards: usize, bound: usize) -> LocalBuckets<RandomState> {
        LocalBuckets::with_bound(shards, bound, RandomState::new())
    }

    fn claim(entity: &str, limit: crate::limit::LimitBuilder, percent: u8) -> Claim {
        let (entity, resource) = (EntityId::new(entity).unwrap(), ResourceName::new("r").unwrap());
        Claim::new(
            &entity,
            &resource,
            &limit.build().unwrap(),
            Percent::new(percent).unwrap(),
            EpochMillis(0),
        )
    }

    fn tokens(tokens: i64) -> Millitokens {
        Millitokens::from_tokens(tokens)
    }

    const DAY: i64 = 86_400_000;

    #[test]
    fn a_process_admits_its_part_and_refills_it() {
        let buckets = new_buckets();
        let rpm = claim("k", Limit::per_minute("rpm", 100), 10);
        let one = [(rpm.clone(), tokens(1))];
        let take = |now| buckets.take(&one, EpochMillis(now));
        for _ in 0..10 {
            take(0).unwrap();
        }
        let Err(Refused::Exceeded(refused)) = take(0) else {
            panic!("admitted beyond its part");
        };
        assert_eq!(refused.retry_after().unwrap().as_millis(), 6000);
        assert!(take(5999).is_err());
        take(6000).unwrap();
        buckets.correct([(&rpm, tokens(1))], EpochMillis(6000));
        take(6000).unwrap();
        assert!(take(6000).is_err());
    }

    #[test]
    fn an_entity_and_its_parent_give_both_or_neither() {
        let buckets = new_buckets();
        let parent = claim("proj", Limit::per_minute("rpm", 3), 100);
        let wanted = |key| {
            [
                (claim(key, Limit::per_minute("rpm", 2), 100), tokens(1)),
                (parent.clone(), tokens(1)),
            ]
        };
        let now = EpochMillis(0);
        for key in ["a", "a", "b"] {
            buckets.take(&wanted(key), now).unwrap();
        }
        for _ in 0..3 {
            let Err(Refused::Exceeded(refused)) = buckets.take(&wanted("b"), now) else {
                panic!("admitted beyond the parent's part");
            };
            assert_eq!(refused.worst().unwrap().entity.as_str(), "proj");
        }
        buckets.correct([(&parent, tokens(1))], now);
        buckets.take(&wanted("b"), now).unwrap();
        assert!(buckets.take(&wanted("c"), now).is_err());
    }

    #[test]
    fn an_exhausted_bucket_is_remembered_until_it_is_full_again() {
        let buckets = small(1, 100);
        let of = |key: &str| [(claim(key, Limit::per_day("rpd", 5), 100), tokens(5))];
        for i in 0..100 {
            buckets.take(&of(&format!("k{i}")), EpochMillis(0)).unwrap();
        }
        let nearly = EpochMillis(DAY - 1);
        for i in 0..100 {
            let again = buckets.take(&of(&format!("k{i}")), nearly);
            assert!(matches!(again, Err(Refused::Exceeded(_))), "k{i}: {again:?}");
        }
        for i in 100..200 {
            let new = buckets.take(&of(&format!("k{i}")), nearly);
            assert!(matches!(new, Err(Refused::Full)), "k{i}: {new:?}");
        }
        for i in 100..200 {
            buckets.take(&of(&format!("k{i}")), EpochMillis(DAY)).unwrap();
        }
        assert_eq!(buckets.lock(0).entries.len(), 100);
        assert_eq!(buckets.lock(0).index.len(), 100);
    }

    #[test]
    fn buckets_in_use_do_not_pile_up() {
        let buckets = small(1, 1000);
        for i in 0..10_000 {
            let one = [(
                claim(&format!("k{i}"), Limit::per_second("rps", 10), 100),
                tokens(1),
            )];
            buckets.take(&one, EpochMillis(i * 10)).unwrap();
        }
        // A bucket is full again after 100 ms, in which 10 others are used.
        let shard = buckets.lock(0);
        assert!(shard.entries.len() <= 60, "{}", shard.entries.len());
        for (at, entry) in shard.entries.iter().enumerate() {
            assert_eq!(shard.index[&entry.key], at);
        }
    }

    #[test]
    fn a_charge_is_remembered_though_the_bucket_was_forgotten() {
        let buckets = small(1, 2);
        let slow = claim("slow", Limit::per_minute("rpm", 60), 100);
        buckets
            .take(&[(slow.clone(), tokens(1))], EpochMillis(0))
            .unwrap();
        for i in 0..10 {
            let one = [(
                claim(&format!("k{i}"), Limit::per_second("rps", 1000), 100),
                tokens(1),
            )];
            buckets.take(&one, EpochMillis(1000 + i)).unwrap();
        }
        assert!(buckets.lock(0).get(&slow.key).is_none());
        let now = EpochMillis(2000);
        buckets.correct([(&slow, tokens(-100))], now);
        let Err(Refused::Exceeded(refused)) = buckets.take(&[(slow, tokens(1))], now) else {
            panic!("admitted in debt");
        };
        assert_eq!(refused.worst().unwrap().available, -40);
        assert_eq!(refused.retry_after().unwrap().as_secs(), 41);
    }

    #[test]
    fn a_charge_counts_from_the_capacity_though_the_bucket_has_been_full_for_long() {
        let buckets = new_buckets();
        let rpm = claim("k", Limit::per_minute("rpm", 60), 100);
        buckets
            .take(&[(rpm.clone(), tokens(60))], EpochMillis(0))
            .unwrap();
        let now = EpochMillis(DAY);
        buckets.correct([(&rpm, tokens(-60))], now);
        assert!(buckets.take(&[(rpm, tokens(1))], now).is_err());
    }

    /// Otherwise a call with small, fast limits of its own would let the next call begin with a whole day's tokens.
    #[test]
    fn a_bucket_that_is_full_under_the_limits_of_one_call_is_kept_for_the_others() {
        let buckets = small(1, 100);
        let of = |limit, amount| [(claim("k", limit, 100), tokens(amount))];
        let daily = |amount| of(Limit::per_day("rpm", 100), amount);
        let fast = || of(Limit::per_second("rpm", 1), 1);
        buckets.take(&daily(99), EpochMillis(0)).unwrap();
        let sweep = |now| {
            for i in 0..100 {
                let one = [(claim(&format!("k{i}"), Limit::per_day("rpd", 5), 100), tokens(1))];
                buckets.take(&one, EpochMillis(now)).unwrap();
                buckets.correct([(&one[0].0, tokens(1))], EpochMillis(now));
            }
        };
        for second in 1..=3 {
            buckets.take(&fast(), EpochMillis(second * 1000)).unwrap();
        }
        sweep(10_000);
        let again = buckets.take(&daily(2), EpochMillis(10_000));
        assert!(matches!(again, Err(Refused::Exceeded(_))), "{again:?}");
        // After a day the bucket would have been full under either.
        sweep(DAY + 10_000);
        buckets.take(&daily(100), EpochMillis(DAY + 10_000)).unwrap();
    }

    /// Otherwise a bucket under a lowered limit is filled at the former rate whenever an older lease ends.
    #[test]
    fn a_correction_does_not_bring_back_the_limits_of_its_lease() {
        let buckets = new_buckets();
        let of = |limit, amount| [(claim("k", limit, 100), tokens(amount))];
        let former = of(Limit::per_second("rpm", 1000), 10);
        buckets.take(&former, EpochMillis(0)).unwrap();
        let lowered = |amount| of(Limit::per_minute("rpm", 6), amount);
        buckets.take(&lowered(6), EpochMillis(0)).unwrap();
        buckets.correct([(&former[0].0, tokens(1))], EpochMillis(0));
        buckets.take(&lowered(1), EpochMillis(0)).unwrap();
        buckets.correct([(&former[0].0, tokens(-5))], EpochMillis(0));
        // A debt of 5 tokens is paid at a token in ten seconds.
        assert!(buckets.take(&lowered(0), EpochMillis(49_999)).is_err());
        buckets.take(&lowered(0), EpochMillis(50_000)).unwrap();
        assert!(buckets.take(&lowered(1), EpochMillis(59_999)).is_err());
        buckets.take(&lowered(1), EpochMillis(60_000)).unwrap();
    }

    #[test]
    fn the_wait_holds_for_a_call_whose_limits_hold_more_than_those_before() {
        let buckets = small(1, 100);
        let of = |limit, amount| [(claim("k", limit, 100), tokens(amount))];
        buckets
            .take(&of(Limit::per_day("rpm", 10), 10), EpochMillis(0))
            .unwrap();
        let large = || of(Limit::per_minute("rpm", 600), 500);
        let Err(Refused::Exceeded(refused)) = buckets.take(&large(), EpochMillis(1000)) else {
            panic!("admitted");
        };
        let wait = i64::try_from(refused.retry_after().unwrap().as_millis()).unwrap();
        assert_eq!(wait, 50_000);
        assert!(buckets.take(&large(), EpochMillis(1000 + wait - 1)).is_err());
        buckets.take(&large(), EpochMillis(1000 + wait)).unwrap();
    }

    #[test]
    fn changed_limits_are_earned_from_the_change_on() {
        let buckets = new_buckets();
        let under = |limit| [(claim("k", limit, 100), tokens(10))];
        buckets
            .take(&under(Limit::per_day("rpm", 10)), EpochMillis(0))
            .unwrap();
        // At 1,000 a minute the minute before would have earned enough.
        let fast = under(Limit::per_minute("rpm", 1000));
        assert!(buckets.take(&fast, EpochMillis(60_000)).is_err());
    }
}
