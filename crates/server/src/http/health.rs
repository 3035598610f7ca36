//! Whether the process lives, and whether it can be asked.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;

use crate::app::App;

/// How long the table may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the table answers, and the server is not about to end.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if !app.limiter().repository().is_available(PATIENCE).await {
        return (StatusCode::SERVICE_UNAVAILABLE, "the table does not answer\n");
    }
    (StatusCode::OK, "ok\n")
}
