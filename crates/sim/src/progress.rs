//! Progress: how much of what a limit allows is admitted when the table is slow, or stands still for a while.
//!
//! Safety alone would be kept by a client that refuses everything. These plans have a steady demand on one bucket
//! from several processes, at a given round trip to the table; what came of them is counted by the second.

use zae_limiter_core::depth::CascadeDepth;

use crate::plan::faults::Faults;
use crate::plan::shape::Shape;
use crate::plan::{Action, End, EntityPlan, Origin, Plan, ProcessPlan, Rule};
use crate::rng::Rng;
use crate::world::World;
use crate::{Outcome, quiet};

/// A steady demand on one bucket.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Capacity of the limit, in tokens.
    pub capacity: i64,
    /// Tokens that it gains in a second.
    pub refill: i64,
    /// Callers, spread over [`processes`](Self::processes). Each asks for one token, waits for the answer as long as
    /// one round trip takes, and then for 100 ms.
    pub callers: u64,
    /// Processes.
    pub processes: usize,
    /// Time to the table and back, in milliseconds.
    pub round_trip_ms: u64,
    /// For how many seconds.
    pub secs: u64,
    /// From which second the table stands still, and for how many.
    pub stall_secs: Option<(u64, u64)>,
    /// Whether processes join debits of one shard in one write.
    pub groups: bool,
    /// The seed.
    pub seed: u64,
}

/// The result of a demand.
#[derive(Debug)]
pub struct Progress {
    /// The run.
    pub outcome: Outcome,
    /// Acquires begun in each second, and how many of them were admitted.
    pub by_second: Vec<(u64, u64)>,
}

impl Progress {
    /// Acquires begun, and how many of them were admitted.
    pub fn total(&self) -> (u64, u64) {
        let add = |sum: (u64, u64), second: &(u64, u64)| (sum.0 + second.0, sum.1 + second.1);
        self.by_second.iter().fold((0, 0), add)
    }

    /// Requests to the table for each acquire that was admitted.
    pub fn requests_per_admission(&self) -> f64 {
        self.outcome.stats.table_calls as f64 / self.total().1.max(1) as f64
    }
}

impl Demand {
    /// The plan of this demand.
    pub fn plan(&self) -> Plan {
        let mut rng = Rng::of(self.seed, 41);
        let rule = Rule {
            limit: 0,
            capacity: self.capacity,
            refill: self.refill,
            period_secs: 1,
            shape: Shape::default(),
        };
        let process = |_| ProcessPlan {
            skew_ms: rng.range(-2, 2),
            drift_ppm: 0,
            remembers: true,
            policy: None,
        };
        let processes = (0..self.processes).map(process).collect();
        let entity = EntityPlan {
            parent: None,
            cascade: false,
            meta: false,
            rules: None,
            origin: Origin::None,
            shards: 1,
            untold: 0,
            write_units: 1000,
            filled: 100,
        };
        let mut actions = Vec::new();
        let cycle_us = (self.round_trip_ms + 100) * 1000;
        let latest_us = i64::try_from(cycle_us).unwrap_or(i64::MAX);
        for caller in 0..self.callers {
            let mut at = rng.range(0, latest_us).unsigned_abs();
            while at < self.secs * 1_000_000 {
                let acquire = Action::Acquire {
                    also: Vec::new(),
                    process: caller as usize % self.processes,
                    entity: 0,
                    amounts: vec![(0, 1)],
                    limits: None,
                    patience_ms: 5000,
                    hold_ms: 0,
                    end: End::Hold,
                };
                actions.push((at, acquire));
                at += cycle_us;
            }
        }
        actions.sort_by_key(|(at, _)| *at);
        Plan {
            depth: CascadeDepth::default(),
            more: Vec::new(),
            seed: self.seed,
            kind: "progress",
            processes,
            entities: vec![entity],
            rules: vec![rule],
            faults: Faults {
                latency_us: i64::try_from(self.round_trip_ms * 1000).unwrap_or(i64::MAX),
                timeout_us: 2_000_000,
                stall_us: self
                    .stall_secs
                    .map(|(from, secs)| (from * 1_000_000, (from + secs) * 1_000_000)),
                ..Faults::NONE
            },
            outages: Vec::new(),
            local_limits: 1000,
            config_ttl_ms: 60_000,
            stale_reads: 0,
            own_limits: 0,
            ttl_multiplier: 7,
            groups: self.groups,
            rides: false,
            shapes: false,
            actions,
        }
    }

    /// Plays it.
    pub fn run(&self) -> Progress {
        let plan = self.plan();
        let mut by_second = vec![(0, 0); self.secs as usize];
        let mut outcome = World::new(&plan, false).play_and_count(&mut by_second);
        if outcome.violation.is_none() {
            quiet::check(&plan, &mut outcome);
        }
        Progress { outcome, by_second }
    }
}
