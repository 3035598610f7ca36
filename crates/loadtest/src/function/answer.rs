//! The answer to a call.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::report::Report;
use crate::run::Plan;
use crate::timeline::Point;

/// The largest answer, in bytes. AWS Lambda takes 6 MB.
const LARGEST: usize = 5_000_000;

/// What a test has measured, with the keys of the Python tool's worker and what they do not tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// All calls together.
    #[serde(flatten)]
    pub figures: Figures,
    /// What was run.
    pub ran: Ran,
    /// Everything that was measured.
    pub report: Report,
    /// The course of the test.
    pub timeline: Vec<Point>,
    /// Whether the report's calls were joined under fewer names, so that the answer is not too large.
    pub names_joined: bool,
    /// Where it was run.
    #[serde(flatten)]
    pub generator: Generator,
    /// Whether the test was stopped because the call's time was over.
    pub stopped_early: bool,
    /// The namespace of the test, if it was not removed.
    pub left_namespace: Option<LeftNamespace>,
}

/// What a test ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// The scenario.
    pub scenario: String,
    /// Its classes that took part.
    pub user_classes: Vec<String>,
    /// The shape.
    pub shape: Option<String>,
    /// The largest number of users that was asked for.
    pub users: usize,
    /// How many calls were due in a second, in an open loop.
    pub rate: Option<f64>,
    /// The length that was asked for, in seconds.
    pub duration_seconds: f64,
    /// The seed of random choices.
    pub seed: u64,
}

impl Ran {
    /// That of a plan.
    pub fn of(plan: &Plan, shape: Option<String>) -> Self {
        let classes = plan.scenario.classes.iter();
        Self {
            scenario: plan.scenario.name.clone(),
            user_classes: classes.map(|class| class.name.clone()).collect(),
            shape,
            users: plan.schedule.most(),
            rate: plan.rate,
            duration_seconds: plan.schedule.length().as_secs_f64(),
            seed: plan.seed,
        }
    }
}

/// A function, as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// Its memory, by which it has processors.
    pub memory_mb: u32,
}

/// A namespace that is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftNamespace {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Why it is still there.
    pub why: String,
}

impl Answer {
    pub(super) fn new(
        ran: Ran,
        report: Report,
        timeline: Vec<Point>,
        generator: Generator,
        left: Option<LeftNamespace>,
    ) -> Self {
        Self {
            figures: Figures::of(&report.stats.total(), report.elapsed),
            ran,
            // Nothing else interrupts it.
            stopped_early: report.interrupted,
            report,
            timeline,
            names_joined: false,
            generator,
            left_namespace: left,
        }
    }

    /// The answer as JSON. Where that is too large, the names with the fewest calls are joined; no call is left out.
    ///
    /// # Errors
    /// If it cannot be written as JSON, as numbers that are not finite.
    pub fn to_json(mut self) -> serde_json::Result<serde_json::Value> {
        // The series of a kind has a bounded number of different latencies, so without names every answer fits.
        let mut most = self.report.stats.series().count();
        while serde_json::to_vec(&self)?.len() > LARGEST && most > 0 {
            most /= 2;
            self.report.stats = self.report.stats.joined(most);
            self.names_joined = true;
        }
        serde_json::to_value(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{Event, JOINED, Stats};

    fn answer(stats: Stats) -> Answer {
        let report = Report {
            stats,
            elapsed: Duration::from_secs(10),
            interrupted: false,
            ..Report::of_nothing()
        };
        let ran = Ran {
            scenario: "simple".into(),
            user_classes: vec!["SimpleUser".into()],
            shape: None,
            users: 3,
            rate: None,
            duration_seconds: 10.0,
            seed: 1,
        };
        Answer::new(ran, report, Vec::new(), Generator { memory_mb: 1769 }, None)
    }

    #[test]
    fn an_answer_has_the_keys_of_the_python_tool_and_the_whole_report() {
        let mut stats = Stats::default();
        for millis in 1..=100 {
            let error = (millis > 98).then(|| "it failed".to_owned());
            stats.add(Event::Acquire, "api", Duration::from_millis(millis), error);
        }
        let json = answer(stats.clone()).to_json().unwrap();
        for (key, expected) in [
            ("total_requests", 100.0),
            ("total_failures", 2.0),
            ("failure_rate", 0.02),
            ("avg_response_time", 50.5),
            ("min_response_time", 1.0),
            ("requests_per_second", 10.0),
            ("memory_mb", 1769.0),
        ] {
            assert_eq!(json[key].as_f64(), Some(expected), "{key}: {json}");
        }
        for key in ["max_response_time", "p50", "p95", "p99"] {
            assert!(json[key].as_f64() > Some(1.0), "{key}: {json}");
        }
        let read: Answer = serde_json::from_value(json).unwrap();
        assert_eq!(read.report.stats.total().sum(), stats.total().sum());
        assert!(!read.names_joined);
        assert_eq!(read.report.stats.errors().collect::<Vec<_>>(), [("it failed", 2)]);
    }

    #[test]
    fn too_many_names_are_joined_and_no_call_is_lost() {
        let (mut stats, mut calls) = (Stats::default(), 0);
        for name in 0..400_u64 {
            for call in 1..=1900 + name % 7 {
                calls += 1;
                let latency = Duration::from_micros(call);
                stats.add(Event::Acquire, &format!("resource-{name}"), latency, None);
            }
        }
        let (sum, text) = (stats.total().sum(), serde_json::to_vec(&stats).unwrap());
        assert!(text.len() > LARGEST, "{}", text.len());
        let json = answer(stats).to_json().unwrap();
        assert!(json.to_string().len() <= LARGEST);
        let read: Answer = serde_json::from_value(json).unwrap();
        assert!(read.names_joined);
        let total = read.report.stats.total();
        assert_eq!((total.calls(), total.sum()), (calls, sum));
        assert!(read.report.stats.series().any(|(_, name, _)| name == JOINED));
        assert!(read.report.stats.series().count() > 150);
    }
}
