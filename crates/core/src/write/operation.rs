//! The write of an operator's operation to one shard: a reset or a top-up.

use super::{Ttl, attr, limit_pins, refill_wcu, shapes, shard_count_is};
use crate::bucket::{Bucket, BucketLimit, CARRY, limit_attr, write_carries};
use crate::table::{Condition, Key, Update, Value};
use crate::units::{EpochMillis, Millitokens};

/// A limit on a shard as the operation leaves it.
#[derive(Debug)]
pub(crate) struct Changed<'a> {
    /// As it was read.
    pub(crate) limit: &'a BucketLimit,
    /// Its balance.
    pub(crate) tokens: Millitokens,
    /// What it has earned beside that, in parts of a period of so many milliseconds.
    pub(crate) carry: (i128, i128),
    /// The shard count that its part was granted for, if that is written.
    pub(crate) granted: Option<u32>,
    /// Millitokens added to its part.
    pub(crate) extra: i128,
    /// The session that it belongs to from now on, if that is written.
    pub(crate) session: Option<NewSession>,
    /// Whether it is another reset of a quota.
    pub(crate) is_reset: bool,
}

/// The session of a limit from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewSession {
    /// The one that another shard's use has begun.
    Joined(EpochMillis),
    /// One that begins at this instant.
    Begun(EpochMillis),
    /// One that has begun at this instant and is over.
    Ended(EpochMillis),
}

/// The write to one shard, refilled to `at`. Balances move by `ADD`, so that debits which come between the read and this write
/// still count; what a refund in between has brought above a ceiling is cut by the next acquire, which the write forces to
/// refill.
///
/// `count` is how many shards the bucket has: a shard with a lower count is raised. Guards that the shard was not refilled since
/// it was read, that its count and the parameters, shapes and periods of its limits are as they were read.
pub(crate) fn operate(
    key: Key,
    image: &Bucket,
    changed: &[&Changed<'_>],
    count: u32,
    ttl: Ttl,
    at: EpochMillis,
) -> Update {
    let mut update = Update::new(key);
    update.set.push((attr("rf"), Value::int(at.0)));
    update.set.push((attr("vu"), Value::int(0)));
    let carries = changed
        .iter()
        .map(|changed| (changed.limit.name.as_str(), changed.carry.0, changed.carry.1));
    match write_carries(at, carries) {
        Some(text) => update.set.push((attr(CARRY), Value::S(text))),
        None if image.fractions.is_some() => update.remove.push(attr(CARRY)),
        None => {}
    }
    if image.shard_count < count {
        update.set.push((attr("shard_count"), Value::int(count)));
    }
    ttl.write(&mut update, image);
    for changed in changed {
        change(&mut update, changed);
    }
    refill_wcu(&mut update, image, at);
    let is_left = |limit: &BucketLimit| changed.iter().all(|changed| changed.limit.name != limit.name);
    // Of a session that ends, everything comes back: what the caller learns of that must be what was seen.
    let ended = |changed: &&&Changed<'_>| matches!(changed.session, Some(NewSession::Ended(_)));
    let ended = changed.iter().filter(ended).map(|changed| {
        let balance = Value::int(changed.limit.balance.0);
        Condition::Is(limit_attr(&changed.limit.name, "tk"), balance)
    });
    let mut parts = vec![
        Condition::Is(attr("rf"), Value::int(image.refilled_at.0)),
        Condition::same(attr(CARRY), image.fractions.as_deref().map(Value::text)),
        shard_count_is(image.shard_count),
    ];
    parts.extend(shapes::shared_pins(image));
    parts.extend(limit_pins(image, is_left));
    parts.extend(ended);
    update.condition = Condition::All(parts);
    update
}

fn change(update: &mut Update, changed: &Changed<'_>) {
    let limit = changed.limit;
    let attr = |part| limit_attr(&limit.name, part);
    let gained = changed.tokens - limit.balance;
    if gained != Millitokens::ZERO {
        update.add.push((attr("tk"), gained.0));
    }
    let Some(shape) = limit.shape.as_ref().filter(|shape| shape.is_quota()) else {
        return;
    };
    if let Some(shards) = changed.granted {
        update.set.push((attr("gc"), Value::int(shards)));
    }
    match changed.extra {
        0 if shape.has("tu") => update.remove.push(attr("tu")),
        extra if extra != shape.extra() => update.set.push((attr("tu"), Value::int(extra))),
        _ => {}
    }
    if changed.is_reset {
        update.add.push((attr("rn"), 1));
    }
    match changed.session {
        Some(NewSession::Joined(start)) => update.set.push((attr("wa"), Value::int(start.0))),
        Some(NewSession::Begun(start) | NewSession::Ended(start)) => {
            update.set.push((attr("ws"), Value::int(start.0)));
            update.set.push((attr("wa"), Value::int(start.0)));
            if let Some(secs) = shape.session_secs() {
                update.set.push((attr("rsa"), Value::int(secs)));
            }
            if shape.has("wtc") {
                update.remove.push(attr("wtc"));
            }
        }
        None => {}
    }
}
