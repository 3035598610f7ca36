//! Carrying a changed configuration to live buckets (data model, sections 7.4 and 15.4).
//!
//! Balances are never touched: `vu` = 0 forces the next acquire through a refilling write, which cuts what a
//! lowered capacity no longer covers. Raising a capacity gives no tokens at once.

use smol_str::SmolStr;

pub use super::owner_pins;
pub use super::shapes::harden;
use super::shapes::{PARTS, set_shapes, shared_pins};
use super::{owner_attributes, set_params};
use crate::bucket::{Bucket, BucketLimit, Owner, is_disputed, limit_attr, newest_owner};
use crate::config::{Level, Resolved, bucket_ttl_secs};
use crate::limit::{Limit, MAX_LIMITS};
use crate::schema::BucketId;
use crate::table::{Condition, Key, Update, Value};
use crate::units::EpochMillis;
use crate::units::Millitokens;

/// A change of limits on its way to one bucket shard.
#[derive(Debug, Clone)]
pub struct LimitChange<'a> {
    /// The limits in force from now on.
    pub limits: &'a [Limit],
    /// The level they come from; decides whether the bucket expires.
    pub level: Level,
    /// Whether the shard may be given an expiry. The first shard of a split bucket may not: it has the count.
    pub may_expire: bool,
    /// Limits that no longer exist.
    pub stale: &'a [SmolStr],
    /// See [`crate::acquire::Settings::bucket_ttl_multiplier`].
    pub bucket_ttl_multiplier: u32,
}

/// An update's expression may be no longer than its condition; so many limits are surely changed by one, and so many
/// removed.
const MAX_CHANGED: usize = 20;

/// A bucket that holds more limits than this loses those that are not configured.
const MAX_KEPT: usize = MAX_LIMITS / 2;

impl LimitChange<'_> {
    /// The change in pieces that fit one write each. Usually there is one.
    pub fn pieces(&self) -> Vec<Self> {
        let mut limits = self.limits.chunks(MAX_CHANGED);
        let mut stale = self.stale.chunks(MAX_CHANGED);
        let mut pieces = Vec::new();
        loop {
            let (limits, stale) = (limits.next(), stale.next());
            if !pieces.is_empty() && limits.is_none() && stale.is_none() {
                return pieces;
            }
            pieces.push(Self {
                limits: limits.unwrap_or_default(),
                stale: stale.unwrap_or_default(),
                ..self.clone()
            });
        }
    }
}

/// Rewrites a shard's parameters after its limits were set or deleted. `all` are the limits in force, of which the
/// change may hold a [piece](LimitChange::pieces).
///
/// Guards that the item exists; a failure without an image means that it is gone and nothing is to be done.
/// Where it may and would give an expiry, it also guards that the bucket is in one piece, or that this is not
/// its first shard; a failure with an image asks for the change once more with
/// [`may_expire`](LimitChange::may_expire) off.
pub fn change_limits(key: Key, change: &LimitChange<'_>, all: &[Limit], now: EpochMillis) -> Update {
    let mut update = Update::new(key);
    set_limits(&mut update, change.limits);
    set_shapes(&mut update, change.limits, all, now);
    for name in change.stale {
        update.remove.extend(PARTS.map(|part| limit_attr(name, part)));
    }
    let mut parts = vec![Condition::Exists("PK".into())];
    let expires = !change.level.keeps_bucket() && change.bucket_ttl_multiplier > 0;
    if change.may_expire || !expires {
        set_ttl(&mut update, all, change.level, change.bucket_ttl_multiplier, now);
        if expires && is_first_shard(&update.key) {
            parts.push(Condition::AtMost("shard_count".into(), 1));
        }
    }
    update.condition = Condition::All(parts);
    update
}

fn is_first_shard(key: &Key) -> bool {
    BucketId::parse(key).is_none_or(|(_, shard)| shard == 0)
}

/// Sets the parameters of limits, and marks the item for a forced pass.
fn set_limits(update: &mut Update, limits: &[Limit]) {
    for limit in limits {
        set_params(update, limit.name().as_str(), limit.params());
    }
    update.set.push((SmolStr::new_static("vu"), Value::int(0)));
}

fn set_ttl(update: &mut Update, limits: &[Limit], level: Level, multiplier: u32, now: EpochMillis) {
    let ttl = SmolStr::new_static("ttl");
    if level.keeps_bucket() {
        update.remove.push(ttl);
    } else if multiplier > 0 {
        update.set.push((
            ttl,
            Value::int(now.secs().saturating_add(bucket_ttl_secs(limits, multiplier))),
        ));
    }
}

/// The differences of a bucket's image from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift {
    /// A limit's parameters differ.
    pub limits: bool,
    /// The owner stamp is not the one of the entity's META.
    pub owner: bool,
    /// It holds many limits, and some that are not configured any more and are full.
    pub stale: bool,
}

impl Drift {
    /// Compares an image with the configuration in force.
    ///
    /// Limits of an item with features that are not understood are left to those who understand it, and limits
    /// that came with a call are not configuration. A stamp of another incarnation counts as behind; whether it
    /// is, the caller finds out by a consistent read.
    pub fn between(image: &Bucket, config: &Resolved, now: EpochMillis) -> Self {
        if config.level == Level::Override {
            return Self::default();
        }
        let read = config.owner.as_ref();
        let differs = |limit: &Limit| {
            image
                .limit(limit.name().as_str())
                .is_some_and(|stored| !stored.matches(limit))
        };
        Self {
            limits: image.unsupported.is_none()
                && config.unsupported.is_none()
                && config.limits.iter().any(differs),
            owner: is_disputed(&image.owner, read)
                || read.is_some_and(|read| {
                    newest_owner(&image.owner, Some(read)) == Some(read) && image.owner != *read
                }),
            stale: !stale(image, config, now).is_empty(),
        }
    }

