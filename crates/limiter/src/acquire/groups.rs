//! Group commit: debits of one shard that wait while another write of it is on its way, and the tasks that send them.
//!
//! A debit that finds no write of its shard on its way is sent at once, by its caller. Later ones wait for a *sender*, a
//! background task that sends what waits in one write ([`Group`]), and ends when nothing waits. A caller that is dropped
//! therefore never holds up others.
//!
//! If a sender makes no progress (its runtime stands still, or the table does not answer), a caller that waits starts
//! another one.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use zae_limiter_core::acquire::{Batch, Debit, Group, Observation, Reply};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use crate::acquire::driver::Heard;
use crate::inner::Inner;

/// How many senders one shard has at most.
const MAX_SENDERS: usize = 8;

type Shard = (BucketId, u32);

/// The debits that wait, by shard. A shard has an entry while a write of it is on its way or waits.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<HashMap<Shard, Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    group: Group<Member>,
    /// Debits that their callers send alone.
    alone: usize,
    senders: usize,
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.alone == 0 && self.senders == 0
    }
}

/// A caller that waits.
#[derive(Debug)]
struct Member {
    reply: oneshot::Sender<Heard>,
    state: Arc<AtomicU8>,
}

/// The states of a debit that waits. They change under the lock of the groups.
const WAITS: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A debit's place in a group.
#[derive(Debug)]
pub(crate) struct Ticket {
    inner: Arc<Inner>,
    state: Arc<AtomicU8>,
}

impl Ticket {
    /// Whether a write that carries the debit may be at the table.
    pub(crate) fn is_sent(&self) -> bool {
        self.state.load(Ordering::Acquire) == SENT
    }

    /// Takes the debit back, unless it was sent.
    pub(crate) fn withdraw(&self) {
        withdraw(&self.inner, &self.state);
    }
}

/// Takes a debit back. Returns whether it was not sent.
fn withdraw(inner: &Inner, state: &AtomicU8) -> bool {
    let _groups = inner.groups.lock();
    state
        .compare_exchange(WAITS, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

/// How a debit is sent.
pub(crate) enum Turn<W> {
    /// By the caller, at once.
    Alone(Alone),
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
        leave(&mut groups, &self.shard, |waiting| &mut waiting.alone);
    }
}

/// One of those that send for a shard has ended.
fn leave(
    groups: &mut HashMap<Shard, Waiting>,
    shard: &Shard,
    count: impl FnOnce(&mut Waiting) -> &mut usize,
) {
    let Some(waiting) = groups.get_mut(shard) else {
        return;
    };
    let count = count(waiting);
    *count = count.saturating_sub(1);
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
    pub(crate) fn turn(self: &Arc<Self>, debit: &Debit) -> Turn<impl Future<Output = Heard> + Send + use<>> {
        let shard = (debit.id().clone(), debit.shard());
        let mut groups = self.groups.lock();
        let waiting = groups.entry(shard.clone()).or_default();
        if waiting.is_idle() {
            waiting.alone = 1;
            drop(groups);
            return Turn::Alone(Alone {
                inner: Arc::clone(self),
                shard,
            });
        }
        let (reply, heard) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITS));
        let member = Member {
            reply,
            state: Arc::clone(&state),
        };
        waiting.group.push(debit.clone(), member);
        let needs_sender = waiting.senders == 0;
        waiting.senders += usize::from(needs_sender);
        drop(groups);
        if needs_sender {
            self.start_sender(shard.clone());
        }
        let ticket = Ticket {
            inner: Arc::clone(self),
            state: Arc::clone(&state),
        };
        Turn::Waits(ticket, wait(Arc::clone(self), shard, heard, state))
    }

    fn start_sender(self: &Arc<Self>, shard: Shard) {
        let sender = Sender {
            inner: Arc::clone(self),
            shard,
            has_ended: false,
        };
        self.background.spawn("debits of a shard", sender.run());
    }

    /// Starts another sender, unless there are many.
    fn help(self: &Arc<Self>, shard: &Shard) {
        let mut groups = self.groups.lock();
        let Some(waiting) = groups.get_mut(shard) else {
            return;
        };
        if waiting.group.is_empty() || waiting.senders >= MAX_SENDERS {
            return;
        }
        waiting.senders += 1;
        drop(groups);
        self.start_sender(shard.clone());
    }

    /// After how long without a write a caller starts another sender.
    fn stall(&self) -> Duration {
        let round_trip_ms = self.round_trip_ms.load(Ordering::Relaxed);
        Duration::from_millis((4 * round_trip_ms).clamp(200, 1000).unsigned_abs())
    }
}

