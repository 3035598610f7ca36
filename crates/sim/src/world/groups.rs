//! Group commit: several jobs' debits in one write, sent by a job of its own, and judged as the writes of its members.

use zae_limiter_core::acquire::{Batch, Debit, Outcome, Reply};
use zae_limiter_core::bucket::limit_attr;
use zae_limiter_core::credit::Send;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Item, Op, TableError, Update, Value};

use super::{Event, World, is_plain_debit};
use crate::rng::Rng;
use crate::rows::change::{Change, Source};
use crate::rows::row;
use crate::state::groups::{Carried, JobCall, Part, Sending, Shard, shard_of};
use crate::state::job::Machine;

/// How often, in thousandths, another sender begins although one is at work: as when the one at work is held up.
const SECOND_SENDER: u32 = 50;

/// How often, in thousandths, a credit that may ride waits for it, and how long at most.
const RIDES: u32 = 700;
const LONGEST_RIDE_US: usize = 2_000_000;

impl World<'_> {
    /// A machine asks for a debit: it is sent alone, or waits for others.
    pub(crate) fn join(&mut self, job: usize, call: usize, debit: Debit) {
        let process = self.jobs[job].process;
        let op = Op::Update(debit.update(self.processes[process].clock(self.now_us)));
        self.jobs[job].calls.push(Some(op.clone()));
        let shard = shard_of(debit.id(), debit.shard());
        if !self.plan.groups || self.processes[process].groups.is_idle(&debit) {
            self.processes[process].groups.of(&shard).alone.push((job, call));
            return self.schedule(self.now_us, Event::Send { job, call, op });
        }
        let is_held_up = self.jobs[job].rng.chance(SECOND_SENDER);
        let waiting = self.processes[process].groups.of(&shard);
        waiting.group.push(debit, (job, call));
        if waiting.senders == 0 || is_held_up {
            waiting.senders += 1;
            self.send_next(process, &shard);
        }
    }

    /// A sender sends what waits, or ends.
    fn send_next(&mut self, process: usize, shard: &Shard) {
        let state = &mut self.processes[process];
        let now = state.clock(self.now_us);
        let latest = state.latest(shard);
        let waiting = state.groups.of(shard);
        let Some(mut batch) = waiting.group.next(latest.as_ref(), now) else {
            waiting.senders -= 1;
            return;
        };
        let parts: Vec<Part> = batch
            .members()
            .map(|(debit, (job, _))| Part {
                job: *job,
                amounts: debit.amounts().to_vec(),
            })
            .collect();
        let carried = self.board(process, shard, &mut batch);
        let op = batch.op().clone();
        self.stats.batches += 1;
        self.stats.batched += parts.len() as u64;
        self.stats.max_batch = self.stats.max_batch.max(parts.len() as u64);
        let members: Vec<JobCall> = batch.members().map(|(_, who)| *who).collect();
        let rng = Rng::of(self.plan.seed ^ self.now_us, 1 << 41 | self.jobs.len() as u64);
        let sending = Sending {
            batch,
            shard: shard.clone(),
            carried: carried.clone(),
        };
        let job = self.add_job(process, usize::MAX, Machine::Sender(Box::new(sending)), rng);
        self.note(|| format!("job {job} sends the debits of {members:?}"));
        for (member, call) in members {
            self.left(member, call);
        }
        if let Some(Carried { job, call, .. }) = carried {
            self.left(job, call);
        }
        let slot = &mut self.jobs[job];
        (slot.parts, slot.carried) = (parts, carried);
        slot.calls.push(Some(op.clone()));
        slot.made_us.push(self.now_us);
        self.schedule(self.now_us, Event::Send { job, call: 0, op });
    }

    /// The answer to a batch is heard.
    pub(crate) fn batch_heard(&mut self, sending: Sending, process: usize, reply: &Reply) {
        let Reply::Table(answer) = reply else { return };
        let waiting = self.processes[process].groups.of(&sending.shard);
        let replies = waiting.group.answer(sending.batch, answer);
        for (_, (job, call), reply) in replies {
            self.stats.left_out += u64::from(matches!(reply, Reply::Debited(Outcome::LeftOut, _)));
            self.hear(job, call, reply);
        }
        if let Some(Carried { job, call, .. }) = sending.carried {
            self.stats.not_carried += u64::from(!matches!(answer, Ok(Answer::Applied(_))));
            self.hear(job, call, Reply::Table(answer.clone()));
        }
        self.send_next(process, &sending.shard);
    }

    /// A credit waits for a write that carries it, or is sent.
    pub(crate) fn ride_or_send(&mut self, job: usize, send: Send) {
        let process = self.jobs[job].process;
        let Machine::Credit(credit) = &self.jobs[job].machine else {
            return;
        };
        let (id, shard) = (credit.id(), credit.shard());
        let shard = shard_of(id, shard);
        let now = self.processes[process].clock(self.now_us);
        let may_ride = self.plan.rides && credit.rider(now).is_some();
        if !may_ride || !self.jobs[job].rng.chance(RIDES) {
            return self.send_credit(job, send);
        }
        self.processes[process].groups.of(&shard).riders.push(job);
        let wait_us = 1 + self.jobs[job].rng.index(LONGEST_RIDE_US) as u64;
        self.schedule(self.now_us + wait_us, Event::GoAlone(job));
    }

    /// No write has carried a credit: it is sent, unless one has.
    pub(crate) fn go_alone(&mut self, job: usize) {
        let process = self.jobs[job].process;
        let now = self.processes[process].clock(self.now_us);
        if self.jobs[job].incarnation == self.processes[process].incarnation
            && self.processes[process].groups.leaves(job)
            && let Machine::Credit(credit) = &mut self.jobs[job].machine
            && let Some(send) = credit.start(now)
        {
            self.send_credit(job, send);
        }
    }

    /// A batch takes the first credit along that waits for its shard, if one write can do both.
    fn board(&mut self, process: usize, shard: &Shard, batch: &mut Batch<JobCall>) -> Option<Carried> {
        let now = self.processes[process].clock(self.now_us);
        let job = *self.processes[process].groups.of(shard).riders.first()?;
        let Machine::Credit(credit) = &self.jobs[job].machine else {
            return None;
        };
        let rider = credit.rider(now)?;
        if !batch.carry(&rider, now) {
            return None;
        }
        self.processes[process].groups.leaves(job);
        self.stats.carried += 1;
        let slot = &mut self.jobs[job];
        let call = slot.calls.len();
        slot.calls.push(Some(Op::Update(rider.update().clone())));
        slot.made_us.push(self.now_us);
        slot.carried_call = Some(call);
        Some(Carried {
            job,
            call,
            update: rider.update().clone(),
        })
    }

    /// A caller has stopped waiting: its debits that were not sent are taken back.
    pub(crate) fn withdraw(&mut self, job: usize) {
        let process = self.jobs[job].process;
        for (job, call) in self.processes[process].groups.withdraw(job) {
            self.stats.withdrawn += 1;
            let unsent = TableError::new(FailureKind::Unreachable, Applied::No, "not sent");
            self.hear(job, call, Reply::Table(Err(unsent)));
        }
    }

    /// Does a batch on the table now, and judges it as the writes of its members, one after the other.
    pub(crate) fn write_batch(&mut self, sender: usize, op: &Op) -> Result<Answer, TableError> {
        self.stats.table_calls += 1;
        let Some(key) = row::written(op).into_iter().next() else {
            self.fail("a batch writes nothing");
            return self.table.call(op);
        };
        let mut before = self.table.get(&key).cloned();
        let answer = self.table.call(op);
        match &answer {
            Err(err) => self.fail(format!("the table calls a batch malformed: {err} in {op:?}")),
            Ok(Answer::Applied(_)) => {
                self.stats.writes += 1;
                let parts = std::mem::take(&mut self.jobs[sender].parts);
                let carried = self.jobs[sender].carried.clone();
                let with_all = self.table.get(&key).cloned();
                // The credit comes last.
                let after = match &carried {
                    Some(carried) => with_all
                        .clone()
                        .map(|item| without_credit(item, before.as_ref(), &carried.update)),
                    None => with_all.clone(),
                };
                for (at, part) in parts.iter().enumerate() {
                    // What the rest takes is not taken yet.
                    let rest = parts[at + 1..].iter();
                    let new = after.clone().map(|item| without(item, rest));
                    let change = Change {
                        key: key.clone(),
                        old: before,
                        new: new.clone(),
                    };
                    before = new;
                    self.judge(Source::Acquire(part.job), &[change], op);
                }
                self.jobs[sender].parts = parts;
                if let Some(carried) = carried {
                    let change = Change {
                        key: key.clone(),
                        old: before,
                        new: with_all,
                    };
                    self.judge(Source::Credit(carried.job), &[change], op);
                }
            }
            Ok(_) => self.stats.lost_races += u64::from(!is_plain_debit(op)),
        }
        answer
    }
}

/// The item before these amounts were taken from it.
fn without<'a>(mut item: Item, parts: impl Iterator<Item = &'a Part>) -> Item {
    for (name, amount) in parts.flat_map(|part| &part.amounts) {
        for (attr, amount) in [("tk", amount.0), ("tc", -amount.0)] {
            let attr = limit_attr(name.as_str(), attr);
            if let Some(stored) = item.get(attr.as_str()).and_then(Value::as_int) {
                item.insert(attr.to_string(), Value::int(stored + amount));
            }
        }
    }
    item
}

/// The item before a credit that was carried, which has left its mark; `before` is the item before the write.
fn without_credit(mut item: Item, before: Option<&Item>, credit: &Update) -> Item {
    for (attr, delta) in &credit.add {
        if let Some(stored) = item.get(attr.as_str()).and_then(Value::as_int) {
            item.insert(attr.to_string(), Value::int(stored - delta));
        }
    }
    match before.and_then(|before| before.get("cr")) {
        Some(mark) => item.insert("cr".to_owned(), mark.clone()),
        None => item.remove("cr"),
    };
    item
}
