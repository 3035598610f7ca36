//! [`ResetSchedule`]: the instants at which a quota is whole again.

use std::time::Duration;

use super::compact::{self, ScheduleError};
use super::cron::Cron;
use super::one_zone;
use super::search::{last_edge, next_edge, reach_millis};
use super::zone::Zone;
use crate::error::InvalidInput;
use crate::units::EpochMillis;

/// When a quota is reset: at each instant at which one of the patterns begins to match.
///
/// A pattern begins to match once however long it matches. If a time of day does not exist because clocks are set forward, the
/// pattern does not begin to match on that day. If it happens twice because they are set back, it begins twice.
///
/// ```
/// use zae_limiter_core::EpochMillis;
/// use zae_limiter_core::schedule::{ResetSchedule, Zone};
///
/// let monthly = ResetSchedule::new([("0 0 1 * *", "Asia/Tokyo")])?;
/// let edge = EpochMillis::parse("2026-02-28T15:00:00Z").unwrap();
/// assert_eq!(monthly.last_edge(edge), Some(edge));
/// assert_eq!(monthly.next_edge(edge), EpochMillis::parse("2026-03-31T15:00:00Z"));
///
/// assert_eq!(monthly.encode(), "1m0h0D1");
/// assert_eq!(ResetSchedule::decode("1m0h0D1", &Zone::named("Asia/Tokyo")?).unwrap(), monthly);
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResetSchedule {
    zone: Zone,
    /// Not empty.
    crons: Vec<Cron>,
}

impl ResetSchedule {
    /// Whether it resets at the same times as another one, however both are written.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let pairs = || self.crons.iter().zip(&other.crons);
        self.zone == other.zone
            && self.crons.len() == other.crons.len()
            && pairs().all(|(one, two)| one.is_like(two))
    }

    /// Checks patterns and the names of their zones, which must be the same for all.
    ///
    /// # Errors
    /// An expression or a zone that cannot be read (see [`Cron::parse`] and [`Zone::named`]); different zones: the error's
    /// field is `tz`; no patterns, or `* * * * *` alone, which never begins to match: the error's field is `reset_schedule`.
    pub fn new<C, Z>(entries: impl IntoIterator<Item = (C, Z)>) -> Result<Self, InvalidInput>
    where
        C: AsRef<str>,
        Z: AsRef<str>,
    {
        let read = entries
            .into_iter()
            .map(|(cron, zone)| Ok((Cron::parse(cron.as_ref())?, Zone::named(zone.as_ref())?)));
        let read: Vec<(Cron, Zone)> = read.collect::<Result<_, InvalidInput>>()?;
        let Some(zone) = one_zone(read.iter().map(|(_, zone)| zone))? else {
            return Err(InvalidInput::new(
                "reset_schedule",
                "[]",
                "must have at least one entry",
            ));
        };
        let crons: Vec<Cron> = read.into_iter().map(|(cron, _)| cron).collect();
        if matches!(crons.as_slice(), [only] if only.is_unconstrained()) {
            // It would be stored as the version without entries, which is not valid.
            let reason =
                "matches always, so that the quota would never be reset; give a time, such as '0 0 * * *'";
            return Err(InvalidInput::new("reset_schedule", "* * * * *", reason));
        }
        Ok(Self { zone, crons })
    }

    /// Reads the compact form, whose patterns are meant in the local time of `zone`.
    ///
    /// # Errors
    /// [`ScheduleError::Version`] if a newer client has written it; [`ScheduleError::Malformed`] if it cannot be read.
    pub fn decode(text: &str, zone: &Zone) -> Result<Self, ScheduleError> {
        Ok(Self {
            zone: zone.clone(),
            crons: compact::decode_resets(text)?,
        })
    }

    /// The compact form that the table stores, without the zone.
    pub fn encode(&self) -> String {
        compact::encode_resets(&self.crons)
    }

    /// The zone in whose local time the patterns are meant.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The patterns; at least one.
    pub fn crons(&self) -> &[Cron] {
        &self.crons
    }

    /// The latest instant at or before `at` at which one of the patterns began to match.
    ///
    /// The search looks back for as long as [`next_edge`](Self::next_edge) looks ahead, and the whole unit of the local calendar
    /// (minute, hour or day, by the pattern's finest field) before the edge must lie in that time. `None` if it finds none.
    pub fn last_edge(&self, at: EpochMillis) -> Option<EpochMillis> {
        let edges = self
            .crons
            .iter()
            .filter_map(|cron| last_edge(cron, &self.zone, at, reach(cron)));
        edges.max()
    }

    /// The first instant after `at` at which one of the patterns begins to match.
    ///
    /// For each pattern, the search looks ahead for the time after which it repeats, but at least for 7 days, or for 31 or 366
    /// days if the pattern has the same state in whole hours or days. `None` if it finds none, such as for the 29th of
    /// February in most years.
    pub fn next_edge(&self, at: EpochMillis) -> Option<EpochMillis> {
        let edges = self
            .crons
            .iter()
            .filter_map(|cron| next_edge(cron, &self.zone, at, reach(cron)));
        edges.min()
    }

    /// The first instant after `at` at which one of the patterns begins to match, also where that lies beyond the search of
    /// [`next_edge`](Self::next_edge).
    pub(crate) fn first_after(&self, at: EpochMillis) -> Option<EpochMillis> {
        let (mut from, mut found) = (at, None);
        for _ in 0..MAX_SEARCHES {
            found = self.next_edge(from).or(found);
            let searched = self.valid_until(from);
            if searched <= from || found.is_some_and(|edge| edge <= searched) {
                break;
            }
            from = searched;
        }
        found
    }

    /// Until when a bucket that was reset for the edges up to `now` needs no reset: the next edge, or the end of the time in
    /// which [`next_edge`](Self::next_edge) looked for one.
    pub fn valid_until(&self, now: EpochMillis) -> EpochMillis {
        let untils = self.crons.iter().map(|cron| {
            let reach = reach(cron);
            next_edge(cron, &self.zone, now, reach).unwrap_or(now.plus(reach))
        });
        untils.min().unwrap_or(now)
    }

    /// The time after which the pattern that repeats first does so: a day for `0 0 * * *`, 31 days for `0 0 1 * *`, 366 days
    /// for `0 0 1 1 *`.
    pub fn shortest_cycle(&self) -> Duration {
        self.crons.iter().map(Cron::cycle).min().unwrap_or_default()
    }
}

/// How many searches for a reset follow each other: a 29th of February is found 8 years ahead.
const MAX_SEARCHES: usize = 9;

/// How far to look for the edges of a pattern, in milliseconds.
fn reach(cron: &Cron) -> i64 {
    let cycle = i64::try_from(cron.cycle().as_millis()).unwrap_or(i64::MAX);
    reach_millis(cron.unit()).max(cycle)
}
