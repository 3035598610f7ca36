//! Judging by images: how limits stand by what was seen of a bucket.
//!
//! Remembered images may refuse a request and choose its shard. They never admit.

use std::sync::Arc;

use super::protocol::{Grant, Hint};
use crate::bucket::Bucket;
use crate::config::Resolved;
use crate::name::LimitName;
use crate::schema::BucketId;
use crate::shards::together::Part;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::{LimitStatus, Of};

/// How the limits of a bucket stood before these grants were taken from it.
pub(super) fn statuses_before<'a>(grants: &'a [Grant], now: EpochMillis) -> Vec<LimitStatus> {
    let mut sums: Vec<(&'a LimitName, Millitokens)> = Vec::new();
    for (name, part) in grants.iter().flat_map(|grant| &grant.amounts) {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += *part,
            None => sums.push((name, *part)),
        }
    }
    let status = |(name, need): (&'a LimitName, Millitokens)| {
        let part = |grant: &'a Grant| {
            let limit = grant.image.limit(name.as_str())?;
            let (_, taken) = grant.amounts.iter().find(|(of, _)| of == name)?;
            let mut balance = grant.image.balance(limit, now);
            balance.tokens += *taken;
            Some((&grant.image, limit, balance))
        };
        let parts: Vec<_> = grants.iter().filter_map(part).collect();
        let (image, limit, balance) = *parts.first()?;
        let first = grants.first()?;
        let of = Of {
            who: (&first.id.entity, &first.id.resource),
            name: name.as_str(),
            is_soft: limit.is_soft,
        };
        if parts.len() == 1 {
            let terms = image.terms(limit);
            let shards = first.image.shard_count;
            return Some(LimitStatus::check(of, &terms, shards, balance, need, now));
        }
        let whole = image.terms_among(limit, 1);
        let parts: Vec<Part<'_>> = parts
            .into_iter()
            .map(|(image, limit, balance)| Part {
                terms: image.terms(limit),
                balance,
            })
            .collect();
        Some(LimitStatus::together(of, &whole, &parts, need, now))
    };
    sums.into_iter().filter_map(status).collect()
}

/// The shards that cached images show to be short of these amounts, refilled to now.
pub(super) fn short_shards(
    hint: &Hint,
    config: &Resolved,
    amounts: &[(LimitName, Millitokens)],
    now: EpochMillis,
) -> Vec<u32> {
    let holds_all = |image: &Bucket| {
        let mut names = amounts.iter().map(|(name, _)| name.as_str());
        names.all(|name| image.limit(name).is_some())
    };
    let is_short = |(shard, image): &(u32, Arc<Bucket>)| {
        let is_short = is_trusted(image, now) && holds_all(image) && !covers(image, config, amounts, now);
        is_short.then_some(*shard)
    };
    hint.images.iter().filter_map(is_short).collect()
}

/// Whether a cached image may be judged by.
fn is_trusted(image: &Bucket, now: EpochMillis) -> bool {
    !image.disabled
        && !image.is_expired(now)
        && !image.is_ahead(now)
        && image.unsupported.is_none()
        // A forced pass on a plain item only cuts surplus; any other instant that has passed may add.
        && (image.is_valid(now) || image.valid_until == Some(0))
}

/// Whether an image covers these amounts, refilled to now.
fn covers(image: &Bucket, config: &Resolved, amounts: &[(LimitName, Millitokens)], now: EpochMillis) -> bool {
    amounts.iter().all(|(name, need)| {
        let limit = image.limit(name.as_str());
        limit.is_some_and(|limit| config.is_soft(name.as_str()) || image.refilled(limit, now).tokens >= *need)
    })
}

/// Whether the cached image of one shard alone covers these amounts, so that all shards together do not refuse them.
pub(super) fn is_covered(
    hint: &Hint,
    config: &Resolved,
    amounts: &[(LimitName, Millitokens)],
    now: EpochMillis,
) -> bool {
    let mut images = hint.images.iter();
    images.any(|(_, image)| is_trusted(image, now) && covers(image, config, amounts, now))
}

/// How the limits stand by the last images, refilled to now, over all shards together. `None` unless every shard's
/// image is known and may be judged by.
pub(super) fn remembered(
    id: &BucketId,
    config: &Resolved,
    amounts: &[(LimitName, Millitokens)],
    hint: &Hint,
    now: EpochMillis,
) -> Option<Vec<LimitStatus>> {
    let count = hint.shard_count.max(1);
    let image = |shard: u32| {
        let (_, image) = hint.images.iter().find(|(seen, _)| *seen == shard)?;
        (image.shard_count <= count && is_trusted(image, now)).then_some(image)
    };
    let images: Vec<&Arc<Bucket>> = (0..count).map(image).collect::<Option<_>>()?;
    let status = |(name, need): &(LimitName, Millitokens)| {
        let mut parts = Vec::with_capacity(images.len());
        for image in &images {
            let limit = image.limit(name.as_str())?;
            parts.push(Part {
                terms: image.terms(limit),
                balance: image.balance(limit, now),
            });
        }
        let first = images.first()?;
        let whole = first.terms_among(first.limit(name.as_str())?, 1);
        let of = Of {
            who: (&id.entity, &id.resource),
            name: name.as_str(),
            is_soft: config.is_soft(name.as_str()),
        };
        Some(LimitStatus::together(of, &whole, &parts, *need, now))
    };
    amounts.iter().map(status).collect()
}
