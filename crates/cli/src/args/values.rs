//! Values that have a form of their own: amounts of tokens, times, and files to read.

use std::fmt;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// An amount of one limit's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Amount {
    /// The limit's name, not empty but otherwise unchecked.
    pub(crate) limit: String,
    /// How many tokens, 0 or more.
    pub(crate) tokens: u64,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.limit, self.tokens)
    }
}

/// Reads `LIMIT:AMOUNT`. `_` may stand between digits, and `,` between groups of three.
pub(crate) fn parse_amount(text: &str) -> Result<Amount, String> {
    const EXPECTED: &str = "expected LIMIT:AMOUNT, such as rpm:1";
    let Some((limit, amount)) = text.rsplit_once(':') else {
        return Err(format!("the amount is missing; {EXPECTED}"));
    };
    if limit.is_empty() {
        return Err(format!("the limit's name is missing; {EXPECTED}"));
    }
    let is_number = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    let mut groups = amount.split(',');
    // `1,5` is a fraction in some languages.
    let is_grouped = groups
        .next()
        .is_some_and(|first| !amount.contains(',') || first.len() <= 3)
        && groups.all(|group| group.len() == 3);
    if !amount.split(['_', ',']).all(is_number) || !is_grouped {
        return Err(format!(
            "'{amount}' is not a whole number of tokens, 0 or more; {EXPECTED}"
        ));
    }
    match amount.replace(['_', ','], "").parse::<i64>().map(u64::try_from) {
        Ok(Ok(tokens)) => Ok(Amount {
            limit: limit.to_owned(),
            tokens,
        }),
        _ => Err(format!("'{amount}' is more tokens than any limit holds")),
    }
}

/// An amount of a further resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Further {
    pub(crate) resource: String,
    pub(crate) amount: Amount,
}

/// Reads `RESOURCE=LIMIT:AMOUNT`.
pub(crate) fn parse_further(text: &str) -> Result<Further, String> {
    const EXPECTED: &str = "expected RESOURCE=LIMIT:AMOUNT, such as budget=usd:5";
    match text.split_once('=') {
        Some((resource, amount)) if !resource.is_empty() => Ok(Further {
            resource: resource.to_owned(),
            amount: parse_amount(amount)?,
        }),
        _ => Err(format!("the resource is missing; {EXPECTED}")),
    }
}

/// Reads a whole number within bounds.
pub(crate) fn whole<T: TryFrom<i64>>(
    within: RangeInclusive<i64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| within.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (least, most) = (within.start(), within.end());
            format!("expected a whole number from {least} to {most}")
        })
    }
}

/// Reads a part of a whole, above 0 and up to 1.
pub(crate) fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(ratio),
        _ => Err("expected a number above 0 and up to 1, such as 0.8".to_owned()),
    }
}

/// Reads how many of something there are in a second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.001 to 1000000, such as 250".to_owned()),
    }
}

/// The longest time that can be asked for: far beyond use, and far below what overflows a clock.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Reads a time such as `500ms`, `30s`, `2m`, `1h`, or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str =
        "expected a whole number of ms, s, m or h, such as 500ms or 2m, or just of seconds";
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let millis_each: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    if number.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(millis_each))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| "longer than a year".to_owned())
}

/// Reads a time as [`parse_duration`] does, but not 0.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("expected more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads the time to live of a place in flight.
pub(crate) fn parse_place_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if (Duration::from_secs(5)..=Duration::from_hours(1)).contains(&ttl) {
        return Ok(ttl);
    }
    Err("expected a time from 5s to 1h".to_owned())
}

/// A name and a value: `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The name, not empty.
    pub(crate) name: String,
    /// The value, which may be empty.
    pub(crate) value: String,
}

impl std::str::FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("expected NAME=VALUE, such as LambdaMemorySize=512".to_owned()),
        }
    }
}

/// Refuses a file that cannot be read. Pipes and devices are opened only once, when they are read.
pub(super) fn readable(path: PathBuf) -> Result<PathBuf, String> {
    let metadata = fs::metadata(&path).map_err(|err| err.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if metadata.is_file() {
        File::open(&path).map_err(|err| err.to_string())?;
    }
    Ok(path)
}
