//! How many users there are at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of users that is kept for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// How many users.
    pub users: usize,
    /// For how long, the time to get there included.
    pub length: Duration,
}

/// Stages, and how fast users are added or leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    stages: Vec<Stage>,
    per_second: f64,
}

impl Schedule {
    /// Stages in order. `per_second` users are added or leave in a second, until a stage has its number.
    pub fn new(stages: Vec<Stage>, per_second: f64) -> Self {
        Self { stages, per_second }
    }

    /// How long it lasts.
    pub fn length(&self) -> Duration {
        self.stages
            .iter()
            .fold(Duration::ZERO, |all, stage| all.saturating_add(stage.length))
    }

    /// The largest number of users.
    pub fn most(&self) -> usize {
        self.stages.iter().map(|stage| stage.users).max().unwrap_or(0)
    }

    /// How many users there are after this time; `None` after the end. The first user starts at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zae_limiter_loadtest::{Schedule, Stage};
    ///
    /// let minute = Duration::from_secs(60);
    /// let schedule = Schedule::new(vec![Stage { users: 20, length: minute }], 10.0);
    /// assert_eq!(schedule.users_at(Duration::ZERO), Some(1));
    /// assert_eq!(schedule.users_at(Duration::from_secs(1)), Some(11));
    /// assert_eq!(schedule.users_at(Duration::from_secs(2)), Some(20));
    /// assert_eq!(schedule.users_at(minute), None);
    /// ```
    pub fn users_at(&self, elapsed: Duration) -> Option<usize> {
        let mut left = elapsed;
        let mut from = 0;
        for stage in &self.stages {
            let moved = (left.min(stage.length).as_secs_f64() * self.per_second).floor();
            // The conversion saturates.
            let moved = (moved as usize).saturating_add(1);
            let users = if stage.users >= from {
                from.saturating_add(moved).min(stage.users)
            } else {
                from.saturating_sub(moved).max(stage.users)
            };
            if left < stage.length {
                return Some(users);
            }
            left -= stage.length;
            from = users;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn users_are_added_and_leave_at_the_rate() {
        let stages = [(4, 10), (10, 5), (2, 60)].map(|(users, length)| Stage {
            users,
            length: secs(length),
        });
        let schedule = Schedule::new(stages.to_vec(), 2.0);
        let at = |millis| schedule.users_at(Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(499), at(500), at(1500), at(9999)],
            [1, 1, 2, 4, 4].map(Some)
        );
        assert_eq!([at(10_000), at(12_000), at(14_999)], [5, 9, 10].map(Some));
        assert_eq!([at(15_000), at(17_000), at(60_000)], [9, 5, 2].map(Some));
        assert_eq!(at(75_000), None);
        assert_eq!((schedule.length(), schedule.most()), (secs(75), 10));
    }

    #[test]
    fn extreme_rates_and_lengths_are_bounded() {
        let stage = Stage {
            users: usize::MAX,
            length: Duration::MAX,
        };
        let schedule = Schedule::new(vec![stage, stage], f64::MAX);
        assert_eq!(schedule.users_at(secs(1)), Some(usize::MAX));
        assert_eq!(schedule.length(), Duration::MAX);
        assert_eq!(Schedule::new(Vec::new(), 1.0).users_at(Duration::ZERO), None);
    }
}
