//! Judging by images: how limits stand by what was seen of a bucket.
//!
//! Remembered images may refuse a request and choose its shard. They never admit.

use std::sync::Arc;

use super::known_owner;
use super::protocol::{Found, Grant, Hint, Request, check_config};
use crate::bucket::{Bucket, Owner};
use crate::config::Resolved;
use crate::name::{EntityId, LimitName};
use crate::schema::BucketId;
use crate::shards::together::Part;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::{LimitStatus, Of, RateLimitExceeded};

/// How the limits of a bucket stood before these grants were taken from it.
pub(super) fn statuses_before<'a>(grants: &'a [Grant], now: EpochMillis) -> Vec<LimitStatus> {
    let mut sums: Vec<(&'a LimitName, Millitokens)> = Vec::new();
    // Under a bypass, no limit refuses.
    let judged = grants.iter().filter(|grant| !grant.is_bypassed);
    for (name, part) in judged.flat_map(|grant| &grant.amounts) {
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
        && image.bypass.is_none()
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
fn is_covered(
    hint: &Hint,
    config: &Resolved,
    amounts: &[(LimitName, Millitokens)],
    now: EpochMillis,
) -> bool {
    let mut images = hint.images.iter();
    images.any(|(_, image)| is_trusted(image, now) && covers(image, config, amounts, now))
}

/// The refusal of a request by what is cached: what an [`Acquire`](super::Acquire) decides from the same before it asks for anything.
///
/// For drivers that are to refuse without the machine. If there is no refusal, the machine has the decision.
pub fn refused_from_memory(
    request: &Request,
    known: &dyn Fn(&EntityId) -> Option<Found>,
    now: EpochMillis,
) -> Option<RateLimitExceeded> {
    // Under limits of its own, a call is decided on the item alone.
    if request.limits.is_some() {
        return None;
    }
    let (id, amounts) = (&request.id, &request.consume);
    let child = known(&id.entity)?;
    check_config(&child.config, &id.resource, amounts).ok()?;
    let parent = known_owner(&child).and_then(Owner::cascade_parent);
    let parent = match parent.filter(|parent| request.paid() != Some(parent)) {
        Some(parent) => {
            let found = known(parent)?;
            check_config(&found.config, &id.resource, &[]).ok()?;
            Some(found)
        }
        None => None,
    };
    refused_by_images(request, &child, parent.as_ref(), now)
}

/// The refusal by cached images alone. Only if all of them are known, so that the caller gets the whole wait.
pub(super) fn refused_by_images(
    request: &Request,
    child: &Found,
    parent: Option<&Found>,
    now: EpochMillis,
) -> Option<RateLimitExceeded> {
    let amounts = &request.consume;
    if child.config.is_bypassed() || parent.is_some_and(|parent| parent.config.is_bypassed()) {
        return None;
    }
    let of_parent = parent.map(|parent| (parent, parent_amounts(request, &parent.config)));
    let covers_parent = || {
        of_parent
            .as_ref()
            .is_none_or(|(parent, amounts)| is_covered(&parent.hint, &parent.config, amounts, now))
    };
    if is_covered(&child.hint, &child.config, amounts, now) && covers_parent() {
        return None;
    }
    let mut statuses = remembered(&request.id, &child.config, amounts, &child.hint, now)?;
    if let Some((parent, amounts)) = of_parent.filter(|(_, amounts)| !amounts.is_empty()) {
        statuses.extend(remembered(
            &parent_id(request, parent),
            &parent.config,
            &amounts,
            &parent.hint,
            now,
        )?);
    }
    let is_refused = statuses.iter().any(|status| status.exceeded);
    is_refused.then(|| RateLimitExceeded::new(statuses))
}

pub(super) fn parent_id(request: &Request, found: &Found) -> BucketId {
    BucketId {
        entity: found.config.entity.clone(),
        ..request.id.clone()
    }
}

/// A parent is debited for the limits that it has.
pub(super) fn parent_amounts(request: &Request, config: &Resolved) -> Vec<(LimitName, Millitokens)> {
    let has = |(name, _): &&(LimitName, Millitokens)| config.limit(name).is_some();
    request.consume.iter().filter(has).cloned().collect()
}

/// How the limits stand by the last images, refilled to now, over all shards together. `None` unless every shard's
/// image is known and may be judged by.
fn remembered(
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
    if count == 1 {
        return statuses(id, config, amounts, &[image(0)?], now);
    }
    let images: Vec<&Arc<Bucket>> = (0..count).map(image).collect::<Option<_>>()?;
    statuses(id, config, amounts, &images, now)
}

/// What a shard has of a limit.
fn part<'a>(image: &'a Bucket, name: &LimitName, now: EpochMillis) -> Option<Part<'a>> {
    let limit = image.limit(name.as_str())?;
    Some(Part {
        terms: image.terms(limit),
        balance: image.balance(limit, now),
    })
}

/// How limits stand over the shards of these images together.
fn statuses(
    id: &BucketId,
    config: &Resolved,
    amounts: &[(LimitName, Millitokens)],
    images: &[&Arc<Bucket>],
    now: EpochMillis,
) -> Option<Vec<LimitStatus>> {
    let first = images.first()?;
    // A status is large, and a refusal from memory must be cheap: each is made in its place.
    let mut statuses = Vec::with_capacity(amounts.len());
    for (name, need) in amounts {
        let whole = first.terms_among(first.limit(name.as_str())?, 1);
        let of = Of {
            who: (&id.entity, &id.resource),
            name: name.as_str(),
            is_soft: config.is_soft(name.as_str()),
        };
        if let [image] = images {
            // The usual case, without a list.
            let part = part(image, name, now)?;
            statuses.push(LimitStatus::together(of, &whole, &[part], *need, now));
        } else {
            let parts = images.iter().map(|image| part(image, name, now));
            let parts = parts.collect::<Option<Vec<_>>>()?;
            statuses.push(LimitStatus::together(of, &whole, &parts, *need, now));
        }
    }
    Some(statuses)
}
