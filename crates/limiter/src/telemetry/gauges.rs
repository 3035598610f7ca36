//! Reads the sizes of queues and caches, and the state of the table, for gauges.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::names;
use super::record::{OfTable, Recorder, set};
use crate::inner::Inner;
use crate::repository::Repository;

impl Repository {
    /// Refreshes the gauges of [`METRICS`](crate::telemetry::METRICS), and the counters of look-ups of configuration and of openings
    /// of the circuit breaker.
    ///
    /// Calls that take tokens do it when they end, at most once a second. In a process that may be idle, call it before
    /// metrics are read, or from time to time. It sends nothing, and takes the locks of the queues for a moment.
    pub fn record_gauges(&self) {
        self.inner.telemetry.record_gauges(&self.inner);
    }
}

impl Recorder {
    pub(super) fn record_gauges(&self, inner: &Inner) {
        let number = |metric, value: usize| set(metric, self.labels(), value as f64);
        let senders = inner.refunds.senders();
        number(&names::CALLS_WAITING, inner.queues.waiting());
        number(&names::CORRECTIONS_WAITING, inner.refunds.unfinished());
        number(
            &names::BACKGROUND_TASKS,
            inner.background.tasks().saturating_sub(senders),
        );
        number(&names::PLACES_HELD, inner.flight.held.load(Ordering::Relaxed));
        number(&names::CACHED_IMAGES, inner.images.len());
        let cache = inner.config.stats();
        set(&names::CACHED_CONFIGS, self.labels(), cache.size as f64);
        let mut ahead = inner.slices.prefetched().tokens;
        {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            self.looked_up("hit", cache.hits.saturating_sub(reported.hits));
            self.looked_up("miss", cache.misses.saturating_sub(reported.misses));
            if !std::mem::replace(&mut reported.has_gauges, true) {
                self.start_counters();
            }
            reported.hits = reported.hits.max(cache.hits);
            reported.misses = reported.misses.max(cache.misses);
            // Once more, for limits of which nothing is left.
            for (limit, _) in reported.ahead.iter().filter(|(_, tokens)| **tokens > 0) {
                ahead.entry(limit.clone()).or_insert(0);
            }
            for (limit, tokens) in &ahead {
                set(
                    &names::TOKENS_AHEAD,
                    self.labels_with("limit", limit.clone()),
                    *tokens as f64,
                );
            }
            reported.ahead = ahead;
        }
        self.of_table().record_gauges(inner);
    }
}

impl OfTable {
    fn record_gauges(&self, inner: &Inner) {
        let permits = &inner.permits;
        set(&names::REQUESTS_IN_FLIGHT, self.labels(), permits.in_use() as f64);
        set(
            &names::REQUESTS_IN_FLIGHT_MAX,
            self.labels(),
            permits.max() as f64,
        );
        set(
            &names::BREAKER_OPEN,
            self.labels(),
            f64::from(u8::from(inner.breaker.is_open())),
        );
        self.opened(inner.breaker.openings());
        if let Some(offset) = inner.offset.as_ref().and_then(|offset| offset.get()) {
            set(
                &names::CLOCK_OFFSET,
                self.labels(),
                offset.correction_ms() as f64 / 1000.0,
            );
        }
    }
}

/// A namespace that is not open any more has nothing in its queues and caches.
impl Drop for Recorder {
    fn drop(&mut self) {
        let reported = self.reported.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !reported.has_gauges {
            return;
        }
        let limits: Vec<_> = std::mem::take(&mut reported.ahead).into_keys().collect();
        let of_namespace = [
            names::CALLS_WAITING,
            names::CORRECTIONS_WAITING,
            names::BACKGROUND_TASKS,
            names::PLACES_HELD,
            names::CACHED_CONFIGS,
            names::CACHED_IMAGES,
        ];
        for metric in &of_namespace {
            set(metric, self.labels(), 0.0);
        }
        for limit in limits {
            set(&names::TOKENS_AHEAD, self.labels_with("limit", limit), 0.0);
        }
    }
}
