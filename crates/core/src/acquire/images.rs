//! Judging by images: how limits stand by what was seen of a bucket.
//!
//! Remembered images may refuse a request and choose its shard. They never admit.

use std::sync::Arc;

use super::protocol::{Found, Grant, Hint, Request, check_config};
use super::{Known, known_owner};
use crate::bucket::Bucket;
use crate::config::Resolved;
use crate::name::{EntityId, LimitName, ResourceName};
use crate::shards::together::Part;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::{LimitStatus, Of, RateLimitExceeded};

/// The moment that statuses are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the grants were taken.
    Before,
    /// When they had been taken.
    After,
}

/// How the limits of a bucket stood before these grants were taken from it.
pub(super) fn statuses_before(grants: &[Grant], now: EpochMillis) -> Vec<LimitStatus> {
    statuses(grants.iter(), Moment::Before, now)
}

/// How the limits of an acquire stood when these grants had been taken, in the order of the grants: of each bucket, the limits
/// that were named. Of one shard that was debited, the numbers are of that shard ([`LimitStatus::shards`]). None under a bypass.
pub fn statuses_after(grants: &[Grant], now: EpochMillis) -> Vec<LimitStatus> {
    let is_first = |(at, grant): &(usize, &Grant)| grants[..*at].iter().all(|before| before.id != grant.id);
    let firsts = grants.iter().enumerate().filter(is_first);
    let of_bucket = |(_, first): (usize, &Grant)| {
        statuses(
            grants.iter().filter(|grant| grant.id == first.id),
            Moment::After,
            now,
        )
    };
    firsts.flat_map(of_bucket).collect()
}

/// How the limits of a bucket stood, before or after these grants of it.
fn statuses<'a>(
    grants: impl Iterator<Item = &'a Grant>,
    moment: Moment,
    now: EpochMillis,
) -> Vec<LimitStatus> {
    // Under a bypass, no limit refuses, also if the bucket was debited because this client did not know of it yet.
    let is_bypassed = |grant: &Grant| grant.is_bypassed || grant.image.is_bypassed(now);
    let grants: Vec<&Grant> = grants.filter(|grant| !is_bypassed(grant)).collect();
    let mut sums: Vec<(&LimitName, Millitokens)> = Vec::new();
    for (name, part) in grants.iter().flat_map(|grant| &grant.amounts) {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += *part,
            None => sums.push((name, *part)),
        }
    }
    let status = |(name, amount): (&LimitName, Millitokens)| {
        let part = |grant: &&'a Grant| {
            let limit = grant.image.limit(name.as_str())?;
            let (_, taken) = grant.amounts.iter().find(|(of, _)| of == name)?;
            let mut balance = grant.image.balance(limit, now);
            if moment == Moment::Before {
                balance.tokens += *taken;
            }
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
        let need = match moment {
            Moment::Before => amount,
            Moment::After => Millitokens::ZERO,
        };
        let status = if parts.len() == 1 {
            let terms = image.terms(limit);
            let shards = first.image.shard_count;
            LimitStatus::check(of, &terms, shards, balance, need, now)
        } else {
            let whole = image.terms_among(limit, 1);
            let parts: Vec<Part<'_>> = parts
                .into_iter()
                .map(|(image, limit, balance)| Part {
                    terms: image.terms(limit),
                    balance,
                })
                .collect();
            LimitStatus::together(of, &whole, &parts, need, now)
        };
        Some(LimitStatus {
            requested: amount.floor_amount(),
            ..status
        })
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
        let is_short =
            is_trusted(image, now) && holds_all(image) && !covers(image, config, amounts.iter(), now);
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
fn covers<'a>(
    image: &Bucket,
    config: &Resolved,
    mut amounts: impl Iterator<Item = &'a (LimitName, Millitokens)>,
    now: EpochMillis,
) -> bool {
    amounts.all(|(name, need)| {
        let limit = image.limit(name.as_str());
        limit.is_some_and(|limit| config.is_soft(name.as_str()) || image.refilled(limit, now).tokens >= *need)
    })
}

/// The refusal of a request by what is cached: what an [`Acquire`](super::Acquire) decides from the same before it asks for anything.
///
/// For drivers that are to refuse without the machine. If there is no refusal, the machine has the decision.
pub fn refused_from_memory(
    request: &Request,
    known: &Known<'_>,
    now: EpochMillis,
) -> Option<RateLimitExceeded> {
    // Under limits of its own, a call is decided on the item alone.
    if request.limits.is_some() || request.overdraws {
        return None;
    }
    let mut legs: Vec<Cached<'_>> = Vec::with_capacity(1 + request.also.len());
    for (part, (resource, amounts)) in request.parts().enumerate() {
        let mut entity = request.id.entity.clone();
        for level in 0.. {
            let found = known(&entity, resource)?;
            check_config(&found.config, resource, if level == 0 { amounts } else { &[] }).ok()?;
            let chain = legs[legs.len() - level..].iter().map(|leg| &leg.entity);
            let above = found
                .config
                .depth
                .next_above(known_owner(&found), level, chain.chain([&entity]))
                .filter(|above| part > 0 || request.paid() != Some(above))
                .cloned();
            legs.push(Cached {
                entity,
                resource,
                level,
                amounts,
                found,
            });
            match above {
                Some(above) => entity = above,
                None => break,
            }
        }
    }
    refused_by_images(legs.iter().map(Cached::seen), now)
}

