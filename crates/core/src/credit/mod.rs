//! Giving tokens back, and charging them after the fact: refunds, releases and adjustments of one shard.
//!
//! A credit must happen exactly once: if it is lost, so are paid tokens; if it happens twice, it mints tokens. So:
//!
//! - It goes to the shard that was debited, and only if the item and its limits still exist. An item that was
//!   created anew under the same key, after the bucket was deleted or had expired, has nothing to correct: it owes
//!   no refund for tokens that it never gave, and no charge.
//! - It stays within the shard's ceiling, as the last image shows it. Where it would not (the bucket refilled
//!   meanwhile), it goes out again with `vu` = 0 in the same write: no debit can take the surplus before a
//!   refilling write has cut it.
//! - If the bucket was split since the debit, the shard's ceiling is lower than what it was debited from. Then the
//!   refund is divided over the shards, each within its ceiling, so that nothing is cut that the bucket has room for.
//!   Each part is a correction of one item, with a mark of its own.
//! - Every credit leaves its own mark on the item. If an answer is lost, the same write goes out once more on
//!   condition that the mark is still the one from before. Refused, with our mark on the item: it had
//!   happened. Refused, with a third mark: the outcome is unknown, and the credit is given up as
//!   [`CreditEnd::InDoubt`] rather than risked twice.
//! - The first sending may still be on its way when its repetition arrives, or later, when others have left
//!   their marks. So a repetition also changes the item's fence, and every sending requires the fence that
//!   its image showed: once a repetition has happened, nothing sent before it can.
//!
//! The machine performs no I/O; see [`crate::acquire`] for how machines are driven.

mod division;
mod item;
mod rider;

use std::collections::VecDeque;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::backoff::{Again, Backoff};
use crate::bucket::{Bucket, Life};
use crate::error::RecordError;
use crate::random::Random;
use crate::schema::{BucketId, key_of};
use crate::table::{Answer, Item, Op, TableError};
use crate::units::{EpochMillis, Millitokens};

use division::{Part, divide};
use item::{Above, ItemCredit, ItemEnd};
pub use rider::Rider;

/// How a credit ended.
#[derive(Debug, Clone)]
pub enum CreditEnd {
    /// It happened, once.
    Applied,
    /// The bucket or its limits are gone, or were created anew; there is nothing to correct.
    Gone,
    /// An answer was lost, and whether it happened can no longer be determined. It was not sent again.
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
    /// The next request.
    pub op: Op,
}

/// By limit: positive ones give tokens back, negative ones charge them.
type Deltas = Vec<(SmolStr, Millitokens)>;

/// The shards are read this often because a part did not fit any more. While a bucket is being split under load, shards are
/// filled and emptied between a read and the write that follows it.
const MAX_LOOKS: u32 = 12;

/// The longest wait before the third read, in milliseconds; it doubles with each.
const LOOK_WAIT_MS: u32 = 4;

/// The next step of a credit.
#[derive(Debug)]
enum Step {
    /// Correct the shard that was debited.
    Home(ItemCredit),
    /// Read all shards, to divide the refund over them.
    Look,
    /// Give a part of the refund to another shard.
    Part(ItemCredit),
    /// Nothing more.
    Over(CreditEnd),
}

/// A correction of what was taken from one shard, on its way to the table.
#[derive(Debug)]
pub struct Credit {
    id: BucketId,
    shard: u32,
    /// The part that has certainly happened.
    applied: Deltas,
    /// The part that is left for the shard that was debited.
    home: Deltas,
    /// The parts that are left for others.
    parts: VecDeque<Part>,
    /// The item that was debited, as the debit left it, and the latest image of it.
    debited: Arc<Bucket>,
    latest: Arc<Bucket>,
    step: Step,
    looks: u32,
    /// A part did not fit any more where it was to go.
    was_displaced: bool,
    /// Set if a part is in doubt.
    doubt: Option<TableError>,
    reading: Backoff,
}

