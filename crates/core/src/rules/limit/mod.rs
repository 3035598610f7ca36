//! [`Limit`]: one token bucket's rule.

mod builder;
mod room;
mod shape;

use std::time::Duration;

pub use self::builder::{IntoScheduleEntry, LimitBuilder, Quota};
pub(crate) use self::room::{MAX_CONDITION, refill_bytes, too_many_quotas};
pub use self::shape::shape;
use crate::error::InvalidInput;
use crate::name::{IntoName, LimitName};
use crate::schedule::{ResetSchedule, Schedule, ScheduleEntry, Zone};
use crate::units::Millitokens;

/// One token bucket's rule: how many tokens it holds, and how it gets them back.
///
/// A limit starts full, holds at most [`capacity`](Self::capacity) tokens and gains
/// [`refill_amount`](Self::refill_amount) tokens every [`refill_period`](Self::refill_period),
/// continuously. A capacity above the refill amount is a *burst*: the bucket may be emptied at
/// once, and then fills up at its ordinary rate.
///
/// A [quota](Self::quota) and a [session limit](Self::session) gain nothing over time: they are whole again at certain instants.
/// Each limit can have a [schedule](LimitBuilder::scheduled) of other parameters by local time, and can be
/// [soft](LimitBuilder::soft).
///
/// ```
/// # use zae_limiter_core as zae_limiter;
/// use std::time::Duration;
/// use zae_limiter::Limit;
///
/// // 10,000 tokens a minute; a client that was idle may spend 50,000 at once.
/// let tpm = Limit::per_minute("tpm", 10_000).burst(50_000).build()?;
/// assert_eq!(tpm.capacity(), 50_000);
/// assert_eq!(tpm.refill_amount(), 10_000);
/// // Emptied, it is full again after 5 minutes.
/// assert_eq!(tpm.time_to_fill(), Duration::from_mins(5));
/// # Ok::<(), zae_limiter::InvalidInput>(())
/// ```
///
/// An invalid limit cannot be built:
///
/// ```
/// # use zae_limiter_core as zae_limiter;
/// use zae_limiter::Limit;
///
/// let err = Limit::per_minute("tpm", 0).build().unwrap_err();
/// assert_eq!(err.field(), "tpm.capacity");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    name: LimitName,
    capacity: u64,
    recovery: Recovery,
    schedule: Option<Schedule>,
    soft: bool,
}

/// How a limit gets its tokens back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// It gains this amount every period, continuously.
    Refill {
        /// Tokens.
        amount: u64,
        /// The period in seconds.
        period_secs: u64,
    },
    /// It is whole again at certain local times.
    Resets(ResetSchedule),
    /// It is whole again this many seconds after the first use of what it held.
    Session {
        /// The length of the session in seconds.
        secs: u64,
    },
}

impl Limit {
    /// `rate` tokens a second.
    pub fn per_second(name: impl IntoName<LimitName>, rate: u64) -> LimitBuilder {
        Self::custom(name, rate, rate, Duration::from_secs(1))
    }

    /// `rate` tokens a minute.
    pub fn per_minute(name: impl IntoName<LimitName>, rate: u64) -> LimitBuilder {
        Self::custom(name, rate, rate, Duration::from_mins(1))
    }

    /// `rate` tokens an hour.
    pub fn per_hour(name: impl IntoName<LimitName>, rate: u64) -> LimitBuilder {
        Self::custom(name, rate, rate, Duration::from_hours(1))
    }

    /// `rate` tokens a day.
    pub fn per_day(name: impl IntoName<LimitName>, rate: u64) -> LimitBuilder {
        Self::custom(name, rate, rate, Duration::from_hours(24))
    }

    /// A limit that holds `capacity` tokens and gains `refill_amount` tokens every `refill_period`, which must be a whole
    /// number of seconds.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use std::time::Duration;
    /// use zae_limiter::Limit;
    ///
    /// // Up to 500 at once, and 100 more every ten minutes.
    /// let limit = Limit::custom("uploads", 500, 100, Duration::from_mins(10)).build()?;
    /// assert_eq!(limit.time_to_fill(), Duration::from_mins(50));
    ///
    /// let err = Limit::custom("uploads", 500, 100, Duration::from_millis(1_500)).build().unwrap_err();
    /// assert_eq!(err.field(), "uploads.refill_period");
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    pub fn custom(
        name: impl IntoName<LimitName>,
        capacity: u64,
        refill_amount: u64,
        refill_period: Duration,
    ) -> LimitBuilder {
        LimitBuilder::refilling(name.into_name(), capacity, refill_amount, refill_period)
    }

