//! The correction of one item: see [`super`] for its rules.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::{CreditEnd, Deltas, Rider, Send};
use crate::backoff::{Again, Backoff};
use crate::bucket::{Bucket, BucketLimit, FENCE, Life, MAX_SHARDS, RECEIPT};
use crate::random::Random;
use crate::schema::BucketId;
use crate::table::{Answer, Applied, FailureKind, Item, Op, TableError, Update, Value};
use crate::units::{EpochMillis, Millitokens};
use crate::write::{Guard, credit, fence_off, keep_until, repeat};

/// The treatment of a correction that does not fit under the item's ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Above {
    /// It goes above, and the next refill cuts the surplus.
    Overflow,
    /// If the bucket was split since the debit, it ends with [`ItemEnd::Above`], to be divided over the shards.
    Divide,
    /// It ends with [`ItemEnd::Above`].
    Refuse,
}

/// How the correction of an item ended.
#[derive(Debug)]
pub(super) enum ItemEnd {
    /// As this says.
    Credit(CreditEnd),
    /// It did not happen: it does not fit under the ceiling.
    Above,
}

/// A correction of one item's balances on its way to the table.
#[derive(Debug)]
pub(super) struct ItemCredit {
    id: BucketId,
    shard: u32,
    deltas: Deltas,
    receipt: SmolStr,
    /// The item that was debited, as the debit left it.
    debited: Arc<Bucket>,
    /// The latest image of that item.
    image: Arc<Bucket>,
    above: Above,
    overflow: bool,
    /// Set once an answer was lost: the receipt that was on the item before the first sending.
    #[expect(
        clippy::option_option,
        reason = "no answer was lost, no mark before, or this mark before"
    )]
    before: Option<Option<Value>>,
    /// Set while the sendings before are fenced off, so that it can end with [`ItemEnd::Above`]: the mark of that write.
    fencing: Option<SmolStr>,
    /// Set once it has happened and the expiry is being moved.
    extension: Option<Update>,
    backoff: Backoff,
    guards: u32,
    end: Option<ItemEnd>,
}

/// A guard that fails is recomputed from the new image this often before the credit overflows.
const MAX_GUARDS: u32 = 3;

/// Nothing but others' repetitions can refuse an overflowing credit; so many of them there cannot be.
const MAX_REFUSALS: u32 = 20;

impl ItemCredit {
    /// Prepares a correction. `debited` is the item as the debit left it, or as it was found.
    pub(super) fn new(
        id: BucketId,
        shard: u32,
        deltas: Deltas,
        debited: Arc<Bucket>,
        above: Above,
        random: &mut dyn Random,
    ) -> Self {
        Self {
            id,
            shard,
            deltas,
            receipt: mark(random),
            image: Arc::clone(&debited),
            debited,
            above,
            overflow: false,
            before: None,
            fencing: None,
            extension: None,
            backoff: Backoff::of_credit(),
            guards: 0,
            end: None,
        }
    }

    /// Goes by this image, if it shows the item that was debited: the latest one has the latest receipt, which
    /// decides whether a lost answer can be made good.
    pub(super) fn see(&mut self, image: Option<Arc<Bucket>>) {
        if let Some(image) = image.filter(|image| image.life_since(&self.debited) == Life::Same) {
            self.go_by(image);
        }
    }

    /// Goes by an image that was just read: a correction that does not fit is not sent first as if it did.
    pub(super) fn see_now(&mut self, image: Arc<Bucket>, now: EpochMillis) {
        self.overflow = self.overflows(&image, now);
        self.go_by(image);
    }

    /// An image of a later period than that of the debit is for the table to show, in the answer to a sending that it refuses.
    fn go_by(&mut self, image: Arc<Bucket>) {
        let mut deltas = self.deltas.iter();
        if deltas.all(|(name, delta)| is_due(&self.debited, &image, name, *delta)) {
            self.image = image;
        }
    }

    /// The shard it corrects.
    pub(super) fn shard(&self) -> u32 {
        self.shard
    }

    /// The amounts that it corrects, without limits that do not exist any more.
    pub(super) fn deltas(&self) -> &Deltas {
        &self.deltas
    }

    /// The latest image of the item.
    pub(super) fn image(&self) -> &Arc<Bucket> {
        &self.image
    }

    /// How it ended, once it has.
    pub(super) fn end(&self) -> Option<&ItemEnd> {
        self.end.as_ref()
    }

    /// The first request.
    pub(super) fn start(&self, now: EpochMillis) -> Send {
        self.send(0, now)
    }

    /// The first request, to be joined with a debit. One that goes above the ceiling, or that is a repetition, goes alone.
    pub(super) fn rider(&self, now: EpochMillis) -> Option<Rider> {
        let is_first = self.before.is_none() && self.fencing.is_none() && self.extension.is_none();
        if !is_first || self.overflow || self.image.unsupported.is_some() || self.image.has_quota() {
            return None;
        }
        let Op::Update(update) = self.start(now).op else {
            return None;
        };
        Some(Rider {
            deltas: self.deltas.clone(),
            image: Arc::clone(&self.image),
            update,
        })
    }

