//! What-if replay: recorded traffic against declared limits, under the clock of the recording.
//!
//! [`trace`] reads requests from a file. [`replay`] applies one or two manifests, each to a table in memory of its own, and makes every
//! request on each of them, at its time, with the calls that a service makes. The [`Report`] says which requests the limits would
//! have refused, when, by which limit, and what the second manifest changes. [`draw`] has its charts and its page. Nothing here
//! uses the network, an account, or the clock of the machine.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use zae_limiter::manifest::Manifest;
//! use zae_limiter_replay::trace::{Trace, TraceOptions};
//! use zae_limiter_replay::{Declared, Options, limits_of, replay};
//!
//! let manifest = Manifest::from_json(&serde_json::json!({
//!     "namespace": "default",
//!     "system": { "limits": { "rpm": { "capacity": 2 } } },
//! }))?;
//! let declared = [Declared::new("limits.yaml", manifest)];
//! let text = "timestamp,entity\n\
//!     2026-01-15 09:30:00,key-1\n\
//!     2026-01-15 09:30:01,key-1\n\
//!     2026-01-15 09:30:02,key-1\n\
//!     2026-01-15 09:31:00,key-1\n";
//! let options = TraceOptions {
//!     limits: limits_of(&declared),
//!     resource: Some("gpt-4".try_into()?),
//!     ..TraceOptions::default()
//! };
//! let trace = move || Trace::open("trace.csv", text.as_bytes(), options);
//! let report = replay(trace, &declared, &Options::default()).await?;
//! let run = &report.runs[0];
//! assert_eq!((run.totals.admitted, run.totals.refused), (3, 1));
//! let limit = &run.limits[0];
//! // The bucket of two tokens gains one in 30 s, of which two seconds have passed.
//! assert_eq!((limit.limit.as_str(), limit.longest_wait_ms), ("rpm", 28_000));
//! # Ok(()) }
//! ```

pub mod draw;
mod level;
mod options;
mod play;
pub mod report;
pub mod trace;

pub use level::{Declared, DeclaredAt, limits_of, only_resource};
pub use options::{OnRefusal, Options};
pub use play::{ReplayError, replay};
pub use report::Report;
