//! Outages, as a process meets them: its circuit breaker, its policy, and the limits in its memory. The decisions are
//! those of the core ([`zae_limiter_core::outage`]); this is the part that the async limiter has around them.

use std::collections::BTreeMap;
use std::time::Duration;

use zae_limiter_core::acquire::{AcquireError, Reply};
use zae_limiter_core::outage::breaker::{PROBE, Pass, is_silence};
use zae_limiter_core::outage::local_buckets::Claim;
use zae_limiter_core::outage::policy::{Decision, decide};
use zae_limiter_core::table::{Op, TableError};
use zae_limiter_core::{LimitName, Millitokens, OnUnavailable};

use super::{Event, World};
use crate::judge::outages::{Asked, Cause, refused_for_good};
use crate::plan::Action;
use crate::rng::Rng;
use crate::state::job::Machine;
use crate::state::lease::Held;
use crate::state::process::Remembered;

impl World<'_> {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now_us)
    }

    /// The time to the next probe, with its jitter.
    fn interval(&self, process: usize) -> Duration {
        let mut rng = Rng::of(self.plan.seed ^ self.now_us, 1 << 40 | process as u64);
        PROBE * rng.range(800, 1200) as u32 / 1000
    }

    /// Whether a call that begins now may use the table.
    pub(crate) fn pass(&mut self, process: usize) -> Pass {
        if self.processes[process].plan.policy.is_none() {
            return Pass::Free;
        }
        let (now, interval) = (self.elapsed(), self.interval(process));
        let breaker = &mut self.processes[process].breaker;
        if breaker.is_silent(now, interval) {
            self.stats.breakers_opened += 1;
        }
        let pass = breaker.pass(now, interval);
        self.stats.probes += u64::from(pass == Pass::Probe);
        if let Err(err) = self.outages.passed(process, self.now_us, &pass) {
            self.fail(err);
        }
        pass
    }

    /// A request leaves the process. While the circuit breaker is open, one that is sent again waits for its turn, unless
    /// it gives tokens back.
    pub(crate) fn send_in_turn(&mut self, job: usize, call: usize, op: Op) {
        let slot = &self.jobs[job];
        let (process, is_again) = (slot.process, slot.made_us[call] < self.now_us);
        let is_current = slot.incarnation == self.processes[process].incarnation;
        let gives_back = match &slot.machine {
            Machine::Acquire(acquire) => acquire.gives_back(call),
            Machine::Credit(_) | Machine::Count | Machine::Sender(_) | Machine::Ended => true,
        };
        if is_current
            && is_again
            && !gives_back
            && !slot.abandoned
            && let Pass::Refused { next, .. } = self.pass(process)
        {
            let spread = self.jobs[job].rng.range(0, 500_000).unsigned_abs();
            let at = (next.as_micros() as u64).max(self.now_us) + spread;
            return self.schedule(at, Event::Send { job, call, op });
        }
        self.send(job, call, op);
    }

    /// A process hears the outcome of a request. Returns why the policy decides the call now, if it does.
    pub(crate) fn hear_outcome(&mut self, job: usize, call: usize, reply: &Reply) -> Option<Cause> {
        let process = self.jobs[job].process;
        let policy = self.processes[process].plan.policy?;
        let (now, interval) = (self.elapsed(), self.interval(process));
        let breaker = &mut self.processes[process].breaker;
        let (Reply::Table(Err(err)) | Reply::Config(Err(AcquireError::Table(err)))) = reply else {
            self.stats.breakers_closed += u64::from(breaker.answered());
            self.outages.heard(process, self.now_us, None);
            return None;
        };
        if is_silence(err) {
            self.stats.breakers_opened += u64::from(breaker.failed(now, interval));
        } else {
            self.stats.breakers_closed += u64::from(breaker.answered());
        }
        let is_open = breaker.refusing().is_some();
        self.outages.heard(process, self.now_us, Some(err.kind));
        let slot = &self.jobs[job];
        let Machine::Acquire(acquire) = &slot.machine else {
            return None;
        };
        let ends = is_open
            && err.is_outage()
            && !slot.abandoned
            && !acquire.gives_back(call)
            && (slot.pass == Pass::Probe || policy != OnUnavailable::Block);
        ends.then_some(Cause::Failed(err.kind))
    }

    /// An acquire has failed because of the table.
    pub(crate) fn failed_at_table(&mut self, job: usize, err: &TableError) {
        if self.jobs[job].abandoned || self.processes[self.jobs[job].process].plan.policy.is_none() {
            return;
        }
        if err.is_outage() {
            return self.without_table(job, &Cause::Failed(err.kind));
        }
        self.stats.permanent_under_policy += 1;
        if let Err(err) = refused_for_good(job, err.kind) {
            self.fail(err);
        }
    }

    /// The policy for outages decides an acquire.
    pub(crate) fn without_table(&mut self, job: usize, cause: &Cause) {
        let slot = &self.jobs[job];
        let (process, action) = (slot.process, slot.action);
        let (Some(policy), Some(request)) = (self.processes[process].plan.policy, slot.request.clone())
        else {
            return;
        };
        let state = &self.processes[process];
        let now = state.clock(self.now_us);
        let decision = decide(policy, &request, &Remembered(state, now), &state.local, now);
        let (began_us, patience_us) = match self.plan.actions.get(action) {
            Some((at, Action::Acquire { patience_ms, .. })) => (*at, patience_ms.unsigned_abs() * 1000),
            _ => (0, 0),
        };
        let asked = Asked {
            process,
            action,
            now_us: self.now_us,
            deadline_us: began_us + patience_us,
            request: &request,
            room: self.plan.local_limits,
        };
        self.note(|| format!("job {job}: {cause:?}, so {policy:?} decides: {decision:?}"));
        if let Err(err) = self
            .outages
            .decided(&asked, cause, policy, &decision, &self.processes[process])
        {
            return self.fail(format!("job {job}: {err}"));
        }
        self.stats.refused_by_breaker += u64::from(matches!(cause, Cause::Breaker));
        let is_degraded = matches!(policy, OnUnavailable::Degrade(_));
        match decision {
            Decision::Unavailable if is_degraded => self.stats.local_unknown += 1,
            Decision::Unavailable => self.stats.unavailable += 1,
            Decision::Unlimited => {
                self.stats.unlimited += 1;
                self.jobs[job].is_admitted = true;
                self.hold(job, Held::Nothing);
            }
            Decision::Local(claims) => {
                self.stats.local += 1;
                let is_parents = |claim: &Claim| *claim.entity() != request.id.entity;
                self.stats.local_cascaded += u64::from(claims.iter().any(is_parents));
                self.jobs[job].is_admitted = true;
                self.hold(job, Held::Local(claims, request.consume));
            }
            Decision::Exceeded(_) => self.stats.local_refused += 1,
            Decision::Full => self.stats.local_full += 1,
            Decision::Disabled { .. } => self.stats.local_disabled += 1,
            Decision::Failed(_) => self.stats.local_mistaken += 1,
        }
    }

    /// A lease on limits in memory ends. `used` is what was used beyond the estimate, if it is committed; otherwise all
    /// of it is given back.
    pub(crate) fn end_local(
        &mut self,
        (process, action): (usize, usize),
        claims: &[Claim],
        amounts: &[(LimitName, Millitokens)],
        used: Option<&BTreeMap<usize, i64>>,
    ) {
        let limit_of = |name: &LimitName| self.names.limits.iter().position(|known| known == name);
        let back = |(name, amount): &(LimitName, Millitokens)| {
            let delta = match used {
                None => amount.0,
                Some(used) => {
                    let used = limit_of(name).and_then(|limit| used.get(&limit).copied());
                    -Millitokens::from_tokens(used.unwrap_or(0)).0
                }
            };
            (name.clone(), Millitokens(delta))
        };
        let back: Vec<_> = amounts
            .iter()
            .map(back)
            .filter(|(_, delta)| delta.0 != 0)
            .collect();
        let now = self.processes[process].clock(self.now_us);
        for (name, delta) in &back {
            for claim in claims.iter().filter(|claim| claim.limit() == name) {
                self.stats.local_corrected += 1;
                self.processes[process].local.correct([(claim, *delta)], now);
                self.outages.corrected((process, action), claim, *delta, now);
            }
        }
    }
}
