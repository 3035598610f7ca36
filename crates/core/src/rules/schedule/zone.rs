//! [`Zone`]: an IANA time zone, and walks along its local time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use crate::error::InvalidInput;
use crate::units::EpochMillis;

/// A time zone of the IANA database, such as `Europe/Berlin`.
///
/// The rules are those of the database that is compiled in. They do not depend on the machine.
///
/// ```
/// use zae_limiter_core::schedule::Zone;
///
/// assert_eq!(Zone::named("Europe/Berlin")?.name(), "Europe/Berlin");
/// assert_eq!(Zone::named("Berlin").unwrap_err().field(), "tz");
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this name, which must be spelled as in the database.
    ///
    /// # Errors
    /// A name that the database does not contain. The error's field is `tz`.
    pub fn named(name: &str) -> Result<Self, InvalidInput> {
        let found = TimeZoneDatabase::bundled().get(name).ok();
        let known = found.filter(|zone| !zone.is_unknown());
        let reason = match known.as_ref().and_then(TimeZone::iana_name) {
            Some(right) if right == name => return Ok(Self(known.unwrap_or(TimeZone::UTC))),
            // Other clients tell upper from lower case.
            Some(right) => format!("is spelled '{right}'"),
            None => "is not in the IANA time zone database; give a name such as 'UTC' or 'Europe/Berlin'"
                .to_owned(),
        };
        Err(InvalidInput::new("tz", name, reason))
    }

    /// The name of the zone.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The local time at an instant.
    pub(super) fn local(&self, at: EpochMillis) -> Local {
        let instant = Timestamp::from_second(seconds_within_calendar(at)).unwrap_or_default();
        Local::new(self.0.to_offset(instant), instant)
    }

    /// Begins a walk along the zone's local time.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk {
            zone: &self.0,
            offset: Offset::UTC,
            within: 0..0,
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name()).finish()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A unit of the local calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Minute,
    Hour,
    Day,
}

/// A local time, to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    pub(super) month: u8,
    pub(super) day: u8,
    /// 1 is Monday, 7 is Sunday.
    pub(super) weekday: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    second: u8,
}

impl Local {
    fn new(offset: Offset, instant: Timestamp) -> Self {
        let local = offset.to_datetime(instant);
        Self {
            month: local.month().unsigned_abs(),
            day: local.day().unsigned_abs(),
            weekday: local.weekday().to_monday_one_offset().unsigned_abs(),
            hour: local.hour().unsigned_abs(),
            minute: local.minute().unsigned_abs(),
            second: local.second().unsigned_abs(),
        }
    }
}

/// The instant in whole seconds, moved to the first or last instant of the calendar if it is beyond.
pub(super) fn seconds_within_calendar(at: EpochMillis) -> i64 {
    at.secs()
        .clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second())
}

/// Reads local times, and keeps the offset from UTC until the next transition. Instants are seconds since the epoch.
pub(super) struct Walk<'z> {
    zone: &'z TimeZone,
    offset: Offset,
    /// The seconds for which the offset holds.
    within: Range<i64>,
}

impl Walk<'_> {
    /// The local time at an instant of the calendar.
    pub(super) fn local(&mut self, at: i64) -> Local {
        let instant = Timestamp::from_second(at).unwrap_or_default();
        if !self.within.contains(&at) {
            self.offset = self.zone.to_offset(instant);
            let next = self.zone.following(instant).next();
            let until = next.map_or(i64::MAX, |next| next.timestamp().as_second());
            // The transition may be at this very second, and those returned are before what is given.
            let after = Timestamp::from_second(at.saturating_add(1)).unwrap_or(instant);
            let last = self.zone.preceding(after).next();
            let since = last.map_or(i64::MIN, |last| last.timestamp().as_second());
            self.within = since.min(at)..until.max(at.saturating_add(1));
        }
        Local::new(self.offset, instant)
    }

    /// The seconds around `at` of the same local unit and of the same offset. `local` is the local time at `at`.
    pub(super) fn piece(&self, at: i64, local: Local, unit: Unit) -> Range<i64> {
        let second = i64::from(local.second);
        let (elapsed, length) = match unit {
            Unit::Minute => (second, 60),
            Unit::Hour => (second + i64::from(local.minute) * 60, 3600),
            Unit::Day => (
                second + i64::from(local.minute) * 60 + i64::from(local.hour) * 3600,
                86_400,
            ),
        };
        let start = at - elapsed;
        start.max(self.within.start)..(start + length).min(self.within.end)
    }
}
