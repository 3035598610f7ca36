//! Distributed rate limits as a [tower](https://docs.rs/tower) layer, for axum, tonic, hyper and everything else that serves `http` requests.
//!
//! The limits and the tokens are those of [`zae_limiter`]: in one DynamoDB table, shared by any number of processes, with parents,
//! quotas, places in flight and bypasses. The layer finds out [whose request it is](key), takes [what it costs](Rules), answers refusals, and when the
//! response has ended commits the tokens or gives them back.
//!
//! ```
//! use axum::{Router, routing::get};
//! use zae_limiter::{Limit, RateLimiter, Repository};
//! use zae_limiter_tower::{RateLimitLayer, Rules, key};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let repo = Repository::in_memory().await?; // or `open("default")` for a deployed stack
//! repo.admin().set_resource_defaults("api", [Limit::per_minute("rpm", 2)]).await?;
//!
//! let limits = RateLimitLayer::new(RateLimiter::new(repo), Rules::new(key::bearer(), "api").consume("rpm", 1))?;
//! let app = Router::new().route("/", get(async || "hello")).layer(limits);
//!
//! # use axum::body::Body;
//! # use http::Request;
//! # use tower::ServiceExt as _;
//! let call = || Request::get("/").header("authorization", "Bearer secret").body(Body::empty());
//! let response = app.clone().oneshot(call()?).await?;
//! assert_eq!(response.headers()["ratelimit-policy"], "\"rpm\";q=2;w=60");
//! assert_eq!(response.headers()["ratelimit"], "\"rpm\";r=1;t=30");
//! app.clone().oneshot(call()?).await?;
//! let response = app.oneshot(call()?).await?;
//! assert_eq!(response.status(), 429);
//! assert!(response.headers().contains_key("retry-after"));
//! # Ok(()) }
//! ```
//!
//! # Requests to language models
//!
//! [`EstimateLayer`] counts the tokens of a prompt and adds the longest output that the request allows.
//! [`RateLimitLayer::estimated`] makes one layer of both, which checks the key before it reads the body. [`RateLimitLayer::correct`] reads what was used from the response, also from one that is streamed, and corrects the estimate. The example
//! `gateway` has all of it.
//!
//! # Order of layers
//!
//! | Layer | Where |
//! |---|---|
//! | authentication | outside, so that keys are checked before they have a bucket, and before bodies are read |
//! | compression of responses | outside, since the usage of an encoded body cannot be read |
//! | timeouts of the service | inside, so that they answer with a status and tokens come back |
//! | [`EstimateLayer`] | outside of [`RateLimitLayer`], or in one layer with it: [`RateLimitLayer::estimated`] |
//!
//! In axum, `Router::layer` wraps all routes and the answers to unknown paths, `post(handler).layer(...)` one route. Health checks are exempt with
//! [`Rules::unless`], or by a route without the layer.
//!
//! # What a request costs
//!
//! A request takes what one [acquire](zae_limiter::RateLimiter::acquire) takes, and one more write for each bucket (the entity's, and those of the
//! entities above it) if its tokens are corrected or given back. The layer itself allocates the future of the response, and nothing that grows with the body. What it adds is in
//! `docs/benchmarks.md`.
//!
//! # Shutdown
//!
//! Leases end in the background. Before the process ends, and after the server has, wait for
//! [`Repository::drain`](zae_limiter::Repository::drain).
//!
//! # Features
//!
//! | Feature | |
//! |---|---|
//! | `axum` | [`key::peer`] knows axum's `ConnectInfo` |
//! | `metrics` | [counters and gauges](telemetry) for the recorder of the `metrics` facade |
//! | `grpc` | refused gRPC calls are answered with `RESOURCE_EXHAUSTED` and `RetryInfo` |
//! | `tiktoken` | counts tokens as OpenAI's models do |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod body;
mod charge;
pub mod estimate;
mod estimated;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod key;
mod rejection;
mod service;
mod settle;
#[cfg(not(feature = "metrics"))]
mod telemetry;
#[cfg(feature = "metrics")]
pub mod telemetry;
pub mod usage;

pub use answer::{BodyShape, Cause, Fields, Refused};
pub use body::ResponseBody;
pub use charge::{Charge, Rules};
pub use estimate::EstimateLayer;
pub use estimated::{EstimatedLayer, EstimatedRateLimit};
pub use rejection::Rejection;
pub use service::{RateLimit, RateLimitLayer};
pub use settle::{Ending, Settle, Used};
