//! The HTTP port: health. Further routes are merged into [`router`].

mod health;

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
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .with_state(app)
}
