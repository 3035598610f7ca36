//! Group commit: the debits of one shard that wait for a write of it, and the one write that carries them.
//!
//! While a write of a shard is on its way, further debits of the same process wait in a [`Group`]. The next write, a
//! [`Batch`], takes for all of them that fit together. Its condition covers the sum of their amounts and the strictest
//! of their assumptions, so it holds only if each of its members could have been executed, one after the other.
//!
//! The last image of the shard decides which debits go into a batch, in the order of their arrival. A debit that does not
//! fit is left out, so that a short limit refuses only requests that named it. That choice admits and refuses nothing:
//! the table accepts the batch or not, and each request judges the image in the answer by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use smol_str::SmolStr;

use super::debit::{Debit, Refill};
use super::protocol::{Outcome, Reply};
use crate::bucket::Bucket;
use crate::credit::Rider;
use crate::limit::MAX_LIMITS;
use crate::name::LimitName;
use crate::table::{Answer, Op, TableError, Update};
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Amounts, Assumed, Basis};

/// The debits of one shard that wait for a write of it. `T` names who asks.
#[derive(Debug)]
pub struct Group<T> {
    waiting: VecDeque<Waiter<T>>,
    batches: u64,
    /// How many debits the next batch may carry, after one that was too large.
    most: Option<usize>,
    /// What is being taken by a debit that is not part of a batch.
    elsewhere: Amounts,
}

#[derive(Debug)]
struct Waiter<T> {
    debit: Debit,
    who: T,
    /// The last batch that it did not fit into by the last image.
    left_out_by: Option<u64>,
    /// Whether a batch could not carry it. It leads the next one.
    is_put_off: bool,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            batches: 0,
            most: None,
            elsewhere: Amounts::new(),
        }
    }
}

impl<T> Group<T> {
    /// Adds a debit of the group's shard.
    pub fn push(&mut self, debit: Debit, who: T) {
        self.waiting.push_back(Waiter {
            debit,
            who,
            left_out_by: None,
            is_put_off: false,
        });
    }

    /// Says what a debit of the shard takes that is on its way by itself: a batch leaves it that much. The last image may show it
    /// as taken already, which makes the next batch smaller than it could be, and no more.
    pub fn set_elsewhere(&mut self, amounts: &[(LimitName, Millitokens)]) {
        self.elsewhere = amounts.to_vec();
    }

    /// How many debits wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no debit waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes back a debit that still waits. Nothing was sent for it.
    pub fn withdraw(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<(Debit, T)> {
        let at = self.waiting.iter().position(|waiter| is_wanted(&waiter.who))?;
        let waiter = self.waiting.remove(at)?;
        Some((waiter.debit, waiter.who))
    }

    /// Takes back the debits of those that do not want them any more.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        self.waiting.retain(|waiter| is_wanted(&waiter.who));
    }

