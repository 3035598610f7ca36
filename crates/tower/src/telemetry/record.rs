//! Counts: each function is called where something has happened, and gives the installed recorder the numbers.

use std::sync::Arc;

use metrics::{Gauge, Key, Label, Level, Metadata, SharedString, with_recorder};
use zae_limiter::telemetry::Metric;
use zae_limiter::{RateLimiter, Repository};

use super::names;
use super::{BodyOutcome, Outcome};
use crate::settle::Settle;

const METADATA: Metadata<'static> = Metadata::new("zae_limiter_tower", Level::INFO, Some(module_path!()));

fn label(key: &'static str, value: impl Into<SharedString>) -> Label {
    Label::new(SharedString::const_str(key), value)
}

fn count(metric: &Metric, labels: Vec<Label>, by: u64) {
    let key = Key::from_parts(metric.name, labels);
    with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(by));
}

/// What a layer reports, by the limiter's table and namespace.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    stack: SharedString,
    namespace: SharedString,
}

impl Reports {
    /// Describes the metrics, and begins those whose first event must not be missed: a series that begins with 1 has not grown.
    pub(crate) fn new(limiter: &RateLimiter) -> Self {
        names::describe();
        let shared = |text: &str| SharedString::from_shared(Arc::from(text));
        let repo: &Repository = limiter.repository();
        let this = Self {
            stack: shared(repo.stack()),
            namespace: shared(repo.namespace_name()),
        };
        for outcome in Outcome::ALL {
            this.count(&names::REQUESTS, "outcome", outcome.as_str(), 0);
        }
        for settle in [Settle::Commit, Settle::Rollback] {
            this.count(&names::BROKEN_OFF, "tokens", tokens(settle), 0);
        }
        this
    }

    fn labels(&self) -> Vec<Label> {
        let mut labels = Vec::with_capacity(3);
        labels.push(label("stack", self.stack.clone()));
        labels.push(label("namespace", self.namespace.clone()));
        labels
    }

    fn count(&self, metric: &Metric, key: &'static str, value: impl Into<SharedString>, by: u64) {
        let mut labels = self.labels();
        labels.push(label(key, value));
        count(metric, labels, by);
    }

    /// A request has come.
    pub(crate) fn request(&self) -> RequestCall {
        RequestCall {
            reports: self.clone(),
            outcome: Outcome::Cancelled,
        }
    }

    /// A request holds a lease from now on.
    pub(crate) fn in_flight(&self) -> InFlight {
        let key = Key::from_parts(names::IN_FLIGHT.name, self.labels());
        // The same handle counts up and down, also if another recorder is installed meanwhile.
        let gauge = with_recorder(|recorder| recorder.register_gauge(&key, &METADATA));
        gauge.increment(1.0);
        InFlight(gauge)
    }

    /// Usage of a limit is looked for.
    pub(crate) fn looks_for(&self, limit: &str) {
        self.count(&names::USAGE_MISSING, "limit", limit.to_owned(), 0);
    }

    /// The use of a limit is known.
    pub(crate) fn used(&self, limit: &str, estimated: u64, used: u64) {
        self.count(&names::ESTIMATED, "limit", limit.to_owned(), estimated);
        self.count(&names::USED, "limit", limit.to_owned(), used);
    }

    /// A response has ended without the usage of a limit.
    pub(crate) fn usage_missing(&self, limit: &str) {
        self.count(&names::USAGE_MISSING, "limit", limit.to_owned(), 1);
    }

    /// A response has not ended.
    pub(crate) fn broken_off(&self, settle: Settle) {
        self.count(&names::BROKEN_OFF, "tokens", tokens(settle), 1);
    }
}

const fn tokens(settle: Settle) -> &'static str {
    match settle {
        Settle::Commit => "kept",
        Settle::Rollback => "returned",
    }
}

/// A request until it is decided. If it is dropped before, it was cancelled.
pub(crate) struct RequestCall {
    reports: Reports,
    outcome: Outcome,
}

impl RequestCall {
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for RequestCall {
    fn drop(&mut self) {
        let outcome = self.outcome.as_str();
        self.reports.count(&names::REQUESTS, "outcome", outcome, 1);
    }
}

/// A request that holds a lease, until this is dropped.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The body of a request while it is read. If it is dropped before its end, the client has gone.
pub(crate) struct BodyCall(BodyOutcome);

impl BodyCall {
    /// Describes the metrics, and begins the counters.
    pub(crate) fn start_counters() {
        names::describe();
        for outcome in BodyOutcome::ALL {
            count(&names::BODIES, vec![label("outcome", outcome.as_str())], 0);
        }
    }

    pub(crate) fn begin() -> Self {
        Self(BodyOutcome::Cancelled)
    }

    pub(crate) fn end(mut self, outcome: BodyOutcome) {
        self.0 = outcome;
    }
}

impl Drop for BodyCall {
    fn drop(&mut self) {
        count(&names::BODIES, vec![label("outcome", self.0.as_str())], 1);
    }
}