    /// A limit of `amount` tokens for each period of the calendar: it is whole again at the local times that follow.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use zae_limiter::Limit;
    ///
    /// // 10,000 a day. What is left at midnight in Berlin is not added to the next day.
    /// let rpd = Limit::quota("rpd", 10_000).resets("0 0 * * *", "Europe/Berlin").build()?;
    /// assert!(rpd.is_quota());
    /// assert_eq!((rpd.capacity(), rpd.refill_amount()), (10_000, 0));
    ///
    /// let err = Limit::quota("rpd", 10_000).resets("0 24 * * *", "Europe/Berlin").build().unwrap_err();
    /// assert_eq!(err.field(), "rpd.reset_schedule.cron.hour");
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    pub fn quota(name: impl IntoName<LimitName>, amount: u64) -> Quota {
        Quota::new(name.into_name(), amount)
    }

    /// A limit of `amount` tokens for each session. A session begins with the first use after the previous one has ended, and
    /// ends after `length`, which must be a whole number of seconds. Then the limit is whole again.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use std::time::Duration;
    /// use zae_limiter::Limit;
    ///
    /// // 50 in five hours, counted from the first of them.
    /// let limit = Limit::session("messages", 50, Duration::from_hours(5)).build()?;
    /// assert_eq!(limit.session_length(), Some(Duration::from_hours(5)));
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    pub fn session(name: impl IntoName<LimitName>, amount: u64, length: Duration) -> LimitBuilder {
        LimitBuilder::session(name.into_name(), amount, length)
    }

    /// The limit's name.
    pub fn name(&self) -> &LimitName {
        &self.name
    }

    /// The most tokens the bucket can hold.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Tokens gained per period; 0 for a quota or a session limit.
    pub fn refill_amount(&self) -> u64 {
        match self.recovery {
            Recovery::Refill { amount, .. } => amount,
            Recovery::Resets(_) | Recovery::Session { .. } => 0,
        }
    }

    /// The refill period, in whole seconds. That of a quota or a session limit is a second, in which it gains nothing.
    pub fn refill_period(&self) -> Duration {
        Duration::from_secs(self.refill_period_secs())
    }

    fn refill_period_secs(&self) -> u64 {
        match self.recovery {
            Recovery::Refill { period_secs, .. } => period_secs,
            Recovery::Resets(_) | Recovery::Session { .. } => 1,
        }
    }

    /// How it gets its tokens back.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Whether it gains nothing over time: a [quota](Self::quota) or a [session limit](Self::session).
    pub fn is_quota(&self) -> bool {
        !matches!(self.recovery, Recovery::Refill { .. })
    }

    /// When it is whole again by the calendar, if it is a [quota](Self::quota).
    pub fn reset_schedule(&self) -> Option<&ResetSchedule> {
        match &self.recovery {
            Recovery::Resets(resets) => Some(resets),
            Recovery::Refill { .. } | Recovery::Session { .. } => None,
        }
    }

    /// How long a session lasts, if it is a [session limit](Self::session).
    pub fn session_length(&self) -> Option<Duration> {
        match self.recovery {
            Recovery::Session { secs } => Some(Duration::from_secs(secs)),
            Recovery::Refill { .. } | Recovery::Resets(_) => None,
        }
    }

    /// Its parameters by local time, if it has a schedule.
    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    /// Whether it never refuses a request.
    pub fn is_soft(&self) -> bool {
        self.soft
    }

    /// The zone of its schedules, if it has any.
    pub fn zone(&self) -> Option<&Zone> {
        let resets = self.reset_schedule().map(ResetSchedule::zone);
        self.schedule.as_ref().map(Schedule::zone).or(resets)
    }

    /// Tokens gained per second, as a floating point number for display.
    pub fn refill_rate(&self) -> f64 {
        self.refill_amount() as f64 / self.refill_period_secs() as f64
    }

    /// The time that an empty bucket takes to fill, rounded up to a nanosecond, without regard to a schedule.
    /// [`Duration::MAX`] for a quota or a session limit, which is not filled by time.
    pub fn time_to_fill(&self) -> Duration {
        if self.is_quota() {
            return Duration::MAX;
        }
        // At most 10^15 times 10^18: fits 128 bits.
        let product = u128::from(self.capacity) * self.refill_period().as_nanos();
        let nanos = product.div_ceil(u128::from(self.refill_amount()));
        let secs = u64::try_from(nanos / 1_000_000_000);
        secs.map_or(Duration::MAX, |secs| {
            Duration::new(secs, (nanos % 1_000_000_000) as u32)
        })
    }

