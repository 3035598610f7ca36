//! A scenario: who there is, what they will do and when, what will go wrong. Drawn from a seed.
//!
//! A plan is plain data. Taking actions out of it gives another valid plan, in which every other actor keeps
//! its own luck; [`crate::shrink`] relies on that.

mod draw;
mod extras;
pub mod faults;
mod operators;
pub mod shape;
mod shaped;

use faults::{Faults, Outage};
use shape::Shape;
use zae_limiter_core::OnUnavailable;
use zae_limiter_core::config::Access;
use zae_limiter_core::depth::CascadeDepth;

/// How many actions a description shows.
const SHOWN: usize = 60;

/// The limits' names, odd characters included.
pub const LIMITS: [&str; 3] = ["rpm", "tpm", "x.y-z_tk"];

/// One limit's rule, in whole tokens and seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Index into [`LIMITS`].
    pub limit: usize,
    /// Most tokens it holds.
    pub capacity: i64,
    /// Tokens gained per period.
    pub refill: i64,
    /// The period.
    pub period_secs: i64,
    /// What it is beyond these numbers.
    pub shape: Shape,
}

/// One process: a clock and the caches behind it.
#[derive(Debug, Clone, Copy)]
pub struct ProcessPlan {
    /// How far its clock is ahead at the start, in milliseconds.
    pub skew_ms: i64,
    /// How much faster its clock runs, in millionths.
    pub drift_ppm: i64,
    /// Whether it remembers images to steer and reject by.
    pub remembers: bool,
    /// The decision while the table cannot be used. With `None` the process has no circuit breaker, and failures are
    /// errors.
    pub policy: Option<OnUnavailable>,
}

/// How far the clocks of a plan are off at most, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Ahead of true time.
    pub ahead_ms: i64,
    /// Behind true time.
    pub behind_ms: i64,
}

/// The client that wrote an entity's bucket before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// No client: there is no item.
    None,
    /// A client of the baseline release.
    Old,
    /// A client of release 0.17, with markers, stamps and a forced pass.
    New,
}

/// One entity.
#[derive(Debug, Clone)]
pub struct EntityPlan {
    /// Index of its parent.
    pub parent: Option<usize>,
    /// Whether it is debited too.
    pub cascade: bool,
    /// Whether it has a META record.
    pub meta: bool,
    /// Limits of its own; else those of the resource.
    pub rules: Option<Vec<Rule>>,
    /// Its bucket before the run.
    pub origin: Origin,
    /// Shards of that bucket.
    pub shards: u32,
    /// How often shard 0 has been doubled beyond that by a client that crashed before it updated the others.
    pub untold: u32,
    /// Write units left on that bucket.
    pub write_units: i64,
    /// Tokens left on that bucket, in percent of a share.
    pub filled: i64,
}

/// How a lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Committed, with what was used beyond the estimate (or less) by limit.
    Commit(Vec<(usize, i64)>),
    /// Rolled back.
    Rollback,
    /// Dropped, which rolls back in the background.
    Drop,
    /// Still held at the end.
    Hold,
}

/// An action of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// An acquire, and the lease that comes of it.
    Acquire {
        /// By this process.
        process: usize,
        /// For this entity.
        entity: usize,
        /// Tokens by limit.
        amounts: Vec<(usize, i64)>,
        /// Tokens of further resources, by limit: the index into [`Plan::more`], and the amounts.
        also: Vec<(usize, Vec<(usize, i64)>)>,
        /// Limits that come with the call, instead of the stored ones.
        limits: Option<Vec<Rule>>,
        /// Milliseconds until the caller stops waiting.
        patience_ms: i64,
        /// Milliseconds the lease is held.
        hold_ms: i64,
        /// How the lease ends.
        end: End,
    },
    /// A process crashes with all its work, and starts again with empty caches.
    Crash(usize),
    /// An entity's limits, or the resource's, are set and then synchronised to every shard.
    SetLimits {
        /// The entity; `None` for the resource, which is not synchronised.
        entity: Option<usize>,
        /// The new rules.
        rules: Vec<Rule>,
    },
    /// An entity is disabled or enabled.
    SetDisabled(usize, bool),
    /// An entity moves under another parent.
    Move(usize, usize),
    /// An entity is deleted with its buckets and limits, and created again.
    Recreate {
        /// The entity.
        entity: usize,
        /// The parent of its new life, to which it cascades.
        parent: Option<usize>,
        /// Limits of its own in its new life.
        rules: Option<Vec<Rule>>,
    },
    /// Whatever has expired is swept.
    Sweep,
    /// Others use up a shard's write units, down to this many.
    DrainWrites(usize, i64),
    /// A 0.17 client takes from shard 0.
    ForeignTake(usize, Vec<(usize, i64)>),
    /// The stream function refills shard 0.
    ForeignRefill(usize),
    /// A 0.17 client whose clock is off by this many milliseconds refills shard 0.
    ForeignClock(usize, i64),
    /// An operator says what holds for an entity's requests, or for all, and stamps live buckets one by one until all say so.
    SetAccess {
        /// The process whose clock the operator's machine has.
        clock: usize,
        /// The entity; `None` for the resource.
        entity: Option<usize>,
        /// The word; `None` takes it back.
        access: Option<Access>,
    },
    /// An operator resets an entity's bucket, or adds to it.
    Operate {
        /// The process whose clock the operator's machine has.
        clock: usize,
        /// The entity.
        entity: usize,
        /// What is done.
        operation: Operation,
        /// The idempotency key.
        key: u32,
    },
    /// Left out by shrinking.
    Nothing,
}

