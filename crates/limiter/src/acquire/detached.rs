//! Ending leases that were [detached](crate::Lease::detach), in this process or in another.

pub(crate) mod sweeps;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use zae_limiter_core::detached::record::{Due, KEPT_MS, LeaseRecord, SLOTS, due, expiry_of, found};
use zae_limiter_core::detached::{DetachedLease, LeaseEnd, OnExpiry, Settled, Settlement};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Answer, Applied, Item, Key, Op, TableError};
use zae_limiter_core::{EpochMillis, InvalidInput};

use crate::acquire::draws::FastRandom;
use crate::admin::retry::{BRIEF, is_passing};
use crate::error::{Error, Last};
use crate::inner::Inner;
use crate::repository::Repository;
use crate::table::{TableExt as _, Write};

/// How many expired leases are settled at a time.
const AT_A_TIME: usize = 16;

/// How many leases a page of a sweep may hold.
const PAGE: u32 = 100;

/// The largest number of keys in one deletion.
const DELETED_AT_ONCE: usize = 25;

/// A lease has ended as was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedLease {
    /// Whether the same end had been asked for before: nothing more has changed.
    pub is_repeated: bool,
}

/// What a [sweep](Repository::sweep_leases) has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Expired leases whose tokens were given back.
    pub given_back: usize,
    /// Ended leases of which a killed process had left something to write, which was written.
    pub finished: usize,
    /// Expired leases whose tokens stay consumed, as they say.
    pub kept: usize,
    /// Records of ended leases that were deleted.
    pub deleted: usize,
    /// Leases that could not be settled. The next sweep tries them again.
    pub failed: usize,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.given_back += other.given_back;
        self.finished += other.finished;
        self.kept += other.kept;
        self.deleted += other.deleted;
        self.failed += other.failed;
    }
}

/// What became of a record that a sweep has read.
struct SweptItem {
    swept: Swept,
    key: Option<Key>,
    /// Nothing is left to write.
    is_complete: bool,
    is_deletable: bool,
}

impl Repository {
    /// Ends a lease that was [detached](crate::Lease::detach): a commit ([`DetachedLease::commit`]) keeps its tokens and corrects
    /// consumption, a [rollback](LeaseEnd::Rollback) gives them back.
    ///
    /// The first end that reaches the table holds. The same end may be asked for again, by any process, such as after an error in
    /// doubt: each correction happens once.
    ///
    /// # Errors
    /// [`Error::LeaseEnded`] if it has ended in another way; [`Error::LeaseExpired`] if its time to live is over;
    /// [`Error::InvalidInput`] for a lease of another namespace; [`Error::Unavailable`] and its like if something is left to write:
    /// ask again for the same end. A [sweep](Self::sweep_leases) writes what is left when the lease has expired.
    ///
    /// # Cancellation
    /// What has been written stays. Ask again for the same end.
    pub async fn end_lease(&self, lease: &DetachedLease, end: LeaseEnd) -> Result<EndedLease, Error> {
        self.check_namespace(lease)?;
        if end == LeaseEnd::Expired {
            let reason = "is for sweeps; commit the lease or roll it back";
            return Err(InvalidInput::of_request("end", "expired", reason).into());
        }
        if lease.is_degraded() {
            return Ok(EndedLease { is_repeated: false });
        }
        let settlement = Settlement::new(lease.clone(), end, &mut FastRandom);
        let deadline = self.inner.options.acquire_timeout;
        match tokio::time::timeout(deadline, settle(&self.inner, settlement)).await {
            Ok(ended) => ended,
            Err(_) => Err(self.inner.place.gave_up(deadline, true, Last::Nothing)),
        }
    }

