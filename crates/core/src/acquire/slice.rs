//! Tokens of a bucket that were taken ahead of the calls that spend them.
//!
//! Only tokens that the table has debited are in a slice, and each of them leaves it once: to a lease, or back to the table. So
//! calls that are served from slices admit nothing that the table has not admitted.

use std::sync::Arc;

use super::protocol::{Ahead, Grant};
use crate::bucket::Bucket;
use crate::config::Resolved;
use crate::name::LimitName;
use crate::units::{EpochMillis, Millitokens};
use crate::write::Amounts;

/// Tokens of one bucket in this process, and how many calls to take ahead for.
#[derive(Debug, Default)]
pub struct Slice {
    /// What is left, by the shards that were debited.
    pieces: Vec<Grant>,
    /// The configuration under which it was taken.
    origin: Option<Arc<Resolved>>,
    /// The item that was debited last.
    item: Option<Arc<Bucket>>,
    /// What a call takes: a moving average over all calls.
    per_call: Amounts,
    /// For how many calls tokens are taken at a time.
    calls: u32,
    asked_at: Option<EpochMillis>,
    /// When tokens were put in or spent last.
    used_at: Option<EpochMillis>,
    is_filling: bool,
}

impl Slice {
    /// Whether it may be spent under this configuration: it was taken under it, and was in use less than `max_age_ms` ago.
    pub fn is_valid(&self, config: &Arc<Resolved>, now: EpochMillis, max_age_ms: i64) -> bool {
        self.is_of(config) && !self.is_over(now, max_age_ms)
    }

    /// Whether it was taken under this configuration, which may have been read again since.
    pub fn is_of(&self, config: &Arc<Resolved>) -> bool {
        self.origin.as_ref().is_some_and(|origin| {
            Arc::ptr_eq(origin, config)
                || (origin.limits == config.limits
                    && origin.owner == config.owner
                    && origin.access == config.access)
        })
    }

    /// Whether what it holds is too old to be spent. Dated in the future by a clock that was set back, it is, too.
    pub fn is_over(&self, now: EpochMillis, max_age_ms: i64) -> bool {
        is_past(self.used_at, now, max_age_ms)
    }

