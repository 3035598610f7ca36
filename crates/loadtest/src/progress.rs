//! How far a run is.

use std::time::Duration;

use tokio::time::Instant;

use crate::stats::{Event, Series, Stats};

/// A run under way.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Since its start.
    pub elapsed: Duration,
    /// The users at this time.
    pub users: usize,
    /// Calls in a second, since the last progress.
    pub per_second: f64,
    /// Refusals by limits, since the start.
    pub refused: u64,
    /// All calls since the start.
    pub total: Series,
    /// The calls since the last progress.
    pub recent: Series,
    /// The processor time that this process has used since the last progress, in cores. `None` if the system does not tell.
    pub cores: Option<f64>,
}

/// What the last progress has counted.
pub(crate) struct Last {
    /// When it was.
    pub(crate) at: Instant,
    total: Series,
}

impl Last {
    /// Nothing was counted until then.
    pub(crate) fn at(at: Instant) -> Self {
        Self {
            at,
            total: Series::default(),
        }
    }

    /// The state now, and what has changed since the last one. `cores` is not known here.
    pub(crate) fn progress(&mut self, began: Instant, now: Instant, users: usize, stats: &Stats) -> Progress {
        let total = stats.total();
        let recent = total.since(&self.total);
        let since = now - self.at;
        *self = Self {
            at: now,
            total: total.clone(),
        };
        Progress {
            elapsed: now - began,
            users,
            per_second: recent.per_second(since),
            refused: stats.of(|event| event == Event::RateLimited).calls(),
            total,
            recent,
            cores: None,
        }
    }
}
