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
//! An acquire has up to two legs, the entity's bucket and its parent's (`take`). They run concurrently once
//! the parent is known. When one refuses, the driver gives the tokens of the other back ([`Ask::GiveBack`]) before
//! the refusal is returned.
//!
//! A debit under stored limits is not built by the machine ([`Ask::Debit`]): the driver may send it together with others
//! of its shard ([`Group`]).

mod debit;
mod freshness;
mod group;
mod images;
mod protocol;
mod slice;
mod spread;
mod take;

use std::sync::Arc;

use crate::bucket::{Owner, is_disputed, newest_owner};
use crate::config::{Level, Resolved};
use crate::name::{EntityId, LimitName};
use crate::random::Random;
use crate::schema::BucketId;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::RateLimitExceeded;
pub use debit::Debit;
pub(crate) use debit::expiry;
pub use freshness::{next_round_trip, refilled_by};
pub use group::{Batch, Group};
pub use images::refused_from_memory;
use images::{parent_amounts, parent_id, refused_by_images, short_shards, statuses_before};
pub use protocol::*;
pub use slice::{Slice, merge, split};
pub use spread::{Spread, SpreadEnd};
use take::{Take, TakeEnd};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    ChildConfig,
    ParentConfig,
    /// The child's configuration once more, read consistently: its bucket is stamped for another life of it.
    OwnerConfig,
    Leg(usize),
    Refund,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Role {
    Child,
    Parent,
    /// Turned out not to be the parent: whatever it takes goes back.
    Stray,
}

#[derive(Debug)]
struct Leg {
    role: Role,
    take: Take,
}

