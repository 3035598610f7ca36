//! Metrics of the layers, for the recorder of the [`metrics`](https://docs.rs/metrics) facade.
//!
//! [`METRICS`] lists them; the labels have the name of the table, that of the namespace, outcomes, and names of limits. No label has
//! anything that a client sends. `docs/observability.md` has the values of labels, how to connect a recorder, and a dashboard.
//!
//! ```
//! # use axum::Router;
//! # use zae_limiter::{Limit, RateLimiter, Repository};
//! # use zae_limiter_tower::{RateLimitLayer, Rules, key};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A recorder, such as that of `metrics-exporter-prometheus`, is installed before.
//! let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_minute("rpm", 100)], None).await?;
//! let rules = Rules::new(key::bearer(), "api").consume("rpm", 1);
//! // Its requests count in zae_limiter_tower_requests_total{outcome="admitted", ..}.
//! let limits = RateLimitLayer::new(RateLimiter::new(repo), rules)?;
//! # let _: Router = Router::new().layer(limits); Ok(()) }
//! ```

#[cfg(feature = "metrics")]
mod names;
mod outcome;
// One of two modules with the same functions, so that callers need not distinguish.
#[cfg_attr(not(feature = "metrics"), path = "silent.rs")]
mod record;

#[cfg(feature = "metrics")]
pub use names::{METRICS, describe};

pub(crate) use outcome::{BodyOutcome, Outcome};
pub(crate) use record::{BodyCall, InFlight, Reports};
