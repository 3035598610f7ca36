//! The spans, with stable names and fields.

use tracing::Span;
use tracing::field::{Empty, display};
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::{EntityId, ResourceName};

/// The target of all spans.
const TARGET: &str = "zae_limiter";

const ACQUIRE: &str = "zae_limiter.acquire";
const TABLE: &str = "zae_limiter.table";
const CORRECTION: &str = "zae_limiter.correction";

/// One span of [`SPANS`].
#[cfg(feature = "metrics")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanInfo {
    /// Its name.
    pub name: &'static str,
    /// Its level: `debug` or `trace`.
    pub level: &'static str,
    /// Its fields.
    pub fields: &'static [&'static str],
    /// One sentence that says what it covers.
    pub help: &'static str,
}

/// All spans of this crate. They exist without the feature `metrics` as well.
#[cfg(feature = "metrics")]
pub const SPANS: &[SpanInfo] = &[
    SpanInfo {
        name: ACQUIRE,
        level: "debug",
        fields: &[
            "entity", "resource", "outcome", "limit", "requests", "writes", "wait_ms",
        ],
        help: "A call that takes tokens, from its first poll to its outcome.",
    },
    SpanInfo {
        name: TABLE,
        level: "trace",
        fields: &["operation", "result"],
        help: "A request to the table, within the span of the call that sends it, if that does not share it.",
    },
    SpanInfo {
        name: CORRECTION,
        level: "debug",
        fields: &["entity", "resource", "shard", "outcome"],
        help: "A refund or a charge of ended leases of one bucket, until its outcome is known; it has no parent.",
    },
];

/// A call that takes tokens.
pub(super) fn acquire(names: Option<(&EntityId, &ResourceName)>) -> Span {
    let span = tracing::debug_span!(
        target: TARGET,
        ACQUIRE,
        entity = Empty,
        resource = Empty,
        outcome = Empty,
        limit = Empty,
        requests = Empty,
        writes = Empty,
        wait_ms = Empty,
    );
    if let Some((entity, resource)) = names.filter(|_| !span.is_disabled()) {
        span.record("entity", entity.as_str());
        span.record("resource", resource.as_str());
    }
    span
}

/// A request to the table.
pub(super) fn table(operation: &'static str) -> Span {
    tracing::trace_span!(target: TARGET, TABLE, operation, result = Empty)
}

/// A correction that is sent to one shard.
pub(crate) fn correction(credit: &Credit) -> Span {
    tracing::debug_span!(
        target: TARGET,
        parent: None,
        CORRECTION,
        entity = %credit.id().entity,
        resource = credit.id().resource.as_str(),
        shard = credit.target(),
        outcome = Empty,
    )
}

/// Notes the outcome of a correction.
pub(crate) fn record_end(span: &Span, end: &CreditEnd) {
    span.record("outcome", display(end_name(end)));
}

/// The names of all outcomes of corrections.
pub(super) const END_NAMES: [&str; 5] = ["applied", "gone", "in_doubt", "failed", "refused"];

/// The name of an outcome of a correction, in spans and metrics.
pub(crate) const fn end_name(end: &CreditEnd) -> &'static str {
    match end {
        CreditEnd::Applied => END_NAMES[0],
        CreditEnd::Gone => END_NAMES[1],
        CreditEnd::InDoubt(_) => END_NAMES[2],
        CreditEnd::Failed(_) => END_NAMES[3],
        CreditEnd::Refused(_) => END_NAMES[4],
    }
}
