//! Tokens taken ahead: as the async limiter does it, but for some acquires only.

use std::sync::Arc;

use zae_limiter_core::acquire::{ForSlices, Grant, Request, split};
use zae_limiter_core::bucket::Owner;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::{LimitName, Millitokens};

use super::{Event, World};
use crate::plan::{Action, EntityPlan, Origin};
use crate::rng::Rng;
use crate::rows::row::Row;
use crate::state::job::Machine;
use crate::state::lease::Held;
use crate::state::slices::{Filling, Paid};

/// How many acquires, in thousandths, may take tokens ahead or spend some.
const TAKES: u32 = 900;

/// How long tokens are kept, in milliseconds, and for how many calls at most.
const MAX_AGE_MS: i64 = 4_000;
const MOST_CALLS: u32 = 6;

impl World<'_> {
    /// Serves an acquire from memory, or adds to its request what slices ask for. Returns whether it was served.
    pub(crate) fn serve_or_ask(
        &mut self,
        index: usize,
        process: usize,
        request: &mut Request,
    ) -> Option<Filling> {
        let mut rng = Rng::of(self.plan.seed, index as u64 | 1 << 60);
        let is_plain = request.limits.is_none() && request.also.is_empty();
        if !self.plan.rides || !is_plain || !rng.chance(TAKES) {
            return Some(Filling::default());
        }
        let ttl_ms = self.plan.config_ttl_ms;
        let own = &mut self.processes[process];
        let now = own.clock(self.now_us);
        let id = request.id.clone();
        let Some(config) = own.config(&id, ttl_ms, now) else {
            return Some(Filling::default());
        };
        let parent = match config.owner.as_ref().and_then(Owner::cascade_parent) {
            None => None,
            Some(entity) => {
                let above = self.names.bucket_of(entity);
                match own.config(&above, ttl_ms, now) {
                    None => return Some(Filling::default()),
                    // As in the limiter: tokens of more than two levels are not taken ahead.
                    Some(config) if config.leads_above() => return Some(Filling::default()),
                    Some(config) => Some((above, config)),
                }
            }
        };
        let of_parent: Vec<(LimitName, Millitokens)> = match &parent {
            None => Vec::new(),
            Some((_, config)) => {
                let has = |(limit, _): &&(LimitName, Millitokens)| config.limit(limit).is_some();
                request.consume.iter().filter(has).cloned().collect()
            }
        };
        let mut serves = |id: &BucketId, config: &Arc<Resolved>, amounts: &[(LimitName, Millitokens)]| {
            let slice = &own.slices.of(id).slice;
            !amounts.is_empty() && slice.is_valid(config, now, MAX_AGE_MS) && slice.covers(amounts)
        };
        let serves_child = serves(&id, &config, &request.consume);
        let serves_parent = parent
            .as_ref()
            .is_some_and(|(id, config)| serves(id, config, &of_parent));
        let mut filling = Filling::default();
        if let (Some((id, _)), true) = (&parent, serves_parent) {
            let held = own.slices.of(id);
            self.lives.stands_in(index, held.fillers.iter().copied());
            self.check.access.stands_in(index);
            filling.paid = Some(Paid {
                id: id.clone(),
                grants: held.slice.spend(&of_parent, now),
                fillers: held.fillers.clone(),
            });
        }
        if serves_child && (of_parent.is_empty() || filling.paid.is_some()) {
            let held = own.slices.of(&id);
            self.lives.stands_in(index, held.fillers.iter().copied());
            self.check.access.stands_in(index);
            let mut grants = held.slice.spend(&request.consume, now);
            grants.extend(filling.paid.into_iter().flat_map(|paid| paid.grants));
            self.serve(index, process, request, grants);
            return None;
        }
        let mut fill = |id: &BucketId, config: &Arc<Resolved>, amounts: &[(LimitName, Millitokens)]| {
            let slice = &mut own.slices.of(id).slice;
            slice.note(amounts);
            let ahead = slice.fill(amounts, now, MAX_AGE_MS, MOST_CALLS)?;
            filling.fills.push((id.clone(), Arc::clone(config)));
            Some(ahead)
        };
        request.slices = Some(Box::new(ForSlices {
            child: (!serves_child)
                .then(|| fill(&id, &config, &request.consume))
                .flatten(),
            parent: match &parent {
                Some((id, config)) if !serves_parent && !of_parent.is_empty() => {
                    fill(id, config, &of_parent).map(|ahead| (id.entity.clone(), ahead))
                }
                _ => None,
            },
            paid: filling.paid.as_ref().map(|paid| paid.id.entity.clone()),
        }));
        Some(filling)
    }

    /// A caller gets its tokens from memory.
    fn serve(&mut self, index: usize, process: usize, request: &Request, grants: Vec<Grant>) {
        let rng = Rng::of(self.plan.seed, index as u64);
        let job = self.add_job(process, index, Machine::Ended, rng);
        self.jobs[job].request = Some(request.clone());
        self.jobs[job].is_admitted = true;
        self.stats.admitted += 1;
        self.stats.from_memory += 1;
        self.note(|| format!("action {index}, job {job}: served from memory, {grants:?}"));
        if let Err(err) = self.judge_parent(job, &grants) {
            self.fail(err);
        }
        let is_changed = |(_, action): &(u64, Action)| {
            matches!(action, Action::SetLimits { .. } | Action::Recreate { .. })
        };
        // A bucket of an old client gets the shapes later.
        let is_old = |entity: &EntityPlan| entity.origin == Origin::Old;
        let is_constant = !self.plan.actions.iter().any(is_changed) && !self.plan.entities.iter().any(is_old);
        if is_constant && grants.iter().any(|grant| self.is_shaped(grant)) {
            self.fail(format!(
                "action {index} was served from memory under a limit with a shape"
            ));
        }
        self.hold(job, Held::Table(grants));
    }

    /// Whether a limit that was taken from has a schedule or periods.
    fn is_shaped(&self, grant: &Grant) -> bool {
        let item = self.table.get(&grant.id.key(grant.shard));
        let row = item.and_then(|item| Row::read(item).ok());
        let mut taken = grant.amounts.iter().filter(|(_, amount)| amount.0 > 0);
        row.is_some_and(|row| {
            taken.any(|(name, _)| {
                row.limits
                    .get(name.as_str())
                    .is_some_and(|cell| !cell.terms.is_plain())
            })
        })
    }

    /// An acquire was admitted: what it has taken ahead stays in memory. Returns what is its own.
    pub(crate) fn settle_filling(
        &mut self,
        job: usize,
        mut filling: Filling,
        grants: Vec<Grant>,
        is_paid: bool,
    ) -> Vec<Grant> {
        // Of several resources, nothing is taken ahead.
        let request = self.jobs[job]
            .request
            .as_ref()
            .filter(|request| request.also.is_empty());
        let Some(consume) = request.map(|request| request.consume.clone()) else {
            return grants;
        };
        let (process, action) = (self.jobs[job].process, self.jobs[job].action);
        let (mut ours, mut ahead) = split(grants, &consume);
        let now = self.processes[process].clock(self.now_us);
        let mut back = Vec::new();
        for (id, config) in std::mem::take(&mut filling.fills) {
            let (taken, others): (Vec<_>, Vec<_>) = ahead.into_iter().partition(|grant| grant.id == id);
            ahead = others;
            self.stats.taken_ahead += u64::from(!taken.is_empty());
            let held = self.processes[process].slices.of(&id);
            self.lives.stands_in(action, held.fillers.iter().copied());
            self.check.access.stands_in(action);
            let stale = held.slice.filled(taken, &config, now);
            if held.slice.is_empty() {
                held.fillers.clear();
            }
            held.fillers.insert(action);
            back.extend(stale);
        }
        back.extend(ahead);
        if is_paid && let Some(paid) = filling.paid.take() {
            self.stats.paid_ahead += 1;
            ours.extend(paid.grants);
        }
        self.unfilled(process, filling);
        self.returns(process, action, back);
        let at = self.now_us + 1000 * MAX_AGE_MS.unsigned_abs();
        let incarnation = self.processes[process].incarnation;
        self.schedule(at, Event::ReturnOld { process, incarnation });
        ours
    }

    /// An acquire has ended without tokens for slices: what it has taken from memory goes back there.
    pub(crate) fn unfilled(&mut self, process: usize, filling: Filling) {
        let slices = &mut self.processes[process].slices;
        for (id, _) in filling.fills {
            slices.of(&id).slice.not_filled();
        }
        if let Some(Paid { id, grants, fillers }) = filling.paid {
            let held = slices.of(&id);
            held.slice.put_back(grants);
            held.fillers.extend(fillers);
            let at = self.now_us + 1000 * MAX_AGE_MS.unsigned_abs();
            let incarnation = self.processes[process].incarnation;
            self.schedule(at, Event::ReturnOld { process, incarnation });
        }
    }

    /// Returns what a process holds too long. What is not too old yet has a later sweep.
    pub(crate) fn return_old(&mut self, process: usize, incarnation: u32) {
        if self.processes[process].incarnation != incarnation {
            return;
        }
        let now = self.processes[process].clock(self.now_us);
        let mut back = Vec::new();
        let mut has_more = false;
        for held in self.processes[process].slices.0.values_mut() {
            if held.slice.is_over(now, MAX_AGE_MS) && !held.slice.is_empty() {
                held.slice.was_idle();
                let action = held.fillers.iter().next().copied().unwrap_or(usize::MAX);
                self.lives.stands_in(action, held.fillers.iter().copied());
                self.check.access.stands_in(action);
                back.push((action, held.slice.take_all()));
                held.fillers.clear();
            }
            has_more |= !held.slice.is_empty();
        }
        for (action, grants) in back {
            self.stats.returned_ahead += 1;
            self.returns(process, action, grants);
        }
        if has_more {
            let at = self.now_us + 100_000;
            self.schedule(at, Event::ReturnOld { process, incarnation });
        }
    }

    fn returns(&mut self, process: usize, action: usize, grants: Vec<Grant>) {
        for grant in grants {
            let deltas = grant.amounts.clone();
            let rng = Rng::of(self.plan.seed, self.jobs.len() as u64 | 1 << 61);
            self.credit(process, action, grant, &deltas, rng, "taken ahead");
        }
    }
}
