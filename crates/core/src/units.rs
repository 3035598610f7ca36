//! Units: tokens, millitokens and milliseconds, and the bounds that the stored format sets on them.
//!
//! Balances are integers in thousandths of a token, so that refill never needs floating point. They are
//! kept in 128 bits: a table may legitimately hold a debt or surplus beyond 64 bits once amounts near the
//! bound of 10^15 tokens add up, and DynamoDB numbers carry 38 digits.

use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::InvalidInput;

/// The largest number of tokens in one limit value or one amount: 10^15 (the bound that 0.17 clients enforce).
pub const MAX_TOKENS: u64 = 1_000_000_000_000_000;

/// The longest refill period, in seconds: 10^9, about 31 years.
pub const MAX_PERIOD_SECS: u64 = 1_000_000_000;

/// A balance or an amount in thousandths of a token. May be negative (debt).
///
/// Arithmetic saturates: an amount that does not fit 128 bits cannot come from valid input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millitokens(pub i128);

impl Millitokens {
    /// No tokens.
    pub const ZERO: Self = Self(0);

    /// Whole tokens, exactly.
    pub const fn from_tokens(tokens: i64) -> Self {
        Self(tokens as i128 * 1000)
    }

    /// A whole amount that cannot be negative, exactly.
    pub const fn from_amount(tokens: u64) -> Self {
        Self(tokens as i128 * 1000)
    }

    /// Whole tokens contained of an amount that cannot be negative, rounded down; 0 for a negative one.
    pub const fn floor_amount(self) -> u64 {
        // Nearly all amounts fit 64 bits, which are divided in a fraction of the time.
        if self.0 >= 0 && self.0 <= u64::MAX as i128 {
            return self.0 as u64 / 1000;
        }
        let tokens = self.0.div_euclid(1000);
        if tokens > u64::MAX as i128 {
            u64::MAX
        } else if tokens < 0 {
            0
        } else {
            tokens as u64
        }
    }

    /// Whole tokens contained, rounded towards minus infinity: -1500 millitokens are -2 tokens.
    pub const fn floor_tokens(self) -> i64 {
        if self.0 >= i64::MIN as i128 && self.0 <= i64::MAX as i128 {
            return (self.0 as i64).div_euclid(1000);
        }
        let tokens = self.0.div_euclid(1000);
        if tokens > i64::MAX as i128 {
            i64::MAX
        } else if tokens < i64::MIN as i128 {
            i64::MIN
        } else {
            tokens as i64
        }
    }
}

/// Quotient and remainder. Numbers of 128 bits are divided by a function call; nearly all that occur fit 64 bits, for which there
/// is an instruction.
pub(crate) fn div_rem(number: i128, by: i128) -> (i128, i128) {
    if let (Ok(number), Ok(by @ 1..)) = (u64::try_from(number), u64::try_from(by)) {
        return ((number / by).into(), (number % by).into());
    }
    let quotient = number / by;
    (quotient, number - quotient * by)
}

impl Add for Millitokens {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Millitokens {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Millitokens {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Millitokens {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl fmt::Display for Millitokens {
    /// Writes tokens with up to three decimals: `-1.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, magnitude) = if self.0 < 0 {
            ("-", self.0.unsigned_abs())
        } else {
            ("", self.0 as u128)
        };
        write!(f, "{sign}{}", magnitude / 1000)?;
        match magnitude % 1000 {
            0 => Ok(()),
            rest => write!(f, ".{}", format!("{rest:03}").trim_end_matches('0')),
        }
    }
}

/// An instant in milliseconds since the Unix epoch, by some machine's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochMillis(pub i64);

impl EpochMillis {
    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant plus a number of milliseconds, saturating.
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this instant; negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant as `YYYY-MM-DDTHH:MM:SSZ`, the text form of every stored timestamp; an instant beyond the calendar as
    /// the first or the last there is.
    pub fn to_text(self) -> String {
        let calendar = (jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
        let secs = self.secs().clamp(calendar.0, calendar.1);
        jiff::Timestamp::from_second(secs).unwrap_or_default().to_string()
    }

    /// Reads a stored timestamp, or another text of RFC 3339. `None` if it is not an instant.
    pub fn parse(text: &str) -> Option<Self> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Some(Self(instant.as_millisecond()))
    }
}

impl From<SystemTime> for EpochMillis {
    /// Rounds down to a millisecond, and saturates.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
            Err(err) => {
                let millis = err.duration().as_nanos().div_ceil(1_000_000);
                Self(i64::try_from(millis).map_or(i64::MIN, |millis| -millis))
            }
        }
    }
}

impl From<EpochMillis> for SystemTime {
    /// The epoch, if the system's type cannot hold the instant.
    fn from(at: EpochMillis) -> Self {
        let span = Duration::from_millis(at.0.unsigned_abs());
        let time = if at.0 < 0 {
            UNIX_EPOCH.checked_sub(span)
        } else {
            UNIX_EPOCH.checked_add(span)
        };
        time.unwrap_or(UNIX_EPOCH)
    }
}

