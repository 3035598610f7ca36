//! How many workers are started, and when.

use std::collections::VecDeque;
use std::time::Duration;

/// The rules of the scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// How many users a worker carries.
    pub users_per_worker: usize,
    /// The fewest workers, also while no test runs.
    pub min_workers: usize,
    /// The most workers; `None` for any number.
    pub max_workers: Option<usize>,
    /// How long a worker takes to start: growth is expected to go on for this long.
    pub startup_lead_time: Duration,
    /// How long a worker that was started may take to connect.
    pub pending_timeout: Duration,
    /// How long a worker lives; `None` if it lives as long as it is needed.
    pub lifetime: Option<Duration>,
    /// The part of its life after which a worker is replaced.
    pub replace_at: f64,
}

impl Scaling {
    /// The time between two decisions.
    pub const POLL: Duration = Duration::from_secs(5);

    /// Always this many workers, which live as long as the test.
    pub fn fixed(workers: usize) -> Self {
        Self {
            min_workers: workers,
            max_workers: Some(workers),
            ..Self::default()
        }
    }

    /// How many workers these users need. `growth` is in users a second.
    fn desired(&self, seen: &Seen, growth: f64) -> usize {
        let most = self.max_workers.unwrap_or(usize::MAX);
        let least = self.min_workers.min(most);
        if !seen.is_running {
            return least;
        }
        let for_users = |users: usize| users.div_ceil(self.users_per_worker.max(1));
        let coming = growth.max(0.0) * self.startup_lead_time.as_secs_f64();
        // The conversion saturates.
        let predicted = seen.users.saturating_add(coming.ceil() as usize);
        // A test begins when a worker is there for its first users.
        let least = least.max(1).min(most);
        for_users(seen.users).max(for_users(predicted)).clamp(least, most)
    }
}

impl Default for Scaling {
    /// The values of the deployment's parameters.
    fn default() -> Self {
        Self {
            users_per_worker: 10,
            min_workers: 1,
            max_workers: None,
            startup_lead_time: Duration::from_secs(20),
            pending_timeout: Duration::from_secs(30),
            lifetime: None,
            replace_at: 0.8,
        }
    }
}

/// The state of a test when a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How many users there should be.
    pub users: usize,
    /// How many workers are connected and not about to leave.
    pub connected: usize,
    /// Whether users are started or run.
    pub is_running: bool,
}

/// Decides how many workers are started. Times are since its own start.
#[derive(Debug)]
pub struct Scaler {
    rules: Scaling,
    /// When workers were started that have not connected.
    pending: VecDeque<Duration>,
    /// When workers were started that are connected, the oldest first.
    active: VecDeque<Duration>,
    last: Option<(Duration, Seen)>,
    /// The end of the last test.
    idle_since: Duration,
}

impl Scaler {
    /// No worker yet.
    pub fn new(rules: Scaling) -> Self {
        Self {
            rules,
            pending: VecDeque::new(),
            active: VecDeque::new(),
            last: None,
            idle_since: Duration::ZERO,
        }
    }

    /// Returns how many workers to start now, and counts them as started.
    pub fn poll(&mut self, now: Duration, seen: Seen) -> usize {
        if seen.is_running {
            self.idle_since = now;
        }
        let growth = match self.last {
            Some((at, before)) if now > at && seen.users > before.users => {
                (seen.users - before.users) as f64 / now.saturating_sub(at).as_secs_f64()
            }
            _ => 0.0,
        };
        self.account(now, seen.connected);
        self.last = Some((now, seen));
        let desired = self.rules.desired(&seen, growth);
        let missing = desired.saturating_sub(seen.connected + self.pending.len());
        // Of those that are about to end, only as many as are needed when they have left.
        let expiring = self.expiring(now);
        let staying = (seen.connected + self.pending.len() + missing).saturating_sub(expiring);
        let replaced = desired.saturating_sub(staying).min(expiring);
        let wanted = missing + replaced;
        self.pending.extend(std::iter::repeat_n(now, wanted));
        wanted
    }

    /// A worker has connected. Those that connect and leave between two decisions are not missed.
    pub fn joined(&mut self, now: Duration) {
        let started = self.pending.pop_front().unwrap_or_else(|| self.adopted(now));
        self.active.push_back(started);
        self.active.make_contiguous().sort_unstable();
    }

    /// How long no test has run.
    pub fn idle(&self, now: Duration) -> Duration {
        now.saturating_sub(self.idle_since)
    }

    /// Which workers are connected, as far as their number tells.
    fn account(&mut self, now: Duration, connected: usize) {
        let too_late = |started: &Duration| now.saturating_sub(*started) > self.rules.pending_timeout;
        while self.pending.front().is_some_and(too_late) {
            self.pending.pop_front();
        }
        // Those that have left are the oldest.
        while self.active.len() > connected {
            self.active.pop_front();
        }
        while self.active.len() < connected {
            let started = self.pending.pop_front().unwrap_or_else(|| self.adopted(now));
            self.active.push_back(started);
        }
        self.active.make_contiguous().sort_unstable();
    }

