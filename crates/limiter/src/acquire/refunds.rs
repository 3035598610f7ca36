//! Sends the corrections of leases that [`queues`] holds, one at a time for each shard: alone, or with a debit of
//! the shard.

pub(crate) mod queues;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;
use zae_limiter_core::InvalidInput;
use zae_limiter_core::access;
use zae_limiter_core::acquire::Batch;
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Applied, TableError};
use zae_limiter_core::units::EpochMillis;

use self::queues::{Correction, Seat, Shard, Waiting, log_credit, sum};
use crate::acquire::draws::FastRandom;
use crate::acquire::groups::one_thread;
use crate::admin::retry::{BRIEF, is_passing};
use crate::inner::{Inner, Options};
use crate::table::{TableExt as _, Write};

/// The longest delay of a correction.
const LONGEST_DELAY: Duration = Duration::from_mins(1);

/// Checks [`correction_delay`](crate::RepositoryBuilder::correction_delay).
pub(crate) fn check_correction_delay(options: &Options) -> Result<(), InvalidInput> {
    let delay = options.correction_delay;
    let refused = |reason: &str| {
        Err(InvalidInput::new(
            "correction_delay",
            format!("{delay:?}"),
            reason,
        ))
    };
    if delay > LONGEST_DELAY {
        return refused("must be from 0 to 60 s");
    }
    if !delay.is_zero() && !options.group_commit {
        return refused(
            "needs group commit, whose writes carry corrections; leave out group_commit(false), or set it to 0",
        );
    }
    Ok(())
}

/// When a correction is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// At once: an acquire waits for it.
    Now,
    /// It may wait for a debit that carries it, for as long as the options say.
    MayWait,
}

/// How long before its bucket expires a charge is written at least.
const BEFORE_EXPIRY: Duration = Duration::from_secs(5);

/// How much longer than it may wait a correction can wait until its caller starts another sender.
const GRACE: Duration = Duration::from_millis(200);

/// Queues a correction. It is sent whether or not the caller waits for the outcome; the receiver fails if the
/// runtime ends before.
pub(crate) fn enqueue(
    inner: &Arc<Inner>,
    correction: Correction,
    what: &'static str,
    haste: Haste,
) -> oneshot::Receiver<CreditEnd> {
    if correction.grant.is_bypassed {
        return inner.correct_count(correction, what);
    }
    let shard = (correction.grant.id.clone(), correction.grant.shard);
    let is_urgent = haste == Haste::Now || inner.must_be_written(&correction);
    let (waiting, end) = Waiting::new(&inner.refunds, correction, what, is_urgent);
    if let Some(number) = inner.refunds.push(&shard, waiting) {
        inner.start_corrections(shard, number, is_urgent);
    }
    end
}

/// Waits for outcomes of corrections of these shards. If they wait for longer than they may, the runtime of a sender stands
/// still, and this starts another one.
pub(crate) async fn with_help<T>(
    inner: &Arc<Inner>,
    shards: &[Shard],
    outcomes: impl Future<Output = T>,
) -> T {
    let longest = inner.options.correction_delay;
    let mut outcomes = std::pin::pin!(outcomes);
    if !longest.is_zero() {
        if let Ok(outcome) = tokio::time::timeout(longest.saturating_add(GRACE), &mut outcomes).await {
            return outcome;
        }
        for shard in shards {
            if let Some(number) = inner.refunds.take_over(shard, longest) {
                inner.start_corrections(shard.clone(), number, true);
            }
        }
    }
    outcomes.await
}

/// Sends what one shard's queue holds, until it is empty.
struct Sender {
    inner: Arc<Inner>,
    shard: Shard,
    number: u64,
    /// Whether it sends what waits at first, without waiting for a debit.
    is_hurried: bool,
    has_ended: bool,
}

impl Sender {
    async fn run(mut self) {
        while self.inner.refunds.has_more(&self.shard) {
            if !std::mem::take(&mut self.is_hurried) && !self.wait_for_debit().await {
                // A debit carries them, or another sender has them.
                break;
            }
            // The semaphore is never closed. What arrives during the wait goes with this credit.
            let _permit = self.inner.refunds.sending.acquire().await;
            let batch = self.inner.refunds.next(&self.shard);
            let Some(sum) = sum(&batch) else { continue };
            let end = self.inner.correct(sum).await;
            self.inner.end_corrections(&self.shard, batch, end).await;
        }
        self.has_ended = true;
    }

