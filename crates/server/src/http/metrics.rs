//! Metrics for Prometheus.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::app::App;

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let Some(metrics) = app.metrics() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    app.limiter().repository().record_gauges();
    let content_type = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, metrics.prometheus.render()).into_response()
}
