//! For tests of code that uses the limiter: a table in memory that fails on demand, and clocks. Without AWS, without
//! sleeping.
//!
//! [`TestTable`] is a table in the memory of the process. A repository on it is like any other: the same requests, the
//! same decisions. The table fails, is slow and recovers when the test says so ([`Fault`]), and counts the requests that it
//! gets. It needs no feature but `test-util`. The feature is for `[dev-dependencies]`:
//!
//! ```toml
//! [dev-dependencies]
//! zae-limiter = { git = "https://github.com/zeroae/zae-limiter-rs", features = ["test-util"] } # as in [dependencies]
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! ```
//! use zae_limiter::testing::{Fault, TestTable};
//! use zae_limiter::{Error, Limit, RateLimiter};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
//! let table = TestTable::new();
//! let repo = table.open().await?;
//! repo.admin().set_system_defaults([Limit::per_second("rps", 1)], None).await?;
//! let limiter = RateLimiter::new(repo);
//! let call = || limiter.acquire("key-1", "gpt-4").consume("rps", 1);
//!
//! call().await?.commit().await?;
//! assert!(matches!(call().await, Err(Error::RateLimitExceeded(_))));
//! // In a test with paused time this returns at once, and the bucket is full again.
//! tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//! table.fail_next(1, Fault::AnswerLost);
//! assert!(call().await.is_err_and(|err| err.in_doubt()));
//! # Ok(()) }
//! ```
//!
//! # Time
//!
//! The limiter reads the time of day from its [`Clock`](crate::clock::Clock). Waits, deadlines and the probes of the circuit
//! breaker are timers of tokio.
//!
//! - [`TokioClock`] is the clock of a [`TestTable`]. It follows tokio's time. In a test with paused time
//!   (`#[tokio::test(start_paused = true)]`), tokio advances the time to the next timer whenever all tasks wait, so
//!   [`Acquire::wait`](crate::Acquire::wait) returns at once, and buckets are refilled by the same time.
//!   `tokio::time::advance` and `tokio::time::sleep` move both.
//! - [`ManualClock`] moves only when the test moves it. It moves no timers: a call that waits for tokens is admitted only
//!   if the test moves both the clock and tokio's time. Use it for tests without `wait`, and for the blocking API, whose
//!   runtime cannot be paused.
//!
//! The [guide](crate::guide#testing) has a test of a refusal, of an outage and of a refund.

mod clock;
mod table;

pub use crate::clock::ManualClock;
pub use clock::TokioClock;
pub use table::{Fault, TestTable};