/// What an operator does to a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes these limits whole again; all, if none is named.
    Reset(Vec<usize>),
    /// Adds whole tokens to limits.
    TopUp(Vec<(usize, u64)>),
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed it was drawn from, which also rules the luck of every actor.
    pub seed: u64,
    /// The kind of scenario.
    pub kind: &'static str,
    /// The processes.
    pub processes: Vec<ProcessPlan>,
    /// The entities.
    pub entities: Vec<EntityPlan>,
    /// The resource's limits.
    pub rules: Vec<Rule>,
    /// How many entities above each other a request debits.
    pub depth: CascadeDepth,
    /// The limits of further resources, which do not change.
    pub more: Vec<Vec<Rule>>,
    /// The faults.
    pub faults: Faults,
    /// When the table cannot be used.
    pub outages: Vec<Outage>,
    /// How many limits each process has memory for during an outage.
    pub local_limits: usize,
    /// How long a process trusts configuration, in milliseconds.
    pub config_ttl_ms: i64,
    /// How often, in thousandths, a read that need not be consistent shows a configuration as it was before its last
    /// change.
    pub stale_reads: u32,
    /// How often, in thousandths, an acquire brings limits of its own.
    pub own_limits: u32,
    /// How long idle buckets are kept, in times to fill.
    pub ttl_multiplier: u32,
    /// Whether processes join debits of one shard in one write.
    pub groups: bool,
    /// Whether corrections wait for a joined write of their shard, which carries them.
    pub rides: bool,
    /// Whether limits have shapes.
    pub shapes: bool,
    /// Actions with their times, in microseconds from the start.
    pub actions: Vec<(u64, Action)>,
}

impl Plan {
    /// How long it takes at most, in seconds.
    fn secs(&self) -> i64 {
        let last = self.actions.iter().map(|(at, _)| at / 1_000_000).max();
        120_i64.saturating_add_unsigned(last.unwrap_or(0))
    }

    /// How far any clock is ahead of true time at most, in milliseconds.
    pub fn most_ahead_ms(&self) -> i64 {
        let secs = self.secs();
        let ahead = |p: &ProcessPlan| p.skew_ms + (p.drift_ppm.max(0) * secs) / 1000 + 1;
        self.processes.iter().map(ahead).max().unwrap_or(0).max(0)
    }

    /// How far clocks are off.
    pub fn clocks(&self) -> Clocks {
        let secs = self.secs();
        let behind = |p: &ProcessPlan| -p.skew_ms + ((-p.drift_ppm).max(0) * secs) / 1000 + 1;
        Clocks {
            ahead_ms: self.most_ahead_ms(),
            behind_ms: self.processes.iter().map(behind).max().unwrap_or(0).max(0),
        }
    }

    /// Whether operators set bypasses, reset buckets or top them up.
    pub fn has_operators(&self) -> bool {
        let is_operators =
            |action: &Action| matches!(action, Action::SetAccess { .. } | Action::Operate { .. });
        self.actions.iter().any(|(_, action)| is_operators(action))
    }

    /// The plan as lines, for a failure report.
    pub fn describe(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{} plan of seed {}: {} processes, {} entities, {} actions\n  {:?}\n",
            self.kind,
            self.seed,
            self.processes.len(),
            self.entities.len(),
            self.actions.len(),
            self.faults
        );
        for outage in &self.outages {
            let _ = writeln!(text, "  {outage:?}");
        }
        for (i, process) in self.processes.iter().enumerate() {
            let _ = writeln!(text, "  process {i}: {process:?}");
        }
        let _ = writeln!(text, "  resource: {:?}", self.rules);
        for (i, rules) in self.more.iter().enumerate() {
            let _ = writeln!(text, "  further resource {i}: {rules:?}");
        }
        for (i, entity) in self.entities.iter().enumerate() {
            let _ = writeln!(text, "  entity {i}: {entity:?}");
        }
        let left: Vec<_> = self
            .actions
            .iter()
            .filter(|(_, action)| *action != Action::Nothing)
            .collect();
        for (at, action) in left.iter().take(SHOWN) {
            let _ = writeln!(text, "  {:>10.3} ms {action:?}", *at as f64 / 1000.0);
        }
        if left.len() > SHOWN {
            let _ = writeln!(text, "  ... and {} more", left.len() - SHOWN);
        }
        text
    }
}
