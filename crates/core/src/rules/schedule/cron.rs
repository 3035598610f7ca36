//! [`Cron`]: a pattern of local minutes.

use std::fmt;
use std::time::Duration;

use smol_str::SmolStr;

use super::field::{Field, Place, shown, with_names};
use super::zone::{Local, Unit, Zone};
use crate::error::InvalidInput;
use crate::units::EpochMillis;

/// The most days that each month can have.
const LENGTHS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A cron expression of 5 fields: minute, hour, day of month, month and day of week.
///
/// A field is a list of items, separated by commas. An item is `*`, a value or an ascending range such as `9-17`, each with
/// `/` and a step if wanted; `5/10` begins at 5 and steps to the end of the field, and so does `5-5/10`. Months and days of the week can be
/// names of three letters. Both 0 and 7 are Sunday, and a range cannot end on Sunday by its name.
///
/// If the text of the day of month or of the day of week begins with `*`, a day must match both. Otherwise it must match one
/// of the two.
///
/// The expression is a pattern that a minute matches or not, and not a list of times. A schedule that begins on one day and ends
/// on the next needs two expressions.
///
/// ```
/// use zae_limiter_core::schedule::{Cron, Zone};
/// use zae_limiter_core::EpochMillis;
///
/// let office_hours = Cron::parse("* 9-17 * * MON-FRI")?;
/// let berlin = Zone::named("Europe/Berlin")?;
/// // A Monday: 8:59:59 and 9:00 in Berlin.
/// assert!(!office_hours.matches(&berlin, EpochMillis(1_772_438_399_999)));
/// assert!(office_hours.matches(&berlin, EpochMillis(1_772_438_400_000)));
///
/// let err = Cron::parse("* 22-6 * * *").unwrap_err();
/// assert_eq!(
///     err.to_string(),
///     "invalid cron.hour '22-6': the range '22-6' must ascend; write '22-23,0-6'"
/// );
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day must match both the day of month and the day of week.
    both_days: bool,
    fields: [SmolStr; 5],
}

