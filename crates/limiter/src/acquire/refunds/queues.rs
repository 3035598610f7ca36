//! Corrections of leases (refunds and charges) on their way to the table.
//!
//! A credit leaves a mark on the item, and a lost answer can only be made good while that mark is the last one
//! (ADR 4). If one process sent several credits to an item at the same time, each could overwrite the mark of
//! another, and a lost answer would lose tokens. So each shard has a queue with one sender. What waits while a
//! credit is on its way is added up and goes out as the next one; the sum has the same effect on the item, and
//! each correction gets the outcome of the credit that contained it.
//!
//! The number of credits that are sent at the same time to different shards is bounded, too.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use zae_limiter_core::Millitokens;
use zae_limiter_core::acquire::Grant;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::schema::BucketId;

/// How many credits a repository sends at the same time.
const SENDING: usize = 128;

/// How many limits one credit corrects at most, unless a single correction names more: the length of a condition
/// is bounded by the service.
const LIMITS: usize = 16;

/// The correction of one shard: positive deltas give back.
#[derive(Debug, Clone)]
pub(crate) struct Correction {
    /// The tokens taken there. Its image identifies the life of the bucket.
    pub(crate) grant: Grant,
    pub(crate) deltas: Vec<(SmolStr, Millitokens)>,
}

pub(super) type Shard = (BucketId, u32);

/// The queues of one repository.
#[derive(Debug)]
pub(crate) struct Refunds {
    /// A shard has a queue, be it empty, exactly while it has a sender.
    queues: Mutex<HashMap<Shard, Queue>>,
    pub(super) sending: Semaphore,
    /// Corrections whose outcome is not known yet.
    unfinished: Arc<AtomicUsize>,
    /// How many senders there have been.
    senders: AtomicU64,
}

/// The corrections of a shard that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    /// The number of the sender that is at work.
    sender: u64,
    /// Set while the sender waits for a debit of the shard that carries them. Dropped when another sender has them: the runtime
    /// of the one that waits may stand still.
    parked: Option<Parked>,
}

/// Held for a sender that waits for a debit.
#[derive(Debug)]
pub(super) struct Parked {
    /// It ends when this is dropped.
    _waits: oneshot::Sender<Infallible>,
    /// Its runtime, if that has one thread.
    runtime: Option<runtime::Id>,
}

impl Parked {
    /// Whether a task of this runtime may carry its corrections. A runtime with one thread may stand still before the answer is
    /// there, and would hold up corrections of others.
    fn goes_with(&self, runtime: Option<runtime::Id>) -> bool {
        runtime.is_none() || runtime == self.runtime
    }
}

/// The place of corrections in a debit's write.
#[derive(Debug)]
pub(super) struct Seat {
    shard: Shard,
    /// The sender ends when it is dropped.
    _parked: Parked,
}

impl Seat {
    /// The corrections have ended. Returns the number of a sender for those that wait by now, if any.
    pub(super) fn done(self, refunds: &Refunds) -> Option<u64> {
        let mut queues = refunds.queues();
        let queue = queues.get_mut(&self.shard)?;
        if queue.waiting.is_empty() {
            queues.remove(&self.shard);
            return None;
        }
        Some(queue.next_sender(&refunds.senders))
    }

    /// The task of the write has ended without an answer. Removes those that wait, and returns how many they are.
    pub(super) fn abandon(self, refunds: &Refunds) -> usize {
        let queue = refunds.queues().remove(&self.shard);
        queue.map_or(0, |queue| queue.waiting.len())
    }

    /// The write could not carry them. Returns the number of the sender that sends them.
    pub(super) fn not_carried(self, refunds: &Refunds, batch: Vec<Waiting>) -> u64 {
        let mut queues = refunds.queues();
        let queue = queues.entry(self.shard.clone()).or_default();
        batch
            .into_iter()
            .rev()
            .for_each(|waiting| queue.waiting.push_front(waiting));
        queue.next_sender(&refunds.senders)
    }
}

impl Default for Refunds {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            sending: Semaphore::new(SENDING),
            unfinished: Arc::default(),
            senders: AtomicU64::new(0),
        }
    }
}

