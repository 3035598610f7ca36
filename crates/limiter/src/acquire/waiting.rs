//! Calls that wait for tokens: in arrival order for each entity and resource of a process, and never before the time
//! that a refusal has told.
//!
//! Calls that wait stand in a queue per bucket; a call for several resources in that of each, and it asks when it may by all of
//! them. It enters them at once, so that of two calls the same one is ahead in all queues that both are in. The first may ask the
//! table. Each admission doubles how many of those in
//! front may ask at the same time, up to 64, so that a fast limit is not slowed down to one call per round trip. A refusal
//! brings it back to one, and no call behind one that was refused may ask before that one is admitted. So a call can be
//! overtaken only by those that are asking at the same time as it asks for the first time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use zae_limiter_core::RateLimitExceeded;
use zae_limiter_core::schema::BucketId;

/// How many calls of a queue ask at the same time, as long as all are admitted.
const WIDEST: usize = 64;

/// The longest jitter that is added to a wait, and the longest where the wait is short.
const LONGEST_JITTER: Duration = Duration::from_millis(250);
const SHORTEST_JITTER: Duration = Duration::from_millis(10);

/// How long a call waits for tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    UpTo(Duration),
    Forever,
}

impl Patience {
    /// When it ends, if it does.
    pub(crate) fn until(self, now: Instant) -> Option<Instant> {
        match self {
            Self::UpTo(max) => now.checked_add(max),
            Self::Forever => None,
        }
    }
}

type Tell = dyn Fn(&RateLimitExceeded, Duration) + Send + Sync;

/// Called for each refusal after which the call waits, with the time of the wait.
#[derive(Clone)]
pub(crate) struct OnWait(Arc<Tell>);

impl OnWait {
    pub(crate) fn new(tell: impl Fn(&RateLimitExceeded, Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn tell(&self, refused: &RateLimitExceeded, wait: Duration) {
        (self.0)(refused, wait);
    }
}

impl fmt::Debug for OnWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnWait")
    }
}

/// The queues of a repository. A bucket has one exactly while calls wait for it.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: Mutex<HashMap<BucketId, Queue>>,
}

#[derive(Debug)]
struct Queue {
    next: u64,
    /// Ascending.
    waiting: VecDeque<Waiting>,
    /// How many in front may ask.
    window: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    turn: Arc<Notify>,
    /// It was refused, and waits until it may ask again.
    was_refused: bool,
    /// It waits for tokens of another resource: until it is back, it holds up no call.
    is_away: bool,
}

impl Queue {
    fn at(&self, number: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&number, |waiting| waiting.number)
            .ok()
    }

    /// Those in front that may ask: none behind the first that was refused.
    fn open(&self) -> impl Iterator<Item = &Waiting> {
        let present = self.waiting.iter().filter(|waiting| !waiting.is_away);
        present.take(self.window).scan(false, |is_closed, waiting| {
            if *is_closed {
                return None;
            }
            *is_closed = waiting.was_refused;
            Some(waiting)
        })
    }

    fn wake(&self) {
        for waiting in self.open() {
            waiting.turn.notify_one();
        }
    }
}

impl Queues {
    fn lock(&self) -> MutexGuard<'_, HashMap<BucketId, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the end of the queues of these buckets, at once.
    pub(crate) fn enter(self: &Arc<Self>, ids: impl IntoIterator<Item = BucketId>) -> Place {
        let turn = Arc::new(Notify::new());
        let mut queues = self.lock();
        let mut enter = |id: BucketId| {
            let queue = queues.entry(id.clone()).or_insert_with(|| Queue {
                next: 0,
                waiting: VecDeque::new(),
                window: 1,
            });
            let number = queue.next;
            queue.next += 1;
            queue.waiting.push_back(Waiting {
                number,
                turn: Arc::clone(&turn),
                was_refused: false,
                is_away: false,
            });
            (id, number)
        };
        let numbers = ids.into_iter().map(&mut enter).collect();
        Place {
            queues: Arc::clone(self),
            numbers,
            turn,
        }
    }

    /// How many calls are in the queues of all buckets together.
    #[cfg(any(test, feature = "metrics"))]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().values().map(|queue| queue.waiting.len()).sum()
    }
}

/// A call's place in the queues of its buckets. It is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queues: Arc<Queues>,
    numbers: Vec<(BucketId, u64)>,
    turn: Arc<Notify>,
}

impl Place {
    /// Waits until the call may ask the table.
    pub(crate) async fn turn(&self) {
        self.comes_back();
        while !self.may_ask() {
            self.turn.notified().await;
        }
    }

    fn comes_back(&self) {
        let mut queues = self.queues.lock();
        for (id, number) in &self.numbers {
            if let Some(queue) = queues.get_mut(id)
                && let Some(at) = queue.at(*number)
            {
                queue.waiting[at].is_away = false;
            }
        }
    }

    fn may_ask(&self) -> bool {
        let queues = self.queues.lock();
        self.numbers.iter().all(|(id, number)| {
            let queue = queues.get(id);
            queue.is_none_or(|queue| queue.open().any(|waiting| waiting.number == *number))
        })
    }

    /// The call was admitted: more may ask at the same time.
    pub(crate) fn admitted(self) {
        let mut queues = self.queues.lock();
        for (id, _) in &self.numbers {
            if let Some(queue) = queues.get_mut(id) {
                queue.window = (queue.window * 2).min(WIDEST);
            }
        }
        // Giving the place up takes the lock.
        drop(queues);
    }

