//! Counts: each function is called where something has happened, and gives the installed recorder the numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Key, Label, Level, Metadata, SharedString, with_recorder};
use tokio::time::Instant;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::{IntoName, InvalidInput, NamespaceName, ResourceName};

use super::call::{Ended, Outcome};
use super::names::{self, Metric};
use super::spans::{END_NAMES, end_name};
use crate::acquire::occasional::Occasional;
use crate::inner::Inner;

/// Whether anything is measured.
pub(super) const IS_ON: bool = true;

/// Stands for resources that the builder has not named.
const OTHER: SharedString = SharedString::const_str("other");

const METADATA: Metadata<'static> = Metadata::new("zae_limiter", Level::INFO, Some(module_path!()));

/// Measures the time since it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer(Instant);

impl Timer {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    fn secs(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

fn label(key: &'static str, value: impl Into<SharedString>) -> Label {
    Label::new(SharedString::const_str(key), value)
}

fn key(metric: &Metric, labels: Vec<Label>) -> Key {
    Key::from_parts(metric.name, labels)
}

fn count(metric: &Metric, labels: Vec<Label>, by: u64) {
    let key = key(metric, labels);
    with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(by));
}

pub(super) fn set(metric: &Metric, labels: Vec<Label>, value: f64) {
    let key = key(metric, labels);
    with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).set(value));
}

fn observe(metric: &Metric, labels: Vec<Label>, value: f64) {
    let key = key(metric, labels);
    with_recorder(|recorder| recorder.register_histogram(&key, &METADATA).record(value));
}

/// The resources that have a label, as the builder was given them.
#[derive(Debug, Clone)]
pub(crate) struct Labels(Result<Option<Arc<Resources>>, InvalidInput>);

type Resources = BTreeMap<ResourceName, SharedString>;

impl Labels {
    pub(crate) const fn none() -> Self {
        Self(Ok(None))
    }

    /// These resources by name, and all others together.
    pub(crate) fn of(resources: impl IntoIterator<Item = impl IntoName<ResourceName>>) -> Self {
        let named = resources.into_iter().map(|resource| {
            let name = resource
                .into_name()
                .map_err(|err| err.in_field("metric_resources"))?;
            let label = SharedString::from_shared(Arc::from(name.as_str()));
            Ok((name, label))
        });
        Self(
            named
                .collect::<Result<Resources, _>>()
                .map(|named| Some(Arc::new(named))),
        )
    }

    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        self.0.clone().map(drop)
    }
}

/// An event of a place in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PlaceEvent {
    Taken,
    Lost,
    NotReturned,
}

impl PlaceEvent {
    const ALL: [Self; 3] = [Self::Taken, Self::Lost, Self::NotReturned];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Lost => "lost",
            Self::NotReturned => "not_returned",
        }
    }
}

/// What is reported of a table, once for all its namespaces.
#[derive(Debug, Clone)]
pub(crate) struct OfTable(Arc<TableState>);

#[derive(Debug)]
struct TableState {
    stack: SharedString,
    /// How many openings of the circuit breaker were counted.
    openings: AtomicU64,
}

impl OfTable {
    pub(crate) fn new(stack: &str) -> Self {
        Self(Arc::new(TableState {
            stack: SharedString::from_shared(Arc::from(stack)),
            openings: AtomicU64::new(0),
        }))
    }

    pub(super) fn labels(&self) -> Vec<Label> {
        vec![label("stack", self.0.stack.clone())]
    }

    /// A request was answered, or is not waited for any more.
    pub(super) fn answered(&self, operation: &'static str, result: &'static str, timer: Timer) {
        let labels = vec![
            label("stack", self.0.stack.clone()),
            label("operation", operation),
            label("result", result),
        ];
        observe(&names::TABLE_SECONDS, labels, timer.secs());
    }

    /// Counts openings of the circuit breaker that were not counted yet.
    pub(super) fn opened(&self, all: u64) {
        let before = self.0.openings.fetch_max(all, Ordering::Relaxed);
        count(
            &names::BREAKER_OPENINGS,
            self.labels(),
            all.saturating_sub(before),
        );
    }
}

/// What is reported of a namespace.
#[derive(Debug)]
pub(crate) struct Recorder {
    of_table: OfTable,
    namespace: SharedString,
    resources: Option<Arc<Resources>>,
    /// When gauges are refreshed.
    gauges: Occasional,
    pub(super) reported: Mutex<Reported>,
}

