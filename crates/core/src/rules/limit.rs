//! [`Limit`]: one token bucket's rule.

use std::time::Duration;

use crate::error::{InputKind, InvalidInput};
use crate::name::{IntoName, LimitName};
use crate::units::{MAX_PERIOD_SECS, MAX_TOKENS, Millitokens};

/// One token bucket's rule: how many tokens it holds, and how fast it refills.
///
/// A limit starts full, holds at most [`capacity`](Self::capacity) tokens and gains
/// [`refill_amount`](Self::refill_amount) tokens every [`refill_period`](Self::refill_period),
/// continuously. A capacity above the refill amount is a *burst*: the bucket may be emptied at
/// once, and then fills up at its ordinary rate.
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
    refill_amount: u64,
    refill_period_secs: u64,
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
        LimitBuilder {
            name: name.into_name(),
            capacity,
            refill_amount,
            refill_period,
        }
    }

    /// The limit's name.
    pub fn name(&self) -> &LimitName {
        &self.name
    }

    /// The most tokens the bucket can hold.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Tokens gained per period.
    pub fn refill_amount(&self) -> u64 {
        self.refill_amount
    }

    /// The refill period, in whole seconds.
    pub fn refill_period(&self) -> Duration {
        Duration::from_secs(self.refill_period_secs)
    }

    /// Tokens gained per second, as a floating point number for display.
    pub fn refill_rate(&self) -> f64 {
        self.refill_amount as f64 / self.refill_period_secs as f64
    }

    /// The time that an empty bucket takes to fill, rounded up to a nanosecond.
    pub fn time_to_fill(&self) -> Duration {
        // At most 10^15 times 10^18: fits 128 bits.
        let product = u128::from(self.capacity) * self.refill_period().as_nanos();
        let nanos = product.div_ceil(u128::from(self.refill_amount));
        let secs = u64::try_from(nanos / 1_000_000_000);
        secs.map_or(Duration::MAX, |secs| {
            Duration::new(secs, (nanos % 1_000_000_000) as u32)
        })
    }

    /// Seconds that an empty bucket takes to fill, in the floating point arithmetic that other clients of the table use.
    pub(crate) fn seconds_to_fill(&self) -> f64 {
        self.capacity as f64 / self.refill_amount as f64 * self.refill_period_secs as f64
    }

    /// The limit's stored parameters.
    pub fn params(&self) -> Params {
        Params {
            capacity: Millitokens::from_amount(self.capacity).0,
            refill: Millitokens::from_amount(self.refill_amount).0,
            period_ms: i128::from(self.refill_period_secs) * 1000,
        }
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
    refill_amount: u64,
    refill_period: Duration,
}

impl LimitBuilder {
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
        self.capacity = capacity;
        self
    }

    /// Checks the limit.
    ///
    /// # Errors
    /// A bad name (see [`LimitName`]), an amount that is not from 1 to 10^15 tokens, or a period that is not a whole
    /// number of seconds from 1 to 10^9. The error's field is `NAME.capacity`, `NAME.refill_amount` or
    /// `NAME.refill_period`.
    pub fn build(self) -> Result<Limit, InvalidInput> {
        let name = self.name.map_err(|err| err.with_kind(InputKind::Configuration))?;
        for (part, value, max) in [
            ("capacity", self.capacity, MAX_TOKENS),
            ("refill_amount", self.refill_amount, MAX_TOKENS),
        ] {
            if !(1..=max).contains(&value) {
                let reason = format!("must be between 1 and {max}");
                return Err(InvalidInput::new(format!("{name}.{part}"), value, reason));
            }
        }
        let period = self.refill_period;
        if period.subsec_nanos() != 0 || !(1..=MAX_PERIOD_SECS).contains(&period.as_secs()) {
            let reason = format!("must be a whole number of seconds from 1 to {MAX_PERIOD_SECS}");
            let field = format!("{name}.refill_period");
            return Err(InvalidInput::new(field, in_seconds(period), reason));
        }
        Ok(Limit {
            name,
            capacity: self.capacity,
            refill_amount: self.refill_amount,
            refill_period_secs: period.as_secs(),
        })
    }
}

