//! The rules in force.

use axum::Json;
use axum::extract::State;

use crate::app::App;

/// `GET /v1/rules`: with every default written out.
pub(super) async fn rules(State(app): State<App>) -> Json<serde_json::Value> {
    Json(app.rules().to_json())
}
