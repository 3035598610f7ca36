//! Measurements: latencies by kind of call and name, which can be merged without loss.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is distinguished from longer ones, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Significant digits of a latency: percentiles are at most a thousandth too high.
const DIGITS: u8 = 3;

/// What was called, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// An acquire was admitted, or failed.
    Acquire,
    /// A lease that was adjusted was committed.
    Commit,
    /// An acquire was refused by a limit.
    RateLimited,
    /// The available tokens were read.
    Available,
    /// A user's entity was created, so that its requests cascade.
    CreateEntity,
}

impl Event {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acquire => "ACQUIRE",
            Self::Commit => "COMMIT",
            Self::RateLimited => "RATE_LIMITED",
            Self::Available => "AVAILABLE",
            Self::CreateEntity => "CREATE_ENTITY",
        }
    }
}

/// The latencies of calls of one kind. Serialized without loss.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Series {
    latencies: Histogram<u64>,
    sum: Duration,
    failures: u64,
}

impl Default for Series {
    fn default() -> Self {
        let latencies = Histogram::new_with_max(LONGEST, DIGITS);
        Self {
            #[expect(clippy::expect_used, reason = "the bounds are constants")]
            latencies: latencies.expect("the bounds of a histogram"),
            sum: Duration::ZERO,
            failures: 0,
        }
    }
}

impl Series {
    fn add(&mut self, latency: Duration, failed: bool) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros.clamp(1, LONGEST));
        self.sum = self.sum.saturating_add(latency);
        self.failures += u64::from(failed);
    }

    /// Adds the calls of another series.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing is out of range.
        let _ = self.latencies.add(&other.latencies);
        self.sum = self.sum.saturating_add(other.sum);
        self.failures = self.failures.saturating_add(other.failures);
    }

    /// The calls that were added since `earlier`, a former state of this series.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        // It fails if there were more calls earlier, which a former state does not have.
        let _ = since.latencies.subtract(&earlier.latencies);
        since.sum = self.sum.saturating_sub(earlier.sum);
        since.failures = self.failures.saturating_sub(earlier.failures);
        since
    }

    /// How many calls, failures included.
    pub fn calls(&self) -> u64 {
        self.latencies.len()
    }

    /// How many of them failed. A refusal by a limit is not a failure.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// The time of all calls together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Calls in a second of this time.
    pub fn per_second(&self, elapsed: Duration) -> f64 {
        let elapsed = elapsed.as_secs_f64();
        if elapsed > 0.0 {
            self.calls() as f64 / elapsed
        } else {
            0.0
        }
    }

    /// The mean latency; zero without calls.
    pub fn mean(&self) -> Duration {
        match u32::try_from(self.calls()) {
            Ok(0) => Duration::ZERO,
            Ok(calls) => self.sum / calls,
            Err(_) => self.sum.div_f64(self.calls() as f64),
        }
    }

    /// The shortest latency; zero without calls.
    pub fn min(&self) -> Duration {
        let shortest = (self.calls() > 0).then(|| self.latencies.min());
        Duration::from_micros(shortest.unwrap_or(0))
    }

    /// The longest latency; zero without calls.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.latencies.max())
    }

    /// The latency that this part of the calls, from 0 to 1, did not exceed.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.latencies.value_at_quantile(part))
    }
}

/// A series as it is serialized.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Latencies in microseconds, and how many calls took that long.
    latencies: Vec<(u64, u64)>,
    sum: Duration,
    failures: u64,
}

impl From<Series> for Written {
    fn from(series: Series) -> Self {
        let recorded = series.latencies.iter_recorded();
        Self {
            latencies: recorded
                // The longest latency of a step can be beyond what is distinguished.
                .map(|step| (step.value_iterated_to().min(LONGEST), step.count_at_value()))
                .collect(),
            sum: series.sum,
            failures: series.failures,
        }
    }
}

impl TryFrom<Written> for Series {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut series = Self {
            sum: written.sum,
            failures: written.failures,
            ..Self::default()
        };
        let mut calls = 0_u64;
        for (micros, count) in written.latencies {
            calls = calls
                .checked_add(count)
                .ok_or("the numbers of calls exceed 64 bits")?;
            if !(1..=LONGEST).contains(&micros) {
                return Err(format!("a latency of {micros} microseconds is out of range"));
            }
            let recorded = series.latencies.record_n(micros, count);
            recorded.map_err(|err| format!("a latency of {micros} microseconds: {err}"))?;
        }
        if series.failures > calls {
            return Err(format!("{} of {calls} calls failed", series.failures));
        }
        Ok(series)
    }
}

