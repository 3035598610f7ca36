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
use crate::limit::Params;
use crate::name::LimitName;
use crate::table::{Answer, Op, TableError, Update};
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Amounts, Basis};

/// The most limits that one batch takes from: the length of a condition is bounded by the service.
const MAX_LIMITS: usize = 16;

/// The debits of one shard that wait for a write of it. `T` names who asks.
#[derive(Debug)]
pub struct Group<T> {
    waiting: VecDeque<(Debit, T)>,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<T> Group<T> {
    /// Adds a debit of the group's shard.
    pub fn push(&mut self, debit: Debit, who: T) {
        self.waiting.push_back((debit, who));
    }

    /// Puts debits back that a batch could not answer, before all others.
    pub fn push_back_again(&mut self, again: Vec<(Debit, T)>) {
        for member in again.into_iter().rev() {
            self.waiting.push_front(member);
        }
    }

    /// Whether no debit waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes back a debit that still waits. Nothing was sent for it.
    pub fn withdraw(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.waiting.iter().position(|(_, who)| is_wanted(who))?;
        self.waiting.remove(at).map(|(_, who)| who)
    }

    /// Takes back the debits of those that do not want them any more.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        self.waiting.retain(|(_, who)| is_wanted(who));
    }

    /// Takes back all debits that wait.
    pub fn withdraw_all(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|(_, who)| who).collect()
    }

    /// The next write, if a debit waits. `latest` is the last image of the shard that was seen.
    pub fn next(&mut self, latest: Option<&Arc<Bucket>>, now: EpochMillis) -> Option<Batch<T>> {
        let mut draft = Draft::new(self.base(latest), latest, now);
        let (mut members, mut left_out) = (Vec::new(), Vec::new());
        let mut later = VecDeque::new();
        for member in self.waiting.drain(..) {
            match draft.add(&member.0) {
                Fit::Fits => members.push(member),
                Fit::Short => left_out.push(member),
                Fit::Differs => later.push_back(member),
            }
        }
        self.waiting = later;
        let update = if let Some((debit, _)) = members.first() {
            draft.update(debit, now)
        } else {
            // The image may be out of date: the answer to one debit shows what there is for the others.
            let first = if left_out.is_empty() {
                self.waiting.pop_front()?
            } else {
                left_out.remove(0)
            };
            let update = first.0.update(now);
            members.push(first);
            update
        };
        Some(Batch {
            op: Op::Update(update),
            members,
            left_out,
        })
    }

    /// The refill that the next write makes, and the image that it is pinned to: the one that was asked for last and that
    /// has not happened yet, as far as is known.
    fn base(&self, latest: Option<&Arc<Bucket>>) -> Option<(Refill, Arc<Bucket>)> {
        self.waiting.iter().rev().find_map(|(debit, _)| {
            let refill = debit.refill.as_ref()?;
            let image = match latest {
                Some(latest) if is_since(latest, &refill.image) => latest,
                Some(latest) if latest.refilled_at > refill.image.refilled_at => return None,
                _ => &refill.image,
            };
            Some((refill.clone(), Arc::clone(image)))
        })
    }
}

/// Whether only debits and credits can have come between two images of an item.
fn is_since(later: &Bucket, image: &Bucket) -> bool {
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
    facts(later) == facts(image)
        && later.fractions == image.fractions
        && later.owner == image.owner
        && later.is_one_item_with(image)
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
                params: Vec::new(),
                horizon_ms: None,
            },
        }
    }

    /// Whether a limit may not be taken from under these parameters: the image of the refill has others, or a member has
    /// assumed others.
    fn is_other(&self, name: &LimitName, assumed: Option<Params>) -> bool {
        if let Some((_, image)) = &self.base {
            let held = image.limit(name.as_str());
            return held.is_none_or(|limit| assumed != Some(limit.params));
        }
        let at = self.amounts.iter().position(|(known, _)| known == name);
        at.is_some_and(|at| self.basis.params.get(at) != Some(&assumed))
    }

    fn has_room(&self, names: usize) -> bool {
        let held = self.base.as_ref().map(|(_, image)| image.limits.len());
        names <= MAX_LIMITS && held.is_none_or(|held| write::refill_fits(held, names, 0))
    }

    /// Adds a debit, if it fits.
    fn add(&mut self, debit: &Debit) -> Fit {
        let mut names = self.amounts.len();
        for (at, (name, _)) in debit.amounts.iter().enumerate() {
            if self.is_other(name, debit.basis.params.get(at).copied().flatten()) {
                return Fit::Differs;
            }
            names += usize::from(!self.amounts.iter().any(|(known, _)| known == name));
        }
        if !self.has_room(names) {
            return Fit::Differs;
        }
        for (name, amount) in &debit.amounts {
            let Some(left) = &self.left else { break };
            match left.iter().find(|(known, _)| known == name.as_str()) {
                Some((_, left)) if left < amount => return Fit::Short,
                Some(_) => {}
                None => return Fit::Differs,
            }
        }
        for (at, (name, amount)) in debit.amounts.iter().enumerate() {
            let left = self.left.iter_mut().flatten();
            for (_, left) in left.filter(|(known, _)| known == name.as_str()) {
                *left = *left - *amount;
            }
            if let Some((_, sum)) = self.amounts.iter_mut().find(|(known, _)| known == name) {
                *sum += *amount;
            } else {
                self.amounts.push((name.clone(), *amount));
                self.basis
                    .params
                    .push(debit.basis.params.get(at).copied().flatten());
            }
        }
        let horizons = [self.basis.horizon_ms, debit.basis.horizon_ms];
        self.basis.horizon_ms = horizons.into_iter().flatten().min();
        Fit::Fits
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
    op: Op,
    members: Vec<(Debit, T)>,
    /// Those that did not fit by the last image.
    left_out: Vec<(Debit, T)>,
}

/// What came of a batch.
#[derive(Debug)]
pub struct Answered<T> {
    /// The replies.
    pub replies: Vec<(T, Reply)>,
    /// The debits that were left out, and that the answer says nothing about.
    pub again: Vec<(Debit, T)>,
}

impl<T> Batch<T> {
    /// The write.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The debits that the write carries, and who asked for them.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&Debit, &T)> {
        self.members.iter().map(|(debit, who)| (debit, who))
    }

    /// Passes the table's answer on.
    pub fn answer(self, answer: &Result<Answer, TableError>) -> Answered<T> {
        let shown = match answer {
            Ok(Answer::Applied(Some(item))) => Bucket::decode(item).ok().map(|image| (Outcome::Taken, image)),
            Ok(Answer::Refused(Some(item))) => {
                Bucket::decode(item).ok().map(|image| (Outcome::Refused, image))
            }
            _ => None,
        };
        let Some((outcome, image)) = shown else {
            // Each member deals with it as if it had been alone.
            let reply = |(_, who): (Debit, T)| (who, Reply::Table(answer.clone()));
            return Answered {
                replies: self.members.into_iter().map(reply).collect(),
                again: self.left_out,
            };
        };
        let image = Arc::new(image);
        let reply = |outcome| {
            let image = Arc::clone(&image);
            move |(_, who): (Debit, T)| (who, Reply::Debited(outcome, Arc::clone(&image)))
        };
        let members = self.members.into_iter().map(reply(outcome));
        let left_out = self.left_out.into_iter().map(reply(Outcome::LeftOut));
        Answered {
            replies: members.chain(left_out).collect(),
            again: Vec::new(),
        }
    }
}