    /// Takes the answer to the last request and gives the next one, or ends.
    pub(super) fn answer(
        &mut self,
        answer: Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        if let Some(update) = &self.extension {
            let is_done = match &answer {
                Ok(Answer::Applied(item)) => item.as_ref().is_some_and(|item| is_kept(item, update)),
                // It never expires, expires later, or is gone.
                Ok(Answer::Refused(_)) => true,
                // Another may have answered in the table's place.
                Ok(_) | Err(_) => false,
            };
            // It may be sent any number of times.
            return match (is_done, self.backoff.resend(random)) {
                (false, Again::After(delay_ms)) => Some(Send {
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
            Ok(Answer::Applied(Some(item))) if self.bears_fence(item.get(FENCE)) => {
                match Bucket::decode(&item) {
                    Ok(image) => self.fenced(image),
                    Err(err) => self.give_up(CreditEnd::Refused(err)),
                }
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
                Ok(image) => self.refused(image, now, random),
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
        let ours = Some(self.receipt.as_str());
        image.receipt.as_ref().and_then(Value::as_text) == ours || last_mark(image.fence.as_ref()) == ours
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
            // Marks that cannot be compared do not show whether it happened.
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

    /// Whether an item's fence is the one of the write that fences earlier sendings off.
    fn bears_fence(&self, fence: Option<&Value>) -> bool {
        self.fencing.is_some() && last_mark(fence) == self.fencing.as_deref()
    }

    /// No sending has happened, and none can: each requires another fence.
    fn fenced(&mut self, image: Bucket) -> Option<Send> {
        (self.before, self.fencing) = (None, None);
        self.image = Arc::new(image);
        self.end = Some(ItemEnd::Above);
        None
    }

    fn refused(&mut self, image: Bucket, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
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
        let debited = &self.debited;
        self.deltas
            .retain(|(name, delta)| image.limit(name).is_some() && is_due(debited, &image, name, *delta));
        if self.deltas.is_empty() {
            return self.give_up(CreditEnd::Gone);
        }
        let overflows = self.overflows(&image, now);
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
        let above = overflows || self.guards >= MAX_GUARDS;
        let was_split = image.shard_count > self.debited.shard_count;
        // The receipt is the one from before: no sending has happened up to this image.
        let is_fenced = self.bears_fence(image.fence.as_ref());
        self.image = Arc::new(image);
        let keeps_under = match self.above {
            Above::Overflow => false,
            Above::Divide => was_split && self.image.shard_count <= MAX_SHARDS,
            Above::Refuse => true,
        };
        self.fencing = None;
        if above && keeps_under {
            if self.before.is_none() || is_fenced {
                self.before = None;
                self.end = Some(ItemEnd::Above);
                return None;
            }
            // An earlier sending may still arrive.
            self.fencing = Some(mark(random));
            return Some(self.send(0, now));
        }
        self.overflow = above;
        Some(self.send(0, now))
    }

    /// Whether it would lift a balance above the ceiling that an image shows.
    fn overflows(&self, image: &Bucket, now: EpochMillis) -> bool {
        self.deltas.iter().any(|(name, delta)| {
            let above = |limit: &BucketLimit| (limit.balance + *delta).0 > image.ceiling(limit, now);
            delta.0 > 0 && image.limit(name).is_some_and(above)
        })
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
        if let Some(mark) = &self.fencing {
            let before = self.before.as_ref().and_then(Option::as_ref);
            let op = Op::Update(fence_off(key, &self.deltas, mark, before, &self.image));
            return Send { delay_ms, op };
        }
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
        self.end = Some(ItemEnd::Credit(end));
        None
    }
}

/// Whether a correction still applies to an item: what was taken of a quota in an earlier period does not come back in a later
/// one, nor does what was taken of a limit before it became a quota, once that has been whole again. What is charged afterwards
/// does, as any other debit.
fn is_due(debited: &Bucket, image: &Bucket, name: &str, delta: Millitokens) -> bool {
    if delta.0 <= 0 {
        return true;
    }
    let shape = |image: &Bucket| image.limit(name).and_then(|limit| limit.shape.clone());
    match (shape(debited), shape(image)) {
        (Some(then), now) if then.is_quota() => {
            then.is_of_period(debited.refilled_at, now.as_deref(), image.refilled_at)
        }
        (_, Some(now)) => !now.is_whole_since(debited.refilled_at, image.refilled_at),
        (_, None) => true,
    }
}

/// A mark that no other write leaves.
fn mark(random: &mut dyn Random) -> SmolStr {
    format_smolstr!("{:016x}", random.bits())
}

/// The mark of the write that set a fence last.
fn last_mark(fence: Option<&Value>) -> Option<&str> {
    fence.and_then(Value::as_text)?.rsplit('.').next()
}

/// Whether the image after a move of the expiry has what was set.
fn is_kept(item: &Item, update: &Update) -> bool {
    update
        .set
        .iter()
        .all(|(attr, value)| item.get(&**attr) == Some(value))
}
