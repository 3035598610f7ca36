//! What the processes run: acquires, and the credits that end leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use zae_limiter_core::acquire::{Acquire, Grant, Request};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::credit::Credit;
use zae_limiter_core::outage::breaker::Pass;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Op, TableError};
use zae_limiter_core::{LimitName, Millitokens};

use super::groups::{Carried, Part, Sending};
use super::slices::Filling;
use crate::rng::Rng;
use crate::rows::change::{Source, Sums, add};
use crate::rows::row;

#[derive(Debug)]
pub(crate) enum Machine {
    Acquire(Box<Acquire>),
    Credit(Box<Credit>),
    /// Corrects a count.
    Count,
    /// Sends the debits of several acquires.
    Sender(Box<Sending>),
    Ended,
}

/// One machine being driven.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub(crate) struct Job {
    pub(crate) process: usize,
    pub(crate) incarnation: u32,
    pub(crate) action: usize,
    pub(crate) is_credit: bool,
    pub(crate) abandoned: bool,
    pub(crate) is_admitted: bool,
    /// The request of an acquire, and what the circuit breaker said when it began.
    pub(crate) request: Option<Request>,
    pub(crate) pass: Pass,
    pub(crate) machine: Machine,
    pub(crate) rng: Rng,
    /// Operations by call id; `None` for configuration.
    pub(crate) calls: Vec<Option<Op>>,
    /// The bucket whose configuration a call reads.
    pub(crate) configs: BTreeMap<usize, BucketId>,
    /// When each call was made, before its wait, and when it left; in microseconds.
    pub(crate) made_us: Vec<u64>,
    pub(crate) left_us: BTreeMap<usize, u64>,
    /// What an acquire has taken and handed over to be given back.
    pub(crate) gave_back: Vec<Grant>,
    /// What a write of a sender takes, and for which jobs.
    pub(crate) parts: Vec<Part>,
    /// The credit that it carries beside them.
    pub(crate) carried: Option<Carried>,
    /// The call of a credit that a batch carries.
    pub(crate) carried_call: Option<usize>,
    /// What an acquire does for slices.
    pub(crate) filling: Filling,
    /// The acquire that waits for this credit, and its call.
    pub(crate) awaited_by: Option<(usize, usize)>,
    /// Whether a request has failed.
    pub(crate) has_failed: bool,
    /// The item that a credit corrects, as it was debited.
    pub(crate) debited: Option<Arc<Bucket>>,
    /// What operations whose outcome never became known would have consumed.
    pub(crate) doubtful: Sums,
    /// What it must have consumed, between these bounds, now that it has ended.
    pub(crate) low: Sums,
    pub(crate) high: Sums,
}

impl Job {
    /// The client that writes on its behalf.
    pub(crate) fn source(&self, id: usize) -> Source {
        if self.is_credit {
            Source::Credit(id)
        } else {
            Source::Acquire(id)
        }
    }

    /// It gives this back to a bucket: until it ends, all of it may or may not have happened.
    pub(crate) fn may_give_back(&mut self, id: &BucketId, deltas: &[(LimitName, Millitokens)]) {
        for (limit, given) in deltas {
            let side = if given.0 > 0 {
                &mut self.low
            } else {
                &mut self.high
            };
            add(side, id, limit.as_str(), -given.0);
        }
    }

    pub(crate) fn doubt(&mut self, op: &Op) {
        for (bucket, limit, cost) in row::costs(op) {
            *self.doubtful.entry((bucket, limit)).or_default() += cost;
        }
    }
}

/// The image that an answer shows.
pub(crate) fn image_in(answer: &Result<Answer, TableError>) -> Option<Arc<Bucket>> {
    match answer {
        Ok(Answer::Applied(Some(item)) | Answer::Refused(Some(item))) => {
            Bucket::decode(item).ok().map(Arc::new)
        }
        _ => None,
    }
}
