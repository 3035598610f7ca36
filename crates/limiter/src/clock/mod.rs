//! The time, injected: nothing else in the workspace reads a clock.
//!
//! A repository on a table that answers over HTTP goes by the table's clock: `offset` estimates how far the machine's is
//! from it, and `table` corrects it ([`ClockOffset`]).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use zae_limiter_core::EpochMillis;

mod offset;
mod table;

pub use offset::ClockOffset;
#[cfg(feature = "sdk")]
pub(crate) use offset::Reading;
#[cfg(feature = "sdk")]
pub(crate) use table::Signature;
pub(crate) use table::{TableClock, TableOffset};

/// A source of the time of day.
///
/// Buckets are refilled by this clock, so the clocks of all processes that share a table should agree to
/// within a fraction of a second. Unless [`RepositoryBuilder::clock`](crate::RepositoryBuilder::clock) brings another,
/// a repository uses the machine's clock, corrected to the table's.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time. It counts to the millisecond.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now().max(SystemTime::UNIX_EPOCH)
    }
}

/// A clock, as the machines of the core read it.
#[derive(Debug, Clone)]
pub(crate) struct Time(pub(crate) Arc<dyn Clock>);

impl Time {
    /// The time in milliseconds.
    pub(crate) fn now(&self) -> EpochMillis {
        self.0.now().into()
    }
}

/// A clock that stands still until it is moved, for tests.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use zae_limiter::clock::{Clock, ManualClock};
///
/// let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
/// let clock = ManualClock::at(begin);
/// clock.advance(Duration::from_millis(500));
/// assert_eq!(clock.now(), begin + Duration::from_millis(500));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<SystemTime>>);

impl ManualClock {
    /// A clock that shows this time.
    pub fn at(time: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(time)))
    }

    /// Moves the clock forwards. All clones move with it. A time that the system cannot represent is not reached: the
    /// clock stays.
    pub fn advance(&self, by: Duration) {
        let mut time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *time = time.checked_add(by).unwrap_or(*time);
    }

    /// Sets the clock, also back. All clones are set with it.
    pub fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
