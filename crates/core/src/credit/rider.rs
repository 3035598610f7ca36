//! A correction that goes out with a debit of its shard, in one write.

use std::sync::Arc;

use super::Deltas;
use crate::bucket::Bucket;
use crate::table::Update;
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Amounts};

/// The first sending of a [`Credit`](super::Credit), to be joined with a debit: see [`Batch::carry`](crate::acquire::Batch::carry).
///
/// The joined write does what the debit and the correction would do one after the other, in this order, and its condition is
/// that of both. So it is judged by the credit as the credit's own first sending would be.
#[derive(Debug, Clone)]
pub struct Rider {
    pub(super) deltas: Deltas,
    /// The image whose ceiling the correction stays within.
    pub(super) image: Arc<Bucket>,
    pub(super) update: Update,
}

impl Rider {
    /// The correction as it would be sent alone.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// Joins it with a write that takes these amounts from the shard, and refills it from `refilled` first, if that is given.
    /// `None` if one write cannot do both: a balance could be above its ceiling afterwards, or the condition would be too
    /// long.
    pub(crate) fn join(
        &self,
        debit: &Update,
        amounts: &Amounts,
        refilled: Option<&Bucket>,
        now: EpochMillis,
    ) -> Option<Update> {
        if debit.key != self.update.key {
            return None;
        }
        let refilled = refilled.map(|image| (image, write::refill_all(image, None, now)));
        let mut credit = self.update.clone();
        for (name, delta) in self.deltas.iter().filter(|(_, delta)| delta.0 > 0) {
            let cost = amounts
                .iter()
                .find(|(limit, _)| limit.as_str() == name.as_str())
                .map_or(Millitokens::ZERO, |(_, cost)| *cost);
            let Some((image, refilled)) = &refilled else {
                // The balance before the debit may be higher by what the debit takes.
                write::lift_ceiling(&mut credit, name, cost.0);
                continue;
            };
            let limit = image
                .limit(name)
                .filter(|_| image.shard_count == self.image.shard_count)?;
            let after = refilled.iter().find(|r| r.limit.name == *name)?.balance.tokens;
            let ceiling = image.ceiling(limit, now);
            if (after - cost + *delta).0 > ceiling {
                return None;
            }
            // The refill is pinned to a balance of at most that of the image.
            write::lift_ceiling(&mut credit, name, (limit.balance.0 + delta.0 - ceiling).max(0));
        }
        let joined = write::join(debit, &credit);
        write::fits(&joined.condition).then_some(joined)
    }
}