    /// Seconds after which an idle bucket is whole again at the latest, in the floating point arithmetic that other
    /// clients of the table use: the longest time to fill, the shortest cycle of resets, or the length of a session.
    pub(crate) fn seconds_to_recover(&self) -> f64 {
        match &self.recovery {
            Recovery::Resets(resets) => resets.shortest_cycle().as_secs_f64(),
            Recovery::Session { secs } => *secs as f64,
            Recovery::Refill { amount, period_secs } => {
                let base = self.capacity as f64 / *amount as f64 * *period_secs as f64;
                let entries = self.schedule.iter().flat_map(Schedule::entries);
                let scheduled = entries.map(|entry| {
                    let Params {
                        capacity,
                        refill,
                        period_ms,
                    } = entry.params(self.params());
                    capacity as f64 / refill as f64 * (period_ms / 1000) as f64
                });
                scheduled.fold(base, f64::max)
            }
        }
    }

    /// The limit's stored parameters, which its schedule may replace for some time.
    pub fn params(&self) -> Params {
        Params {
            capacity: Millitokens::from_amount(self.capacity).0,
            refill: Millitokens::from_amount(self.refill_amount()).0,
            period_ms: i128::from(self.refill_period_secs()) * 1000,
        }
    }

    /// Whether it is refilled at one rate at all times.
    pub fn is_plain(&self) -> bool {
        self.schedule.is_none() && !self.is_quota()
    }

    /// The first part of its shape that limits of a single call may not have, by the name that an error gives it.
    pub(crate) fn part_of_shape(&self) -> Option<&'static str> {
        match self.recovery {
            Recovery::Resets(_) => Some("reset_schedule"),
            Recovery::Session { .. } => Some("reset_after"),
            Recovery::Refill { .. } if self.schedule.is_some() => Some("schedule"),
            Recovery::Refill { .. } => self.soft.then_some("soft"),
        }
    }
}

/// Something that is, or can be checked into, a [`Limit`].
pub trait IntoLimit {
    /// Checks and converts.
    fn into_limit(self) -> Result<Limit, InvalidInput>;
}

impl IntoLimit for Limit {
    fn into_limit(self) -> Result<Limit, InvalidInput> {
        Ok(self)
    }
}

impl IntoLimit for &Limit {
    fn into_limit(self) -> Result<Limit, InvalidInput> {
        Ok(self.clone())
    }
}

impl IntoLimit for LimitBuilder {
    fn into_limit(self) -> Result<Limit, InvalidInput> {
        self.build()
    }
}

/// The most limits that one level may define; more would not fit one conditional write.
pub const MAX_LIMITS: usize = 24;

/// Checks a set of limits: at least one, at most [`MAX_LIMITS`], no name twice, and all schedules in one time zone, which a level
/// stores once.
pub fn check_limits<L: IntoLimit>(limits: impl IntoIterator<Item = L>) -> Result<Vec<Limit>, InvalidInput> {
    let mut checked: Vec<Limit> = Vec::new();
    for limit in limits {
        let limit = limit.into_limit()?;
        if checked.iter().any(|l| l.name == limit.name) {
            return Err(InvalidInput::new(
                "limits",
                &limit.name,
                "is given twice; name each limit once",
            ));
        }
        let mut zoned = checked.iter().filter_map(|known| Some((known, known.zone()?)));
        if let (Some((known, zone)), Some(other)) = (zoned.next(), limit.zone())
            && zone != other
        {
            let reason = format!(
                "must be '{zone}', as that of '{}': the schedules of a level have one time zone",
                known.name
            );
            return Err(InvalidInput::new(format!("{}.tz", limit.name), other, reason));
        }
        checked.push(limit);
    }
    if checked.is_empty() {
        return Err(InvalidInput::new("limits", "[]", "must hold at least one limit"));
    }
    if checked.len() > MAX_LIMITS {
        let reason = format!("must hold at most {MAX_LIMITS} limits, so that one write can change them all");
        return Err(InvalidInput::new(
            "limits",
            format!("{} limits", checked.len()),
            reason,
        ));
    }
    if let Some((quotas, reason)) = too_many_quotas(&checked) {
        return Err(InvalidInput::new("limits", format!("{quotas} of them"), reason));
    }
    Ok(checked)
}

/// A limit's parameters as a bucket stores them: millitokens and milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Most millitokens the whole bucket may hold, undivided by shards.
    pub capacity: i128,
    /// Millitokens gained per period, undivided by shards.
    pub refill: i128,
    /// The period in milliseconds.
    pub period_ms: i128,
}

impl Params {
    /// The period.
    pub fn period(self) -> Duration {
        Duration::from_millis(u64::try_from(self.period_ms.max(0)).unwrap_or(u64::MAX))
    }

    /// One shard's part: capacity and refill divided by the number of shards, rounded down.
    pub fn share(self, shards: u32) -> Self {
        if shards <= 1 {
            return self;
        }
        let shards = i128::from(shards);
        Self {
            capacity: self.capacity / shards,
            refill: self.refill / shards,
            period_ms: self.period_ms,
        }
    }
}

#[cfg(test)]
mod tests;