    /// Waits for a debit of the shard that carries what waits, if that may wait. Returns whether it still waits.
    async fn wait_for_debit(&self) -> bool {
        let longest = self.inner.options.correction_delay;
        if longest.is_zero() || self.inner.background.is_draining() {
            return true;
        }
        let Some((is_over, left)) = self.inner.refunds.park(&self.shard, longest, one_thread()) else {
            return true;
        };
        tokio::select! {
            _ = is_over => {}
            () = tokio::time::sleep(left) => {}
            () = self.inner.background.draining() => {}
        }
        self.inner.refunds.unpark(&self.shard, self.number)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // The runtime is ending. Without its queue, the shard gets another sender if there is another runtime.
        let Some(left) = self.inner.refunds.remove(&self.shard, self.number) else {
            return;
        };
        let (id, shard) = &self.shard;
        tracing::error!(
            entity = %id.entity,
            resource = id.resource.as_str(),
            shard,
            waiting = left.waiting.len(),
            "the runtime ended before the refunds of a bucket were sent; their tokens stay consumed"
        );
    }
}

fn credit(inner: &Arc<Inner>, correction: Correction) -> Credit {
    let Correction { grant, deltas } = correction;
    let latest = inner.images.latest(&grant.id, grant.shard);
    Credit::new(grant.id, grant.shard, deltas, grant.image, &mut FastRandom).with_latest(latest)
}

/// Corrections that wait for the answer to a debit's write. If they are dropped before, they are in doubt.
pub(super) struct Passengers {
    place: Place,
    batch: Vec<Waiting>,
    /// Set if the write carries them.
    credit: Option<Credit>,
}

/// The place of corrections in a debit's write, until they have ended.
struct Place {
    inner: Arc<Inner>,
    shard: Shard,
    seat: Option<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        // The runtime is ending.
        let waiting = seat.abandon(&self.inner.refunds);
        tracing::error!(
            entity = %self.shard.0.entity,
            resource = self.shard.0.resource.as_str(),
            shard = self.shard.1,
            waiting,
            "the runtime ended before it was known whether a debit carried refunds; they are in doubt, and those that wait stay consumed"
        );
    }
}

impl Passengers {
    /// Takes what the table has answered to the write. The rest is done on this runtime: that of the corrections may stand
    /// still.
    pub(super) fn end(self, answer: &Result<Answer, TableError>) {
        let Self {
            mut place,
            batch,
            credit,
        } = self;
        let inner = Arc::clone(&place.inner);
        let Some(credit) = credit else {
            let Some(seat) = place.seat.take() else { return };
            let number = seat.not_carried(&inner.refunds, batch);
            return inner.start_corrections(place.shard.clone(), number, true);
        };
        let (answer, background) = (answer.clone(), inner.background.clone());
        background.spawn("corrections that a debit has carried", async move {
            // Mostly, that was all.
            let is_done = matches!(answer, Ok(Answer::Applied(Some(_))));
            let _permit = if is_done {
                None
            } else {
                Some(inner.refunds.sending.acquire().await)
            };
            let end = Arc::clone(&inner).drive_credit(credit, Some(answer)).await;
            inner.end_corrections(&place.shard, batch, end).await;
            let number = place.seat.take().and_then(|seat| seat.done(&inner.refunds));
            if let Some(number) = number {
                inner.start_corrections(place.shard.clone(), number, false);
            }
        });
    }
}

impl Inner {
    fn start_corrections(self: &Arc<Self>, shard: Shard, number: u64, is_hurried: bool) {
        let sender = Sender {
            inner: Arc::clone(self),
            shard,
            number,
            is_hurried,
            has_ended: false,
        };
        self.background.spawn("corrections of leases", sender.run());
    }

