//! How many users one generator can carry before it, and not the table, is what makes calls slow.
//!
//! By [Little's law](https://en.wikipedia.org/wiki/Little%27s_law), users = throughput × (latency + pause). While nothing
//! queues, latency stays at its floor. The efficiency of a number of users is the floor, measured with one user, divided by
//! the latency with that many; both are medians. A bisection finds the most users whose efficiency reaches a threshold.

use std::time::Duration;

use crate::report::Report;

/// Fewer calls than this say too little about a median.
pub const ENOUGH: u64 = 100;

/// What a step has measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The number of users.
    pub users: u32,
    /// The number of calls.
    pub requests: u64,
    /// Calls in a second.
    pub per_second: f64,
    /// The median latency.
    pub p50: Duration,
    /// The latency that 95 % of the calls did not exceed.
    pub p95: Duration,
    /// The latency that 99 % of the calls did not exceed.
    pub p99: Duration,
}

impl Sample {
    /// The sample of a run with this many users.
    pub fn of(users: u32, report: &Report) -> Self {
        let total = report.stats.total();
        Self {
            users,
            requests: total.calls(),
            per_second: report.per_second(),
            p50: total.quantile(0.5),
            p95: total.quantile(0.95),
            p99: total.quantile(0.99),
        }
    }
}

/// Which step comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The most users that are considered.
    Upper(u32),
    /// A number between.
    Search(u32),
}

impl Step {
    /// The number of users.
    pub fn users(self) -> u32 {
        match self {
            Self::Upper(users) | Self::Search(users) => users,
        }
    }
}

/// A search under way, and its result.
#[derive(Debug, Clone)]
pub struct Tune {
    most: u32,
    threshold: f64,
    /// Users and efficiency of the best that reaches the threshold.
    low: (u32, f64),
    /// Users and efficiency of the least that does not; none before the upper bound is measured.
    high: Option<(u32, f64)>,
    samples: Vec<(Sample, f64)>,
}

impl Tune {
    /// Begins with the floor, measured with one user. `None` if its median is zero, by which nothing can be divided.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zae_limiter_loadtest::tune::{Sample, Step, Tune};
    ///
    /// // A generator whose latency grows with users beyond four.
    /// let measure = |users: u32| Sample {
    ///     users,
    ///     requests: 1000,
    ///     per_second: 100.0,
    ///     p50: Duration::from_millis(10) * users.max(4) / 4,
    ///     p95: Duration::from_millis(20),
    ///     p99: Duration::from_millis(30),
    /// };
    /// let mut tune = Tune::new(measure(1), 40, 0.75).expect("a median above zero");
    /// assert_eq!(tune.next_step(), Some(Step::Upper(40)));
    /// while let Some(step) = tune.next_step() {
    ///     tune.add(measure(step.users()));
    /// }
    /// assert_eq!(tune.optimal(), 5);
    /// ```
    pub fn new(floor: Sample, most: u32, threshold: f64) -> Option<Self> {
        (!floor.p50.is_zero()).then(|| Self {
            most,
            threshold,
            low: (floor.users, 1.0),
            high: None,
            samples: vec![(floor, 1.0)],
        })
    }

    /// What to measure next; `None` at the end.
    pub fn next_step(&self) -> Option<Step> {
        let Some((high, high_efficiency)) = self.high else {
            return (self.low.0 < self.most).then_some(Step::Upper(self.most));
        };
        let (low, low_efficiency) = self.low;
        let between = high.saturating_sub(low);
        if between <= 1 {
            return None;
        }
        let drop = low_efficiency - high_efficiency;
        let part = if drop > 0.0 {
            (low_efficiency - self.threshold) / drop
        } else {
            0.5
        };
        // The conversion saturates, and NaN becomes zero.
        let offset = (part * f64::from(between)).round_ties_even() as u32;
        Some(Step::Search(low.saturating_add(offset).clamp(low + 1, high - 1)))
    }

    /// Takes what the [next step](Self::next_step) has measured, and returns its efficiency.
    pub fn add(&mut self, sample: Sample) -> f64 {
        let efficiency = self.efficiency(&sample);
        if efficiency >= self.threshold {
            self.low = (sample.users, efficiency);
        } else {
            self.high = Some((sample.users, efficiency));
        }
        self.samples.push((sample, efficiency));
        efficiency
    }

