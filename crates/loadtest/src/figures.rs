//! Measurements as numbers of JSON, with the keys of the Python tool's worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stats::Series;

/// The figures of some calls. Latencies are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Calls, failures included.
    pub total_requests: u64,
    /// Those that failed.
    pub total_failures: u64,
    /// The part that failed, from 0 to 1.
    pub failure_rate: f64,
    /// Calls in a second.
    pub requests_per_second: f64,
    /// The mean latency.
    pub avg_response_time: f64,
    /// The shortest latency.
    pub min_response_time: f64,
    /// The longest latency.
    pub max_response_time: f64,
    /// The median latency.
    pub p50: f64,
    /// The latency that 95 % of the calls did not exceed.
    pub p95: f64,
    /// The latency that 99 % of the calls did not exceed.
    pub p99: f64,
}

impl Figures {
    /// The figures of calls in this time.
    pub fn of(series: &Series, elapsed: Duration) -> Self {
        let (calls, failures) = (series.calls(), series.failures());
        Self {
            total_requests: calls,
            total_failures: failures,
            failure_rate: rounded(failures as f64 / calls.max(1) as f64),
            requests_per_second: rounded(series.per_second(elapsed)),
            avg_response_time: millis(series.mean()),
            min_response_time: millis(series.min()),
            max_response_time: millis(series.max()),
            p50: millis(series.quantile(0.5)),
            p95: millis(series.quantile(0.95)),
            p99: millis(series.quantile(0.99)),
        }
    }
}

/// A number with three digits after the point.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A latency in milliseconds, to the microsecond.
pub fn millis(latency: Duration) -> f64 {
    rounded(latency.as_secs_f64() * 1000.0)
}
