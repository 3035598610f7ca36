//! What the other shards have of a quota or a session limit that a shard is about to gain.
//!
//! A limit that was set after a bucket was split is gained by each shard at its first use there. A session then goes on elsewhere
//! already, and a session of the shard's own would lie beside it for good: both together would admit more than the limit in one. And a
//! shard that existed when there were fewer may have been granted the part of this one with its own; a part from nothing would come on
//! top. So the other shards are read first.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Ask, Bucket, Env, Grant, Op, State, Take};
use crate::bucket::MAX_SHARDS;
use crate::limit::Limit;
use crate::shards::births::{Shards, family};
use crate::table::{Item, Part, Update};
use crate::terms::{Regain, Turn};
use crate::units::{EpochMillis, Millitokens};
use crate::write::Amounts;
use crate::write::seeds::{Gift, Seed, give};

/// The shards of a bucket, as they were read for one of them.
#[derive(Debug)]
pub(super) struct Kin {
    shard: u32,
    images: Shards,
    items: Vec<Item>,
}

impl Kin {
    /// When the session began that goes on, of those that the shards have a mark of.
    fn session(&self, limit: &Limit, now: EpochMillis) -> Option<EpochMillis> {
        let name = limit.name().as_str();
        let length = limit.session_length()?;
        let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        let start = |image: &Arc<Bucket>| match image.limit(name) {
            Some(held) => image.terms(held).session_start(),
            None => image.announced(name),
        };
        let goes_on = |start: &EpochMillis| start.plus(length) > now;
        let root = self.images.get(&0).and_then(start).filter(goes_on);
        // The first shard is the one that other clients go by.
        root.or_else(|| self.images.values().filter_map(start).filter(goes_on).max())
    }

    /// What the shard that was granted the part of `shard`, one of so many, gives of it; `None` if there is none.
    fn gift(&self, seed: &Seed<'_>, shard: u32, count: u32, now: EpochMillis) -> Option<Gift> {
        let name = seed.limit.name().as_str();
        let covers = |(id, image): (&u32, &Arc<Bucket>)| {
            let held = image.limit(name)?;
            let (terms, balance) = (image.terms(held), image.balance(held, now));
            let (Regain::Resets(_, allowance) | Regain::Session(_, allowance)) = terms.regain() else {
                return None;
            };
            let part_of = |shards: u32| terms.whole(now).share(shards).capacity;
            let mut granted = allowance.shards;
            if held.shape.as_ref().is_some_and(|shape| !shape.has("gc")) {
                // The count is not stored: it was granted its part when there were fewer shards, if it holds more than a share.
                while granted > 1 && balance.tokens.0 > part_of(granted) {
                    granted /= 2;
                }
            }
            let is_of_period = terms.turn(balance.at, now) == Turn::None
                && (seed.joins.is_none() || terms.session_start() == seed.joins);
            let covers = *id != shard && granted < count && shard % granted == id % granted && is_of_period;
            // What is above its ceiling is to be cut, and not given away.
            let tokens = match balance.tokens.0 {
                above if above > part_of(granted) + allowance.extra => 0,
                tokens => tokens.clamp(0, seed.terms(count).share(now).capacity),
            };
            covers.then_some((granted, *id, Millitokens(tokens)))
        };
        let covering = self.images.iter().filter_map(covers);
        let nearest = covering.max_by_key(|(granted, id, _)| (*granted, std::cmp::Reverse(*id)));
        nearest.map(|(_, from, tokens)| Gift { from, tokens })
    }
}

impl Take {
    /// Whether the other shards must be read before this one gains what it lacks.
    pub(super) fn must_know_kin(&self, image: &Bucket) -> bool {
        let is_known = |kin: &Kin| {
            let own = kin.images.get(&self.shard).filter(|_| kin.shard == self.shard);
            own.is_some_and(|own| own.refilled_at == image.refilled_at && own.announced == image.announced)
        };
        image.shard_count > 1
            && !self.kin.as_ref().is_some_and(is_known)
            && self.lacking(image).any(Limit::is_quota)
    }

    pub(super) fn read_kin(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) {
        self.seen = Some(Arc::clone(image));
        let count = image.shard_count;
        let mut shards = if count <= MAX_SHARDS {
            (0..count).collect()
        } else {
            family(self.shard, count)
        };
        if !shards.contains(&self.shard) {
            shards.push(self.shard);
        }
        let ask = Ask::Table(Op::BatchGet {
            keys: shards.into_iter().map(|shard| self.id.key(shard)).collect(),
            consistent: true,
        });
        self.send(ask, State::Kin, env);
    }

    pub(super) fn look_at_kin(&mut self, items: Vec<Item>, env: &mut Env<'_>) {
        let images = match self.images(&items, env) {
            Ok(images) => images,
            Err(err) => return self.fail(err),
        };
        let Some(image) = images.get(&self.shard).cloned() else {
            return self.create(env);
        };
        self.kin = Some(Kin {
            shard: self.shard,
            images,
            items,
        });
        self.look_at(&image, env);
    }

    /// Named limits that are configured but that the item lacks, and with what it gains them.
    pub(super) fn seeds<'a>(&'a self, image: &'a Bucket, now: EpochMillis) -> Vec<Seed<'a>> {
        let kin = self.kin.as_ref();
        let kin = kin.filter(|kin| kin.shard == self.shard && image.shard_count > 1);
        let seed = |limit: &'a Limit| {
            let mut seed = Seed::full(limit);
            if let Some(kin) = kin.filter(|_| limit.is_quota()) {
                seed.joins = kin.session(limit, now);
                seed.gift = kin.gift(&seed, self.shard, image.shard_count, now);
            }
            seed
        };
        self.lacking(image).map(seed).collect()
    }

    /// What other shards give for the limits that the item gains, by shard.
    pub(super) fn gifts(&self, image: &Bucket, amounts: &Amounts, now: EpochMillis) -> Vec<Update> {
        let Some(kin) = self.kin.as_ref().filter(|_| !amounts.is_empty()) else {
            return Vec::new();
        };
        let mut given: BTreeMap<u32, Vec<(&Limit, Millitokens)>> = BTreeMap::new();
        for seed in self.seeds(image, now) {
            if let Some(gift) = seed.gift.filter(|gift| gift.tokens > Millitokens::ZERO) {
                given
                    .entry(gift.from)
                    .or_default()
                    .push((seed.limit, gift.tokens));
            }
        }
        let write = |(shard, gifts): (u32, Vec<_>)| give(self.id.key(shard), kin.images.get(&shard)?, &gifts);
        given.into_iter().filter_map(write).collect()
    }

    /// Refills and debits the shard, while others give what it gains.
    pub(super) fn take_with_gifts(&mut self, update: Update, gifts: Vec<Update>, env: &mut Env<'_>) {
        let items = self.kin.as_ref().map_or(&[][..], |kin| &kin.items);
        let Some(image) = super::whole::after(items, &update) else {
            // It has changed since.
            return self.look_again(env);
        };
        let grant = Grant {
            id: self.id.clone(),
            shard: self.shard,
            amounts: self.amounts.clone(),
            image,
            is_bypassed: false,
        };
        let parts = std::iter::once(update).chain(gifts).map(Part::Update);
        let ask = Ask::Table(Op::Transact(parts.collect()));
        self.send(ask, State::Portions(vec![grant]), env);
    }

    /// Looks at the shard and at the others once more.
    pub(super) fn look_again(&mut self, env: &mut Env<'_>) {
        self.kin = None;
        if self.has_lost_too_often() {
            return;
        }
        self.debit(None, env);
    }
}