/// A period as an error shows it: `60 s`, `0.5 s`.
fn in_seconds(period: Duration) -> String {
    let (secs, nanos) = (period.as_secs(), period.subsec_nanos());
    match nanos {
        0 => format!("{secs} s"),
        _ => format!("{secs}.{} s", format!("{nanos:09}").trim_end_matches('0')),
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

/// Checks a set of limits: at least one, at most [`MAX_LIMITS`], no name twice.
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
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (builder, field) in [
            (Limit::per_minute("rpm", 0), "rpm.capacity"),
            (Limit::per_minute("rpm", u64::MAX), "rpm.capacity"),
            (Limit::per_minute("rpm", 5).burst(0), "rpm.capacity"),
            (
                Limit::custom("rpm", 5, 0, Duration::from_mins(1)),
                "rpm.refill_amount",
            ),
            (
                Limit::custom("rpm", 5, u64::MAX, Duration::from_mins(1)),
                "rpm.refill_amount",
            ),
            (Limit::per_day("rpm", MAX_TOKENS + 1), "rpm.capacity"),
            (Limit::per_day("wcu", 1), "limit_name"),
        ] {
            assert_eq!(builder.build().unwrap_err().field(), field);
        }
    }

    #[test]
    fn an_amount_above_the_bound_is_shown_with_the_bound() {
        let err = Limit::per_hour("tpm", u64::MAX).build().unwrap_err();
        assert_eq!(
            err.to_string(),
            "invalid tpm.capacity '18446744073709551615': must be between 1 and 1000000000000000"
        );
    }

    #[test]
    fn periods_are_whole_seconds() {
        for (period, shown) in [
            (Duration::ZERO, "0 s"),
            (Duration::from_millis(500), "0.5 s"),
            (Duration::from_nanos(60_000_000_001), "60.000000001 s"),
            (Duration::from_secs(MAX_PERIOD_SECS + 1), "1000000001 s"),
            (Duration::new(MAX_PERIOD_SECS, 1), "1000000000.000000001 s"),
            (Duration::MAX, "18446744073709551615.999999999 s"),
        ] {
            let err = Limit::custom("rpm", 5, 5, period).build().unwrap_err();
            assert_eq!((err.field(), err.value()), ("rpm.refill_period", shown));
            assert_eq!(
                err.reason(),
                "must be a whole number of seconds from 1 to 1000000000"
            );
        }
        let longest = Duration::from_secs(MAX_PERIOD_SECS);
        let limit = Limit::custom("rpm", 5, 5, longest).build().unwrap();
        assert_eq!(limit.refill_period(), longest);
    }

    #[test]
    fn the_time_to_fill_is_exact_and_never_overflows() {
        let check = |capacity, amount, period, expected| {
            let limit = Limit::custom("x", capacity, amount, Duration::from_secs(period));
            assert_eq!(limit.build().unwrap().time_to_fill(), expected);
        };
        check(100, 100, 60, Duration::from_mins(1));
        check(1000, 10, 60, Duration::from_mins(100));
        check(7, 3, 1, Duration::new(2, 333_333_334));
        check(MAX_TOKENS, MAX_TOKENS, 1, Duration::from_secs(1));
        check(MAX_TOKENS, 1, MAX_PERIOD_SECS, Duration::MAX);
    }

    #[test]
    fn a_burst_below_the_rate_is_allowed() {
        let limit = Limit::per_minute("rpm", 100).burst(10).build().unwrap();
        assert_eq!((limit.capacity(), limit.refill_amount()), (10, 100));
    }

    #[test]
    fn a_set_of_limits_has_distinct_names() {
        let twice = check_limits([Limit::per_minute("rpm", 1), Limit::per_hour("rpm", 1)]);
        assert!(twice.unwrap_err().reason().contains("twice"));
        assert!(check_limits(Vec::<Limit>::new()).is_err());
    }
}
