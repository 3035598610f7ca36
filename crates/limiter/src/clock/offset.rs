//! How far the machine's clock is from the table's, estimated from the `Date` of answers. No I/O, no clock.
//!
//! An answer with the date `d` (whole seconds, cut off) was given after its request was sent and before it was received,
//! so the table's clock less the machine's lies between `d - received` and `d + 1 s - sent`: an interval of one second
//! and a round trip. The offset lies in the interval of each answer, and so in their intersection, which shrinks to about
//! a round trip as answers are given at different fractions of a second. Between answers it is widened by what clocks
//! may drift apart.
//!
//! Lengths of time are counted on the machine's steady clock, which cannot be set. So a change of the machine's clock is
//! seen as such and is not mistaken for a change of the table's.
//!
//! All numbers are microseconds.

use std::fmt;
use std::time::Duration;

/// The unit of [`Duration`]s and dates.
const SECOND: i64 = 1_000_000;

/// How far two clocks may drift apart: 500 parts per million, the fastest that NTP slews a clock; crystals keep within a
/// fifth of it.
const DRIFT_PPM: i64 = 500;

/// How far the two clocks of a machine may come apart without one having been set: reading them takes two calls.
const JITTER: i64 = 20_000;

/// A difference that one answer may make. Only answers that agree with each other make a larger one.
const SMALL: i64 = 5 * SECOND;

/// How many answers in succession must agree on an offset that is not [`SMALL`] before it is accepted, while there is
/// no other estimate. It cannot be more: opening a namespace reads two records before anything is written.
const AGREEING_AT_FIRST: u32 = 2;

/// How many answers in succession must agree before they replace an estimate that they contradict.
const AGREEING: u32 = 3;

/// A machine's clock that is wrong by more than this is reported. It is twice the resolution of a date, so that the
/// resolution alone never makes a right clock look wrong.
pub(super) const TOLERANCE: i64 = 2 * SECOND;

/// The machine's two clocks, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Time of day, since the Unix epoch.
    pub(crate) wall: i64,
    /// Time since some moment; cannot be set, and may stand still while the machine is suspended.
    pub(crate) steady: i64,
}

impl Reading {
    /// How much further the time of day has gone since `earlier` than the steady clock: by how much it was set, or for
    /// how long the machine was suspended. Zero if it is no more than drift.
    fn moved_since(self, earlier: Reading) -> i64 {
        let steady = self.steady - earlier.steady;
        let moved = self.wall - earlier.wall - steady;
        if moved.abs() <= JITTER + drift(steady) {
            0
        } else {
            moved
        }
    }
}

/// The most that two clocks drift apart in this time, rounded up.
fn drift(elapsed: i64) -> i64 {
    (elapsed.max(0) / 1000 * DRIFT_PPM) / 1000 + 1
}

/// An interval that holds the table's clock less the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    low: i64,
    high: i64,
}

impl Bounds {
    /// The interval from one answer, for the moment when it was received.
    fn of(sent: Reading, received: Reading, date: i64) -> Self {
        // Whichever is longer: the time of day may have been set meanwhile, the steady clock may have stood still.
        let round_trip = (received.steady - sent.steady)
            .max(received.wall - sent.wall)
            .max(0);
        let low = date - received.wall;
        Self {
            low,
            high: low + SECOND + round_trip,
        }
    }

    fn meet(self, other: Self) -> Option<Self> {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        (low <= high).then_some(Self { low, high })
    }

    /// How far apart two intervals are.
    fn gap(self, other: Self) -> i64 {
        (self.low - other.high).max(other.low - self.high).max(0)
    }

    fn moved(self, by: i64) -> Self {
        Self {
            low: self.low + by,
            high: self.high + by,
        }
    }

    fn widened(self, by: i64) -> Self {
        Self {
            low: self.low - by,
            high: self.high + by,
        }
    }

    /// The correction of the machine's clock.
    ///
    /// Nothing if the clock may be right. Else the middle of the interval, but at most twice its nearer end `n`: for
    /// every offset `o` of the interval `|2n - o| <= |o|`, so a corrected clock is never worse than the clock itself.
    /// Its error is at most the interval's width, and half of that once `n` exceeds half of the width.
    fn correction(self) -> i64 {
        let middle = i64::midpoint(self.low, self.high);
        if self.low > 0 {
            middle.min(2 * self.low)
        } else if self.high < 0 {
            middle.max(2 * self.high)
        } else {
            0
        }
    }
}

/// An interval, and when it was the right one.
#[derive(Debug, Clone, Copy)]
struct Measured {
    bounds: Bounds,
    at: Reading,
}

impl Measured {
    /// The interval at a later moment.
    fn aged(self, now: Reading) -> Bounds {
        self.bounds.widened(drift(now.steady - self.at.steady))
    }

    /// The intersection of this and a later interval.
    fn meet(self, other: Bounds, now: Reading) -> Option<Bounds> {
        let aged = self.aged(now);
        let met = aged.meet(other);
        let moved = now.moved_since(self.at);
        if moved == 0 {
            return met;
        }
        // Either the clock was set, which changes its offset by as much, or the machine was suspended, which does not.
        match (met, aged.moved(-moved).meet(other)) {
            // Both are possible.
            (Some(a), Some(b)) => Some(Bounds {
                low: a.low.min(b.low),
                high: a.high.max(b.high),
            }),
            (a, b) => a.or(b),
        }
    }
}

/// The estimate of the offset.
#[derive(Debug, Default)]
pub(crate) struct Estimate {
    known: Option<Measured>,
    /// The interval of the last answers that contradict it, and their number.
    doubt: Option<(Measured, u32)>,
}

