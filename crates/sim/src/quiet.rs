//! Promised waits, tried out on what a run leaves behind.
//!
//! If no other client spends, a request that was refused with "retry after `w`" must be refused again at
//! `w` - 1 ms and admitted at `w`. And a refusal from memory must say the same as one from the table.

use std::sync::Arc;

use zae_limiter_core::acquire::{
    Acquire, Ask, Call, Decision, Found, Grant, Hint, Observation, Reply, Request, Settings,
};
use zae_limiter_core::credit::Credit;
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::resolve::resolve_items;
use zae_limiter_core::table::Op;
use zae_limiter_core::{EntityId, EpochMillis, Millitokens, RateLimitExceeded};

use crate::plan::{LIMITS, Plan};
use crate::rng::Rng;
use crate::rows::row::{Cell, Row};
use crate::state::job::image_in;
use crate::state::setup::Names;
use crate::time::true_ms;
use crate::world::{Outcome, Violation};

/// Tries the waits of every bucket.
pub fn check(plan: &Plan, outcome: &mut Outcome) {
    let names = Names::of(plan);
    let ahead = plan.most_ahead_ms();
    // With shapes, each limit has waits of its own.
    let limits = if plan.shapes { LIMITS.len() } else { 1 };
    for (entity, limit) in (0..plan.entities.len()).flat_map(|e| (0..limits).map(move |l| (e, l))) {
        let now = true_ms(outcome.ended_us) + ahead + 1;
        let mut quiet = Quiet {
            plan,
            names: &names,
            table: outcome.table.clone(),
            rng: Rng::of(plan.seed, 7_000_000 + (limit * 1000 + entity) as u64),
            hints: Vec::new(),
        };
        match quiet.try_bucket(entity, limit, now) {
            Ok(tried) => outcome.stats.waits_tried += u64::from(tried),
            Err(message) => {
                outcome.violation = Some(Violation {
                    seed: plan.seed,
                    step: outcome.stats.steps,
                    at_us: outcome.ended_us,
                    message: format!("after the run, entity {entity}: {message}"),
                });
                return;
            }
        }
    }
}

/// The entity and the limit that a request waits for longest.
fn worst(why: &RateLimitExceeded) -> Option<(EntityId, String)> {
    let worst = why.worst()?;
    Some((worst.entity.clone(), worst.limit_name.to_string()))
}

struct Quiet<'a> {
    plan: &'a Plan,
    names: &'a Names,
    table: MemoryTable,
    rng: Rng,
    hints: Vec<Observation>,
}

