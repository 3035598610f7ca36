//! The users of a worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zae_limiter::RateLimiter;
use zae_limiter::table::RequestCost;

use super::message::{Start, WorkerId};
use crate::processor::processor_time;
use crate::report::Report;
use crate::users::{Crowd, DRAIN_TIMEOUT, World};

/// Users of this process, whose number changes on request.
pub(super) struct Users {
    world: Arc<World>,
    /// One for each class.
    crowds: Vec<Crowd>,
    /// The start of the first user.
    began: Option<Instant>,
    /// What the reports until now have counted.
    counted: Counted,
}

struct Counted {
    cost: RequestCost,
    cpu: Option<Duration>,
}

impl Users {
    /// No users yet. Their numbers, and so the entities that are made for them, differ from those of other workers.
    pub(super) fn new(limiter: &RateLimiter, start: &Start, worker: WorkerId) -> Self {
        let world = World::new(limiter, &start.scenario, start.parents.clone(), start.seed)
            // Nothing is due before users are assigned.
            .paced(start.is_open_loop.then_some(0.0));
        let classes = start.scenario.classes.len();
        // More users than this of a class are not started in a test.
        let first = |class: usize| (u64::from(worker) << 44) | ((class as u64) << 32);
        Self {
            world: Arc::new(world),
            crowds: (0..classes)
                .map(|class| Crowd::of_class(class, first(class)))
                .collect(),
            began: None,
            counted: Counted {
                cost: limiter.repository().request_cost(),
                cpu: processor_time(),
            },
        }
    }

    /// Starts users of each class, or ends some after their call. In an open loop so many tasks are due in a second.
    pub(super) fn resize(&mut self, users: &[usize], rate: f64) {
        self.world.set_rate(rate);
        if users.iter().any(|users| *users > 0) {
            self.began.get_or_insert_with(Instant::now);
        }
        for (crowd, users) in self.crowds.iter_mut().zip(users) {
            crowd.resize(*users, &self.world);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.crowds.iter().map(Crowd::len).sum()
    }

    /// Asks users to add their time. Those that are at their next task then are in the next report.
    pub(super) fn ask_for_times(&self) {
        self.world.ask_for_times();
    }

    /// What was measured since the last call; only `elapsed` is since the first user.
    pub(super) fn measured(&mut self) -> Report {
        let (stats, times) = self.world.take();
        let cost = self.world.limiter.repository().request_cost();
        let cpu = processor_time();
        let part = Report {
            elapsed: self.began.map_or(Duration::ZERO, |began| began.elapsed()),
            interrupted: false,
            users: 0,
            stats,
            cost: cost.since(&self.counted.cost),
            cpu: cpu
                .zip(self.counted.cpu)
                .map(|(now, then)| now.saturating_sub(then)),
            user_time: times.all,
            think_time: times.thought,
            late: times.late,
        };
        self.counted = Counted { cost, cpu };
        part
    }

    /// Ends all users after their calls.
    pub(super) async fn end(&mut self) {
        let end = Instant::now() + DRAIN_TIMEOUT;
        for crowd in &mut self.crowds {
            crowd.release();
        }
        for crowd in &mut self.crowds {
            crowd.end_by(end).await;
        }
    }
}