/// All measurements of a run, or of a part of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    series: BTreeMap<Event, BTreeMap<String, Series>>,
    errors: BTreeMap<String, u64>,
}

/// How many reasons of failures are distinguished. A message can contain what differs from call to call.
const REASONS: usize = 20;

/// The name of calls whose own names were left out.
pub const JOINED: &str = "(others)";

/// What stands for further reasons.
const OTHERS: &str = "other failures";

impl Stats {
    /// Adds a call. `error` says why it failed.
    pub fn add(&mut self, event: Event, name: &str, latency: Duration, error: Option<String>) {
        let named = self.series.entry(event).or_default();
        // A name is stored once, and not copied with each call.
        match named.get_mut(name) {
            Some(series) => series.add(latency, error.is_some()),
            None => named
                .entry(name.to_owned())
                .or_default()
                .add(latency, error.is_some()),
        }
        if let Some(error) = error {
            self.count(&error, 1);
        }
    }

    fn count(&mut self, error: &str, times: u64) {
        let is_new = !self.errors.contains_key(error);
        let error = if is_new && self.errors.len() >= REASONS {
            OTHERS
        } else {
            error
        };
        let all = self.errors.entry(error.to_owned()).or_default();
        *all = all.saturating_add(times);
    }

    /// Adds what another part of the run has measured.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zae_limiter_loadtest::{Event, Stats};
    ///
    /// let mut parts = [Stats::default(), Stats::default()];
    /// for millis in 1..=1000 {
    ///     parts[millis as usize % 2].add(Event::Acquire, "api", Duration::from_millis(millis), None);
    /// }
    /// let [mut all, other] = parts;
    /// all.merge(&other);
    /// assert_eq!(all.total().calls(), 1000);
    /// assert_eq!(all.total().quantile(0.95).as_millis(), 950);
    /// ```
    pub fn merge(&mut self, other: &Self) {
        for (event, name, series) in other.series() {
            let named = self.series.entry(event).or_default();
            named.entry(name.to_owned()).or_default().merge(series);
        }
        for (error, count) in other.errors() {
            self.count(error, count);
        }
    }

    /// The same in parts of at most so many series, at least one part.
    pub(crate) fn pieces(self, most: usize) -> Vec<Self> {
        let mut pieces = vec![Self {
            series: BTreeMap::new(),
            errors: self.errors,
        }];
        let mut in_last = 0;
        for (event, named) in self.series {
            for (name, series) in named {
                if in_last == most.max(1) {
                    pieces.push(Self::default());
                    in_last = 0;
                }
                in_last += 1;
                if let Some(last) = pieces.last_mut() {
                    last.series.entry(event).or_default().insert(name, series);
                }
            }
        }
        pieces
    }

    /// The series by kind of call and name.
    pub fn series(&self) -> impl Iterator<Item = (Event, &str, &Series)> {
        self.series
            .iter()
            .flat_map(|(event, named)| named.iter().map(|(name, series)| (*event, name.as_str(), series)))
    }

    /// Keeps this many names with the most calls. The others are merged into [`JOINED`] of their kind.
    #[must_use]
    pub fn joined(&self, most: usize) -> Self {
        let mut calls: Vec<_> = self.series().collect();
        calls.sort_by_key(|(_, _, series)| std::cmp::Reverse(series.calls()));
        let mut joined = Self {
            series: BTreeMap::new(),
            errors: self.errors.clone(),
        };
        for (place, (event, name, series)) in calls.into_iter().enumerate() {
            let name = if place < most { name } else { JOINED };
            let named = joined.series.entry(event).or_default();
            named.entry(name.to_owned()).or_default().merge(series);
        }
        joined
    }

    /// All calls together.
    pub fn total(&self) -> Series {
        self.of(|_| true)
    }

    /// All calls of the kinds that `chosen` names.
    pub fn of(&self, chosen: impl Fn(Event) -> bool) -> Series {
        let mut all = Series::default();
        for (_, _, series) in self.series().filter(|(event, ..)| chosen(*event)) {
            all.merge(series);
        }
        all
    }

