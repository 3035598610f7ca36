//! Gives a place back with one write.

use super::holders::COUNT;
use super::{Holder, Next, flight_key, is_passing, wrong_answer};
use crate::backoff::{Again, Backoff};
use crate::random::Random;
use crate::schema::BucketId;
use crate::table::{Answer, Condition, Op, TableError, Update};
use crate::units::EpochMillis;

/// How a [`GiveBack`] ended.
#[derive(Debug, Clone)]
pub enum GiveBackEnd {
    /// The place is free.
    Given,
    /// The holder had no place: an earlier sending has given it back, or it had expired and was taken by another.
    Gone,
    /// It could not be written. Others can take the place after its expiry.
    Failed(TableError),
}

/// A place on the way back.
#[derive(Debug, Clone)]
pub struct GiveBack {
    id: BucketId,
    holder: Holder,
    /// When the place expires by itself.
    until: EpochMillis,
    pause: Option<u64>,
    last: Option<TableError>,
    backoff: Backoff,
    end: Option<GiveBackEnd>,
}

impl GiveBack {
    /// Gives back the place of a holder, which expires at this time if nothing does.
    pub fn new(id: BucketId, holder: Holder, until: EpochMillis) -> Self {
        Self {
            id,
            holder,
            until,
            pause: None,
            last: None,
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

    /// What to do next. It is sent until it is answered or the place has expired: the holder has a name of its own, so that a
    /// repetition takes no other one's place.
    pub fn next(&mut self, now: EpochMillis) -> Next {
        if let (Some(last), true) = (&self.last, now > self.until) {
            self.end.get_or_insert(GiveBackEnd::Failed(last.clone()));
        }
        if self.end.is_some() {
            return Next::Ended;
        }
        if let Some(millis) = self.pause.take() {
            return Next::Pause(millis);
        }
        let own = self.holder.attribute();
        Next::Send(Box::new(Op::Update(Update {
            add: vec![(COUNT, -1)],
            condition: Condition::Exists(own.clone()),
            remove: vec![own],
            ..Update::new(flight_key(&self.id))
        })))
    }

    /// Takes the answer to what was sent.
    pub fn answer(&mut self, answer: Result<Answer, TableError>, random: &mut dyn Random) {
        let err = match answer {
            Ok(Answer::Applied(_)) => {
                self.end = Some(GiveBackEnd::Given);
                return;
            }
            Ok(Answer::Refused(_)) => {
                self.end = Some(GiveBackEnd::Gone);
                return;
            }
            Ok(_) => wrong_answer(),
            Err(err) => err,
        };
        match is_passing(&err).then(|| self.backoff.resend(random)) {
            Some(Again::After(millis)) => {
                self.pause = Some(millis);
                self.last = Some(err);
            }
            _ => self.end = Some(GiveBackEnd::Failed(err)),
        }
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<&GiveBackEnd> {
        self.end.as_ref()
    }
}
