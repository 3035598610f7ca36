//! A recorder that keeps what it is given, and compares it with the list of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder,
    SharedString, Unit,
};
use zae_limiter::telemetry::{Kind, METRICS, OPTIONAL_LABELS};

/// One series: its name, and its labels by name.
type Series = (String, BTreeMap<String, String>);

/// A recorder that keeps what it is given.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    counters: Mutex<BTreeMap<Series, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<Series, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<Series, Arc<Values>>>,
    described: Mutex<BTreeSet<(String, String)>>,
}

#[derive(Debug, Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

/// The series of a key. Panics if the list of metrics says something else of it.
fn series(key: &Key, kind: Kind) -> Series {
    let listed = METRICS.iter().find(|metric| metric.name == key.name());
    let listed = listed.unwrap_or_else(|| panic!("{} is not listed", key.name()));
    assert_eq!(listed.kind, kind, "{}", key.name());
    let names: Vec<&str> = key.labels().map(metrics::Label::key).collect();
    let wanted = listed.labels.iter().copied();
    let wanted: Vec<&str> = wanted
        .filter(|label| !OPTIONAL_LABELS.contains(label) || names.contains(label))
        .collect();
    assert_eq!(names, wanted, "{}", key.name());
    let labels = key
        .labels()
        .map(|label| (label.key().to_owned(), label.value().to_owned()));
    (key.name().to_owned(), labels.collect())
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut all = self.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(all.entry(series(key, Kind::Counter)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut all = self.gauges.lock().unwrap();
        Gauge::from_arc(Arc::clone(all.entry(series(key, Kind::Gauge)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut all = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(all.entry(series(key, Kind::Histogram)).or_default()))
    }
}

impl Recorded {
    fn describe(&self, name: &KeyName, description: &SharedString) {
        let mut described = self.described.lock().unwrap();
        described.insert((name.as_str().to_owned(), description.to_string()));
    }

    /// One that lives as long as the process.
    pub(crate) fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    /// Installs it on this thread.
    pub(crate) fn install(&'static self) -> LocalRecorderGuard<'static> {
        metrics::set_default_local_recorder(self)
    }

    /// The sum of the series of a counter that have these labels.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let all = self.counters.lock().unwrap();
        let matching = all.iter().filter(|(series, _)| matches(series, name, labels));
        matching.map(|(_, value)| value.load(Ordering::Relaxed)).sum()
    }

    /// The values of a counter by one label, zeros left out.
    pub(crate) fn counts_by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for ((named, labels), value) in &*self.counters.lock().unwrap() {
            let value = value.load(Ordering::Relaxed);
            if named == name && value > 0 {
                *counts.entry(labels[label].clone()).or_default() += value;
            }
        }
        counts
    }

    /// The gauge with these labels, in thousandths.
    pub(crate) fn millis(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let all = self.gauges.lock().unwrap();
        let mut matching = all.iter().filter(|(series, _)| matches(series, name, labels));
        let (_, value) = matching.next()?;
        assert!(matching.next().is_none(), "{name}: more than one series");
        Some((f64::from_bits(value.load(Ordering::Relaxed)) * 1000.0).round() as i64)
    }

    /// The gauge with these labels, whose value is a whole number.
    #[track_caller]
    pub(crate) fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let millis = self.millis(name, labels)?;
        assert_eq!(millis % 1000, 0, "{name}: {millis} thousandths");
        Some(millis / 1000)
    }

    /// What was recorded in a histogram.
    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let all = self.histograms.lock().unwrap();
        let matching = all.iter().filter(|(series, _)| matches(series, name, labels));
        matching
            .flat_map(|(_, values)| values.0.lock().unwrap().clone())
            .collect()
    }

    /// All series of all metrics.
    pub(crate) fn series(&self) -> BTreeSet<Series> {
        let mut all: BTreeSet<Series> = self.counters.lock().unwrap().keys().cloned().collect();
        all.extend(self.gauges.lock().unwrap().keys().cloned());
        all.extend(self.histograms.lock().unwrap().keys().cloned());
        all
    }

    /// The names that were described.
    pub(crate) fn described(&self) -> Vec<(String, String)> {
        self.described.lock().unwrap().iter().cloned().collect()
    }
}

fn matches(series: &Series, name: &str, labels: &[(&str, &str)]) -> bool {
    let (named, of) = series;
    named == name
        && labels
            .iter()
            .all(|(key, value)| of.get(*key).is_some_and(|of| of == value))
}
