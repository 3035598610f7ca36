//! The acquire state machine: decides, and never does.
//!
//! [`Acquire`] is handed a request; it asks for configuration and table operations ([`Ask`]), is fed their
//! outcomes ([`Reply`]), and ends with a [`Decision`]. It performs no I/O, reads no clock and never sleeps:
//! the async limiter, the blocking facade, the simulator and the tests all drive this one machine.
//!
//! ```text
//! let mut calls = acquire.start(known, now, random);
//! while acquire.decision().is_none() {
//!     // send all calls at once, feed each reply as it arrives; it may give further calls
//!     calls = acquire.answer(id, reply, now, random);
//! }
//! ```
//!
//! The rule that everything here obeys: *a cache may reject or steer, never admit*. Only a successful
//! conditional write admits. Hints (the last images seen) may refuse a request without a call, and choose the
//! shard; an admission always comes from an answer to this very acquire.
//!
//! An acquire has a leg for each bucket that it debits (`legs`): for each of its resources, the entity's and those of the entities above
//! it (`take`). They run concurrently once all of them are known. If one refuses, the driver gives the tokens of the others back
//! ([`Ask::GiveBack`]) before the refusal is returned.
//!
//! A debit under stored limits is not built by the machine ([`Ask::Debit`]): the driver may send it together with others
//! of its shard ([`Group`]).

mod debit;
mod freshness;
mod group;
mod images;
mod legs;
mod outcome;
mod protocol;
mod slice;
mod spread;
mod take;

use std::sync::Arc;

use crate::bucket::{Owner, newest_owner};
use crate::config::{Level, Resolved};
use crate::name::{EntityId, ResourceName};
use crate::random::Random;
use crate::units::EpochMillis;
pub use debit::Debit;
pub(crate) use debit::expiry;
pub use freshness::{next_round_trip, refilled_by};
pub use group::{Batch, Group};
use images::{refused_by_images, short_shards};
pub use images::{refused_from_memory, statuses_after};
use legs::Leg;
pub use protocol::*;
pub use slice::{Slice, merge, split};
pub use spread::{Spread, SpreadEnd};
use take::Take;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The configuration of a leg.
    Config(usize),
    /// It once more, read consistently: the leg's bucket is stamped for another life of its entity.
    OwnerConfig(usize),
    Leg(usize),
    Refund,
}

/// Looks up the cached configuration of an entity for a resource.
pub type Known<'a> = dyn Fn(&EntityId, &ResourceName) -> Option<Found> + 'a;

/// One request on its way to a decision. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Acquire {
    request: Request,
    started: EpochMillis,
    /// In the order in which they were found: of one resource, each before the one above it.
    legs: Vec<Leg>,
    /// Whether debits were asked for.
    has_begun: bool,
    /// Whether what was taken, or a part of it, goes back.
    gives_back: bool,
    routes: Vec<Route>,
    outstanding: usize,
    observations: Vec<Observation>,
    abandoned: bool,
    decision: Option<Decision>,
}