impl Estimate {
    /// Takes in an answer dated `date_secs`. Returns whether the estimate changed.
    pub(crate) fn add(&mut self, sent: Reading, received: Reading, date_secs: i64) -> bool {
        let sample = Bounds::of(sent, received, date_secs.saturating_mul(SECOND));
        if let Some(known) = self.known
            && let Some(bounds) = known.meet(sample, received)
        {
            self.doubt = None;
            // Kept as it was while it is as narrow, so that drift is counted once over a long time.
            let aged = known.aged(received);
            let is_better = bounds.low > aged.low || bounds.high < aged.high;
            if is_better || received.moved_since(known.at) != 0 {
                self.known = Some(Measured { bounds, at: received });
                return true;
            }
            return false;
        }
        self.contradicted(sample, received)
    }

    fn contradicted(&mut self, sample: Bounds, received: Reading) -> bool {
        // Without an estimate, the machine's clock is the one to be contradicted.
        let (before, most) = match self.known {
            Some(known) => (known.aged(received), AGREEING),
            None => (Bounds { low: 0, high: 0 }, AGREEING_AT_FIRST),
        };
        let agreed = self.doubt.and_then(|(doubt, count)| {
            let bounds = doubt.meet(sample, received)?;
            Some((bounds, count.saturating_add(1)))
        });
        let (bounds, count) = agreed.unwrap_or((sample, 1));
        let measured = Measured { bounds, at: received };
        let needed = if before.gap(sample) <= SMALL { 1 } else { most };
        if count < needed {
            self.doubt = Some((measured, count));
            return false;
        }
        self.doubt = None;
        self.known = Some(measured);
        true
    }

    /// The correction of the machine's clock, if the offset is known.
    pub(crate) fn shown(&self) -> Option<Shown> {
        self.known.map(|known| Shown {
            offset: ClockOffset {
                low: known.bounds.low,
                high: known.bounds.high,
                correction: known.bounds.correction(),
            },
            at: known.at,
        })
    }
}

/// The middle of the interval from one answer, accepted or not.
pub(crate) fn middle(sent: Reading, received: Reading, date_secs: i64) -> i64 {
    let sample = Bounds::of(sent, received, date_secs.saturating_mul(SECOND));
    i64::midpoint(sample.low, sample.high)
}

/// An estimate, as the clock uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) offset: ClockOffset,
    /// When it was measured.
    pub(crate) at: Reading,
}

impl Shown {
    /// The table's time, when the machine's clocks show this.
    pub(crate) fn correct(&self, now: Reading) -> i64 {
        now.wall.saturating_add(self.correction_at(now))
    }

    fn correction_at(&self, now: Reading) -> i64 {
        let correction = self.offset.correction;
        let moved = now.moved_since(self.at);
        if moved.abs() <= SECOND {
            return correction;
        }
        let after = correction - moved;
        // A clock goes back only if it is set. One that goes forward is being put right, or else the machine was
        // suspended and the steady clock stood still. The next answer decides.
        let is_set = moved < 0 || (correction > TOLERANCE && after.abs() <= TOLERANCE);
        if is_set { after } else { correction }
    }

    /// By how much the machine's clock was set since then, or for how long it was suspended.
    pub(crate) fn moved(&self, now: Reading) -> i64 {
        now.moved_since(self.at)
    }
}

/// How far this machine's clock is from the table's, as measured from the `Date` of answers; see
/// [`Repository::clock_offset`](crate::Repository::clock_offset).
///
/// A date is in whole seconds, so the first measurement is good to one second and a round trip. Later answers narrow it
/// to about a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockOffset {
    low: i64,
    high: i64,
    correction: i64,
}

impl ClockOffset {
    /// Milliseconds that are added to the machine's clock: negative if it is ahead of the table's, positive if it is
    /// behind. Zero if the machine's clock may be right, so that a clock that is set well is used as it is.
    pub const fn correction_ms(&self) -> i64 {
        self.correction / 1000
    }

    /// The least and the greatest number of milliseconds that the table's clock may be ahead of the machine's.
    pub const fn bounds_ms(&self) -> (i64, i64) {
        (self.low.div_euclid(1000), -(-self.high).div_euclid(1000))
    }

    /// The greatest error that the corrected clock had when this was measured: at most one second and a round trip.
    pub fn max_error(&self) -> Duration {
        let error = (self.high - self.correction).max(self.correction - self.low);
        Duration::from_micros(error.unsigned_abs())
    }

    /// Whether the machine's clock is wrong by more than two seconds, which is twice the resolution of a date. Such a
    /// clock is corrected like any other, and reported in the log.
    pub const fn is_wrong(&self) -> bool {
        self.correction.abs() > TOLERANCE
    }
}

impl fmt::Display for ClockOffset {
    /// As in "this machine's clock is 1h 0m ahead of the table's".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Wrong(self.correction).fmt(f)
    }
}

/// By how much the machine's clock is behind the table's, in words.
pub(super) struct Wrong(pub(super) i64);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.0 {
            0 => return f.write_str("this machine's clock agrees with the table's"),
            ..0 => "ahead of",
            _ => "behind",
        };
        let length = Length(self.0.unsigned_abs());
        write!(f, "this machine's clock is {length} {way} the table's")
    }
}

/// A length of time in its two largest units; seconds with a digit.
struct Length(u64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 + 50_000) / 100_000;
        if tenths < 600 {
            return write!(f, "{}.{}s", tenths / 10, tenths % 10);
        }
        let secs = (self.0 + 500_000) / 1_000_000;
        let (mins, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
        match (days, hours) {
            (0, 0) => write!(f, "{mins}m {}s", secs % 60),
            (0, _) => write!(f, "{hours}h {}m", mins % 60),
            _ => write!(f, "{days}d {}h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests;
