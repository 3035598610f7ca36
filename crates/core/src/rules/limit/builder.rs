//! [`LimitBuilder`]: limits being described.

use std::time::Duration;

use super::{Limit, Recovery, ResetSchedule, Schedule, ScheduleEntry};
use crate::error::{InputKind, InvalidInput};
use crate::name::LimitName;
use crate::schedule::ScheduleEntryBuilder;
use crate::units::{MAX_PERIOD_SECS, MAX_TOKENS};

/// A [quota](Limit::quota) that needs its times of reset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a quota is a limit once it has its times of reset"]
pub struct Quota {
    name: Result<LimitName, InvalidInput>,
    amount: u64,
}

impl Quota {
    pub(super) fn new(name: Result<LimitName, InvalidInput>, amount: u64) -> Self {
        Self { name, amount }
    }

    /// The quota is whole again at each instant at which the cron expression begins to match in the local time of an IANA zone.
    /// See [`Cron`](crate::schedule::Cron) for expressions.
    pub fn resets(self, cron: impl AsRef<str>, zone: impl AsRef<str>) -> LimitBuilder {
        self.resets_on([(cron, zone)])
    }

    /// The quota is whole again at each instant at which one of the cron expressions begins to match. Their zones must be the
    /// same.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use zae_limiter::Limit;
    ///
    /// let twice_a_day = [("0 8 * * *", "Asia/Tokyo"), ("0 20 * * *", "Asia/Tokyo")];
    /// let limit = Limit::quota("reports", 100).resets_on(twice_a_day).build()?;
    /// assert_eq!(limit.reset_schedule().unwrap().crons().len(), 2);
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    pub fn resets_on<C, Z>(self, entries: impl IntoIterator<Item = (C, Z)>) -> LimitBuilder
    where
        C: AsRef<str>,
        Z: AsRef<str>,
    {
        self.resets_by(ResetSchedule::new(entries))
    }

    pub(crate) fn resets_by(self, resets: Result<ResetSchedule, InvalidInput>) -> LimitBuilder {
        LimitBuilder::new(self.name, self.amount, Source::Resets(resets))
    }
}

/// A limit being described; [`build`](Self::build) checks it.
///
/// Every call that takes limits takes builders too, and checks them before it writes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a limit builder does nothing until it is passed on or built"]
pub struct LimitBuilder {
    name: Result<LimitName, InvalidInput>,
    capacity: u64,
    burst: Option<u64>,
    source: Source,
    schedule: Result<Vec<ScheduleEntry>, InvalidInput>,
    soft: bool,
    is_stored: bool,
}

/// How the tokens come back, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Refill { amount: u64, period: Duration },
    Resets(Result<ResetSchedule, InvalidInput>),
    Session(Duration),
}

impl LimitBuilder {
    fn new(name: Result<LimitName, InvalidInput>, capacity: u64, source: Source) -> Self {
        Self {
            name,
            capacity,
            burst: None,
            source,
            schedule: Ok(Vec::new()),
            soft: false,
            is_stored: false,
        }
    }

    pub(super) fn refilling(
        name: Result<LimitName, InvalidInput>,
        capacity: u64,
        amount: u64,
        period: Duration,
    ) -> Self {
        Self::new(name, capacity, Source::Refill { amount, period })
    }

    pub(super) fn session(name: Result<LimitName, InvalidInput>, amount: u64, length: Duration) -> Self {
        Self::new(name, amount, Source::Session(length))
    }

    /// Lets the bucket hold `capacity` tokens instead of one period's worth.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use std::time::Duration;
    /// use zae_limiter::Limit;
    ///
    /// // Below the rate, it spreads the requests over the minute: 150 at once, then one every 75 ms.
    /// let limit = Limit::per_minute("rpm", 800).burst(150).build()?;
    /// assert_eq!((limit.capacity(), limit.refill_amount()), (150, 800));
    /// assert_eq!(limit.time_to_fill(), Duration::from_millis(11_250));
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    pub fn burst(mut self, capacity: u64) -> Self {
        self.burst = Some(capacity);
        self
    }

