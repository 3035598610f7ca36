//! The page of the server: one document, its script and its style. It needs no other host, and shows numbers of this process.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::activity::Shown;
use crate::app::App;
use crate::problem::problem;

/// Nothing but its own files runs in the page, no other host is asked, and no other page frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path is part of the page. These files are the same for all, so that a browser gets them without a token.
pub(crate) fn is_part(path: &str) -> bool {
    matches!(path, "/" | "/page.js" | "/page.css")
}

/// `GET /`.
pub(super) async fn document(State(app): State<App>) -> Response {
    file(&app, "text/html; charset=utf-8", include_str!("page/page.html"))
}

/// `GET /page.js`.
pub(super) async fn script(State(app): State<App>) -> Response {
    file(
        &app,
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    )
}

/// `GET /page.css`.
pub(super) async fn style(State(app): State<App>) -> Response {
    file(&app, "text/css; charset=utf-8", include_str!("page/page.css"))
}

fn file(app: &App, content_type: &'static str, text: &'static str) -> Response {
    if app.metrics().is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let fields: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (fields, text).into_response()
}

/// What the page shows.
#[derive(Debug, Serialize)]
struct Activity {
    version: &'static str,
    stack: String,
    namespace: String,
    #[serde(flatten)]
    shown: Shown,
}

/// `GET /v1/activity`: what this process has done in the last minutes.
pub(super) async fn activity(State(app): State<App>) -> Response {
    let Some(metrics) = app.metrics() else {
        let body = problem("no_metrics", "this server counts nothing");
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    };
    let repo = app.limiter().repository();
    Json(Activity {
        version: env!("CARGO_PKG_VERSION"),
        stack: repo.stack().to_owned(),
        namespace: repo.namespace_name().to_owned(),
        shown: metrics.activity.shown(),
    })
    .into_response()
}
