//! Counts and latencies of the step that runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;
use serde::Serialize;
use zae_limiter::EpochMillis;

/// Latencies are kept in microseconds, up to a minute, with two digits.
const LONGEST: u64 = 60_000_000;
const DIGITS: u8 = 2;

/// What is counted since the last step. Its keys are values of labels, which are bounded.
#[derive(Debug, Default)]
pub(super) struct Measured {
    outcomes: Counts,
    refusals: Counts,
    operations: Mutex<BTreeMap<String, Arc<Operation>>>,
}

/// Counters by a label.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

/// Requests to the table of one kind.
#[derive(Debug, Default)]
pub(super) struct Operation(Mutex<Latencies>);

#[derive(Debug)]
struct Latencies {
    of_answers: Histogram<u32>,
    failed: u64,
}

/// What happened in a step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// When it ended.
    at_ms: i64,
    /// Calls that take tokens, by outcome.
    outcomes: BTreeMap<String, u64>,
    /// Refused calls, by each limit that refused.
    refusals: BTreeMap<String, u64>,
    /// Requests to the table; none if there were none.
    table: Option<Requests>,
    /// The same by kind.
    operations: BTreeMap<String, Requests>,
}

/// Requests to the table within a step.
#[derive(Debug, Clone, Serialize)]
struct Requests {
    count: u64,
    failed: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl Counts {
    pub(super) fn counter(&self, label: &str) -> Arc<AtomicU64> {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counters.entry(label.to_owned()).or_default())
    }

    fn take(&self) -> BTreeMap<String, u64> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counters.iter();
        let counts = counts.map(|(label, counter)| (label.clone(), counter.swap(0, Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            #[expect(
                clippy::expect_used,
                reason = "the bounds are constants, and a test makes one"
            )]
            of_answers: Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("valid bounds"),
            failed: 0,
        }
    }
}

impl Latencies {
    fn add(&mut self, other: &Self) {
        // It fails for values outside the bounds, which are the same.
        let _ = self.of_answers.add(&other.of_answers);
        self.failed += other.failed;
    }

    fn requests(&self) -> Option<Requests> {
        let all = &self.of_answers;
        (!all.is_empty()).then(|| Requests {
            count: all.len(),
            failed: self.failed,
            p50_us: all.value_at_quantile(0.5),
            p99_us: all.value_at_quantile(0.99),
            max_us: all.max(),
        })
    }
}

impl Operation {
    /// Counts a request that took so long.
    pub(super) fn record(&self, seconds: f64, has_failed: bool) {
        let micros = (seconds * 1e6).clamp(1.0, LONGEST as f64) as u64;
        let mut latencies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.of_answers.saturating_record(micros);
        latencies.failed += u64::from(has_failed);
    }

    /// What was counted, also added to that of all kinds; and nothing is counted any more.
    fn take(&self, all: &mut Latencies) -> Option<Requests> {
        let mut latencies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.add(&latencies);
        let requests = latencies.requests();
        latencies.of_answers.reset();
        latencies.failed = 0;
        requests
    }
}

impl Measured {
    /// Calls that take tokens, by outcome.
    pub(super) fn outcomes(&self) -> &Counts {
        &self.outcomes
    }

    /// Refused calls, by limit.
    pub(super) fn refusals(&self) -> &Counts {
        &self.refusals
    }

    /// Requests to the table of this kind.
    pub(super) fn operation(&self, name: &str) -> Arc<Operation> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(operations.entry(name.to_owned()).or_default())
    }

    /// What was counted, and nothing is counted any more.
    pub(super) fn take(&self, now: EpochMillis) -> Step {
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Latencies::default();
        let by_kind = operations.iter();
        let by_kind = by_kind.filter_map(|(name, operation)| Some((name.clone(), operation.take(&mut all)?)));
        let by_kind = by_kind.collect();
        Step {
            at_ms: now.0,
            outcomes: self.outcomes.take(),
            refusals: self.refusals.take(),
            table: all.requests(),
            operations: by_kind,
        }
    }
}
