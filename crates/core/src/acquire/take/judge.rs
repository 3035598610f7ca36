//! What an image of the shard means for this leg: whether it may be spent as it stands, whether a refill is due, what
//! each limit says to the request, and how long the item must live.

use super::Take;
use crate::acquire::debit::expiry;
use crate::acquire::freshness::Horizon;
use crate::bucket::{Bucket, MAX_SHARDS, WCU_COST};
use crate::error::{CorruptRecord, RecordError};
use crate::limit::{Limit, MAX_LIMITS, Params};
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::LimitStatus;
use crate::write::{self, Amounts, Basis, Ttl};

impl Take {
    /// Whether an image calls for a refill, and one would cover the amounts.
    pub(super) fn is_due(&self, image: &Bucket, now: EpochMillis) -> bool {
        let is_plain = image.unsupported.is_none() && !image.disabled && image.valid_until.is_none();
        if !is_plain
            || image.shard_count != self.shard_count
            || image.is_expired(now)
            || image.is_out_of_writes(now)
        {
            return false;
        }
        let is_old = self
            .horizon(Some(image), &self.amounts)
            .is_some_and(|horizon| now.since(image.refilled_at) > horizon.soft_ms);
        if !is_old && !self.is_short(image) {
            return false;
        }
        let refilled = write::refill_all(image, self.exact(), now);
        self.amounts.iter().all(|(name, need)| {
            let found = refilled.iter().find(|r| r.limit.name == name.as_str());
            found.is_some_and(|r| r.balance.tokens >= *need)
        })
    }

    /// Whether a balance does not cover its amount as it stands.
    pub(super) fn is_short(&self, image: &Bucket) -> bool {
        let is_short = |(name, need): &(crate::name::LimitName, Millitokens)| {
            let limit = image.limit(name.as_str());
            limit.is_none_or(|limit| limit.balance < *need)
        };
        self.amounts.iter().any(is_short)
    }

    /// Whether a bucket was refilled lately enough to be spent as it stands.
    pub(super) fn is_fresh(&self, image: &Bucket, now: EpochMillis) -> bool {
        self.horizon(Some(image), &self.amounts)
            .is_none_or(|horizon| now.since(image.refilled_at) <= horizon.hard_ms)
    }

    /// The assumptions of a plain debit about the item, from its last image.
    pub(super) fn basis(&self, image: Option<&Bucket>, amounts: &Amounts) -> Basis {
        Basis {
            params: self.params(image, amounts),
            horizon_ms: self.horizon(image, amounts).map(|horizon| horizon.hard_ms),
        }
    }

    /// The parameters of each limit that is asked for: those that the call demands, or else those that the item was
    /// last seen with, or else those that are configured.
    pub(super) fn params(&self, image: Option<&Bucket>, amounts: &Amounts) -> Vec<Option<Params>> {
        let demanded = self.exact();
        let params = |(name, _): &(crate::name::LimitName, Millitokens)| {
            let seen = image.and_then(|image| image.limit(name.as_str()));
            match seen.filter(|_| demanded.is_none()) {
                Some(seen) => Some(seen.params),
                None => self.config.limit(name).map(Limit::params),
            }
        };
        amounts.iter().map(params).collect()
    }

    pub(super) fn horizon(&self, image: Option<&Bucket>, amounts: &Amounts) -> Option<Horizon> {
        let params = self.params(image, amounts);
        let spent = params.iter().zip(amounts);
        let spent = spent.filter(|(_, (_, need))| *need > Millitokens::ZERO);
        Horizon::of(spent.filter_map(|(params, _)| *params), self.round_trip_ms)
    }

    /// Whether the item has an expiry, and expires before its debts are paid.
    pub(super) fn loses_debts(&self, image: &Bucket, now: EpochMillis) -> bool {
        let is_longer = |ttl| match self.ttl(Some(image), image.shard_count, now) {
            Ttl::At(at) => at > ttl,
            Ttl::Remove => true,
            Ttl::Keep => false,
        };
        image.expires_in_debt(now) && image.ttl.is_some_and(is_longer)
    }

