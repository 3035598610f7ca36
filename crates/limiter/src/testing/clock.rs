//! A clock that tokio's paused time moves.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::clock::Clock;

/// A clock that follows the time of tokio, and so stands still and advances with it where it is paused.
///
/// It is the clock of a [`TestTable`](super::TestTable); with it, calls that wait for tokens and the buckets that are
/// refilled for them go by the same time. Clones show the same time. Where tokio's time is not paused, it goes on like any
/// other clock.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use zae_limiter::clock::Clock;
/// use zae_limiter::testing::TokioClock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
/// let clock = TokioClock::at(begin);
/// tokio::time::advance(Duration::from_hours(1)).await;
/// assert_eq!(clock.now(), begin + Duration::from_hours(1));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TokioClock {
    begin: SystemTime,
    origin: Instant,
}

impl TokioClock {
    /// A clock that shows `time` now.
    pub fn at(time: SystemTime) -> Self {
        Self {
            begin: time,
            origin: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    /// The time. It stays at the start if the system cannot represent a later one.
    fn now(&self) -> SystemTime {
        self.begin
            .checked_add(self.origin.elapsed())
            .unwrap_or(self.begin)
    }
}
