//! The buckets that an acquire debits: which there are, and which entity is above which.
//!
//! Of each resource, the legs form a chain: the entity's, and those of the entities above it. The configuration of an entity names
//! the one above, by what the cache holds. Once a bucket was debited, its own item says who is above, and overrules the cache.

use std::sync::Arc;

use super::images::Seen;
use super::protocol::{AcquireError, Ask, Call, Decision, Found, Grant, Request, check_config};
use super::take::{Take, TakeEnd};
use super::{Acquire, Known, Route, append, in_force, known_owner};
use crate::bucket::{Owner, is_disputed, newest_owner};
use crate::config::Resolved;
use crate::depth::CascadeDepth;
use crate::name::EntityId;
use crate::random::Random;
use crate::schema::BucketId;
use crate::units::EpochMillis;

/// Whether it is known who is above a leg's entity.
#[derive(Debug)]
enum Above {
    /// Its own item has not been asked yet.
    Open,
    /// The entity is being read again, because its bucket's stamp is of another incarnation.
    Asked,
    /// The result of that read, which decides.
    Read(Arc<Resolved>),
    Confirmed,
}

/// One bucket that an acquire debits.
#[derive(Debug)]
pub(super) struct Leg {
    /// Of which resource of the request.
    pub(super) part: usize,
    /// 0 for the entity, 1 for its parent, and so on.
    pub(super) level: usize,
    pub(super) entity: EntityId,
    /// The configuration, from when it is known until the leg starts.
    pub(super) found: Option<Found>,
    /// Once it has started. Without it, it has none of the limits asked for, or its tokens are [paid](Self::is_paid).
    pub(super) take: Option<Box<Take>>,
    /// Whether the caller has the tokens already.
    pub(super) is_paid: bool,
    /// Turned out not to be above the entity: all that it takes goes back.
    pub(super) is_stray: bool,
    /// Why the request must fail unless the entity is disabled, which the leg only looks at.
    pub(super) unless_disabled: Option<AcquireError>,
    above: Above,
}

impl Leg {
    fn new(part: usize, level: usize, entity: EntityId) -> Self {
        Self {
            part,
            level,
            entity,
            found: None,
            take: None,
            is_paid: false,
            is_stray: false,
            unless_disabled: None,
            above: Above::Open,
        }
    }

    pub(super) fn id(&self, request: &Request) -> BucketId {
        BucketId {
            namespace: request.id.namespace.clone(),
            entity: self.entity.clone(),
            resource: request.part(self.part).0.clone(),
        }
    }

    /// It as it is known before it starts.
    pub(super) fn seen<'a>(&'a self, request: &'a Request) -> Option<Seen<'a>> {
        let found = self.found.as_ref().filter(|_| self.unless_disabled.is_none());
        Some(self.seen_with(request, found?))
    }

    pub(super) fn seen_with<'a>(&'a self, request: &'a Request, found: &'a Found) -> Seen<'a> {
        let (resource, amounts) = request.part(self.part);
        Seen {
            who: (&self.entity, resource),
            level: self.level,
            amounts,
            found,
        }
    }

    pub(super) fn end(&self) -> Option<&TakeEnd> {
        self.take.as_deref()?.end()
    }

    pub(super) fn is_running(&self) -> bool {
        self.take.as_deref().is_some_and(|take| take.end().is_none())
    }

    /// Whether it holds its write back until the others have taken their tokens.
    fn is_held(&self) -> bool {
        self.take.as_deref().is_some_and(Take::is_held)
    }

    /// Whether it has taken its tokens, or may yet.
    fn is_of_use(&self) -> bool {
        matches!(
            (&self.take, self.end()),
            (Some(_), None | Some(TakeEnd::Taken(_)))
        )
    }

    pub(super) fn grants(&self) -> &[Grant] {
        self.end().map_or(&[], TakeEnd::grants)
    }

    pub(super) fn owner_was_read(&mut self, config: Arc<Resolved>) {
        self.above = Above::Read(config);
    }
}

impl Acquire {
    /// Adds the leg of an entity, and those of the entities above it as far as their configurations are known. What is not
    /// known is asked for.
    pub(super) fn climb(
        &mut self,
        part: usize,
        mut level: usize,
        mut entity: EntityId,
        known: &Known<'_>,
    ) -> Vec<Call> {
        loop {
            if self.take_back(part, level, &entity) {
                return Vec::new();
            }
            let is_paid = level > 0 && part == 0 && self.request.paid() == Some(&entity);
            let leg = self.legs.len();
            self.legs.push(Leg {
                is_paid,
                ..Leg::new(part, level, entity.clone())
            });
            if is_paid {
                return Vec::new();
            }
            let resource = self.request.part(part).0;
            let Some(found) = known(&entity, resource) else {
                let ask = Ask::Config {
                    entity,
                    resource: resource.clone(),
                    fresh: false,
                };
                return self.route(Route::Config(leg), vec![(0, ask)]);
            };
            match self.learn(leg, Ok(found)) {
                Some(above) => (level, entity) = (level + 1, above),
                None => return Vec::new(),
            }
        }
    }

    /// If a stray leg is of this entity and has started, it is not stray: the entity is above, on another level than was thought. Its
    /// tokens are not debited twice.
    fn take_back(&mut self, part: usize, level: usize, entity: &EntityId) -> bool {
        let is_of = |leg: &Leg| leg.is_stray && leg.part == part && leg.entity == *entity && leg.is_of_use();
        let Some(old) = self.legs.iter().position(is_of) else {
            return false;
        };
        // At the end, after the legs below it.
        let new = self.legs.len();
        let take = self.legs[old].take.take();
        self.legs.push(Leg {
            take,
            ..Leg::new(part, level, entity.clone())
        });
        for route in &mut self.routes {
            if *route == Route::Leg(old) {
                *route = Route::Leg(new);
            }
        }
        true
    }

