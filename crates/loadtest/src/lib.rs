//! Load on a zae-limiter table: what the command `zae-limiter loadtest` runs.
//!
//! A [`Scenario`](scenario::Scenario) says what simulated users do, a [`Schedule`] how many of them there are at a time.
//! [`run`] starts them as closed loops on one limiter and returns a [`Report`]. Scenarios, schedules and [`Stats`] are plain
//! values; only `run` uses the clock and the table.
//!
//! ```
//! use std::time::Duration;
//! use zae_limiter::{RateLimiter, Repository};
//! use zae_limiter_loadtest::{Plan, Schedule, Stage, run, shipped};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), zae_limiter::Error> {
//! let limiter = RateLimiter::new(Repository::builder().in_memory().measure().open().await?);
//! let stage = Stage { users: 5, length: Duration::from_millis(300) };
//! let plan = Plan {
//!     scenario: shipped::find("max_rps").expect("a shipped scenario"),
//!     schedule: Schedule::new(vec![stage], 100.0),
//!     rate: None,
//!     warm_up: Duration::ZERO,
//!     seed: 1,
//!     every: Duration::from_secs(5),
//! };
//! let report = run(&limiter, &plan, std::future::pending(), |_| {}).await?;
//! assert!(report.acquires() > 0);
//! assert_eq!(report.stats.total().failures(), 0);
//! # Ok(())
//! # }
//! ```

mod choice;
pub mod cluster;
pub mod figures;
pub mod file;
pub mod function;
pub mod namespace;
mod pace;
pub mod page;
mod places;
mod processor;
mod progress;
mod report;
mod run;
pub mod scenario;
mod schedule;
pub mod selection;
pub mod shipped;
mod stats;
mod timeline;
pub mod tune;
mod users;

pub use progress::Progress;
pub use report::Report;
pub use run::{Plan, prepare, run};
pub use schedule::{Schedule, Stage};
pub use stats::{Event, JOINED, Series, Stats};
pub use timeline::{Point, Timeline};
