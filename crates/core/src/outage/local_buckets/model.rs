//! Limits in memory beside a model of them: many calls in virtual time, of which none may be answered otherwise.
//!
//! The model is one exact account for each limit of each entity, which forgets nothing. `ZAE_LIMITER_DEGRADED_CALLS` asks
//! for more calls.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::time::Duration;

use super::*;

/// A second of virtual time.
const CALLS_PER_SECOND: i64 = 10_000;

const SHARDS: usize = 4;
const BOUND: usize = 400;

/// One limit, in parts of a millitoken: `1 / period`.
#[derive(Debug, Clone, Copy)]
struct Account {
    level: i128,
    at: i64,
}

impl Account {
    fn full(claim: &Claim, now: i64) -> Self {
        Self {
            level: claim.params.capacity * claim.params.period_ms,
            at: now,
        }
    }

    fn advance(&mut self, claim: &Claim, now: i64) {
        let Params {
            capacity,
            refill,
            period_ms,
        } = claim.params;
        self.level = (self.level + i128::from(now - self.at) * refill).min(capacity * period_ms);
        self.at = now;
    }

    fn covers(&self, claim: &Claim, need: Millitokens) -> bool {
        self.level >= need.0 * claim.params.period_ms
    }

    /// Gives back, or charges.
    fn correct(&mut self, claim: &Claim, delta: Millitokens) {
        let most = claim.params.capacity * claim.params.period_ms;
        self.level = (self.level + delta.0 * claim.params.period_ms).min(most);
    }
}

#[derive(Default)]
struct Model {
    accounts: HashMap<Key, Account>,
}

impl Model {
    fn at(&mut self, claim: &Claim, now: i64) -> &mut Account {
        let account = self
            .accounts
            .entry(claim.key.clone())
            .or_insert_with(|| Account::full(claim, now));
        account.advance(claim, now);
        account
    }
}

/// The limits of an entity: of some seconds, a minute, an hour, a day, with and without burst.
fn limits(entity: usize) -> Vec<Limit> {
    let first = match entity % 5 {
        0 => Limit::per_second("a", 3),
        1 => Limit::per_minute("a", 70).burst(7),
        2 => Limit::per_hour("a", 10),
        3 => Limit::per_day("a", 2),
        _ => Limit::custom("a", 9, 1, Duration::from_secs(777_777)),
    };
    let second = Limit::per_minute("b", 1 + (entity % 50) as u64).burst(100);
    let count = 1 + entity % 2;
    [first, second]
        .into_iter()
        .take(count)
        .filter_map(|limit| limit.build().ok())
        .collect()
}

fn claims(entity: usize, prefix: &str, part: Percent) -> Vec<Claim> {
    let id = EntityId::new(format!("{prefix}{entity}")).unwrap();
    let resource = ResourceName::new("r").unwrap();
    let claim = |limit: &Limit| Claim::new(&id, &resource, limit, part, EpochMillis(0));
    limits(entity).iter().map(claim).collect()
}

