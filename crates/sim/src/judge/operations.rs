//! What operators do to buckets: each operation happens once for its key, and is no more and no less than it says.
//!
//! - Of all transactions of one key in one life of an entity, one happens. A caller hears of what that one did, and of nothing else.
//! - All shards that were read are written, or none.
//! - **Reset.** A rate holds its share, less what was taken since the shard was read and with what came back since. So does a quota,
//!   whose part is granted anew, without what was added to it. A session is over, and its balance stays.
//! - **Top-up.** A quota or a session limit gains the amount, to the millitoken, over all shards. A rate gains what there is room for,
//!   up to the amount, and no shard is filled above its share.
//! - All other limits hold what they would after a refill.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::operator::{Change, OperationResult};

use super::periods::Moment;
use super::rules::Fraction;
use crate::rows::row::{Cell, Row};
use crate::rows::terms::{PARTS, Regain};

/// What makes two operations the same: the bucket, the name of the key, and the life of the entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) bucket: String,
    pub(crate) name: String,
    pub(crate) life: String,
}

impl Key {
    /// Whether a key counts for the other's life, too: without a record, an entity has but one.
    fn is_same(&self, other: &Self) -> bool {
        let is_of_one_life = self.life == other.life || self.life == "-" || other.life == "-";
        (&self.bucket, &self.name) == (&other.bucket, &other.name) && is_of_one_life
    }
}

/// A transaction that an operator sends, and what it was made from.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) key: Key,
    pub(crate) change: Change,
    /// The limits that are configured.
    pub(crate) configured: BTreeSet<String>,
    pub(crate) reads: BTreeMap<u32, Row>,
    pub(crate) result: OperationResult,
}

impl Planned {
    /// What is to be done to a limit.
    fn order(&self, name: &str) -> Order {
        match &self.change {
            Change::Reset(limits) => {
                let is_named = limits.is_empty() && self.configured.contains(name)
                    || limits.iter().any(|limit| limit.as_str() == name);
                if is_named { Order::Reset } else { Order::Nothing }
            }
            Change::TopUp(amounts) => {
                let amounts = amounts.iter().filter(|(limit, _)| limit.as_str() == name);
                let sum: u64 = amounts.map(|(_, amount)| *amount).sum();
                if sum == 0 {
                    Order::Nothing
                } else {
                    Order::Add(i128::from(sum) * 1000)
                }
            }
        }
    }

    /// Whether all shards exist that there should be.
    fn is_complete(&self, count: i128) -> bool {
        self.reads.len() as i128 == count
    }
}

/// What is to be done to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Nothing,
    Reset,
    /// So many millitokens.
    Add(i128),
}

/// How one limit of one shard has changed in an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed<'a> {
    pub(super) old: &'a Row,
    pub(super) new: &'a Row,
    pub(super) was: &'a Cell,
    pub(super) is: &'a Cell,
    pub(super) fraction: Fraction,
}

/// What an operation has done to a limit of a shard, beside what a refill would have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The balance gained at most this much more than a refill would give it.
    pub(crate) gained: i128,
    /// The balance belongs to another period than before: what was taken in the last one does not come back.
    pub(crate) is_other_period: bool,
}

/// What was given to a limit over all shards.
#[derive(Debug, Default)]
struct Given {
    least: i128,
    most: i128,
    room_least: i128,
    room_most: i128,
    is_rate: bool,
}

/// The independent account of operations.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    /// All transactions that were planned.
    pub(crate) planned: Vec<Planned>,
    /// The plan that has happened of each key.
    done: BTreeMap<Key, usize>,
}

impl Operations {
    /// A plan has happened, and has changed these shards.
    pub(super) fn happens(&mut self, plan: usize, shards: &BTreeSet<u32>) -> Result<(), String> {
        let planned = &self.planned[plan];
        if let Some(other) = self.done.keys().find(|other| other.is_same(&planned.key)) {
            return Err(format!(
                "{:?} has happened twice, before as {other:?}",
                planned.key
            ));
        }
        let read: BTreeSet<u32> = planned.reads.keys().copied().collect();
        if !read.is_empty() && read != *shards {
            return Err(format!(
                "of the shards {read:?}, an operation has changed {shards:?}"
            ));
        }
        self.done.insert(planned.key.clone(), plan);
        Ok(())
    }

    /// A caller hears that an operation has had this effect.
    pub(crate) fn reports(&self, key: &Key, kind: &str, result: &OperationResult) -> Result<(), String> {
        let done = self.done.iter().filter(|(done, _)| done.is_same(key));
        // A record of an earlier life is replaced.
        let Some(planned) = done.map(|(_, plan)| *plan).max().map(|plan| &self.planned[plan]) else {
            return Err(format!("{key:?} is said to have happened, and has not"));
        };
        if planned.change.kind() != kind || planned.result != *result {
            return Err(format!(
                "{key:?} is said to have had the effect {result:?}, which was {:?}",
                planned.result
            ));
        }
        Ok(())
    }

