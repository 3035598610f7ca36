//! A place that is held, and the signs of life that keep it.

use super::holders::ttl;
use super::{GiveBack, Holder, Holders, Next, flight_key};
use crate::backoff::{Again, Backoff};
use crate::random::Random;
use crate::schema::BucketId;
use crate::table::{Answer, Condition, Op, TableError, Update, Value};
use crate::units::EpochMillis;

/// How often in its time to live a place is renewed.
const BEATS: i64 = 3;

/// A place that is held.
///
/// It renews its expiry after each third of its time to live. The write has a condition on the place: if another call has taken
/// it, because no renewal came in time, it is lost for good.
#[derive(Debug, Clone)]
pub struct Hold {
    id: BucketId,
    holder: Holder,
    ttl_ms: i64,
    /// The expiry that the table is known to have, or an earlier one than it has.
    until: EpochMillis,
    /// The expiry that was sent last.
    sent: EpochMillis,
    pause: Option<u64>,
    backoff: Backoff,
    is_lost: bool,
}

impl Hold {
    pub(super) fn new(id: BucketId, holder: Holder, ttl_ms: i64, until: EpochMillis) -> Self {
        Self {
            id,
            holder,
            ttl_ms,
            until,
            sent: until,
            pause: None,
            backoff: Backoff::until_deadline(),
            is_lost: false,
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

    /// Until when the place is certainly held, if it is not lost.
    pub fn until(&self) -> EpochMillis {
        self.until
    }

    /// Whether the place is certainly held. If not, it may be held again when the table answers.
    pub fn is_held(&self, now: EpochMillis) -> bool {
        !self.is_lost && now < self.until
    }

    /// Whether another call has taken the place, or its item was deleted.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// What gives the place back.
    pub fn give_back(&self) -> GiveBack {
        let until = self.until.max(self.sent);
        GiveBack::new(self.id.clone(), self.holder.clone(), until)
    }

    /// What to do next to keep the place.
    pub fn next(&mut self, now: EpochMillis) -> Next {
        if self.is_lost {
            return Next::Ended;
        }
        if let Some(millis) = self.pause.take() {
            return Next::Pause(millis);
        }
        let due = self.until.plus(self.ttl_ms / BEATS - self.ttl_ms);
        let early = due.since(now).min(self.ttl_ms / BEATS);
        if early > 0 {
            return Next::Pause(early.unsigned_abs());
        }
        self.sent = now.plus(self.ttl_ms);
        let own = self.holder.attribute();
        Next::Send(Box::new(Op::Update(Update {
            set: vec![
                (own.clone(), Value::int(self.sent.0)),
                ("ttl".into(), ttl(self.sent)),
            ],
            // One that arrives late must not move the expiry back.
            condition: Condition::AtMost(own, self.sent.0.into()),
            ..Update::new(flight_key(&self.id))
        })))
    }

    /// Takes the answer to what was sent.
    pub fn answer(&mut self, answer: Result<Answer, TableError>, random: &mut dyn Random) {
        match answer {
            Ok(Answer::Applied(_)) => self.renewed(self.sent),
            Ok(Answer::Refused(item)) => {
                let holders = Holders::decode(item.as_ref()).unwrap_or_default();
                match holders.expiry(self.holder.as_str()) {
                    Some(later) => self.renewed(later),
                    None => self.is_lost = true,
                }
            }
            Ok(_) | Err(_) => {
                // Also if it is refused for good: the place is held until its time has run out, and permissions may come back.
                let millis = match self.backoff.resend(random) {
                    Again::After(millis) => millis,
                    Again::Contended | Again::No => self.ttl_ms.unsigned_abs(),
                };
                self.pause = Some(millis.max(1));
            }
        }
    }

    fn renewed(&mut self, until: EpochMillis) {
        self.until = self.until.max(until);
        self.backoff = Backoff::until_deadline();
    }
}