#[test]
fn many_calls_are_answered_as_by_accounts_that_forget_nothing() {
    let calls = std::env::var("ZAE_LIMITER_DEGRADED_CALLS").map_or(150_000, |calls| calls.parse().unwrap());
    let part = Percent::new(30).unwrap();
    let buckets = LocalBuckets::with_bound(SHARDS, BOUND, RandomState::new());
    let mut model = Model::default();
    let mut dice = fastrand::Rng::with_seed(11);
    let mut leases: VecDeque<Vec<(Claim, Millitokens)>> = VecDeque::new();
    let (mut admitted, mut exceeded, mut full, mut charged) = (0, 0, 0, 0);
    for call in 0..calls {
        let now = call * 1000 / CALLS_PER_SECOND;
        // Some keys are asked for all the time, and new ones come without end.
        let entity = if dice.u8(0..20) == 0 {
            1000 + call as usize
        } else {
            dice.usize(0..300)
        };
        let mut wanted = claims(entity, "key", part);
        if entity % 3 == 0 {
            // A parent has a say only on the limits that it has.
            let of_parent = claims(entity % 7, "proj", part);
            let named = wanted.clone();
            wanted.extend(
                of_parent
                    .into_iter()
                    .filter(|parent| named.iter().any(|own| own.key.limit == parent.key.limit)),
            );
        }
        let most = dice.i64(1..6);
        let wanted: Vec<(Claim, Millitokens)> = wanted
            .into_iter()
            .map(|claim| (claim, Millitokens::from_tokens(dice.i64(0..=most))))
            .collect();
        let is_covered = wanted
            .iter()
            .all(|(claim, need)| model.at(claim, now).covers(claim, *need));
        match buckets.take(&wanted, EpochMillis(now)) {
            Ok(()) => {
                assert!(is_covered, "call {call} was admitted: {wanted:?}");
                for (claim, need) in &wanted {
                    model.at(claim, now).correct(claim, -*need);
                }
                admitted += 1;
                if dice.u8(0..3) == 0 {
                    leases.push_back(wanted);
                }
            }
            Err(Refused::Exceeded(refused)) => {
                assert!(!is_covered, "call {call} was refused: {refused} {wanted:?}");
                exceeded += 1;
            }
            Err(Refused::Full) => {
                let has_room = wanted.iter().all(|(claim, _)| {
                    let shard = buckets.lock(buckets.shard_of(&claim.key));
                    shard.get(&claim.key).is_some() || shard.entries.len() + 4 <= BOUND
                });
                assert!(is_covered && !has_room, "call {call}: {wanted:?}");
                full += 1;
            }
        }
        if leases.len() > 500 {
            let lease = leases.pop_front().unwrap_or_default();
            let charge = Millitokens::from_tokens(-dice.i64(0..4));
            let is_dear = dice.u8(0..4) == 0;
            charged += if is_dear { lease.len() } else { 0 };
            for (claim, amount) in &lease {
                let delta = if is_dear { charge } else { *amount };
                model.at(claim, now).correct(claim, delta);
                buckets.correct([(claim, delta)], EpochMillis(now));
            }
        }
        if call % 10_000 == 0 {
            let mut held = 0;
            for shard in 0..SHARDS {
                let shard = buckets.lock(shard);
                assert_eq!(shard.entries.len(), shard.index.len());
                held += shard.entries.len();
                for (at, entry) in shard.entries.iter().enumerate() {
                    assert_eq!(shard.index[&entry.key], at);
                }
            }
            assert!(held <= SHARDS * BOUND + charged, "{held} are held");
        }
    }
    let counts = format!("{admitted} admitted, {exceeded} exceeded, {full} without room, {charged} charged");
    assert!(
        admitted > calls / 100 && exceeded > calls / 100 && full > 0 && charged > 0,
        "{counts}"
    );
}

/// What the documentation states: with as many processes as parts, no more than the limit.
#[test]
fn processes_together_admit_no_more_than_the_limit() {
    for processes in [2, 5, 20] {
        let part = Percent::new(100 / processes).unwrap();
        let limit = Limit::per_minute("rpm", 600).burst(100).build().unwrap();
        let (entity, resource) = (EntityId::new("k").unwrap(), ResourceName::new("r").unwrap());
        let claim = Claim::new(&entity, &resource, &limit, part, EpochMillis(0));
        let fleet: Vec<LocalBuckets<RandomState>> = (0..processes)
            .map(|_| LocalBuckets::new(RandomState::new()))
            .collect();
        let mut admitted = 0;
        for call in 0..200_000 {
            let now = call * 1000 / CALLS_PER_SECOND;
            let one = [(claim.clone(), Millitokens::from_tokens(1))];
            let process = &fleet[call as usize % fleet.len()];
            admitted += i64::from(process.take(&one, EpochMillis(now)).is_ok());
            assert!(admitted <= 100 + 10 * now / 1000, "{admitted} within {now} ms");
        }
        assert!(admitted > 250, "{admitted} of 300");
    }
}