    /// Whether no call has asked for it for so long.
    pub fn is_forgotten(&self, now: EpochMillis, max_age_ms: i64) -> bool {
        is_past(self.asked_at, now, max_age_ms)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether a call takes tokens for it at this moment.
    pub fn is_filling(&self) -> bool {
        self.is_filling
    }

    /// What is left of a limit.
    pub fn held(&self, limit: &LimitName) -> Millitokens {
        let of = |piece: &Grant| amount_of(&piece.amounts, limit);
        Millitokens(self.pieces.iter().map(|piece| of(piece).0).sum())
    }

    /// What is left, by the shards that were debited.
    pub fn pieces(&self) -> &[Grant] {
        &self.pieces
    }

    /// Whether it has all of these amounts. An amount of 0 is refused in debt, which a slice does not know, so it never
    /// has that.
    pub fn covers(&self, amounts: &[(LimitName, Millitokens)]) -> bool {
        amounts
            .iter()
            .all(|(limit, amount)| *amount > Millitokens::ZERO && self.held(limit) >= *amount)
    }

    /// Takes amounts that it [covers](Self::covers), as grants of the shards that were debited. It is in use then, and its age counts
    /// from now.
    pub fn spend(&mut self, amounts: &[(LimitName, Millitokens)], now: EpochMillis) -> Vec<Grant> {
        self.used_at = Some(now);
        let (spent, rest) = split(std::mem::take(&mut self.pieces), amounts);
        self.pieces = rest;
        spent
    }

    /// Takes all that is left.
    pub fn take_all(&mut self) -> Vec<Grant> {
        std::mem::take(&mut self.pieces)
    }

    /// Puts tokens back that were taken from it, or that a call has not used. It does not live longer for it.
    pub fn put_back(&mut self, grants: impl IntoIterator<Item = Grant>) {
        let is_something = |grant: &Grant| {
            grant
                .amounts
                .iter()
                .any(|(_, amount)| *amount != Millitokens::ZERO)
        };
        merge(&mut self.pieces, grants.into_iter().filter(is_something));
    }

    /// Takes note of what a call takes, of it or of the table.
    pub fn note(&mut self, amounts: &[(LimitName, Millitokens)]) {
        for (limit, amount) in amounts {
            match self.per_call.iter_mut().find(|(known, _)| known == limit) {
                Some((_, average)) => average.0 += (amount.0 - average.0) / 8,
                None => self.per_call.push((limit.clone(), *amount)),
            }
        }
    }

    /// Has the next call take tokens for it, in addition to these amounts, which are [noted](Self::note). `None` if another call does
    /// so now, or if calls come too rarely.
    ///
    /// The number of calls doubles while slices are used up within `max_age_ms`, up to `most`. Call [`filled`](Self::filled) or
    /// [`not_filled`](Self::not_filled) in any case afterwards.
    pub fn fill(
        &mut self,
        amounts: &[(LimitName, Millitokens)],
        now: EpochMillis,
        max_age_ms: i64,
        most: u32,
    ) -> Option<Ahead> {
        if self.is_filling {
            return None;
        }
        self.calls = if self.is_forgotten(now, max_age_ms) {
            1
        } else {
            self.calls.saturating_mul(2).clamp(1, most)
        };
        self.asked_at = Some(now);
        self.is_filling = self.calls > 1;
        self.is_filling.then(|| Ahead {
            calls: self.calls - 1,
            per_call: amounts
                .iter()
                .map(|(limit, _)| {
                    let average = amount_of(&self.per_call, limit);
                    (limit.clone(), Millitokens::from_amount(average.floor_amount()))
                })
                .collect(),
            held: amounts
                .iter()
                .map(|(limit, _)| (limit.clone(), self.held(limit)))
                .collect(),
        })
    }

    /// A call that was to take tokens for it has ended, with these, under this configuration. Returns what is left of tokens that
    /// were taken under another one.
    pub fn filled(&mut self, grants: Vec<Grant>, config: &Arc<Resolved>, now: EpochMillis) -> Vec<Grant> {
        self.is_filling = false;
        let stale = if self.origin.is_none() || self.is_of(config) {
            Vec::new()
        } else {
            // What calls have taken under other limits says nothing.
            self.calls = self.calls.min(1);
            self.take_all()
        };
        self.origin = Some(Arc::clone(config));
        if let Some(grant) = grants.last() {
            (self.used_at, self.item) = (Some(now), Some(Arc::clone(&grant.image)));
        }
        self.put_back(grants);
        stale
    }

    /// A call that was to take tokens for it has ended without any.
    pub fn not_filled(&mut self) {
        self.is_filling = false;
        self.calls /= 2;
    }

    /// Notes that tokens were left when it was over: the next one is for fewer calls.
    pub fn was_idle(&mut self) {
        self.calls /= 2;
    }

    /// Whether tokens that a lease gives back may stay in it: they were taken from the same item under the same parameters, and it
    /// then holds no more than for the calls that it is for.
    pub fn has_room(&self, grant: &Grant, limit: &LimitName, amount: Millitokens) -> bool {
        let per_call = amount_of(&self.per_call, limit);
        let taken_under = grant.image.limit(limit.as_str()).map(|limit| limit.params);
        let in_force = self.origin.as_ref().and_then(|config| config.limit(limit));
        let is_same_item = self
            .item
            .as_ref()
            .is_some_and(|item| item.is_one_item_with(&grant.image));
        is_same_item
            && in_force.is_some_and(|limit| taken_under == Some(limit.params()))
            && (self.held(limit) + amount).0 <= per_call.0.saturating_mul(self.calls.into())
    }
}

fn is_past(at: Option<EpochMillis>, now: EpochMillis, max_age_ms: i64) -> bool {
    at.is_none_or(|at| !(0..max_age_ms).contains(&now.since(at)))
}

fn amount_of(amounts: &[(LimitName, Millitokens)], limit: &LimitName) -> Millitokens {
    let found = amounts.iter().find(|(named, _)| named == limit);
    found.map_or(Millitokens::ZERO, |(_, amount)| *amount)
}

/// Adds what was taken later to what was taken before from the same shard in the same life of the bucket, so that it is
/// corrected in one write.
pub fn merge(grants: &mut Vec<Grant>, new: impl IntoIterator<Item = Grant>) {
    for grant in new {
        let same = |held: &&mut Grant| {
            held.id == grant.id
                && held.shard == grant.shard
                && held.is_bypassed == grant.is_bypassed
                && held.image.is_one_item_with(&grant.image)
        };
        match grants.iter_mut().find(same) {
            Some(held) => held.add(grant),
            None => grants.push(grant),
        }
    }
}

/// Divides what was taken of one or more buckets: into grants of these amounts of each, as far as it goes, and the rest.
pub fn split(mut grants: Vec<Grant>, amounts: &[(LimitName, Millitokens)]) -> (Vec<Grant>, Vec<Grant>) {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    while let Some(id) = grants.first().map(|grant| grant.id.clone()) {
        let of_one: Vec<Grant> = grants.extract_if(.., |grant| grant.id == id).collect();
        let (ours, more) = split_one(of_one, amounts);
        first.extend(ours);
        rest.extend(more);
    }
    (first, rest)
}

fn split_one(grants: Vec<Grant>, amounts: &[(LimitName, Millitokens)]) -> (Vec<Grant>, Vec<Grant>) {
    let mut wanted = amounts.to_vec();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for grant in grants {
        let (mut ours, mut left) = (Vec::new(), Vec::new());
        for (limit, amount) in &grant.amounts {
            let part = match wanted.iter_mut().find(|(named, _)| named == limit) {
                Some((_, wanted)) => {
                    let part = (*wanted).min(*amount);
                    *wanted = *wanted - part;
                    // Named, even if nothing is taken of it.
                    ours.push((limit.clone(), part));
                    part
                }
                None => Millitokens::ZERO,
            };
            if part < *amount {
                left.push((limit.clone(), *amount - part));
            }
        }
        let of = |amounts| Grant {
            id: grant.id.clone(),
            shard: grant.shard,
            amounts,
            image: Arc::clone(&grant.image),
            is_bypassed: grant.is_bypassed,
        };
        // A limit of which nothing was taken is named by one grant, where a correction of it will go.
        let is_named = |limit: &LimitName| {
            let mut named = first.iter().flat_map(|grant: &Grant| &grant.amounts);
            named.any(|(named, _)| named == limit)
        };
        let is_ours =
            |(limit, part): &(LimitName, Millitokens)| *part > Millitokens::ZERO || !is_named(limit);
        if ours.iter().any(is_ours) {
            first.push(of(ours));
        }
        if !left.is_empty() {
            rest.push(of(left));
        }
    }
    (first, rest)
}
