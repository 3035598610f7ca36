//! What an image of the shard means for this leg: whether it may be spent as it stands, whether a refill is due, what
//! each limit says to the request, and how long the item must live.

use super::Take;
use crate::acquire::debit::expiry;
use crate::acquire::freshness::Horizon;
use crate::bucket::{Bucket, MAX_SHARDS, WCU_COST};
use crate::error::{CorruptRecord, RecordError};
use crate::limit::{Limit, MAX_LIMITS};
use crate::name::LimitName;
use crate::refill::Balance;
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::{LimitStatus, Of};
use crate::write::seeds::Seed;
use crate::write::{self, Amounts, Assumed, Basis, Ttl};

impl Take {
    /// Whether an image calls for a refill, and one would cover the amounts.
    pub(super) fn is_due(&self, image: &Bucket, now: EpochMillis) -> bool {
        // A forced pass is for a surplus that the image may not show any more.
        let is_open = image.unsupported.is_none() && !image.disabled && image.valid_until != Some(0);
        if !is_open
            || image.shard_count != self.shard_count
            || image.is_expired(now)
            || image.is_out_of_writes(now)
        {
            return false;
        }
        let is_old = !image.is_valid(now)
            || self
                .horizon(Some(image), &self.amounts, now)
                .is_some_and(|horizon| now.since(image.refilled_at) > horizon.soft_ms);
        if !is_old && !self.is_short(image) {
            return false;
        }
        let refilled = write::refill_all(image, self.exact(), now);
        self.amounts.iter().all(|(name, need)| {
            let found = refilled.iter().find(|r| r.limit.name == name.as_str());
            found.is_some_and(|r| r.balance.tokens >= *need || self.config.is_soft(name.as_str()))
        })
    }

    /// Whether a balance does not cover its amount as it stands.
    pub(super) fn is_short(&self, image: &Bucket) -> bool {
        let is_short = |(name, need): &(LimitName, Millitokens)| {
            let limit = image.limit(name.as_str());
            limit.is_none_or(|limit| limit.balance < *need && !self.config.is_soft(name.as_str()))
        };
        self.amounts.iter().any(is_short)
    }

    /// Whether a bucket was refilled lately enough to be spent as it stands.
    pub(super) fn is_fresh(&self, image: &Bucket, now: EpochMillis) -> bool {
        self.horizon(Some(image), &self.amounts, now)
            .is_none_or(|horizon| now.since(image.refilled_at) <= horizon.hard_ms)
    }

    /// The assumptions of a plain debit about the item, from its last image.
    pub(super) fn basis(&self, image: Option<&Bucket>, amounts: &Amounts, now: EpochMillis) -> Basis {
        Basis {
            limits: self.assumed(image, amounts),
            horizon_ms: self.horizon(image, amounts, now).map(|horizon| horizon.hard_ms),
        }
    }

    /// The parameters of each limit that is asked for: those that the call demands, or else those that the item was
    /// last seen with, or else those that are configured.
    fn assumed(&self, image: Option<&Bucket>, amounts: &Amounts) -> Vec<Assumed> {
        let demanded = self.exact();
        let assumed = |(name, _): &(LimitName, Millitokens)| {
            let seen = image.and_then(|image| image.limit(name.as_str()));
            let configured = self.config.limit(name);
            Assumed {
                params: match seen.filter(|_| demanded.is_none()) {
                    Some(seen) => Some(seen.params),
                    None => configured.map(Limit::params),
                },
                is_soft: self.config.is_soft(name.as_str()),
            }
        };
        amounts.iter().map(assumed).collect()
    }

