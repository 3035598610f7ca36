//! A debit of one shard that is not built yet, so that it can be built at the moment it is sent, and together with others.

use std::sync::Arc;

use super::protocol::Settings;
use crate::bucket::{Bucket, FENCE, limit_attr};
use crate::config::Resolved;
use crate::name::LimitName;
use crate::schema::{BucketId, key_of};
use crate::table::{Condition, Item, Key, Update, Value};
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Amounts, Basis, RefillDebit, Ttl};

/// A debit of one shard under stored limits.
#[derive(Debug, Clone)]
pub struct Debit {
    pub(super) id: BucketId,
    pub(super) shard: u32,
    pub(super) amounts: Amounts,
    pub(super) basis: Basis,
    /// Set if the shard is refilled in the same write.
    pub(super) refill: Option<Refill>,
}

/// A refill from an image.
#[derive(Debug, Clone)]
pub(super) struct Refill {
    pub(super) image: Arc<Bucket>,
    pub(super) config: Arc<Resolved>,
    pub(super) settings: Settings,
}

impl Debit {
    /// The bucket.
    pub fn id(&self) -> &BucketId {
        &self.id
    }

    /// The shard.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The amounts to take, by limit.
    pub fn amounts(&self) -> &[(LimitName, Millitokens)] {
        &self.amounts
    }

    /// The write that takes it back, after an answer that shows that it was applied to an item that cannot be read otherwise.
    /// `None` if the answer does not show it.
    pub fn undo(&self, item: &Item) -> Option<Update> {
        undo(&self.id.key(self.shard), &self.amounts, item)
    }

    /// The write, as it is sent at `now`.
    pub fn update(&self, now: EpochMillis) -> Update {
        match &self.refill {
            Some(refill) => refill.update(self, &refill.image, &self.amounts, now),
            None => write::debit(self.id.key(self.shard), &self.amounts, Some(&self.basis), now),
        }
    }
}

/// The write that takes a debit back, if an answer proves that it was applied: it is the image of the shard's item, with a
/// balance for each amount that a debit may leave. Another one may be the answer of a proxy to a debit that the table never
/// saw, and giving tokens back for it would create tokens.
pub(super) fn undo(key: &Key, amounts: &Amounts, item: &Item) -> Option<Update> {
    let mut undo = Update::new(key.clone());
    let mut parts = Vec::new();
    for (limit, amount) in amounts {
        let balance = limit_attr(limit.as_str(), "tk");
        let left = match item.get(balance.as_str()) {
            Some(Value::N(digits)) => digits.parse::<i128>().ok(),
            _ => None,
        };
        if left.is_none_or(|left| left < 0) {
            return None;
        }
        undo.add.push((balance.clone(), amount.0));
        undo.add.push((limit_attr(limit.as_str(), "tc"), -amount.0));
        parts.push(Condition::Exists(balance));
    }
    // Not an item that was created under the same key since.
    parts.push(write::as_seen(FENCE, item.get(FENCE)));
    undo.condition = Condition::All(parts);
    (key_of(item).as_ref() == Some(key)).then_some(undo)
}

impl Refill {
    /// The write that refills the shard of `debit` from `image` and takes these amounts.
    pub(super) fn update(
        &self,
        debit: &Debit,
        image: &Bucket,
        amounts: &Amounts,
        now: EpochMillis,
    ) -> Update {
        let refilled = write::refill_all(image, None, now);
        let change = RefillDebit {
            amounts,
            seeds: &[],
            ttl: expiry(
                &self.config,
                self.settings,
                debit.shard,
                Some(image),
                image.shard_count,
                now,
            ),
            is_use: true,
            config: Some(&self.config),
        };
        write::refill_debit(debit.id.key(debit.shard), image, &refilled, &change, now)
    }
}

/// The expiry of a shard. Shard 0 of a split bucket does not expire: a client that finds it gone would start again with one
/// shard that holds the whole limit, beside siblings that still hold their shares.
pub(crate) fn expiry(
    config: &Resolved,
    settings: Settings,
    shard: u32,
    image: Option<&Bucket>,
    shard_count: u32,
    now: EpochMillis,
) -> Ttl {
    if shard == 0 && shard_count > 1 {
        Ttl::Remove
    } else {
        Ttl::of(config, image, settings.bucket_ttl_multiplier, now)
    }
}