impl Credit {
    /// Prepares a correction: positive deltas give tokens back, negative ones charge them. `debited` is the shard
    /// as the debit left it. Deltas of zero are dropped; with nothing left there is nothing to do.
    pub fn new(
        id: BucketId,
        shard: u32,
        deltas: impl IntoIterator<Item = (SmolStr, Millitokens)>,
        debited: Arc<Bucket>,
        random: &mut dyn Random,
    ) -> Self {
        let deltas: Deltas = deltas
            .into_iter()
            .filter(|(_, delta)| *delta != Millitokens::ZERO)
            .collect();
        let step = if deltas.is_empty() {
            Step::Over(CreditEnd::Applied)
        } else {
            let (id, debited) = (id.clone(), Arc::clone(&debited));
            Step::Home(ItemCredit::new(
                id,
                shard,
                deltas.clone(),
                debited,
                Above::Divide,
                random,
            ))
        };
        Self {
            id,
            shard,
            applied: Deltas::new(),
            home: Deltas::new(),
            parts: VecDeque::new(),
            latest: Arc::clone(&debited),
            debited,
            step,
            looks: 0,
            was_displaced: false,
            doubt: None,
            reading: Backoff::of_credit(),
        }
    }

    /// Goes by this image, if it shows the item that was debited: the latest one has the latest receipt, which
    /// decides whether a lost answer can be made good.
    #[must_use]
    pub fn with_latest(mut self, image: Option<Arc<Bucket>>) -> Self {
        if let Step::Home(item) = &mut self.step {
            item.see(image);
        }
        self
    }

    /// The bucket it corrects.
    pub fn id(&self) -> &BucketId {
        &self.id
    }

