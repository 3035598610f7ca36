//! Writes about access: stamps on buckets, and what is counted under a bypass.

use smol_str::SmolStr;

use super::{Amounts, attr, wcu};
use crate::bucket::{Bucket, NO_DEADLINE, WCU_COST, limit_attr};
use crate::config::Access;
use crate::table::{Condition, Item, Key, Update, Value};
use crate::units::{EpochMillis, Millitokens};

/// Counts amounts on an item whose stamp admits every request, and leaves its balances as they are.
///
/// The write ceiling is debited without a condition: a bypass refuses nothing.
pub(crate) fn count(key: Key, amounts: &Amounts, now: EpochMillis) -> Update {
    let mut update = Update::new(key);
    let mut parts = vec![
        Condition::AtLeast(attr("bypass"), i128::from(now.0) + 1),
        Condition::Absent(attr("disabled")),
        Condition::Any(vec![
            Condition::Absent(attr("ttl")),
            Condition::AtLeast(attr("ttl"), i128::from(now.secs()) + 1),
        ]),
    ];
    for (limit, amount) in amounts {
        count_one(&mut update, limit.as_str(), *amount);
        // Never create a limit out of a count.
        parts.push(Condition::Exists(limit_attr(limit.as_str(), "cp")));
        parts.push(Condition::Exists(limit_attr(limit.as_str(), "tk")));
    }
    update.add.push((wcu("tk"), -WCU_COST));
    update.add.push((wcu("tc"), WCU_COST));
    update.condition = Condition::All(parts);
    update
}

/// Moves a limit's consumption counter alone.
fn count_one(update: &mut Update, limit: &str, by: Millitokens) {
    if by != Millitokens::ZERO {
        update.add.push((limit_attr(limit, "tc"), by.0));
    }
}

/// Corrects what was counted under a bypass: positive amounts are taken off. Balances stay as they are.
pub fn correct_count(key: Key, deltas: &[(SmolStr, Millitokens)]) -> Update {
    let mut update = Update::new(key);
    let mut parts = Vec::with_capacity(2 * deltas.len());
    for (limit, delta) in deltas {
        count_one(&mut update, limit, -*delta);
        parts.push(Condition::Exists(limit_attr(limit, "cp")));
        parts.push(Condition::Exists(limit_attr(limit, "tk")));
    }
    update.condition = Condition::All(parts);
    update
}

/// Stamps an item, as it was seen, with the instant until which every request is admitted.
pub(crate) fn stamp_bypass(key: Key, image: &Bucket, until: EpochMillis) -> Update {
    let mut update = Update::new(key);
    update.set.push((attr("bypass"), Value::int(until.0)));
    let seen = match image.bypass {
        None => Condition::Absent(attr("bypass")),
        Some(NO_DEADLINE) => Condition::Exists(attr("bypass")),
        Some(until) => Condition::Is(attr("bypass"), Value::int(until.0)),
    };
    update.condition = Condition::All(vec![
        Condition::Exists(attr("PK")),
        Condition::Absent(attr("disabled")),
        seen,
    ]);
    update
}

/// Removes a stamp, if it is still this one.
pub(crate) fn remove_bypass(key: Key, until: EpochMillis) -> Update {
    let mut update = Update::new(key);
    update.remove.push(attr("bypass"));
    update.condition = Condition::Is(attr("bypass"), Value::int(until.0));
    update
}

/// Whether an item is stamped with what is configured about access.
pub fn is_stamped(item: &Item, access: Access, now: EpochMillis) -> bool {
    let is_live = |until: &Value| until.as_int().is_some_and(|until| until > i128::from(now.0));
    match access {
        Access::Enabled => !item.contains_key("disabled") && !item.contains_key("bypass"),
        Access::Disabled => item.get("disabled") == Some(&Value::Bool(true)) && !item.contains_key("bypass"),
        Access::Bypass => !item.contains_key("disabled") && item.get("bypass").is_some_and(is_live),
    }
}

/// Stamps a live item with what is configured about access. A bypass lasts until `until`, when clients look at the configuration
/// again.
pub fn stamp_access(key: Key, access: Access, until: EpochMillis) -> Update {
    let mut update = Update::new(key);
    let (set, remove): (_, &[&'static str]) = match access {
        Access::Enabled => (None, &["disabled", "bypass"]),
        Access::Disabled => (Some(("disabled", Value::Bool(true))), &["bypass"]),
        Access::Bypass => (Some(("bypass", Value::int(until.0))), &["disabled"]),
    };
    update.set.extend(set.map(|(name, value)| (attr(name), value)));
    update.remove.extend(remove.iter().map(|name| attr(name)));
    update.condition = Condition::Exists(attr("PK"));
    update
}
