//! A recorder of metrics that counts some of them a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};

use super::measured::{Measured, Operation};

/// The metrics of the library that are counted here as well.
const ACQUIRES: &str = "zae_limiter_acquires_total";
const REFUSALS: &str = "zae_limiter_refusals_total";
const TABLE: &str = "zae_limiter_table_seconds";

/// Results of requests to the table that are not failures. A condition that did not hold is an answer.
const ANSWERS: [&str; 3] = ["ok", "refused", "dropped"];

/// Gives everything to another recorder.
#[derive(Debug)]
pub(crate) struct Recorder<R> {
    inner: R,
    measured: Arc<Measured>,
}

impl<R> Recorder<R> {
    pub(super) fn new(inner: R, measured: Arc<Measured>) -> Self {
        Self { inner, measured }
    }

    /// The recorder that everything is given to.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: metrics::Recorder> metrics::Recorder for Recorder<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let inner = self.inner.register_counter(key, metadata);
        let own = match key.name() {
            ACQUIRES => self.measured.outcomes().counter(label(key, "outcome")),
            REFUSALS => self.measured.refusals().counter(label(key, "limit")),
            _ => return inner,
        };
        Counter::from_arc(Arc::new(Both { inner, own }))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.inner.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let inner = self.inner.register_histogram(key, metadata);
        if key.name() != TABLE {
            return inner;
        }
        Histogram::from_arc(Arc::new(OfTable {
            inner,
            operation: self.measured.operation(label(key, "operation")),
            has_failed: !ANSWERS.contains(&label(key, "result")),
        }))
    }
}

/// The value of a label.
fn label<'k>(key: &'k Key, name: &str) -> &'k str {
    let mut labels = key.labels();
    labels
        .find(|label| label.key() == name)
        .map_or("", |label| label.value())
}

struct Both {
    inner: Counter,
    own: Arc<AtomicU64>,
}

impl CounterFn for Both {
    fn increment(&self, value: u64) {
        self.inner.increment(value);
        self.own.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        // The library only increments these.
        self.inner.absolute(value);
    }
}

struct OfTable {
    inner: Histogram,
    operation: Arc<Operation>,
    has_failed: bool,
}

impl HistogramFn for OfTable {
    fn record(&self, value: f64) {
        self.inner.record(value);
        self.operation.record(value, self.has_failed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

    use metrics::{counter, gauge, histogram, with_local_recorder};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::{Value, json};
    use zae_limiter::EpochMillis;
    use zae_limiter::telemetry::METRICS;

    use super::*;
    use crate::activity::Activity;

    #[test]
    fn what_the_page_shows_is_counted_and_given_on() {
        let activity = Activity::new();
        let inner = PrometheusBuilder::new().build_recorder();
        let handle = inner.handle();
        let recorder = activity.recording(inner);
        with_local_recorder(&recorder, || {
            for namespace in ["a", "b"] {
                counter!(ACQUIRES, "namespace" => namespace, "outcome" => "admitted").increment(2);
            }
            counter!(ACQUIRES, "namespace" => "a", "outcome" => "refused").increment(1);
            counter!(REFUSALS, "limit" => "tpm").increment(1);
            gauge!("other").set(1.0);
            for micros in 1_u32..=100 {
                histogram!(TABLE, "operation" => "update", "result" => "ok").record(f64::from(micros) / 1e4);
            }
            histogram!(TABLE, "operation" => "update", "result" => "throttled").record(1000.0);
            histogram!(TABLE, "operation" => "get", "result" => "refused").record(0.0);
        });
        activity.step(EpochMillis(5000));
        activity.step(EpochMillis(10_000));
        let shown = serde_json::to_value(activity.shown()).unwrap();
        let step = &shown["steps"][0];
        assert_eq!(step["at_ms"], 5000);
        assert_eq!(step["outcomes"], json!({"admitted": 4, "refused": 1}));
        assert_eq!(step["refusals"], json!({"tpm": 1}));
        let near = |value: &Value, micros: f64| (value.as_f64().unwrap() / micros - 1.0).abs() < 0.02;
        let updates = &step["operations"]["update"];
        assert_eq!((&updates["count"], &updates["failed"]), (&json!(101), &json!(1)));
        assert!(
            near(&updates["p50_us"], 5100.0) && near(&updates["max_us"], 6e7),
            "{updates}"
        );
        assert_eq!(step["operations"]["get"]["failed"], 0);
        assert_eq!(
            (&step["table"]["count"], &step["table"]["failed"]),
            (&json!(102), &json!(1))
        );
        let silent =
            json!({"at_ms": 10_000, "outcomes": {}, "refusals": {}, "table": null, "operations": {}});
        assert_eq!(shown["steps"][1], silent);
        let text = handle.render();
        for line in [
            r#"zae_limiter_acquires_total{namespace="a",outcome="admitted"} 2"#,
            r#"zae_limiter_refusals_total{limit="tpm"} 1"#,
            "other 1",
            r#"zae_limiter_table_seconds_count{operation="update",result="ok"} 100"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_names_and_labels_are_those_of_the_library() {
        for (name, label) in [
            (ACQUIRES, "outcome"),
            (REFUSALS, "limit"),
            (TABLE, "operation"),
            (TABLE, "result"),
        ] {
            let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
            assert!(metric.labels.contains(&label), "{metric:?}");
        }
    }

    #[test]
    fn steps_are_bounded() {
        let activity = Activity::new();
        for at in 0..1000 {
            activity.step(EpochMillis(at));
        }
        let shown = serde_json::to_value(activity.shown()).unwrap();
        let steps = shown["steps"].as_array().unwrap();
        assert_eq!((steps.len(), &steps[0]["at_ms"]), (180, &json!(820)));
    }
}