    /// The assumed start of a worker that was started by another master, or in time but connected late.
    fn adopted(&self, now: Duration) -> Duration {
        let lead = self.rules.startup_lead_time;
        let age = match (self.last, self.rules.lifetime) {
            (None, Some(lifetime)) => lifetime.saturating_sub(lead),
            _ => lead,
        };
        now.saturating_sub(age)
    }

    fn expiring(&self, now: Duration) -> usize {
        let Some(lifetime) = self.rules.lifetime else {
            return 0;
        };
        let old = lifetime.mul_f64(self.rules.replace_at.clamp(0.0, 1.0));
        let is_old = |started: &&Duration| now.saturating_sub(**started) >= old;
        self.active.iter().filter(is_old).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const fn running(users: usize, connected: usize) -> Seen {
        Seen {
            users,
            connected,
            is_running: true,
        }
    }

    const fn waiting(connected: usize) -> Seen {
        Seen {
            users: 0,
            connected,
            is_running: false,
        }
    }

    #[test]
    fn workers_follow_the_users_and_their_growth() {
        let mut scaler = Scaler::new(Scaling {
            max_workers: Some(30),
            ..Scaling::default()
        });
        assert_eq!(scaler.poll(secs(0), waiting(0)), 1);
        assert_eq!(scaler.poll(secs(5), waiting(0)), 0, "one is pending");
        assert_eq!(scaler.poll(secs(10), waiting(1)), 0);
        // 50 users in 5 s: 10 a second, so 250 after the lead time.
        assert_eq!(scaler.poll(secs(15), running(50, 1)), 24);
        // No growth: 5 would do, and none is stopped.
        assert_eq!(scaler.poll(secs(20), running(50, 25)), 0);
        assert_eq!(scaler.poll(secs(25), running(1000, 25)), 5, "at most 30");
        assert_eq!(scaler.poll(secs(30), waiting(30)), 0);
    }

    #[test]
    fn a_worker_that_does_not_connect_is_started_again() {
        let mut scaler = Scaler::new(Scaling::fixed(3));
        assert_eq!(scaler.poll(secs(0), waiting(0)), 3);
        assert_eq!(scaler.poll(secs(5), waiting(2)), 0);
        assert_eq!(scaler.poll(secs(30), waiting(2)), 0);
        assert_eq!(scaler.poll(secs(35), waiting(2)), 1);
        assert_eq!(scaler.poll(secs(40), running(10, 3)), 0);
        assert_eq!(scaler.poll(secs(45), running(10, 2)), 1, "one was lost");
    }

    #[test]
    fn workers_are_replaced_before_they_end() {
        let mut scaler = Scaler::new(Scaling {
            lifetime: Some(secs(300)),
            ..Scaling::fixed(4)
        });
        assert_eq!(scaler.poll(secs(0), running(40, 0)), 4);
        assert_eq!(scaler.poll(secs(10), running(40, 4)), 0);
        assert_eq!(scaler.poll(secs(235), running(40, 4)), 0);
        assert_eq!(scaler.poll(secs(240), running(40, 4)), 4);
        assert_eq!(scaler.poll(secs(245), running(40, 4)), 0, "they are pending");
        assert_eq!(scaler.poll(secs(250), running(40, 8)), 0, "both are there");
        assert_eq!(
            scaler.poll(secs(270), running(40, 4)),
            0,
            "the old ones have left"
        );
        assert_eq!(scaler.poll(secs(479), running(40, 4)), 0);
        assert_eq!(scaler.poll(secs(480), running(40, 4)), 4);
    }

    #[test]
    fn workers_that_are_not_needed_end_without_a_replacement() {
        let rules = Scaling {
            lifetime: Some(secs(300)),
            ..Scaling::default()
        };
        let mut scaler = Scaler::new(rules.clone());
        assert_eq!(scaler.poll(secs(0), running(40, 0)), 4);
        assert_eq!(scaler.poll(secs(10), running(40, 4)), 0);
        assert_eq!(
            scaler.poll(secs(240), running(15, 4)),
            2,
            "two are needed when all have left"
        );
        // Workers of another master are assumed to be near their end.
        let mut scaler = Scaler::new(rules);
        assert_eq!(scaler.poll(secs(400), running(20, 2)), 2);
        assert_eq!(scaler.poll(secs(405), running(20, 3)), 0);
    }

    #[test]
    fn one_that_leaves_before_it_was_seen_is_replaced() {
        let mut scaler = Scaler::new(Scaling::fixed(2));
        assert_eq!(scaler.poll(secs(0), running(9, 0)), 2);
        scaler.joined(secs(1));
        scaler.joined(secs(2));
        assert_eq!(scaler.poll(secs(5), running(9, 1)), 1);
    }

    #[test]
    fn it_is_idle_since_the_last_test() {
        let mut scaler = Scaler::new(Scaling::fixed(1));
        scaler.poll(secs(5), waiting(1));
        assert_eq!(scaler.idle(secs(900)), secs(900));
        scaler.poll(secs(900), running(5, 1));
        scaler.poll(secs(905), waiting(1));
        assert_eq!(scaler.idle(secs(1000)), secs(100));
    }
}