/// One correction, and the receiver of its outcome.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) correction: Correction,
    done: oneshot::Sender<CreditEnd>,
    /// For the log, if the caller does not wait any more.
    what: &'static str,
    /// Since when.
    since: Instant,
    /// Whether it must not wait for a debit.
    is_urgent: bool,
    _unfinished: Counted,
}

impl Waiting {
    /// A correction of these queues, and the receiver of its outcome.
    pub(super) fn new(
        refunds: &Refunds,
        correction: Correction,
        what: &'static str,
        is_urgent: bool,
    ) -> (Self, oneshot::Receiver<CreditEnd>) {
        let (done, end) = oneshot::channel();
        let waiting = Self {
            correction,
            done,
            what,
            since: Instant::now(),
            is_urgent,
            _unfinished: Counted::new(&refunds.unfinished),
        };
        (waiting, end)
    }

    pub(super) fn end(self, shard: &Shard, end: CreditEnd) {
        if let Err(end) = self.done.send(end) {
            log_credit(&shard.0, shard.1, &end, self.what);
        }
    }

    /// Whether one credit can carry both: corrections of another item of the same key are under another condition.
    fn is_of_one_life_with(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.correction.grant.image, &other.correction.grant.image);
        ours.is_one_item_with(theirs)
    }
}

