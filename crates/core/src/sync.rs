//! Carrying a changed configuration to live buckets (data model, sections 7.4 and 15.4).
//!
//! Balances are never touched: `vu` = 0 forces the next acquire through a refilling write, which cuts what a
//! lowered capacity no longer covers. Raising a capacity gives no tokens at once.

use smol_str::SmolStr;

use crate::acquire::newest_owner;
use crate::acquire::write::owner_attributes;
use crate::bucket::{Bucket, Owner, limit_attr};
use crate::config::{Level, Resolved, bucket_ttl_secs};
use crate::limit::Limit;
use crate::schema::BucketId;
use crate::table::{Condition, Key, Update, Value};
use crate::units::EpochMillis;

/// A change of limits on its way to one bucket shard.
#[derive(Debug, Clone)]
pub struct LimitChange<'a> {
    /// The limits in force from now on.
    pub limits: &'a [Limit],
    /// The level they come from; decides whether the bucket expires.
    pub level: Level,
    /// Whether the shard may be given an expiry. The first shard of a split bucket may not: it knows the count.
    pub may_expire: bool,
    /// Limits that no longer exist.
    pub stale: &'a [SmolStr],
    /// See [`crate::acquire::Settings::bucket_ttl_multiplier`].
    pub bucket_ttl_multiplier: u32,
}

/// Rewrites a shard's parameters after its limits were set or deleted.
///
/// Guards that the item exists; a failure without an image means that it is gone and nothing is to be done.
/// Where it may and would give an expiry, it also guards that the bucket is in one piece, or that this is not
/// its first shard; a failure with an image asks for the change once more with
/// [`may_expire`](LimitChange::may_expire) off.
pub fn change_limits(key: Key, change: &LimitChange<'_>, now: EpochMillis) -> Update {
    let mut update = Update::new(key);
    set_params(&mut update, change.limits);
    for attr in ["sched", "rsched", "sched_tz"] {
        update.remove.push(SmolStr::new_static(attr));
    }
    for limit in change.limits {
        for part in ["sched", "rsched", "rsa", "soft"] {
            update.remove.push(limit_attr(limit.name().as_str(), part));
        }
    }
    for name in change.stale {
        for part in ["tk", "cp", "ra", "rp", "tc", "sched", "rsched", "soft"] {
            update.remove.push(limit_attr(name, part));
        }
    }
    let mut parts = vec![Condition::Exists("PK".into())];
    let expires = !change.level.keeps_bucket() && change.bucket_ttl_multiplier > 0;
    if change.may_expire || !expires {
        set_ttl(
            &mut update,
            change.limits,
            change.level,
            change.bucket_ttl_multiplier,
            now,
        );
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

fn set_params(update: &mut Update, limits: &[Limit]) {
    for limit in limits {
        let (name, params) = (limit.name().as_str(), limit.params());
        update
            .set
            .push((limit_attr(name, "cp"), Value::int(params.capacity)));
        update
            .set
            .push((limit_attr(name, "ra"), Value::int(params.refill)));
        update
            .set
            .push((limit_attr(name, "rp"), Value::int(params.period_ms)));
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

/// What a bucket's image shows to be behind the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift {
    /// A limit's parameters differ.
    pub limits: bool,
    /// The owner stamp is not the one of the entity's META.
    pub owner: bool,
}

impl Drift {
    /// Compares an image with the configuration in force.
    ///
    /// An item with features that are not understood is left to those who understand it, and limits that came
    /// with a call are no configuration.
    pub fn between(image: &Bucket, config: &Resolved) -> Self {
        if image.unsupported.is_some() || config.level == Level::Override {
            return Self::default();
        }
        let differs = |limit: &Limit| {
            image
                .limit(limit.name().as_str())
                .is_some_and(|stored| !stored.matches(limit))
        };
        Self {
            limits: config.limits.iter().any(differs),
            owner: config.owner.as_ref().is_some_and(|read| {
                newest_owner(&image.owner, Some(read)) == Some(read) && image.owner != *read
            }),
        }
    }

    /// Whether anything is behind.
    pub fn is_some(self) -> bool {
        self.limits || self.owner
    }
}

/// Brings a shard up to a configuration that was read just now.
///
/// Pins what the image showed, so that of two writers with different knowledge the later reader wins; never
/// lets an older generation of the owner replace a newer one.
pub fn reconcile(
    key: Key,
    image: &Bucket,
    config: &Resolved,
    bucket_ttl_multiplier: u32,
    now: EpochMillis,
) -> Update {
    let drift = Drift::between(image, config);
    let mut update = Update::new(key);
    let mut parts = vec![
        Condition::Exists("PK".into()),
        Condition::Absent("sched".into()),
        Condition::Absent("rsched".into()),
        Condition::same("vu".into(), image.valid_until.map(Value::int)),
    ];
    if drift.limits {
        let known: Vec<Limit> = config
            .limits
            .iter()
            .filter(|limit| image.limit(limit.name().as_str()).is_some())
            .cloned()
            .collect();
        set_params(&mut update, &known);
        // Shard 0 of a split bucket knows the count and must not expire.
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
    if let (true, Some(owner)) = (drift.owner, &config.owner) {
        stamp(&mut update, owner);
        parts.push(owner_pin(owner));
    }
    update.condition = Condition::All(parts);
    update
}

fn stamp(update: &mut Update, owner: &Owner) {
    update.set.extend(owner_attributes(Some(owner)));
    if owner.parent.is_none() {
        update.remove.push("parent_id".into());
    }
}

/// No incarnation on the item yet, or the same one and no later generation.
fn owner_pin(owner: &Owner) -> Condition {
    let (pinc, pgen) = (SmolStr::new_static("pinc"), SmolStr::new_static("pgen"));
    let incarnation = owner.incarnation.as_deref().unwrap_or("-");
    Condition::Any(vec![
        Condition::Absent(pinc.clone()),
        Condition::All(vec![
            Condition::Is(pinc, Value::text(incarnation)),
            Condition::Any(vec![
                Condition::Absent(pgen.clone()),
                Condition::AtMost(pgen, owner.generation.unwrap_or(0).into()),
            ]),
        ]),
    ])
}
