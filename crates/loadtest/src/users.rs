//! Users: each is a task that calls the limiter, one call after the other.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use zae_limiter::{Error, NewEntity, RateLimiter};

use crate::choice::{Choice, Skewed, random_name};
use crate::pace::Pace;
use crate::places::Places;
use crate::scenario::{Action, EntityChoice, Scenario, Task, UserClass};
use crate::stats::{Event, Stats};

/// How long users may take to end the calls that they have begun.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The pause before a user's entity is created again.
const CREATE_PAUSE: Duration = Duration::from_secs(1);

/// How long a text of a failure may be, in characters.
const REASON: usize = 160;

/// What users share.
pub(crate) struct World {
    pub(crate) limiter: RateLimiter,
    classes: Vec<Class>,
    /// The weights of the classes.
    weights: Vec<u32>,
    /// Users record in one of these, to reduce lock contention.
    stats: Vec<Mutex<Stats>>,
    /// How often the measurements were discarded.
    discards: AtomicUsize,
    /// When tasks are due in an open loop.
    pace: Option<Pace>,
    /// How often users were asked to add their time before they end.
    askings: AtomicUsize,
    /// The times of users, as far as they have added them.
    times: Mutex<Times>,
    seed: u64,
}

/// A class of users in a run.
struct Class {
    users: UserClass,
    parent: Option<String>,
    skewed: Option<Skewed>,
}

/// Times of users, each of all of them together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) all: Duration,
    pub(crate) thought: Duration,
    pub(crate) late: Duration,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Nothing measured. `parents` are those of the classes.
    pub(crate) fn new(
        limiter: &RateLimiter,
        scenario: &Scenario,
        parents: Vec<Option<String>>,
        seed: u64,
    ) -> Self {
        let parents = parents.into_iter().chain(std::iter::repeat(None));
        let class = |(users, parent): (&UserClass, Option<String>)| Class {
            users: users.clone(),
            parent,
            skewed: Skewed::of(&users.entity),
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            limiter: limiter.clone(),
            classes: scenario.classes.iter().zip(parents).map(class).collect(),
            weights: scenario.classes.iter().map(|class| class.weight).collect(),
            stats: (0..threads * 4).map(|_| Mutex::default()).collect(),
            discards: AtomicUsize::new(0),
            askings: AtomicUsize::new(0),
            pace: None,
            times: Mutex::default(),
            seed,
        }
    }

    /// The same for an open loop: so many tasks are due in a second from now on, if it is one. 0 is for one that
    /// begins with [`World::set_rate`].
    pub(crate) fn paced(self, rate: Option<f64>) -> Self {
        Self {
            pace: rate.map(|rate| Pace::new(Instant::now(), rate)),
            ..self
        }
    }

    /// So many tasks are due in a second from now on, in an open loop.
    pub(crate) fn set_rate(&self, rate: f64) {
        if let Some(pace) = &self.pace {
            pace.change(Instant::now(), rate);
        }
    }

    /// The times that users have added.
    pub(crate) fn times(&self) -> Times {
        *held(&self.times)
    }

    /// Removes and returns what was measured so far, and the time that users have added.
    pub(crate) fn take(&self) -> (Stats, Times) {
        let mut all = Stats::default();
        for part in &self.stats {
            let part = std::mem::take(&mut *held(part));
            all.merge(&part);
        }
        (all, std::mem::take(&mut *held(&self.times)))
    }

    /// Asks users to add their time, as soon as their next task begins.
    pub(crate) fn ask_for_times(&self) {
        self.askings.fetch_add(1, Ordering::SeqCst);
    }

    /// Everything that was measured so far.
    pub(crate) fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for part in &self.stats {
            // The lock is held for a copy, not for a merge.
            let part = held(part).clone();
            all.merge(&part);
        }
        all
    }

    /// Discards what was measured so far.
    pub(crate) fn discard(&self) {
        self.discards.fetch_add(1, Ordering::SeqCst);
        for part in &self.stats {
            *held(part) = Stats::default();
        }
        *held(&self.times) = Times::default();
    }
}

/// The users that run.
#[derive(Default)]
pub(crate) struct Crowd {
    /// One for each user; dropped, the user ends after the call that it has begun.
    stops: Vec<oneshot::Sender<Infallible>>,
    classes: Places,
    /// The class of all users, instead of classes by weight.
    only: Option<usize>,
    tasks: JoinSet<()>,
    /// The number of the next user.
    next: u64,
    /// The largest number of users.
    pub(crate) most: usize,
}

impl Crowd {
    /// Users of one class, with numbers from `first`.
    pub(crate) fn of_class(class: usize, first: u64) -> Self {
        Self {
            only: Some(class),
            next: first,
            ..Self::default()
        }
    }