    /// Whether a correction must not wait: it charges a bucket that may expire meanwhile, and be created anew, full.
    fn must_be_written(&self, correction: &Correction) -> bool {
        let charges = correction.deltas.iter().any(|(_, delta)| delta.0 < 0);
        let longest = self.options.correction_delay.saturating_add(BEFORE_EXPIRY);
        let until = self
            .clock
            .now()
            .plus(i64::try_from(longest.as_millis()).unwrap_or(i64::MAX));
        let ttl = correction.grant.image.ttl;
        charges && ttl.is_some_and(|secs| secs <= until.secs())
    }

    /// Corrects what was counted under a bypass. No balance depends on it, so that it needs no queue.
    fn correct_count(
        self: &Arc<Self>,
        correction: Correction,
        what: &'static str,
    ) -> oneshot::Receiver<CreditEnd> {
        let (done, end) = oneshot::channel();
        let inner = Arc::clone(self);
        self.background.spawn(what, async move {
            let Correction { grant, deltas } = correction;
            let update = access::correct_count(grant.id.key(grant.shard), &deltas);
            // One that was counted twice would be wrong for good.
            let again = |err: &TableError| is_passing(err) && err.applied == Applied::No;
            let told = BRIEF.repeat(again, || inner.table.update(update.clone())).await;
            let end = match told {
                Ok(Write::Applied(_)) => CreditEnd::Applied,
                Ok(Write::Refused(_)) => CreditEnd::Gone,
                Err(err) if err.applied == Applied::No => CreditEnd::Failed(err),
                Err(err) => CreditEnd::InDoubt(err),
            };
            inner.telemetry.corrected(&end);
            if let Err(end) = done.send(end) {
                log_credit(&grant.id, grant.shard, &end, what);
            }
        });
        end
    }

    /// Sends a correction alone.
    async fn correct(self: &Arc<Self>, correction: Correction) -> CreditEnd {
        // Built only now: the image must show the mark of the credit before.
        let credit = credit(self, correction);
        Arc::clone(self).drive_credit(credit, None).await
    }

    /// Tells callers the outcome of a credit for all of them.
    async fn end_corrections(self: &Arc<Self>, shard: &Shard, batch: Vec<Waiting>, end: CreditEnd) {
        let is_shared = batch.len() > 1 && matches!(end, CreditEnd::Refused(_));
        for waiting in batch {
            let end = if is_shared {
                // Nothing was written, because of what one of them asks for. The others may be possible alone.
                self.correct(waiting.correction.clone()).await
            } else {
                end.clone()
            };
            self.telemetry.corrected(&end);
            waiting.end(shard, end);
        }
    }

    /// Whether corrections of a shard wait for a debit.
    pub(super) fn has_passengers(&self, id: &BucketId, shard: u32, runtime: Option<runtime::Id>) -> bool {
        !self.options.correction_delay.is_zero() && self.refunds.is_parked(&(id.clone(), shard), runtime)
    }

    /// Adds the corrections of a shard that wait for a debit to a write of it. If one write cannot do both, they are sent alone
    /// after its answer. `runtime` is that of the task that sends the write, if it has one thread.
    pub(super) fn board<T>(
        self: &Arc<Self>,
        shard: &Shard,
        runtime: Option<runtime::Id>,
        debits: &mut Batch<T>,
        now: EpochMillis,
    ) -> Option<Passengers> {
        if self.options.correction_delay.is_zero() {
            return None;
        }
        let (batch, seat) = self.refunds.board(shard, runtime)?;
        let credit = sum(&batch).map(|sum| credit(self, sum));
        let credit = credit.filter(|credit| credit.rider(now).is_some_and(|rider| debits.carry(&rider, now)));
        let place = Place {
            inner: Arc::clone(self),
            shard: shard.clone(),
            seat: Some(seat),
        };
        Some(Passengers { place, batch, credit })
    }

    /// A caller was refused: what waits to be given back to its bucket does not wait any longer.
    pub(super) fn release_corrections(self: &Arc<Self>, id: &BucketId) {
        if !self.options.correction_delay.is_zero() {
            let hint = self.images.hint(id, self.clock.now());
            for (shard, number) in self.refunds.release(id, hint.shard_count.max(1)) {
                self.start_corrections(shard, number, true);
            }
        }
    }
}
