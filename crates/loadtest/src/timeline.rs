//! What a test measured over time, for charts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::report::Report;
use crate::stats::{Event, Series};

/// The most points of a chart, about.
const POINTS: u64 = 300;

/// A part of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its end, in seconds since the start of the test.
    pub at: f64,
    /// How many users there were.
    pub users: usize,
    /// Calls in a second.
    pub calls: f64,
    /// Refusals by limits in a second.
    pub refused: f64,
    /// Failures in a second.
    pub failures: f64,
    /// The median latency.
    pub p50: Duration,
    /// The latency that 95 % of the calls did not exceed.
    pub p95: Duration,
    /// The latency that 99 % of the calls did not exceed.
    pub p99: Duration,
}

/// The points so far, at equal distances.
#[derive(Debug)]
pub struct Timeline {
    points: Vec<Point>,
    distance: Duration,
    /// The calls since the last point.
    recent: Series,
    last: Duration,
    refused: u64,
    /// All calls of the last report.
    total: Series,
}

impl Timeline {
    /// For a test of this length.
    pub fn new(length: Duration) -> Self {
        let seconds = length.as_secs().div_ceil(POINTS).max(Self::EVERY.as_secs());
        Self {
            points: Vec::new(),
            distance: Duration::from_secs(seconds),
            recent: Series::default(),
            last: Duration::ZERO,
            refused: 0,
            total: Series::default(),
        }
    }

    /// How often it wants the progress.
    pub const EVERY: Duration = Duration::from_secs(1);

    /// Adds the progress.
    pub fn add(&mut self, progress: &Progress) {
        self.add_part(
            progress.elapsed,
            progress.users,
            progress.refused,
            &progress.recent,
        );
    }

    /// Adds a report about the test so far, which has so many users.
    pub fn add_report(&mut self, report: &Report, users: usize) {
        let total = report.stats.total();
        let refused = report.stats.of(|event| event == Event::RateLimited).calls();
        self.add_part(report.elapsed, users, refused, &total.since(&self.total));
        self.total = total;
    }

    /// Adds the calls since the last time. Refusals are counted since the start.
    fn add_part(&mut self, elapsed: Duration, users: usize, refused: u64, recent: &Series) {
        self.recent.merge(recent);
        let since = elapsed.saturating_sub(self.last);
        if since < self.distance {
            return;
        }
        let rate = |count: u64| count as f64 / since.as_secs_f64();
        self.points.push(Point {
            at: elapsed.as_secs_f64(),
            users,
            calls: rate(self.recent.calls()),
            refused: rate(refused.saturating_sub(self.refused)),
            failures: rate(self.recent.failures()),
            p50: self.recent.quantile(0.5),
            p95: self.recent.quantile(0.95),
            p99: self.recent.quantile(0.99),
        });
        (self.last, self.refused) = (elapsed, refused);
        self.recent = Series::default();
    }

    /// The points so far.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The points.
    pub fn into_points(self) -> Vec<Point> {
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;

    #[test]
    fn points_have_a_distance_that_fits_the_test() {
        let mut timeline = Timeline::new(Duration::from_secs(601));
        for second in 1..=7 {
            let mut stats = Stats::default();
            for _ in 0..second {
                stats.add(Event::RateLimited, "api", Duration::from_millis(second), None);
            }
            timeline.add(&Progress {
                elapsed: Duration::from_secs(second),
                users: 3,
                per_second: 0.0,
                refused: second * (second + 1) / 2,
                total: Series::default(),
                recent: stats.total(),
                cores: None,
            });
        }
        let points: Vec<_> = timeline
            .points()
            .iter()
            .map(|p| (p.at, p.calls, p.refused, p.p99.as_millis()))
            .collect();
        assert_eq!(points, [(3.0, 2.0, 2.0, 3), (6.0, 5.0, 5.0, 6)]);
    }
}
