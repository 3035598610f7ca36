//! Tasks at a fixed rate, for an open loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than any run.
const AGE: Duration = Duration::from_hours(100 * 365 * 24);

/// When tasks are due: one after another, at the same distance.
///
/// Users take the next one when they are free. While all of them are busy, tasks become late, and none is skipped.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When the first task at this rate was due.
    began: Instant,
    per_second: f64,
    taken: u64,
    /// Tasks of users that ended before they were due.
    returned: BinaryHeap<Reverse<Instant>>,
}

impl State {
    /// When the next task is due. At no rate, it never is.
    fn next(&self) -> Instant {
        let after = Duration::try_from_secs_f64(self.taken as f64 / self.per_second);
        let after = match after {
            Ok(after) if self.per_second > 0.0 => after,
            _ => Duration::MAX,
        };
        self.began.checked_add(after).unwrap_or(self.began + AGE)
    }
}

impl Pace {
    /// So many tasks are due in a second from `now` on, 0 for none.
    pub(crate) fn new(now: Instant, per_second: f64) -> Self {
        Self(Mutex::new(State {
            began: now,
            per_second,
            taken: 0,
            returned: BinaryHeap::new(),
        }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the next task. Returns when it is due.
    pub(crate) fn take(&self) -> Instant {
        self.with(|state| {
            let next = state.next();
            if let Some(Reverse(due)) = state.returned.peek().copied()
                && due <= next
            {
                state.returned.pop();
                return due;
            }
            state.taken += 1;
            next
        })
    }

    /// Returns a task that was taken and not begun: another user takes it.
    pub(crate) fn give_back(&self, due: Instant) {
        self.with(|state| state.returned.push(Reverse(due)));
    }

    /// Another rate from the next task on, which is due when it was before. Tasks that are late stay so.
    pub(crate) fn change(&self, now: Instant, per_second: f64) {
        self.with(|state| {
            if state.per_second.to_bits() == per_second.to_bits() {
                return;
            }
            if state.per_second > 0.0 {
                state.began = state.next();
            } else {
                state.began = now;
            }
            (state.per_second, state.taken) = (per_second, 0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pace: &Pace, began: Instant, tasks: usize) -> Vec<u128> {
        (0..tasks).map(|_| (pace.take() - began).as_millis()).collect()
    }

    #[test]
    fn tasks_are_due_at_the_same_distance() {
        let began = Instant::now();
        let pace = Pace::new(began, 4.0);
        assert_eq!(taken(&pace, began, 4), [0, 250, 500, 750]);
    }

    #[test]
    fn the_slowest_rate_does_not_overflow() {
        let began = Instant::now();
        let pace = Pace::new(began, f64::MIN_POSITIVE);
        assert_eq!(pace.take(), began);
        assert_eq!(pace.take(), began + AGE);
    }

    #[test]
    fn no_task_is_lost_or_due_twice_when_the_rate_changes() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let pace = Pace::new(began, 0.0);
        pace.change(at(100), 10.0);
        assert_eq!(taken(&pace, began, 3), [100, 200, 300]);
        // The next is due at 400, also if the rate is given again.
        pace.change(at(350), 10.0);
        pace.change(at(350), 5.0);
        assert_eq!(taken(&pace, began, 3), [400, 600, 800]);
        pace.give_back(at(800));
        pace.give_back(at(600));
        pace.change(at(500), 20.0);
        assert_eq!(taken(&pace, began, 4), [600, 800, 1000, 1050]);
    }
}