#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Correction {
    /// Gives back all that was taken.
    pub(crate) fn of_all(grant: &Grant) -> Self {
        let all = grant
            .amounts
            .iter()
            .map(|(name, amount)| (name.to_smol(), *amount));
        Self {
            deltas: all.collect(),
            grant: grant.clone(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Refunds {
    /// How many corrections have not ended yet.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Acquire)
    }

    /// How many shards have a sender, each of which is one background task.
    pub(crate) fn senders(&self) -> usize {
        self.queues().len()
    }

    pub(super) fn queues(&self) -> MutexGuard<'_, HashMap<Shard, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a shard's queue, and returns the number of a sender that it needs.
    pub(super) fn push(&self, shard: &Shard, waiting: Waiting) -> Option<u64> {
        let mut queues = self.queues();
        let is_new = !queues.contains_key(shard);
        let queue = queues.entry(shard.clone()).or_default();
        let is_released = waiting.is_urgent && queue.parked.take().is_some();
        queue.waiting.push_back(waiting);
        (is_new || is_released).then(|| queue.next_sender(&self.senders))
    }

    /// Has the corrections of a shard wait for a debit. `None` if they are to be sent now. After the time that it returns, the
    /// sender calls [`unpark`](Self::unpark).
    pub(super) fn park(
        &self,
        shard: &Shard,
        longest: Duration,
        runtime: Option<runtime::Id>,
    ) -> Option<(oneshot::Receiver<Infallible>, Duration)> {
        let mut queues = self.queues();
        let queue = queues.get_mut(shard)?;
        let since = queue.waiting.iter().map(|waiting| waiting.since).min()?;
        let left = longest.saturating_sub(since.elapsed());
        if left.is_zero() || queue.waiting.iter().any(|waiting| waiting.is_urgent) {
            return None;
        }
        let (waits, is_over) = oneshot::channel();
        queue.parked = Some(Parked {
            _waits: waits,
            runtime,
        });
        Some((is_over, left))
    }

    /// Ends the wait of a shard's corrections. Returns whether they still wait: a debit or another sender may have them.
    pub(super) fn unpark(&self, shard: &Shard, sender: u64) -> bool {
        let mut queues = self.queues();
        let queue = queues.get_mut(shard).filter(|queue| queue.sender == sender);
        queue.is_some_and(|queue| queue.parked.take().is_some())
    }

    /// Whether corrections of a shard wait for a debit by a task of this runtime, if that has one thread.
    pub(super) fn is_parked(&self, shard: &Shard, runtime: Option<runtime::Id>) -> bool {
        let queues = self.queues();
        let parked = queues.get(shard).and_then(|queue| queue.parked.as_ref());
        parked.is_some_and(|parked| parked.goes_with(runtime))
    }

    /// Takes the corrections of a shard that wait for a debit by a task of this runtime.
    pub(super) fn board(&self, shard: &Shard, runtime: Option<runtime::Id>) -> Option<(Vec<Waiting>, Seat)> {
        let parked = {
            let mut queues = self.queues();
            let queue = queues.get_mut(shard)?;
            queue.parked.take_if(|parked| parked.goes_with(runtime))?
        };
        let shard = shard.clone();
        // Its sender ends, and the next one comes with the end of this.
        Some((
            self.next(&shard),
            Seat {
                shard,
                _parked: parked,
            },
        ))
    }

    /// Has the corrections of a bucket sent that wait for a debit, since a caller was refused what they give back. Returns the
    /// senders that are needed.
    pub(super) fn release(&self, id: &BucketId, shard_count: u32) -> Vec<(Shard, u64)> {
        let mut queues = self.queues();
        let mut senders = Vec::new();
        for shard in 0..shard_count {
            let shard = (id.clone(), shard);
            if let Some(queue) = queues.get_mut(&shard)
                && queue.parked.take().is_some()
            {
                senders.push((shard, queue.next_sender(&self.senders)));
            }
        }
        senders
    }

    /// The number of a sender in place of the one that waits for a debit of a shard for longer than it may: its runtime stands
    /// still.
    pub(super) fn take_over(&self, shard: &Shard, longest: Duration) -> Option<u64> {
        let mut queues = self.queues();
        let queue = queues.get_mut(shard)?;
        let since = queue.waiting.iter().map(|waiting| waiting.since).min()?;
        let is_late = since.elapsed() >= longest && queue.parked.take().is_some();
        is_late.then(|| queue.next_sender(&self.senders))
    }

    /// Removes the queue of a sender that ends although something waits, unless another one has it.
    pub(super) fn remove(&self, shard: &Shard, sender: u64) -> Option<Queue> {
        let mut queues = self.queues();
        queues.get(shard).filter(|queue| queue.sender == sender)?;
        queues.remove(shard)
    }

    /// Whether the queue holds something. If not, it is removed, and its sender must end.
    pub(super) fn has_more(&self, shard: &Shard) -> bool {
        let mut queues = self.queues();
        let more = queues.get(shard).is_some_and(|queue| !queue.waiting.is_empty());
        if !more {
            queues.remove(shard);
        }
        more
    }

    /// Takes what the next credit carries: the first in the queue, and what can go with it.
    pub(super) fn next(&self, shard: &Shard) -> Vec<Waiting> {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(shard) else {
            return Vec::new();
        };
        let mut batch: Vec<Waiting> = Vec::new();
        let mut limits: Vec<SmolStr> = Vec::new();
        let mut rest = VecDeque::new();
        for waiting in queue.waiting.drain(..) {
            let added: Vec<SmolStr> = waiting
                .correction
                .deltas
                .iter()
                .map(|(name, _)| name.clone())
                .filter(|name| !limits.contains(name))
                .collect();
            let fits = batch.first().is_none_or(|first| {
                first.is_of_one_life_with(&waiting) && limits.len() + added.len() <= LIMITS
            });
            if fits {
                limits.extend(added);
                batch.push(waiting);
            } else {
                rest.push_back(waiting);
            }
        }
        queue.waiting = rest;
        batch
    }
}

impl Queue {
    fn next_sender(&mut self, senders: &AtomicU64) -> u64 {
        self.sender = senders.fetch_add(1, Ordering::Relaxed) + 1;
        self.sender
    }
}

/// The correction of a whole batch.
pub(super) fn sum(batch: &[Waiting]) -> Option<Correction> {
    let mut grants = batch.iter().map(|waiting| waiting.correction.grant.clone());
    let mut grant = grants.next()?;
    grants.for_each(|later| grant.add(later));
    let mut deltas: Vec<(SmolStr, Millitokens)> = Vec::new();
    for (name, delta) in batch.iter().flat_map(|waiting| &waiting.correction.deltas) {
        match deltas.iter_mut().find(|(summed, _)| summed == name) {
            Some((_, sum)) => *sum += *delta,
            None => deltas.push((name.clone(), *delta)),
        }
    }
    Some(Correction { grant, deltas })
}

/// Logs the outcome of a correction for which no caller waits.
pub(crate) fn log_credit(id: &BucketId, shard: u32, end: &CreditEnd, what: &str) {
    let resource = id.resource.as_str();
    match end {
        CreditEnd::Applied => {
            tracing::debug!(entity = %id.entity, resource, shard, what, "tokens given back");
        }
        CreditEnd::Gone => tracing::debug!(entity = %id.entity, resource, shard, what, "bucket is gone"),
        CreditEnd::InDoubt(error) => {
            tracing::warn!(resource, shard, what, %error, "refund in doubt; its tokens count as consumed");
        }
        CreditEnd::Failed(error) => {
            tracing::error!(resource, shard, what, %error, "refund failed; its tokens stay consumed");
        }
        CreditEnd::Refused(error) => {
            tracing::warn!(resource, shard, what, %error, "refund dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zae_limiter_core::table::Value;
    use zae_limiter_core::{Bucket, EntityId, LimitName, NamespaceId, ResourceName};

    fn shard() -> Shard {
        let id = BucketId {
            namespace: NamespaceId::new("AAAAAAAAAAA").unwrap(),
            entity: EntityId::new("k").unwrap(),
            resource: ResourceName::new("r").unwrap(),
        };
        (id, 0)
    }

    /// A refund of the limits `l{from}` to `l{to}`, a token each, in a life of the bucket.
    fn refund(refunds: &Refunds, life: &str, limits: std::ops::Range<usize>) -> Waiting {
        let (id, shard) = shard();
        let key = id.key(shard);
        let item = [
            ("PK", Value::text(key.pk.as_str())),
            ("SK", Value::text(key.sk.as_str())),
            ("entity_id", Value::text("k")),
            ("resource", Value::text("r")),
            ("rf", Value::int(0)),
            ("shard_count", Value::int(1)),
            ("pinc", Value::text(life)),
        ];
        let item = item.map(|(name, value)| (name.to_owned(), value)).into();
        let amount = Millitokens::from_tokens(1);
        let names: Vec<LimitName> = limits.map(|i| LimitName::new(format!("l{i}")).unwrap()).collect();
        Waiting {
            correction: Correction {
                deltas: names.iter().map(|name| (name.to_smol(), amount)).collect(),
                grant: Grant {
                    id,
                    shard,
                    amounts: names.into_iter().map(|name| (name, amount)).collect(),
                    image: Arc::new(Bucket::decode(&item).unwrap()),
                    is_bypassed: false,
                },
            },
            done: oneshot::channel().0,
            what: "test",
            since: Instant::now(),
            is_urgent: false,
            _unfinished: Counted::new(&refunds.unfinished),
        }
    }

    #[test]
    fn only_what_is_of_one_life_and_short_enough_goes_together() {
        let refunds = Refunds::default();
        let shard = shard();
        let wanted = [("a", 0..1), ("b", 0..1), ("a", 0..2), ("a", 2..40), ("b", 1..2)];
        for (i, (life, limits)) in wanted.into_iter().enumerate() {
            let needs_sender = refunds.push(&shard, refund(&refunds, life, limits));
            assert_eq!(needs_sender, (i == 0).then_some(1));
        }
        assert_eq!((refunds.unfinished(), refunds.senders()), (5, 1));
        let mut sums = Vec::new();
        while refunds.has_more(&shard) {
            let batch = refunds.next(&shard);
            let sum = sum(&batch).unwrap();
            let amounts: Vec<i128> = sum.deltas.iter().map(|(_, delta)| delta.0).collect();
            sums.push((sum.grant.image.owner.incarnation.clone().unwrap(), amounts));
        }
        let expected = [
            ("a".into(), vec![2000, 1000]),
            ("b".into(), vec![1000, 1000]),
            ("a".into(), vec![1000; 38]),
        ];
        assert_eq!(sums, expected);
        assert_eq!((refunds.unfinished(), refunds.senders()), (0, 0));
    }
}