impl Acquire {
    /// Prepares a request.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            started: EpochMillis(0),
            legs: Vec::new(),
            has_begun: false,
            gives_back: false,
            routes: Vec::new(),
            outstanding: 0,
            observations: Vec::new(),
            abandoned: false,
            decision: None,
        }
    }

    /// The first calls. `known` looks up the cached configuration of an entity for a resource; what it does not have is asked
    /// for.
    pub fn start(&mut self, known: &Known<'_>, now: EpochMillis, random: &mut dyn Random) -> Vec<Call> {
        self.started = now;
        let mut calls = Vec::new();
        for part in 0..=self.request.also.len() {
            let entity = self.request.id.entity.clone();
            append(&mut calls, self.climb(part, 0, entity, known));
        }
        append(&mut calls, self.begin(now, random));
        append(&mut calls, self.settle(now, random));
        calls
    }

    /// Takes the reply to a call, and gives the next ones.
    pub fn answer(
        &mut self,
        id: usize,
        reply: Reply,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        self.outstanding = self.outstanding.saturating_sub(1);
        let mut calls = match (self.routes.get(id).copied(), reply) {
            (Some(Route::Config(leg)), Reply::Config(found)) => self.config(leg, found, now, random),
            (Some(Route::OwnerConfig(leg)), Reply::Config(found)) => {
                match found {
                    Ok(found) => self.legs[leg].owner_was_read(found.config),
                    // The other buckets to debit are not known, so nothing may be admitted.
                    Err(err) => self.decide(Decision::Failed(err)),
                }
                Vec::new()
            }
            (Some(Route::Leg(leg)), reply) => {
                self.step(leg, now, random, |take, env| take.answer(reply, env))
            }
            (Some(Route::Refund), Reply::GivenBack) => Vec::new(),
            _ => {
                self.decide(Decision::Failed(out_of_order().into()));
                Vec::new()
            }
        };
        append(&mut calls, self.settle(now, random));
        calls
    }

    /// Stops wanting the tokens: nothing more is taken, and what an answer on its way turns out to have taken
    /// is given back. Keep feeding replies until [`decision`](Self::decision) is there. A call that has not been sent
    /// and [gives nothing back](Self::gives_back) is best answered with a failure that was not applied.
    pub fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// A call has left the process at this time, which a wait of the driver's own may have delayed: what the table takes to
    /// answer counts from then.
    pub fn left(&mut self, id: usize, at: EpochMillis) {
        if let Some(Route::Leg(leg)) = self.routes.get(id)
            && let Some(take) = self.legs.get_mut(*leg).and_then(|leg| leg.take.as_deref_mut())
        {
            take.left(at);
        }
    }

    /// Whether a call is an operation that gives tokens back: it must be sent even if the caller has stopped waiting.
    /// [`Ask::GiveBack`] is not an operation: its credit goes ahead in any case.
    pub fn gives_back(&self, id: usize) -> bool {
        match self.routes.get(id) {
            Some(Route::Leg(leg)) => self.legs[*leg].take.as_deref().is_some_and(Take::is_undoing),
            _ => false,
        }
    }

    /// Whether a leg has taken tokens.
    pub fn holds_tokens(&self) -> bool {
        self.legs.iter().any(|leg| !leg.grants().is_empty())
    }

    /// The decision, once there is one and nothing is on its way any more.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref().filter(|_| self.outstanding == 0)
    }

    /// Whether it has a decision other than a failure. Then the failure of the request that was answered last does not
    /// matter: that request was for a bucket that turned out not to be the parent's.
    pub fn is_settled(&self) -> bool {
        self.decision()
            .is_some_and(|decision| !matches!(decision, Decision::Failed(_)))
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether an admission counts on the tokens that the caller has for the parent ([`ForSlices::paid`]). If not, it has
    /// debited another parent, or there is none any more.
    pub fn is_paid(&self) -> bool {
        self.legs.iter().any(|leg| leg.is_paid && !leg.is_stray)
    }

    /// Whether it was decided from memory alone, without asking the table for tokens.
    pub fn is_local(&self) -> bool {
        !self.has_begun
    }

    /// The decision.
    pub fn finish(self) -> Option<Decision> {
        self.decision
    }

    /// The images that answers have shown since the last call.
    pub fn take_observations(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.observations)
    }

    fn route(&mut self, route: Route, asks: Vec<(u64, Ask)>) -> Vec<Call> {
        let call = |(delay_ms, ask)| {
            self.routes.push(route);
            self.outstanding += 1;
            Call {
                id: self.routes.len() - 1,
                delay_ms,
                ask,
            }
        };
        asks.into_iter().map(call).collect()
    }

    /// Notes a decision, unless there is one that goes before it.
    fn decide(&mut self, decision: Decision) {
        self.decision = Some(match self.decision.take() {
            Some(before @ Decision::Failed(_)) => before.or(decision),
            Some(before) => before,
            None => decision,
        });
    }

    /// The configuration of a leg was read.
    fn config(
        &mut self,
        leg: usize,
        found: Result<Found, AcquireError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        let above = self.learn(leg, found);
        if self.abandoned || self.decision.is_some() {
            return Vec::new();
        }
        let (part, level) = (self.legs[leg].part, self.legs[leg].level);
        let mut calls = match above {
            Some(entity) => self.climb(part, level + 1, entity, &|_, _| None),
            None => Vec::new(),
        };
        append(&mut calls, self.begin(now, random));
        calls
    }

    /// Once everything is known that can be known without the table, rejects from memory or starts the legs. Legs that are
    /// found later are started as soon as their configuration is known.
    fn begin(&mut self, now: EpochMillis, random: &mut dyn Random) -> Vec<Call> {
        if self.abandoned || self.decision.is_some() {
            return Vec::new();
        }
        if !self.has_begun {
            if self.outstanding > 0 {
                return Vec::new();
            }
            if let Some(refused) =
                refused_by_images(self.legs.iter().filter_map(|leg| leg.seen(&self.request)), now)
            {
                self.decide(Decision::Rejected(refused));
                return Vec::new();
            }
            self.has_begun = true;
        }
        let mut calls = Vec::new();
        let is_alone = self.legs.len() == 1;
        for leg in 0..self.legs.len() {
            if let Some(found) = self.legs[leg].found.take() {
                append(&mut calls, self.start_leg(leg, &found, is_alone, now, random));
            }
        }
        calls
    }

    fn start_leg(
        &mut self,
        at: usize,
        found: &Found,
        is_alone: bool,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        let leg = &self.legs[at];
        let seen = leg.seen_with(&self.request, found);
        let mut amounts = Vec::with_capacity(seen.amounts.len());
        amounts.extend(seen.asked().cloned());
        let is_above = leg.level > 0;
        let only_looks = !seen.has_say() || leg.unless_disabled.is_some();
        if only_looks && found.config.disabled().is_none() {
            return Vec::new();
        }
        let short = short_shards(&found.hint, &found.config, &amounts, now);
        let slices = self.request.slices.as_ref().filter(|_| leg.part == 0);
        let ahead = slices.and_then(|slices| match &slices.parent {
            _ if !is_above => slices.child.clone(),
            Some((entity, ahead)) if *entity == leg.entity => Some(ahead.clone()),
            _ => None,
        });
        let mut take = Take::new(
            leg.id(&self.request),
            Arc::clone(&found.config),
            amounts,
            self.request.settings,
            self.started,
            is_above,
        )
        .taking_ahead(ahead);
        if !is_alone {
            take.hold_back();
        }
        self.legs[at].take = Some(Box::new(take));
        self.step(at, now, random, |take, env| {
            if only_looks {
                take.look_only(env);
            } else {
                take.start(&found.hint, &short, env);
            }
        })
    }

    fn step(
        &mut self,
        leg: usize,
        now: EpochMillis,
        random: &mut dyn Random,
        act: impl FnOnce(&mut Take, &mut Env<'_>),
    ) -> Vec<Call> {
        let Some(take) = self.legs[leg]
            .take
            .as_deref_mut()
            .filter(|take| take.end().is_none())
        else {
            return Vec::new();
        };
        let mut env = Env {
            now,
            random,
            asks: Vec::new(),
            observations: &mut self.observations,
        };
        act(take, &mut env);
        let asks = env.asks;
        if self.abandoned && !take.is_undoing() {
            take.abandon();
            return Vec::new();
        }
        self.route(Route::Leg(leg), asks)
    }

    /// Looks whether the legs allow a decision yet.
    fn settle(&mut self, now: EpochMillis, random: &mut dyn Random) -> Vec<Call> {
        if self.abandoned && matches!(self.decision, Some(Decision::Admitted(_))) {
            // Given up while a stray parent's tokens were still on their way back.
            self.decision = Some(Decision::Failed(AcquireError::Abandoned));
            return self.refund(|leg| !leg.is_stray);
        }
        if !self.has_begun {
            if self.abandoned && self.outstanding == 0 {
                self.decide(Decision::Failed(AcquireError::Abandoned));
            }
            return Vec::new();
        }
        if self.decision.is_none() && !self.abandoned {
            let calls = self.confirm();
            if !calls.is_empty() {
                return calls;
            }
        }
        if self.outstanding > 0 || self.gives_back {
            return Vec::new();
        }
        let calls = self.release(now, random);
        if !calls.is_empty() || self.legs.iter().any(Leg::is_running) {
            return calls;
        }
        let decision = match self.decision.take() {
            Some(decision @ Decision::Failed(_)) => decision.or(self.judge(now)),
            Some(decision) => decision,
            None => self.judge(now),
        };
        let keep = matches!(decision, Decision::Admitted(_));
        self.decision = Some(decision);
        self.refund(|leg| !keep || leg.is_stray)
    }

    /// Gives back what these legs have taken.
    fn refund(&mut self, of: impl Fn(&Leg) -> bool) -> Vec<Call> {
        let grants = self.legs.iter().filter(|leg| of(leg)).flat_map(Leg::grants);
        let asks: Vec<_> = grants.map(|grant| (0, Ask::GiveBack(grant.clone()))).collect();
        self.gives_back |= !asks.is_empty();
        self.route(Route::Refund, asks)
    }
}

/// Adds calls, without copying where there are none yet.
fn append(calls: &mut Vec<Call>, more: Vec<Call>) {
    if calls.is_empty() {
        *calls = more;
    } else {
        calls.extend(more);
    }
}

/// The configuration to enforce: the limits that came with the call, or the stored ones if there are any.
fn in_force(request: &Request, resource: &ResourceName, mut found: Found) -> Result<Found, AcquireError> {
    let Some(limits) = &request.limits else {
        check_config(&found.config, resource, &[])?;
        if request.overdraws {
            Arc::make_mut(&mut found.config).overdraws = true;
        }
        return Ok(found);
    };
    let config = Resolved {
        limits: limits.clone(),
        level: Level::Override,
        overdraws: request.overdraws,
        ..(*found.config).clone()
    };
    // An override is decided on the item alone.
    let hint = Hint {
        images: Vec::new(),
        older: Vec::new(),
        ..found.hint
    };
    Ok(Found {
        config: Arc::new(config),
        hint,
    })
}

pub(crate) fn known_owner(found: &Found) -> Option<&Owner> {
    let read = found.config.owner.as_ref();
    match found.hint.images.first() {
        Some((_, image)) => newest_owner(&image.owner, read),
        None => read,
    }
}
