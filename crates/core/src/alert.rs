//! Alerts: percentages of use at which a limit is reported, and the period in which each is reported once.
//!
//! The stack's aggregator goes by them ([`crate::alerts`]), and so does the callback of the library.

use std::fmt;

use crate::bucket::{Bucket, BucketLimit};
use crate::error::InvalidInput;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::LimitStatus;

/// The shortest period of a limit that is refilled, in milliseconds: an hour. A limit of requests a minute would otherwise be
/// reported every minute.
const SHORTEST_MS: i64 = 3_600_000;

/// Stands for an empty list of thresholds.
const NONE: &str = "none";

/// The most thresholds. Each is a metric and a write of its own.
const MOST: usize = 10;

/// Percentages of use at which a limit is reported, ascending.
///
/// ```
/// use zae_limiter_core::alert::Thresholds;
///
/// let thresholds = Thresholds::parse("alert_thresholds", "95, 80")?;
/// assert_eq!(thresholds.to_string(), "80,95");
/// assert!(Thresholds::parse("alert_thresholds", "none")?.is_empty());
///
/// let err = Thresholds::parse("alert_thresholds", "80,120").unwrap_err();
/// assert_eq!(err.field(), "alert_thresholds");
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(Vec<u8>);

impl Default for Thresholds {
    /// 80, 95 and 100 %.
    fn default() -> Self {
        Self(vec![80, 95, 100])
    }
}

impl Thresholds {
    /// Checks percentages of the option `field`: up to 10, each from 1 to 100. Their order does not matter, and repeated ones
    /// count once.
    ///
    /// # Errors
    /// [`InvalidInput`] for a percentage that is out of range, and for too many.
    pub fn new(field: &str, percents: impl IntoIterator<Item = u8>) -> Result<Self, InvalidInput> {
        let mut percents: Vec<u8> = percents.into_iter().collect();
        percents.sort_unstable();
        percents.dedup();
        if let Some(bad) = percents.iter().find(|percent| !(1..=100).contains(*percent)) {
            return Err(InvalidInput::new(
                field,
                bad,
                "must be a percentage from 1 to 100",
            ));
        }
        if percents.len() > MOST {
            let reason = format!("must be at most {MOST} percentages");
            return Err(InvalidInput::new(field, percents.len(), reason));
        }
        Ok(Self(percents))
    }

    /// Reads percentages of the option `field` that are separated by commas, or `none`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`InvalidInput`] for what is not a list of numbers.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidInput> {
        if text.trim() == NONE {
            return Ok(Self(Vec::new()));
        }
        let percents: Result<Vec<u8>, _> = text.split(',').map(|one| one.trim().parse()).collect();
        let Ok(percents) = percents else {
            let reason = "must be percentages from 1 to 100, separated by commas, such as 80,95, or 'none'";
            return Err(InvalidInput::new(field, text, reason));
        };
        Self::new(field, percents)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The percentages that use reaches, ascending.
    pub fn reached(&self, used: Use) -> impl Iterator<Item = u8> {
        self.0
            .iter()
            .copied()
            .take_while(move |percent| used.reaches(*percent))
    }
}

impl fmt::Display for Thresholds {
    /// Writes what [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NONE);
        }
        let texts: Vec<String> = self.0.iter().map(u8::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// How much of a limit is left on one shard of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The balance in millitokens; negative in debt.
    pub available: Millitokens,
    /// The most that the shard may hold, in millitokens.
    pub capacity: Millitokens,
}

impl Use {
    /// The use of a limit of a shard at an instant. `None` if it is not known what the shard may hold, or if that is nothing.
    pub fn of(shard: &Bucket, limit: &BucketLimit, at: EpochMillis) -> Option<Self> {
        let capacity = shard.ceiling(limit, at);
        // A quota of which the times of reset are gone may hold anything.
        (capacity > 0 && capacity < i128::MAX).then(|| Self {
            available: shard.refilled(limit, at).tokens,
            capacity: Millitokens(capacity),
        })
    }

    /// Whether at least this percentage of the capacity is used.
    pub fn reaches(self, percent: u8) -> bool {
        let used = self.capacity - self.available;
        used.0.saturating_mul(100) >= self.capacity.0.saturating_mul(percent.into())
    }
}

/// The period in which a threshold of a limit is reported once.
///
/// That of a quota ends with its next reset, that of a session limit with its session. A limit that is refilled has none of its
/// own: its period begins with a report, and lasts for the time in which the limit fills, but at least an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it ends.
    pub until: EpochMillis,
    /// A period that ended by then is an earlier one.
    pub(crate) after: EpochMillis,
    /// How often an operator had reset the limit.
    pub(crate) resets: i64,
}

