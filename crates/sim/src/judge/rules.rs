//! The rules that [`super::check`] applies to one item's change. Plain functions of plain rows.

use std::collections::{BTreeMap, BTreeSet};

use super::periods::Step;
use crate::rows::change::Source;
use crate::rows::row::{Cell, Row};
use crate::rows::terms::PARTS;
use crate::stats::Stats;

/// How much of a charge costs nothing that could have been spent: it comes out of a surplus that is yet to be
/// cut, or of what an idle shard has earned beyond its ceiling and not been paid (see [`super::account`]).
pub(crate) fn eaten(old: &Row, was: &Cell, charge: i128, earned_ms: i64, slack: i128) -> i128 {
    if was.terms.is_scheduled() {
        // All that may be cut on the way, or has been forgone.
        let until = old.rf + earned_ms.max(0);
        let held = was.tk + was.earned(old.count, old.rf, until);
        let least = was.terms.least(was.base(), old.rf, until) / old.count;
        return (held - least - slack).clamp(0, charge.max(0));
    }
    let cut = if old.vu == Some(0) {
        was.tk - old.ceiling(was)
    } else {
        0
    };
    let cut = cut.clamp(0, charge.max(0));
    let earned = i128::from(earned_ms.max(0)) * (was.ra / old.count) / was.rp;
    let forgone = was.tk - cut + earned - old.ceiling(was) - slack;
    cut + forgone.clamp(0, (charge - cut).max(0))
}

/// What holds for an item as a whole.
pub(crate) fn item_changed(source: Source, old: &Row, new: &Row) -> Result<(), String> {
    if let (Some(was), Some(is), true) = (old.ttl, new.ttl, source.job().is_some())
        && is < was
    {
        return Err(format!("the expiry fell from {was} to {is}"));
    }
    if new.count < old.count {
        return Err(format!(
            "the shard count fell from {} to {}",
            old.count, new.count
        ));
    }
    let has_periods = old.limits.values().any(Cell::has_periods);
    if has_periods && new.count > old.count && source.job().is_some() {
        return Err("a bucket with a quota was split".to_owned());
    }
    if new.debris.difference(&old.debris).next().is_some() {
        return Err(format!("a balance without parameters appeared: {:?}", new.debris));
    }
    Ok(())
}

/// Whether a write sets the refill instant by a clock. One that adds a limit moves it by a millisecond at least.
pub(crate) fn is_dated(old: Option<&Row>, new: &Row) -> bool {
    old.is_none_or(|old| {
        let is_seeded = new.limits.keys().any(|name| !old.limits.contains_key(name));
        new.rf != old.rf && !(is_seeded && new.rf == old.rf + 1)
    })
}

/// A limit that an item gains is full, and the refill instant moves: what another client refills from an image without the limit is
/// pinned to that.
pub(crate) fn seeded(old: &Row, new: &Row) -> Result<(), String> {
    for (name, is) in &new.limits {
        if old.limits.contains_key(name) {
            continue;
        }
        let full = new.ceiling(is);
        if is.tk + is.tc != full {
            return Err(format!("seeded {name} holds {} of {full}", is.tk + is.tc));
        }
        if new.rf == old.rf {
            return Err(format!("{name} was seeded, and rf stays at {}", new.rf));
        }
    }
    Ok(())
}

/// A spender leaves no debt, and heeds flags and forced passes.
pub(crate) fn spent(name: &str, is: &Cell, old: &Row, new: &Row) -> Result<(), String> {
    // A request of a whole split bucket owes what the rounding of shares hides: less than a millitoken a shard.
    if is.tk < 0 && is.tk <= -new.count {
        return Err(format!("an acquire left {name} at {}", is.tk));
    }
    if old.disabled {
        return Err("an acquire spent on a disabled bucket".to_owned());
    }
    if old.vu == Some(0) && new.vu == Some(0) {
        return Err("an acquire spent past a forced pass".to_owned());
    }
    Ok(())
}

/// What was earned and not paid out: less than a millitoken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fraction {
    /// This many `1 / period` parts of a millitoken.
    parts: i128,
    period: i128,
}

impl Fraction {
    /// Not known.
    pub(super) const fn less_than_one() -> Self {
        Self {
            parts: PARTS - 1,
            period: PARTS,
        }
    }

    /// In parts of this period. Rounds up, as a fraction that was written with another period holds again when that
    /// period is back.
    pub(super) fn with_period(self, period: i128) -> i128 {
        if self.period == period || self.parts == 0 {
            return self.parts;
        }
        (self.parts * period + self.period - 1) / self.period
    }
}

/// Whether a gain is covered by time, or a loss by a surplus.
pub(crate) fn explained(
    name: &str,
    was: &Cell,
    ceiling: i128,
    gained: i128,
    earned: i128,
    fraction: &mut Fraction,
) -> Result<(), String> {
    if gained < 0 {
        let cut_to = was.tk + gained;
        *fraction = Fraction::default();
        if cut_to < ceiling {
            return Err(format!("{name} lost {}, down to {cut_to} of {ceiling}", -gained));
        }
        return Ok(());
    }
    let parts = fraction.with_period(was.rp) + earned - gained * was.rp;
    if parts < 0 {
        let over = -parts;
        return Err(format!(
            "{name} gained {gained}, {over}/{} more than time earned",
            was.rp
        ));
    }
    if gained > 0 && was.tk + gained > ceiling {
        let above = was.tk + gained;
        return Err(format!(
            "{name} was refilled from {} to {above}, above {ceiling}",
            was.tk
        ));
    }
    // Nothing was paid out or earned, so what is stored stays in its period.
    if earned != 0 || gained != 0 {
        *fraction = Fraction {
            parts: parts.min(was.rp - 1),
            period: was.rp,
        };
    }
    Ok(())
}

