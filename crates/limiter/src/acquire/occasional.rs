//! Log lines that many calls have reason to write: at most one a second, which says how many were left out.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use zae_limiter_core::EpochMillis;

const INTERVAL_MS: i64 = 1000;

/// The state of one kind of log line.
#[derive(Debug, Default)]
pub(crate) struct Occasional {
    /// When a line may be written again, in milliseconds; 0 at once.
    next: AtomicI64,
    left_out: AtomicU64,
}

impl Occasional {
    /// Whether to write a line now, and how many were left out since the last one.
    pub(crate) fn due(&self, now: EpochMillis) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        // A clock that was set back must not silence it.
        let is_early = now.0 < next && next - now.0 <= INTERVAL_MS;
        let after = now.0.saturating_add(INTERVAL_MS);
        let is_mine = || {
            let (done, other) = (Ordering::Relaxed, Ordering::Relaxed);
            self.next.compare_exchange(next, after, done, other).is_ok()
        };
        if is_early || !is_mine() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

/// The kinds of lines that calls write.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    /// Calls that were admitted without the table, by either policy.
    pub(crate) without_table: Occasional,
    /// Leases that were dropped.
    pub(crate) dropped: Occasional,
    /// Abandoned acquires that nothing waits for.
    pub(crate) abandoned: Occasional,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let line = Occasional::default();
        let due = |ms: i64| line.due(EpochMillis(1_700_000_000_000 + ms));
        assert_eq!(due(0), Some(0));
        for ms in 0..1000 {
            assert_eq!(due(ms), None);
        }
        assert_eq!(due(1000), Some(1000));
        assert_eq!(due(1500), None);
        assert_eq!(due(60_000), Some(1));
        // The clock is set back by a minute.
        assert_eq!(due(0), Some(0));
        assert_eq!(due(999), None);
    }
}