    /// Whether the condition of a refilling write fits into a request.
    pub(super) fn check_refillable(&self, image: &Bucket, amounts: &Amounts) -> Result<(), RecordError> {
        let held = image.limits.len();
        if write::refill_fits(held, amounts.len(), self.seeds(image).len()) {
            return Ok(());
        }
        Err(CorruptRecord {
            record: "bucket",
            key: self.id.key(self.shard).to_string(),
            attribute: "b_*".to_owned(),
            problem: format!(
                "holds {held} limits, more than one write can refill; give the level at most {MAX_LIMITS}. \
                 Limits that no level defines any more are removed from the bucket once they are full"
            ),
        }
        .into())
    }

    /// Named limits that are configured but that the item lacks.
    pub(super) fn seeds<'a>(&'a self, image: &Bucket) -> Vec<&'a Limit> {
        let missing = |limit: &&Limit| {
            image.limit(limit.name().as_str()).is_none()
                && self.amounts.iter().any(|(name, _)| name == limit.name())
        };
        self.config.limits.iter().filter(missing).collect()
    }

    pub(super) fn statuses(
        &self,
        image: &Bucket,
        refilled: &[write::Refilled<'_>],
        seeds: &[&Limit],
        now: EpochMillis,
    ) -> Vec<LimitStatus> {
        let status = |(name, need): &(crate::name::LimitName, Millitokens)| {
            let shards = image.shard_count;
            if let Some(r) = refilled.iter().find(|r| r.limit.name == name.as_str()) {
                let balance = if r.params == r.limit.params {
                    image.balance(r.limit, now)
                } else {
                    r.balance
                };
                let who = self.who();
                return Some(LimitStatus::check(
                    who,
                    name.as_str(),
                    r.params,
                    shards,
                    balance,
                    *need,
                    now,
                ));
            }
            let seed = seeds.iter().find(|limit| limit.name() == name)?;
            Some(LimitStatus::untouched(self.who(), seed, shards, *need, now))
        };
        self.amounts.iter().filter_map(status).collect()
    }

    pub(super) fn ttl(&self, image: Option<&Bucket>, shard_count: u32, now: EpochMillis) -> Ttl {
        expiry(&self.config, self.settings, self.shard, image, shard_count, now)
    }

    /// Whether a plain debit would pass on this image.
    pub(super) fn is_spendable(&self, image: &Bucket, seeds: &[&Limit], now: EpochMillis) -> bool {
        let covered = |(name, need): &(crate::name::LimitName, Millitokens)| {
            image.limit(name.as_str()).is_some_and(|limit| {
                let exact = self.exact().unwrap_or_default().iter().find(|l| l.name() == name);
                limit.balance >= *need && exact.is_none_or(|exact| limit.matches(exact))
            })
        };
        seeds.is_empty() && is_open(image, now) && self.amounts.iter().all(covered)
    }

    /// Whether splitting further leaves every share at least a token, and enough for this request.
    pub(super) fn may_double(&self, image: &Bucket) -> bool {
        let count = self.shard_count * 2;
        let need = |name: &str| {
            let named = self.amounts.iter().find(|(n, _)| n.as_str() == name);
            named.map_or(0, |(_, need)| need.0).max(1000)
        };
        let useful =
            |limit: &crate::bucket::BucketLimit| limit.params.share(count).capacity >= need(&limit.name);
        !self.doubled && count <= MAX_SHARDS && image.limits.iter().all(useful)
    }
}

/// Whether an item may be debited as it stands, apart from its balances: it is valid, has not expired, and has a write
/// unit left.
pub(super) fn is_open(image: &Bucket, now: EpochMillis) -> bool {
    image.is_valid(now)
        && !image.is_expired(now)
        && image.wcu.as_ref().is_some_and(|wcu| wcu.balance.0 >= WCU_COST)
}