    /// Lets a detached lease live for `ttl` from now on, unless it lives longer already. Returns when it expires: at most 24 hours
    /// after its first end.
    ///
    /// # Errors
    /// As [`end_lease`](Self::end_lease); [`Error::InvalidInput`] for a time to live out of range, or one that ends later than that.
    pub async fn extend_lease(&self, lease: &DetachedLease, ttl: Duration) -> Result<EpochMillis, Error> {
        self.check_namespace(lease)?;
        let now = self.inner.clock.now();
        let until = match lease.extended(ttl, now) {
            Ok(until) => until,
            // What a client wants to know first is that the lease has ended.
            Err(err) => return Err(self.ended(lease, now).await?.unwrap_or(err.into())),
        };
        if lease.is_degraded() {
            return Ok(until);
        }
        let update = lease.extend(until, now);
        // It sets what it says, so that it may be sent again.
        let sent = BRIEF.repeat(is_passing, || self.inner.table.update(update.clone()));
        match sent.await.map_err(|err| self.inner.place.table_error(err))? {
            Write::Applied(_) => Ok(until),
            Write::Refused(item) => match item.as_ref().map(|item| found(item, now)) {
                // It has been extended until later.
                Some(Ok(Due::Extended(later))) if later > until => Ok(later),
                _ => Err(how_ended(item.as_ref(), now).unwrap_or(Error::LeaseExpired)),
            },
        }
    }

    /// Why a lease can no longer be extended, if it has ended.
    async fn ended(&self, lease: &DetachedLease, now: EpochMillis) -> Result<Option<Error>, Error> {
        if lease.is_degraded() {
            return Ok(None);
        }
        let item = self.inner.place.read(&*self.inner.table, &lease.key()).await?;
        Ok(how_ended(item.as_ref(), now))
    }

    /// Settles detached leases that have expired: gives tokens back where [`OnExpiry::GiveBack`] says so, and writes what killed
    /// processes have left. Call it every few seconds in one process or in several: each lease is settled once.
    ///
    /// Reads the 32 partitions of a namespace's leases, one request each if nothing has expired.
    ///
    /// # Errors
    /// The first request that failed, if no partition could be read.
    pub async fn sweep_leases(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let mut first = None;
        let offset = fastrand::u32(..SLOTS);
        for slot in (0..SLOTS).map(|slot| (slot + offset) % SLOTS) {
            match self.sweep_slot(slot).await {
                Ok(of_slot) => swept.add(of_slot),
                Err(err) => drop(first.get_or_insert(err)),
            }
        }
        match first {
            Some(err) if swept == Swept::default() => Err(self.inner.place.table_error(err)),
            _ => Ok(swept),
        }
    }

    async fn sweep_slot(&self, slot: u32) -> Result<Swept, TableError> {
        let inner = &self.inner;
        let mut swept = Swept::default();
        let now = inner.clock.now();
        let mut pass = inner.sweeps.begin(slot, now);
        let mut query = due(&inner.namespace, slot, pass.after(), now).page(PAGE);
        loop {
            let read = BRIEF.repeat(is_passing, || inner.table.query_page(query.clone()));
            let (items, next) = read.await?;
            let results = stream::iter(items).map(|item| self.sweep_item(item, now));
            let mut results = results.buffered(AT_A_TIME);
            let mut deleted = Vec::new();
            while let Some(of_item) = results.next().await {
                swept.add(of_item.swept);
                pass.has_seen(of_item.key.as_ref(), of_item.is_complete);
                deleted.extend(of_item.key.filter(|_| of_item.is_deletable));
            }
            drop(results);
            for keys in deleted.chunks(DELETED_AT_ONCE) {
                // What stays is found again.
                if inner.table.call(Op::BatchDelete(keys.to_vec())).await.is_ok() {
                    swept.deleted += keys.len();
                }
            }
            let Some(next) = next else {
                inner.sweeps.end(slot, pass);
                return Ok(swept);
            };
            query.start = Some(next);
        }
    }

