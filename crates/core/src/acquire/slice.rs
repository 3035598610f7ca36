//! Tokens of a bucket that were taken ahead of the calls that spend them.
//!
//! Only tokens that the table has debited are in a slice, and each of them leaves it once: to a lease, or back to the table. So
//! calls that are served from slices admit nothing that the table has not admitted.

use std::sync::Arc;

use super::protocol::{Ahead, Grant};
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
    /// What a call takes, on average.
    per_call: Amounts,
    /// For how many calls tokens are taken at a time.
    calls: u32,
    filled_at: Option<EpochMillis>,
    is_filling: bool,
}

impl Slice {
    /// Whether it may be spent under this configuration: it was taken under it, and less than `max_age_ms` ago.
    pub fn is_valid(&self, config: &Arc<Resolved>, now: EpochMillis, max_age_ms: i64) -> bool {
        self.origin
            .as_ref()
            .is_some_and(|origin| Arc::ptr_eq(origin, config))
            && !self.is_over(now, max_age_ms)
    }

    /// Whether it is too old to be spent. One that is dated in the future by a clock that was set back is, too.
    pub fn is_over(&self, now: EpochMillis, max_age_ms: i64) -> bool {
        self.filled_at
            .is_none_or(|at| !(0..max_age_ms).contains(&now.since(at)))
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

    /// Takes amounts that it [covers](Self::covers), as grants of the shards that were debited.
    pub fn spend(&mut self, amounts: &[(LimitName, Millitokens)]) -> Vec<Grant> {
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
        for grant in grants {
            if grant
                .amounts
                .iter()
                .all(|(_, amount)| *amount == Millitokens::ZERO)
            {
                continue;
            }
            let same =
                |piece: &&mut Grant| piece.shard == grant.shard && piece.image.is_one_item_with(&grant.image);
            match self.pieces.iter_mut().find(same) {
                Some(piece) => piece.add(grant),
                None => self.pieces.push(grant),
            }
        }
    }

    /// Has the next call take tokens for it, in addition to these amounts. `None` if another call does so now, or if calls come
    /// too rarely.
    ///
    /// The number of calls doubles while slices are used up within `max_age_ms`, up to `most`. Call [`filled`](Self::filled) in
    /// any case afterwards.
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
        for (limit, amount) in amounts {
            match self.per_call.iter_mut().find(|(known, _)| known == limit) {
                // The average moves by an eighth, and stays a whole number of tokens.
                Some((_, average)) => {
                    let next = Millitokens(average.0 + (amount.0 - average.0) / 8 + 500);
                    *average = Millitokens::from_amount(next.floor_amount());
                }
                None => self.per_call.push((limit.clone(), *amount)),
            }
        }
        self.calls = if self.is_over(now, max_age_ms) {
            1
        } else {
            self.calls.saturating_mul(2).clamp(1, most)
        };
        self.filled_at = Some(now);
        let per_call = self.per_call.iter();
        let per_call = per_call.filter(|(limit, _)| amounts.iter().any(|(named, _)| named == limit));
        let per_call: Amounts = per_call.cloned().collect();
        // What is left is for some of the calls.
        let left = per_call
            .iter()
            .map(|(limit, of_call)| self.held(limit).0 / of_call.0.max(1));
        let left = u32::try_from(left.min().unwrap_or(0)).unwrap_or(u32::MAX);
        let calls = self.calls.saturating_sub(1).saturating_sub(left);
        self.is_filling = calls > 0;
        self.is_filling.then_some(Ahead { calls, per_call })
    }

    /// A call that was to take tokens for it has ended, with these, under this configuration. Returns what is left of tokens that
    /// were taken under another one.
    pub fn filled(&mut self, grants: Vec<Grant>, config: &Arc<Resolved>, now: EpochMillis) -> Vec<Grant> {
        self.is_filling = false;
        let is_same = self
            .origin
            .as_ref()
            .is_some_and(|origin| Arc::ptr_eq(origin, config));
        let stale = if is_same { Vec::new() } else { self.take_all() };
        self.origin = Some(Arc::clone(config));
        self.filled_at = Some(now);
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

    /// Whether tokens that a call gives back may stay in it: it holds less than it was filled with at most.
    pub fn has_room(&self, limit: &LimitName, amount: Millitokens) -> bool {
        let per_call = amount_of(&self.per_call, limit);
        (self.held(limit) + amount).0 <= per_call.0.saturating_mul(self.calls.into())
    }
}

fn amount_of(amounts: &[(LimitName, Millitokens)], limit: &LimitName) -> Millitokens {
    let found = amounts.iter().find(|(named, _)| named == limit);
    found.map_or(Millitokens::ZERO, |(_, amount)| *amount)
}

/// Divides what was taken: into grants of these amounts, as far as it goes, and the rest.
pub fn split(grants: Vec<Grant>, amounts: &[(LimitName, Millitokens)]) -> (Vec<Grant>, Vec<Grant>) {
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
        };
        if ours.iter().any(|(_, part)| *part > Millitokens::ZERO) || (first.is_empty() && !ours.is_empty()) {
            first.push(of(ours));
        }
        if !left.is_empty() {
            rest.push(of(left));
        }
    }
    (first, rest)
}
