//! A correction that goes out with a debit of its shard, in one write.

use std::sync::Arc;

use super::Deltas;
use crate::bucket::Bucket;
use crate::schema::BucketId;
use crate::table::Update;
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Amounts};

/// The first sending of a [`Credit`](super::Credit), to be joined with a debit: see [`Batch::carry`](crate::acquire::Batch::carry).
///
/// The joined write does what the debit and the correction would do one after the other, in this order, and its condition is
/// that of both. So it is judged by the credit as the credit's own first sending would be.
#[derive(Debug, Clone)]
pub struct Rider {
    pub(super) id: BucketId,
    pub(super) shard: u32,
    pub(super) deltas: Deltas,
    /// The image whose ceiling the correction stays within.
    pub(super) image: Arc<Bucket>,
    pub(super) update: Update,
}

impl Rider {
    /// The bucket that it corrects.
    pub fn id(&self) -> &BucketId {
        &self.id
    }

    /// The shard that it corrects.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The correction as it would be sent alone.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// Joins it with a write that takes these amounts from the shard, and refills it from `refilled` first, if that is given.
    /// `None` if one write cannot do both: the refill may have filled the shard, or the condition would be too long.
    pub(crate) fn join(
        &self,
        debit: &Update,
        amounts: &Amounts,
        refilled: Option<&Bucket>,
        now: EpochMillis,
    ) -> Option<Update> {
        if debit.key != self.update.key || !refilled.is_none_or(|image| self.fits(image, amounts, now)) {
            return None;
        }
        let joined = write::join(debit, &self.update);
        write::fits(&joined.condition).then_some(joined)
    }

    /// Whether no balance is above its ceiling after a refill from this image, the debit and the correction. The condition of
    /// the correction is about the balance before the refill.
    fn fits(&self, image: &Bucket, amounts: &Amounts, now: EpochMillis) -> bool {
        let refilled = write::refill_all(image, None, now);
        image.shard_count == self.image.shard_count
            && self.deltas.iter().all(|(name, delta)| {
                let cost = amounts
                    .iter()
                    .find(|(limit, _)| limit.as_str() == name.as_str())
                    .map_or(Millitokens::ZERO, |(_, cost)| *cost);
                let of_limit = refilled.iter().find(|r| r.limit.name == *name);
                delta.0 <= 0
                    || of_limit.is_some_and(|r| {
                        (r.balance.tokens - cost + *delta).0 <= image.share(r.limit).capacity
                    })
            })
    }
}
