//! The names of all metrics, with what they count. Nothing else in the crate has a name of a metric.

use metrics::{KeyName, SharedString, with_recorder};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number at a moment.
    Gauge,
    /// A distribution of values.
    Histogram,
}

impl Kind {
    /// Its name in the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A number of things.
    Count,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// Its name in the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Seconds => "seconds",
        }
    }

    const fn of_facade(self) -> metrics::Unit {
        match self {
            Self::Count => metrics::Unit::Count,
            Self::Seconds => metrics::Unit::Seconds,
        }
    }
}

/// One metric of [`METRICS`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, which starts with `zae_limiter_`. That of a counter ends with `_total`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// Its labels, in order. Those in [`OPTIONAL_LABELS`] only if they were asked for.
    pub labels: &'static [&'static str],
    /// Of a histogram, upper bounds of buckets for recorders that need some.
    pub buckets: &'static [f64],
    /// One sentence that says what it means.
    pub help: &'static str,
}

impl Metric {
    /// A counter. For crates that report metrics of their own beside those of [`METRICS`].
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            unit: Unit::Count,
            labels,
            buckets: &[],
            help,
        }
    }

    /// A gauge that counts things. For crates that report metrics of their own beside those of [`METRICS`].
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            unit: Unit::Count,
            labels,
            buckets: &[],
            help,
        }
    }

    /// Gives the recorder that is installed its unit and description.
    pub fn describe(&self) {
        with_recorder(|recorder| {
            let name = KeyName::from_const_str(self.name);
            let unit = Some(self.unit.of_facade());
            let help = SharedString::const_str(self.help);
            match self.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        });
    }
}

/// Labels that metrics have only if the builder says so: see
/// [`RepositoryBuilder::metric_resources`](crate::RepositoryBuilder::metric_resources).
pub const OPTIONAL_LABELS: &[&str] = &["resource"];

const fn seconds(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        labels,
        buckets,
        help,
    }
}

