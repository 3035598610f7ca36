//! True time: microseconds from the start of a run, and milliseconds since the Unix epoch.

/// True time at the start of every run, in milliseconds since the Unix epoch.
pub const EPOCH_MS: i64 = 1_795_290_000_000;

/// True time in milliseconds since the Unix epoch.
pub fn true_ms(now_us: u64) -> i64 {
    EPOCH_MS.saturating_add_unsigned(now_us / 1000)
}

/// Whole milliseconds in this many microseconds.
pub(crate) fn millis(micros: u64) -> i64 {
    i64::try_from(micros / 1000).unwrap_or(i64::MAX)
}