    /// Gives the limit other parameters by local time: those of the first entry that matches, or else its own. Replaces entries
    /// that were given before; without entries, the limit has no schedule.
    ///
    /// The scale of an entry is rounded to thousandths, which the table stores. An entry of a quota or of a session limit cannot
    /// replace the refill amount and period, which such a limit does not have. All zones of a limit, that of its resets
    /// included, must be the same.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use zae_limiter::Limit;
    /// use zae_limiter::schedule::ScheduleEntry;
    ///
    /// // Half the rate during office hours, and up to 500 at once at night.
    /// let limit = Limit::per_minute("rpm", 100)
    ///     .scheduled([
    ///         ScheduleEntry::on("* 9-17 * * MON-FRI").zone("Europe/Berlin").scale(0.5),
    ///         ScheduleEntry::on("* 0-6 * * *").zone("Europe/Berlin").capacity(500),
    ///     ])
    ///     .build()?;
    /// assert_eq!(limit.schedule().unwrap().encode(), "1h9-17w1-5s500;h0-6c500");
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    pub fn scheduled<E: IntoScheduleEntry>(mut self, entries: impl IntoIterator<Item = E>) -> Self {
        let entry = |(index, entry): (usize, E)| {
            let entry = entry.into_schedule_entry();
            entry.map_err(|err| within(&format!("schedule[{index}]"), err))
        };
        self.schedule = entries.into_iter().enumerate().map(entry).collect();
        self
    }

    /// Lets the limit go into debt instead of refusing requests, so that usage is counted before it is limited.
    pub fn soft(mut self) -> Self {
        self.soft = true;
        self
    }

    /// Accepts what only other clients can store: entries of a quota's schedule that replace its refill amount or period.
    pub(crate) fn stored(mut self) -> Self {
        self.is_stored = true;
        self
    }

    /// Checks the limit.
    ///
    /// # Errors
    /// - A bad name (see [`LimitName`]).
    /// - An amount that is not from 1 to 10^15 tokens: the error's field is `NAME.capacity` or `NAME.refill_amount`. A period or
    ///   a session's length that is not a whole number of seconds from 1 to 10^9: `NAME.refill_period`, `NAME.reset_after`.
    /// - A burst of a quota or of a session limit: `NAME.burst`.
    /// - Times of reset that cannot be read (see [`ResetSchedule::new`]): `NAME.reset_schedule.` and its field.
    /// - An entry of the schedule that cannot be read (see [`ScheduleEntryBuilder::build`]), or that replaces what the limit
    ///   does not have: `NAME.schedule[INDEX].` and its field. Different zones: `NAME.tz`.
    pub fn build(self) -> Result<Limit, InvalidInput> {
        let name = self.name.map_err(|err| err.with_kind(InputKind::Configuration))?;
        let capacity = self.burst.unwrap_or(self.capacity);
        if let (Some(burst), false) = (self.burst, matches!(self.source, Source::Refill { .. })) {
            let reason =
                "cannot be given to a limit that is not refilled over time: it holds its amount and no more";
            return Err(InvalidInput::new(format!("{name}.burst"), burst, reason));
        }
        check_amount(&name, "capacity", capacity)?;
        let recovery = match self.source {
            Source::Refill { amount, period } => {
                check_amount(&name, "refill_amount", amount)?;
                let period_secs = whole_seconds(&name, "refill_period", period)?;
                Recovery::Refill { amount, period_secs }
            }
            Source::Session(length) => Recovery::Session {
                secs: whole_seconds(&name, "reset_after", length)?,
            },
            Source::Resets(resets) => {
                Recovery::Resets(resets.map_err(|err| within(&format!("{name}.reset_schedule"), err))?)
            }
        };
        let entries = self.schedule.map_err(|err| within(name.as_str(), err))?;
        let refills = matches!(recovery, Recovery::Refill { .. });
        if !refills && !self.is_stored {
            check_entries_of_quota(&name, &entries)?;
        }
        if let Recovery::Resets(resets) = &recovery
            && let Some(entry) = entries.iter().find(|entry| entry.zone() != resets.zone())
        {
            let reason = format!("must be '{}', as that of the times of reset", resets.zone());
            return Err(InvalidInput::new(format!("{name}.tz"), entry.zone(), reason));
        }
        let schedule = if entries.is_empty() {
            None
        } else {
            let schedule = Schedule::new(entries).map_err(|err| within(name.as_str(), err))?;
            Some(schedule.rounded())
        };
        Ok(Limit {
            name,
            capacity,
            recovery,
            schedule,
            soft: self.soft,
        })
    }
}

