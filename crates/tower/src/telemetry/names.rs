//! The names of all metrics of the layers, with what they count. Nothing else in the crate has a name of a metric.

use zae_limiter::telemetry::Metric;

/// The labels of what each namespace has.
const NAMESPACE: &[&str] = &["stack", "namespace"];

const LIMIT: &[&str] = &["stack", "namespace", "limit"];

pub(super) const REQUESTS: Metric = Metric::counter(
    "zae_limiter_tower_requests_total",
    &["stack", "namespace", "outcome"],
    "Requests to services behind `RateLimitLayer`, by what it did with them.",
);
pub(super) const IN_FLIGHT: Metric = Metric::gauge(
    "zae_limiter_tower_requests_in_flight",
    NAMESPACE,
    "Requests that were admitted and hold a lease, because their responses have not ended.",
);
pub(super) const ESTIMATED: Metric = Metric::counter(
    "zae_limiter_tower_estimated_tokens_total",
    LIMIT,
    "Tokens that were taken at first, of requests whose use is known.",
);
pub(super) const USED: Metric = Metric::counter(
    "zae_limiter_tower_used_tokens_total",
    LIMIT,
    "Tokens that the same requests used.",
);
pub(super) const USAGE_MISSING: Metric = Metric::counter(
    "zae_limiter_tower_usage_missing_total",
    LIMIT,
    "Successful responses that ended without the usage that `correct` looks for, so that the estimate stays.",
);
pub(super) const BROKEN_OFF: Metric = Metric::counter(
    "zae_limiter_tower_broken_off_total",
    &["stack", "namespace", "tokens"],
    "Requests that were admitted and whose responses did not end, because the client has gone or the service broke off.",
);
pub(super) const BODIES: Metric = Metric::counter(
    "zae_limiter_tower_bodies_total",
    &["outcome"],
    "Bodies of requests that `EstimateLayer` read, by the outcome.",
);

/// All metrics of this crate, in the order of the documentation. Those of the limiter are in
/// [`zae_limiter::telemetry::METRICS`].
///
/// ```
/// use zae_limiter_tower::telemetry::METRICS;
///
/// assert!(METRICS.iter().all(|metric| metric.name.starts_with("zae_limiter_tower_")));
/// ```
pub const METRICS: &[Metric] = &[
    REQUESTS,
    IN_FLIGHT,
    ESTIMATED,
    USED,
    USAGE_MISSING,
    BROKEN_OFF,
    BODIES,
];

/// Gives the recorder that is installed the units and descriptions of all metrics of this crate.
///
/// Making a layer does this, too. Call it if the recorder is installed later.
pub fn describe() {
    METRICS.iter().for_each(Metric::describe);
}
