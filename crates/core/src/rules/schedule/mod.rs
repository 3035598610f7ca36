//! Schedules: parameters of a limit that depend on the local time, and the instants at which a quota is whole again.
//!
//! A [`Schedule`] says which parameters are in force at an instant, and until when. A [`ResetSchedule`] says at which instants
//! a quota is reset. Both consist of [`Cron`] patterns in the local time of one [`Zone`], and both have a compact form, which
//! the table stores.
//!
//! The time zone database is part of the program, so that all decisions are functions of their arguments. Instants are in
//! milliseconds since the epoch. No search has more than a few hundred steps for each entry.

mod compact;
mod cron;
mod entry;
mod field;
mod reset;
mod search;
#[cfg(test)]
mod tests;
mod zone;

pub use compact::ScheduleError;
pub use cron::Cron;
pub use entry::{MAX_SCALE, ScheduleEntry, ScheduleEntryBuilder};
pub use reset::ResetSchedule;
pub use zone::Zone;

use self::search::{next_change, reach_millis};
use self::zone::{Local, Unit};
use crate::error::InvalidInput;
use crate::limit::Params;
use crate::units::EpochMillis;

/// The parameters of a limit by local time: those of the first entry that matches, or the limit's own.
///
/// ```
/// use zae_limiter_core::EpochMillis;
/// use zae_limiter_core::limit::Params;
/// use zae_limiter_core::schedule::{Schedule, ScheduleEntry, Zone};
///
/// let schedule = Schedule::new([
///     ScheduleEntry::on("* 9-17 * * MON-FRI").scale(0.5).build()?,
///     ScheduleEntry::on("* 0-6 * * *").capacity(200).build()?,
/// ])?;
/// assert_eq!(schedule.encode(), "1h9-17w1-5s500;h0-6c200");
/// assert_eq!(Schedule::decode("1h9-17w1-5s500;h0-6c200", &Zone::UTC).unwrap(), schedule);
///
/// // A Monday at noon. The first entry is in force until 18:00.
/// let noon = EpochMillis::parse("2026-03-02T12:00:00Z").unwrap();
/// let base = Params { capacity: 100_000, refill: 100_000, period_ms: 60_000 };
/// assert_eq!(schedule.active(noon), Some(0));
/// assert_eq!(schedule.params(base, noon), Params { capacity: 50_000, refill: 50_000, period_ms: 60_000 });
/// assert_eq!(Some(schedule.valid_until(noon)), EpochMillis::parse("2026-03-02T18:00:00Z"));
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Not empty, and all in one zone.
    entries: Vec<ScheduleEntry>,
    zone: Zone,
}

impl Schedule {
    /// Checks entries, in the order of their precedence.
    ///
    /// # Errors
    /// No entries: the error's field is `schedule`. Entries of different zones: it is `tz`.
    pub fn new(entries: impl IntoIterator<Item = ScheduleEntry>) -> Result<Self, InvalidInput> {
        let entries: Vec<_> = entries.into_iter().collect();
        match one_zone(entries.iter().map(ScheduleEntry::zone))? {
            Some(zone) => Ok(Self { entries, zone }),
            None => Err(InvalidInput::new(
                "schedule",
                "[]",
                "must have at least one entry",
            )),
        }
    }

    /// Reads the compact form, whose patterns are meant in the local time of `zone`.
    ///
    /// # Errors
    /// [`ScheduleError::Version`] if a newer client has written it; [`ScheduleError::Malformed`] if it cannot be read.
    pub fn decode(text: &str, zone: &Zone) -> Result<Self, ScheduleError> {
        Ok(Self {
            entries: compact::decode(text, zone)?,
            zone: zone.clone(),
        })
    }

    /// The compact form that the table stores, without the zone. Scales are rounded to thousandths.
    pub fn encode(&self) -> String {
        compact::encode(&self.entries)
    }

    /// The same with scales in thousandths, as they are read from the table.
    pub(crate) fn rounded(mut self) -> Self {
        for entry in &mut self.entries {
            entry.round();
        }
        self
    }

