//! What the page shows.

use serde::{Deserialize, Serialize};

use crate::cluster::{Ended, Pulse};
use crate::figures::{millis, rounded};
use crate::report::Report;
use crate::stats::{Event, Series};

/// How many points a chart has at most. With more, two at a time become one.
const POINTS: usize = 600;

/// How many kinds of calls are listed.
const ROWS: usize = 100;

/// How far a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No test runs.
    Ready,
    /// A namespace is made, and workers open it.
    Starting,
    /// Users run.
    Running,
    /// Users end, and the namespace is removed.
    Stopping,
}

/// What the form of the page has at first.
#[derive(Debug, Clone, Serialize)]
pub struct Defaults {
    /// Users.
    pub users: usize,
    /// Users that start in a second.
    pub spawn_rate: u32,
    /// The length in seconds; `None` for a test that runs until it is stopped.
    pub seconds: Option<u64>,
}

/// One point of the charts: what was measured since the one before.
#[derive(Debug, Clone, Serialize)]
struct Point {
    second: f64,
    users: usize,
    workers: usize,
    rate: f64,
    failures: u64,
    p50: f64,
    p95: f64,
    p99: f64,
}

/// Figures of some calls, with latencies in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
struct Figures {
    requests: u64,
    failures: u64,
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Figures {
    fn of(series: &Series) -> Self {
        Self {
            requests: series.calls(),
            failures: series.failures(),
            p50: millis(series.quantile(0.5)),
            p95: millis(series.quantile(0.95)),
            p99: millis(series.quantile(0.99)),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    event: &'static str,
    name: String,
    #[serde(flatten)]
    figures: Figures,
}

/// The state of a test, with everything that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// How far it is.
    pub state: State,
    /// What the last test ended with, or why one did not begin.
    pub message: String,
    /// The workers that are connected.
    pub workers: usize,
    /// The users at this time.
    pub users: usize,
    /// Calls in a second.
    pub rate: f64,
    /// What was measured since the start; `None` before anything was.
    pub result: Option<Ended>,
    /// Whether the result is complete.
    pub is_complete: bool,
    /// The namespace of the test, while it exists.
    pub namespace: Option<String>,
}

/// The state of the page, as its script reads it.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    target: String,
    scenario: String,
    classes: Vec<String>,
    defaults: Defaults,
    state: State,
    /// What the last test ended with, or why one did not begin.
    message: String,
    workers: usize,
    users: usize,
    seconds: f64,
    rate: f64,
    refused: u64,
    total: Figures,
    points: Vec<Point>,
    rows: Vec<Row>,
    errors: Vec<(String, u64)>,
    #[serde(skip)]
    result: Option<Ended>,
    #[serde(skip)]
    is_complete: bool,
    #[serde(skip)]
    namespace: Option<String>,
}

impl View {
    /// No test yet. `target` is the name of the stack, `classes` are those that can be chosen.
    pub fn new(target: String, scenario: String, classes: Vec<String>, defaults: Defaults) -> Self {
        Self {
            target,
            scenario,
            classes,
            defaults,
            state: State::Ready,
            message: String::new(),
            workers: 0,
            users: 0,
            seconds: 0.0,
            rate: 0.0,
            refused: 0,
            total: Figures::default(),
            points: Vec::new(),
            rows: Vec::new(),
            errors: Vec::new(),
            result: None,
            is_complete: false,
            namespace: None,
        }
    }

    /// The namespace of the test; none once it is removed.
    pub fn namespace(&mut self, name: Option<String>) {
        self.namespace = name;
    }

    /// What is known of the test.
    pub fn sample(&self) -> Sample {
        Sample {
            state: self.state,
            message: self.message.clone(),
            workers: self.workers,
            users: self.users,
            rate: self.rate,
            result: self.result.clone(),
            is_complete: self.is_complete,
            namespace: self.namespace.clone(),
        }
    }

    /// How far the test is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The classes that can be chosen.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// A test begins: figures of the one before are removed.
    pub fn begin(&mut self) {
        let empty = Self::new(
            std::mem::take(&mut self.target),
            std::mem::take(&mut self.scenario),
            std::mem::take(&mut self.classes),
            self.defaults.clone(),
        );
        *self = Self {
            state: State::Starting,
            workers: self.workers,
            ..empty
        };
    }

    /// The test is to end.
    pub fn stopping(&mut self) {
        self.state = State::Stopping;
    }

    /// How many workers are connected, without a test.
    pub fn workers(&mut self, workers: usize) {
        self.workers = workers;
    }