    /// Takes back all debits that wait.
    pub fn withdraw_all(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|waiter| waiter.who).collect()
    }

    /// The next write, if a debit waits. `latest` is the last image of the shard that was seen.
    pub fn next(&mut self, latest: Option<&Arc<Bucket>>, now: EpochMillis) -> Option<Batch<T>> {
        let leader = self.waiting.iter().position(|waiter| waiter.is_put_off);
        let base = match leader.and_then(|at| self.waiting.get(at)) {
            Some(leader) => base(&leader.debit, latest, now),
            None => self
                .waiting
                .iter()
                .rev()
                .find_map(|waiter| base(&waiter.debit, latest, now)),
        };
        let mut draft = Draft::new(base, latest, now);
        draft.leave(&self.elsewhere);
        let mut members: Vec<(Debit, T)> = Vec::new();
        if let Some(leader) = leader.and_then(|at| self.waiting.remove(at)) {
            draft.take(&leader.debit);
            members.push((leader.debit, leader.who));
        }
        self.batches += 1;
        let mut rest = VecDeque::new();
        for mut waiter in self.waiting.drain(..) {
            if self.most.is_some_and(|most| members.len() >= most) {
                rest.push_back(waiter);
                continue;
            }
            match draft.add(&waiter.debit) {
                Fit::Fits => {
                    members.push((waiter.debit, waiter.who));
                    continue;
                }
                Fit::Short => waiter.left_out_by = Some(self.batches),
                Fit::Differs => waiter.is_put_off = true,
            }
            rest.push_back(waiter);
        }
        self.waiting = rest;
        let (update, refilled) = if let Some((debit, _)) = members.first() {
            (draft.update(debit, now), draft.base.map(|(_, image)| image))
        } else {
            // The image may be out of date: the answer to one debit shows what there is for the others.
            let first = self.waiting.pop_front()?;
            let update = first.debit.update(now);
            let refilled = first
                .debit
                .refill
                .as_ref()
                .map(|refill| Arc::clone(&refill.image));
            draft.amounts.clone_from(&first.debit.amounts);
            members.push((first.debit, first.who));
            (update, refilled)
        };
        Some(Batch {
            number: self.batches,
            amounts: draft.amounts,
            refilled,
            op: Op::Update(update),
            members,
        })
    }

    /// Passes the table's answer to a batch on: to those whose debits it carried, and to those that it left out and that
    /// still wait, if the answer shows the shard. Returns their debits, too.
    pub fn answer(&mut self, batch: Batch<T>, answer: &Result<Answer, TableError>) -> Vec<(Debit, T, Reply)> {
        let (outcome, item) = match answer {
            Ok(Answer::Applied(Some(item))) => (Outcome::Taken, Some(item)),
            Ok(Answer::Refused(Some(item))) => (Outcome::Refused, Some(item)),
            _ => (Outcome::Refused, None),
        };
        let Some(Ok(image)) = item.map(Bucket::decode) else {
            // Each member deals with it as if it had been alone.
            let reply = |(debit, who): (Debit, T)| (debit, who, Reply::Table(answer.clone()));
            return batch.members.into_iter().map(reply).collect();
        };
        let image = Arc::new(image);
        self.most = match outcome {
            // Others take from the shard at the same time, and have left too little for the sum. All that is left would be too much
            // again if they take on.
            Outcome::Refused if batch.members.len() > 1 && is_short_of(&image, &batch.amounts) => {
                Some(batch.members.len() / 2)
            }
            _ => None,
        };
        let mut replies = Vec::with_capacity(batch.members.len());
        for (debit, who) in batch.members {
            replies.push((debit, who, Reply::Debited(outcome, Arc::clone(&image))));
        }
        let mut rest = VecDeque::new();
        for waiter in self.waiting.drain(..) {
            if waiter.left_out_by == Some(batch.number) {
                let reply = Reply::Debited(Outcome::LeftOut, Arc::clone(&image));
                replies.push((waiter.debit, waiter.who, reply));
            } else {
                rest.push_back(waiter);
            }
        }
        self.waiting = rest;
        replies
    }
}

/// Whether the balance of a limit, as it stands, does not cover its amount.
fn is_short_of(image: &Bucket, amounts: &Amounts) -> bool {
    amounts.iter().any(|(name, amount)| {
        let limit = image.limit(name.as_str());
        limit.is_some_and(|limit| limit.balance < *amount)
    })
}

/// The refill that a debit asks for, and the image that it is pinned to: the latest one, if it is of the same refill. `None` if
/// the refill has happened, as far as is known.
fn base(debit: &Debit, latest: Option<&Arc<Bucket>>, now: EpochMillis) -> Option<(Refill, Arc<Bucket>)> {
    let refill = debit.refill.as_ref()?;
    let image = match latest {
        Some(latest) if is_since(latest, &refill.image, now) => latest,
        Some(latest) if latest.refilled_at > refill.image.refilled_at => return None,
        _ => &refill.image,
    };
    Some((refill.clone(), Arc::clone(image)))
}

/// Whether only debits and credits can have come between two images of an item.
fn is_since(later: &Bucket, image: &Bucket, now: EpochMillis) -> bool {
    let facts = |image: &Bucket| {
        (
            image.refilled_at,
            image.shard_count,
            image.valid_until,
            image.ttl,
            image.disabled,
            image.unsupported.is_some(),
        )
    };
    // A surplus that came since may belong to shards that do not exist yet.
    let has_surplus = later.limits.iter().any(|limit| {
        let before = image
            .limit(&limit.name)
            .map_or(Millitokens::ZERO, |limit| limit.balance);
        limit.balance.0 > before.0.max(later.ceiling(limit, now))
    });
    facts(later) == facts(image)
        && later.fractions == image.fractions
        && later.owner == image.owner
        && later.is_one_item_with(image)
        && !has_surplus
}

/// Whether a debit can be part of a batch.
enum Fit {
    Fits,
    /// The image shows too little for it.
    Short,
    /// It makes other assumptions than the batch, or names limits for which there is no room.
    Differs,
}

/// A batch that is being put together.
struct Draft {
    base: Option<(Refill, Arc<Bucket>)>,
    /// What the image has left of each limit; `None` if none was seen.
    left: Option<Vec<(SmolStr, Millitokens)>>,
    amounts: Amounts,
    basis: Basis,
}