    /// How many users there are.
    pub(crate) fn len(&self) -> usize {
        self.stops.len()
    }

    /// Starts users, or ends some after their call.
    pub(crate) fn resize(&mut self, users: usize, world: &Arc<World>) {
        self.stops.truncate(users);
        while self.stops.len() < users {
            let (stop, stopped) = oneshot::channel();
            let place = self.stops.len();
            let class = self
                .only
                .unwrap_or_else(|| self.classes.class(place, &world.weights));
            let user = User::new(Arc::clone(world), self.next, class);
            self.tasks.spawn(user.run(stopped));
            self.stops.push(stop);
            self.next += 1;
        }
        self.most = self.most.max(users);
        while let Some(ended) = self.tasks.try_join_next() {
            surface(ended);
        }
    }

    /// Lets all users end after their calls, without waiting for it.
    pub(crate) fn release(&mut self) {
        self.stops.clear();
    }

    /// Ends all users after their calls.
    pub(crate) async fn end(&mut self) {
        self.end_by(Instant::now() + DRAIN_TIMEOUT).await;
    }

    /// The same, until this time at most.
    pub(crate) async fn end_by(&mut self, end: Instant) {
        self.release();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                surface(ended);
            }
        };
        if timeout_at(end, all).await.is_err() {
            tracing::warn!(
                users = self.tasks.len(),
                "users did not end in time; their last calls are not counted"
            );
            self.tasks.shutdown().await;
        }
    }
}

/// Goes on with the panic of a user: its measurements are missing.
fn surface(ended: Result<(), JoinError>) {
    if let Err(err) = ended
        && err.is_panic()
    {
        std::panic::resume_unwind(err.into_panic());
    }
}

/// The time of a user, counted also if the user is ended in the middle of a call.
struct UserTime {
    world: Arc<World>,
    began: Instant,
    thought: Duration,
    late: Duration,
    /// The measurements that it belongs to.
    discards: usize,
    /// How often it was asked for.
    askings: usize,
}

impl UserTime {
    fn begin(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            began: Instant::now(),
            thought: Duration::ZERO,
            late: Duration::ZERO,
            discards: world.discards.load(Ordering::SeqCst),
            askings: world.askings.load(Ordering::SeqCst),
        }
    }

    /// Begins anew if the measurements were discarded, or if the time was asked for.
    fn follow(&mut self) {
        let askings = self.world.askings.load(Ordering::SeqCst);
        if self.askings != askings {
            self.askings = askings;
            self.add();
        }
        let discards = self.world.discards.load(Ordering::SeqCst);
        if self.discards != discards {
            self.began = Instant::now();
            (self.thought, self.late) = (Duration::ZERO, Duration::ZERO);
            self.discards = discards;
        }
    }

    /// Adds the time until now, and begins anew.
    fn add(&mut self) {
        let now = Instant::now();
        let mut times = held(&self.world.times);
        times.all += now - self.began;
        times.thought += self.thought;
        times.late += self.late;
        self.began = now;
        (self.thought, self.late) = (Duration::ZERO, Duration::ZERO);
    }
}

impl Drop for UserTime {
    fn drop(&mut self) {
        self.add();
    }
}

/// A user.
struct User {
    world: Arc<World>,
    /// Which of all that were started.
    number: u64,
    class: usize,
    rng: fastrand::Rng,
    /// When the next task was due, in an open loop.
    due: Option<Instant>,
}

