//! Leases: tokens held, and how they end. Commit and rollback are credits; a crash is neither.

use std::collections::BTreeMap;
use std::sync::Arc;

use zae_limiter_core::acquire::{Grant, Reply};
use zae_limiter_core::bucket::{Bucket, Life};
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::table::Op;
use zae_limiter_core::{LimitName, Millitokens};

use super::{Event, World};
use crate::plan::{Action, End};
use crate::rng::Rng;
use crate::rows::change::{Sums, add};
use crate::rows::row;
use crate::state::job::{Job, Machine};
use crate::state::lease::{Held, Lease};

impl World<'_> {
    /// A caller holds tokens from now on.
    pub(crate) fn hold(&mut self, job: usize, held: Held) {
        let slot = &self.jobs[job];
        let Some((_, Action::Acquire { hold_ms, end, .. })) = self.plan.actions.get(slot.action) else {
            return;
        };
        let at = self.now_us + hold_ms.unsigned_abs() * 1000;
        let lease = Lease {
            process: slot.process,
            incarnation: slot.incarnation,
            action: slot.action,
            held,
            end: end.clone(),
        };
        self.leases.push(lease);
        self.schedule(at, Event::EndLease(self.leases.len() - 1));
    }

    /// A lease ends: what it owes or is owed goes to the shards that were debited.
    pub(crate) fn end_lease(&mut self, index: usize) {
        let lease = &self.leases[index];
        if lease.incarnation != self.processes[lease.process].incarnation {
            return;
        }
        let (process, action, held) = (lease.process, lease.action, lease.held.clone());
        let used: BTreeMap<usize, i64> = match lease.end.clone() {
            End::Hold => return,
            End::Commit(deltas) => {
                self.stats.committed += 1;
                deltas.into_iter().collect()
            }
            End::Rollback => {
                self.stats.rolled_back += 1;
                BTreeMap::new()
            }
            End::Drop => {
                self.stats.dropped += 1;
                BTreeMap::new()
            }
        };
        let commits = matches!(self.leases[index].end, End::Commit(_));
        let grants = match held {
            Held::Table(grants) => grants,
            Held::Local(claims, amounts) => {
                let used = commits.then_some(&used);
                return self.end_local((process, action), &claims, &amounts, used);
            }
            Held::Nothing => return,
        };
        // What is given back or charged of each limit of each bucket, less what earlier grants have taken of it. Of further
        // resources, the same was used beyond the estimate as of the first.
        let mut left: BTreeMap<(String, usize), i128> = BTreeMap::new();
        for (at, grant) in grants.into_iter().enumerate() {
            let mut delta = |(name, amount): &(LimitName, Millitokens)| {
                let limit = self.names.limits.iter().position(|known| known == name);
                let used = limit.and_then(|limit| used.get(&limit)).copied().unwrap_or(0);
                let given = if commits {
                    let key = (grant.id.key(0).pk, limit.unwrap_or(usize::MAX));
                    let left = left.entry(key).or_insert(-Millitokens::from_tokens(used).0);
                    let part = (*left).min(amount.0);
                    *left -= part;
                    Millitokens(part)
                } else {
                    *amount
                };
                (name.clone(), given)
            };
            let deltas: Vec<_> = grant.amounts.iter().map(&mut delta).collect();
            let rng = Rng::of(self.plan.seed, (action as u64) << 8 | (at as u64 + 1));
            let why = format!("lease {index} ends");
            self.credit(process, action, grant, &deltas, rng, &why);
        }
    }

    /// An acquire gives back what it has taken.
    pub(crate) fn give_back(&mut self, acquire: usize, call: usize, grant: Grant) {
        let (process, action) = (self.jobs[acquire].process, self.jobs[acquire].action);
        let deltas = grant.amounts.clone();
        let rng = Rng::of(self.plan.seed, (action as u64) << 8 | (call as u64 + 1) | 1 << 62);
        let why = format!("job {acquire} call {call}");
        match self.credit(process, action, grant, &deltas, rng, &why) {
            Some(job) => {
                self.stats.compensations += 1;
                self.jobs[job].awaited_by = Some((acquire, call));
            }
            None => self.given_back(acquire, call),
        }
    }

    pub(crate) fn given_back(&mut self, job: usize, call: usize) {
        let reply = Box::new(Reply::GivenBack);
        self.schedule(self.now_us, Event::Hear { job, call, reply });
    }

    /// Begins a credit, unless there is nothing to correct.
    pub(crate) fn credit(
        &mut self,
        process: usize,
        action: usize,
        grant: Grant,
        deltas: &[(LimitName, Millitokens)],
        mut rng: Rng,
        why: &str,
    ) -> Option<usize> {
        if grant.is_bypassed {
            return self.correct_count((process, action), &grant, deltas, rng, why);
        }
        let latest = self.processes[process].last_image(&grant.id, grant.shard);
        let (id, shard, image) = (grant.id.clone(), grant.shard, grant.image);
        let named = deltas.iter().map(|(name, delta)| (name.to_smol(), *delta));
        let debited = Arc::clone(&image);
        let mut credit = Credit::new(id, shard, named, image, &mut rng).with_latest(latest);
        let send = credit.start(self.processes[process].clock(self.now_us))?;
        let job = self.add_job(process, action, Machine::Credit(Box::new(credit)), rng);
        self.note(|| format!("{why}, job {job}: gives back {deltas:?}"));
        self.jobs[job].may_give_back(&grant.id, deltas);
        self.jobs[job].debited = Some(debited);
        self.ride_or_send(job, send);
        Some(job)
    }

    /// A credit has ended: all of it happened, or nothing, or the outcome is unknown.
    pub(crate) fn credited(&mut self, job: usize) {
        let slot = &mut self.jobs[job];
        let machine = std::mem::replace(&mut slot.machine, Machine::Ended);
        let Machine::Credit(credit) = machine else { return };
        let lost_one = !slot.doubtful.is_empty();
        let mut lost = false;
        let mut known = Sums::new();
        self.stats.divided_credits += u64::from(
            slot.calls
                .iter()
                .flatten()
                .any(|op| matches!(op, Op::BatchGet { .. })),
        );
        for (limit, given) in credit.applied() {
            add(&mut known, credit.id(), limit, -given.0);
        }
        match credit.end() {
            Some(CreditEnd::InDoubt(_)) => self.stats.in_doubt += 1,
            Some(end) => {
                self.check.knows(job);
                self.stats.recovered_credits += u64::from(lost_one && matches!(end, CreditEnd::Applied));
                self.stats.gone += u64::from(matches!(end, CreditEnd::Gone));
                let item = self.table.get(&credit.id().key(credit.shard()));
                let present = item.and_then(|item| Bucket::decode(item).ok());
                // Tokens taken ahead are given back by an action that may have taken others of the bucket's next life.
                let is_of_this_life = present
                    .zip(slot.debited.as_deref())
                    .is_some_and(|(present, debited)| present.life_since(debited) == Life::Same);
                if !matches!(end, CreditEnd::Failed(_)) {
                    // What was to be given back, and was not.
                    let dropped: Vec<_> = slot
                        .low
                        .iter()
                        .map(|(id, low)| (id.clone(), known.get(id).copied().unwrap_or(0) - low))
                        .filter(|(_, amount)| *amount > 0)
                        .collect();
                    for ((bucket, limit), amount) in dropped {
                        let id = (bucket, credit.shard(), limit);
                        lost |= is_of_this_life && self.check.periods.is_due(job, &id, amount);
                        self.stats.periods_over += 1;
                    }
                }
                (slot.low, slot.high) = (known.clone(), known);
            }
            None => return self.fail(format!("credit {job} stopped without an end")),
        }
        let end = format!("{:?}", credit.end());
        self.note(|| format!("job {job}: {end}"));
        if lost {
            return self.fail(format!(
                "credit {job} has dropped what belongs to the present period"
            ));
        }
        self.expect(job);
        if let Some((acquire, call)) = self.jobs[job].awaited_by {
            self.given_back(acquire, call);
        }
    }

    /// Everything in flight may or may not have happened; leases are lost with what they hold.
    pub(crate) fn crash(&mut self, process: usize) {
        let incarnation = self.processes[process].incarnation;
        let died = |job: &&mut Job| {
            job.process == process && job.incarnation == incarnation && !matches!(job.machine, Machine::Ended)
        };
        for job in self.jobs.iter_mut().filter(died) {
            if let Machine::Acquire(_) = &job.machine {
                // What it handed over to be given back was taken; the credits are jobs of their own. Beside it, one debit of each
                // leg, if it sent any, may stand. It may be one of several shards.
                for op in job.calls.iter().flatten() {
                    let mut costs = Sums::new();
                    for (bucket, limit, cost) in row::costs(op) {
                        *costs.entry((bucket, limit)).or_default() += cost;
                    }
                    for (id, cost) in costs {
                        let most = job.high.entry(id).or_default();
                        *most = (*most).max(cost);
                    }
                }
                for grant in &job.gave_back {
                    for (limit, amount) in &grant.amounts {
                        add(&mut job.low, &grant.id, limit.as_str(), amount.0);
                        add(&mut job.high, &grant.id, limit.as_str(), amount.0);
                    }
                }
            }
            job.machine = Machine::Ended;
        }
        self.processes[process].crash();
        self.outages.crashed(process);
    }

    /// Nothing is in flight any more: all jobs have ended, and all sums agree.
    pub(crate) fn judge_end(&mut self) -> Result<(), String> {
        for (id, job) in self.jobs.iter().enumerate() {
            if !matches!(job.machine, Machine::Ended) {
                return Err(format!("job {id} of action {} never ended", job.action));
            }
            self.check
                .expect(id, &job.low, &job.high)
                .map_err(|err| format!("in the end, job {id} of action {}: {err}", job.action))?;
        }
        self.check.conserved()
    }
}