    /// Judges the changes of a plan that has happened, over all shards. Returns its effects by shard and limit.
    pub(super) fn judge(
        &self,
        plan: usize,
        changes: &BTreeMap<u32, (&Row, &Row, BTreeMap<String, Fraction>)>,
        moment: Moment,
    ) -> Result<BTreeMap<(u32, String), Effect>, String> {
        let planned = &self.planned[plan];
        let mut effects = BTreeMap::new();
        let mut given: BTreeMap<String, Given> = BTreeMap::new();
        for (shard, (old, new, fractions)) in changes {
            let Some(seen) = planned.reads.get(shard) else {
                return Err(format!("shard {shard} was changed and not read"));
            };
            if new.vu != Some(0) {
                return Err(format!("shard {shard} may be spent without a refill"));
            }
            for (name, was) in &old.limits {
                let (Some(is), Some(seen)) = (new.limits.get(name), seen.limits.get(name)) else {
                    return Err(format!("limit {name} of shard {shard} has come or gone"));
                };
                if is.tc != was.tc || is.base() != was.base() || !is.terms.is_same_rule(&was.terms) {
                    return Err(format!(
                        "{name} of shard {shard} is another limit: {was:?}, {is:?}"
                    ));
                }
                let fraction = fractions.get(name).copied().unwrap_or_default();
                let cell = Changed {
                    old,
                    new,
                    was,
                    is,
                    fraction,
                };
                let of_limit = given.entry(name.clone()).or_default();
                let effect = one(planned, name, seen, &cell, moment, of_limit)
                    .map_err(|err| format!("shard {shard}, {name}: {err}"))?;
                effects.insert((*shard, name.clone()), effect);
            }
        }
        for (name, given) in given {
            sum(planned, &name, &given).map_err(|err| format!("{name}: {err}"))?;
        }
        Ok(effects)
    }

    /// Judges a bucket that a top-up has created.
    pub(super) fn created(&self, plan: usize, shard: u32, new: &Row) -> Result<(), String> {
        let planned = &self.planned[plan];
        if shard != 0 || new.count != 1 || !planned.reads.is_empty() {
            return Err("an operation has created a shard of a bucket that exists".to_owned());
        }
        for (name, cell) in &new.limits {
            let added = match planned.order(name) {
                Order::Add(amount) if cell.has_periods() => amount,
                _ => 0,
            };
            let full = cell.share(1, new.rf) + added;
            if (cell.tk, cell.tc, cell.extra) != (full, 0, added) {
                return Err(format!(
                    "a bucket begins with {cell:?}, not with {full} of {name}"
                ));
            }
        }
        Ok(())
    }
}

/// One limit of one shard.
fn one(
    planned: &Planned,
    name: &str,
    seen: &Cell,
    changed: &Changed<'_>,
    moment: Moment,
    given: &mut Given,
) -> Result<Effect, String> {
    let Changed {
        old, new, was, is, ..
    } = *changed;
    let (at, count) = (new.rf, new.count);
    // What came in between stays.
    let moved = was.tk - seen.tk;
    let held = is.tk - moved;
    let share = was.share(count, at);
    let order = planned.order(name);
    if !planned.configured.contains(name) && held == seen.tk {
        return Ok(Effect::default());
    }
    match was.terms.regain {
        Regain::Never => {
            if held == seen.tk {
                Ok(Effect::default())
            } else {
                Err(format!("holds {held} instead of {}", seen.tk))
            }
        }
        Regain::Rate => {
            given.is_rate = true;
            let is_surplus = !planned.is_complete(count) && seen.tk > share;
            let times = (old.rf.min(at), at);
            let level = |parts: i128| seen.refilled(count, parts, times).div_euclid(PARTS);
            // A change of the parameters can cost a fraction of a millitoken.
            let fractions = i128::try_from(seen.terms.changes(times.0, times.1)).unwrap_or(i128::MAX);
            let (least, most) = if is_surplus {
                (seen.tk, seen.tk)
            } else {
                let parts = changed.fraction.with_period(PARTS);
                (level(0) - fractions, level(parts))
            };
            let gained = (held - least).max(0);
            match order {
                Order::Reset => {
                    let full = if is_surplus { seen.tk } else { share };
                    if held != full {
                        return Err(format!("holds {held} after a reset to {full}"));
                    }
                }
                Order::Nothing if !(least..=most).contains(&held) => {
                    return Err(format!("holds {held} instead of {least} to {most}"));
                }
                Order::Nothing => {}
                Order::Add(_) => {
                    if held < least || held > share.max(most) {
                        return Err(format!("holds {held} of {share} after a top-up of {least}"));
                    }
                    given.least += held - most;
                    given.most += held - least;
                    given.room_least += (share - most).max(0) / 1000 * 1000;
                    given.room_most += (share - least).max(0) / 1000 * 1000;
                }
            }
            Ok(Effect {
                gained: if order == Order::Nothing { 0 } else { gained },
                ..Effect::default()
            })
        }
        Regain::Resets(minutes) => {
            let has_turned = minutes.begins_in(old.rf, at);
            let (before, extra) = if has_turned {
                (share, 0)
            } else {
                (
                    seen.part(at).map_or(seen.tk, |part| part.min(seen.tk)),
                    seen.extra,
                )
            };
            quota(order, (held, is), (before, extra, share), count, given)?;
            Ok(Effect {
                gained: (held - before).max(0),
                is_other_period: has_turned || order == Order::Reset,
            })
        }
        Regain::Session(millis, start) => {
            session(order, (seen, held), changed, (millis, start), moment, given)
        }
    }
}

