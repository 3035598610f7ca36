//! Group commit: debits of one shard that wait while another write of it is on its way, and the tasks that send them.
//!
//! A debit that finds no write of its shard on its way is sent at once, by its caller. Later ones wait for a *sender*, a
//! background task that sends what waits in one write ([`Group`]), and ends with the answer if nothing waits then. A caller
//! that is dropped therefore never holds up others; what a write has taken for it, the sender gives back.
//!
//! Callers share senders with those of their runtime, if that has one thread, or with those of all others. A sender can make no
//! progress nevertheless: its runtime stands still, or the table does not answer. It holds up its own members only. A new
//! caller does not count it, and one that waits starts another sender, or sends its debit itself if there are many.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{self, Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::time::Instant;
use zae_limiter_core::EpochMillis;
use zae_limiter_core::acquire::{Batch, Debit, Grant, Group, Observation, Outcome, Reply};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Update};

use crate::acquire::driver::{COMPENSATION, CREDIT_ANSWER, Heard, no_answer};
use crate::acquire::refunds::queues::Correction;
use crate::acquire::refunds::{Haste, Passengers, enqueue};
use crate::inner::Inner;

/// How many senders one shard has at most.
const MAX_SENDERS: usize = 8;

/// A shard, and the runtime of its callers if that has one thread: it stands still whenever nothing blocks on it, so a sender
/// on it serves its own callers only.
type Shard = (BucketId, u32, Option<runtime::Id>);

fn shard_of(debit: &Debit) -> Shard {
    (debit.id().clone(), debit.shard(), one_thread())
}

/// The runtime of this task, if it has one thread.
pub(super) fn one_thread() -> Option<runtime::Id> {
    let runtime = Handle::try_current().ok();
    let of_one_thread = runtime.filter(|here| here.runtime_flavor() == RuntimeFlavor::CurrentThread);
    of_one_thread.map(|here| here.id())
}

/// The debits that wait, by shard. A shard has an entry while a write of it is on its way or waits.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<HashMap<Shard, Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    group: Group<Member>,
    /// How many of the group were withdrawn since they were last removed from it.
    withdrawn: usize,
    /// Debits that their callers send alone.
    alone: usize,
    /// Senders by number, and when each has begun to send what it sends.
    senders: Vec<(u64, Instant)>,
    started: u64,
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.alone == 0 && self.senders.is_empty()
    }

    fn has_live_sender(&self, stall: Duration) -> bool {
        self.senders.iter().any(|(_, since)| since.elapsed() < stall)
    }

    /// A new sender's number, unless there are many.
    fn add_sender(&mut self) -> Option<u64> {
        if self.senders.len() >= MAX_SENDERS {
            return None;
        }
        self.started += 1;
        self.senders.push((self.started, Instant::now()));
        Some(self.started)
    }
}

/// A caller that waits.
#[derive(Debug)]
struct Member {
    reply: oneshot::Sender<Heard>,
    state: Arc<State>,
}

/// The state of a debit that waits.
#[derive(Debug, Default)]
struct State(AtomicU8);

impl State {
    const WAITS: u8 = 0;
    /// A sender's write carries it.
    const SENT: u8 = 1;
    /// The outcome of that write is on its way to the caller.
    const ANSWERED: u8 = 2;
    /// The caller has heard that no write carries it.
    const LEFT_OUT: u8 = 3;
    /// The caller does not want it, and it was not sent.
    const WITHDRAWN: u8 = 4;
    /// The caller has gone, and the sender gives back what the write takes.
    const ABANDONED: u8 = 5;
    /// Its caller sends it.
    const ALONE: u8 = 6;

    fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, to: u8) {
        self.0.store(to, Ordering::Release);
    }

    /// Whether it was in the first state, and is in the second now.
    fn change(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn is_sent(&self) -> bool {
        matches!(self.get(), Self::SENT | Self::ANSWERED | Self::ALONE)
    }
}

/// A debit's place in a group.
#[derive(Debug)]
pub(crate) struct Ticket {
    inner: Arc<Inner>,
    shard: Shard,
    state: Arc<State>,
}

impl Ticket {
    /// Whether a write that carries the debit may be at the table.
    pub(crate) fn is_sent(&self) -> bool {
        self.state.is_sent()
    }

    /// Takes the debit back, unless it was sent.
    pub(crate) fn withdraw(&self) {
        withdraw(&self.inner, &self.shard, &self.state);
    }