    /// The zone in whose local time the patterns are meant.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The entries in the order of their precedence; at least one.
    pub fn entries(&self) -> &[ScheduleEntry] {
        &self.entries
    }

    /// The entries without those whose pattern an earlier one covers: they are never in force.
    pub(crate) fn used(&self) -> impl Iterator<Item = &ScheduleEntry> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| {
            let mut earlier = self.entries.iter().take(index);
            let covered = earlier.any(|earlier| earlier.cron.covers(&entry.cron));
            (!covered).then_some(entry)
        })
    }

    /// The index of the entry that is in force at an instant; `None` if the limit's own parameters are.
    pub fn active(&self, at: EpochMillis) -> Option<usize> {
        self.state(self.zone.local(at)).0
    }

    /// A limit's parameters at an instant, undivided by shards; `base` are its own.
    pub fn params(&self, base: Params, at: EpochMillis) -> Params {
        let active = self.active(at).and_then(|index| self.entries.get(index));
        active.map_or(base, |entry| entry.params(base))
    }

    /// Until when the entry that is in force at `now` stays so: the first instant at which another one is, or none.
    ///
    /// The search looks 7 days ahead, or 31 or 366 days if no entry changes within hours or days. If it finds no change, the end
    /// of that time is returned.
    pub fn valid_until(&self, now: EpochMillis) -> EpochMillis {
        let reach = self.reach();
        next_change(&self.zone, now, reach, |local| self.state(local)).unwrap_or(now.plus(reach))
    }

    /// The first instant from `from` on at which the parameters in force are wanted. If there is none within the reach of a search,
    /// its end is the error.
    pub(crate) fn next_where(
        &self,
        base: Params,
        from: EpochMillis,
        is_wanted: impl Fn(Params) -> bool,
    ) -> Result<EpochMillis, EpochMillis> {
        let is_wanted_in = |active: Option<usize>| {
            let entry = active.and_then(|index| self.entries.get(index));
            is_wanted(entry.map_or(base, |entry| entry.params(base)))
        };
        if is_wanted_in(self.active(from)) {
            return Ok(from);
        }
        let reach = self.reach();
        let found = next_change(&self.zone, from, reach, |local| {
            let (active, unit) = self.state(local);
            (is_wanted_in(active), unit)
        });
        found.ok_or(from.plus(reach))
    }

    /// How far a search looks ahead.
    fn reach(&self) -> i64 {
        let units = self.entries.iter().map(|entry| entry.cron.unit());
        reach_millis(units.min().unwrap_or(Unit::Day))
    }

    /// The entry in force at a local time, and the unit of the local calendar around it in which this cannot change.
    fn state(&self, local: Local) -> (Option<usize>, Unit) {
        let mut unit = Unit::Day;
        for (index, entry) in self.entries.iter().enumerate() {
            let (matches, same) = entry.cron.state(local);
            unit = unit.min(same);
            if matches {
                return (Some(index), unit);
            }
        }
        (None, unit)
    }
}

/// Until when a bucket's parameters and the resets that it has seen stay as they are at `now`: the attribute `vu`. `None` if
/// the limit has neither schedule.
///
/// See [`Schedule::valid_until`] and [`ResetSchedule::valid_until`].
pub fn valid_until(
    schedule: Option<&Schedule>,
    resets: Option<&ResetSchedule>,
    now: EpochMillis,
) -> Option<EpochMillis> {
    let schedule = schedule.map(|schedule| schedule.valid_until(now));
    let resets = resets.map(|resets| resets.valid_until(now));
    schedule.into_iter().chain(resets).min()
}

/// The zone of all entries, which the table stores once; `None` without entries.
fn one_zone<'a>(mut zones: impl Iterator<Item = &'a Zone>) -> Result<Option<Zone>, InvalidInput> {
    let Some(first) = zones.next() else {
        return Ok(None);
    };
    if let Some(other) = zones.find(|zone| *zone != first) {
        let reason = format!("must be the same for all entries, and another one has '{first}'");
        return Err(InvalidInput::new("tz", other, reason));
    }
    Ok(Some(first.clone()))
}