impl Cron {
    /// Whether it matches at the same times as another one, however both are written: `28,29 * * * *` and `28-29 * * * *` do.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let times = |cron: &Self| {
            let days = (cron.days, cron.months, cron.weekdays, cron.both_days);
            (cron.minutes, cron.hours, days)
        };
        times(self) == times(other)
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// An expression that does not have 5 fields: the error's field is `cron`. A field that cannot be read, and days that
    /// none of the months has: the error's field is `cron.minute`, `cron.hour`, `cron.day_of_month`, `cron.month` or
    /// `cron.day_of_week`.
    pub fn parse(expression: &str) -> Result<Self, InvalidInput> {
        let mut texts = [""; 5];
        let mut count = 0;
        for field in expression.split(is_space).filter(|field| !field.is_empty()) {
            if let Some(text) = texts.get_mut(count) {
                *text = field;
            }
            count += 1;
        }
        if count != texts.len() {
            let reason = if texts[0].starts_with('@') {
                "names of patterns are not supported; write the 5 fields, such as '0 0 * * *' for every day"
                    .to_owned()
            } else {
                let seconds = if count == 6 {
                    "; there is none for seconds"
                } else {
                    ""
                };
                format!(
                    "has {count} field(s), and must have 5: minute, hour, day of month, month, day of week{seconds}"
                )
            };
            return Err(InvalidInput::new("cron", expression, reason));
        }
        Self::from_fields(texts)
    }

    /// Reads the 5 fields of an expression.
    pub(super) fn from_fields(texts: [&str; 5]) -> Result<Self, InvalidInput> {
        let [minute, hour, day, month, weekday] = texts;
        let (day_text, month_text) = (day, month);
        let minute = Field::parse(Place::Minute, minute)?;
        let hour = Field::parse(Place::Hour, hour)?;
        let day = Field::parse(Place::DayOfMonth, day)?;
        let month = Field::parse(Place::Month, month)?;
        let weekday = Field::parse(Place::DayOfWeek, weekday)?;
        let cron = Self {
            minutes: minute.values,
            hours: hour.values,
            days: day.values,
            months: month.values,
            weekdays: weekday.values,
            both_days: day.text.starts_with('*') || weekday.text.starts_with('*'),
            fields: [minute.text, hour.text, day.text, month.text, weekday.text],
        };
        let possible = (1..).zip(LENGTHS).any(|(month, length)| {
            cron.months & 1 << month != 0 && cron.days & (u64::MAX >> (63 - length)) != 0
        });
        if cron.both_days && !possible {
            let reason = format!("no month of '{}' has such a day", shown(month_text));
            return Err(Place::DayOfMonth.error(day_text, reason));
        }
        Ok(cron)
    }

    /// Whether the minute of an instant matches, in the local time of a zone. An instant beyond the calendar (the years -9999
    /// to 9999) is taken for the first or the last there is.
    pub fn matches(&self, zone: &Zone, at: EpochMillis) -> bool {
        self.state(zone.local(at)).0
    }

    /// The fields with numbers instead of names, in the order of the expression.
    pub(super) fn fields(&self) -> impl Iterator<Item = (Place, &str)> {
        Place::ALL
            .into_iter()
            .zip(self.fields.iter().map(SmolStr::as_str))
    }

    /// Whether all fields are `*`.
    pub(super) fn is_unconstrained(&self) -> bool {
        self.fields.iter().all(|field| field == "*")
    }

    /// Whether a local time matches, and the unit of the local calendar around it in which this cannot change.
    pub(super) fn state(&self, local: Local) -> (bool, Unit) {
        if !self.includes_date(local) {
            (false, Unit::Day)
        } else if self.hours & 1 << local.hour == 0 {
            (false, Unit::Hour)
        } else if self.minutes & 1 << local.minute == 0 {
            (false, Unit::Minute)
        } else {
            (true, self.unit())
        }
    }

    fn includes_date(&self, local: Local) -> bool {
        let day = self.days & 1 << local.day != 0;
        let weekday = self.weekdays & 1 << local.weekday != 0;
        let either = if self.both_days {
            day && weekday
        } else {
            day || weekday
        };
        either && self.months & 1 << local.month != 0
    }

    /// Whether it matches wherever another pattern does.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let has = |mine: u64, others: u64| others & !mine == 0;
        let (days, weekdays) = (has(self.days, other.days), has(self.weekdays, other.weekdays));
        let dates = match (self.both_days, other.both_days) {
            (true, true) | (false, false) => days && weekdays,
            (false, true) => days || weekdays,
            (true, false) => self.days == Place::DayOfMonth.all() && self.weekdays == Place::DayOfWeek.all(),
        };
        dates
            && has(self.months, other.months)
            && has(self.hours, other.hours)
            && has(self.minutes, other.minutes)
    }

    /// The unit of the finest field that leaves values out.
    pub(super) fn unit(&self) -> Unit {
        if self.minutes != Place::Minute.all() {
            Unit::Minute
        } else if self.hours != Place::Hour.all() {
            Unit::Hour
        } else {
            Unit::Day
        }
    }

    /// The time after which the pattern repeats at the latest, by the coarsest field that leaves values out. Leap years are
    /// not taken into account.
    pub(super) fn cycle(&self) -> Duration {
        if self.months != Place::Month.all() {
            Duration::from_hours(366 * 24)
        } else if self.days != Place::DayOfMonth.all() {
            Duration::from_hours(31 * 24)
        } else if self.weekdays != Place::DayOfWeek.all() {
            Duration::from_hours(7 * 24)
        } else if self.hours != Place::Hour.all() {
            Duration::from_hours(24)
        } else if self.minutes != Place::Minute.all() {
            Duration::from_hours(1)
        } else {
            Duration::from_mins(1)
        }
    }
}

/// White space as other clients of the table have it: that of Unicode, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

impl fmt::Display for Cron {
    /// Writes the expression with names of months and days. Reading it again results in the same pattern.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (place, text)) in self.fields().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            with_names(place, text, f)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Cron {
    type Err = InvalidInput;

    fn from_str(expression: &str) -> Result<Self, InvalidInput> {
        Self::parse(expression)
    }
}
