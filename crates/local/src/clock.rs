//! What time it is: the one place of this crate that looks at the clock.

use jiff::Timestamp;

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A time as `2026-11-22T06:30:00.123Z`.
pub fn iso(ms: i64) -> String {
    format!("{:.3}", at(ms))
}

/// A time as HTTP's headers have it: `Sun, 22 Nov 2026 06:30:00 GMT`.
pub fn http(ms: i64) -> String {
    at(ms).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The milliseconds of a time in HTTP's form.
pub fn from_http(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(time.timestamp().as_millisecond())
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let ms = 1_795_329_000_120;
        assert_eq!(iso(ms), "2026-11-22T06:30:00.120Z");
        assert_eq!(http(ms), "Sun, 22 Nov 2026 06:30:00 GMT");
        assert_eq!(
            from_http("Sun, 22 Nov 2026 06:30:00 GMT"),
            Some(1_795_329_000_000)
        );
        assert_eq!(from_http("yesterday"), None);
        assert!(now_ms() > ms - 365 * 86_400_000);
    }
}