/// One request on its way to a decision. See the [module](self) for how to drive it.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub struct Acquire {
    request: Request,
    started: EpochMillis,
    child: Option<Found>,
    legs: Vec<Leg>,
    /// Whether the child's own item has been asked who its parent is.
    parent_confirmed: bool,
    /// The parent whose configuration was asked for last, or that is paid.
    asked_parent: Option<EntityId>,
    /// The parent, once the child's item has confirmed it.
    parent: Option<EntityId>,
    /// Whether the entity was read again because its bucket's stamp is of another incarnation.
    owner_asked: bool,
    /// The result of that read, which decides.
    owner_read: Option<Arc<Resolved>>,
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
            child: None,
            legs: Vec::new(),
            parent_confirmed: false,
            asked_parent: None,
            parent: None,
            owner_asked: false,
            owner_read: None,
            gives_back: false,
            routes: Vec::new(),
            outstanding: 0,
            observations: Vec::new(),
            abandoned: false,
            decision: None,
        }
    }

    /// The first calls. `known` looks up the cached configuration of the entity, and of its parent; what it does not
    /// have is asked for.
    pub fn start(
        &mut self,
        known: &dyn Fn(&EntityId) -> Option<Found>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        self.started = now;
        if let Some(found) = known(&self.request.id.entity) {
            return self.child_config(Ok(found), known, now, random);
        }
        let ask = Ask::Config {
            entity: self.request.id.entity.clone(),
            fresh: false,
        };
        self.route(Route::ChildConfig, vec![(0, ask)])
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
            (Some(Route::ChildConfig), Reply::Config(found)) => {
                self.child_config(found, &|_| None, now, random)
            }
            (Some(Route::ParentConfig), Reply::Config(found)) => self.parent_config(found, now, random),
            (Some(Route::OwnerConfig), Reply::Config(found)) => {
                match found {
                    Ok(found) => self.owner_read = Some(found.config),
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
        calls.extend(self.settle(now));
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
            && let Some(leg) = self.legs.get_mut(*leg)
        {
            leg.take.left(at);
        }
    }

    /// Whether a call is an operation that gives tokens back: it must be sent even if the caller has stopped waiting.
    /// [`Ask::GiveBack`] is not an operation: its credit goes ahead in any case.
    pub fn gives_back(&self, id: usize) -> bool {
        match self.routes.get(id) {
            Some(Route::Leg(leg)) => self.legs[*leg].take.is_undoing(),
            _ => false,
        }
    }

    /// Whether a leg has taken tokens.
    pub fn holds_tokens(&self) -> bool {
        self.legs
            .iter()
            .any(|leg| matches!(leg.take.end(), Some(TakeEnd::Taken(_))))
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
        self.parent.is_some() && self.parent.as_ref() == self.request.paid()
    }

    /// Whether it was decided from memory alone, without asking the table for tokens.
    pub fn is_local(&self) -> bool {
        self.legs.is_empty()
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

    fn decide(&mut self, decision: Decision) {
        self.decision.get_or_insert(decision);
    }

    fn child_config(
        &mut self,
        found: Result<Found, AcquireError>,
        known: &dyn Fn(&EntityId) -> Option<Found>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        let found = match found.and_then(|found| self.in_force(found)).and_then(|found| {
            check_config(&found.config, &self.request.id.resource, &self.request.consume)?;
            Ok(found)
        }) {
            Ok(found) => found,
            Err(err) => {
                self.decide(Decision::Failed(err));
                return Vec::new();
            }
        };
        let parent = known_owner(&found).and_then(|owner| owner.cascade_parent().cloned());
        self.child = Some(found);
        let Some(entity) = parent else {
            return self.begin(None, now, random);
        };
        if self.request.paid() == Some(&entity) {
            self.asked_parent = Some(entity);
            return self.begin(None, now, random);
        }
        match known(&entity) {
            Some(found) => {
                self.asked_parent = Some(entity);
                self.parent_config(Ok(found), now, random)
            }
            None => self.ask_parent(entity),
        }
    }

    fn ask_parent(&mut self, entity: EntityId) -> Vec<Call> {
        self.asked_parent = Some(entity.clone());
        self.route(
            Route::ParentConfig,
            vec![(0, Ask::Config { entity, fresh: false })],
        )
    }

    /// The configuration to enforce: the limits that came with the call, or the stored ones if there are any.
    fn in_force(&self, found: Found) -> Result<Found, AcquireError> {
        let Some(limits) = &self.request.limits else {
            check_config(&found.config, &self.request.id.resource, &[])?;
            return Ok(found);
        };
        let config = Resolved {
            limits: limits.clone(),
            level: Level::Override,
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

    fn parent_config(
        &mut self,
        found: Result<Found, AcquireError>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        let found = match found.and_then(|found| self.in_force(found)) {
            Ok(found) => found,
            Err(err) => {
                self.decide(Decision::Failed(err));
                return Vec::new();
            }
        };
        if self.abandoned {
            return Vec::new();
        }
        if self.legs.is_empty() {
            self.begin(Some(found), now, random)
        } else {
            self.start_parent(&found, now, random)
        }
    }

    /// Everything is known that can be known without the table: reject from memory, or start the legs.
    fn begin(&mut self, parent: Option<Found>, now: EpochMillis, random: &mut dyn Random) -> Vec<Call> {
        let Some(child) = self.child.take() else {
            return Vec::new();
        };
        if self.abandoned {
            return Vec::new();
        }
        if let Some(refused) = refused_by_images(&self.request, &child, parent.as_ref(), now) {
            self.decide(Decision::Rejected(refused));
            return Vec::new();
        }
        let (id, amounts) = (self.request.id.clone(), self.request.consume.clone());
        let mut calls = self.start_leg(Role::Child, id, &child, amounts, now, random);
        if let Some(parent) = parent {
            calls.extend(self.start_parent(&parent, now, random));
        }
        calls
    }

    fn start_parent(&mut self, found: &Found, now: EpochMillis, random: &mut dyn Random) -> Vec<Call> {
        let amounts = parent_amounts(&self.request, &found.config);
        if amounts.is_empty() {
            return Vec::new();
        }
        self.start_leg(
            Role::Parent,
            parent_id(&self.request, found),
            found,
            amounts,
            now,
            random,
        )
    }

    fn start_leg(
        &mut self,
        role: Role,
        id: BucketId,
        found: &Found,
        amounts: Vec<(LimitName, Millitokens)>,
        now: EpochMillis,
        random: &mut dyn Random,
    ) -> Vec<Call> {
        let short = short_shards(&found.hint, &found.config, &amounts, now);
        let ahead = self
            .request
            .slices
            .as_ref()
            .and_then(|slices| match (role, &slices.parent) {
                (Role::Child, _) => slices.child.clone(),
                (_, Some((entity, ahead))) if *entity == id.entity => Some(ahead.clone()),
                _ => None,
            });
        let take = Take::new(
            id,
            Arc::clone(&found.config),
            amounts,
            self.request.settings,
            self.started,
            role == Role::Parent,
        )
        .taking_ahead(ahead);
        self.legs.push(Leg { role, take });
        self.step(self.legs.len() - 1, now, random, |take, env| {
            take.start(&found.hint, &short, env);
        })
    }

    fn step(
        &mut self,
        leg: usize,
        now: EpochMillis,
        random: &mut dyn Random,
        act: impl FnOnce(&mut Take, &mut Env<'_>),
    ) -> Vec<Call> {
        let mut env = Env {
            now,
            random,
            asks: Vec::new(),
            observations: &mut self.observations,
        };
        let take = &mut self.legs[leg].take;
        if take.end().is_some() {
            return Vec::new();
        }
        act(take, &mut env);
        let asks = env.asks;
        if self.abandoned && !take.is_undoing() {
            take.abandon();
            return Vec::new();
        }
        self.route(Route::Leg(leg), asks)
    }

    /// Looks whether the legs allow a decision yet.
    fn settle(&mut self, now: EpochMillis) -> Vec<Call> {
        if self.abandoned && matches!(self.decision, Some(Decision::Admitted(_))) {
            // Given up while a stray parent's tokens were still on their way back.
            self.decision = Some(Decision::Failed(AcquireError::Abandoned));
            return self.refund(|leg| leg.role != Role::Stray);
        }
        if self.legs.is_empty() {
            if self.abandoned && self.outstanding == 0 {
                self.decide(Decision::Failed(AcquireError::Abandoned));
            }
            return Vec::new();
        }
        if self.decision.is_none() && !self.abandoned {
            let calls = self.confirm_parent();
            if !calls.is_empty() {
                return calls;
            }
        }
        let running = self.legs.iter().any(|leg| leg.take.end().is_none());
        if running || self.outstanding > 0 || self.gives_back {
            return Vec::new();
        }
        let decision = match self.decision.take() {
            Some(decision) => decision,
            None => self.judge(now),
        };
        let keep = matches!(decision, Decision::Admitted(_));
        self.decision = Some(decision);
        self.refund(|leg| !keep || leg.role == Role::Stray)
    }

    /// Once the child was debited, its own item says who the parent is, and overrules the cache. If the item is
    /// stamped for another incarnation of the entity than the cache has, META is read again, and decides.
    fn confirm_parent(&mut self) -> Vec<Call> {
        if self.parent_confirmed {
            return Vec::new();
        }
        let Some(grant) = self.legs[0].take.end().and_then(|end| end.grants().first()) else {
            return Vec::new();
        };
        let stamp = &grant.image.owner;
        let config = self.owner_read.as_ref().unwrap_or(self.legs[0].take.config());
        let read = config.owner.as_ref();
        let owner = if !is_disputed(stamp, read) {
            newest_owner(stamp, read)
        } else if self.owner_read.is_some() {
            read
        } else if self.owner_asked {
            return Vec::new();
        } else {
            self.owner_asked = true;
            let entity = self.request.id.entity.clone();
            return self.route(Route::OwnerConfig, vec![(0, Ask::Config { entity, fresh: true })]);
        };
        let wanted = owner.and_then(Owner::cascade_parent).cloned();
        self.parent_confirmed = true;
        self.parent.clone_from(&wanted);
        // Looked at before, and without a leg of its own: it has none of the limits asked for.
        let no_say = wanted.is_some() && wanted == self.asked_parent;
        let current = self.legs.iter_mut().find(|leg| leg.role == Role::Parent);
        match (current, wanted) {
            (Some(leg), Some(wanted)) if leg.take.id.entity == wanted => return Vec::new(),
            (Some(leg), wanted) => {
                leg.role = Role::Stray;
                if let Some(entity) = wanted {
                    return self.ask_parent(entity);
                }
            }
            (None, Some(entity)) if !no_say => return self.ask_parent(entity),
            (None, _) => {}
        }
        Vec::new()
    }

    fn judge(&self, now: EpochMillis) -> Decision {
        if self.abandoned {
            return Decision::Failed(AcquireError::Abandoned);
        }
        let legs = || self.legs.iter().filter(|leg| leg.role != Role::Stray);
        let ends = || legs().filter_map(|leg| leg.take.end().map(|end| (leg, end)));
        for (leg, end) in ends().collect::<Vec<_>>().into_iter().rev() {
            if let TakeEnd::Disabled(at) = end {
                return Decision::Disabled {
                    entity: leg.take.id.entity.clone(),
                    at: *at,
                };
            }
        }
        if ends().any(|(_, end)| matches!(end, TakeEnd::Short(_) | TakeEnd::Contended)) {
            let mut statuses = Vec::new();
            for (_, end) in ends() {
                match end {
                    TakeEnd::Short(short) => statuses.extend(short.iter().cloned()),
                    TakeEnd::Taken(grants) => statuses.extend(statuses_before(grants, now)),
                    _ => {}
                }
            }
            let short = ends().any(|(_, end)| matches!(end, TakeEnd::Short(_)));
            return Decision::Rejected(if short {
                RateLimitExceeded::new(statuses)
            } else {
                RateLimitExceeded::contended(statuses)
            });
        }
        for (_, end) in ends() {
            if let TakeEnd::Failed(err) = end {
                return Decision::Failed(err.clone());
            }
        }
        Decision::Admitted(ends().flat_map(|(_, end)| end.grants().to_vec()).collect())
    }

    /// Gives back what these legs have taken.
    fn refund(&mut self, of: impl Fn(&Leg) -> bool) -> Vec<Call> {
        let grants = self.legs.iter().filter(|leg| of(leg));
        let grants = grants.filter_map(|leg| Some(leg.take.end()?.grants())).flatten();
        let asks: Vec<_> = grants.map(|grant| (0, Ask::GiveBack(grant.clone()))).collect();
        self.gives_back |= !asks.is_empty();
        self.route(Route::Refund, asks)
    }
}

impl TakeEnd {
    fn grants(&self) -> &[Grant] {
        match self {
            Self::Taken(grants) => grants,
            _ => &[],
        }
    }
}

fn known_owner(found: &Found) -> Option<&Owner> {
    let read = found.config.owner.as_ref();
    match found.hint.images.first() {
        Some((_, image)) => newest_owner(&image.owner, read),
        None => read,
    }
}
