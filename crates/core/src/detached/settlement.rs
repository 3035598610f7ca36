//! Ending a detached lease: see [`super`] for what holds.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::record::{Ended, LeaseRecord, Left};
use super::{DetachedLease, LeaseEnd};
use crate::access;
use crate::backoff::{Again, Backoff};
use crate::bucket::RECEIPT;
use crate::credit::{Credit, CreditEnd, Send};
use crate::error::RecordError;
use crate::random::Random;
use crate::table::{Answer, Applied, Cancelled, FailureKind, Item, Op, Part, TableError, Update, Value};
use crate::units::{EpochMillis, Millitokens};

/// How a settlement ended.
#[derive(Debug, Clone)]
pub enum Settled {
    /// The lease has ended as was asked for.
    Done {
        /// Whether that had been recorded before.
        is_repeated: bool,
        /// A correction that was not written, because the bucket cannot be read.
        unread: Option<RecordError>,
    },
    /// It had ended in another way: `commit`, `rollback` or `expired`.
    Other(String),
    /// It can no longer be ended: its time to live is over, and what its [`OnExpiry`](super::OnExpiry) says holds.
    Over,
    /// Something is left to write, or it is not known whether the end was recorded. The same end can be asked for again.
    Failed(TableError),
    /// The record cannot be read.
    Unreadable(RecordError),
}

/// How often a settlement goes on from a record that another process has changed.
const MAX_TURNS: u32 = 40;

/// What a settlement waits for.
#[derive(Debug)]
enum Step {
    /// A correction of a grant, alone or with the record.
    Credit(usize, Box<Credit>),
    /// A correction of what was counted under a bypass, with the record.
    Count(usize),
    /// The image of a bucket that was charged, to see whether its debt outlives it.
    Charged(usize, Box<Credit>, SmolStr),
    /// A write of the record alone.
    Record,
    Over(Settled),
}

/// A write of the record, and of a bucket with it, that waits for its answer.
#[derive(Debug, Clone)]
struct Sent {
    op: Op,
    /// What is left once it has happened.
    left: Left,
    /// The receipt of the credit, and whether it charges.
    receipt: Option<SmolStr>,
    charges: bool,
}

/// A detached lease on its way to its end. The machine performs no I/O; see [`crate::acquire`] for how machines are driven.
#[derive(Debug)]
pub struct Settlement {
    lease: DetachedLease,
    end: LeaseEnd,
    text: String,
    /// Names this settlement in the record, until another one's record is gone on from.
    by: String,
    /// What is left to write.
    left: Left,
    /// What the record says is left, if it is known to say that the lease has ended.
    recorded: Option<Left>,
    step: Step,
    sent: Option<Sent>,
    /// An answer to the last write was lost.
    is_in_doubt: bool,
    is_repeated: bool,
    may_be_unrecorded: bool,
    /// How it had been ended, if in another way. What that has left is written nevertheless.
    other: Option<String>,
    unread: Option<RecordError>,
    turns: u32,
    backoff: Backoff,
}

impl Settlement {
    /// Prepares an end.
    pub fn new(lease: DetachedLease, end: LeaseEnd, random: &mut dyn Random) -> Self {
        let left = lease.corrections(&end);
        let text = end.text();
        let by = format!("{:016x}", random.bits());
        Self {
            lease,
            end,
            text,
            by,
            left,
            recorded: None,
            step: Step::Record,
            sent: None,
            is_in_doubt: false,
            is_repeated: false,
            may_be_unrecorded: false,
            other: None,
            unread: None,
            turns: 0,
            backoff: Backoff::of_credit(),
        }
    }

    /// Prepares to give back a lease of which it is not known whether it was [recorded](DetachedLease::record). If it was not, it
    /// cannot be any more.
    pub fn withdraw(lease: DetachedLease, random: &mut dyn Random) -> Self {
        let mut settlement = Self::new(lease, LeaseEnd::Rollback, random);
        settlement.may_be_unrecorded = true;
        settlement
    }

    /// Prepares to write what an end has left that was recorded before.
    pub fn resume(lease: DetachedLease, ended: Ended, random: &mut dyn Random) -> Self {
        let mut settlement = Self::new(lease, LeaseEnd::Expired, random);
        settlement.text.clone_from(&ended.end);
        settlement.go_on_from(ended);
        settlement
    }