/// Reads a stored timestamp as the system's type.
pub(crate) fn stored_time(text: &str) -> Option<SystemTime> {
    EpochMillis::parse(text).map(SystemTime::from)
}

/// Checks an amount that a caller wants to take: between 0 and [`MAX_TOKENS`].
pub fn check_amount(field: &str, amount: u64) -> Result<Millitokens, InvalidInput> {
    if amount <= MAX_TOKENS {
        Ok(Millitokens::from_amount(amount))
    } else {
        Err(InvalidInput::of_request(
            field,
            amount,
            format!("must be between 0 and {MAX_TOKENS} tokens"),
        ))
    }
}

/// Checks a correction that a caller wants to make: between minus and plus [`MAX_TOKENS`].
pub fn check_delta(field: &str, delta: i64) -> Result<Millitokens, InvalidInput> {
    if delta.unsigned_abs() <= MAX_TOKENS {
        Ok(Millitokens::from_tokens(delta))
    } else {
        Err(InvalidInput::of_request(
            field,
            delta,
            format!("must be between -{MAX_TOKENS} and {MAX_TOKENS} tokens"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_towards_minus_infinity() {
        assert_eq!(Millitokens(-1500).floor_tokens(), -2);
        assert_eq!(Millitokens(1500).floor_tokens(), 1);
        assert_eq!(Millitokens(i128::MIN).floor_tokens(), i64::MIN);
        assert_eq!(Millitokens(1500).floor_amount(), 1);
        assert_eq!(Millitokens(-1500).floor_amount(), 0);
        assert_eq!(Millitokens(i128::MAX).floor_amount(), u64::MAX);
        assert_eq!(Millitokens::from_amount(u64::MAX).floor_amount(), u64::MAX);
    }

    #[test]
    fn division_is_the_same_for_numbers_of_any_size() {
        let edges = [
            0,
            1,
            999,
            1000,
            i128::from(i64::MAX),
            i128::from(u64::MAX),
            i128::from(u64::MAX) + 1,
            i128::MAX,
        ];
        for number in edges.iter().flat_map(|n| [*n, -*n, *n - 1]) {
            for by in edges.iter().flat_map(|n| [*n, -*n]).filter(|by| *by != 0) {
                assert_eq!(
                    div_rem(number, by),
                    (number / by, number % by),
                    "{number} by {by}"
                );
            }
            let tokens = number.div_euclid(1000);
            let whole = i128::from(Millitokens(number).floor_tokens());
            assert_eq!(whole, tokens.clamp(i64::MIN.into(), i64::MAX.into()), "{number}");
            let amount = i128::from(Millitokens(number).floor_amount());
            assert_eq!(amount, tokens.clamp(0, u64::MAX.into()), "{number}");
        }
    }

    #[test]
    fn shows_tokens_with_decimals() {
        assert_eq!(Millitokens(-1500).to_string(), "-1.5");
        assert_eq!(Millitokens(2000).to_string(), "2");
        assert_eq!(Millitokens(1).to_string(), "0.001");
    }

    #[test]
    fn timestamps_are_whole_seconds_in_utc() {
        assert_eq!(EpochMillis(1_795_290_198_636).to_text(), "2026-11-21T19:43:18Z");
    }

    #[test]
    fn instants_convert_without_loss() {
        for millis in [0, 1, -1, -1001, 1_795_290_198_636, -62_135_596_800_000] {
            let at = EpochMillis(millis);
            assert_eq!(EpochMillis::from(SystemTime::from(at)), at);
        }
        let before = UNIX_EPOCH - Duration::from_nanos(1);
        assert_eq!(EpochMillis::from(before), EpochMillis(-1));
        assert_eq!(
            stored_time("2026-11-21T19:43:18Z"),
            Some(UNIX_EPOCH + Duration::from_secs(1_795_290_198))
        );
        assert_eq!(stored_time("yesterday"), None);
        // Beyond the calendar.
        assert_eq!(EpochMillis(i64::MAX).to_text(), "9999-12-30T22:00:00Z");
        assert!(EpochMillis(i64::MIN).to_text().starts_with("-009999-"));
        let _ = (
            SystemTime::from(EpochMillis(i64::MIN)),
            SystemTime::from(EpochMillis(i64::MAX)),
        );
    }

    #[test]
    fn amounts_outside_the_bounds_name_field_and_value() {
        let err = check_amount("consume.tpm", u64::MAX).unwrap_err();
        assert_eq!(
            err.to_string(),
            "invalid consume.tpm '18446744073709551615': must be between 0 and 1000000000000000 tokens"
        );
        assert!(check_amount("consume.tpm", MAX_TOKENS + 1).is_err());
        assert_eq!(
            check_amount("consume.tpm", MAX_TOKENS),
            Ok(Millitokens(1_000_000_000_000_000_000))
        );
        assert!(check_delta("adjust.tpm", i64::MIN).is_err());
        assert!(check_delta("adjust.tpm", -1_000_000_000_000_000).is_ok());
    }
}