    /// Why calls failed, and how many.
    pub fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.errors.iter().map(|(error, count)| (error.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_parts_tell_the_percentiles_of_the_whole() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut whole, mut parts) = (Stats::default(), vec![Stats::default(); 7]);
        let mut values = Vec::new();
        for call in 0..20_000 {
            let micros = 50 + (rng.f64().powi(4) * 2e6) as u64;
            values.push(micros);
            let latency = Duration::from_micros(micros);
            whole.add(Event::Acquire, "api", latency, None);
            parts[call % 7].add(Event::Acquire, "api", latency, None);
        }
        let mut merged = Stats::default();
        for part in &parts {
            merged.merge(part);
        }
        values.sort_unstable();
        for (part, index) in [(0.5, 9_999), (0.95, 18_999), (0.99, 19_799)] {
            let (all, exact) = (merged.total().quantile(part), values[index] as f64);
            assert_eq!(all, whole.total().quantile(part));
            let apart = (all.as_micros() as f64 - exact).abs();
            assert!(
                apart <= exact / 1000.0 + 1.0,
                "{part}: {all:?}, exactly {exact} us"
            );
        }
        assert_eq!(merged.total().sum(), whole.total().sum());
    }

    #[test]
    fn the_calls_since_an_earlier_state() {
        let mut series = Series::default();
        series.add(Duration::from_millis(900), true);
        let earlier = series.clone();
        series.add(Duration::from_millis(5), false);
        series.add(Duration::from_millis(7), true);
        let since = series.since(&earlier);
        assert_eq!((since.calls(), since.failures()), (2, 1));
        assert_eq!(
            (since.sum(), since.max().as_millis()),
            (Duration::from_millis(12), 7)
        );
        let mut both = earlier;
        both.merge(&since);
        assert_eq!((both.calls(), both.quantile(1.0)), (3, series.quantile(1.0)));
    }

    #[test]
    fn nothing_measured_is_zero() {
        let none = Stats::default().total();
        assert_eq!(
            (none.calls(), none.min(), none.max()),
            (0, Duration::ZERO, Duration::ZERO)
        );
        assert_eq!(
            (none.mean(), none.quantile(0.99)),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[test]
    fn pieces_are_the_whole_when_merged() {
        let mut stats = Stats::default();
        for name in 0..7 {
            for event in [Event::Acquire, Event::Commit] {
                let error = (name == 3).then(|| "down".to_owned());
                stats.add(event, &name.to_string(), Duration::from_micros(50 + name), error);
            }
        }
        let pieces = stats.clone().pieces(4);
        let sizes: Vec<_> = pieces.iter().map(|piece| piece.series().count()).collect();
        assert_eq!(sizes, [4, 4, 4, 2]);
        let mut merged = Stats::default();
        for piece in &pieces {
            merged.merge(piece);
        }
        assert_eq!(
            serde_json::to_string(&merged).unwrap(),
            serde_json::to_string(&stats).unwrap()
        );
        assert_eq!(Stats::default().pieces(4).len(), 1);
    }

    #[test]
    fn serialized_measurements_are_the_same() {
        let mut stats = Stats::default();
        for micros in [0, 1, 7, 2047, 2048, 2049, 1_234_567, 3_599_999_999, u64::MAX] {
            for times in 0..=micros % 3 {
                let error = (times == 1).then(|| "down".to_owned());
                stats.add(Event::RateLimited, "api", Duration::from_micros(micros), error);
            }
        }
        let text = serde_json::to_string(&stats).unwrap();
        let read: Stats = serde_json::from_str(&text).unwrap();
        let (before, after) = (stats.total(), read.total());
        assert_eq!(before.latencies, after.latencies);
        assert_eq!(
            (before.min(), before.max(), before.sum(), before.failures()),
            (after.min(), after.max(), after.sum(), after.failures())
        );
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(text.starts_with(r#"{"series":{"RATE_LIMITED":{"api":"#), "{text}");
    }

    #[test]
    fn impossible_measurements_are_refused() {
        let sum = r#""sum":{"secs":1,"nanos":0}"#;
        for (latencies, failures, why) in [
            ("[[0,1]]", 0, "a latency of 0 microseconds is out of range"),
            ("[[99999999999,1]]", 0, "99999999999 microseconds is out of range"),
            ("[[5,1]]", 2, "2 of 1 calls failed"),
            ("[[5,18446744073709551615],[6,1]]", 0, "exceed 64 bits"),
        ] {
            let text = format!(r#"{{"latencies":{latencies},{sum},"failures":{failures}}}"#);
            let err = serde_json::from_str::<Series>(&text).unwrap_err().to_string();
            assert!(err.contains(why), "{err}");
        }
    }

    #[test]
    fn failures_are_counted_by_reason() {
        let mut stats = Stats::default();
        for (error, event) in [(None, Event::RateLimited), (Some("down"), Event::Acquire)] {
            stats.add(event, "api", Duration::MAX, error.map(str::to_owned));
        }
        assert_eq!((stats.total().calls(), stats.total().failures()), (2, 1));
        assert_eq!(stats.errors().collect::<Vec<_>>(), [("down", 1)]);
    }
}