fn check_amount(name: &LimitName, part: &str, value: u64) -> Result<(), InvalidInput> {
    if (1..=MAX_TOKENS).contains(&value) {
        return Ok(());
    }
    let reason = format!("must be between 1 and {MAX_TOKENS}");
    Err(InvalidInput::new(format!("{name}.{part}"), value, reason))
}

fn whole_seconds(name: &LimitName, part: &str, period: Duration) -> Result<u64, InvalidInput> {
    if period.subsec_nanos() == 0 && (1..=MAX_PERIOD_SECS).contains(&period.as_secs()) {
        return Ok(period.as_secs());
    }
    let reason = format!("must be a whole number of seconds from 1 to {MAX_PERIOD_SECS}");
    Err(InvalidInput::new(
        format!("{name}.{part}"),
        in_seconds(period),
        reason,
    ))
}

fn check_entries_of_quota(name: &LimitName, entries: &[ScheduleEntry]) -> Result<(), InvalidInput> {
    for (index, entry) in entries.iter().enumerate() {
        let period = entry.refill_period().map(in_seconds);
        let amount = entry.refill_amount().map(|amount| amount.to_string());
        for (part, value) in [("refill_amount", amount), ("refill_period", period)] {
            if let Some(value) = value {
                let reason =
                    "cannot be given for a limit that is not refilled over time; give a capacity or a scale";
                let field = format!("{name}.schedule[{index}].{part}");
                return Err(InvalidInput::new(field, value, reason));
            }
        }
    }
    Ok(())
}

/// The same error, for a field of `outer`, unless it is about that as a whole.
fn within(outer: &str, err: InvalidInput) -> InvalidInput {
    let own = outer.rsplit_once('.').map_or(outer, |(_, own)| own);
    let field = match err.field() {
        field if field == own => outer.to_owned(),
        field => format!("{outer}.{field}"),
    };
    err.in_field(field)
}

/// A period as an error shows it: `60 s`, `0.5 s`.
fn in_seconds(period: Duration) -> String {
    let (secs, nanos) = (period.as_secs(), period.subsec_nanos());
    match nanos {
        0 => format!("{secs} s"),
        _ => format!("{secs}.{} s", format!("{nanos:09}").trim_end_matches('0')),
    }
}

/// Something that is, or can be checked into, a [`ScheduleEntry`].
pub trait IntoScheduleEntry {
    /// Checks and converts.
    ///
    /// # Errors
    /// See [`ScheduleEntryBuilder::build`].
    fn into_schedule_entry(self) -> Result<ScheduleEntry, InvalidInput>;
}

impl IntoScheduleEntry for ScheduleEntry {
    fn into_schedule_entry(self) -> Result<ScheduleEntry, InvalidInput> {
        Ok(self)
    }
}

impl IntoScheduleEntry for ScheduleEntryBuilder {
    fn into_schedule_entry(self) -> Result<ScheduleEntry, InvalidInput> {
        self.build()
    }
}
