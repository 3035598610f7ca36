//! A deterministic simulation of many clients over a faulty table.
//!
//! Real clients race, lose answers, crash and have wrong clocks. Here all of that is drawn from a seed and played
//! in virtual time against the very state machines that the limiter drives ([`zae_limiter_core::acquire`],
//! [`zae_limiter_core::credit`], [`zae_limiter_core::outage`]); after every write that the table applied, an
//! independent account says whether it was allowed. Nothing here sleeps, spawns or reads a clock, so a seed replays
//! a run exactly.
//!
//! Reading order:
//!
//! 1. [`plan`]: what will be asked of the limiter, drawn from a seed, and what the network does to a request; the shapes of
//!    limits.
//! 2. [`world`]: the event queue, the table, true time, and what happens at each event: machines of processes,
//!    configuration, the ends of leases, operators and other clients, entities that are deleted and created again.
//! 3. [`state`]: processes with their clocks and caches, their machines and leases; the table before a run.
//! 4. [`judge`]: what must hold after every write ([`judge::check`]) and during outages, and the arithmetic beside it: of
//!    limits with a rate, with a schedule, and with periods; [`rows`]: items as it reads them.
//! 5. [`quiet`]: promised waits, tried out on what a run leaves behind.
//! 6. [`progress`]: steady demand on a slow table: how much is admitted.
//! 7. [`shrink`]: the shortest plan that still fails.
//! 8. [`places`]: places in flight, with plans, a world and a judge of their own.

pub mod judge;
pub mod places;
pub mod plan;
pub mod progress;
pub mod quiet;
pub mod rng;
pub mod rows;
pub mod shrink;
pub mod state;
pub mod stats;
pub mod time;
pub mod world;

pub use plan::Plan;
pub use stats::Stats;
pub use world::{Outcome, Violation};

/// Plays a plan to its end, or to the first violation.
pub fn run(plan: &Plan) -> Outcome {
    play(plan, false)
}

/// Plays a plan as [`run`] does, and keeps a line of every event.
pub fn run_and_tell(plan: &Plan) -> Outcome {
    play(plan, true)
}

fn play(plan: &Plan, keeps_log: bool) -> Outcome {
    let mut outcome = world::World::new(plan, keeps_log).play();
    if outcome.violation.is_none() {
        quiet::check(plan, &mut outcome);
    }
    outcome
}

/// The plans of a seed: the same without group commit, with it, and with corrections that its writes carry; and the first and
/// the last of these with shapes for its limits.
pub fn plans(seed: u64) -> [Plan; 5] {
    let plain = |groups, rides| Plan {
        groups,
        rides,
        ..Plan::of(seed)
    };
    [
        plain(false, false),
        plain(true, false),
        plain(true, true),
        plain(false, false).with_shapes(),
        plain(true, true).with_shapes(),
    ]
}