    /// Leaves a debit that was sent to its sender, which gives back what the write takes. Returns whether it does: not if
    /// the outcome is known already, or the caller sends it.
    pub(crate) fn abandon(&self) -> bool {
        self.state.change(State::SENT, State::ABANDONED)
    }
}

/// Takes a debit back. Returns whether it was not sent.
fn withdraw(inner: &Inner, shard: &Shard, state: &State) -> bool {
    let mut groups = inner.groups.lock();
    if !state.change(State::WAITS, State::WITHDRAWN) {
        return false;
    }
    if let Some(waiting) = groups.get_mut(shard) {
        waiting.withdrawn += 1;
        // Not one by one, which would take the square of their number.
        if 2 * waiting.withdrawn > waiting.group.len() {
            waiting.withdrawn = 0;
            waiting.group.retain(|member| member.state.get() == State::WAITS);
        }
    }
    true
}

/// How a debit is sent.
pub(crate) enum Turn<W> {
    /// By the caller, at once.
    Alone(Alone, Debit),
    /// By a sender.
    Waits(Ticket, W),
}

/// A debit that its caller sends, until it is dropped.
pub(crate) struct Alone {
    inner: Arc<Inner>,
    shard: Shard,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let mut groups = self.inner.groups.lock();
        leave(&mut groups, &self.shard, |waiting| {
            waiting.alone = waiting.alone.saturating_sub(1);
            waiting.group.set_elsewhere(&[]);
        });
    }
}

/// One of those that send for a shard has ended.
fn leave(groups: &mut HashMap<Shard, Waiting>, shard: &Shard, uncount: impl FnOnce(&mut Waiting)) {
    let Some(waiting) = groups.get_mut(shard) else {
        return;
    };
    uncount(waiting);
    if waiting.is_idle() {
        groups.remove(shard);
    }
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Shard, Waiting>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives a debit its turn: at once, or with others.
    pub(crate) fn turn(self: &Arc<Self>, debit: Debit) -> Turn<impl Future<Output = Heard> + Send + use<>> {
        let shard = shard_of(&debit);
        let stall = self.stall();
        let mut groups = self.groups.lock();
        let waiting = groups.entry(shard.clone()).or_default();
        let has_sender = waiting.has_live_sender(stall);
        let has_passengers = self.has_passengers(&shard.0, shard.1, shard.2);
        if waiting.alone == 0 && !has_sender && !has_passengers {
            waiting.alone = 1;
            waiting.group.set_elsewhere(debit.amounts());
            drop(groups);
            let alone = Alone {
                inner: Arc::clone(self),
                shard,
            };
            return Turn::Alone(alone, debit);
        }
        let (reply, heard) = oneshot::channel();
        let state = Arc::new(State::default());
        let member = Member {
            reply,
            state: Arc::clone(&state),
        };
        waiting.group.push(debit, member);
        let sender = if has_sender { None } else { waiting.add_sender() };
        drop(groups);
        if let Some(number) = sender {
            self.start_sender(shard.clone(), number);
        }
        let ticket = Ticket {
            inner: Arc::clone(self),
            shard: shard.clone(),
            state: Arc::clone(&state),
        };
        Turn::Waits(ticket, wait(Arc::clone(self), shard, heard, state))
    }

    fn start_sender(self: &Arc<Self>, shard: Shard, number: u64) {
        let sender = Sender {
            inner: Arc::clone(self),
            shard,
            number,
            has_ended: false,
        };
        self.background.spawn("debits of a shard", sender.run());
    }

    /// Starts another sender. Returns whether there is one more; not if there are many.
    fn help(self: &Arc<Self>, shard: &Shard) -> bool {
        let mut groups = self.groups.lock();
        let number = groups.get_mut(shard).and_then(Waiting::add_sender);
        drop(groups);
        if let Some(number) = number {
            self.start_sender(shard.clone(), number);
        }
        number.is_some()
    }

    /// How long a sender may send something until callers do not count on it any more.
    fn stall(&self) -> Duration {
        let round_trip_ms = self.round_trip_ms.load(Ordering::Relaxed);
        Duration::from_millis((4 * round_trip_ms).clamp(200, 1000).unsigned_abs())
    }

    /// Removes a debit that waits from its group, so that its caller can send it.
    fn take_out(&self, shard: &Shard, state: &Arc<State>) -> Option<Debit> {
        let mut groups = self.groups.lock();
        if !state.change(State::WAITS, State::WITHDRAWN) {
            return None;
        }
        let group = &mut groups.get_mut(shard)?.group;
        let (debit, _) = group.withdraw(|member| Arc::ptr_eq(&member.state, state))?;
        Some(debit)
    }
}