impl User {
    fn new(world: Arc<World>, number: u64, class: usize) -> Self {
        let rng =
            fastrand::Rng::with_seed(world.seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            world,
            number,
            class,
            rng,
            due: None,
        }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<Infallible>) {
        let world = Arc::clone(&self.world);
        let Some(class) = world.classes.get(self.class) else {
            return;
        };
        let choice = match (&class.users.entity, &class.skewed) {
            (EntityChoice::Skewed(_), Some(skewed)) => Choice::Skewed(skewed),
            (EntityChoice::Own { prefix, .. }, _) => {
                Choice::Own(format!("{}{}", random_name(prefix, &mut self.rng), self.number))
            }
            (EntityChoice::One(name), _) => Choice::Own(name.clone()),
            (EntityChoice::Skewed(_), None) => return,
        };
        let mut time = UserTime::begin(&world);
        if let (Choice::Own(name), Some(parent)) = (&choice, &class.parent) {
            let child = NewEntity::new(name.as_str())
                .parent(parent.as_str())
                .cascade(true);
            // A user without its parent would measure another load.
            while !self.create(child.clone(), &class.users.name).await {
                tokio::select! {
                    _ = &mut stopped => return,
                    () = tokio::time::sleep(CREATE_PAUSE) => {}
                }
            }
        }
        while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            time.follow();
            if let Some(pace) = &world.pace {
                let (due, before) = (pace.take(), Instant::now());
                tokio::select! {
                    biased;
                    _ = &mut stopped => {
                        pace.give_back(due);
                        time.thought += before.elapsed();
                        return;
                    }
                    () = tokio::time::sleep_until(due) => {}
                }
                let began = Instant::now();
                time.thought += began - before;
                time.late += began - due;
                self.due = Some(due);
            }
            if let Some(task) = self.choose(&class.users.tasks) {
                let entity = choice.next(Instant::now(), &mut self.rng);
                self.act(task, &entity).await;
            }
            let think = match &world.pace {
                Some(_) => Duration::ZERO,
                None => self.think(&class.users),
            };
            let before = Instant::now();
            if think.is_zero() {
                // A table in this process may never make a user wait, and others would not get their turn.
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    _ = &mut stopped => {}
                    () = tokio::time::sleep(think) => {}
                }
            }
            time.thought += before.elapsed();
        }
    }

    /// Creates the user's entity. Returns whether it exists.
    async fn create(&self, child: NewEntity, class: &str) -> bool {
        let began = Instant::now();
        let created = self.world.limiter.repository().admin().create_entity(child).await;
        self.measured(
            Event::CreateEntity,
            class,
            began.elapsed(),
            created.as_ref().err(),
        );
        // If an answer was lost, it may have been created before.
        matches!(created, Ok(_) | Err(Error::EntityExists(_)))
    }

    fn choose<'t>(&mut self, tasks: &'t [Task]) -> Option<&'t Task> {
        let all: u32 = tasks.iter().map(|task| task.weight).sum();
        let mut place = self.rng.u32(..all.max(1));
        tasks.iter().find(|task| {
            let is_here = place < task.weight;
            place = place.saturating_sub(task.weight);
            is_here
        })
    }

    fn think(&mut self, class: &UserClass) -> Duration {
        let (least, most) = (*class.think.start(), *class.think.end());
        least + most.saturating_sub(least).mul_f64(self.rng.f64())
    }

    async fn act(&mut self, task: &Task, entity: &str) {
        let Some(resource) = self.rng.choice(&task.resources) else {
            return;
        };
        let name = format!("{resource}{}", task.suffix);
        match &task.action {
            Action::Acquire { consume, actual } => {
                let mut acquire = self.world.limiter.acquire(entity, resource.as_str());
                for (limit, amount) in consume {
                    acquire = acquire.consume(limit.as_str(), self.rng.u64(amount.clone()));
                }
                let began = self.begin();
                let lease = acquire.send().await;
                let latency = began.elapsed();
                let mut lease = match lease {
                    Ok(lease) => lease,
                    Err(Error::RateLimitExceeded(_)) => {
                        return self.measured(Event::RateLimited, &name, latency, None);
                    }
                    Err(err) => return self.measured(Event::Acquire, &name, latency, Some(&err)),
                };
                self.measured(Event::Acquire, &name, latency, None);
                if actual.is_empty() {
                    if let Err(err) = lease.commit().await {
                        self.measured(Event::Commit, &name, Duration::ZERO, Some(&err));
                    }
                    return;
                }
                let mut adjusted = Ok(());
                for (limit, amount) in actual {
                    adjusted = adjusted.and_then(|()| lease.adjust_to(limit, self.rng.u64(amount.clone())));
                }
                let began = Instant::now();
                let committed = match adjusted {
                    Ok(()) => lease.commit().await,
                    Err(err) => Err(err),
                };
                self.measured(Event::Commit, &name, began.elapsed(), committed.as_ref().err());
            }
            Action::Available => {
                let check = self.world.limiter.check(entity, resource.as_str());
                let began = self.begin();
                let found = check.send().await;
                self.measured(Event::Available, &name, began.elapsed(), found.as_ref().err());
            }
        }
    }

    /// The start of a task's first call.
    fn begin(&mut self) -> Instant {
        self.due.take().unwrap_or_else(Instant::now)
    }

    fn measured(&self, event: Event, name: &str, latency: Duration, error: Option<&Error>) {
        let stats = &self.world.stats;
        let error = error.map(|error| reason(error).chars().take(REASON).collect());
        if let Some(part) = stats.get(self.number as usize % stats.len().max(1)) {
            held(part).add(event, name, latency, error);
        }
    }
}

/// The text of an error, without the times in it, which would make each one another.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    match error {
        Error::Unavailable(_) => text.split(" since ").next().unwrap_or_default().to_owned(),
        _ => text,
    }
}
