//! What the server counts, beside what the library does.

use std::sync::Arc;

use metrics::{
    SetRecorderError, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use zae_limiter::Swept;
use zae_limiter::telemetry::METRICS;

use crate::activity::Activity;

const DESCRIPTORS: &str = "zae_limiter_server_descriptors_total";
const UNMATCHED: &str = "zae_limiter_server_unmatched_total";
const REQUESTS: &str = "zae_limiter_server_requests_total";
const SECONDS: &str = "zae_limiter_server_request_seconds";
const SHED: &str = "zae_limiter_server_shed_total";
const IN_FLIGHT: &str = "zae_limiter_server_requests_in_flight";
const REJECTED: &str = "zae_limiter_server_connections_rejected_total";
const CONNECTIONS: &str = "zae_limiter_server_connections";
const RELOADS: &str = "zae_limiter_server_reloads_total";
const SWEPT: &str = "zae_limiter_server_leases_swept_total";
const FAULTS: &str = "zae_limiter_server_faults_total";

/// Upper bounds of latencies, in seconds.
const BOUNDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The metrics of this process: for Prometheus, and for the page.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) prometheus: PrometheusHandle,
    pub(crate) activity: Arc<Activity>,
}

/// Installs the recorder of metrics for this process, with the buckets of the library's histograms. Call it before the table is opened.
///
/// # Errors
/// There is a recorder already.
pub fn install_metrics() -> Result<Metrics, BuildError> {
    let mut builder = PrometheusBuilder::new();
    let of_library = METRICS.iter().filter(|metric| !metric.buckets.is_empty());
    for metric in of_library {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)?;
    }
    builder = builder.set_buckets_for_metric(Matcher::Full(SECONDS.to_owned()), &BOUNDS)?;
    let recorder = builder.build_recorder();
    let metrics = Metrics {
        prometheus: recorder.handle(),
        activity: Arc::new(Activity::new()),
    };
    let recorder = metrics.activity.recording(recorder);
    metrics::set_global_recorder(recorder).map_err(|err| SetRecorderError(err.into_inner().into_inner()))?;
    describe();
    Ok(metrics)
}

fn describe() {
    describe_counter!(DESCRIPTORS, "Descriptors that a rule matched, by outcome.");
    describe_counter!(
        UNMATCHED,
        "Descriptors that passed because no rule of their domain matches, or because there is no such domain."
    );
    describe_counter!(REQUESTS, "Requests by port and by code.");
    describe_histogram!(SECONDS, Unit::Seconds, "The time until a request was answered.");
    describe_counter!(
        SHED,
        "Requests that were refused because too many were in flight."
    );
    describe_gauge!(IN_FLIGHT, "Requests in flight.");
    describe_counter!(
        REJECTED,
        "Connections that were closed because there were too many."
    );
    describe_gauge!(CONNECTIONS, "Connections.");
    describe_counter!(
        RELOADS,
        "Files that were read again after a change, by file and outcome."
    );
    describe_counter!(SWEPT, "Leases that a sweep has settled, by outcome.");
    describe_counter!(
        FAULTS,
        "Descriptors that could not be decided because of the table or its configuration."
    );
}

/// How a descriptor that a rule matched was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    OverLimit,
    Shadowed,
    Invalid,
    Unconfigured,
    Disabled,
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OverLimit => "over_limit",
            Self::Shadowed => "shadowed",
            Self::Invalid => "invalid",
            Self::Unconfigured => "unconfigured",
            Self::Disabled => "disabled",
            Self::Failed => "failed",
        }
    }
}

/// Counts a descriptor of a rule. Both names are of the file of rules, so their number is bounded.
pub(crate) fn descriptor(domain: &str, rule: &str, outcome: Outcome) {
    counter!(DESCRIPTORS, "domain" => domain.to_owned(), "rule" => rule.to_owned(), "outcome" => outcome.as_str())
        .increment(1);
}

/// Counts descriptors without a rule. Requests can name any domain: only those of the rules are labels.
pub(crate) fn unmatched(domain: Option<&str>, count: usize) {
    let domain = domain.unwrap_or_default().to_owned();
    counter!(UNMATCHED, "domain" => domain).increment(count as u64);
}

/// Counts an answer.
pub(crate) fn answered(port: &'static str, code: u16, seconds: f64) {
    counter!(REQUESTS, "port" => port, "code" => code.to_string()).increment(1);
    histogram!(SECONDS, "port" => port).record(seconds);
}

/// Counts a request that was not let in.
pub(crate) fn shed(port: &'static str) {
    counter!(SHED, "port" => port).increment(1);
}

/// Notes how many requests are in flight.
pub(crate) fn in_flight(port: &'static str, change: f64) {
    gauge!(IN_FLIGHT, "port" => port).increment(change);
}

/// Notes a connection that began (1) or ended (-1).
pub(crate) fn connections(port: &'static str, change: f64) {
    gauge!(CONNECTIONS, "port" => port).increment(change);
}

/// Counts a connection that was not let in.
pub(crate) fn rejected(port: &'static str) {
    counter!(REJECTED, "port" => port).increment(1);
}

/// Counts a file that was read again.
pub(crate) fn reloaded(file: &'static str, is_good: bool) {
    let outcome = if is_good { "ok" } else { "refused" };
    counter!(RELOADS, "file" => file, "outcome" => outcome).increment(1);
}

/// Counts leases that were settled after they had expired.
pub(crate) fn swept(swept: &Swept) {
    let counts = [
        ("given_back", swept.given_back),
        ("finished", swept.finished),
        ("kept", swept.kept),
        ("failed", swept.failed),
    ];
    for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        counter!(SWEPT, "outcome" => outcome).increment(count as u64);
    }
}

/// Counts a descriptor that could not be decided.
pub(crate) fn fault() {
    counter!(FAULTS).increment(1);
}

#[cfg(test)]
mod tests;