/// A limit whose balance and what was added to it are `before` and `extra` if nothing is done.
fn quota(
    order: Order,
    (held, is): (i128, &Cell),
    (before, extra, share): (i128, i128, i128),
    count: i128,
    given: &mut Given,
) -> Result<(), String> {
    let (least_extra, expected) = match order {
        Order::Nothing => (extra, Some(before)),
        Order::Reset => (0, Some(share)),
        Order::Add(_) => {
            given.least += held - before;
            given.most += held - before;
            (extra + held - before, None)
        }
    };
    if expected.is_some_and(|expected| held != expected)
        || is.extra != least_extra
        || held < before && order != Order::Reset
    {
        return Err(format!(
            "holds {held} with {} added, after {order:?} of {before} with {extra}",
            is.extra
        ));
    }
    if order == Order::Reset && is.granted != count {
        return Err(format!("is granted as one of {} of {count}", is.granted));
    }
    Ok(())
}

fn session(
    order: Order,
    (seen, held): (&Cell, i128),
    changed: &Changed<'_>,
    (millis, start): (i64, Option<i64>),
    moment: Moment,
    given: &mut Given,
) -> Result<Effect, String> {
    let Changed { new, was, is, .. } = *changed;
    let at = new.rf;
    let share = was.share(new.count, at);
    let Regain::Session(_, after) = is.terms.regain else {
        return Err("has no session any more".to_owned());
    };
    let is_other_session = after != start;
    let is_over = start.is_none_or(|start| start + millis <= at);
    match order {
        Order::Reset => {
            // It has ended by the operator's clock.
            let ended = after.map(|after| after + millis);
            let is_now =
                ended.is_some_and(|ended| (moment.earliest()..=moment.now + moment.ahead).contains(&ended));
            if !is_now || held != seen.tk || was.tk != seen.tk {
                return Err(format!(
                    "holds {held} instead of {}, in a session that ended at {ended:?}",
                    seen.tk
                ));
            }
        }
        Order::Nothing if is_over => {
            if held != seen.tk || is_other_session {
                return Err(format!(
                    "of a session that is over holds {held} instead of {}",
                    seen.tk
                ));
            }
        }
        Order::Add(_) if is_over => {
            quota(order, (held, is), (share, 0, share), new.count, given)?;
            let latest = moment.now + moment.ahead;
            if !after.is_some_and(|after| after <= latest && after + millis > moment.earliest()) {
                return Err(format!("has a session that began at {after:?}"));
            }
        }
        Order::Nothing | Order::Add(_) => {
            let before = seen.part(at).map_or(seen.tk, |part| part.min(seen.tk));
            quota(order, (held, is), (before, seen.extra, share), new.count, given)?;
            if is_other_session {
                return Err(format!("began another session at {after:?}"));
            }
        }
    }
    Ok(Effect {
        gained: if order == Order::Reset {
            0
        } else {
            (held - seen.tk).max(0)
        },
        is_other_period: is_other_session,
    })
}

/// A limit over all shards: what was given, and what the caller hears of it.
fn sum(planned: &Planned, name: &str, given: &Given) -> Result<(), String> {
    let Order::Add(amount) = planned.order(name) else {
        return Ok(());
    };
    let told = planned.result.amounts.iter();
    let told = told.filter(|(limit, _)| limit.as_str() == name);
    let told: i128 = told.map(|(_, tokens)| i128::from(*tokens) * 1000).sum();
    let (least, most) = if given.is_rate {
        (amount.min(given.room_least), amount.min(given.room_most))
    } else {
        (amount, amount)
    };
    if !(given.least..=given.most).contains(&told) || !(least..=most).contains(&told) {
        return Err(format!(
            "{amount} were to be added, {least} to {most} of them fit, the caller hears of {told}, and {given:?}"
        ));
    }
    Ok(())
}