    /// Whether anything is behind.
    pub fn is_some(self) -> bool {
        self.limits || self.owner || self.stale
    }
}

/// The limits that a bucket with too many can do without: not configured, and full, so that nothing is forgotten if
/// they are wanted again. Limits that came with calls are not configured either; they stay while they are not full.
fn stale<'a>(image: &'a Bucket, config: &Resolved, now: EpochMillis) -> Vec<&'a BucketLimit> {
    let is_plain = image.unsupported.is_none() && config.unsupported.is_none() && !config.limits.is_empty();
    if image.limits.len() <= MAX_KEPT || !is_plain {
        return Vec::new();
    }
    let unknown = |limit: &&BucketLimit| {
        config
            .limits
            .iter()
            .all(|known| known.name().as_str() != limit.name)
    };
    let full =
        |limit: &&BucketLimit| image.refilled(limit, now).tokens >= Millitokens(image.ceiling(limit, now));
    let stale = image.limits.iter().filter(unknown).filter(full);
    stale.take(MAX_CHANGED).collect()
}

/// Brings a shard up to a configuration that was read just now, and consistently.
///
/// Pins what the image showed, so that of two writers with different knowledge the later reader wins. A stamp of
/// another incarnation, or of an entity that is gone, is replaced by what META says; of one incarnation, only by
/// a later generation.
pub fn reconcile(
    key: Key,
    image: &Bucket,
    config: &Resolved,
    bucket_ttl_multiplier: u32,
    now: EpochMillis,
) -> Update {
    let drift = Drift::between(image, config, now);
    let mut update = Update::new(key);
    let mut parts = vec![Condition::Exists("PK".into())];
    if drift.limits {
        parts.extend(shared_pins(image));
        parts.push(Condition::same("vu".into(), image.valid_until.map(Value::int)));
        let known: Vec<Limit> = config
            .limits
            .iter()
            .filter(|limit| {
                image
                    .limit(limit.name().as_str())
                    .is_some_and(|stored| !stored.matches(limit))
            })
            .take(MAX_CHANGED)
            .cloned()
            .collect();
        set_limits(&mut update, &known);
        if !image.limits.iter().all(BucketLimit::is_plain) || !config.limits.iter().all(Limit::is_plain) {
            // What the item has for all limits may change, and with it what each has for itself.
            let held = config
                .limits
                .iter()
                .filter(|limit| image.limit(limit.name().as_str()).is_some());
            let held: Vec<Limit> = held.take(MAX_CHANGED).cloned().collect();
            set_shapes(&mut update, &held, &held, now);
        }
        // Shard 0 of a split bucket has the count and must not expire.
        if image.shard_count == 1 {
            set_ttl(
                &mut update,
                &config.limits,
                config.level,
                bucket_ttl_multiplier,
                now,
            );
        }
        for limit in &known {
            if let Some(stored) = image.limit(limit.name().as_str()) {
                let is = |part, n| Condition::Is(limit_attr(&stored.name, part), Value::int(n));
                parts.push(is("cp", stored.params.capacity));
                parts.push(is("ra", stored.params.refill));
                parts.push(is("rp", stored.params.period_ms));
            }
        }
    }
    for limit in stale(image, config, now) {
        update
            .remove
            .extend(PARTS.map(|part| limit_attr(&limit.name, part)));
        // Spent or set again, it is needed again.
        let is = |part, n: i128| Condition::Is(limit_attr(&limit.name, part), Value::int(n));
        parts.push(is("cp", limit.params.capacity));
        parts.push(Condition::AtLeast(limit_attr(&limit.name, "tk"), limit.balance.0));
    }
    if drift.owner {
        stamp(&mut update, &config.owner.clone().unwrap_or_default());
        parts.extend(owner_pins(&image.owner));
    }
    update.condition = Condition::All(parts);
    update
}

/// Stamps a shard with its owner, as the entity's record and the cascade policy have it by now. `None` if it has the stamp, or one
/// of a later generation.
pub fn stamp_owner(key: Key, image: &Bucket, owner: &Owner) -> Option<Update> {
    let is_later = image.owner.incarnation == owner.incarnation && image.owner.generation > owner.generation;
    if image.owner == *owner || is_later {
        return None;
    }
    let mut update = Update::new(key);
    stamp(&mut update, owner);
    let mut parts = vec![Condition::Exists("PK".into())];
    parts.extend(owner_pins(&image.owner));
    update.condition = Condition::All(parts);
    Some(update)
}

fn stamp(update: &mut Update, owner: &Owner) {
    update.set.extend(owner_attributes(Some(owner)));
    let absent = [
        ("parent_id", owner.parent.is_none()),
        ("pgen", owner.generation.is_none()),
        ("pinc", owner.incarnation.is_none()),
    ];
    let absent = absent.into_iter().filter(|(_, absent)| *absent);
    update
        .remove
        .extend(absent.map(|(attr, _)| SmolStr::new_static(attr)));
}
