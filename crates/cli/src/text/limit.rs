//! Limits as they are given on the command line, `name:rate[/period][:burst]`, and as they are shown.

mod shape;
mod shown;
mod written;

use std::time::Duration;

use zae_limiter_core::units::{MAX_PERIOD_SECS, MAX_TOKENS};
use zae_limiter_core::{Limit, LimitBuilder, LimitName};

pub(crate) use shown::{describe, lines};
pub(crate) use written::read;

use crate::text::literal::quoted;
use crate::text::table::printable;

/// Period units and their seconds, the longest first.
const UNITS: [(&str, u64); 4] = [("day", 86_400), ("hour", 3600), ("min", 60), ("sec", 1)];

/// The period of a rate that names none.
const DEFAULT_PERIOD_SECS: i128 = 60;

/// A limit that can still be given a schedule, and its name.
type Named = (String, LimitBuilder);

/// Reads a limit such as `tpm:10000/min:50000`. The error is a sentence for the user.
fn plain(text: &str) -> Result<Named, String> {
    let shown = printable(text);
    let malformed = |why: &str| {
        Err(format!(
            "Invalid limit format: {shown}. Expected 'name:rate[/period]' or 'name:rate[/period]:burst'{why}"
        ))
    };
    let mut fields = text.splitn(4, ':');
    let name = fields.next().unwrap_or_default();
    let Some(rate) = fields.next() else {
        return malformed("");
    };
    let burst = fields.next();
    if let Some(extra) = fields.next() {
        let why = format!(", but {} follows the burst", quoted(&format!(":{extra}")));
        return malformed(&why);
    }

    let (rate, period) = match rate.split_once('/') {
        Some((rate, period)) => (rate, Some(period)),
        None => (rate, None),
    };
    let value = |digits: &str| {
        integer(digits).ok_or_else(|| {
            let digits = quoted(digits);
            format!("Invalid limit values in '{shown}': {digits} is not a whole number")
        })
    };
    let rate = value(rate)?;
    let capacity = burst.map(value).transpose()?.unwrap_or(rate);
    let period = match period {
        Some(period) => period_secs(period).ok_or_else(|| {
            let period = printable(period);
            format!("Invalid period: '/{period}'. Use /[N]sec, /[N]min, /[N]hour, or /[N]day")
        })?,
        None => DEFAULT_PERIOD_SECS,
    };

    check_name(name).map_err(|reason| format!("Invalid name: {reason}"))?;
    let invalid = |problem: String| format!("Invalid limit '{shown}': {problem}");
    let [capacity, rate, period] = check_values(capacity, rate, period).map_err(invalid)?;
    let limit = Limit::custom(name, capacity, rate, Duration::from_secs(period));
    Ok((name.to_owned(), limit))
}

/// An integer in the shape that Python's `int()` takes: blanks around, one sign, `_` between digits. A number
/// beyond 128 bits counts as the outermost one.
fn integer(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut number = 0i128;
    for group in digits.split('_') {
        if group.is_empty() {
            return None;
        }
        for c in group.chars() {
            let digit = i128::from(c.to_digit(10)?);
            number = number.saturating_mul(10).saturating_add(digit);
        }
    }
    Some(if negative { -number } else { number })
}

/// The seconds of `min`, `5min` and the like, at most the largest 128-bit number.
fn period_secs(text: &str) -> Option<i128> {
    UNITS.into_iter().find_map(|(unit, secs)| {
        let times = text.strip_suffix(unit)?;
        if !times.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let times = if times.is_empty() { 1 } else { integer(times)? };
        Some(times.saturating_mul(i128::from(secs)))
    })
}

/// Checks a limit's name, in the words that the command line uses for it.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("cannot be empty")
    } else if name.chars().count() > 64 {
        Err("exceeds maximum length of 64")
    } else if name.contains('#') {
        Err("cannot contain '#' (reserved delimiter)")
    } else if name == zae_limiter_core::name::WCU {
        Err("'wcu' is a reserved limit name")
    } else if LimitName::new(name).is_err() {
        Err("must start with a letter and contain only alphanumeric, underscore, hyphen, or dot characters")
    } else {
        Ok(())
    }
}