    /// The call was refused for another reason than a limit of tokens, and continues waiting: the others wait behind the first.
    pub(crate) fn must_wait(&self) {
        self.refused(&RateLimitExceeded::contended(Vec::new()));
    }

    /// The call was refused, and continues waiting: the others wait behind the first. Only for the resources that have refused it:
    /// those that wait for others are not held up.
    pub(crate) fn refused(&self, refused: &RateLimitExceeded) {
        let mut queues = self.queues.lock();
        let is_any = refused.violations().next().is_some();
        for (id, number) in &self.numbers {
            let Some(queue) = queues.get_mut(id) else { continue };
            let Some(at) = queue.at(*number) else { continue };
            let mut violations = refused.violations();
            if !is_any || violations.any(|status| status.resource == id.resource) {
                queue.window = 1;
                queue.waiting[at].was_refused = true;
            } else {
                queue.waiting[at].is_away = true;
                queue.wake();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        for (id, number) in &self.numbers {
            let Some(queue) = queues.get_mut(id) else { continue };
            if let Some(at) = queue.at(*number) {
                queue.waiting.remove(at);
            }
            if queue.waiting.is_empty() {
                queues.remove(id);
            } else {
                queue.wake();
            }
        }
    }
}

/// How long to sleep after a refusal: never less than its wait, and a little more, so that processes with the same wait
/// do not retry at the same time.
pub(crate) fn with_jitter(wait: Duration) -> Duration {
    let most = (wait / 10).clamp(SHORTEST_JITTER, LONGEST_JITTER);
    wait + Duration::from_millis(1) + most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zae_limiter_core::{EntityId, LimitStatus, NamespaceId, ResourceName, Wait};

    fn bucket(entity: &str) -> BucketId {
        BucketId {
            namespace: NamespaceId::new("AAAAAAAAAAA").unwrap(),
            entity: EntityId::new(entity).unwrap(),
            resource: ResourceName::new("r").unwrap(),
        }
    }

    fn asking(places: &[Place]) -> Vec<u64> {
        let may = places.iter().filter(|place| place.may_ask());
        may.map(|place| place.numbers[0].1).collect()
    }

    #[test]
    fn each_admission_lets_more_ask_and_none_behind_one_that_was_refused() {
        let queues = Arc::new(Queues::default());
        let mut places: Vec<Place> = (0..12).map(|_| queues.enter([bucket("k")])).collect();
        assert_eq!(asking(&places), [0]);
        places.remove(0).admitted();
        assert_eq!(asking(&places), [1, 2]);
        places.remove(0).admitted();
        assert_eq!(asking(&places), [2, 3, 4, 5]);
        // The third one is refused, and while it waits, the second and then the fourth are admitted.
        places[1].refused(&RateLimitExceeded::contended(Vec::new()));
        assert_eq!(asking(&places), [2]);
        places.remove(0).admitted();
        assert_eq!(asking(&places), [3]);
        places.remove(1).admitted();
        assert_eq!(asking(&places), [3]);
        // One that gives up leaves its place to the next.
        drop(places.remove(0));
        assert_eq!(asking(&places), [5, 6, 7, 8]);
        assert_eq!(asking(&[queues.enter([bucket("other")])]), [0]);
        drop(places);
        assert_eq!(queues.waiting(), 0);
        assert!(queues.lock().is_empty());
    }

    #[test]
    fn a_call_for_several_buckets_asks_when_it_is_in_front_of_all() {
        let queues = Arc::new(Queues::default());
        let (a, b) = (bucket("a"), bucket("b"));
        let first = queues.enter([a.clone(), b.clone()]);
        let second = queues.enter([b.clone(), a.clone()]);
        let alone = queues.enter([b.clone()]);
        assert!(first.may_ask() && !second.may_ask() && !alone.may_ask());
        drop(first);
        assert!(second.may_ask() && !alone.may_ask());
        second.refused(&RateLimitExceeded::contended(Vec::new()));
        drop(second);
        assert!(alone.may_ask());
        drop(alone);
        assert!(queues.lock().is_empty());
    }

    #[test]
    fn a_call_that_waits_for_another_resource_keeps_its_place_and_holds_up_none() {
        let queues = Arc::new(Queues::default());
        let of = |resource: &str| BucketId {
            resource: ResourceName::new(resource).unwrap(),
            ..bucket("k")
        };
        let both = queues.enter([of("a"), of("b")]);
        let (alone, behind) = (queues.enter([of("a")]), queues.enter([of("b")]));
        let status = LimitStatus {
            entity: EntityId::new("k").unwrap(),
            resource: ResourceName::new("b").unwrap(),
            limit_name: "n".into(),
            capacity: 10,
            refill_amount: 10,
            refill_period: Duration::from_secs(1),
            shards: 1,
            available: 0,
            requested: 1,
            exceeded: true,
            wait: Wait::Millis(100),
            is_quota: false,
            resets_at: None,
            is_soft: false,
        };
        both.refused(&RateLimitExceeded::new(vec![status]));
        assert!(alone.may_ask() && !behind.may_ask());
        both.comes_back();
        assert!(both.may_ask() && !alone.may_ask() && !behind.may_ask());
    }

    #[test]
    fn a_wait_is_never_cut_short() {
        for millis in [0, 1, 10, 1000, 100_000] {
            let wait = Duration::from_millis(millis);
            let slept = with_jitter(wait);
            assert!(slept > wait && slept <= wait + Duration::from_millis(251));
        }
    }
}