/// Whether a write of a client may have changed a limit with a schedule from `old` to `new` other than by consumption. It
/// gains at most what is earned, and no more than the capacities on the way; what is above these may be cut.
pub(crate) fn explained_by_schedule(
    name: &str,
    step: &Step<'_>,
    gained: i128,
    fraction: &mut Fraction,
) -> Result<(), String> {
    let Step { old, new, was, .. } = *step;
    let held = was.tk + gained;
    if !step.refills() {
        return if gained == 0 {
            Ok(())
        } else {
            Err(format!("{name} gained {gained} without a refill"))
        };
    }
    let times = (old.rf.min(new.rf), new.rf);
    let level = was.refilled(old.count, fraction.with_period(PARTS), times);
    if held * PARTS > level {
        return Err(format!(
            "{name} was refilled from {} to {held}, and holds {} at most: {times:?}",
            was.tk,
            level / PARTS
        ));
    }
    // Of a balance that has fallen since the image that the refill was computed from, less is cut or earned.
    let least = was
        .tk
        .min(was.terms.least(was.base(), times.0, times.1) / old.count);
    if held < least {
        return Err(format!(
            "{name} was cut from {} to {held}, below {least}: {times:?}",
            was.tk
        ));
    }
    *fraction = Fraction {
        parts: (level - held * PARTS).min(PARTS - 1),
        period: PARTS,
    };
    Ok(())
}

/// Whether one shard's part of a bucket once belonged to the other.
pub(crate) fn descends(shard: u32, of: u32, count: u32) -> bool {
    let mut parts = count / 2;
    while parts > of {
        if shard != of && shard % parts == of {
            return true;
        }
        parts /= 2;
    }
    false
}

/// What a new shard may hold beyond what was moved to it: what its part has earned since the last shard that
/// earned it was refilled. If no shard gets its count only now, that is bounded by its share.
pub(crate) fn inherited(shard: u32, new: &Row, raised: &[(u32, Row)], earned: &mut BTreeMap<String, i128>) {
    let held = raised
        .iter()
        .filter(|(by, old)| i128::from(shard) % old.count == i128::from(*by))
        .map(|(_, old)| old)
        .max_by_key(|old| old.rf);
    for (name, cell) in &new.limits {
        let full = new.ceiling(cell);
        let due = held.map_or(full, |old| {
            // It was earned under the parameters that were in force.
            let was = old.limits.get(name).unwrap_or(cell);
            if was.terms.is_scheduled() {
                return was.earned(new.count, old.rf, new.rf);
            }
            (was.ra / new.count) * i128::from(new.rf - old.rf) / was.rp
        });
        *earned.entry(name.clone()).or_default() += due.min(full);
    }
}

/// The limits whose parameters change between the last refill of an item and the birth of a shard of its bucket: what changes
/// hands then is cut to the capacities on the way.
pub(crate) fn narrowed<'a>(rows: impl Iterator<Item = &'a Row>, born_at: i64) -> BTreeSet<String> {
    let of_row = |row: &'a Row| {
        let cells = row.limits.iter();
        let cells = cells.filter(move |(_, cell)| cell.terms.changes_in(row.rf, born_at));
        cells.map(|(name, _)| name.clone())
    };
    rows.flat_map(of_row).collect()
}

/// A new item: shard 0 is full, any other holds what was moved into it.
pub(crate) fn created(
    shard: u32,
    new: &Row,
    known: Option<i128>,
    moved: &mut BTreeMap<String, i128>,
) -> Result<(), String> {
    for (name, cell) in &new.limits {
        let holds = cell.tk + cell.tc;
        if cell.tk < 0 {
            return Err(format!("a new shard owes {} of {name}", -cell.tk));
        }
        if holds > new.ceiling(cell) {
            return Err(format!(
                "a new shard holds {holds} of {name}, more than its share"
            ));
        }
        if shard > 0 {
            *moved.entry(name.clone()).or_default() += holds;
        } else if holds != new.ceiling(cell) {
            return Err(format!(
                "a new bucket holds {holds} of {name}, not {}",
                new.ceiling(cell)
            ));
        }
    }
    if !new.debris.is_empty() {
        return Err(format!("a stub was created: {:?}", new.debris));
    }
    match known {
        Some(count) if new.count < count => Err(format!(
            "a shard counts {} shards, its siblings {count}",
            new.count
        )),
        _ => Ok(()),
    }
}

pub(crate) fn count(old: &Row, new: &Row, source: Source, stats: &mut Stats) {
    let moved = |f: fn(&Cell, &Cell) -> bool| {
        let pairs = old
            .limits
            .iter()
            .filter_map(|(name, was)| Some((was, new.limits.get(name)?)));
        pairs.into_iter().any(|(was, is)| f(was, is))
    };
    let refilled = new.rf != old.rf || (old.vu.is_some() && new.vu != old.vu);
    match source {
        Source::Acquire(_) => {
            stats.refills += u64::from(refilled);
            stats.dated_back += u64::from(new.rf < old.rf);
            stats.debits += u64::from(!refilled && moved(|was, is| is.tc > was.tc));
            stats.clamps += u64::from(refilled && moved(|was, is| is.tk + is.tc < was.tk + was.tc));
            stats.seeded += new.limits.len().saturating_sub(old.limits.len()) as u64;
            stats.shards_raised += u64::from(new.count > old.count);
        }
        Source::Credit(_) => {
            stats.credits += u64::from(moved(|was, is| is.tc < was.tc));
            stats.charges += u64::from(moved(|was, is| is.tc > was.tc));
            stats.debts += u64::from(moved(|was, is| was.tk >= 0 && is.tk < 0));
        }
        _ => {}
    }
}