    /// Settles what a record says.
    async fn sweep_item(&self, item: Item, now: EpochMillis) -> SweptItem {
        let inner = &self.inner;
        let mut swept = SweptItem {
            swept: Swept::default(),
            key: key_of(&item),
            is_complete: false,
            is_deletable: false,
        };
        let due = match found(&item, now) {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "the record of a lease cannot be read");
                swept.swept.failed = 1;
                return swept;
            }
        };
        let (lease, record) = match due {
            Due::Extended(_) => return swept,
            Due::Complete => {
                swept.is_complete = true;
                swept.is_deletable = swept
                    .key
                    .as_ref()
                    .is_some_and(|key| is_kept_long_enough(key, now));
                return swept;
            }
            Due::Unsettled(unsettled) => *unsettled,
        };
        let settlement = match record {
            LeaseRecord::Open(_) if lease.on_expiry() == OnExpiry::Keep => {
                let deleted = inner.table.call(Op::Delete(lease.forget(now))).await;
                swept.is_complete = matches!(deleted, Ok(Answer::Applied(_)));
                swept.swept.kept = usize::from(swept.is_complete);
                return swept;
            }
            LeaseRecord::Open(_) => Settlement::new(lease, LeaseEnd::Expired, &mut FastRandom),
            LeaseRecord::Ended(ended) => {
                swept.swept.finished = 1;
                Settlement::resume(lease, ended, &mut FastRandom)
            }
        };
        let counts = &mut swept.swept;
        match settle(inner, settlement).await {
            Ok(ended) => {
                swept.is_complete = true;
                if counts.finished == 0 {
                    counts.given_back = usize::from(!ended.is_repeated);
                }
            }
            // Another process has settled it, or extended it.
            Err(Error::LeaseEnded(_) | Error::LeaseExpired) => counts.finished = 0,
            Err(error) => {
                tracing::warn!(%error, "an expired lease was not settled; the next sweep tries again");
                (counts.finished, counts.failed) = (0, 1);
            }
        }
        swept
    }

    fn check_namespace(&self, lease: &DetachedLease) -> Result<(), InvalidInput> {
        let own = &self.inner.namespace;
        if lease.namespace() == own {
            return Ok(());
        }
        let reason = format!("is of another namespace than this repository, which has the id {own}");
        Err(InvalidInput::of_request("lease", lease.namespace(), reason))
    }
}

/// The error that says how a lease has ended, by its record.
fn how_ended(item: Option<&Item>, now: EpochMillis) -> Option<Error> {
    match item.map(|item| found(item, now))? {
        Ok(Due::Complete) => Some(Error::LeaseEnded(item.and_then(kind))),
        Ok(Due::Unsettled(unsettled)) => Some(match unsettled.1 {
            LeaseRecord::Ended(ended) => Error::LeaseEnded(Some(ended.kind().to_owned())),
            LeaseRecord::Open(_) => Error::LeaseExpired,
        }),
        Ok(Due::Extended(_)) => None,
        Err(err) => Some(err.into()),
    }
}

/// `commit`, `rollback` or `expired`, of a record without corrections that are left.
fn kind(item: &Item) -> Option<String> {
    let record = LeaseRecord::read(item, 0).ok()?;
    match record {
        LeaseRecord::Ended(ended) => Some(ended.kind().to_owned()),
        LeaseRecord::Open(_) => None,
    }
}

/// Whether every process refuses the lease of a record by now, also one whose clock is behind.
fn is_kept_long_enough(key: &Key, now: EpochMillis) -> bool {
    expiry_of(key).is_some_and(|at| now.since(at) > KEPT_MS)
}

/// Drives a settlement to its end.
pub(super) async fn settle(inner: &Arc<Inner>, mut settlement: Settlement) -> Result<EndedLease, Error> {
    let mut next = settlement.start(inner.clock.now(), &mut FastRandom);
    while let Some(send) = next {
        if send.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(send.delay_ms)).await;
        }
        let answer = inner.answer_to_credit(send.op).await;
        next = settlement.answer(answer, inner.clock.now(), &mut FastRandom);
    }
    // What this process has seen of the buckets is out of date.
    for id in settlement.lease().buckets() {
        inner.images.forget(id);
    }
    match settlement.outcome() {
        Some(Settled::Done { is_repeated, unread }) => match unread {
            Some(err) => Err(err.clone().into()),
            None => Ok(EndedLease {
                is_repeated: *is_repeated,
            }),
        },
        Some(Settled::Other(end)) => Err(Error::LeaseEnded(Some(end.clone()))),
        Some(Settled::Over) => Err(Error::LeaseExpired),
        Some(Settled::Failed(err)) => Err(inner.place.table_error(err.clone())),
        Some(Settled::Unreadable(err)) => Err(err.clone().into()),
        None => Err(inner.place.table_error(TableError::new(
            zae_limiter_core::table::FailureKind::Internal,
            Applied::Unknown,
            "a settlement has no outcome",
        ))),
    }
}
