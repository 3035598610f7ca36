//! Operators in the course of a plan: entities and the resource are bypassed, disabled and enabled, and buckets are reset and topped
//! up. Each of them may be killed, and another one repeats what it has begun.

use zae_limiter_core::config::Access;

use super::{Action, LIMITS, Operation, Plan};
use crate::rng::Rng;

/// The shortest time in which operators are at work, in microseconds: a round of stamps takes half a second.
const LEAST_SPAN_US: u64 = 4_000_000;

/// How many keys a plan has: so few that some are used for two operations.
const KEYS: usize = 4;

/// Adds operators. What was drawn before stays as it is.
pub(super) fn operators(plan: &mut Plan) {
    let mut rng = Rng::of(plan.seed, u64::MAX - 6);
    let last = plan.actions.iter().map(|(at, _)| *at).max().unwrap_or(0);
    let span = last.max(LEAST_SPAN_US).cast_signed();
    let asked: Vec<Action> = plan.actions.iter().map(|(_, action)| action.clone()).collect();
    let asked: Vec<Action> = asked
        .into_iter()
        .filter(|action| matches!(action, Action::Acquire { .. }))
        .collect();
    let mut times = Vec::new();
    if rng.chance(700) {
        for _ in 0..rng.range(1, 3) {
            access(plan, span, &mut rng, &mut times);
        }
    }
    if rng.chance(700) {
        for _ in 0..rng.range(1, 6) {
            operate(plan, span, &mut rng, &mut times);
        }
    }
    if asked.is_empty() {
        return;
    }
    // Some ask around each of these times.
    for middle in times {
        let width = rng.pick(&[5_000, 100_000, 1_500_000]);
        for _ in 0..rng.range(0, 25) {
            let at = middle.saturating_add_signed(rng.range(-width / 3, width));
            let mut action = asked[rng.index(asked.len())].clone();
            if let Action::Acquire { process, hold_ms, .. } = &mut action {
                *process = rng.index(plan.processes.len());
                if rng.chance(300) {
                    *hold_ms = rng.range(0, width / 1000);
                }
            }
            plan.actions.push((at, action));
        }
    }
}

/// A word about access, and another one after it.
fn access(plan: &mut Plan, span: i64, rng: &mut Rng, times: &mut Vec<u64>) {
    let entity = rng.chance(750).then(|| rng.index(plan.entities.len()));
    let first = rng.pick(&[Access::Bypass, Access::Bypass, Access::Bypass, Access::Disabled]);
    let then = rng.pick(&[
        None,
        None,
        Some(Access::Enabled),
        Some(Access::Disabled),
        Some(Access::Bypass),
    ]);
    let mut at = rng.range(0, span).unsigned_abs();
    for access in [Some(first), then] {
        times.push(at);
        // Another operator says the same, because the first one may have been killed.
        for again in 0..=rng.index(3) {
            let late = if again == 0 { 0 } else { rng.range(0, 1_500_000) };
            let clock = rng.index(plan.processes.len());
            let action = Action::SetAccess {
                clock,
                entity,
                access,
            };
            plan.actions.push((at.saturating_add_signed(late), action));
        }
        let lasts = rng.pick(&[2_000, 300_000, 1_200_000, 3_000_000, 70_000_000]);
        at += rng.range(lasts / 2, lasts).unsigned_abs();
    }
    times.push(at);
}

/// A reset or a top-up, which other operators repeat with its key.
fn operate(plan: &mut Plan, span: i64, rng: &mut Rng, times: &mut Vec<u64>) {
    let entity = rng.index(plan.entities.len());
    let rules = plan.entities[entity].rules.as_ref().unwrap_or(&plan.rules);
    let operation = if rng.chance(450) {
        let named = rules.iter().map(|rule| rule.limit);
        let some: Vec<usize> = named.filter(|_| rng.chance(300)).collect();
        Operation::Reset(some)
    } else {
        let mut amounts: Vec<(usize, u64)> = Vec::new();
        for rule in rules {
            if amounts.is_empty() || rng.chance(400) {
                let most = rng.pick(&[1, rule.capacity, rule.capacity * 3]).max(1);
                amounts.push((rule.limit, rng.range(1, most).unsigned_abs()));
            }
        }
        // One that may not be configured.
        if rng.chance(30) {
            amounts.push((LIMITS.len() - 1, 1));
        }
        Operation::TopUp(amounts)
    };
    let key = rng.index(KEYS) as u32;
    let at = rng.range(0, span).unsigned_abs();
    times.push(at);
    for again in 0..=rng.index(4) {
        let width = rng.pick(&[2_000, 50_000, 2_000_000]);
        let late = if again == 0 { 0 } else { rng.range(0, width) };
        let action = Action::Operate {
            clock: rng.index(plan.processes.len()),
            entity,
            operation: operation.clone(),
            key,
        };
        plan.actions.push((at.saturating_add_signed(late), action));
    }
}
