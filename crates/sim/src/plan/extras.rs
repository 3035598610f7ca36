//! What is added to the plans of some seeds after all else was drawn, each from a stream of random numbers of its own: deeper chains,
//! further resources, deletions, outages. What was drawn before stays as it is.

use zae_limiter_core::depth::CascadeDepth;
use zae_limiter_core::{OnUnavailable, Percent};

use super::draw::Draw;
use super::faults::{Outage, OutageKind};
use super::{Action, LIMITS, Plan};
use crate::rng::Rng;

/// Requests debit more than two entities above each other. What was drawn before stays as it is, but for parents' parents.
pub(super) fn chains(plan: &mut Plan) {
    let mut rng = Rng::of(plan.seed, u64::MAX - 5);
    let Ok(depth) = CascadeDepth::new(rng.pick(&[3, 4, 8])) else {
        return;
    };
    plan.depth = depth;
    for child in 1..plan.entities.len() {
        let is_free = plan.entities[child].parent.is_none();
        if is_free && rng.chance(800) {
            let parent = rng.index(child);
            let entity = &mut plan.entities[child];
            (entity.parent, entity.cascade, entity.meta) = (Some(parent), true, true);
        }
    }
}

/// Some acquires take tokens of further resources as well. What was drawn before stays as it is.
pub(super) fn several(plan: &mut Plan) {
    let mut rng = Rng::of(plan.seed, u64::MAX - 4);
    let mut draw = Draw { rng: &mut rng };
    let (most, tries) = (draw.rng.pick(&[20, 1000]), draw.rng.pick(&[3, 12]));
    plan.more = (0..draw.rng.range(1, 2)).map(|_| draw.rules(most)).collect();
    for (_, action) in &mut plan.actions {
        let Action::Acquire {
            limits: None, also, ..
        } = action
        else {
            continue;
        };
        for (at, rules) in plan.more.iter().enumerate() {
            if draw.rng.chance(600) {
                also.push((at, draw.amounts(rules, tries)));
            }
        }
        if draw.rng.chance(500) {
            also.reverse();
        }
    }
}

/// Entities are deleted and created again in the course of a plan. What was drawn before stays as it is.
pub(super) fn recreations(plan: &mut Plan) {
    let mut rng = Rng::of(plan.seed, u64::MAX - 1);
    let span = plan.actions.last().map_or(0, |(at, _)| *at);
    for _ in 0..rng.range(1, 4) {
        let entity = rng.index(plan.entities.len());
        // Whose children have none of their own.
        let is_root = |other: &usize| *other != entity && plan.entities[*other].parent.is_none();
        let roots: Vec<usize> = (0..plan.entities.len()).filter(is_root).collect();
        let is_parent = plan.entities.iter().any(|other| other.parent == Some(entity));
        let adopted = !roots.is_empty() && !is_parent && rng.chance(600);
        let own = plan.entities[entity].rules.as_ref().unwrap_or(&plan.rules);
        let mut rules = rng.chance(500).then(|| own.clone());
        for rule in rules.iter_mut().flatten() {
            rule.capacity = rng.range(1, rule.capacity * 2);
            rule.refill = rng.range(1, rule.refill * 2);
        }
        let action = Action::Recreate {
            entity,
            parent: adopted.then(|| rng.pick(&roots)),
            rules,
        };
        plan.actions.push((rng.index(span as usize + 1) as u64, action));
    }
}

/// The table cannot be used for some time, and processes have policies for that. What was drawn before stays as it is.
pub(super) fn outages(plan: &mut Plan) {
    let mut rng = Rng::of(plan.seed, u64::MAX - 2);
    let span = plan.actions.iter().map(|(at, _)| *at).max().unwrap_or(0);
    let policy = |rng: &mut Rng| match rng.index(4) {
        0 => OnUnavailable::Block,
        1 => OnUnavailable::Allow,
        _ => {
            Percent::new(rng.pick(&[1, 10, 33, 50, 100])).map_or(OnUnavailable::Block, OnUnavailable::Degrade)
        }
    };
    let common = policy(&mut rng);
    let is_common = rng.chance(500);
    for process in &mut plan.processes {
        process.policy = Some(if is_common { common } else { policy(&mut rng) });
    }
    plan.local_limits = rng.pick(&[1000, 1000, 3]);
    plan.faults.permanent = plan.faults.permanent.max(rng.pick(&[0, 0, 100]));
    let asked: Vec<Action> = plan.actions.iter().map(|(_, action)| action.clone()).collect();
    let asked: Vec<Action> = asked
        .into_iter()
        .filter(|action| matches!(action, Action::Acquire { .. }))
        .collect();
    for _ in 0..rng.range(1, 3) {
        let from_us = rng.range(0, span.cast_signed()).unsigned_abs();
        let for_us = rng.pick(&[50_000, 1_000_000, 3_000_000, 10_000_000]);
        let until_us = from_us + rng.range(for_us / 2, for_us).unsigned_abs();
        plan.outages.push(Outage {
            from_us,
            until_us,
            process: rng.chance(400).then(|| rng.index(plan.processes.len())),
            kind: rng.pick(&[
                OutageKind::Unreachable,
                OutageKind::Silent,
                OutageKind::Deaf,
                OutageKind::Failing,
                OutageKind::Throttled,
            ]),
        });
        if asked.is_empty() {
            continue;
        }
        // Some ask shortly before, during and after it.
        for _ in 0..rng.range(0, 60) {
            let at = from_us + rng.range(0, for_us * 3 / 2).unsigned_abs();
            let mut action = asked[rng.index(asked.len())].clone();
            if let Action::Acquire {
                process,
                patience_ms,
                amounts,
                ..
            } = &mut action
            {
                *process = rng.index(plan.processes.len());
                *patience_ms = rng.pick(&[10_000, 10_000, 1000, 100]);
                // The last limit may be one that is not configured.
                let unknown = LIMITS.len() - 1;
                if rng.chance(30) && amounts.iter().all(|(limit, _)| *limit != unknown) {
                    amounts.push((unknown, 1));
                }
            }
            plan.actions.push((at, action));
        }
    }
}
