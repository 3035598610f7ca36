//! What a run has measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zae_limiter::table::RequestCost;

use crate::stats::{Event, Stats};

/// The result of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// From the first user's start until the last user's end.
    pub elapsed: Duration,
    /// Whether it was stopped before the end of the schedule.
    pub interrupted: bool,
    /// The largest number of users.
    pub users: usize,
    /// What was measured.
    pub stats: Stats,
    /// What was sent to the table, by the users.
    pub cost: RequestCost,
    /// The processor time that this process has used. `None` if the system does not tell.
    pub cpu: Option<Duration>,
    /// The time of all users together.
    pub user_time: Duration,
    /// The part of it in which they waited for their next task.
    pub think_time: Duration,
    /// How late tasks of an open loop began, all together. Latencies contain it.
    pub late: Duration,
}

impl Report {
    /// The report of a run that was stopped before the first user started.
    pub fn of_nothing() -> Self {
        Self {
            elapsed: Duration::ZERO,
            interrupted: true,
            users: 0,
            stats: Stats::default(),
            cost: RequestCost::default(),
            cpu: None,
            user_time: Duration::ZERO,
            think_time: Duration::ZERO,
            late: Duration::ZERO,
        }
    }

    /// Adds what another process has measured at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.interrupted |= other.interrupted;
        self.users = self.users.saturating_add(other.users);
        self.stats.merge(&other.stats);
        self.cost = self.cost.plus(&other.cost);
        self.cpu = self
            .cpu
            .zip(other.cpu)
            .map(|(ours, theirs)| ours.saturating_add(theirs));
        self.user_time = self.user_time.saturating_add(other.user_time);
        self.think_time = self.think_time.saturating_add(other.think_time);
        self.late = self.late.saturating_add(other.late);
    }

    /// Calls in a second, over the whole run.
    pub fn per_second(&self) -> f64 {
        self.stats.total().per_second(self.elapsed)
    }

    /// The mean number of users.
    pub fn mean_users(&self) -> f64 {
        per(self.user_time.as_secs_f64(), self.elapsed)
    }

    /// The number of users by Little's law: throughput, times latency and think time.
    ///
    /// If it is not the [mean number of users](Self::mean_users), users have waited for something that was not measured, such
    /// as a processor.
    pub fn users_by_littles_law(&self) -> f64 {
        let busy = self.stats.total().sum().saturating_sub(self.late);
        per(busy.saturating_add(self.think_time).as_secs_f64(), self.elapsed)
    }

    /// Tasks that began in a second, over the whole run.
    pub fn tasks_per_second(&self) -> f64 {
        let of = |event| matches!(event, Event::Acquire | Event::RateLimited | Event::Available);
        self.stats.of(of).per_second(self.elapsed)
    }

    /// Acquires: admitted, refused or failed.
    pub fn acquires(&self) -> u64 {
        let of = |event| matches!(event, Event::Acquire | Event::RateLimited);
        self.stats.of(of).calls()
    }
}

/// An amount in a second; zero in no time.
pub(crate) fn per(amount: f64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        amount / time.as_secs_f64()
    }
}