    pub(super) fn horizon(
        &self,
        image: Option<&Bucket>,
        amounts: &Amounts,
        now: EpochMillis,
    ) -> Option<Horizon> {
        let demanded = self.exact();
        let spent = amounts.iter().filter(|(_, need)| *need > Millitokens::ZERO);
        let params = spent.flat_map(|(name, _)| {
            let seen = image.filter(|_| demanded.is_none());
            let seen = seen.and_then(|image| Some(image.terms_among(image.limit(name.as_str())?, 1)));
            let configured = || Some(Terms::of(self.config.limit(name)?, 1));
            // The item may not have the configured schedule yet, or not have it any more.
            let unscheduled = match &seen {
                Some(_) => None,
                None => configured().map(Terms::unscheduled),
            };
            // What is whole again at once, and earns nothing, is as good as it was when it was refilled.
            let terms = seen.or_else(configured).into_iter().chain(unscheduled);
            terms.filter(Terms::is_refilled).map(|terms| terms.whole(now))
        });
        Horizon::of(params, self.round_trip_ms)
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
        if write::refill_fits(
            &image.limits,
            Some(&self.config),
            amounts.len(),
            self.lacking(image).count(),
        ) {
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
    pub(super) fn lacking<'a>(&'a self, image: &'a Bucket) -> impl Iterator<Item = &'a Limit> {
        self.config.limits.iter().filter(|limit| {
            image.limit(limit.name().as_str()).is_none()
                && self.amounts.iter().any(|(name, _)| name == limit.name())
        })
    }

    pub(super) fn statuses(
        &self,
        image: &Bucket,
        refilled: &[write::Refilled<'_>],
        seeds: &[Seed<'_>],
        now: EpochMillis,
    ) -> Vec<LimitStatus> {
        let status = |(name, need): &(LimitName, Millitokens)| {
            let shards = image.shard_count;
            if let Some(r) = refilled.iter().find(|r| r.limit.name == name.as_str()) {
                let (terms, balance) = r.standing(image, now);
                return Some(LimitStatus::check(
                    self.of(name),
                    &terms,
                    shards,
                    balance,
                    *need,
                    now,
                ));
            }
            let seed = seeds.iter().find(|seed| seed.limit.name() == name)?;
            if seed.gift.is_none() {
                return Some(LimitStatus::untouched(self.who(), seed.limit, shards, *need, now));
            }
            let balance = Balance::new(seed.tokens(shards, now), now);
            Some(LimitStatus::check(
                self.of(name),
                &seed.terms(shards),
                shards,
                balance,
                *need,
                now,
            ))
        };
        self.amounts.iter().filter_map(status).collect()
    }

    /// A limit of this leg's bucket, for its status.
    pub(super) fn of<'a>(&'a self, name: &'a LimitName) -> Of<'a> {
        Of {
            who: self.who(),
            name: name.as_str(),
            is_soft: self.config.is_soft(name.as_str()),
        }
    }

    pub(super) fn ttl(&self, image: Option<&Bucket>, shard_count: u32, now: EpochMillis) -> Ttl {
        expiry(&self.config, self.settings, self.shard, image, shard_count, now)
    }

    /// Whether a plain debit would pass on this image.
    pub(super) fn is_spendable(&self, image: &Bucket, seeds: &[Seed<'_>], now: EpochMillis) -> bool {
        let covered = |(name, need): &(LimitName, Millitokens)| {
            image.limit(name.as_str()).is_some_and(|limit| {
                let exact = self.exact().unwrap_or_default().iter().find(|l| l.name() == name);
                (limit.balance >= *need || self.config.is_soft(name.as_str()))
                    && exact.is_none_or(|exact| limit.matches(exact))
            })
        };
        seeds.is_empty() && is_open(image, now) && self.amounts.iter().all(covered)
    }

    /// Whether splitting further leaves every share at least a token, and enough for this request.
    ///
    /// A quota is never split: what a new shard would have of it must be taken from another one.
    pub(super) fn may_double(&self, image: &Bucket, now: EpochMillis) -> bool {
        let count = self.shard_count * 2;
        let need = |name: &str| {
            let named = self.amounts.iter().find(|(n, _)| n.as_str() == name);
            let named = named.filter(|_| !self.config.is_soft(name));
            named.map_or(0, |(_, need)| need.0).max(1000)
        };
        let useful = |limit: &crate::bucket::BucketLimit| {
            image.terms_among(limit, count).share(now).capacity >= need(&limit.name)
        };
        !self.doubled && !image.has_quota() && count <= MAX_SHARDS && image.limits.iter().all(useful)
    }
}

/// Whether an item may be debited as it stands, apart from its balances: it is valid, has not expired, and has a write
/// unit left.
pub(super) fn is_open(image: &Bucket, now: EpochMillis) -> bool {
    image.is_valid(now)
        && !image.is_expired(now)
        && image.wcu.as_ref().is_some_and(|wcu| wcu.balance.0 >= WCU_COST)
}
