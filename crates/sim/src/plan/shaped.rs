//! Draws shapes for the limits of a plan that was drawn without them, from a stream of random numbers of their own.
//!
//! The actions are spread over some minutes, some of them gather around the boundaries, and some leases are held beyond
//! these.

use super::shape::{Change, Minutes, Regain, Shape, Window, ZONES};
use super::{Action, Origin, Plan, Rule};
use crate::rng::Rng;

const MINUTE_US: u64 = 60_000_000;

/// The kind of a limit's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Scheduled,
    Quota,
    ScheduledQuota,
    Session,
    ScheduledSession,
}

const SHAPES: [Kind; 5] = [
    Kind::Scheduled,
    Kind::Quota,
    Kind::ScheduledQuota,
    Kind::Session,
    Kind::ScheduledSession,
];

impl Plan {
    /// The plan with shapes for its limits.
    #[must_use]
    pub fn with_shapes(mut self) -> Self {
        let mut rng = Rng::of(self.seed, u64::MAX - 3);
        self.shapes = true;
        // Further resources have rates, and are drawn for plans of rates.
        self.more.clear();
        give_shapes(&mut self, &mut rng);
        split(&mut self);
        spread(&mut self, &mut rng);
        rush(&mut self, &mut rng);
        self.actions.sort_by_key(|(at, _)| *at);
        self
    }
}

fn give_shapes(plan: &mut Plan, rng: &mut Rng) {
    let zone = rng.index(ZONES.len());
    let is_scheduled_only = rng.chance(200);
    let kind = |at: usize, rng: &mut Rng| match at {
        _ if is_scheduled_only => Kind::Scheduled,
        // Every level has the first limit.
        0 => rng.pick(&SHAPES),
        _ if rng.chance(300) => Kind::Plain,
        _ => rng.pick(&SHAPES),
    };
    let kinds = [0, 1, 2].map(|at| kind(at, rng));
    let usual = kinds.map(|kind| shape(kind, zone, rng));
    let give = |rules: &mut Vec<Rule>, rng: &mut Rng| {
        for rule in rules {
            rule.shape = usual[rule.limit];
            if rng.chance(150) {
                rule.shape = shape(kinds[rule.limit], zone, rng);
            } else if rng.chance(50) && !is_scheduled_only {
                let kind = rng.pick(&SHAPES);
                rule.shape = shape(kind, zone, rng);
            }
            absolute(rule, rng);
        }
    };
    give(&mut plan.rules, rng);
    for entity in &mut plan.entities {
        if let Some(rules) = &mut entity.rules {
            give(rules, rng);
        }
        if !is_scheduled_only {
            // Shards of a quota are made by other clients only.
            (entity.shards, entity.untold) = (1, 0);
        }
    }
    for (_, action) in &mut plan.actions {
        match action {
            Action::SetLimits { rules, .. }
            | Action::Recreate {
                rules: Some(rules), ..
            } => give(rules, rng),
            // A call with limits of its own cannot have shapes, and what it would make of a quota is not defined.
            Action::Acquire { limits, also, .. } => {
                *limits = None;
                also.clear();
            }
            _ => {}
        }
    }
    plan.own_limits = 0;
}

/// Of some plans, buckets with quotas have shards that another client has made. Session limits of several shards would only be
/// refused.
fn split(plan: &mut Plan) {
    let mut rng = Rng::of(plan.seed, u64::MAX - 4);
    if !rng.chance(100) {
        return;
    }
    let without_sessions = |rules: &mut Vec<Rule>, rng: &mut Rng| {
        for rule in rules {
            if matches!(rule.shape.regain, Regain::Session(_)) {
                rule.shape.regain = Regain::Resets(minutes(rng));
            }
        }
    };
    without_sessions(&mut plan.rules, &mut rng);
    for entity in &mut plan.entities {
        if let Some(rules) = &mut entity.rules {
            without_sessions(rules, &mut rng);
        }
        if entity.origin != Origin::Old {
            entity.origin = Origin::New;
            // All of them have all limits.
            entity.filled = 100;
            (entity.shards, entity.untold) = (rng.pick(&[2, 4]), rng.pick(&[0, 0, 1]));
        }
    }
    for (_, action) in &mut plan.actions {
        if let Action::SetLimits { rules, .. }
        | Action::Recreate {
            rules: Some(rules), ..
        } = action
        {
            without_sessions(rules, &mut rng);
        }
    }
}