impl Draft {
    fn new(base: Option<(Refill, Arc<Bucket>)>, latest: Option<&Arc<Bucket>>, now: EpochMillis) -> Self {
        let left = match (&base, latest) {
            (Some((_, image)), _) => {
                let refilled = write::refill_all(image, None, now).into_iter();
                Some(
                    refilled
                        .map(|r| (r.limit.name.clone(), r.balance.tokens))
                        .collect(),
                )
            }
            (None, Some(image)) => {
                let limits = image.limits.iter();
                Some(limits.map(|limit| (limit.name.clone(), limit.balance)).collect())
            }
            (None, None) => None,
        };
        Self {
            base,
            left,
            amounts: Amounts::new(),
            basis: Basis {
                limits: Vec::new(),
                horizon_ms: None,
            },
        }
    }

    /// Leaves amounts to another debit.
    fn leave(&mut self, amounts: &Amounts) {
        for (name, amount) in amounts {
            let left = self.left.iter_mut().flatten();
            for (_, left) in left.filter(|(known, _)| known == name.as_str()) {
                *left = *left - *amount;
            }
        }
    }

    /// Whether a limit may not be taken from under these parameters: the image of the refill has others, or a member has
    /// assumed others.
    fn is_other(&self, name: &LimitName, assumed: Option<Assumed>) -> bool {
        if let Some((refill, image)) = &self.base {
            let held = image.limit(name.as_str());
            return held.is_none_or(|limit| {
                let is_soft = refill.config.is_soft(name.as_str());
                let params = Some(limit.params);
                assumed != Some(Assumed { params, is_soft })
            });
        }
        let at = self.amounts.iter().position(|(known, _)| known == name);
        at.is_some_and(|at| self.basis.limits.get(at).copied() != assumed)
    }

    /// Whether a write can take from so many limits: as many as a level may have, unless the image of a refill has others
    /// beside them. The first debit always has room.
    fn has_room(&self, names: usize) -> bool {
        if self.amounts.is_empty() {
            return true;
        }
        let base = self.base.as_ref();
        names <= MAX_LIMITS
            && base.is_none_or(|(refill, image)| {
                write::refill_fits(&image.limits, Some(&refill.config), names, 0)
            })
    }

    /// Adds a debit, if it fits.
    fn add(&mut self, debit: &Debit) -> Fit {
        let mut names = self.amounts.len();
        for (at, (name, _)) in debit.amounts.iter().enumerate() {
            if self.is_other(name, debit.basis.limits.get(at).copied()) {
                return Fit::Differs;
            }
            names += usize::from(!self.amounts.iter().any(|(known, _)| known == name));
        }
        if !self.has_room(names) {
            return Fit::Differs;
        }
        for (at, (name, amount)) in debit.amounts.iter().enumerate() {
            let Some(left) = &self.left else { break };
            let is_soft = debit.basis.limits.get(at).is_some_and(|limit| limit.is_soft);
            match left.iter().find(|(known, _)| known == name.as_str()) {
                Some((_, left)) if left < amount && !is_soft => return Fit::Short,
                Some(_) => {}
                None => return Fit::Differs,
            }
        }
        self.take(debit);
        Fit::Fits
    }

    /// Adds a debit, also if the image does not cover it.
    fn take(&mut self, debit: &Debit) {
        self.leave(&debit.amounts);
        for (at, (name, amount)) in debit.amounts.iter().enumerate() {
            if let Some((_, sum)) = self.amounts.iter_mut().find(|(known, _)| known == name) {
                *sum += *amount;
            } else {
                self.amounts.push((name.clone(), *amount));
                self.basis.limits.extend(debit.basis.limits.get(at));
            }
        }
        let horizons = [self.basis.horizon_ms, debit.basis.horizon_ms];
        self.basis.horizon_ms = horizons.into_iter().flatten().min();
    }

    /// The write for all that were added; `first` is one of them.
    fn update(&self, first: &Debit, now: EpochMillis) -> Update {
        match &self.base {
            Some((refill, image)) => refill.update(first, image, &self.amounts, now),
            None => write::debit(first.id.key(first.shard), &self.amounts, Some(&self.basis), now),
        }
    }
}

/// One write for several debits.
#[derive(Debug)]
pub struct Batch<T> {
    number: u64,
    /// What the write takes in all.
    amounts: Amounts,
    /// The image that it refills the shard from, if it does.
    refilled: Option<Arc<Bucket>>,
    op: Op,
    members: Vec<(Debit, T)>,
}

impl<T> Batch<T> {
    /// Adds a correction of the shard to the write: both happen, or none does. Returns whether it could be added.
    pub fn carry(&mut self, rider: &Rider, now: EpochMillis) -> bool {
        let Op::Update(update) = &mut self.op else {
            return false;
        };
        let joined = rider.join(update, &self.amounts, self.refilled.as_deref(), now);
        let is_joined = joined.is_some();
        if let Some(joined) = joined {
            *update = joined;
        }
        is_joined
    }

    /// The write.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The debits that the write carries, and who asked for them.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&Debit, &T)> {
        self.members.iter().map(|(debit, who)| (debit, who))
    }
}
