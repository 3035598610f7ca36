//! The HTTP API: tokens and leases for programs in any language. [`openapi`] describes it.

mod acquire;
mod answer;
mod body;
mod lease;
mod look;
mod openapi;

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;

/// Within which a request is answered, or cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestTimeout(pub(crate) Duration);

/// The routes below `/v1`.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/acquire", post(acquire::acquire))
        .route("/v1/leases/{lease}/commit", post(lease::commit))
        .route("/v1/leases/{lease}/rollback", post(lease::rollback))
        .route("/v1/leases/{lease}/extend", post(lease::extend))
        .route("/v1/leases/commit", post(lease::commit_in_body))
        .route("/v1/leases/rollback", post(lease::rollback_in_body))
        .route("/v1/leases/extend", post(lease::extend_in_body))
        .route("/v1/check", post(look::check))
        .route("/v1/availability", get(look::availability))
        .route("/v1/openapi.json", get(openapi::openapi))
}
