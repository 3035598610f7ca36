//! Sends the corrections of leases that [`super::refund_queues`] holds, one at a time for each shard.

use std::sync::Arc;

use tokio::sync::oneshot;
use zae_limiter_core::credit::{Credit, CreditEnd};

use super::refund_queues::{Correction, Shard, Waiting, sum};
use crate::acquire::driver::FastRandom;
use crate::inner::Inner;

/// Queues a correction. It is sent whether or not the caller waits for the outcome; the receiver fails if the
/// runtime ends before.
pub(crate) fn enqueue(
    inner: &Arc<Inner>,
    correction: Correction,
    what: &'static str,
) -> oneshot::Receiver<CreditEnd> {
    let shard = (correction.grant.id.clone(), correction.grant.shard);
    let (waiting, end) = Waiting::new(&inner.refunds, correction, what);
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
            // The semaphore is never closed. What arrives during the wait goes with this credit.
            let _permit = self.inner.refunds.sending.acquire().await;
            let batch = self.inner.refunds.next(&self.shard);
            self.send(batch).await;
        }
        self.has_ended = true;
    }

    async fn send(&self, batch: Vec<Waiting>) {
        let Some(sum) = sum(&batch) else { return };
        let end = self.drive(sum).await;
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
        Arc::clone(&self.inner).drive_credit(credit).await
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
            waiting = left.map_or(0, |left| left.len()),
            "the runtime ended before the refunds of a bucket were sent; their tokens stay consumed"
        );
    }
}

fn credit(inner: &Arc<Inner>, correction: Correction) -> Credit {
    let Correction { grant, deltas } = correction;
    let latest = inner.images.latest(&grant.id, grant.shard);
    Credit::new(grant.id, grant.shard, deltas, grant.image, &mut FastRandom).with_latest(latest)
}
