//! Judging by images: how limits stand by what was seen of a bucket.
//!
//! Remembered images may refuse a request and choose its shard. They never admit.

use std::sync::Arc;

use super::{Grant, Hint};
use crate::bucket::Bucket;
use crate::name::LimitName;
use crate::refill::Wait;
use crate::schema::BucketId;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::LimitStatus;

/// How a grant's limits stood before it was taken.
pub(super) fn statuses_before(grant: &Grant, now: EpochMillis) -> Vec<LimitStatus> {
    let image = &grant.image;
    let status = |(name, need): &(LimitName, Millitokens)| {
        let limit = image.limit(name.as_str())?;
        let mut balance = image.balance(limit, now);
        balance.tokens += *need;
        let who = (&grant.id.entity, &grant.id.resource);
        Some(LimitStatus::check(
            who,
            name.as_str(),
            limit.params,
            image.shard_count,
            balance,
            *need,
            now,
        ))
    };
    grant.amounts.iter().filter_map(status).collect()
}

/// The shards that remembered images show to be short of these amounts, refilled to now.
pub(super) fn short_shards(
    id: &BucketId,
    hint: &Hint,
    amounts: &[(LimitName, Millitokens)],
    now: EpochMillis,
) -> Vec<u32> {
    let is_short = |(shard, image): &(u32, Arc<Bucket>)| {
        image_statuses(id, image, amounts, now)
            .is_some_and(|statuses| statuses.iter().any(|status| status.exceeded))
            .then_some(*shard)
    };
    hint.images.iter().filter_map(is_short).collect()
}

/// The statuses of these amounts on a remembered image, if the image may be judged by.
fn image_statuses(
    id: &BucketId,
    image: &Bucket,
    amounts: &[(LimitName, Millitokens)],
    now: EpochMillis,
) -> Option<Vec<LimitStatus>> {
    let trusted = !image.disabled
        && !image.is_expired(now)
        && !image.is_ahead(now)
        && image.unsupported.is_none()
        // A forced pass on a plain item only cuts surplus; any other instant that has passed may add.
        && (image.is_valid(now) || image.valid_until == Some(0));
    if !trusted {
        return None;
    }
    let who = (&id.entity, &id.resource);
    amounts
        .iter()
        .map(|(name, need)| {
            let limit = image.limit(name.as_str())?;
            let balance = image.balance(limit, now);
            Some(LimitStatus::check(
                who,
                name.as_str(),
                limit.params,
                image.shard_count,
                balance,
                *need,
                now,
            ))
        })
        .collect()
}

/// How the limits stand by the last images, refilled to now: on the shard that covers the amounts first.
/// `None` unless every shard's image is known and may be judged by.
pub(super) fn remembered(
    id: &BucketId,
    amounts: &[(LimitName, Millitokens)],
    hint: &Hint,
    now: EpochMillis,
) -> Option<Vec<LimitStatus>> {
    let count = hint.shard_count.max(1);
    let mut best: Option<(Wait, Vec<LimitStatus>)> = None;
    for shard in 0..count {
        let (_, image) = hint.images.iter().find(|(seen, _)| *seen == shard)?;
        if image.shard_count > count {
            return None;
        }
        let statuses = image_statuses(id, image, amounts, now)?;
        let wait = statuses.iter().map(|status| status.wait).max()?;
        if best.as_ref().is_none_or(|(least, _)| wait < *least) {
            best = Some((wait, statuses));
        }
    }
    best.map(|(_, statuses)| statuses)
}