/// What is cached of a leg.
struct Cached<'a> {
    entity: EntityId,
    resource: &'a ResourceName,
    level: usize,
    amounts: &'a [(LimitName, Millitokens)],
    found: Found,
}

impl Cached<'_> {
    fn seen(&self) -> Seen<'_> {
        Seen {
            who: (&self.entity, self.resource),
            level: self.level,
            amounts: self.amounts,
            found: &self.found,
        }
    }
}

/// A leg as it is known before it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The entity and the resource.
    pub(super) who: (&'a EntityId, &'a ResourceName),
    /// 0 for the entity of the request.
    pub(super) level: usize,
    /// What is asked of the resource.
    pub(super) amounts: &'a [(LimitName, Millitokens)],
    pub(super) found: &'a Found,
}

impl<'a> Seen<'a> {
    /// What is asked of it: of an entity above, of the limits that it has.
    pub(super) fn asked(self) -> impl Iterator<Item = &'a (LimitName, Millitokens)> + Clone {
        let has = move |(name, _): &&(LimitName, Millitokens)| {
            self.level == 0 || self.found.config.limit(name).is_some()
        };
        self.amounts.iter().filter(has)
    }

    /// Whether something is asked of it. An entity above may have none of the limits.
    pub(super) fn has_say(self) -> bool {
        self.level == 0 || self.asked().next().is_some()
    }

    /// Whether the cached image of one shard alone covers what is asked of it, so that all shards together do not refuse it.
    fn is_covered(self, now: EpochMillis) -> bool {
        if !self.has_say() {
            return true;
        }
        let mut images = self.found.hint.images.iter();
        images
            .any(|(_, image)| is_trusted(image, now) && covers(image, &self.found.config, self.asked(), now))
    }
}

/// The refusal by cached images alone. Only if all of them are known, so that the caller gets the whole wait.
pub(super) fn refused_by_images<'a>(
    legs: impl Iterator<Item = Seen<'a>> + Clone,
    now: EpochMillis,
) -> Option<RateLimitExceeded> {
    if legs.clone().any(|leg| leg.found.config.is_bypassed()) || legs.clone().all(|leg| leg.is_covered(now)) {
        return None;
    }
    let mut statuses = Vec::with_capacity(2);
    for leg in legs.filter(|leg| leg.has_say()) {
        remembered(leg, &mut statuses, now)?;
    }
    let is_refused = statuses.iter().any(|status| status.exceeded);
    is_refused.then(|| RateLimitExceeded::new(statuses))
}

/// Adds how the limits stand by the last images, refilled to now, over all shards together. `None` unless every shard's
/// image is known and may be judged by.
fn remembered(leg: Seen<'_>, statuses: &mut Vec<LimitStatus>, now: EpochMillis) -> Option<()> {
    let hint = &leg.found.hint;
    let count = hint.shard_count.max(1);
    let image = |shard: u32| {
        let (_, image) = hint.images.iter().find(|(seen, _)| *seen == shard)?;
        (image.shard_count <= count && is_trusted(image, now)).then_some(image)
    };
    if count == 1 {
        return add_statuses(leg, &[image(0)?], statuses, now);
    }
    let images: Vec<&Arc<Bucket>> = (0..count).map(image).collect::<Option<_>>()?;
    add_statuses(leg, &images, statuses, now)
}

/// What a shard has of a limit.
fn part<'a>(image: &'a Bucket, name: &LimitName, now: EpochMillis) -> Option<Part<'a>> {
    let limit = image.limit(name.as_str())?;
    Some(Part {
        terms: image.terms(limit),
        balance: image.balance(limit, now),
    })
}

/// Adds how limits stand over the shards of these images together.
fn add_statuses(
    leg: Seen<'_>,
    images: &[&Arc<Bucket>],
    statuses: &mut Vec<LimitStatus>,
    now: EpochMillis,
) -> Option<()> {
    let first = images.first()?;
    for (name, need) in leg.asked() {
        let whole = first.terms_among(first.limit(name.as_str())?, 1);
        let together = |parts: &[Part<'_>]| {
            let of = Of {
                who: leg.who,
                name: name.as_str(),
                is_soft: leg.found.config.is_soft(name.as_str()),
            };
            LimitStatus::together(of, &whole, parts, *need, now)
        };
        statuses.push(if let [image] = images {
            // The usual case, without a list.
            together(&[part(image, name, now)?])
        } else {
            let parts = images.iter().map(|image| part(image, name, now));
            together(&parts.collect::<Option<Vec<_>>>()?)
        });
    }
    Some(())
}
