//! The span of a request.

use http::{HeaderMap, Method};
use tracing::Span;

use crate::connection::Port;

/// The target of spans, of which logs have none unless they are asked for.
#[cfg(feature = "otlp")]
pub(crate) const TARGET: &str = "zae_limiter_server";

/// A span, of which that of `traceparent` is the parent if there is one and it is exported.
pub(crate) fn of_request(port: Port, method: &Method, route: &str, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        "zae_limiter_server.request",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        port = port.as_str(),
        method = method.as_str(),
        route,
        code = tracing::field::Empty,
    );
    #[cfg(feature = "otlp")]
    crate::traces::adopt(&span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = headers;
    span
}

/// Notes the answer.
pub(crate) fn answered(span: &Span, code: u16, is_failure: bool) {
    span.record("code", code);
    if is_failure {
        span.record("otel.status_code", "ERROR");
    }
}
