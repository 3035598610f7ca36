//! Takes a place with one write.

use smol_str::SmolStr;

use super::hold::Hold;
use super::holders::{COUNT, HOLDER, Holders, kept_until};
use super::{GiveBack, Holder, Next, is_passing, wrong_answer};
use crate::backoff::{Again, Backoff};
use crate::error::RecordError;
use crate::random::Random;
use crate::schema::BucketId;
use crate::table::{Answer, Applied, Condition, FailureKind, Item, Op, TableError, Update, Value};
use crate::units::EpochMillis;

/// How many expired places one write removes: an expression of DynamoDB has at most 4 KB and 300 operators.
const MOST_REMOVED: usize = 50;

/// How often a write is planned anew because others have changed the item, before the request is refused.
const MOST_ROUNDS: u32 = 40;

/// How a [`Take`] ended.
#[derive(Debug, Clone)]
pub enum TakeEnd {
    /// The place is held.
    Held(Hold),
    /// All places are taken: by so many holders whose time has not run out.
    Full(u32),
    /// It could not be decided.
    Failed(TableError),
    /// The item contradicts the format.
    Record(RecordError),
}

/// What is written next.
#[derive(Debug, Clone, PartialEq)]
enum Plan {
    /// Takes a place if fewer than the limit are taken.
    Plain,
    /// Takes a place, and removes these holders, whose time has run out. Each is named with its expiry, so that one that has given a
    /// sign of life meanwhile keeps its place.
    Over(Vec<(SmolStr, EpochMillis)>),
    /// Removes these only: there are more than one write can remove.
    Remove(Vec<(SmolStr, EpochMillis)>),
}

/// A place on the way to be taken.
#[derive(Debug, Clone)]
pub struct Take {
    id: BucketId,
    holder: Holder,
    most: u32,
    ttl_ms: i64,
    plan: Plan,
    /// The expiry that was sent last.
    expiry: EpochMillis,
    pause: Option<u64>,
    /// Whether a write of the place may have happened, or may happen still.
    in_doubt: bool,
    rounds: u32,
    backoff: Backoff,
    end: Option<TakeEnd>,
}

impl Take {
    /// Takes one of `most` places for so many milliseconds.
    pub fn new(id: BucketId, most: u32, ttl_ms: i64, random: &mut dyn Random) -> Self {
        Self {
            id,
            holder: Holder::draw(random),
            most,
            ttl_ms,
            plan: Plan::Plain,
            expiry: EpochMillis::default(),
            pause: None,
            in_doubt: false,
            rounds: 0,
            backoff: Backoff::until_deadline(),
            end: None,
        }
    }

    /// The entity and resource.
    pub fn id(&self) -> &BucketId {
        &self.id
    }

    /// The holder.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// How many places there are.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// What to do next.
    pub fn next(&mut self, now: EpochMillis) -> Next {
        if self.end.is_some() {
            return Next::Ended;
        }
        if let Some(millis) = self.pause.take() {
            return Next::Pause(millis);
        }
        self.expiry = now.plus(self.ttl_ms);
        Next::Send(Box::new(Op::Update(self.write())))
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<&TakeEnd> {
        self.end.as_ref()
    }

    /// What gives the place back if it may have been taken without being held: after it has failed, or when it is no longer wanted.
    pub fn undo(&self) -> Option<GiveBack> {
        let is_held = matches!(self.end, Some(TakeEnd::Held(_)));
        (self.in_doubt && !is_held).then(|| GiveBack::new(self.id.clone(), self.holder.clone(), self.expiry))
    }

    /// What gives the place back if the driver drops a request that it has sent.
    pub fn abandon(mut self) -> Option<GiveBack> {
        self.in_doubt |= self.plan_takes();
        self.undo()
    }

    /// Takes the answer to what was sent.
    pub fn answer(&mut self, answer: Result<Answer, TableError>, now: EpochMillis, random: &mut dyn Random) {
        match answer {
            Ok(Answer::Applied(_)) if !self.plan_takes() => self.plan = Plan::Plain,
            Ok(Answer::Applied(_)) => self.taken(self.expiry, now),
            Ok(Answer::Refused(item)) => self.judge(item.as_ref(), now),
            Ok(_) => self.failed(wrong_answer(), random),
            Err(err) => self.failed(err, random),
        }
    }

    fn plan_takes(&self) -> bool {
        !matches!(self.plan, Plan::Remove(_))
    }

    fn failed(&mut self, err: TableError, random: &mut dyn Random) {
        self.in_doubt |= err.applied == Applied::Unknown && self.plan_takes();
        // Under its name it takes at most one place, however often it is sent.
        let again = is_passing(&err).then(|| self.backoff.resend(random));
        match again {
            Some(Again::After(millis)) => self.pause = Some(millis),
            _ => self.end = Some(TakeEnd::Failed(err)),
        }
    }

    /// It has the place until then.
    fn taken(&mut self, until: EpochMillis, now: EpochMillis) {
        if now < until {
            let hold = Hold::new(self.id.clone(), self.holder.clone(), self.ttl_ms, until);
            self.end = Some(TakeEnd::Held(hold));
            return;
        }
        self.in_doubt = true;
        let message = "the answer came after the place had expired";
        let late = TableError::new(FailureKind::Timeout, Applied::Unknown, message);
        self.end = Some(TakeEnd::Failed(late));
    }

    /// Decides by the item that has refused the write.
    fn judge(&mut self, item: Option<&Item>, now: EpochMillis) {
        let holders = match Holders::decode(item) {
            Ok(holders) => holders,
            Err(err) => {
                self.end = Some(TakeEnd::Record(err));
                return;
            }
        };
        if let Some(until) = holders.expiry(self.holder.as_str()) {
            // An earlier sending, whose answer was lost.
            return self.taken(until, now);
        }
        let mut expired = holders.expired(now);
        let most = self.most as usize;
        let alive = holders.len() - expired.len();
        self.rounds += 1;
        if alive >= most || self.rounds > MOST_ROUNDS {
            self.end = Some(TakeEnd::Full(u32::try_from(alive).unwrap_or(u32::MAX)));
            return;
        }
        expired.truncate(MOST_REMOVED);
        let left = holders.len() - expired.len();
        self.plan = if expired.is_empty() {
            Plan::Plain
        } else if left < most {
            Plan::Over(expired)
        } else {
            Plan::Remove(expired)
        };
    }

    fn write(&self) -> Update {
        let mut update = kept_until(&self.id, self.expiry);
        let mut delta = 0;
        let mut conditions = Vec::new();
        if let Plan::Over(expired) | Plan::Remove(expired) = &self.plan {
            for (holder, expiry) in expired {
                let attribute = SmolStr::from(format!("{HOLDER}{holder}"));
                conditions.push(Condition::Is(attribute.clone(), Value::int(expiry.0)));
                update.remove.push(attribute);
                delta -= 1;
            }
        }
        if self.plan_takes() {
            delta += 1;
            let own = self.holder.attribute();
            // A counter that cannot be right admits nothing: the answer shows the item, and what is wrong with it.
            let room = Condition::All(vec![
                Condition::AtMost(COUNT, i128::from(self.most) - delta),
                Condition::AtLeast(COUNT, 0),
            ]);
            conditions.push(match self.plan {
                Plan::Plain => Condition::Any(vec![Condition::Absent("PK".into()), room]),
                _ => room,
            });
            conditions.push(Condition::Absent(own.clone()));
            update.set.push((own, Value::int(self.expiry.0)));
        }
        update.add.push((COUNT, delta));
        update.condition = Condition::All(conditions);
        update
    }
}
