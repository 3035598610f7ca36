//! Instants as they are given on the command line, and waiting times as they are shown.

use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::{Pieces, PiecesOffset};

use zae_limiter_core::EpochMillis;

use crate::text::literal::quoted;

/// Which end of a span of time an instant marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

/// Reads the first instant of a span into its stored form, `2024-01-01T00:00:00Z`. A date begins at midnight,
/// a fraction of a second counts as the next whole one, and a time without zone is UTC.
pub(crate) fn parse_start(text: &str) -> Result<String, String> {
    parse(text, Edge::Start)
}

/// Reads the last instant of a span into its stored form, `2024-01-01T23:59:59Z`. A date ends with its last
/// second, a fraction of a second is dropped, and a time without zone is UTC.
pub(crate) fn parse_end(text: &str) -> Result<String, String> {
    parse(text, Edge::End)
}

/// Reads one end of a span into its stored form.
fn parse(text: &str, edge: Edge) -> Result<String, String> {
    match utc(text.trim(), edge) {
        Some(instant) if (0..=9999).contains(&instant.year()) => {
            Ok(instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        }
        _ => {
            let which = match edge {
                Edge::Start => "start",
                Edge::End => "end",
            };
            let text = quoted(text);
            Err(format!(
                "Invalid {which} time {text}: expected an instant such as 2024-01-01T00:00:00Z (or with an \
                 offset such as +02:00) or a date such as 2024-01-01"
            ))
        }
    }
}

/// The instant in whole seconds of UTC, if the text is one. Stays with calendar values throughout, because
/// a timestamp ends hours before the year 9999 does.
fn utc(text: &str, edge: Edge) -> Option<DateTime> {
    let pieces = Pieces::parse(text).ok()?;
    // A zone's name says nothing without its rules, which are not at hand.
    if pieces.time_zone_annotation().is_some() {
        return None;
    }
    let Some(time) = pieces.time() else {
        let time = match edge {
            Edge::Start => Time::midnight(),
            Edge::End => Time::constant(23, 59, 59, 0),
        };
        return pieces.offset().is_none().then(|| pieces.date().to_datetime(time));
    };
    let offset = match pieces.offset() {
        Some(PiecesOffset::Numeric(offset)) => offset.offset().seconds(),
        _ => 0,
    };
    let local = pieces.date().to_datetime(time);
    let instant = local
        .checked_sub(SignedDuration::from_secs(i64::from(offset)))
        .ok()?;
    let fraction = i64::from(instant.subsec_nanosecond());
    let rounding = match edge {
        Edge::Start if fraction > 0 => 1_000_000_000 - fraction,
        _ => -fraction,
    };
    instant.checked_add(SignedDuration::from_nanos(rounding)).ok()
}

/// An instant as it is stored: `2024-01-01T00:00:00Z`.
pub(crate) fn stored(at: SystemTime) -> String {
    EpochMillis::from(at).to_text()
}

/// A waiting time: `0.6s`, `4m05s`, `2h03m`, `3d04h`. Rounded up in its last unit, so that the
/// printed time is never too short.
pub(crate) fn wait(time: Duration) -> String {
    let nanos = time.as_nanos();
    let tenths = nanos.div_ceil(100_000_000);
    let secs = nanos.div_ceil(1_000_000_000);
    let minutes = secs.div_ceil(60);
    let hours = minutes.div_ceil(60);
    // Each unit is looked at after rounding, so that 59.96 seconds are one minute and not sixty seconds.
    if tenths < 600 {
        format!("{}.{}s", tenths / 10, tenths % 10)
    } else if secs < 3600 {
        format!("{}m{:02}s", secs / 60, secs % 60)
    } else if minutes < 24 * 60 {
        format!("{}h{:02}m", minutes / 60, minutes % 60)
    } else {
        format!("{}d{:02}h", hours / 24, hours % 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, start: &str, end: &str) {
        assert_eq!(parse_start(text).as_deref(), Ok(start));
        assert_eq!(parse_end(text).as_deref(), Ok(end));
    }

    #[track_caller]
    fn check_same(text: &str, expected: &str) {
        check(text, expected, expected);
    }

    #[track_caller]
    fn check_wait(millis: u64, expected: &str) {
        assert_eq!(wait(Duration::from_millis(millis)), expected);
    }

    #[test]
    fn instants_become_utc() {
        check_same("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z");
        check_same("2024-01-01t00:00:00z", "2024-01-01T00:00:00Z");
        check_same("2024-01-01 12:30:15", "2024-01-01T12:30:15Z");
        check_same("2024-01-01T12:30", "2024-01-01T12:30:00Z");
        check_same("2024-01-01T00:30:00+02:00", "2023-12-31T22:30:00Z");
        check_same("2024-02-28T20:00:00-0530", "2024-02-29T01:30:00Z");
        check_same("  2024-01-01T00:00:00+00:00 ", "2024-01-01T00:00:00Z");
        check_same("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z");
        check_same("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z");
    }

    #[test]
    fn fractions_shrink_the_span() {
        check(
            "2024-12-31T23:59:59.000000001Z",
            "2025-01-01T00:00:00Z",
            "2024-12-31T23:59:59Z",
        );
        check_same("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00Z");
    }

    #[test]
    fn a_date_covers_all_of_its_day() {
        check("2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29T23:59:59Z");
        check("9999-12-31", "9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "yesterday",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-01-01T25:00:00Z",
            "12:00:00",
            "2024-01-01+02:00",
            "2024-01-01T00:00:00[Europe/Berlin]",
            "2024-01-01T00:00:00+01:00[Europe/Berlin]",
            "-000001-01-01T00:00:00Z",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "2024-01-01T00:00:00Z and more",
            "1704067200",
        ] {
            for result in [parse_start(text), parse_end(text)] {
                let err = result.expect_err(text);
                assert!(err.contains("2024-01-01T00:00:00Z"), "{err}");
            }
        }
        let err = parse_end("to\nday").unwrap_err();
        assert!(err.starts_with("Invalid end time 'to\\nday': expected"), "{err}");
    }

    #[test]
    fn waits_have_two_units_at_most() {
        check_wait(0, "0.0s");
        check_wait(1, "0.1s");
        check_wait(600, "0.6s");
        check_wait(12_300, "12.3s");
        check_wait(59_900, "59.9s");
        check_wait(59_901, "1m00s");
        check_wait(245_000, "4m05s");
        check_wait(3_599_000, "59m59s");
        check_wait(3_599_001, "1h00m");
        check_wait(7_380_000, "2h03m");
        check_wait(7_380_001, "2h04m");
        check_wait(86_340_001, "1d00h");
        check_wait(273_600_000, "3d04h");
        assert_eq!(wait(Duration::MAX), "213503982334601d08h");
    }

    /// A printed wait, in tenths of a second.
    fn read(shown: &str) -> u64 {
        let mut total = 0;
        let mut number = String::new();
        for c in shown.chars() {
            let unit = match c {
                'd' => 864_000,
                'h' => 36_000,
                'm' => 600,
                's' if shown.contains('.') => 1,
                's' => 10,
                '.' => continue,
                digit => {
                    number.push(digit);
                    continue;
                }
            };
            total += number.parse::<u64>().unwrap() * unit;
            number.clear();
        }
        total
    }

    proptest! {
        #[test]
        fn no_wait_is_shown_too_short(
            millis in prop_oneof![0..100_000u64, 0..10_000_000u64, 0..1_000_000_000u64],
        ) {
            let shown = read(&wait(Duration::from_millis(millis))) * 100;
            prop_assert!(shown >= millis);
            prop_assert!(shown - millis <= (millis / 20).max(100));
        }

        #[test]
        fn the_stored_form_reads_as_itself(secs in 0..253_402_300_800i64) {
            let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
            let instant = epoch.checked_add(SignedDuration::from_secs(secs)).unwrap();
            let text = format!("{instant}Z");
            prop_assert_eq!(parse_start(&text), Ok(text.clone()));
            prop_assert_eq!(parse_end(&text), Ok(text));
        }

        #[test]
        fn nothing_panics(text in ".*", tail in "[-+0-9T:. Z]*") {
            let _ = parse_start(&text);
            let _ = parse_end(&format!("2024-01-01{tail}"));
        }
    }
}