    /// Takes the configuration of a leg. Returns the entity above, whose bucket is to be debited as well.
    pub(super) fn learn(&mut self, at: usize, found: Result<Found, AcquireError>) -> Option<EntityId> {
        let leg = &self.legs[at];
        if leg.is_stray {
            return None;
        }
        let (resource, amounts) = self.request.part(leg.part);
        let amounts = if leg.level == 0 { amounts } else { &[] };
        let found = found.and_then(|found| {
            let disabled = found.config.disabled().is_some().then(|| found.clone());
            let found = in_force(&self.request, resource, found);
            let checked = found.and_then(|found| {
                check_config(&found.config, resource, amounts)?;
                Ok((found, None))
            });
            match (checked, disabled) {
                (Err(err @ (AcquireError::NotConfigured { .. } | AcquireError::Input(_))), Some(found)) => {
                    Ok((found, Some(err)))
                }
                (checked, _) => checked,
            }
        });
        // Named as the caller has named it.
        let named = |err: AcquireError| match err {
            AcquireError::Input(err) if leg.part > 0 => {
                let field = format!("also.{resource}{}", err.field().trim_start_matches("consume"));
                err.in_field(field).into()
            }
            err => err,
        };
        match found {
            Ok((found, unless_disabled)) => {
                let above = self.above(leg, found.config.depth, known_owner(&found)).cloned();
                let unless_disabled = unless_disabled.map(named);
                let leg = &mut self.legs[at];
                (leg.found, leg.unless_disabled) = (Some(found), unless_disabled);
                above
            }
            Err(err) => {
                let err = named(err);
                self.decide(Decision::Failed(err));
                None
            }
        }
    }

    /// The entity above that of a leg, by this owner, if it is debited as well.
    fn above<'a>(&self, leg: &Leg, depth: CascadeDepth, owner: Option<&'a Owner>) -> Option<&'a EntityId> {
        let is_below = |other: &&Leg| !other.is_stray && other.part == leg.part && other.level <= leg.level;
        let chain = self.legs.iter().filter(is_below);
        depth.next_above(owner, leg.level, chain.map(|leg| &leg.entity))
    }

    /// Once the other legs have ended, lets those go on that [hold back](Take::hold_back), or ends them if another leg has
    /// not taken its tokens.
    pub(super) fn release(&mut self, now: EpochMillis, random: &mut dyn Random) -> Vec<Call> {
        let mut calls = Vec::new();
        if !self.legs.iter().any(Leg::is_held) {
            return calls;
        }
        let is_lost =
            |leg: &Leg| !leg.is_stray && leg.end().is_some_and(|end| !matches!(end, TakeEnd::Taken(_)));
        let is_lost = self.abandoned || self.decision.is_some() || self.legs.iter().any(is_lost);
        for at in 0..self.legs.len() {
            let is_stray = self.legs[at].is_stray;
            let Some(take) = self.legs[at].take.as_deref_mut().filter(|take| take.is_held()) else {
                continue;
            };
            if is_lost || is_stray {
                take.withdraw();
            } else {
                append(&mut calls, self.step(at, now, random, Take::go_on));
            }
        }
        calls
    }

    /// Once a bucket was debited, its own item says who is above its entity, and overrules the cache. If the item is
    /// stamped for another incarnation of the entity than the cache has, META is read again, and decides.
    pub(super) fn confirm(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        // Legs that are taken back are added meanwhile.
        for at in 0.. {
            let Some(leg) = self.legs.get(at) else { break };
            if leg.is_stray || matches!(leg.above, Above::Confirmed | Above::Asked) {
                continue;
            }
            let (Some(take), Some(grant)) = (&leg.take, leg.grants().first()) else {
                continue;
            };
            let (config, was_read) = match &leg.above {
                Above::Read(config) => (config, true),
                _ => (take.config(), false),
            };
            let read = config.owner.as_ref();
            let stamp = &grant.image.owner;
            let owner = if !is_disputed(stamp, read) {
                newest_owner(stamp, read)
            } else if was_read {
                read
            } else {
                let ask = Ask::Config {
                    entity: leg.entity.clone(),
                    resource: self.request.part(leg.part).0.clone(),
                    fresh: true,
                };
                self.legs[at].above = Above::Asked;
                append(&mut calls, self.route(Route::OwnerConfig(at), vec![(0, ask)]));
                continue;
            };
            let wanted = self.above(leg, config.depth, owner).cloned();
            append(&mut calls, self.lead_to(at, wanted));
        }
        calls
    }

    /// It is certain who is above a leg's entity. If the legs above are of others, they are stray.
    fn lead_to(&mut self, at: usize, wanted: Option<EntityId>) -> Vec<Call> {
        self.legs[at].above = Above::Confirmed;
        let (part, level) = (self.legs[at].part, self.legs[at].level);
        let mut above = self.legs.iter().filter(|leg| !leg.is_stray && leg.part == part);
        let above = above.find(|leg| leg.level == level + 1);
        if above.map(|leg| &leg.entity) == wanted.as_ref() {
            return Vec::new();
        }
        for leg in self
            .legs
            .iter_mut()
            .filter(|leg| leg.part == part && leg.level > level)
        {
            leg.is_stray = true;
        }
        match wanted {
            Some(entity) => self.climb(part, level + 1, entity, &|_, _| None),
            None => Vec::new(),
        }
    }
}
