//! The speed of the replay in real time.

use std::str::FromStr;
use std::time::Duration;

/// A factor, or as fast as possible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// As fast as possible.
    Max,
    /// This many times faster than it was recorded.
    Times(f64),
}

impl Speed {
    /// When something that happens at `at_ms` is due, after the start; `None` if at once.
    pub(crate) fn wall_time(self, at_ms: i64) -> Option<Duration> {
        match self {
            Self::Max => None,
            Self::Times(factor) => Duration::try_from_secs_f64(at_ms as f64 / 1000.0 / factor).ok(),
        }
    }
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "max" => Ok(Self::Max),
            Ok(factor) if (0.01..=1e6).contains(&factor) => Ok(Self::Times(factor)),
            _ => Err("expected 'max' or a factor from 0.01 to 1000000, such as 60 for an hour a minute"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_or_max_is_read_and_nothing_else() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("0.5".parse(), Ok(Speed::Times(0.5)));
        for bad in ["0", "-1", "NaN", "inf", "fast", "", "1e7"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn time_is_divided_by_the_factor() {
        assert_eq!(
            Speed::Times(60.0).wall_time(3_600_000),
            Some(Duration::from_mins(1))
        );
        assert_eq!(Speed::Max.wall_time(3_600_000), None);
    }
}