    /// The shard that was debited.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The shard that the last request corrects: another one, while a refund is divided over the shards.
    pub fn target(&self) -> u32 {
        match &self.step {
            Step::Home(item) | Step::Part(item) => item.shard(),
            Step::Look | Step::Over(_) => self.shard,
        }
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<&CreditEnd> {
        match &self.step {
            Step::Over(end) => Some(end),
            _ => None,
        }
    }

    /// The part that has certainly happened, by limit. Less than all: limits that are gone are left out, and of a
    /// divided refund parts can have happened.
    pub fn applied(&self) -> &[(SmolStr, Millitokens)] {
        &self.applied
    }

    /// The first request, if there is anything to do.
    pub fn start(&mut self, now: EpochMillis) -> Option<Send> {
        match &self.step {
            Step::Home(item) => Some(item.start(now)),
            _ => None,
        }
    }

    /// The first request, to be sent together with a debit of the shard in place of [`start`](Self::start). `None` if it has
    /// to go alone.
    ///
    /// If the joined write was refused and the item is there, nothing has happened, and the credit starts alone: which of the
    /// two conditions did not hold is not known. Any other answer is that of the first request.
    pub fn rider(&self, now: EpochMillis) -> Option<Rider> {
        match &self.step {
            Step::Home(item) => item.rider(now),
            _ => None,
        }
    }

    /// Takes the answer to the last request and gives the next one, or ends.
    pub fn answer(
        &mut self,
        answer: Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        match &mut self.step {
            Step::Home(item) => {
                let next = item.answer(answer, now, random);
                if next.is_none() { self.home_ended() } else { next }
            }
            Step::Part(item) => {
                let next = item.answer(answer, now, random);
                if next.is_none() {
                    self.part_ended(now, random)
                } else {
                    next
                }
            }
            Step::Look => self.looked(&answer, now, random),
            Step::Over(_) => None,
        }
    }

    /// The correction of the shard that was debited has ended.
    fn home_ended(&mut self) -> Option<Send> {
        let Step::Home(item) = &self.step else { return None };
        match item.end() {
            None => None,
            Some(ItemEnd::Above) => {
                self.latest = Arc::clone(item.image());
                self.home.clone_from(item.deltas());
                Some(self.look(0))
            }
            Some(ItemEnd::Credit(CreditEnd::Applied)) => {
                add(&mut self.applied, item.deltas(), 1);
                self.finish(CreditEnd::Applied)
            }
            Some(ItemEnd::Credit(end)) => {
                let end = end.clone();
                self.finish(end)
            }
        }
    }

    fn look(&mut self, delay_ms: u64) -> Send {
        self.step = Step::Look;
        let keys = (0..self.latest.shard_count)
            .map(|shard| self.id.key(shard))
            .collect();
        let op = Op::BatchGet {
            keys,
            consistent: true,
        };
        Send { delay_ms, op }
    }

    /// All shards were read: divides what is to be given back.
    fn looked(
        &mut self,
        answer: &Result<Answer, TableError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Option<Send> {
        if let Err(err) = answer
            && err.is_outage()
            && let Again::After(delay_ms) = self.reading.resend(random)
        {
            // A read changes nothing, so it can be sent again.
            return Some(self.look(delay_ms));
        }
        self.looks += 1;
        // Without the shards, all of it goes to the one that was debited.
        self.was_displaced = false;
        self.parts = match answer {
            Ok(Answer::Items(items)) => match self.others(items) {
                Some(others) => divide(&mut self.home, &self.latest, others, now).into(),
                None => VecDeque::new(),
            },
            _ => VecDeque::new(),
        };
        self.next_part(now, random)
    }

    /// The other shards in what was read; takes note of the one that was debited. `None` if that is gone or was created
    /// anew: then the bucket has been deleted, and what it has become owes nothing to this refund.
    fn others(&mut self, items: &[Item]) -> Option<Vec<(u32, Arc<Bucket>)>> {
        let mut others = Vec::new();
        let mut is_there = false;
        for item in items {
            let place = key_of(item).and_then(|key| BucketId::parse(&key));
            let (Some((id, shard)), Ok(image)) = (place, Bucket::decode(item)) else {
                continue;
            };
            if id != self.id {
                continue;
            }
            if shard != self.shard {
                others.push((shard, Arc::new(image)));
            } else if image.life_since(&self.debited) == Life::Same {
                is_there = true;
                self.latest = Arc::new(image);
            }
        }
        // The items were not read at one instant: the bucket may have been deleted and created again in between.
        let life = self.debited.life(self.shard);
        others
            .retain(|(shard, image)| life.is_none() || image.life(*shard).is_none_or(|of| Some(of) == life));
        is_there.then_some(others)
    }

    /// Gives the next part to its shard; after the last, the rest to the shard that was debited.
    fn next_part(&mut self, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        if let Some(Part { shard, deltas, image }) = self.parts.pop_front() {
            let item = ItemCredit::new(self.id.clone(), shard, deltas, image, Above::Refuse, random);
            let send = item.start(now);
            self.step = Step::Part(item);
            return Some(send);
        }
        if self.was_displaced && self.looks < MAX_LOOKS {
            let delay_ms = match self.looks {
                0 | 1 => 0,
                looks => random.below(LOOK_WAIT_MS << (looks - 1).min(6)).into(),
            };
            return Some(self.look(delay_ms));
        }
        let home: Deltas = std::mem::take(&mut self.home);
        let home: Deltas = home
            .into_iter()
            .filter(|(_, delta)| *delta != Millitokens::ZERO)
            .collect();
        if home.is_empty() {
            return self.finish(CreditEnd::Applied);
        }
        let (id, debited) = (self.id.clone(), Arc::clone(&self.debited));
        let mut item = ItemCredit::new(id, self.shard, home, debited, Above::Overflow, random);
        item.see_now(Arc::clone(&self.latest), now);
        let send = item.start(now);
        self.step = Step::Home(item);
        Some(send)
    }

    /// The part that another shard did not take is given to the shard that was debited.
    fn part_ended(&mut self, now: EpochMillis, random: &mut dyn Random) -> Option<Send> {
        let Step::Part(item) = &self.step else { return None };
        match item.end() {
            None => return None,
            Some(ItemEnd::Credit(CreditEnd::Applied)) => add(&mut self.applied, item.deltas(), 1),
            Some(ItemEnd::Credit(CreditEnd::InDoubt(err))) => self.doubt = Some(err.clone()),
            Some(ItemEnd::Above) => {
                self.was_displaced = true;
                add(&mut self.home, item.deltas(), 1);
            }
            Some(ItemEnd::Credit(_)) => add(&mut self.home, item.deltas(), 1),
        }
        self.next_part(now, random)
    }

    fn finish(&mut self, end: CreditEnd) -> Option<Send> {
        self.step = Step::Over(match self.doubt.take() {
            Some(err) => CreditEnd::InDoubt(err),
            None => end,
        });
        None
    }
}

/// Adds deltas to others, or takes them off.
fn add(sums: &mut Deltas, deltas: &[(SmolStr, Millitokens)], sign: i128) {
    for (name, delta) in deltas {
        let delta = Millitokens(delta.0.saturating_mul(sign));
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += delta,
            None => sums.push((name.clone(), delta)),
        }
    }
}
