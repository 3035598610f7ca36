//! Drives what the processes run: sends what machines ask for, feeds what comes back.

use std::collections::BTreeMap;

use zae_limiter_core::acquire::{Acquire, AcquireError, Ask, Call, Observation, Reply, Request, Settings};
use zae_limiter_core::outage::breaker::Pass;
use zae_limiter_core::table::{Answer, Applied, Item, Op};
use zae_limiter_core::{EntityId, Millitokens, ResourceName};

use super::{Event, Step, World};
use crate::judge::outages::Cause;
use crate::plan::Action;
use crate::plan::faults::Fate;
use crate::rng::Rng;
use crate::rows::change::Sums;
use crate::state::job::{Job, Machine, image_in};
use crate::state::slices::Filling;
use crate::time::millis;

/// More calls than any machine may make before it decides: in an outage, a leg sends again some 15 times a second, and callers wait
/// for up to ten seconds.
const MAX_CALLS: usize = 400;

impl World<'_> {
    /// Begins an action.
    pub(crate) fn act(&mut self, index: usize) {
        let plan = self.plan;
        let Some((_, action)) = plan.actions.get(index) else {
            return;
        };
        let Action::Acquire {
            process,
            entity,
            amounts,
            also,
            limits,
            patience_ms,
            ..
        } = action
        else {
            self.note(|| format!("action {index}: {action:?}"));
            if matches!(action, Action::Recreate { .. }) {
                return self.recreate(index, Step::Buckets);
            }
            if matches!(action, Action::SetAccess { .. } | Action::Operate { .. }) {
                return self.begin_work(index, action);
            }
            return self.act_other(action);
        };
        let amount = |(limit, tokens): &(usize, i64)| {
            (
                self.names.limits[*limit].clone(),
                Millitokens::from_tokens(*tokens),
            )
        };
        let mut request = Request {
            id: self.names.bucket(*entity),
            consume: amounts.iter().map(amount).collect(),
            also: also
                .iter()
                .map(|(more, amounts)| {
                    let amounts = amounts.iter().map(amount).collect();
                    (self.names.more[*more].clone(), amounts)
                })
                .collect(),
            limits: limits.as_deref().map(crate::state::setup::limits),
            overdraws: false,
            settings: Settings {
                bucket_ttl_multiplier: plan.ttl_multiplier,
                ..Settings::default()
            },
            slices: None,
        };
        self.stats.acquires += 1;
        let Some(filling) = self.serve_or_ask(index, *process, &mut request) else {
            return;
        };
        let wanted = request.clone();
        self.stats.own_limits += u64::from(limits.is_some());
        let mut acquire = Acquire::new(request);
        let mut rng = Rng::of(plan.seed, index as u64);
        let pass = self.pass(*process);
        if let Pass::Refused { .. } = pass {
            let job = self.add_job(*process, index, Machine::Ended, rng);
            self.jobs[job].request = Some(wanted);
            self.unfilled(*process, filling);
            self.note(|| format!("action {index}, job {job}: {action:?}, refused by the circuit breaker"));
            return self.without_table(job, &Cause::Breaker);
        }
        let own = &self.processes[*process];
        let now = own.clock(self.now_us);
        let known = |entity: &EntityId, resource: &ResourceName| {
            own.found(&self.names.bucket_in(entity, resource), plan.config_ttl_ms, now)
        };
        let calls = acquire.start(&known, now, &mut rng);
        let is_decided = acquire.decision().is_some();
        let job = self.add_job(*process, index, Machine::Acquire(Box::new(acquire)), rng);
        self.check.access.begins(job, self.now_us);
        self.jobs[job].pass = pass;
        self.jobs[job].request = Some(wanted);
        self.jobs[job].filling = filling;
        if limits.is_some() {
            self.check.brings_limits(job);
        }
        self.note(|| format!("action {index}, job {job}: {action:?}"));
        let at = self.now_us + patience_ms.unsigned_abs() * 1000;
        self.schedule(at, Event::GiveUp(job));
        self.dispatch(job, calls);
        if is_decided {
            self.decided(job);
        }
    }

    pub(crate) fn add_job(&mut self, process: usize, action: usize, machine: Machine, rng: Rng) -> usize {
        self.check.periods.actions.insert(self.jobs.len(), action);
        self.jobs.push(Job {
            process,
            incarnation: self.processes[process].incarnation,
            action,
            is_credit: matches!(machine, Machine::Credit(_) | Machine::Count),
            abandoned: false,
            is_admitted: false,
            request: None,
            pass: Pass::Free,
            machine,
            rng,
            calls: Vec::new(),
            configs: BTreeMap::new(),
            made_us: Vec::new(),
            left_us: BTreeMap::new(),
            gave_back: Vec::new(),
            parts: Vec::new(),
            carried: None,
            carried_call: None,
            filling: Filling::default(),
            awaited_by: None,
            has_failed: false,
            debited: None,
            doubtful: Sums::new(),
            low: Sums::new(),
            high: Sums::new(),
        });
        self.jobs.len() - 1
    }

    fn is_alive(&self, job: usize) -> bool {
        let job = &self.jobs[job];
        job.incarnation == self.processes[job.process].incarnation && !matches!(job.machine, Machine::Ended)
    }

    /// Sends a machine's calls, each after the wait it asks for.
    fn dispatch(&mut self, job: usize, calls: Vec<Call>) {
        for call in calls {
            let at = self.now_us + call.delay_ms * 1000;
            let slot = &mut self.jobs[job];
            debug_assert_eq!(slot.calls.len(), call.id, "calls are numbered in order");
            slot.made_us.push(self.now_us);
            match call.ask {
                Ask::Debit(debit) => self.join(job, call.id, *debit),
                Ask::Table(op) => {
                    slot.calls.push(Some(op.clone()));
                    let call = call.id;
                    self.schedule(at, Event::Send { job, call, op });
                }
                Ask::Wait => {
                    slot.calls.push(None);
                    let (call, reply) = (call.id, Box::new(Reply::Waited));
                    self.schedule(at, Event::Hear { job, call, reply });
                }
                Ask::GiveBack(grant) => {
                    slot.calls.push(None);
                    slot.gave_back.push(grant.clone());
                    self.give_back(job, call.id, grant);
                }
                Ask::Config {
                    entity,
                    resource,
                    fresh,
                } => {
                    let id = self.names.bucket_in(&entity, &resource);
                    slot.calls.push(None);
                    slot.configs.insert(call.id, id.clone());
                    self.ask_config(job, call.id, &id, fresh);
                }
            }
        }
        if self.jobs[job].calls.len() > MAX_CALLS {
            self.fail(format!("job {job} has made {MAX_CALLS} calls without a decision"));
        }
    }

    /// The machine and the process take note that a request leaves.
    fn leaves(&mut self, job: usize, call: usize, op: &Op) {
        let process = &mut self.processes[self.jobs[job].process];
        let now = process.clock(self.now_us);
        process.sends(op, now);
        self.left(job, call);
    }

    /// The machine takes note that a request leaves.
    pub(crate) fn left(&mut self, job: usize, call: usize) {
        let slot = &mut self.jobs[job];
        slot.left_us.insert(call, self.now_us);
        let now = self.processes[slot.process].clock(self.now_us);
        if let Machine::Acquire(acquire) = &mut slot.machine {
            acquire.left(call, now);
        }
    }

    /// A request leaves the process: its fate is drawn.
    pub(crate) fn send(&mut self, job: usize, call: usize, op: Op) {
        if self.jobs[job].incarnation != self.processes[self.jobs[job].process].incarnation {
            return;
        }
        let asked_us = self.now_us;
        let process = self.jobs[job].process;
        self.leaves(job, call, &op);
        let faults = self.plan.faults;
        let outage = self
            .plan
            .outages
            .iter()
            .find(|outage| outage.meets(process, asked_us));
        let rng = &mut self.jobs[job].rng;
        let fate = match outage {
            Some(outage) => Fate::in_outage(outage.kind, &faults, rng),
            None => Fate::draw(&op, &faults, asked_us, rng),
        };
        let heard_at = asked_us + fate.heard_after;
        match fate.word {
            "throttled" => self.stats.throttled += 1,
            "conflict" => self.stats.conflicts += 1,
            "applied late" => self.stats.applied_late += 1,
            "permanent" => self.stats.permanent += 1,
            "empty" => self.stats.empty += 1,
            "outage" => self.stats.in_outage += 1,
            _ => {}
        }
        if !fate.word.is_empty() {
            self.note(|| format!("job {job} call {call}: {}", fate.word));
        }
        if let Some(error) = fate.error {
            self.stats.unknown += u64::from(error.applied == Applied::Unknown);
            let is_config = self.jobs[job].configs.contains_key(&call);
            let reply = if is_config {
                Reply::Config(Err(AcquireError::Table(error)))
            } else {
                Reply::Table(Err(error))
            };
            let reply = Box::new(reply);
            self.schedule(heard_at, Event::Hear { job, call, reply });
            if let (Some(after), false) = (fate.seen_after, matches!(op, Op::BatchGet { .. })) {
                let heard_at = None;
                self.schedule(
                    asked_us + after,
                    Event::Write {
                        job,
                        call,
                        op,
                        heard_at,
                    },
                );
            }
            return;
        }
        if fate.is_empty {
            let reply = Box::new(Reply::Table(Ok(Answer::Applied(Some(Item::new())))));
            return self.schedule(heard_at, Event::Hear { job, call, reply });
        }
        let seen = fate.seen_after.unwrap_or(0);
        if let Op::BatchGet { keys, consistent } = op {
            // The items of a batch are not read at one instant.
            let count = keys.len();
            for (index, key) in keys.into_iter().enumerate() {
                let at = asked_us + self.jobs[job].rng.index(seen as usize + 1) as u64;
                let is_stale = !consistent && self.jobs[job].rng.chance(self.plan.stale_reads);
                self.schedule(
                    at,
                    Event::Read {
                        job,
                        call,
                        index,
                        key,
                        is_stale,
                    },
                );
            }
            let done = if self.jobs[job].configs.contains_key(&call) {
                Event::ConfigDone { job, call, asked_us }
            } else {
                Event::ReadDone {
                    job,
                    call,
                    keys: count,
                }
            };
            return self.schedule(heard_at, done);
        }
        let heard_at = Some(heard_at);
        self.schedule(
            asked_us + seen,
            Event::Write {
                job,
                call,
                op,
                heard_at,
            },
        );
    }

    /// A process hears the outcome of a call.
    pub(crate) fn hear(&mut self, job: usize, call: usize, reply: Reply) {
        if !self.is_alive(job) {
            return;
        }
        let process = self.jobs[job].process;
        self.processes[process].groups.heard((job, call));
        if matches!(self.jobs[job].machine, Machine::Sender(_)) {
            let machine = std::mem::replace(&mut self.jobs[job].machine, Machine::Ended);
            let Machine::Sender(sending) = machine else { return };
            return self.batch_heard(*sending, process, &reply);
        }
        let now = self.processes[process].clock(self.now_us);
        let was_sent = self.jobs[job].left_us.contains_key(&call);
        let ends = was_sent.then(|| self.hear_outcome(job, call, &reply)).flatten();
        let slot = &mut self.jobs[job];
        slot.has_failed |= matches!(reply, Reply::Table(Err(_)) | Reply::Config(Err(_)));
        if let (Reply::Table(Ok(_)) | Reply::Debited(..) | Reply::Config(Ok(_)), Some(left)) =
            (&reply, slot.left_us.remove(&call))
        {
            let millis = millis(self.now_us - left);
            self.processes[process].answered_after(millis);
            self.check.answered_after(millis + 1);
        }
        if let (Reply::Table(Err(err)), Some(op)) = (&reply, slot.calls[call].clone())
            && err.applied == Applied::Unknown
        {
            slot.doubt(&op);
        }
        let corrects_balance = matches!(self.jobs[job].machine, Machine::Credit(_));
        if corrects_balance && matches!(reply, Reply::Table(Err(_))) {
            // What it is about, or the expiry that it is to move, is open until it ends.
            self.check.doubts(job);
        }
        let slot = &mut self.jobs[job];
        match &mut slot.machine {
            Machine::Acquire(acquire) => {
                let calls = acquire.answer(call, reply, now, &mut slot.rng);
                let seen = acquire.take_observations();
                let ends = ends.filter(|_| !acquire.is_settled());
                if ends.is_some() {
                    acquire.abandon();
                }
                let decided = acquire.decision().is_some();
                for observation in seen {
                    self.note_drift(process, &observation, now);
                    self.processes[process].observe(observation, now);
                }
                self.dispatch(job, calls);
                if let Some(cause) = ends {
                    self.jobs[job].abandoned = true;
                    self.without_table(job, &cause);
                    self.withdraw(job);
                }
                if decided {
                    self.decided(job);
                }
            }
            Machine::Credit(credit) => {
                let Reply::Table(answer) = reply else { return };
                let (id, shard) = (credit.id().clone(), credit.target());
                let image = image_in(&answer);
                let was_carried = slot.carried_call.take().is_some();
                let next = match answer {
                    // Which of the two conditions did not hold is not known.
                    Ok(Answer::Refused(Some(_))) if was_carried => credit.start(now),
                    answer => credit.answer(answer, now, &mut slot.rng),
                };
                if let Some(image) = image {
                    self.processes[process].observe(Observation { id, shard, image }, now);
                }
                match next {
                    Some(send) => self.send_credit(job, send),
                    None => self.credited(job),
                }
            }
            Machine::Count => {
                let Reply::Table(answer) = reply else { return };
                self.count_heard(job, answer);
            }
            Machine::Sender(_) | Machine::Ended => {}
        }
    }

    pub(crate) fn send_credit(&mut self, job: usize, send: zae_limiter_core::credit::Send) {
        let at = self.now_us + send.delay_ms * 1000;
        let slot = &mut self.jobs[job];
        let call = slot.calls.len();
        if slot.calls.iter().flatten().count() > 0 && !slot.doubtful.is_empty() {
            self.stats.resent_credits += 1;
        }
        slot.calls.push(Some(send.op.clone()));
        slot.made_us.push(self.now_us);
        if let Op::Update(update) = &send.op {
            let overflows = update.set.iter().any(|(attr, _)| attr == "vu");
            self.stats.overflows += u64::from(overflows);
        }
        if slot.calls.len() > MAX_CALLS {
            self.fail(format!("credit {job} has made {MAX_CALLS} calls"));
        }
        self.schedule(
            at,
            Event::Send {
                job,
                call,
                op: send.op,
            },
        );
    }

    pub(crate) fn give_up(&mut self, job: usize) {
        if !self.is_alive(job) {
            return;
        }
        if let Machine::Acquire(acquire) = &mut self.jobs[job].machine {
            acquire.abandon();
            let was_abandoned = std::mem::replace(&mut self.jobs[job].abandoned, true);
            self.note(|| format!("job {job}: the caller stopped waiting"));
            if !was_abandoned {
                self.without_table(job, &Cause::Deadline);
            }
            self.withdraw(job);
        }
    }
}