    fn efficiency(&self, sample: &Sample) -> f64 {
        let floor = self.floor().map_or(0.0, |floor| floor.p50.as_secs_f64());
        let p50 = sample.p50.as_secs_f64();
        if p50 > 0.0 { floor / p50 } else { 0.0 }
    }

    /// The sample with one user.
    pub fn floor(&self) -> Option<&Sample> {
        self.samples.first().map(|(sample, _)| sample)
    }

    /// The samples with their efficiency, in the order of measuring.
    pub fn samples(&self) -> &[(Sample, f64)] {
        &self.samples
    }

    /// The most users that were measured to reach the threshold.
    pub fn optimal(&self) -> u32 {
        self.low.0
    }

    /// Whether even the most users reach the threshold.
    pub fn is_unbounded(&self) -> bool {
        self.high.is_none() && self.low.0 >= self.most
    }

    /// How many generators carry this many users.
    pub fn generators(&self, users: u32) -> u32 {
        users.div_ceil(self.optimal().max(1))
    }
}

/// How long the floor has to be measured if `requests` came in `length`; `None` if that was enough, or `most` was used up.
pub fn lengthened(requests: u64, length: Duration, most: Duration) -> Option<Duration> {
    if requests >= ENOUGH || length >= most {
        return None;
    }
    let times = match requests {
        0 => 2,
        _ => u32::try_from(ENOUGH.div_ceil(requests)).unwrap_or(u32::MAX),
    };
    Some(length.saturating_mul(times).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(users: u32, p50_ms: u64) -> Sample {
        Sample {
            users,
            requests: 1000,
            per_second: 428.6,
            p50: Duration::from_millis(p50_ms),
            p95: Duration::from_millis(p50_ms * 2),
            p99: Duration::from_millis(p50_ms * 3),
        }
    }

    #[test]
    fn the_steps_are_those_of_the_reference() {
        // The example of the reference: 1, 40, 9, 3, 5 and 4 users.
        let mut tune = Tune::new(sample(1, 7), 40, 0.8).unwrap();
        let mut steps = Vec::new();
        while let Some(step) = tune.next_step() {
            steps.push(step.users());
            let p50 = match step.users() {
                40 => 93,
                9 => 21,
                3 => 7,
                5 => 12,
                4 => 9,
                other => unreachable!("{other}"),
            };
            tune.add(sample(step.users(), p50));
        }
        assert_eq!(steps, [40, 9, 3, 5, 4]);
        assert_eq!((tune.optimal(), tune.is_unbounded()), (3, false));
        assert_eq!(
            [100, 500, 1000].map(|users| tune.generators(users)),
            [34, 167, 334]
        );
        let percents: Vec<_> = tune
            .samples()
            .iter()
            .map(|(_, e)| (e * 100.0).round() as u32)
            .collect();
        assert_eq!(percents, [100, 8, 33, 100, 58, 78]);
    }

    #[test]
    fn an_upper_bound_that_passes_is_the_answer() {
        let mut tune = Tune::new(sample(1, 10), 40, 0.8).unwrap();
        assert_eq!(tune.next_step(), Some(Step::Upper(40)));
        tune.add(sample(40, 12));
        assert_eq!(
            (tune.next_step(), tune.optimal(), tune.is_unbounded()),
            (None, 40, true)
        );
        let one = Tune::new(sample(1, 10), 1, 0.8).unwrap();
        assert_eq!(
            (one.next_step(), one.optimal(), one.is_unbounded()),
            (None, 1, true)
        );
        assert!(Tune::new(sample(1, 0), 40, 0.8).is_none());
    }

    #[test]
    fn every_search_ends_with_neighbours() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..2000 {
            let most = rng.u32(2..2000);
            let mut tune = Tune::new(sample(1, rng.u64(1..50)), most, rng.f64()).unwrap();
            let mut steps = 0;
            while let Some(step) = tune.next_step() {
                steps += 1;
                assert!(steps <= most, "{most} users in {steps} steps");
                assert!((2..=most).contains(&step.users()));
                tune.add(sample(step.users(), rng.u64(0..100)));
            }
        }
    }

    #[test]
    fn a_short_floor_is_measured_for_longer() {
        let secs = Duration::from_secs;
        let most = secs(270);
        assert_eq!(lengthened(30, secs(60), most), Some(secs(240)));
        assert_eq!(lengthened(0, secs(60), most), Some(secs(120)));
        assert_eq!(lengthened(1, secs(60), most), Some(most));
        assert_eq!(lengthened(100, secs(60), most), None);
        assert_eq!(lengthened(5, most, most), None);
    }
}