fn shape(kind: Kind, zone: usize, rng: &mut Rng) -> Shape {
    let regain = match kind {
        Kind::Plain | Kind::Scheduled => Regain::Rate,
        Kind::Quota | Kind::ScheduledQuota => Regain::Resets(minutes(rng)),
        Kind::Session | Kind::ScheduledSession => Regain::Session(rng.pick(&[2, 5, 30, 90])),
    };
    let mut windows = [None; 2];
    if matches!(
        kind,
        Kind::Scheduled | Kind::ScheduledQuota | Kind::ScheduledSession
    ) {
        let count = rng.index(2) + 1;
        for window in &mut windows[..count] {
            *window = Some(Window {
                minutes: minutes(rng),
                change: Change::Scale(rng.pick(&[100, 333, 500, 1500, 3000])),
            });
        }
    }
    Shape {
        regain,
        windows,
        zone,
    }
}

/// Some windows have numbers of their own, in the order of the limit's.
fn absolute(rule: &mut Rule, rng: &mut Rng) {
    let is_rate = !rule.shape.has_periods();
    for window in rule.shape.windows.iter_mut().flatten() {
        if rng.chance(300) {
            window.change = Change::Capacity(rng.range(1, rule.capacity * 2));
        } else if is_rate && rng.chance(300) {
            window.change = Change::Refill(rng.range(1, rule.refill * 2), rng.pick(&[1, 10, 60]));
        }
    }
}

/// The runs begin at minute 40 in UTC, 10 in Kolkata and 25 in Kathmandu.
fn minutes(rng: &mut Rng) -> Minutes {
    let near = rng.pick(&[10_u8, 25, 40]) + rng.range(0, 3) as u8;
    match rng.index(6) {
        0 | 1 => Minutes::Every(2),
        2 => Minutes::Every(3),
        3 => Minutes::Two(0, 30),
        4 => Minutes::Two(near, near + rng.range(1, 3) as u8),
        _ => Minutes::Range(near, near + rng.range(1, 3) as u8),
    }
}

/// Spreads the actions over minutes, or lets most of them begin shortly before a boundary.
fn spread(plan: &mut Plan, rng: &mut Rng) {
    let span = plan.actions.iter().map(|(at, _)| *at).max().unwrap_or(0).max(1);
    let wanted = rng.pick(&[90_000_000, 150_000_000, 300_000_000]);
    if span < wanted && rng.chance(600) {
        for (at, _) in &mut plan.actions {
            *at = (u128::from(*at) * u128::from(wanted) / u128::from(span)) as u64;
        }
    } else {
        let shift = MINUTE_US * rng.range(1, 3).unsigned_abs();
        let shift = shift.saturating_sub(span.min(MINUTE_US) / 2);
        for (at, _) in &mut plan.actions {
            *at += shift;
        }
    }
    for (_, action) in &mut plan.actions {
        if let Action::Acquire { hold_ms, .. } = action
            && rng.chance(150)
        {
            *hold_ms = rng.range(0, 70_000);
        }
    }
    for outage in &mut plan.outages {
        let at = rng.range(0, span.max(wanted).cast_signed()).unsigned_abs();
        (outage.from_us, outage.until_us) = (at, at + (outage.until_us - outage.from_us));
    }
}

/// Several ask at about the same time, shortly before and after boundaries.
fn rush(plan: &mut Plan, rng: &mut Rng) {
    let span = plan.actions.iter().map(|(at, _)| *at).max().unwrap_or(0);
    let is_acquire = |action: &&(u64, Action)| matches!(action.1, Action::Acquire { .. });
    let asked: Vec<Action> = plan
        .actions
        .iter()
        .filter(is_acquire)
        .map(|(_, action)| action.clone())
        .collect();
    if asked.is_empty() {
        return;
    }
    let mut middles: Vec<u64> = (0..=span / MINUTE_US + 2)
        .map(|minute| minute * MINUTE_US)
        .collect();
    // Where sessions that begin at the first boundary end.
    middles.extend([2, 5, 30].map(|secs| MINUTE_US + secs * 1_000_000));
    for middle in middles {
        if !rng.chance(600) {
            continue;
        }
        let width = rng.pick(&[2_000, 50_000, 500_000, 3_000_000]);
        for _ in 0..rng.range(3, 25) {
            let off = rng.range(-width / 2, width);
            let mut action = asked[rng.index(asked.len())].clone();
            if let Action::Acquire { process, .. } = &mut action {
                *process = rng.index(plan.processes.len());
            }
            plan.actions.push((middle.saturating_add_signed(off), action));
        }
    }
}