/// Waits for the outcome of a debit in a group. If the circuit breaker opens before it is sent, it is not sent.
async fn wait(
    inner: Arc<Inner>,
    shard: Shard,
    mut heard: oneshot::Receiver<Heard>,
    state: Arc<State>,
) -> Heard {
    let outcome = loop {
        if state.is_sent() {
            break heard.await;
        }
        // Registered before the breaker is looked at, so that no opening is missed.
        let mut opens = pin!(inner.breaker.opens());
        opens.as_mut().enable();
        if let Some(refusal) = inner.breaker.refused(inner.clock.now())
            && withdraw(&inner, &shard, &state)
        {
            return (Reply::Table(Err(refusal)), None);
        }
        tokio::select! {
            biased;
            outcome = &mut heard => break outcome,
            () = opens => {}
            () = tokio::time::sleep(inner.stall()) => {
                if !state.is_sent()
                    && !inner.help(&shard)
                    && let Some(debit) = inner.take_out(&shard, &state)
                {
                    return send_alone(&inner, &debit, &state).await;
                }
            }
        }
    };
    outcome.unwrap_or_else(|_| {
        let (applied, what) = if state.is_sent() {
            (Applied::Unknown, "its answer is lost")
        } else {
            (Applied::No, "it was not sent")
        };
        let message = format!("the task that sends debits has ended: {what}");
        (
            Reply::Table(Err(TableError::new(FailureKind::Unreachable, applied, message))),
            None,
        )
    })
}

/// Sends a debit whose senders make no progress.
async fn send_alone(inner: &Arc<Inner>, debit: &Debit, state: &State) -> Heard {
    let _permit = match inner.permits.enter(&inner.clock).await {
        Ok(permit) => permit,
        Err(refusal) => return (Reply::Table(Err(refusal)), None),
    };
    state.set(State::ALONE);
    let op = Op::Update(debit.update(inner.clock.now()));
    Arc::clone(inner).ask_table(op).await
}

/// Sends what waits for a shard, until nothing does.
struct Sender {
    inner: Arc<Inner>,
    shard: Shard,
    number: u64,
    has_ended: bool,
}

impl Sender {
    async fn run(mut self) {
        while !self.has_ended {
            // What arrives during the wait for a permit goes with this write.
            let permit = self.inner.permits.enter(&self.inner.clock).await;
            if let Err(refusal) = &permit {
                self.refuse(refusal);
                self.end_if_idle();
                continue;
            }
            // Another caller can have come since: then it goes on.
            let Some((mut batch, now)) = self.next() else {
                continue;
            };
            let (id, shard, runtime) = &self.shard;
            let passengers = self.inner.board(&(id.clone(), *shard), *runtime, &mut batch, now);
            self.send(batch, passengers).await;
            drop(permit);
            // Not later: the runtime may stand still once callers have their answers.
            self.end_if_idle();
        }
    }

    /// The next batch, whose members count as sent from now on, and the time that it is built for. If nothing waits, the sender has
    /// ended.
    fn next(&mut self) -> Option<(Batch<Member>, EpochMillis)> {
        let (id, shard, _) = &self.shard;
        let latest = self.inner.images.latest(id, *shard);
        let now = self.inner.clock.now();
        let mut groups = self.inner.groups.lock();
        let Some(waiting) = groups.get_mut(&self.shard) else {
            self.has_ended = true;
            return None;
        };
        waiting.withdrawn = 0;
        waiting.group.retain(|member| member.state.get() == State::WAITS);
        let Some(batch) = waiting.group.next(latest.as_ref(), now) else {
            drop(groups);
            self.end_if_idle();
            return None;
        };
        for (number, since) in &mut waiting.senders {
            if *number == self.number {
                *since = Instant::now();
            }
        }
        for (_, member) in batch.members() {
            member.state.set(State::SENT);
        }
        Some((batch, now))
    }

    /// Ends, if nothing waits.
    fn end_if_idle(&mut self) {
        let mut groups = self.inner.groups.lock();
        let is_idle = groups
            .get(&self.shard)
            .is_none_or(|waiting| waiting.group.is_empty());
        if is_idle && !self.has_ended {
            self.has_ended = true;
            self.uncount(&mut groups);
        }
    }

    fn uncount(&self, groups: &mut HashMap<Shard, Waiting>) {
        leave(groups, &self.shard, |waiting| {
            waiting.senders.retain(|(number, _)| *number != self.number);
        });
    }

