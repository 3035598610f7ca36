//! The decision on a request while the table cannot be used: by the policy for outages, and by the limits and flags that
//! the caches last held, of the entity and of those above it if it cascades, for each resource of the request.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::local_buckets::{Claim, LocalBuckets, Refused};
use crate::acquire::{AcquireError, DisabledAt, Hint, Request, check_config};
use crate::bucket::{Owner, newest_owner};
use crate::config::{Level, OnUnavailable, Percent, Resolved};
use crate::depth::CascadeDepth;
use crate::name::{LimitName, ResourceName};
use crate::schema::BucketId;
use crate::table::Condition;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::RateLimitExceeded;

/// What a process remembers, however old it is.
pub trait Memory {
    /// The configuration of a bucket's entity and resource that was read last.
    fn config(&self, id: &BucketId) -> Option<Arc<Resolved>>;

    /// The cached state of a bucket.
    fn hint(&self, id: &BucketId) -> Hint;
}

/// The decision on a request without the table.
#[derive(Debug)]
pub enum Decision {
    /// Nothing admits it: its error is that of the outage.
    Unavailable,
    /// It is admitted without any limit, and takes nothing.
    Unlimited,
    /// It has taken its amounts from these limits in memory.
    Local(Vec<Claim>),
    /// This process's part of a limit is used up.
    Exceeded(RateLimitExceeded),
    /// There is no memory for another limit.
    Full,
    /// The entity or the resource is disabled, as far as it is known, for this bucket.
    Disabled {
        /// The bucket.
        id: BucketId,
        /// Where the flag is.
        at: DisabledAt,
    },
    /// It would be an error with the table, too: an unknown limit, or limits that cannot be enforced.
    Failed(AcquireError),
}

/// Decides a request that the table has not decided because of an outage (see
/// [`TableError::is_outage`](crate::table::TableError::is_outage)).
pub fn decide<S: BuildHasher + Clone>(
    policy: OnUnavailable,
    request: &Request,
    memory: &impl Memory,
    buckets: &LocalBuckets<S>,
    now: EpochMillis,
) -> Decision {
    let part = match policy {
        OnUnavailable::Block => return Decision::Unavailable,
        OnUnavailable::Allow => return Decision::Unlimited,
        OnUnavailable::Degrade(part) => part,
    };
    let wanted = match claims(request, part, memory, now) {
        Ok(Some(wanted)) => wanted,
        // Without having ever seen the limits there is nothing to bound admissions by.
        Ok(None) => return Decision::Unavailable,
        Err(refusal) => return *refusal,
    };
    match buckets.take(&wanted, now) {
        Ok(()) => Decision::Local(wanted.into_iter().map(|(claim, _)| claim).collect()),
        Err(Refused::Exceeded(refused)) => Decision::Exceeded(refused),
        Err(Refused::Full) => Decision::Full,
    }
}

/// What a request takes from this process's part of the limits last seen: of each of its resources, of the entity and of those
/// above it if it cascades. `None` if the limits of one of them were never seen, so that nothing bounds the request.
///
/// # Errors
/// As with the table: a disabled entity or resource, an unknown limit, limits that cannot be enforced.
fn claims(
    request: &Request,
    part: Percent,
    memory: &impl Memory,
    now: EpochMillis,
) -> Result<Option<Vec<(Claim, Millitokens)>>, Box<Decision>> {
    let failed = |err| Box::new(Decision::Failed(err));
    let mut legs: Vec<(BucketId, Resolved)> = Vec::with_capacity(2);
    let mut claims = Vec::new();
    for (resource, amounts) in request.parts() {
        let mut id = BucketId {
            resource: resource.clone(),
            ..request.id.clone()
        };
        for level in 0.. {
            let Some(config) = last_known(&id, request, memory) else {
                return Ok(None);
            };
            check_config(&config, resource, if level == 0 { amounts } else { &[] }).map_err(failed)?;
            claims.extend(claims_of(&config, (resource, amounts), part, now));
            let owner = last_owner(&id, config.owner.as_ref(), memory);
            let depth = config.depth;
            legs.push((id, config));
            let chain = legs.iter().rev().take(level + 1).map(|leg| &leg.0.entity);
            let Some(above) = depth.next_above(owner.as_ref(), level, chain) else {
                break;
            };
            id = BucketId {
                entity: above.clone(),
                resource: resource.clone(),
                ..request.id.clone()
            };
        }
    }
    for (id, config) in legs.iter().rev() {
        check_enabled(id, config, memory)?;
    }
    Ok(Some(claims))
}

/// The configuration last seen, with the limits that came with the call.
pub fn last_known(id: &BucketId, request: &Request, memory: &impl Memory) -> Option<Resolved> {
    let known = memory.config(id);
    let Some(limits) = request.limits.clone() else {
        return known.map(|known| Resolved {
            overdraws: request.overdraws,
            ..(*known).clone()
        });
    };
    let (owner, access, depth) = match &known {
        Some(known) => (known.owner.clone(), known.access, known.depth),
        None => (None, None, CascadeDepth::default()),
    };
    Some(Resolved {
        entity: id.entity.clone(),
        limits,
        level: Level::Override,
        unsupported: None,
        owner,
        meta_unchanged: Condition::ALWAYS,
        access,
        on_unavailable: None,
        depth,
        overdraws: request.overdraws,
        read_at: EpochMillis::default(),
    })
}

/// The owner of the bucket, according to its last image or the entity's record.
fn last_owner(id: &BucketId, read: Option<&Owner>, memory: &impl Memory) -> Option<Owner> {
    let hint = memory.hint(id);
    match hint.images.first().or_else(|| hint.older.first()) {
        Some((_, image)) => newest_owner(&image.owner, read).cloned(),
        None => read.cloned(),
    }
}

fn check_enabled(id: &BucketId, config: &Resolved, memory: &impl Memory) -> Result<(), Box<Decision>> {
    let hint = memory.hint(id);
    let mut images = hint.images.iter().chain(&hint.older);
    let at = match config.disabled() {
        Some(level) => DisabledAt::Config(level),
        None if images.any(|(_, image)| image.disabled) => DisabledAt::Bucket,
        None => return Ok(()),
    };
    Err(Box::new(Decision::Disabled { id: id.clone(), at }))
}

/// What is asked of the limits of a configuration. Soft limits refuse nothing.
fn claims_of(
    config: &Resolved,
    (resource, amounts): (&ResourceName, &[(LimitName, Millitokens)]),
    part: Percent,
    now: EpochMillis,
) -> impl Iterator<Item = (Claim, Millitokens)> {
    let claim = move |(name, amount): &(LimitName, Millitokens)| {
        let limit = config.limit(name).filter(|_| !config.is_soft(name.as_str()))?;
        let claim = Claim::new(&config.entity, resource, limit, part, now);
        Some((claim, *amount))
    };
    amounts.iter().filter_map(claim)
}