    /// The lease.
    pub fn lease(&self) -> &DetachedLease {
        &self.lease
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Settled> {
        match &self.step {
            Step::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The first request, if there is anything to do.
    pub fn start(&mut self, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        self.next(now, random)
    }

    /// Takes the answer to the last request and gives the next one, or ends.
    pub fn answer(
        &mut self,
        answer: Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        if let Step::Charged(..) = &self.step {
            return self.charged(&answer, now, random);
        }
        let Some(sent) = self.sent.take() else {
            // A request of a credit that moves no tokens.
            return self.credit(answer, now, random);
        };
        let answer = match answer {
            Ok(Answer::Cancelled(reasons)) => match verdict(&reasons) {
                Verdict::Record(item) => return self.record_differs(item.as_ref(), &sent, now, random),
                Verdict::Bucket(item) => return self.bucket_differs(item, now, random),
                Verdict::Failed(err) => Err(err),
            },
            Ok(Answer::Refused(item)) => return self.record_differs(item.as_ref(), &sent, now, random),
            answer => answer,
        };
        match answer {
            Ok(Answer::Applied(_)) => self.applied(sent, now, random),
            Ok(other) => self.fail(TableError::new(
                FailureKind::Internal,
                Applied::Unknown,
                format!("unexpected answer {other:?}"),
            )),
            Err(err) => {
                self.is_in_doubt |= err.applied == Applied::Unknown;
                // It happens once, however often it is sent: the record is not as it says any more.
                let may_resend = err.applied == Applied::Unknown || err.may_resend();
                match self.backoff.resend(random) {
                    Again::After(delay_ms) if may_resend => {
                        let op = sent.op.clone();
                        self.sent = Some(sent);
                        Some(Send { delay_ms, op })
                    }
                    _ => self.fail(err),
                }
            }
        }
    }

    /// Begins with what is left, or ends.
    fn next(&mut self, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        if let Some((at, deltas)) = self.left.first() {
            let deltas: Vec<_> = deltas
                .iter()
                .map(|(name, delta)| (name.clone(), Millitokens(*delta)))
                .collect();
            let grant = &self.lease.grants[at];
            if grant.is_bypassed {
                let update = access::correct_count(grant.id.key(grant.shard), &deltas);
                self.step = Step::Count(at);
                let left = self.left.without(at);
                return Some(self.with_record(0, Some((update, None)), left, now));
            }
            let image = std::sync::Arc::clone(&grant.image);
            let mut credit = Credit::new(grant.id.clone(), grant.shard, deltas, image, random);
            let first = credit.start(now);
            self.step = Step::Credit(at, Box::new(credit));
            return match first {
                Some(first) => Some(self.send(first, now)),
                None => self.credit_ended(now, random),
            };
        }
        if self.recorded.as_ref().is_some_and(Left::is_empty) {
            return self.finish();
        }
        self.step = Step::Record;
        Some(self.with_record(0, None, Left::default(), now))
    }

    fn finish(&mut self) -> Option<Send> {
        self.step = Step::Over(match self.other.take() {
            Some(other) => Settled::Other(other),
            None => Settled::Done {
                is_repeated: self.is_repeated,
                unread: self.unread.take(),
            },
        });
        None
    }

    fn fail(&mut self, mut err: TableError) -> Option<Send> {
        if self.is_in_doubt {
            err.applied = Applied::Unknown;
        }
        self.step = Step::Over(Settled::Failed(err));
        None
    }

    /// Sends a request of a credit; one that moves tokens with the record.
    fn send(&mut self, send: Send, now: EpochMillis) -> Send {
        let Step::Credit(at, _) = &self.step else {
            return send;
        };
        let Op::Update(update) = &send.op else { return send };
        let receipt = update.set.iter().find(|(name, _)| name == RECEIPT);
        let Some(receipt) = receipt.and_then(|(_, value)| value.as_text()).map(SmolStr::new) else {
            return send;
        };
        let moved: BTreeMap<&str, i128> = update
            .add
            .iter()
            .filter_map(|(attr, by)| Some((attr.strip_prefix("b_")?.strip_suffix("_tk")?, *by)))
            .collect();
        let left = self.left.less(*at, moved);
        self.with_record(send.delay_ms, Some((update.clone(), Some(receipt))), left, now)
    }

    /// A write of the record, in one transaction with that of a bucket if there is one.
    fn with_record(
        &mut self,
        delay_ms: u64,
        bucket: Option<(Update, Option<SmolStr>)>,
        left: Left,
        now: EpochMillis,
    ) -> Send {
        let condition = match &self.recorded {
            Some(recorded) => recorded.is_still(&self.by),
            None if self.end == LeaseEnd::Expired => DetachedLease::is_over(now),
            None => self.lease.is_open(now, self.may_be_unrecorded),
        };
        let record = self.lease.end(&self.text, &self.by, &left, condition);
        let (op, receipt, charges) = match bucket {
            None => (Op::Update(record), None, false),
            Some((update, receipt)) => {
                let is_charge = |(name, by): &(SmolStr, i128)| name.ends_with("_tk") && *by < 0;
                let charges = update.add.iter().any(is_charge);
                let parts = vec![Part::Update(update), Part::Update(record)];
                (Op::Transact(parts), receipt, charges)
            }
        };
        self.sent = Some(Sent {
            op: op.clone(),
            left,
            receipt,
            charges,
        });
        self.is_in_doubt = false;
        Send { delay_ms, op }
    }

    /// The write has happened.
    fn applied(&mut self, sent: Sent, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        self.left.clone_from(&sent.left);
        self.recorded = Some(sent.left);
        self.is_in_doubt = false;
        self.backoff = Backoff::of_credit();
        match (std::mem::replace(&mut self.step, Step::Record), sent.receipt) {
            (Step::Credit(at, credit), Some(receipt)) => {
                let expires = self
                    .lease
                    .grants
                    .get(at)
                    .is_some_and(|grant| grant.image.ttl.is_some());
                if sent.charges && expires {
                    let key = credit.id().key(credit.target());
                    self.step = Step::Charged(at, credit, receipt);
                    let op = Op::Get {
                        key,
                        consistent: true,
                    };
                    return Some(Send { delay_ms: 0, op });
                }
                self.step = Step::Credit(at, credit);
                let shown = Item::from([(RECEIPT.to_owned(), Value::text(receipt.as_str()))]);
                self.credit(Ok(Answer::Applied(Some(shown))), now, random)
            }
            _ => self.next(now, random),
        }
    }

    /// The bucket that was charged was read. The credit looks at it as at the answer to its write.
    fn charged(
        &mut self,
        answer: &Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        let Step::Charged(at, credit, receipt) = std::mem::replace(&mut self.step, Step::Record) else {
            return None;
        };
        let mut shown = match answer {
            Ok(Answer::Item(Some(item))) => item.clone(),
            _ => Item::new(),
        };
        shown.insert(RECEIPT.to_owned(), Value::text(receipt.as_str()));
        self.step = Step::Credit(at, credit);
        self.credit(Ok(Answer::Applied(Some(shown))), now, random)
    }

    fn bucket_differs(
        &mut self,
        item: Option<Item>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        if let Step::Count(at) = self.step {
            // The bucket is gone, and what was counted with it.
            self.left = self.left.without(at);
            return self.next(now, random);
        }
        self.credit(Ok(Answer::Refused(item)), now, random)
    }

    /// The record is not as the write says.
    fn record_differs(
        &mut self,
        item: Option<&Item>,
        sent: &Sent,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        let record = item.map(|item| LeaseRecord::read(item, self.lease.grants.len()));
        let ended = match record {
            None | Some(Ok(LeaseRecord::Open(_))) => {
                self.step = Step::Over(Settled::Over);
                return None;
            }
            Some(Err(err)) => {
                self.step = Step::Over(Settled::Unreadable(err));
                return None;
            }
            Some(Ok(LeaseRecord::Ended(ended))) => ended,
        };
        if ended.by == self.by && ended.left == sent.left && self.recorded.as_ref() != Some(&sent.left) {
            // It had happened, and the answer was lost.
            return self.applied(sent.clone(), now, random);
        }
        self.turns += 1;
        if self.turns > MAX_TURNS {
            let message = "other processes kept ending the same lease";
            return self.fail(TableError::new(FailureKind::Conflict, Applied::Unknown, message));
        }
        self.go_on_from(ended);
        self.next(now, random)
    }

    /// Another settlement has recorded an end, and this one writes what that has left.
    fn go_on_from(&mut self, ended: Ended) {
        self.is_repeated |= ended.by != self.by;
        if ended.end != self.text {
            self.other = Some(ended.kind().to_owned());
            self.text.clone_from(&ended.end);
        }
        self.by = ended.by;
        self.left = ended.left.clone();
        self.recorded = Some(ended.left);
    }

    /// Passes an answer to the credit that is under way.
    fn credit(
        &mut self,
        answer: Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        let Step::Credit(_, credit) = &mut self.step else {
            return None;
        };
        match credit.answer(answer, now, random) {
            Some(send) => Some(self.send(send, now)),
            None => self.credit_ended(now, random),
        }
    }

    fn credit_ended(&mut self, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        let Step::Credit(at, credit) = &self.step else {
            return None;
        };
        let at = *at;
        match credit.end().cloned() {
            Some(CreditEnd::Failed(err) | CreditEnd::InDoubt(err)) => return self.fail(err),
            Some(CreditEnd::Refused(err)) => drop(self.unread.get_or_insert(err)),
            Some(CreditEnd::Applied | CreditEnd::Gone) | None => {}
        }
        // What does not apply any more is not written.
        self.left = self.left.without(at);
        self.next(now, random)
    }
}

/// Why a transaction of a bucket and a record did not happen.
enum Verdict {
    /// The record differs.
    Record(Option<Item>),
    /// The bucket differs.
    Bucket(Option<Item>),
    Failed(TableError),
}

fn verdict(reasons: &[Cancelled]) -> Verdict {
    match reasons {
        [_, Cancelled::Refused(item)] => Verdict::Record(item.clone()),
        [.., Cancelled::Conflict] | [Cancelled::Conflict, ..] => Verdict::Failed(TableError::new(
            FailureKind::Conflict,
            Applied::No,
            "another transaction changes the bucket",
        )),
        [Cancelled::Refused(item), _] => Verdict::Bucket(item.clone()),
        other => {
            let code = other.iter().find_map(|reason| match reason {
                Cancelled::Other(code) => Some(code.as_str()),
                _ => None,
            });
            let kind = match code {
                Some(code) if code.contains("Throttl") || code.contains("Throughput") => {
                    FailureKind::Throttled
                }
                _ => FailureKind::Internal,
            };
            let message = format!("the transaction was cancelled: {}", code.unwrap_or("no reason"));
            Verdict::Failed(TableError::new(kind, Applied::No, message))
        }
    }
}
