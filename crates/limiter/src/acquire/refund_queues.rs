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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol_str::SmolStr;
use tokio::sync::{Semaphore, oneshot};
use zae_limiter_core::Millitokens;
use zae_limiter_core::acquire::Grant;
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, TableError};

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
    /// How many calls wait until all corrections are written. While there are some, no correction waits to be carried.
    hurries: AtomicUsize,
}

/// The corrections of a shard that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    /// Set while the sender waits for a debit of the shard that carries them.
    parked: Option<oneshot::Sender<Go>>,
}

/// What the sender of a shard does with the corrections that wait for a debit.
#[derive(Debug)]
pub(super) enum Go {
    /// Send them now.
    Alone,
    /// A debit's write was to carry them.
    Carried(Box<Carried>),
}

/// Corrections that a debit's write carries.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) credit: Credit,
    pub(super) batch: Vec<Waiting>,
    /// The answer to the write; `None` if it could not carry them.
    pub(super) answer: Option<Result<Answer, TableError>>,
}

/// The place of corrections in a debit's write.
#[derive(Debug)]
pub(super) struct Seat(oneshot::Sender<Go>);

impl Seat {
    /// Tells the shard's sender of corrections what became of the write.
    pub(super) fn end(self, carried: Carried) {
        // The sender waits for as long as the runtime lives.
        let _ = self.0.send(Go::Carried(Box::new(carried)));
    }
}

impl Default for Refunds {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            sending: Semaphore::new(SENDING),
            unfinished: Arc::default(),
            hurries: AtomicUsize::new(0),
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
    /// Whether an acquire waits for it.
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

    /// Adds to a shard's queue, and returns whether it needs a sender.
    pub(super) fn push(&self, shard: &Shard, waiting: Waiting) -> bool {
        let mut queues = self.queues();
        let is_new = !queues.contains_key(shard);
        let queue = queues.entry(shard.clone()).or_default();
        let parked = queue.parked.take_if(|_| waiting.is_urgent);
        queue.waiting.push_back(waiting);
        if let Some(parked) = parked {
            let _ = parked.send(Go::Alone);
        }
        is_new
    }

    /// Has the corrections of a shard wait for a debit. `None` if they are to be sent now. The sender calls
    /// [`unpark`](Self::unpark) when they have waited long enough.
    pub(super) fn park(&self, shard: &Shard) -> Option<oneshot::Receiver<Go>> {
        let mut queues = self.queues();
        let queue = queues.get_mut(shard)?;
        if self.hurries.load(Ordering::Acquire) > 0 || queue.waiting.iter().any(|waiting| waiting.is_urgent) {
            return None;
        }
        let (parked, go) = oneshot::channel();
        queue.parked = Some(parked);
        Some(go)
    }

    /// Ends the wait of a shard's corrections. Returns whether they still wait: a debit may carry them by now.
    pub(super) fn unpark(&self, shard: &Shard) -> bool {
        let mut queues = self.queues();
        queues
            .get_mut(shard)
            .is_some_and(|queue| queue.parked.take().is_some())
    }

    /// Whether corrections of a shard wait for a debit.
    pub(super) fn is_parked(&self, shard: &Shard) -> bool {
        let queues = self.queues();
        queues.get(shard).is_some_and(|queue| queue.parked.is_some())
    }

    /// Takes the corrections of a shard that wait for a debit.
    pub(super) fn board(&self, shard: &Shard) -> Option<(Vec<Waiting>, Seat)> {
        let parked = self.queues().get_mut(shard)?.parked.take()?;
        // Nothing else takes from the queue while its sender waits for this.
        Some((self.next(shard), Seat(parked)))
    }

    /// Until the value that it returns is dropped, no correction waits for a debit.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        self.hurries.fetch_add(1, Ordering::AcqRel);
        for queue in self.queues().values_mut() {
            if let Some(parked) = queue.parked.take() {
                let _ = parked.send(Go::Alone);
            }
        }
        Hurry(self)
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

/// See [`Refunds::hurry`].
pub(crate) struct Hurry<'a>(&'a Refunds);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurries.fetch_sub(1, Ordering::AcqRel);
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
                },
            },
            done: oneshot::channel().0,
            what: "test",
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
            assert_eq!(needs_sender, i == 0);
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