/// What was reported last.
#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) has_gauges: bool,
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// Tokens ahead, by limit.
    pub(super) ahead: BTreeMap<String, u64>,
}

impl Recorder {
    pub(crate) fn new(of_table: &OfTable, namespace: &NamespaceName, labels: &Labels) -> Self {
        names::describe();
        Self {
            of_table: of_table.clone(),
            namespace: SharedString::from_shared(Arc::from(namespace.as_str())),
            // They were checked.
            resources: labels.0.clone().ok().flatten(),
            gauges: Occasional::default(),
            reported: Mutex::default(),
        }
    }

    pub(crate) fn of_table(&self) -> &OfTable {
        &self.of_table
    }

    /// The labels of the namespace, with room for others.
    pub(super) fn labels(&self) -> Vec<Label> {
        let mut labels = Vec::with_capacity(4);
        labels.push(label("stack", self.of_table.0.stack.clone()));
        labels.push(label("namespace", self.namespace.clone()));
        labels
    }

    pub(super) fn labels_with(&self, key: &'static str, value: impl Into<SharedString>) -> Vec<Label> {
        let mut labels = self.labels();
        labels.push(label(key, value));
        labels
    }

    /// The same, and with the resource, if resources have labels.
    fn of_resource(
        &self,
        key: &'static str,
        value: impl Into<SharedString>,
        resource: Option<&ResourceName>,
    ) -> Vec<Label> {
        let mut labels = self.labels_with(key, value);
        if let Some(resources) = &self.resources {
            let named = resource.and_then(|resource| resources.get(resource)).cloned();
            labels.push(label("resource", named.unwrap_or(OTHER)));
        }
        labels
    }

    /// A call that takes tokens has ended.
    pub(super) fn call_ended(&self, inner: &Arc<Inner>, ended: &Ended<'_>) {
        let outcome = ended.outcome.as_str();
        let labels = self.of_resource("outcome", outcome, ended.resource);
        observe(&names::ACQUIRE_SECONDS, labels.clone(), ended.timer.secs());
        count(&names::ACQUIRES, labels, 1);
        if ended.in_doubt {
            count(&names::ACQUIRES_IN_DOUBT, self.labels(), 1);
        }
        for status in ended.refused.iter().flat_map(|refused| refused.violations()) {
            let limit = status.limit_name.to_string();
            let labels = self.of_resource("limit", limit, Some(&status.resource));
            count(&names::REFUSALS, labels, 1);
        }
        if !matches!(ended.outcome, Outcome::Invalid | Outcome::Cancelled) {
            observe(&names::ACQUIRE_WRITES, self.labels(), f64::from(ended.writes));
        }
        if let Some(waited) = ended.waited {
            observe(&names::ACQUIRE_WAIT_SECONDS, self.labels(), waited.as_secs_f64());
        }
        if self.gauges.due(inner.clock.now()).is_some() {
            self.record_gauges(inner);
        }
    }

    /// Makes counters whose first event must not be missed: a series that begins with 1 has not grown.
    pub(super) fn start_counters(&self) {
        for outcome in Outcome::ALL {
            let labels = self.of_resource("outcome", outcome.as_str(), None);
            count(&names::ACQUIRES, labels, 0);
        }
        count(&names::ACQUIRES_IN_DOUBT, self.labels(), 0);
        count(&names::REFUSED_FROM_MEMORY, self.labels(), 0);
        for outcome in END_NAMES {
            count(&names::CORRECTIONS, self.labels_with("outcome", outcome), 0);
        }
        for event in PlaceEvent::ALL {
            count(&names::PLACES, self.labels_with("event", event.as_str()), 0);
        }
    }

    /// An attempt was refused without a request.
    pub(crate) fn refused_from_memory(&self) {
        count(&names::REFUSED_FROM_MEMORY, self.labels(), 1);
    }

    /// A correction of a lease has ended.
    pub(crate) fn corrected(&self, end: &CreditEnd) {
        count(&names::CORRECTIONS, self.labels_with("outcome", end_name(end)), 1);
    }

    /// Something has happened to a place in flight.
    pub(crate) fn place(&self, event: PlaceEvent) {
        count(&names::PLACES, self.labels_with("event", event.as_str()), 1);
    }

    /// Look-ups of configuration.
    pub(super) fn looked_up(&self, result: &'static str, by: u64) {
        if by > 0 {
            count(&names::CONFIG_LOOKUPS, self.labels_with("result", result), by);
        }
    }
}
