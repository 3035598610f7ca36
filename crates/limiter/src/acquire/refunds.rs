//! Sends the corrections of leases that [`super::refund_queues`] holds, one at a time for each shard: alone, or with a debit of
//! the shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use zae_limiter_core::InvalidInput;
use zae_limiter_core::acquire::Batch;
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::table::{Answer, TableError};
use zae_limiter_core::units::EpochMillis;

use super::refund_queues::{Carried, Correction, Go, Seat, Shard, Waiting, sum};
use crate::acquire::driver::FastRandom;
use crate::inner::{Inner, Options};

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

/// Queues a correction. It is sent whether or not the caller waits for the outcome; the receiver fails if the
/// runtime ends before.
pub(crate) fn enqueue(
    inner: &Arc<Inner>,
    correction: Correction,
    what: &'static str,
    haste: Haste,
) -> oneshot::Receiver<CreditEnd> {
    let shard = (correction.grant.id.clone(), correction.grant.shard);
    let (waiting, end) = Waiting::new(&inner.refunds, correction, what, haste == Haste::Now);
    if inner.refunds.push(&shard, waiting) {
        let sender = Sender {
            inner: Arc::clone(inner),
            shard,
            has_ended: false,
        };
        inner.background.spawn("corrections of leases", sender.run());
    }
    end
}

/// Sends what one shard's queue holds, until it is empty.
struct Sender {
    inner: Arc<Inner>,
    shard: Shard,
    has_ended: bool,
}

impl Sender {
    async fn run(mut self) {
        while self.inner.refunds.has_more(&self.shard) {
            if let Some(Carried {
                credit,
                batch,
                answer,
            }) = self.wait_for_debit().await
            {
                self.send(batch, Some((credit, answer))).await;
                continue;
            }
            // The semaphore is never closed. What arrives during the wait goes with this credit.
            let _permit = self.inner.refunds.sending.acquire().await;
            let batch = self.inner.refunds.next(&self.shard);
            self.send(batch, None).await;
        }
        self.has_ended = true;
    }

    /// Waits for a debit of the shard that carries what waits. `None` if none has: then it is sent alone.
    async fn wait_for_debit(&self) -> Option<Carried> {
        let longest = self.inner.options.correction_delay;
        if longest.is_zero() {
            return None;
        }
        let mut go = self.inner.refunds.park(&self.shard)?;
        let go = match tokio::time::timeout(longest, &mut go).await {
            Ok(go) => go,
            Err(_) if self.inner.refunds.unpark(&self.shard) => return None,
            Err(_) => go.await,
        };
        match go {
            Ok(Go::Carried(carried)) => Some(*carried),
            Ok(Go::Alone) => None,
            Err(_) => {
                // What it carried has told its callers that the outcome is not known.
                tracing::error!(
                    entity = %self.shard.0.entity,
                    resource = self.shard.0.resource.as_str(),
                    shard = self.shard.1,
                    "the task that sends debits has ended; refunds that its write carried are in doubt"
                );
                None
            }
        }
    }

    /// Sends a batch, alone, or after a debit's write was to carry it.
    async fn send(&self, batch: Vec<Waiting>, carried: Option<(Credit, Option<Result<Answer, TableError>>)>) {
        let end = match (carried, sum(&batch)) {
            (Some((credit, answer)), _) => Arc::clone(&self.inner).drive_credit(credit, answer).await,
            (None, Some(sum)) => self.drive(sum).await,
            (None, None) => return,
        };
        if batch.len() > 1 && matches!(end, CreditEnd::Refused(_)) {
            // Nothing was written, because of what one of them asks for. The others may be possible alone.
            for waiting in batch {
                let end = self.drive(waiting.correction.clone()).await;
                waiting.end(&self.shard, end);
            }
            return;
        }
        for waiting in batch {
            waiting.end(&self.shard, end.clone());
        }
    }

    async fn drive(&self, correction: Correction) -> CreditEnd {
        // Built only now: the image must show the mark of the credit before.
        let credit = credit(&self.inner, correction);
        Arc::clone(&self.inner).drive_credit(credit, None).await
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // The runtime is ending. Without its queue, the shard gets another sender if there is another runtime.
        let left = self.inner.refunds.queues().remove(&self.shard);
        let (id, shard) = &self.shard;
        tracing::error!(
            entity = %id.entity,
            resource = id.resource.as_str(),
            shard,
            waiting = left.map_or(0, |left| left.waiting.len()),
            "the runtime ended before the refunds of a bucket were sent; their tokens stay consumed"
        );
    }
}

fn credit(inner: &Arc<Inner>, correction: Correction) -> Credit {
    let Correction { grant, deltas } = correction;
    let latest = inner.images.latest(&grant.id, grant.shard);
    Credit::new(grant.id, grant.shard, deltas, grant.image, &mut FastRandom).with_latest(latest)
}

/// Corrections in a debit's write, until its answer is there. If it is dropped before, they are in doubt.
pub(super) struct Passengers {
    seat: Seat,
    credit: Credit,
    batch: Vec<Waiting>,
}

impl Passengers {
    /// Tells what the table has answered to the write.
    pub(super) fn end(self, answer: &Result<Answer, TableError>) {
        self.seat.end(Carried {
            credit: self.credit,
            batch: self.batch,
            answer: Some(answer.clone()),
        });
    }
}

impl Inner {
    /// Whether corrections of a shard wait for a debit.
    pub(super) fn has_passengers(&self, shard: &Shard) -> bool {
        !self.options.correction_delay.is_zero() && self.refunds.is_parked(shard)
    }

    /// Adds the corrections of a shard that wait for a debit to a write of it. If one write cannot do both, they are sent alone.
    pub(super) fn board<T>(
        self: &Arc<Self>,
        shard: &Shard,
        debits: &mut Batch<T>,
        now: EpochMillis,
    ) -> Option<Passengers> {
        if self.options.correction_delay.is_zero() {
            return None;
        }
        let (batch, seat) = self.refunds.board(shard)?;
        let credit = credit(self, sum(&batch)?);
        if credit.rider(now).is_some_and(|rider| debits.carry(&rider, now)) {
            return Some(Passengers { seat, credit, batch });
        }
        let answer = None;
        seat.end(Carried {
            credit,
            batch,
            answer,
        });
        None
    }
}
