//! The HTTP port: the API, the page, health, metrics, and the rules in force.

mod health;
mod metrics;
pub(crate) mod page;
mod rules;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde_json::Value;

use crate::api::{self, RequestTimeout};
use crate::app::App;
use crate::options::Limits;
use crate::problem::problem;

/// The routes of the HTTP port.
pub fn router(app: App, limits: &Limits) -> Router {
    Router::new()
        .route("/", get(page::document))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .route("/v1/activity", get(page::activity))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/rules", get(rules::rules))
        .merge(api::router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(RequestTimeout(limits.request_timeout)))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .with_state(app)
}

async fn not_found() -> (StatusCode, Json<Value>) {
    let message = "there is nothing at this path; /v1/openapi.json lists those of the API";
    (StatusCode::NOT_FOUND, Json(problem("not_found", message)))
}

async fn method_not_allowed() -> (StatusCode, Json<Value>) {
    let message = "this path has other methods; Allow lists them";
    let body = problem("method_not_allowed", message);
    (StatusCode::METHOD_NOT_ALLOWED, Json(body))
}
