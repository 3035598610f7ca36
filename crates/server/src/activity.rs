//! What this process has done lately, in bounded memory: the numbers of the page.

mod busiest;
mod measured;
mod recorder;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusRecorder;
use serde::Serialize;
use tokio::time::Instant;
use zae_limiter::{EntityId, EpochMillis, Error, Lease, ResourceName};

use busiest::{Busiest, Rank};
use measured::Measured;
pub(crate) use measured::Step;
use recorder::Recorder;

/// How long a step takes.
pub(crate) const STEP: Duration = Duration::from_secs(5);

/// How many steps are kept: 15 minutes.
const KEPT: usize = 180;

/// Whose tokens a request takes, and for which resource.
pub(crate) type Target = (EntityId, ResourceName);

/// What happened, step by step, and who asked most.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    measured: Arc<Measured>,
    steps: Mutex<VecDeque<Step>>,
    busiest: Mutex<Busiest>,
}

/// The numbers of the page.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    uptime_ms: u64,
    step_ms: u64,
    steps: VecDeque<Step>,
    busiest: Ranking,
}

#[derive(Debug, Serialize)]
struct Ranking {
    /// How long the counts reach back.
    window_ms: u64,
    most_requests: Vec<Rank>,
    most_refusals: Vec<Rank>,
}

impl Activity {
    /// Nothing has happened.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            measured: Arc::default(),
            steps: Mutex::default(),
            busiest: Mutex::new(Busiest::new(now)),
        }
    }

    /// A recorder that gives everything to another one, and counts what the page shows.
    pub(crate) fn recording(&self, inner: PrometheusRecorder) -> Recorder<PrometheusRecorder> {
        Recorder::new(inner, Arc::clone(&self.measured))
    }

    /// Ends a step. Call it every [`STEP`].
    pub(crate) fn step(&self, now: EpochMillis) {
        let step = self.measured.take(now);
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() == KEPT {
            steps.pop_front();
        }
        steps.push_back(step);
    }

    /// Notes a decision. Failures are not counted: with them, clients could fill the list with names that they make up.
    pub(crate) fn note(&self, target: &Target, decided: &Result<Lease, Error>) {
        let is_refused = match decided {
            Ok(_) => false,
            Err(Error::RateLimitExceeded(_) | Error::ConcurrencyExceeded(_) | Error::Disabled { .. }) => true,
            Err(_) => return,
        };
        let mut busiest = self.busiest.lock().unwrap_or_else(PoisonError::into_inner);
        busiest.note(target, is_refused, Instant::now());
    }

    /// The numbers of the page.
    pub(crate) fn shown(&self) -> Shown {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        let mut busiest = self.busiest.lock().unwrap_or_else(PoisonError::into_inner);
        busiest.turn(now);
        Shown {
            uptime_ms: millis(now - self.began),
            step_ms: millis(STEP),
            steps,
            busiest: Ranking {
                window_ms: millis(busiest.window(now)),
                most_requests: busiest.most_requests(),
                most_refusals: busiest.most_refusals(),
            },
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
