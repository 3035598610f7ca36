//! The HTTP port: the API, health, metrics, and the rules in force.

mod health;
mod metrics;
mod rules;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Extension, Router};

use crate::api::{self, RequestTimeout};
use crate::app::App;
use crate::options::Limits;

/// The routes of the HTTP port.
pub fn router(app: App, limits: &Limits) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/rules", get(rules::rules))
        .merge(api::router())
        .layer(Extension(RequestTimeout(limits.request_timeout)))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .with_state(app)
}
