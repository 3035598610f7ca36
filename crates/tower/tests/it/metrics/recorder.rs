//! A recorder that keeps what the layers give it, and compares it with the list of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};
use zae_limiter::telemetry::Kind;
use zae_limiter_tower::telemetry::METRICS;

type Series = (String, BTreeMap<String, String>);

/// A recorder of the layers' metrics; it drops those of the limiter.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    counters: Mutex<BTreeMap<Series, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<Series, Arc<AtomicU64>>>,
    described: Mutex<BTreeSet<String>>,
}

/// The series of a key; `None` if it is not one of the layers'. Panics if the list of metrics says something else of it.
fn series(key: &Key, kind: Kind) -> Option<Series> {
    if !key.name().starts_with("zae_limiter_tower_") {
        return None;
    }
    let listed = METRICS.iter().find(|metric| metric.name == key.name());
    let listed = listed.unwrap_or_else(|| panic!("{} is not listed", key.name()));
    assert_eq!(listed.kind, kind, "{}", key.name());
    let names: Vec<&str> = key.labels().map(metrics::Label::key).collect();
    assert_eq!(names, listed.labels, "{}", key.name());
    let labels = key
        .labels()
        .map(|label| (label.key().to_owned(), label.value().to_owned()));
    Some((key.name().to_owned(), labels.collect()))
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned());
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned());
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match series(key, Kind::Counter) {
            Some(series) => Counter::from_arc(Arc::clone(
                self.counters.lock().unwrap().entry(series).or_default(),
            )),
            None => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match series(key, Kind::Gauge) {
            Some(series) => {
                Gauge::from_arc(Arc::clone(self.gauges.lock().unwrap().entry(series).or_default()))
            }
            None => Gauge::noop(),
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Recorded {
    /// One that lives as long as the process.
    pub(super) fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    /// Installs it on this thread.
    pub(super) fn install(&'static self) -> LocalRecorderGuard<'static> {
        metrics::set_default_local_recorder(self)
    }

    /// The values of a counter by one label, zeros left out.
    pub(super) fn counts_by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for ((named, labels), value) in &*self.counters.lock().unwrap() {
            let value = value.load(Ordering::Relaxed);
            if named == name && value > 0 {
                *counts.entry(labels[label].clone()).or_default() += value;
            }
        }
        counts
    }

    /// Whether a counter has a series with this label.
    pub(super) fn has(&self, name: &str, label: &str, value: &str) -> bool {
        let all = self.counters.lock().unwrap();
        all.keys()
            .any(|(named, labels)| named == name && labels.get(label).is_some_and(|of| of == value))
    }

    /// The only series of a gauge.
    pub(super) fn gauge(&self, name: &str) -> Option<i64> {
        let all = self.gauges.lock().unwrap();
        let mut series = all.iter().filter(|((named, _), _)| named == name);
        let (_, value) = series.next()?;
        assert!(series.next().is_none(), "{name}: more than one series");
        Some(f64::from_bits(value.load(Ordering::Relaxed)) as i64)
    }

    /// The values of all labels.
    pub(super) fn label_values(&self) -> BTreeSet<String> {
        let counters = self.counters.lock().unwrap();
        let values = counters.keys().flat_map(|(_, labels)| labels.values().cloned());
        values.collect()
    }

    /// How many series there are.
    pub(super) fn series(&self) -> usize {
        self.counters.lock().unwrap().len() + self.gauges.lock().unwrap().len()
    }

    /// Whether all metrics were described.
    pub(super) fn is_described(&self) -> bool {
        let described = self.described.lock().unwrap();
        METRICS.iter().all(|metric| described.contains(metric.name))
    }
}
