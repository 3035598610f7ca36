//! Tasks at a fixed rate, for an open loop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When tasks are due: one after another, at the same distance.
///
/// Users take the next one when they are free. While all of them are busy, tasks become late, and none is skipped.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    per_second: f64,
    taken: AtomicU64,
}

impl Pace {
    /// `per_second` is above zero.
    pub(crate) fn new(began: Instant, per_second: f64) -> Self {
        Self {
            began,
            per_second,
            taken: AtomicU64::new(0),
        }
    }

    /// Takes the next task. Returns when it is due.
    pub(crate) fn take(&self) -> Instant {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let after = Duration::try_from_secs_f64(taken as f64 / self.per_second);
        // What is due in more than an age is never due.
        let after = after.unwrap_or(Duration::MAX);
        self.began.checked_add(after).unwrap_or(self.began + AGE)
    }
}

/// Longer than any run.
const AGE: Duration = Duration::from_hours(100 * 365 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_due_at_the_same_distance() {
        let began = Instant::now();
        let pace = Pace::new(began, 4.0);
        let due: Vec<_> = (0..4).map(|_| (pace.take() - began).as_millis()).collect();
        assert_eq!(due, [0, 250, 500, 750]);
    }

    #[test]
    fn the_slowest_rate_does_not_overflow() {
        let began = Instant::now();
        let pace = Pace::new(began, f64::MIN_POSITIVE);
        assert_eq!(pace.take(), began);
        assert_eq!(pace.take(), began + AGE);
    }
}
