//! The time, injected: nothing else in the workspace reads a clock.
//!
//! A repository on a table that answers over HTTP goes by the table's clock: `offset` estimates how far the machine's is
//! from it, and `table` corrects it ([`ClockOffset`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use zae_limiter_core::EpochMillis;

mod offset;
mod table;

pub use offset::ClockOffset;
pub(crate) use offset::Reading;
pub(crate) use table::{Signature, TableClock, TableOffset};

/// A source of the time of day.
///
/// Buckets are refilled by this clock, so the clocks of all processes that share a table should agree to
/// within a fraction of a second. Unless [`RepositoryBuilder::clock`](crate::RepositoryBuilder::clock) brings another,
/// a repository uses the machine's clock, corrected to the table's.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> EpochMillis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> EpochMillis {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        EpochMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until it is moved, for tests.
///
/// ```
/// use zae_limiter::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::at_millis(1_000);
/// clock.advance_millis(500);
/// assert_eq!(clock.now().0, 1_500);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows this many milliseconds since the epoch.
    pub fn at_millis(millis: i64) -> Self {
        Self(Arc::new(AtomicI64::new(millis)))
    }

    /// Moves the clock. All clones move with it.
    pub fn advance_millis(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the clock to this many milliseconds since the epoch. All clones move with it.
    pub fn set_millis(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> EpochMillis {
        EpochMillis(self.0.load(Ordering::SeqCst))
    }
}
