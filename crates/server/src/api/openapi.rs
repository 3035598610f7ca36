//! The description of the API, for programs that generate clients.

use http::header::CONTENT_TYPE;

/// The document, `OpenAPI` 3.1.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`.
pub(super) async fn openapi() -> ([(http::HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}
