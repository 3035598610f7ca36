//! Runs users on this machine.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use zae_limiter::table::RequestCost;
use zae_limiter::{Error, NewEntity, RateLimiter};

use crate::choice::{Choice, Skewed, random_name};
use crate::pace::Pace;
use crate::places::Places;
use crate::scenario::{Action, EntityChoice, Scenario, Task, UserClass};
use crate::schedule::Schedule;
use crate::stats::{Event, Series, Stats};

/// How often the number of users is compared with the schedule.
const TICK: Duration = Duration::from_millis(50);

/// How long users may take to end the calls that they have begun.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The pause before a user's entity is created again.
const CREATE_PAUSE: Duration = Duration::from_secs(1);

/// How long a text of a failure may be, in characters.
const REASON: usize = 160;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What users do. Its classes are those that take part.
    pub scenario: Scenario,
    /// How many users there are at a time.
    pub schedule: Schedule,
    /// For an open loop: how many tasks are due in a second, above zero. Users take them in turn, in place of their pauses,
    /// and latencies count from the time at which a task was due.
    pub rate: Option<f64>,
    /// What is measured before this time is discarded, such as the time until all users have started.
    pub warm_up: Duration,
    /// The seed of all random choices. Two runs with one seed make the same choices, in an order that depends on the
    /// answers' latencies.
    pub seed: u64,
    /// How often the progress is reported.
    pub every: Duration,
}

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
        per(self.stats.total().calls() as f64, self.elapsed)
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
        per(self.stats.of(of).calls() as f64, self.elapsed)
    }

    /// Acquires: admitted, refused or failed.
    pub fn acquires(&self) -> u64 {
        let of = |event| matches!(event, Event::Acquire | Event::RateLimited);
        self.stats.of(of).calls()
    }
}

fn per(amount: f64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        amount / time.as_secs_f64()
    }
}

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

/// Runs users against the limiter's namespace until the schedule's end, or until `stop`.
///
/// It sets up the scenario's limits and entities, and does not remove them: use a namespace that is removed afterwards.
/// `progress` is called as often as the plan says. Users are closed loops: a user's next task begins when the one before it has
/// ended and the think time is over, so the load adapts to the table's latency.
///
/// # Errors
/// The first failure while limits and entities are set up. Failures of users' calls are counted in the report.
pub async fn run(
    limiter: &RateLimiter,
    plan: &Plan,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, Error> {
    let mut stop = pin!(stop);
    let world = tokio::select! {
        biased;
        () = &mut stop => None,
        world = set_up(limiter, plan) => Some(world?),
    };
    let Some(world) = world.map(Arc::new) else {
        return Ok(Report::of_nothing());
    };
    let mut cost = limiter.repository().request_cost();
    let (began, mut busy) = (Instant::now(), processor_time());
    let mut measured_from = began;
    let mut is_warm = plan.warm_up.is_zero();
    let mut crowd = Crowd::default();
    let mut last = Last {
        at: began,
        total: Series::default(),
        busy,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let interrupted = loop {
        tokio::select! {
            biased;
            () = &mut stop => break true,
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        let Some(users) = plan.schedule.users_at(now - began) else {
            break false;
        };
        crowd.resize(users, &world);
        if !is_warm && now - began >= plan.warm_up {
            is_warm = true;
            (measured_from, busy) = (now, processor_time());
            cost = limiter.repository().request_cost();
            world.discard();
            last = Last {
                at: now,
                total: Series::default(),
                busy,
            };
        }
        if now - last.at >= plan.every {
            progress(&last.progress(began, now, users, &world.stats()));
        }
    };
    crowd.end().await;
    let elapsed = measured_from.elapsed();
    let times = *held(&world.times);
    Ok(Report {
        elapsed,
        interrupted,
        users: crowd.most,
        stats: world.stats(),
        cost: limiter.repository().request_cost().since(&cost),
        cpu: used_since(busy),
        user_time: times.all,
        think_time: times.thought,
        late: times.late,
    })
}

async fn set_up(limiter: &RateLimiter, plan: &Plan) -> Result<World, Error> {
    let parents = prepare(limiter, &plan.scenario, plan.seed).await?;
    Ok(World {
        pace: plan.rate.map(|rate| Pace::new(Instant::now(), rate)),
        ..World::new(limiter, &plan.scenario, parents, plan.seed)
    })
}

/// Sets a scenario's limits in the limiter's namespace, and creates the entities that users share: for each class its parent, if
/// it has one.
///
/// [`run`] does this itself. It is for users of several processes, of which one prepares the namespace.
///
/// # Errors
/// The first failure.
pub async fn prepare(
    limiter: &RateLimiter,
    scenario: &Scenario,
    seed: u64,
) -> Result<Vec<Option<String>>, Error> {
    let admin = limiter.repository().admin();
    let setup = &scenario.setup;
    if !setup.system.is_empty() {
        admin.set_system_defaults(setup.system.clone(), None).await?;
    }
    for (resource, limits) in &setup.resources {
        admin
            .set_resource_defaults(resource.as_str(), limits.clone())
            .await?;
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut parents = Vec::new();
    for users in &scenario.classes {
        let parent = match &users.entity {
            EntityChoice::Own { parent, .. } => {
                let parent = parent.as_ref();
                parent.map(|prefix| random_name(prefix, &mut rng))
            }
            EntityChoice::One(_) | EntityChoice::Skewed(_) => None,
        };
        if let Some(parent) = &parent {
            admin.create_entity(NewEntity::new(parent.as_str())).await?;
        }
        parents.push(parent);
    }
    Ok(parents)
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
    fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for part in &self.stats {
            // The lock is held for a copy, not for a merge.
            let part = held(part).clone();
            all.merge(&part);
        }
        all
    }

    /// Discards what was measured so far.
    fn discard(&self) {
        self.discards.fetch_add(1, Ordering::SeqCst);
        for part in &self.stats {
            *held(part) = Stats::default();
        }
        *held(&self.times) = Times::default();
    }
}

/// What the last progress told.
struct Last {
    at: Instant,
    total: Series,
    busy: Option<Duration>,
}

impl Last {
    fn progress(&mut self, began: Instant, now: Instant, users: usize, stats: &Stats) -> Progress {
        let total = stats.total();
        let since = now - self.at;
        let recent = total.since(&self.total);
        let used = used_since(self.busy);
        *self = Self {
            at: now,
            total: total.clone(),
            busy: processor_time(),
        };
        Progress {
            elapsed: now - began,
            users,
            per_second: per(recent.calls() as f64, since),
            refused: stats.of(|event| event == Event::RateLimited).calls(),
            total,
            recent,
            cores: used.map(|used| per(used.as_secs_f64(), since)),
        }
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
    most: usize,
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
    async fn end(&mut self) {
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
}

impl UserTime {
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
                    _ = &mut stopped => return,
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
        let error = error.map(|error| error.to_string().chars().take(REASON).collect());
        if let Some(part) = stats.get(self.number as usize % stats.len().max(1)) {
            held(part).add(event, name, latency, error);
        }
    }
}

/// The processor time of this process.
#[cfg(unix)]
pub(crate) fn processor_time() -> Option<Duration> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let of = |time: nix::sys::time::TimeVal| {
        let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0)) + Duration::from_micros(micros)
    };
    Some(of(usage.user_time()) + of(usage.system_time()))
}

#[cfg(not(unix))]
pub(crate) fn processor_time() -> Option<Duration> {
    None
}

fn used_since(earlier: Option<Duration>) -> Option<Duration> {
    Some(processor_time()?.saturating_sub(earlier?))
}