/// Checks the numbers and narrows them: capacity, refill amount, refill period.
fn check_values(capacity: i128, rate: i128, period: i128) -> Result<[u64; 3], String> {
    if capacity < 1 {
        return Err("capacity must be positive".to_owned());
    }
    if rate < 0 {
        return Err("refill_amount must not be negative".to_owned());
    }
    if period < 1 {
        return Err("refill_period_seconds must be positive".to_owned());
    }
    let narrow = |part: &str, value: i128, max: u64| match u64::try_from(value) {
        Ok(value) if value <= max => Ok(value),
        _ => {
            let got = match value {
                i128::MAX => "a number of 39 digits or more".to_owned(),
                value => value.to_string(),
            };
            Err(format!(
                "{part} must be at most {max}, got {got}. A larger value cannot be stored exactly"
            ))
        }
    };
    let values = [
        narrow("capacity", capacity, MAX_TOKENS)?,
        narrow("refill_amount", rate, MAX_TOKENS)?,
        narrow("refill_period_seconds", period, MAX_PERIOD_SECS)?,
    ];
    if rate == 0 {
        let problem = "refill_amount=0 means the limit does not drip, so that once emptied it would stay \
                       empty; give a rate of at least 1";
        return Err(problem.to_owned());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Limit, String> {
        Ok(plain(text)?.1.build().unwrap())
    }

    /// Checks capacity, refill amount and refill period.
    #[track_caller]
    fn check(text: &str, expected: [u64; 3]) {
        let limit = parse(text).unwrap();
        let got = [
            limit.capacity(),
            limit.refill_amount(),
            limit.refill_period().as_secs(),
        ];
        assert_eq!(got, expected, "{text:?}");
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap_err(), expected);
    }

    #[track_caller]
    fn check_shown(text: &str, expected: &str) {
        assert_eq!(describe(&parse(text).unwrap()), expected);
    }

    #[test]
    fn rate_period_and_burst() {
        check("rpm:100", [100, 100, 60]);
        check("rpm:100:250", [250, 100, 60]);
        check("rpm:100:50", [50, 100, 60]);
        check("rpm:10/sec", [10, 10, 1]);
        check("rpm:10/5min:20", [20, 10, 300]);
        check("rpm:10/012hour", [10, 10, 43_200]);
        check("rpm:10/7day", [10, 10, 604_800]);
    }

    #[test]
    fn integers_as_python_takes_them() {
        check("rpm: 5 :+1_0 ", [10, 5, 60]);
        check("rpm:\u{a0}1_000_000 /min", [1_000_000, 1_000_000, 60]);
        check("rpm:007", [7, 7, 60]);
    }

    #[test]
    fn the_largest_values() {
        check(
            "rpm:1000000000000000/1000000000sec",
            [1_000_000_000_000_000, 1_000_000_000_000_000, 1_000_000_000],
        );
    }

    #[test]
    fn fields_too_few_and_too_many() {
        let expected = "Expected 'name:rate[/period]' or 'name:rate[/period]:burst'";
        check_error("rpm", &format!("Invalid limit format: rpm. {expected}"));
        check_error("", &format!("Invalid limit format: . {expected}"));
        check_error(
            "rpm:10:20:30",
            &format!("Invalid limit format: rpm:10:20:30. {expected}, but ':30' follows the burst"),
        );
        check_error(
            "a:1:2:3:4",
            &format!("Invalid limit format: a:1:2:3:4. {expected}, but ':3:4' follows the burst"),
        );
    }

    #[test]
    fn values_that_are_no_integers() {
        for (text, piece) in [
            ("rpm:abc", "'abc'"),
            ("rpm:10:abc", "'abc'"),
            ("rpm:", "''"),
            ("rpm:/min", "''"),
            ("rpm:10:", "''"),
            ("rpm:10:20/min", "'20/min'"),
            ("rpm:1e3", "'1e3'"),
            ("rpm:1.5", "'1.5'"),
            ("rpm:1__0", "'1__0'"),
            ("rpm:_1", "'_1'"),
            ("rpm:1_", "'1_'"),
            ("rpm:+-5", "'+-5'"),
            ("rpm:+ 5", "'+ 5'"),
            ("rpm:+", "'+'"),
            ("rpm:it's", "\"it's\""),
            ("::", "''"),
            // The values come before the period and the name.
            ("9x:abc/week", "'abc'"),
            ("rpm:10/week:abc", "'abc'"),
        ] {
            let expected = format!("Invalid limit values in '{text}': {piece} is not a whole number");
            check_error(text, &expected);
        }
    }

    #[test]
    fn periods_that_are_none() {
        for (text, period) in [
            ("rpm:10/week", "/week"),
            ("rpm:10/", "/"),
            ("rpm:10/5MIN", "/5MIN"),
            ("rpm:10/min/x", "/min/x"),
            ("rpm:10/ 1min", "/ 1min"),
            ("rpm:10/1min ", "/1min "),
            ("rpm:10/+1min", "/+1min"),
            ("rpm:10/1_0min", "/1_0min"),
            ("rpm:10/5", "/5"),
            ("9x:10/week", "/week"),
        ] {
            let expected = format!("Invalid period: '{period}'. Use /[N]sec, /[N]min, /[N]hour, or /[N]day");
            check_error(text, &expected);
        }
    }

    #[test]
    fn names_that_are_none() {
        let characters =
            "must start with a letter and contain only alphanumeric, underscore, hyphen, or dot characters";
        let long = "a".repeat(65);
        for (name, reason) in [
            ("", "cannot be empty"),
            (long.as_str(), "exceeds maximum length of 64"),
            ("a#b", "cannot contain '#' (reserved delimiter)"),
            ("wcu", "'wcu' is a reserved limit name"),
            ("9x", characters),
            ("a b", characters),
            (" rpm", characters),
        ] {
            check_error(&format!("{name}:5"), &format!("Invalid name: {reason}"));
        }
        // The name comes before the amounts.
        check_error("9x:0", &format!("Invalid name: {characters}"));
    }

    #[test]
    fn amounts_out_of_range() {
        let large = "must be at most 1000000000000000, got";
        let exactly = "A larger value cannot be stored exactly";
        for (text, problem) in [
            ("rpm:0", "capacity must be positive".to_owned()),
            ("rpm:-5", "capacity must be positive".to_owned()),
            ("rpm:5:0", "capacity must be positive".to_owned()),
            ("rpm:0/0min", "capacity must be positive".to_owned()),
            ("rpm:-5:10", "refill_amount must not be negative".to_owned()),
            ("rpm:10/0min", "refill_period_seconds must be positive".to_owned()),
            (
                "rpm:0:10",
                "refill_amount=0 means the limit does not drip, so that once emptied it would stay empty; \
                 give a rate of at least 1"
                    .to_owned(),
            ),
            (
                "rpm:1000000000000001",
                format!("capacity {large} 1000000000000001. {exactly}"),
            ),
            (
                "rpm:1000000000000001:5",
                format!("refill_amount {large} 1000000000000001. {exactly}"),
            ),
            (
                "rpm:5/1000000001sec",
                format!("refill_period_seconds must be at most 1000000000, got 1000000001. {exactly}"),
            ),
        ] {
            check_error(text, &format!("Invalid limit '{text}': {problem}"));
        }
    }

    #[test]
    fn huge_numbers_are_errors_too() {
        let nines = "9".repeat(5000);
        let huge = "got a number of 39 digits or more";
        for text in [format!("rpm:{nines}"), format!("rpm:1:{nines}")] {
            assert!(parse(&text).unwrap_err().contains(huge));
        }
        assert!(parse(&format!("rpm:1/{nines}day")).unwrap_err().contains(huge));
        check_error(
            &format!("rpm:-{nines}"),
            &format!("Invalid limit 'rpm:-{nines}': capacity must be positive"),
        );
    }

    #[test]
    fn errors_show_control_characters_escaped() {
        check_error(
            "rpm:5\u{1b}",
            "Invalid limit values in 'rpm:5\\u{1b}': '5\\x1b' is not a whole number",
        );
    }

    #[test]
    fn periods_show_in_their_largest_unit() {
        check_shown("rpm:1000", "rpm: 1000/min");
        check_shown("tpm:100000", "tpm: 100000/min");
        check_shown("rph:5000/hour:9000", "rph: 5000/hour (burst: 9000)");
        check_shown("x:1/5min", "x: 1/5min");
        check_shown("rpm:10/90sec", "rpm: 10/90sec");
        check_shown("rpm:10/120min", "rpm: 10/2hour");
        check_shown("rpm:10/3600sec", "rpm: 10/hour");
        check_shown("rpm:10/24hour", "rpm: 10/day");
        check_shown("rpm:10/7day:3", "rpm: 10/7day (burst: 3)");
    }

    /// Any text of an argument. `scripts/hostile-bytes` tries more of them.
    #[test]
    fn hostile_limits() {
        let runs = std::env::var("ZAE_LIMITER_HOSTILE_RUNS").map_or(20_000, |runs| runs.parse().unwrap());
        let pieces = [
            "rpm",
            ":",
            "/",
            "min",
            "day",
            "0",
            "1",
            "-1",
            "1_000",
            "_",
            "9223372036854775807",
            "1000000000000000",
            "340282366920938463463374607431768211456",
            "\u{663}",
            "\u{0}",
            "\u{1b}",
            "\u{1f4a5}",
            " ",
            "+",
            "1e9",
            "",
        ];
        let mut dice = fastrand::Rng::with_seed(7);
        let mut taken = 0;
        for _ in 0..runs {
            let mut text = String::from(if dice.bool() { "tpm:10000/5min:50000" } else { "" });
            for _ in 0..dice.usize(0..5) {
                let at = dice.usize(0..=text.chars().count());
                let piece = pieces[dice.usize(0..pieces.len())];
                let skipped = at + dice.usize(0..3);
                let begin = text.chars().take(at);
                text = begin
                    .chain(piece.chars())
                    .chain(text.chars().skip(skipped))
                    .collect();
            }
            if let Ok(limit) = parse(&text) {
                taken += 1;
                let _ = (limit.params(), describe(&limit));
            }
        }
        assert!(taken > runs / 50, "{taken} of {runs}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            name in "[a-zA-Z][a-zA-Z0-9_.-]{0,63}",
            capacity in 1..=MAX_TOKENS,
            rate in 1..=MAX_TOKENS,
            unit in 0..4usize,
            times in 1..=MAX_PERIOD_SECS,
        ) {
            prop_assume!(name != "wcu");
            let period = (UNITS[unit].1 * times).min(MAX_PERIOD_SECS);
            let period = Duration::from_secs(period);
            let limit = Limit::custom(name, capacity, rate, period).build().unwrap();
            let written = describe(&limit).replace(" (burst", "").replace(')', "");
            prop_assert_eq!(parse(&written), Ok(limit));
        }

        #[test]
        fn nothing_panics(text in ".*", tail in "[-+_0-9/:a-z ]*") {
            let _ = parse(&text);
            let _ = parse(&format!("rpm:{tail}"));
        }
    }
}
