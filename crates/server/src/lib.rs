//! Distributed rate limits as a service: for proxies and for programs in any language.
//!
//! [`Server`] serves an [`App`] on two ports: one for gRPC, with the rate limit protocol of Envoy
//! (`envoy.service.ratelimit.v3.RateLimitService`), and one for HTTP, with an API for tokens and leases, health, metrics and the rules
//! in force. [`Rules`] say what the descriptors of a request take. [`LeaseKeys`] sign the leases that clients of the API hold. The command `zae-limiter serve` is this crate with options.
//!
//! Limits and tokens are those of [`zae_limiter`]: in one table, shared with every process that uses the library. A server has no state of
//! its own, so any number of them can run side by side.

mod activity;
mod api;
mod app;
mod auth;
mod connection;
pub mod envoy;
mod error;
mod files;
mod guard;
mod http;
mod leases;
mod listener;
mod occasional;
mod options;
mod problem;
mod reload;
mod rules;
mod run;
mod span;
mod sweep;
mod telemetry;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod unsent;

pub use app::App;
pub use error::Error;
pub use http::router as http_router;
pub use leases::LeaseKeys;
pub use options::{Limits, Options};
pub use reload::Reload;
pub use rules::Rules;
pub use run::{Server, Stopped};
pub use telemetry::{Metrics, install_metrics};
pub use tls::TlsFiles;
#[cfg(feature = "otlp")]
pub use traces::Traces;
pub use zae_limiter_core::document::{Position, Problem, Problems};