    /// The state of the test.
    pub fn pulse(&mut self, pulse: &Pulse<'_>) {
        if self.state == State::Starting {
            self.state = State::Running;
        }
        let progress = &pulse.progress;
        (self.users, self.workers) = (progress.users, pulse.workers);
        self.rate = rounded(progress.per_second);
        let recent = Figures::of(&progress.recent);
        self.points.push(Point {
            second: rounded(progress.elapsed.as_secs_f64()),
            users: progress.users,
            workers: pulse.workers,
            rate: self.rate,
            failures: recent.failures,
            p50: recent.p50,
            p95: recent.p95,
            p99: recent.p99,
        });
        if self.points.len() > POINTS {
            self.thin_out();
        }
        self.measured(pulse.report);
        self.result = Some(Ended {
            report: pulse.report.clone(),
            workers: pulse.workers,
            lost: Vec::new(),
            was_abandoned: false,
        });
    }

    /// Every second point, with the failures of both.
    fn thin_out(&mut self) {
        let pairs = self.points.chunks(2).filter_map(|pair| {
            let last = pair.last()?;
            Some(Point {
                failures: pair.iter().map(|point| point.failures).sum(),
                ..last.clone()
            })
        });
        self.points = pairs.collect();
    }

    fn measured(&mut self, report: &Report) {
        self.seconds = rounded(report.elapsed.as_secs_f64());
        self.refused = report.stats.of(|event| event == Event::RateLimited).calls();
        self.total = Figures::of(&report.stats.total());
        let rows = report.stats.series().take(ROWS);
        self.rows = rows
            .map(|(event, name, series)| Row {
                event: event.name(),
                name: name.to_owned(),
                figures: Figures::of(series),
            })
            .collect();
        let errors = report.stats.errors();
        self.errors = errors.map(|(error, count)| (error.to_owned(), count)).collect();
    }

    /// The test has ended, and what it has measured is complete.
    pub fn ended(&mut self, ended: &Ended) {
        self.measured(&ended.report);
        (self.result, self.is_complete) = (Some(ended.clone()), true);
        self.rate = rounded(ended.report.per_second());
        let lost = match ended.lost.len() {
            0 => String::new(),
            lost => format!(
                " {lost} of {} workers were lost; what they did after their last message is missing.",
                ended.workers
            ),
        };
        let how = if ended.was_abandoned {
            "The test ended early, as all workers were lost."
        } else if ended.report.interrupted {
            "The test was stopped."
        } else {
            "The test is complete."
        };
        self.message = format!("{how}{lost}");
    }

    /// Why a test did not begin, or what remains of it.
    pub fn note(&mut self, message: &str) {
        if !self.message.is_empty() {
            self.message.push(' ');
        }
        self.message.push_str(message);
    }

    /// Another test can begin.
    pub fn ready(&mut self) {
        (self.state, self.users) = (State::Ready, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::progress::Progress;

    fn view() -> View {
        let defaults = Defaults {
            users: 10,
            spawn_rate: 5,
            seconds: None,
        };
        View::new(
            "limits".into(),
            "simple".into(),
            vec!["SimpleUser".into()],
            defaults,
        )
    }

    fn report(calls: u64) -> Report {
        let mut report = Report::of_nothing();
        for call in 0..calls {
            let error = (call == 0).then(|| "down".to_owned());
            report
                .stats
                .add(Event::Acquire, "api", Duration::from_millis(4), error);
        }
        report
    }

    #[test]
    fn a_test_is_shown_from_start_to_end() {
        let mut view = view();
        view.workers(2);
        view.begin();
        assert_eq!((view.state(), view.workers), (State::Starting, 2));
        let report = report(10);
        let pulse = Pulse {
            progress: Progress {
                elapsed: Duration::from_secs(1),
                users: 7,
                per_second: 10.0,
                refused: 0,
                total: report.stats.total(),
                recent: report.stats.total(),
                cores: None,
            },
            workers: 2,
            report: &report,
        };
        for _ in 0..=POINTS {
            view.pulse(&pulse);
        }
        assert_eq!(view.points.len(), POINTS / 2 + 1);
        assert_eq!((view.points[0].failures, view.points[300].failures), (2, 1));
        view.stopping();
        view.pulse(&pulse);
        assert_eq!(view.state(), State::Stopping);
        view.ended(&Ended {
            report,
            workers: 3,
            lost: vec![crate::cluster::Lost {
                name: "one".into(),
                why: "closed".into(),
            }],
            was_abandoned: false,
        });
        view.ready();
        assert_eq!(
            view.message,
            "The test was stopped. 1 of 3 workers were lost; what they did after their last message is missing."
        );
        let shown = serde_json::to_value(&view).unwrap();
        assert_eq!((&shown["state"], &shown["users"]), (&"ready".into(), &0.into()));
        assert_eq!(shown["rows"][0]["event"], "ACQUIRE");
        assert_eq!(shown["errors"], serde_json::json!([["down", 1]]));
        let sample = view.sample();
        assert_eq!((sample.is_complete, sample.result.unwrap().lost.len()), (true, 1));
        view.begin();
        assert_eq!((view.points.len(), view.message.as_str()), (0, ""));
        assert!(view.sample().result.is_none());
    }
}
