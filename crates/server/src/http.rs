//! The HTTP port: health, metrics, and the rules in force. Further routes are merged into [`router`].

mod health;
mod metrics;
mod rules;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;

use crate::app::App;
use crate::options::Limits;

/// The routes of the HTTP port.
pub fn router(app: App, limits: &Limits) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/rules", get(rules::rules))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .with_state(app)
}