impl Quiet<'_> {
    fn try_bucket(&mut self, entity: usize, at: usize, now: i64) -> Result<bool, String> {
        let id = self.names.bucket(entity);
        let Some(row) = self.table.get(&id.key(0)).and_then(|item| Row::read(item).ok()) else {
            return Ok(false);
        };
        let Some((name, cell)) = row.limits.iter().nth(at) else {
            return Ok(false);
        };
        let Some(limit) = self.names.limits.iter().position(|limit| limit.as_str() == name) else {
            return Ok(false);
        };
        let capacity = (cell.cp / 1000) as i64;
        // Take all there is, in ever smaller parts, then ask for a part that is not there.
        let mut at = now;
        for part in [capacity, capacity / 2 + 1, capacity / 7 + 1, 1] {
            for _ in 0..20 {
                match self.acquire(entity, limit, part, at) {
                    Decision::Admitted(_) => {}
                    Decision::Rejected(_) => break,
                    // A parent, a flag or a missing record stands in the way.
                    _ => return Ok(false),
                }
                at += i64::from(self.rng.chance(300));
            }
        }
        let ask = self.rng.range(1, capacity);
        // Without memory, so that the parent has its say.
        self.hints.clear();
        let Decision::Rejected(why) = self.acquire(entity, limit, ask, at) else {
            return Ok(false);
        };
        let Some(wait) = why.retry_after() else {
            return Ok(false);
        };
        let wait = wait.as_millis() as i64;
        // The wait for a limit with a schedule is exact as far as its changes are followed: an hour at least.
        let most = if self.plan.shapes { 3_600_000 } else { 1 << 40 };
        if why.is_contended() || wait > most {
            return Ok(false);
        }
        // The parent may have refused as well.
        if self.names.entities.iter().any(|of| self.is_split(of)) {
            return Ok(false);
        }
        let again = self.acquire(entity, limit, ask, at);
        let Decision::Rejected(again) = again else {
            return Err(format!(
                "{ask} of {name} were refused, and at the same instant {again:?}"
            ));
        };
        if again.retry_after() != why.retry_after() {
            return Err(format!("waits differ: {why} and, at once again, {again}"));
        }
        // With shapes, a clock that goes back far would be a wrong clock, which may make one more reset.
        let probes = if self.plan.shapes {
            [wait, wait / 2, 1]
        } else {
            [1, wait / 2, wait]
        };
        for early in probes {
            let decision = self.acquire(entity, limit, ask, at + wait - early.max(1));
            if wait > 0 && !matches!(decision, Decision::Rejected(_)) {
                return Err(format!("{why}, but {early} ms early: {decision:?}"));
            }
        }
        let decision = self.acquire(entity, limit, ask, at + wait);
        match decision {
            Decision::Admitted(_) => Ok(true),
            // The longest wait of several limits: by then, the schedule of another one may have narrowed it.
            Decision::Rejected(later) if self.plan.shapes && worst(&later) != worst(&why) => Ok(false),
            // A refusal may have refilled the bucket, and a reset within a window is only as large as the window allows.
            Decision::Rejected(_) if worst(&why).is_some_and(|(of, name)| self.has_windows(&of, &name)) => {
                Ok(false)
            }
            other => Err(format!("{why}, but then: {other:?}")),
        }
    }

    /// Whether a bucket with a quota has several shards. A request is answered by one of them, and another may have more.
    fn is_split(&self, entity: &EntityId) -> bool {
        let key = self.names.bucket_of(entity).key(0);
        let row = self.table.get(&key).and_then(|item| Row::read(item).ok());
        row.is_some_and(|row| row.count > 1 && row.limits.values().any(Cell::has_periods))
    }

    /// Whether a limit is a quota or a session limit with a schedule.
    fn has_windows(&self, entity: &EntityId, limit: &str) -> bool {
        let key = self.names.bucket_of(entity).key(0);
        let row = self.table.get(&key).and_then(|item| Row::read(item).ok());
        row.and_then(|row| Some(row.limits.get(limit)?.terms.has_windows_and_periods()))
            .unwrap_or_default()
    }

    /// An acquire on a perfect table that answers at once.
    fn acquire(&mut self, entity: usize, limit: usize, tokens: i64, now: i64) -> Decision {
        let now = EpochMillis(now);
        let mut acquire = Acquire::new(Request {
            id: self.names.bucket(entity),
            consume: vec![(self.names.limits[limit].clone(), Millitokens::from_tokens(tokens))],
            also: Vec::new(),
            limits: None,
            overdraws: false,
            settings: Settings {
                bucket_ttl_multiplier: self.plan.ttl_multiplier,
                ..zae_limiter_core::acquire::Settings::default()
            },
            slices: None,
        });
        let mut calls: Vec<Call> = acquire.start(&|_, _| None, now, &mut self.rng);
        while let Some(call) = calls.pop() {
            let reply = match call.ask {
                Ask::Table(op) => Reply::Table(self.table.call(&op)),
                Ask::Debit(debit) => Reply::Table(self.table.call(&Op::Update(debit.update(now)))),
                Ask::Wait => Reply::Waited,
                Ask::GiveBack(grant) => {
                    self.give_back(grant, now);
                    Reply::GivenBack
                }
                // It asks for one resource.
                Ask::Config { entity, .. } => Reply::Config(self.found(&entity, now)),
            };
            calls.extend(acquire.answer(call.id, reply, now, &mut self.rng));
            for seen in acquire.take_observations() {
                self.see(seen);
            }
        }
        let lost = zae_limiter_core::acquire::AcquireError::Abandoned;
        acquire.finish().unwrap_or(Decision::Failed(lost))
    }

    fn give_back(&mut self, grant: Grant, now: EpochMillis) {
        if grant.is_bypassed {
            // No balance depends on what was counted.
            return;
        }
        let all = grant
            .amounts
            .iter()
            .map(|(name, amount)| (name.to_smol(), *amount));
        let mut credit = Credit::new(grant.id, grant.shard, all, grant.image, &mut self.rng);
        let mut next = credit.start(now);
        while let Some(send) = next {
            let (id, shard) = (credit.id().clone(), credit.target());
            let answer = self.table.call(&send.op);
            if let Some(image) = image_in(&answer) {
                self.see(Observation { id, shard, image });
            }
            next = credit.answer(answer, now, &mut self.rng);
        }
    }

    fn see(&mut self, seen: Observation) {
        self.hints
            .retain(|old| (&old.id, old.shard) != (&seen.id, seen.shard));
        self.hints.push(seen);
    }

    fn found(
        &self,
        entity: &zae_limiter_core::EntityId,
        now: EpochMillis,
    ) -> Result<Found, zae_limiter_core::acquire::AcquireError> {
        let who = (entity, &self.names.resource);
        let config = resolve_items(&self.names.namespace, who, |key| self.table.get(key), now)?;
        let id = self.names.bucket_of(entity);
        let images = self.hints.iter().filter(|seen| seen.id == id);
        let hint = Hint {
            shard_count: images
                .clone()
                .map(|seen| seen.image.shard_count)
                .max()
                .unwrap_or(1),
            images: images.map(|seen| (seen.shard, Arc::clone(&seen.image))).collect(),
            ..Hint::default()
        };
        Ok(Found {
            config: Arc::new(config),
            hint,
        })
    }
}
