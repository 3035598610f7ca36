//! Limits that a bucket's item gains, because a request names them.
//!
//! On a bucket of one shard, such a limit begins full. On one of several, other shards may have the limit already: then the shard
//! joins the session that goes on there, and what it has of a quota is taken from the shard that was granted its part.

use super::{Amounts, set_params, shapes};
use crate::bucket::{Bucket, PERIOD_PARTS, limit_attr};
use crate::limit::Limit;
use crate::table::{Condition, Key, Update, Value};
use crate::terms::{Regain, Session, Terms};
use crate::units::{EpochMillis, Millitokens};

/// A limit that an item gains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed<'a> {
    /// The limit.
    pub(crate) limit: &'a Limit,
    /// The session of another shard that it joins.
    pub(crate) joins: Option<EpochMillis>,
    /// Where its tokens come from; `None` if it begins with the shard's part.
    pub(crate) gift: Option<Gift>,
}

/// Tokens that a shard gives to another one, whose part it was granted with its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gift {
    /// The shard that gives.
    pub(crate) from: u32,
    /// How much.
    pub(crate) tokens: Millitokens,
}

impl<'a> Seed<'a> {
    /// A limit that begins full.
    pub(crate) fn full(limit: &'a Limit) -> Self {
        Self {
            limit,
            joins: None,
            gift: None,
        }
    }

    /// Whether it begins a session.
    pub(crate) fn begins(&self) -> bool {
        self.limit.session_length().is_some() && self.joins.is_none()
    }

    /// What it begins with at an instant, as one of so many shards.
    pub(crate) fn tokens(&self, shards: u32, at: EpochMillis) -> Millitokens {
        let share = || Millitokens(Terms::of(self.limit, shards).share(at).capacity);
        self.gift.map_or_else(share, |gift| gift.tokens)
    }

    /// Its terms, as one of so many shards.
    pub(crate) fn terms(&self, shards: u32) -> Terms<'a> {
        let terms = Terms::of(self.limit, shards);
        match (terms.regain(), self.joins) {
            (Regain::Session(session, allowance), Some(start)) => {
                let start = Some(start);
                terms.with_regain(Regain::Session(Session { start, ..session }, allowance))
            }
            _ => terms,
        }
    }

    /// Until when its balance may be spent as it stands at `at`.
    pub(super) fn valid_until(&self, at: EpochMillis) -> Option<EpochMillis> {
        match self.joins {
            Some(_) => self.terms(1).valid_until(at),
            None => shapes::first_valid_until(self.limit, at),
        }
    }

    /// Gives it to an item, less what is taken. Returns what must hold.
    pub(super) fn write(
        &self,
        update: &mut Update,
        image: &Bucket,
        amounts: &Amounts,
        at: EpochMillis,
    ) -> Vec<Condition> {
        let (limit, shards) = (self.limit, image.shard_count);
        let name = limit.name().as_str();
        let attr = |part| limit_attr(name, part);
        let need = amounts
            .iter()
            .find(|(named, _)| named == limit.name())
            .map_or(0, |(_, need)| need.0);
        let tokens = self.tokens(shards, at).0;
        update.set.push((attr("tk"), Value::int(tokens - need)));
        update.set.push((attr("tc"), Value::int(need)));
        set_params(update, name, limit.params());
        let begun = self.joins.unwrap_or(at);
        let parts = shapes::first_parts(limit, shards, begun);
        // What a limit of the same name has left behind, which was of another kind.
        let left = PERIOD_PARTS.into_iter().chain(["rsa"]).map(attr);
        let left = left.filter(|attr| parts.iter().all(|(set, _)| set != attr));
        update.remove.extend(left);
        update.set.extend(parts);
        match shapes::soft_mark(limit, at) {
            Some(mark) => update.set.push(mark),
            None => update.remove.push(attr("soft")),
        }
        let mut pins = vec![super::lacks(name)];
        if limit.session_length().is_some() {
            // Another shard may begin a session meanwhile.
            let announced = image.announced(name);
            pins.push(Condition::same(attr("ws"), announced.map(|at| Value::int(at.0))));
        }
        pins
    }
}

/// The instant that an item is refilled to by a write that gives it limits, read as `now`. The refill instant moves in any case: a
/// refill or an operation from an image without the limits is pinned to the instant of that image. It would leave out what they
/// earn until its own instant, and a reset that comes in between.
pub(crate) fn instant(image: &Bucket, now: EpochMillis) -> EpochMillis {
    // A bucket that a wrong clock has dated ahead is dated back to now.
    if image.is_ahead(now) {
        now
    } else {
        now.max(image.refilled_at.plus(1))
    }
}

/// The write that takes what a shard gives to others, of the period that its image shows.
pub(crate) fn give(key: Key, image: &Bucket, gifts: &[(&Limit, Millitokens)]) -> Option<Update> {
    let mut update = Update::new(key);
    let mut parts = super::same_item(image);
    parts.push(super::shard_count_is(image.shard_count));
    parts.push(Condition::Absent("disabled".into()));
    parts.extend(shapes::shared_pins(image));
    for (limit, tokens) in gifts {
        let name = limit.name().as_str();
        let held = image.limit(name)?;
        let tk = limit_attr(name, "tk");
        update.add.push((tk.clone(), -tokens.0));
        parts.push(Condition::AtLeast(tk, tokens.0));
        parts.extend(super::has_params(name, held.params));
        parts.extend(held.shape.iter().flat_map(|shape| shape.pins(name)));
    }
    update.condition = Condition::All(parts);
    Some(update)
}