/// From a decision in memory to a deadline.
const ANSWERS: &[f64] = &[
    0.000_1, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// From no wait to one for a quota.
const WAITS: &[f64] = &[
    0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// From a refusal in memory to a call of several resources with entities above.
const WRITES: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0];

/// The labels of what a table has once for all its namespaces.
const TABLE: &[&str] = &["stack"];

/// The labels of what each namespace has.
const NAMESPACE: &[&str] = &["stack", "namespace"];

pub(super) const ACQUIRES: Metric = Metric::counter(
    "zae_limiter_acquires_total",
    &["stack", "namespace", "outcome", "resource"],
    "Calls that take tokens, by their outcome.",
);
pub(super) const ACQUIRES_IN_DOUBT: Metric = Metric::counter(
    "zae_limiter_acquires_in_doubt_total",
    NAMESPACE,
    "Calls that ended without the answer to a write: tokens that it took stay consumed until they refill.",
);
pub(super) const REFUSALS: Metric = Metric::counter(
    "zae_limiter_refusals_total",
    &["stack", "namespace", "limit", "resource"],
    "Refused calls, by each limit that refused.",
);
pub(super) const REFUSED_FROM_MEMORY: Metric = Metric::counter(
    "zae_limiter_refused_from_memory_total",
    NAMESPACE,
    "Refusals without a request to the table; each attempt of a call that waits counts.",
);
pub(super) const ACQUIRE_SECONDS: Metric = seconds(
    "zae_limiter_acquire_seconds",
    &["stack", "namespace", "outcome", "resource"],
    ANSWERS,
    "The time that a call took, waiting for tokens included.",
);
pub(super) const ACQUIRE_WAIT_SECONDS: Metric = seconds(
    "zae_limiter_acquire_wait_seconds",
    NAMESPACE,
    WAITS,
    "Of calls that may wait for tokens, the time until the attempt that decided began.",
);
pub(super) const ACQUIRE_WRITES: Metric = Metric {
    name: "zae_limiter_acquire_writes",
    kind: Kind::Histogram,
    unit: Unit::Count,
    labels: NAMESPACE,
    buckets: WRITES,
    help: "Writes to buckets that a call needed for its decision; one that it shares with other calls counts for each.",
};
pub(super) const TABLE_SECONDS: Metric = seconds(
    "zae_limiter_table_seconds",
    &["stack", "operation", "result"],
    ANSWERS,
    "The time until the table answered a request of any kind, administration included.",
);
pub(super) const CORRECTIONS: Metric = Metric::counter(
    "zae_limiter_corrections_total",
    &["stack", "namespace", "outcome"],
    "Corrections of leases (refunds and charges), by their outcome.",
);
pub(super) const PLACES: Metric = Metric::counter(
    "zae_limiter_places_total",
    &["stack", "namespace", "event"],
    "Places in flight that were taken, lost by a lease, or not given back.",
);
pub(super) const CONFIG_LOOKUPS: Metric = Metric::counter(
    "zae_limiter_config_lookups_total",
    &["stack", "namespace", "result"],
    "Look-ups of configuration that the cache answered (hit) or that read the table (miss).",
);
pub(super) const BREAKER_OPENINGS: Metric = Metric::counter(
    "zae_limiter_breaker_openings_total",
    TABLE,
    "How often the circuit breaker opened, because the table did not answer.",
);
pub(super) const BREAKER_OPEN: Metric = Metric::gauge(
    "zae_limiter_breaker_open",
    TABLE,
    "1 while the circuit breaker is open, so that calls are decided without the table; else 0.",
);
pub(super) const CLOCK_OFFSET: Metric = Metric {
    unit: Unit::Seconds,
    ..Metric::gauge(
        "zae_limiter_clock_offset_seconds",
        TABLE,
        "By how much the machine's clock is corrected to the table's; absent before it is known.",
    )
};
pub(super) const REQUESTS_IN_FLIGHT: Metric = Metric::gauge(
    "zae_limiter_requests_in_flight",
    TABLE,
    "Requests of acquires and reads of configuration that are on their way to the table.",
);
pub(super) const REQUESTS_IN_FLIGHT_MAX: Metric = Metric::gauge(
    "zae_limiter_requests_in_flight_max",
    TABLE,
    "How many of these there can be at a time; others wait.",
);
pub(super) const CALLS_WAITING: Metric = Metric::gauge(
    "zae_limiter_calls_waiting",
    NAMESPACE,
    "Calls in the queues for tokens, those that ask the table included; a call is in the queue of each of its resources.",
);
pub(super) const CORRECTIONS_WAITING: Metric = Metric::gauge(
    "zae_limiter_corrections_waiting",
    NAMESPACE,
    "Corrections of leases whose outcome is not known yet.",
);
pub(super) const BACKGROUND_TASKS: Metric = Metric::gauge(
    "zae_limiter_background_tasks",
    NAMESPACE,
    "Other tasks in the background: cancelled acquires, shared writes, updates of buckets.",
);
pub(super) const PLACES_HELD: Metric = Metric::gauge(
    "zae_limiter_places_held",
    NAMESPACE,
    "Places in flight that leases of this process hold.",
);
pub(super) const TOKENS_AHEAD: Metric = Metric::gauge(
    "zae_limiter_tokens_ahead",
    &["stack", "namespace", "limit"],
    "Whole tokens that were taken ahead and are not spent yet.",
);
pub(super) const CACHED_CONFIGS: Metric = Metric::gauge(
    "zae_limiter_cached_configs",
    NAMESPACE,
    "Records in the configuration cache, expired ones included.",
);
pub(super) const CACHED_IMAGES: Metric = Metric::gauge(
    "zae_limiter_cached_images",
    NAMESPACE,
    "Buckets of which images are cached, to refuse calls from memory.",
);

/// All metrics of this crate, in the order of `docs/observability.md`.
///
/// ```
/// use zae_limiter::telemetry::{Kind, METRICS};
///
/// for metric in METRICS {
///     println!("{} ({}): {}", metric.name, metric.kind.as_str(), metric.help);
/// }
/// assert!(METRICS.iter().any(|metric| metric.name == "zae_limiter_acquires_total" && metric.kind == Kind::Counter));
/// ```
pub const METRICS: &[Metric] = &[
    ACQUIRES,
    ACQUIRES_IN_DOUBT,
    REFUSALS,
    REFUSED_FROM_MEMORY,
    ACQUIRE_SECONDS,
    ACQUIRE_WAIT_SECONDS,
    ACQUIRE_WRITES,
    TABLE_SECONDS,
    CORRECTIONS,
    PLACES,
    CONFIG_LOOKUPS,
    BREAKER_OPENINGS,
    BREAKER_OPEN,
    CLOCK_OFFSET,
    REQUESTS_IN_FLIGHT,
    REQUESTS_IN_FLIGHT_MAX,
    CALLS_WAITING,
    CORRECTIONS_WAITING,
    BACKGROUND_TASKS,
    PLACES_HELD,
    TOKENS_AHEAD,
    CACHED_CONFIGS,
    CACHED_IMAGES,
];

/// Gives the recorder that is installed the units and descriptions of all metrics.
///
/// Opening a repository does this, too. Call it if the recorder is installed later.
pub fn describe() {
    METRICS.iter().for_each(Metric::describe);
}
