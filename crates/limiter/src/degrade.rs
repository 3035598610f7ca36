//! Limits in memory, for when the table is out of reach and the operator chose to go on with a part of them.
//!
//! Each process holds its own buckets at a percentage of the configured limits; with `N` processes at `p`
//! percent, at most `N * p` percent of a limit are admitted while the table is away. Nothing is written, and
//! nothing is carried over into the table when it comes back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use zae_limiter_core::limit::Params;
use zae_limiter_core::refill::Balance;
use zae_limiter_core::{
    EntityId, EpochMillis, Limit, LimitName, Millitokens, Percent, RateLimitExceeded, ResourceName,
};

/// How many buckets are held; beyond that the ones longest unused are forgotten.
const CAPACITY: usize = 100_000;

type Local = (EntityId, ResourceName, LimitName);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct LocalBuckets {
    balances: Mutex<HashMap<Local, Balance>>,
}

/// Amounts by limit.
pub(crate) type Amounts = Vec<(LimitName, Millitokens)>;

impl LocalBuckets {
    /// Takes the amounts from this process's part of the limits: all or none.
    pub(crate) fn take(
        &self,
        who: (&EntityId, &ResourceName),
        limits: &[Limit],
        amounts: &Amounts,
        part: Percent,
        now: EpochMillis,
    ) -> Result<(), RateLimitExceeded> {
        let mut balances = self.balances.lock().unwrap_or_else(PoisonError::into_inner);
        if balances.len() >= CAPACITY {
            balances.retain(|_, balance| now.since(balance.at) < 60_000);
        }
        let mut statuses = Vec::new();
        let mut after = Vec::new();
        for (name, need) in amounts {
            let Some(limit) = limits.iter().find(|limit| limit.name() == name) else {
                continue;
            };
            let params = scaled(limit, part);
            let key = (who.0.clone(), who.1.clone(), name.clone());
            let full = Balance::new(Millitokens(params.capacity), now);
            let balance = balances.get(&key).copied().unwrap_or(full);
            statuses.push(zae_limiter_core::verdict::LimitStatus::local(
                who, name, params, balance, *need, now,
            ));
            let mut left = balance.refilled(params, now);
            left.tokens = left.tokens - *need;
            after.push((key, left));
        }
        if statuses.iter().any(|status| status.exceeded) {
            return Err(RateLimitExceeded::new(statuses));
        }
        balances.extend(after);
        Ok(())
    }

    /// Gives amounts back (positive) or charges them (negative).
    pub(crate) fn credit(&self, who: (&EntityId, &ResourceName), deltas: &Amounts) {
        let mut balances = self.balances.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, delta) in deltas {
            if let Some(balance) = balances.get_mut(&(who.0.clone(), who.1.clone(), name.clone())) {
                balance.tokens += *delta;
            }
        }
    }
}

/// This process's part of a limit, at least one token and one millitoken per period.
fn scaled(limit: &Limit, part: Percent) -> Params {
    let Params {
        capacity,
        refill,
        period_ms,
    } = limit.params();
    let percent = i128::from(part.get());
    Params {
        capacity: (capacity * percent / 100).max(1000),
        refill: (refill * percent / 100).max(1),
        period_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_admits_its_part_and_refills_it() {
        let (entity, resource) = (EntityId::new("k").unwrap(), ResourceName::new("r").unwrap());
        let limits = [Limit::per_minute("rpm", 100).build().unwrap()];
        let one: Amounts = vec![(LimitName::new("rpm").unwrap(), Millitokens::from_tokens(1))];
        let (buckets, part) = (LocalBuckets::default(), Percent::new(10).unwrap());
        let take = |now| buckets.take((&entity, &resource), &limits, &one, part, EpochMillis(now));
        for _ in 0..10 {
            take(0).unwrap();
        }
        let refused = take(0).unwrap_err();
        assert_eq!(refused.retry_after().unwrap().as_millis(), 6000);
        assert!(take(5999).is_err());
        take(6000).unwrap();
        buckets.credit((&entity, &resource), &one);
        take(6000).unwrap();
    }
}
