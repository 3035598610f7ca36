//! Giving tokens back, and charging them after the fact: refunds, releases and adjustments of one shard.
//!
//! A credit must happen exactly once: lost, it is somebody's money; twice, it mints tokens. So:
//!
//! - It goes to the shard that was debited, and only if the item and its limits still exist. An item that was
//!   created anew under the same key, after the bucket was deleted or had expired, has nothing to correct: it owes
//!   no refund for tokens that it never gave, and no charge.
//! - It stays within the shard's ceiling, as the last image shows it. Where it would not (the bucket refilled
//!   meanwhile), it goes out again with `vu` = 0 in the same write: nobody can spend the surplus before a
//!   refilling write has cut it.
//! - Every credit leaves its own mark on the item. If an answer is lost, the same write goes out once more on
//!   condition that the mark is still the one from before. Refused, with our mark on the item: it had
//!   happened. Refused, with a third mark: nobody can tell, and the credit is given up as
//!   [`CreditEnd::InDoubt`] rather than risked twice.
//! - The first sending may still be on its way when its repetition arrives, or later, when others have left
//!   their marks. So a repetition also changes the item's fence, and every sending requires the fence that
//!   its image showed: once a repetition has happened, nothing sent before it can.
//!
//! The machine performs no I/O; see [`crate::acquire`] for how machines are driven.

use smol_str::{SmolStr, format_smolstr};

use crate::acquire::write::{Guard, credit, keep_until, repeat};
use crate::backoff::{Again, Backoff};
use crate::bucket::{Bucket, Life, RECEIPT};
use crate::error::RecordError;
use crate::random::Random;
use crate::schema::BucketId;
use crate::table::{Answer, Applied, FailureKind, Item, Op, TableError, Update, Value};
use crate::units::{EpochMillis, Millitokens};

/// How a credit ended.
#[derive(Debug, Clone)]
pub enum CreditEnd {
    /// It happened, once.
    Applied,
    /// The bucket or its limits are gone, or were created anew; there is nothing to correct.
    Gone,
    /// An answer was lost, and whether it happened can no longer be told. It was not sent again.
    InDoubt(TableError),
    /// It did not happen.
    Failed(TableError),
    /// It did not happen: the item cannot be read, or a schedule or quota crossed a boundary since.
    Refused(RecordError),
}

/// One request of a machine: wait `delay_ms`, then send `op`.
#[derive(Debug, Clone, PartialEq)]
pub struct Send {
    /// Milliseconds to wait first.
    pub delay_ms: u64,
    /// What to send.
    pub op: Op,
}

/// A correction of one shard's balances on its way to the table.
#[derive(Debug)]
pub struct Credit {
    id: BucketId,
    shard: u32,
    deltas: Vec<(SmolStr, Millitokens)>,
    receipt: SmolStr,
    /// The item that was debited, as the debit left it.
    debited: std::sync::Arc<Bucket>,
    /// The latest image of that item.
    image: std::sync::Arc<Bucket>,
    overflow: bool,
    /// Set once an answer was lost: the receipt that was on the item before the first sending.
    #[expect(
        clippy::option_option,
        reason = "no answer was lost, no mark before, or this mark before"
    )]
    before: Option<Option<Value>>,
    /// Set once it has happened and the expiry is being moved.
    extension: Option<Update>,
    backoff: Backoff,
    guards: u32,
    end: Option<CreditEnd>,
}

/// A guard that fails is recomputed from the new image this often before the credit overflows.
const MAX_GUARDS: u32 = 3;

/// Nothing but others' repetitions can refuse an overflowing credit; so many of them there cannot be.
const MAX_REFUSALS: u32 = 20;

impl Credit {
    /// Prepares a correction: positive deltas give tokens back, negative ones charge them. `debited` is the shard
    /// as the debit left it. Deltas of zero are dropped; with nothing left there is nothing to do.
    pub fn new(
        id: BucketId,
        shard: u32,
        deltas: impl IntoIterator<Item = (SmolStr, Millitokens)>,
        debited: std::sync::Arc<Bucket>,
        random: &mut dyn Random,
    ) -> Self {
        let deltas: Vec<_> = deltas
            .into_iter()
            .filter(|(_, delta)| *delta != Millitokens::ZERO)
            .collect();
        let end = deltas.is_empty().then_some(CreditEnd::Applied);
        Self {
            id,
            shard,
            deltas,
            receipt: format_smolstr!("{:016x}", random.bits()),
            image: std::sync::Arc::clone(&debited),
            debited,
            overflow: false,
            before: None,
            extension: None,
            backoff: Backoff::of_credit(),
            guards: 0,
            end,
        }
    }

