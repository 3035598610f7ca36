//! Runs users on this machine.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zae_limiter::{Error, NewEntity, RateLimiter};

use crate::choice::random_name;
use crate::processor::{processor_time, used_since};
use crate::progress::{Last, Progress};
use crate::report::{Report, per};
use crate::scenario::{EntityChoice, Scenario};
use crate::schedule::Schedule;
use crate::users::{Crowd, World};

/// How often the number of users is compared with the schedule.
const TICK: Duration = Duration::from_millis(50);

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
    let mut last = Last::at(began);
    let mut busy_before = busy;
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
            last = Last::at(now);
            busy_before = busy;
        }
        let since = now - last.at;
        if since >= plan.every {
            let used = used_since(busy_before);
            busy_before = processor_time();
            progress(&Progress {
                cores: used.map(|used| per(used.as_secs_f64(), since)),
                ..last.progress(began, now, users, &world.stats())
            });
        }
    };
    crowd.end().await;
    let elapsed = measured_from.elapsed();
    let times = world.times();
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
    Ok(World::new(limiter, &plan.scenario, parents, plan.seed).paced(plan.rate))
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