impl Period {
    /// The period of a limit of a shard at an instant.
    pub fn of(shard: &Bucket, limit: &BucketLimit, at: EpochMillis) -> Self {
        let terms = shard.terms(limit);
        match terms.resets_at(at) {
            Some(end) => Self::until_reset(end, limit.resets()),
            None => Self::filling(terms.fill_secs(), at),
        }
    }

    /// The period of a limit according to its status at an instant.
    pub fn of_status(status: &LimitStatus, at: EpochMillis) -> Self {
        if let Some(end) = status.resets_at {
            return Self::until_reset(end, 0);
        }
        let periods = u128::from(status.capacity) / u128::from(status.refill_amount.max(1));
        let secs = periods.saturating_mul(status.refill_period.as_secs().into());
        Self::filling(i64::try_from(secs).unwrap_or(i64::MAX), at)
    }

    fn until_reset(end: EpochMillis, resets: i64) -> Self {
        Self {
            until: end,
            after: end.plus(-1),
            resets,
        }
    }

    fn filling(fill_secs: i64, at: EpochMillis) -> Self {
        Self {
            until: at.plus(fill_secs.saturating_mul(1000).max(SHORTEST_MS)),
            after: at,
            resets: 0,
        }
    }

    /// Whether a report of the period `reported` leaves this one to be reported.
    pub fn follows(&self, reported: &Self) -> bool {
        reported.until <= self.after || reported.resets < self.resets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(available: i128, capacity: i128) -> Use {
        Use {
            available: Millitokens(available),
            capacity: Millitokens(capacity),
        }
    }

    #[test]
    fn thresholds_are_reached_exactly() {
        let thresholds = Thresholds::default();
        let check = |available, expected: &[u8]| {
            let reached: Vec<u8> = thresholds.reached(used(available, 1_000_000)).collect();
            assert_eq!(reached, expected, "{available}");
        };
        check(1_000_000, &[]);
        check(200_001, &[]);
        check(200_000, &[80]);
        check(50_001, &[80]);
        check(50_000, &[80, 95]);
        check(1, &[80, 95]);
        check(0, &[80, 95, 100]);
        check(-5_000_000, &[80, 95, 100]);
        assert!(used(i128::MIN, 1).reaches(100));
        assert!(!used(i128::MAX, 1).reaches(1));
    }

    #[test]
    fn thresholds_are_read_as_they_are_written() {
        let parse = |text| Thresholds::parse("alert_thresholds", text);
        assert_eq!(parse("80,95,100"), Ok(Thresholds::default()));
        assert_eq!(parse(" 95 ,80, 80").unwrap().to_string(), "80,95");
        assert_eq!(parse("none").unwrap().to_string(), "none");
        for (bad, value, reason) in [
            ("", "", "'none'"),
            ("80,", "80,", "separated by commas"),
            ("80 95", "80 95", "separated by commas"),
            ("-1", "-1", "from 1 to 100"),
            ("300", "300", "from 1 to 100"),
            ("0,80", "0", "from 1 to 100"),
            ("80,101", "101", "from 1 to 100"),
            ("1,2,3,4,5,6,7,8,9,10,11", "11", "at most 10"),
        ] {
            let err = parse(bad).unwrap_err();
            assert_eq!((err.field(), err.value()), ("alert_thresholds", value));
            assert!(err.reason().contains(reason), "{err}");
        }
    }

    #[test]
    fn a_limit_of_a_minute_has_periods_of_an_hour() {
        let at = EpochMillis(1_000_000);
        let minute = Period::filling(60, at);
        assert_eq!(minute.until, at.plus(3_600_000));
        assert!(!Period::filling(60, at.plus(3_599_999)).follows(&minute));
        assert!(Period::filling(60, at.plus(3_600_000)).follows(&minute));
        assert_eq!(Period::filling(86_400, at).until, at.plus(86_400_000));
        assert_eq!(Period::filling(i64::MAX, at).until, EpochMillis(i64::MAX));
    }

    #[test]
    fn an_earlier_period_does_not_follow_a_later_one() {
        let (first, second) = (EpochMillis(1_000), EpochMillis(2_000));
        let of = |end, resets| Period::until_reset(end, resets);
        assert!(of(second, 0).follows(&of(first, 0)));
        assert!(!of(second, 0).follows(&of(second, 0)));
        assert!(!of(first, 0).follows(&of(second, 0)));
        // An operator has reset the limit in between.
        assert!(of(second, 1).follows(&of(second, 0)));
        assert!(!of(second, 0).follows(&of(second, 1)));
    }
}
