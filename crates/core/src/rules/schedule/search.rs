//! Searches along local time: when a state changes, and when a pattern begins to match.
//!
//! A search looks once at each piece of time in which its state cannot change. A piece ends with a unit of the local calendar
//! or where the zone's offset changes. A pattern that leaves a date out is not looked at again on that date, so that a search of
//! a year has a few hundred steps for all patterns.

use std::ops::Range;

use jiff::Timestamp;

use super::cron::Cron;
use super::zone::{Local, Unit, Walk, Zone, seconds_within_calendar};
use crate::units::EpochMillis;

/// How far a search looks, if the finest field that counts is of this unit.
pub(super) fn reach_millis(unit: Unit) -> i64 {
    const DAY: i64 = 86_400_000;
    match unit {
        Unit::Minute => 7 * DAY,
        Unit::Hour => 31 * DAY,
        Unit::Day => 366 * DAY,
    }
}

/// The first piece that begins at `from` or later and for which `state` is true; `from` itself begins a piece. Nothing after
/// `last` is looked at. `state` also returns the unit in which it cannot change.
fn first(walk: &mut Walk<'_>, from: i64, last: i64, state: impl Fn(Local) -> (bool, Unit)) -> Option<i64> {
    let last = last.min(Timestamp::MAX.as_second());
    let mut at = from;
    while at <= last {
        let local = walk.local(at);
        let (found, unit) = state(local);
        if found {
            return Some(at);
        }
        at = walk.piece(at, local, unit).end;
    }
    None
}

/// The last piece that begins at `from` or earlier and for which `state` is true. No piece before the one of `earliest` is
/// looked at.
fn last(
    walk: &mut Walk<'_>,
    from: i64,
    earliest: i64,
    state: impl Fn(Local) -> (bool, Unit),
) -> Option<Range<i64>> {
    let earliest = earliest.max(Timestamp::MIN.as_second());
    let mut at = from;
    while at >= earliest {
        let local = walk.local(at);
        let (found, unit) = state(local);
        let piece = walk.piece(at, local, unit);
        if found {
            return Some(piece);
        }
        at = piece.start - 1;
    }
    None
}

/// The first instant after `now` at which `state` differs from what it is at `now`; `None` if it is the same for `reach`
/// milliseconds.
pub(super) fn next_change<S: PartialEq>(
    zone: &Zone,
    now: EpochMillis,
    reach: i64,
    state: impl Fn(Local) -> (S, Unit),
) -> Option<EpochMillis> {
    let mut walk = zone.walk();
    let from = seconds_within_calendar(now);
    let (before, _) = state(walk.local(from));
    let found = first(&mut walk, from, now.plus(reach).secs(), |local| {
        let (after, unit) = state(local);
        (after != before, unit)
    });
    found.map(from_seconds)
}

/// The first instant after `now` at which the pattern begins to match; `None` if there is none within `reach` milliseconds.
pub(super) fn next_edge(cron: &Cron, zone: &Zone, now: EpochMillis, reach: i64) -> Option<EpochMillis> {
    let mut walk = zone.walk();
    let end = now.plus(reach).secs();
    let outside = first(&mut walk, seconds_within_calendar(now), end, |local| {
        let (matches, unit) = cron.state(local);
        (!matches, unit)
    })?;
    first(&mut walk, outside, end, |local| cron.state(local)).map(from_seconds)
}

/// The last instant at or before `now` at which the pattern began to match. `None` if the local unit before that instant, in
/// which the pattern did not match, does not lie within `reach` milliseconds.
pub(super) fn last_edge(cron: &Cron, zone: &Zone, now: EpochMillis, reach: i64) -> Option<EpochMillis> {
    let mut walk = zone.walk();
    let earliest = now.plus(-reach);
    let inside = last(
        &mut walk,
        seconds_within_calendar(now),
        earliest.secs(),
        |local| cron.state(local),
    )?;
    let outside = last(&mut walk, inside.start - 1, earliest.secs(), |local| {
        let (matches, unit) = cron.state(local);
        (!matches, unit)
    })?;
    let local = walk.local(outside.end - 1);
    let unit = walk.piece(outside.end - 1, local, cron.unit());
    (from_seconds(unit.start) >= earliest).then(|| from_seconds(outside.end))
}

fn from_seconds(secs: i64) -> EpochMillis {
    EpochMillis(secs.saturating_mul(1000))
}
