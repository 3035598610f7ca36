//! Times of a trace.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What a time must be, for messages.
pub(crate) const EXPECTED: &str = "must be a time of 1970 or later, such as 2026-01-15T09:30:00.250Z, 2026-01-15 09:30:00, 15/Jan/2026:09:30:00 +0000, \
     or seconds or milliseconds since 1970";

/// Numbers from here on are milliseconds since 1970, smaller ones seconds. As seconds it is the year 5138, as milliseconds 1973.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// The last instant of the calendar, in milliseconds.
const LAST: i64 = 253_402_207_200_999;

/// Reads a time in milliseconds since 1970, rounded down. One without an offset is of the time zone.
pub(crate) fn parse(text: &str, zone: &TimeZone) -> Option<i64> {
    let first = text.bytes().next()?;
    let millis = if !first.is_ascii_digit() {
        return None;
    } else if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        number(text)?
    } else if text.as_bytes().get(2) == Some(&b'/') {
        let broken_down = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?;
        broken_down.to_timestamp().ok()?.as_millisecond()
    } else if let Ok(time) = text.parse::<Timestamp>() {
        time.as_millisecond()
    } else {
        let local = text.parse::<DateTime>().ok()?;
        local.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond()
    };
    (0..=LAST).contains(&millis).then_some(millis)
}

/// Seconds or milliseconds since 1970.
fn number(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    if whole >= MILLISECONDS_FROM {
        return i64::try_from(whole).ok();
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let millis = digits.fold(0, |millis, digit| millis * 10 + u64::from(digit - b'0'));
    i64::try_from(whole * 1000 + millis).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, zone: &str, expected: Option<i64>) {
        assert_eq!(parse(text, &TimeZone::get(zone).unwrap()), expected, "{text}");
    }

    #[test]
    fn all_forms_of_one_instant() {
        let expected = Some(1_700_158_623_979);
        for text in [
            "2023-11-16 18:17:03.9799600",
            "2023-11-16T18:17:03.979Z",
            "2023-11-16T19:17:03.979+01:00",
            "2023-11-16 18:17:03.979+00:00",
            "1700158623.979",
            "1700158623.97999",
            "1700158623979",
        ] {
            check(text, "UTC", expected);
        }
        check("16/Nov/2023:13:17:03 -0500", "UTC", Some(1_700_158_623_000));
        check("1700158623.9", "UTC", Some(1_700_158_623_900));
        check("1970-01-01", "UTC", Some(0));
    }

    #[test]
    fn a_time_without_offset_is_local() {
        check(
            "2023-11-16 19:17:03.979",
            "Europe/Berlin",
            Some(1_700_158_623_979),
        );
        check(
            "2023-11-16 18:17:03.979Z",
            "Europe/Berlin",
            Some(1_700_158_623_979),
        );
        // The hour that is repeated counts as the first, and the one that is skipped as the one after.
        check("2026-10-25 02:30:00", "Europe/Berlin", Some(1_792_888_200_000));
        check("2026-03-29 02:30:00", "Europe/Berlin", Some(1_774_747_800_000));
    }

    #[test]
    fn what_is_not_a_time() {
        for text in [
            "",
            "yesterday",
            "-1",
            "1.2.3",
            ".5",
            "1969-12-31T23:59:59Z",
            "2023-13-01 00:00:00",
            "99999999999999999999",
            "999999999999999999",
            "16/Nov/2023",
            "1e9",
            "１７００",
        ] {
            check(text, "UTC", None);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}", digits in "[0-9./: TZ+-]{0,30}") {
            parse(&text, &TimeZone::UTC);
            parse(&digits, &TimeZone::UTC);
        }
    }
}