    async fn send(&self, batch: Batch<Member>, mut passengers: Option<Passengers>) {
        let order = self.inner.next_order();
        let op = batch.op().clone();
        let mut call = pin!(Arc::clone(&self.inner).ask_table(op));
        let heard = match &passengers {
            // The debits wait for as long as the table lets them.
            Some(_) => tokio::time::timeout(CREDIT_ANSWER, &mut call).await.ok(),
            None => None,
        };
        let (reply, left) = if let Some(heard) = heard {
            heard
        } else {
            if let Some(passengers) = passengers.take() {
                passengers.end(&Err(no_answer()));
            }
            call.await
        };
        let Reply::Table(answer) = reply else { return };
        if answer.is_err() {
            // The circuit breaker counts calls that fail.
            (1..batch.members().len()).for_each(|_| self.inner.breaker.hear(&answer));
        }
        let replies = match self.inner.groups.lock().get_mut(&self.shard) {
            Some(waiting) => waiting.group.answer(batch, &answer),
            None => Group::default().answer(batch, &answer),
        };
        if let Some((_, _, Reply::Debited(_, image))) = replies.first() {
            let observation = Observation {
                id: self.shard.0.clone(),
                shard: self.shard.1,
                image: Arc::clone(image),
            };
            let now = self.inner.clock.now();
            self.inner.images.observe(&observation, order, now);
        }
        if let Some(passengers) = passengers {
            passengers.end(&answer);
        }
        for (debit, member, reply) in replies {
            if matches!(reply, Reply::Debited(Outcome::LeftOut, _)) {
                if member.state.change(State::WAITS, State::LEFT_OUT) {
                    // It has not left.
                    let _ = member.reply.send((reply, None));
                }
                continue;
            }
            if member.state.change(State::SENT, State::ANSWERED) {
                let _ = member.reply.send((reply, left));
            } else {
                self.give_back(&debit, reply);
            }
        }
    }

    /// Gives back what a debit has taken whose caller has gone.
    fn give_back(&self, debit: &Debit, reply: Reply) {
        match reply {
            Reply::Debited(Outcome::Taken, image) => {
                let grant = Grant {
                    id: self.shard.0.clone(),
                    shard: self.shard.1,
                    amounts: debit.amounts().to_vec(),
                    image,
                    is_bypassed: false,
                };
                let all = Correction::of_all(&grant);
                drop(enqueue(&self.inner, all, COMPENSATION, Haste::Now));
            }
            Reply::Table(Ok(Answer::Applied(Some(item)))) => {
                if let Some(undo) = debit.undo(&item) {
                    let undone = undone(Arc::clone(&self.inner), undo);
                    self.inner.background.spawn("undo of a debit", undone);
                }
            }
            _ => {}
        }
    }

    /// Nothing that waits is sent.
    fn refuse(&self, refusal: &TableError) {
        let members = match self.inner.groups.lock().get_mut(&self.shard) {
            Some(waiting) => waiting.group.withdraw_all(),
            None => Vec::new(),
        };
        for member in members {
            if member.state.change(State::WAITS, State::LEFT_OUT) {
                let _ = member.reply.send((Reply::Table(Err(refusal.clone())), None));
            }
        }
    }
}

/// How often a debit of an item that cannot be read is taken back, while it does not happen; the pause doubles.
const UNDO_TRIES: u32 = 8;
const UNDO_PAUSE: Duration = Duration::from_millis(25);

/// Takes back a debit of an item that cannot be read.
async fn undone(inner: Arc<Inner>, undo: Update) {
    for attempt in 1.. {
        let (reply, _) = Arc::clone(&inner).ask_table(Op::Update(undo.clone())).await;
        let Reply::Table(Err(err)) = reply else { return };
        if err.applied != Applied::No || !err.is_outage() || attempt == UNDO_TRIES {
            tracing::error!(key = %undo.key, error = %err, "a debit could not be taken back; its tokens stay consumed");
            return;
        }
        tokio::time::sleep(UNDO_PAUSE * (1 << attempt)).await;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut groups = self.inner.groups.lock();
        // The runtime is ending. Those that wait for no other sender hear that nothing was sent, and try again.
        let left = match groups.get_mut(&self.shard) {
            Some(waiting) if waiting.senders.len() == 1 => waiting.group.withdraw_all(),
            _ => Vec::new(),
        };
        self.uncount(&mut groups);
        drop(groups);
        drop(left);
    }
}