    /// Goes by this image, if it shows the item that was debited: the latest one knows the latest receipt, which
    /// decides whether a lost answer can be made good.
    #[must_use]
    pub fn with_latest(mut self, image: Option<std::sync::Arc<Bucket>>) -> Self {
        if let Some(image) = image.filter(|image| image.life_since(&self.debited) == Life::Same) {
            self.image = image;
        }
        self
    }

    /// The bucket it corrects.
    pub fn id(&self) -> &BucketId {
        &self.id
    }

    /// The shard it corrects.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<&CreditEnd> {
        self.end.as_ref()
    }

    /// The first request, if there is anything to do.
    pub fn start(&mut self, now: EpochMillis) -> Option<Send> {
        self.end.is_none().then(|| self.send(0, now))
    }

    /// Takes the answer to the last request and gives the next one, or ends.
    pub fn answer(
        &mut self,
        answer: Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        if let Some(update) = &self.extension {
            // It may be sent any number of times.
            return match (answer, self.backoff.resend(random)) {
                (Err(_), Again::After(delay_ms)) => Some(Send {
                    delay_ms,
                    op: Op::Update(update.clone()),
                }),
                _ => self.finish(CreditEnd::Applied),
            };
        }
        match answer {
            Ok(Answer::Applied(Some(item))) if self.bears_mark(&item) => {
                self.applied(Bucket::decode(&item).ok(), now)
            }
            // The new image carries the mark. Without it, another may have answered in the table's place.
            Ok(Answer::Applied(_)) => self.lost(
                TableError::new(
                    FailureKind::Internal,
                    Applied::Unknown,
                    "the answer to a refund does not show it",
                ),
                now,
                random,
            ),
            Ok(Answer::Refused(None)) => self.give_up(CreditEnd::Gone),
            Ok(Answer::Refused(Some(item))) => match Bucket::decode(&item) {
                Ok(image) => self.refused(image, now),
                Err(err) => self.give_up(CreditEnd::Refused(err)),
            },
            Ok(_) => self.finish(CreditEnd::Failed(TableError::new(
                FailureKind::Internal,
                Applied::Unknown,
                "the table answered an update with something else",
            ))),
            Err(err) if err.applied == Applied::Unknown => self.lost(err, now, random),
            Err(err) => match self.backoff.next(&err, random) {
                Again::After(delay) => Some(self.send(delay, now)),
                Again::No | Again::Contended => self.give_up(CreditEnd::Failed(err)),
            },
        }
    }

    /// Whether an image bears the mark of this credit.
    fn is_marked(&self, image: &Bucket) -> bool {
        let text = |mark: &Option<Value>| mark.as_ref().and_then(Value::as_text).map(SmolStr::new);
        let fence = text(&image.fence);
        text(&image.receipt).as_ref() == Some(&self.receipt)
            || fence.is_some_and(|fence| fence.rsplit('.').next() == Some(self.receipt.as_str()))
    }

    /// Whether an image shows another item than the one that was debited.
    fn is_of_another_life(&self, image: &Bucket) -> bool {
        match image.life_since(&self.debited) {
            Life::Same => false,
            Life::Other => true,
            // The item that was debited counts at least what is still to be given back.
            Life::Stamped => self.deltas.iter().any(|(name, delta)| {
                let counted = image.limit(name).and_then(|limit| limit.consumed);
                delta.0 > 0 && counted.is_some_and(|counted| counted < *delta)
            }),
        }
    }

    /// Sends again after an answer was lost, on condition that the first sending did not happen.
    fn lost(&mut self, err: TableError, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        if self.before.is_none() {
            self.before = Some(self.image.receipt.clone());
        }
        if [&self.image.receipt, &self.image.fence].contains(&&Some(Value::Other)) {
            // Marks that cannot be compared do not tell whether it happened.
            return self.finish(CreditEnd::InDoubt(err));
        }
        match self.backoff.resend(random) {
            Again::After(delay) => Some(self.send(delay, now)),
            _ => self.finish(CreditEnd::InDoubt(err)),
        }
    }

    /// It happened. If a charge has left a debt that outlives the item, the expiry is moved: otherwise the bucket would
    /// be created anew, and full.
    fn applied(&mut self, image: Option<Bucket>, now: EpochMillis) -> Option<Send> {
        let has_charges = self.deltas.iter().any(|(_, delta)| *delta < Millitokens::ZERO);
        let Some(image) = image.filter(|image| has_charges && image.expires_in_debt(now)) else {
            return self.finish(CreditEnd::Applied);
        };
        let update = keep_until(self.id.key(self.shard), image.needed_until(1, now));
        self.extension = Some(update.clone());
        Some(Send {
            delay_ms: 0,
            op: Op::Update(update),
        })
    }

    /// Whether an item bears the mark that every sending of this credit leaves.
    fn bears_mark(&self, item: &Item) -> bool {
        item.get(RECEIPT).and_then(Value::as_text) == Some(self.receipt.as_str())
    }

    fn refused(&mut self, image: Bucket, now: EpochMillis) -> Option<Send> {
        if self.is_marked(&image) {
            return self.applied(Some(image), now);
        }
        if self.is_of_another_life(&image) {
            return self.give_up(CreditEnd::Gone);
        }
        // If the mark is still the one from before, the first sending did not happen and the guard refused this.
        if self
            .before
            .as_ref()
            .is_some_and(|before| image.receipt != *before)
        {
            return self.give_up(CreditEnd::Gone);
        }
        self.deltas.retain(|(name, _)| image.limit(name).is_some());
        if self.deltas.is_empty() {
            return self.give_up(CreditEnd::Gone);
        }
        let fits = |(name, delta): &(SmolStr, Millitokens)| {
            image
                .limit(name)
                .is_none_or(|limit| delta.0 <= 0 || (limit.balance + *delta).0 <= image.share(limit).capacity)
        };
        let overflows = !self.deltas.iter().all(fits);
        if image.unsupported.is_some() && (overflows || self.guards > 0 || !image.is_valid(now)) {
            let attribute = image.unsupported.clone().unwrap_or_default();
            return self.give_up(CreditEnd::Refused(
                crate::error::UnsupportedFeature {
                    record: "bucket",
                    key: self.id.key(self.shard).to_string(),
                    attribute: attribute.to_string(),
                    advice: "the refund was dropped because the bucket's schedule or quota moved on",
                }
                .into(),
            ));
        }
        self.guards += 1;
        if self.guards > MAX_REFUSALS {
            return self.give_up(CreditEnd::Failed(TableError::new(
                FailureKind::Conflict,
                Applied::No,
                "the bucket kept changing",
            )));
        }
        self.overflow = overflows || self.guards >= MAX_GUARDS;
        self.image = std::sync::Arc::new(image);
        Some(self.send(0, now))
    }

    fn send(&self, delay_ms: u64, now: EpochMillis) -> Send {
        let guard = if self.deltas.iter().all(|(_, delta)| delta.0 <= 0) {
            Guard::Exists
        } else if self.overflow {
            Guard::Overflow
        } else {
            Guard::Ceiling(&self.image)
        };
        let key = self.id.key(self.shard);
        let mut update = credit(key, &self.deltas, &guard, &self.receipt, &self.image, now);
        if let Some(before) = &self.before {
            repeat(&mut update, &self.receipt, before.as_ref(), &self.image);
        }
        Send {
            delay_ms,
            op: Op::Update(update),
        }
    }

    /// Ends without having seen it happen. If an answer was lost, it may have happened, or may yet.
    fn give_up(&mut self, end: CreditEnd) -> Option<Send> {
        self.finish(match (&self.before, end) {
            (Some(_), CreditEnd::Failed(err)) => CreditEnd::InDoubt(err),
            (Some(_), _) => CreditEnd::InDoubt(TableError::new(
                FailureKind::Timeout,
                Applied::Unknown,
                "an answer was lost, and the bucket has been changed by others since",
            )),
            (None, end) => end,
        })
    }

    fn finish(&mut self, end: CreditEnd) -> Option<Send> {
        self.end = Some(end);
        None
    }
}
