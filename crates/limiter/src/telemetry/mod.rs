//! Metrics and spans: what the library reports about itself.
//!
//! With the feature `metrics`, counters, gauges and histograms go to the recorder that the application has installed for the
//! [`metrics`](https://docs.rs/metrics) facade. [`METRICS`] lists them. Install the recorder before the first repository is opened, or
//! call [`describe`] afterwards. No label has a key of a caller; `docs/adr/0034-what-is-a-label.md` has the reasons.
//!
//! Spans of [`tracing`](https://docs.rs/tracing) exist without a feature: [`SPANS`] lists them. They have the target `zae_limiter` and
//! the levels `debug` and `trace`, so that a subscriber with the level `info` sees none, and they cost next to nothing.
//!
//! `docs/observability.md` has both lists, log lines for alerts, and how to connect Prometheus and OpenTelemetry.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! use zae_limiter::{Limit, RateLimiter, Repository};
//!
//! // A recorder, such as that of `metrics-exporter-prometheus`, is installed before.
//! let repo = Repository::builder().in_memory().metric_resources(["gpt-4"]).open().await?;
//! repo.admin().set_system_defaults([Limit::per_minute("rpm", 100)], None).await?;
//! let limiter = RateLimiter::new(repo.clone());
//! // Counted as zae_limiter_acquires_total{outcome="admitted", resource="gpt-4", ..}.
//! limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await?.commit().await?;
//! // Calls refresh the gauges once a second. A process that makes no calls does so itself.
//! repo.record_gauges();
//! # Ok(()) }
//! ```

mod call;
#[cfg(feature = "metrics")]
mod gauges;
#[cfg(feature = "metrics")]
mod names;
// One of two modules with the same functions, so that callers need not distinguish.
#[cfg_attr(not(feature = "metrics"), path = "silent.rs")]
mod record;
mod spans;
mod table;

#[cfg(feature = "metrics")]
pub use names::{Kind, METRICS, Metric, OPTIONAL_LABELS, Unit, describe};
#[cfg(feature = "metrics")]
pub use spans::{SPANS, SpanInfo};

pub(crate) use call::{Call, Sent};
pub(crate) use record::{Labels, OfTable, PlaceEvent, Recorder};
pub(crate) use spans::{correction as correction_span, record_end};
pub(crate) use table::observed;