/// Waits for the outcome of a debit in a group. If the circuit breaker opens before it is sent, it is not sent.
async fn wait(
    inner: Arc<Inner>,
    shard: Shard,
    mut heard: oneshot::Receiver<Heard>,
    state: Arc<AtomicU8>,
) -> Heard {
    let is_sent = || state.load(Ordering::Acquire) == SENT;
    let outcome = loop {
        if is_sent() {
            break heard.await;
        }
        // Registered before the breaker is looked at, so that no opening is missed.
        let mut opens = pin!(inner.breaker.opens());
        opens.as_mut().enable();
        if let Some(refusal) = inner.breaker.refused(inner.clock.now())
            && withdraw(&inner, &state)
        {
            return (Reply::Table(Err(refusal)), None);
        }
        tokio::select! {
            biased;
            outcome = &mut heard => break outcome,
            () = opens => {}
            () = tokio::time::sleep(inner.stall()), if !is_sent() => {
                if !is_sent() {
                    inner.help(&shard);
                }
            }
        }
    };
    outcome.unwrap_or_else(|_| {
        let (applied, what) = if is_sent() {
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

/// Sends what waits for a shard, until nothing does.
struct Sender {
    inner: Arc<Inner>,
    shard: Shard,
    has_ended: bool,
}

impl Sender {
    async fn run(mut self) {
        loop {
            // What arrives during the wait for a permit goes with this write.
            let permit = self.inner.permits.enter(&self.inner.clock).await;
            if let Err(refusal) = &permit {
                self.refuse(refusal);
            }
            let Some(batch) = self.next() else { return };
            self.send(batch).await;
            // Callers that have heard may ask again at once.
            tokio::task::yield_now().await;
        }
    }

    /// The next batch, whose members count as sent from now on. If nothing waits, the sender has ended.
    fn next(&mut self) -> Option<Batch<Member>> {
        let (id, shard) = &self.shard;
        let latest = self.inner.images.latest(id, *shard);
        let now = self.inner.clock.now();
        let mut groups = self.inner.groups.lock();
        let waiting = groups.get_mut(&self.shard)?;
        waiting
            .group
            .retain(|member| member.state.load(Ordering::Acquire) == WAITS);
        let Some(batch) = waiting.group.next(latest.as_ref(), now) else {
            self.has_ended = true;
            leave(&mut groups, &self.shard, |waiting| &mut waiting.senders);
            return None;
        };
        for (_, member) in batch.members() {
            member.state.store(SENT, Ordering::Release);
        }
        Some(batch)
    }

    async fn send(&self, batch: Batch<Member>) {
        let order = self.inner.next_order();
        let op = batch.op().clone();
        let (reply, left) = Arc::clone(&self.inner).ask_table(op).await;
        let Reply::Table(answer) = reply else { return };
        if answer.is_err() {
            // The circuit breaker counts calls that fail.
            (1..batch.members().len()).for_each(|_| self.inner.breaker.hear(&answer));
        }
        let answered = batch.answer(&answer);
        if let Some((_, Reply::Debited(_, image))) = answered.replies.first() {
            let observation = Observation {
                id: self.shard.0.clone(),
                shard: self.shard.1,
                image: Arc::clone(image),
            };
            self.inner
                .images
                .observe(&observation, order, self.inner.clock.now());
        }
        if !answered.again.is_empty()
            && let Some(waiting) = self.inner.groups.lock().get_mut(&self.shard)
        {
            waiting.group.push_back_again(answered.again);
        }
        for (member, reply) in answered.replies {
            // One that was left out has not left.
            let left = left.filter(|_| member.state.load(Ordering::Acquire) == SENT);
            // A caller that is gone was not sent.
            let _ = member.reply.send((reply, left));
        }
    }

    /// Nothing that waits is sent.
    fn refuse(&self, refusal: &TableError) {
        let mut groups = self.inner.groups.lock();
        let Some(waiting) = groups.get_mut(&self.shard) else {
            return;
        };
        for member in waiting.group.withdraw_all() {
            let _ = member.reply.send((Reply::Table(Err(refusal.clone())), None));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut groups = self.inner.groups.lock();
        // The runtime is ending. Those that wait hear that nothing was sent, and try again.
        let left = match groups.get_mut(&self.shard) {
            Some(waiting) if waiting.senders == 1 => waiting.group.withdraw_all(),
            _ => Vec::new(),
        };
        leave(&mut groups, &self.shard, |waiting| &mut waiting.senders);
        drop(groups);
        drop(left);
    }
}
