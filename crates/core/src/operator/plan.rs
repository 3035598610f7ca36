//! Planning an operation from the images of all shards.
//!
//! Each shard is first brought to one instant, as a refilling write would: what was earned is added, a reset that has come is
//! applied, and so is a session that another shard's use has begun. Then the limits that are named are changed. The instant lies
//! after the last refill of every shard, so that each other write which was made from the same images fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, Operation, Plan, Shards, missing, shard_count};
use crate::acquire::{AcquireError, expiry};
use crate::bucket::{Bucket, BucketLimit, MAX_AHEAD_MS, birth_mark};
use crate::error::{CorruptRecord, InvalidInput, RecordError};
use crate::limit::{Limit, MAX_LIMITS};
use crate::name::LimitName;
use crate::random::Random;
use crate::schema::meta_key;
use crate::table::{Part, Value};
use crate::terms::{Regain, Terms, Turn};
use crate::units::{EpochMillis, MAX_TOKENS, Millitokens};
use crate::write::operation::{Changed, NewSession, operate};
use crate::write::shapes::shapes_of_new;
use crate::write::{NewShard, Ttl, create, fits, is_left};

/// How many shards one transaction can hold, beside the record and the event.
const MAX_PARTS: usize = 98;

/// What holds for all shards of a bucket.
#[derive(Clone, Copy)]
struct Whole {
    /// How many there are, according to the highest count on any of them.
    count: u32,
    /// Whether all of them exist.
    is_complete: bool,
    now: EpochMillis,
    /// The instant that all are brought to: `now`, or just after the last refill if a clock that is ahead has written it.
    at: EpochMillis,
}

/// One shard while the operation is planned.
struct Shard<'a> {
    number: u32,
    image: &'a Bucket,
    limits: Vec<Held<'a>>,
}

/// One limit of a shard while the operation is planned.
struct Held<'a> {
    terms: Terms<'a>,
    /// What becomes of its period.
    turn: Turn,
    changed: Changed<'a>,
}

impl Operation {
    /// Plans the operation from all shards of the bucket, as of `now`. Without any, it does nothing: for a top-up see
    /// [`create`](Self::create).
    ///
    /// # Errors
    /// [`AcquireError::Input`] if a limit that is to be topped up is not on the bucket yet, or would have more than 10^15 tokens
    /// added; [`AcquireError::Record`] if a shard holds more than one write can change.
    pub fn plan(&self, shards: &Shards, now: EpochMillis) -> Result<Plan, AcquireError> {
        if shards.is_empty() {
            return Ok(self.nothing());
        }
        if shards.len() > MAX_PARTS {
            let problem = format!(
                "has {} shards, and one transaction can change {MAX_PARTS}",
                shards.len()
            );
            return Err(self.unwritable(0, "shard_count", problem).into());
        }
        let whole = Whole {
            count: shard_count(shards),
            is_complete: missing(shards).is_empty(),
            now,
            at: instant(shards, now),
        };
        let mut work: Vec<Shard<'_>> = shards
            .iter()
            .map(|(number, image)| self.brought_to(whole, *number, image))
            .collect();
        let mut amounts = BTreeMap::new();
        for (name, amount) in &self.named {
            let gained = match self.change {
                Change::Reset(_) => reset(&mut work, name, whole),
                Change::TopUp(_) => top_up(&mut work, name, *amount, whole)?,
            };
            amounts.insert(name.clone(), i64::try_from(gained).unwrap_or(i64::MAX));
        }
        let raises_ceiling = work.iter().flat_map(|shard| &shard.limits).any(|held| {
            let before = held.changed.limit.shape.as_ref().map_or(0, |shape| shape.extra());
            held.changed.extra > 0 && held.changed.extra != before
        });
        let parts = work
            .iter()
            .map(|shard| self.write(shard, whole))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Plan {
            result: self.result(parts.len(), amounts),
            parts,
            raises_ceiling,
        })
    }

    /// Plans to create the bucket that a top-up finds missing: with all it is entitled to, and what is added to its quotas. A
    /// limit that is refilled by its rate begins full, so that there is nothing to add. If that is all that is asked for,
    /// nothing is written.
    ///
    /// The caller has made sure that the entity is not [disabled](crate::config::Resolved::disabled).
    pub fn create(&self, now: EpochMillis, random: &mut dyn Random) -> Plan {
        let added = |name: &str| -> Millitokens {
            let is_quota = self.limit(name).is_some_and(Limit::is_quota);
            let named = self.named.iter().find(|(known, _)| known.as_str() == name);
            named
                .filter(|_| is_quota)
                .map_or(Millitokens::ZERO, |(_, amount)| *amount)
        };
        let any = self
            .named
            .iter()
            .any(|(name, _)| added(name.as_str()) != Millitokens::ZERO);
        if !any || matches!(self.change, Change::Reset(_)) {
            return self.nothing();
        }
        let config = &self.config;
        let balances = config.limits.iter().map(|limit| {
            let name = limit.name();
            let full = Terms::of(limit, 1).share(now).capacity;
            let tokens = Millitokens(full) + added(name.as_str());
            (limit.params(), name.to_smol(), tokens, Millitokens::ZERO)
        });
        let balances = balances.collect();
        let mut shapes = shapes_of_new(&config.limits, 1, now);
        for (name, _) in &self.named {
            let extra = added(name.as_str());
            if extra != Millitokens::ZERO {
                shapes.push((
                    crate::bucket::limit_attr(name.as_str(), "tu"),
                    Value::int(extra.0),
                ));
            }
        }
        let put = create(&NewShard {
            id: &self.id,
            shard: 0,
            shard_count: 1,
            refilled_at: now,
            config,
            ttl: expiry(config, self.settings, 0, None, 1, now),
            birth: &birth_mark(random.bits(), 1, None),
            balances,
            shapes,
            // A request stamps it, which looks once more whether there is a bypass.
            bypass: None,
        });
        let meta = meta_key(&self.id.namespace, &self.id.entity);
        let amount = |(name, _): &(LimitName, Millitokens)| {
            let whole = added(name.as_str()).floor_tokens();
            (name.clone(), whole)
        };
        Plan {
            parts: vec![Part::Put(put), Part::Check(meta, config.meta_unchanged.clone())],
            result: self.result(1, self.named.iter().map(amount).collect()),
            raises_ceiling: true,
        }
    }

    /// A shard as it stands at an instant, before anything is changed.
    fn brought_to<'a>(&self, whole: Whole, number: u32, image: &'a Arc<Bucket>) -> Shard<'a> {
        let is_named = |limit: &BucketLimit| self.named.iter().any(|(name, _)| name.as_str() == limit.name);
        let is_reset = matches!(self.change, Change::Reset(_));
        let limits = image
            .limits
            .iter()
            .filter(|limit| !is_left(limit, Some(&self.config)));
        let limits = limits.map(|limit| {
            let terms = image.terms_among(limit, whole.count);
            let ends = is_reset && is_named(limit) && matches!(terms.regain(), Regain::Session(..));
            held(image, limit, terms, ends, whole)
        });
        Shard {
            number,
            image,
            limits: limits.collect(),
        }
    }

    fn write(&self, shard: &Shard<'_>, whole: Whole) -> Result<Part, RecordError> {
        let changed: Vec<&Changed<'_>> = shard.limits.iter().map(|held| &held.changed).collect();
        let mut ttl = expiry(
            &self.config,
            self.settings,
            shard.number,
            Some(shard.image),
            whole.count,
            whole.at,
        );
        for held in &shard.limits {
            // What is added lasts as long as the session that it begins.
            let session = held.changed.session;
            if let (
                Ttl::At(secs),
                Regain::Session(session, _),
                Some(NewSession::Begun(start) | NewSession::Ended(start)),
            ) = (ttl, held.terms.regain(), session)
            {
                ttl = Ttl::At(secs.max(start.plus(session.millis).plus(999).secs()));
            }
        }
        let key = self.id.key(shard.number);
        let update = operate(key, shard.image, &changed, whole.count, ttl, whole.at);
        if !fits(&update.condition) {
            let problem = format!(
                "holds {} limits, more than one write can change; give the level at most {MAX_LIMITS}",
                changed.len()
            );
            return Err(self.unwritable(shard.number, "b_*", problem));
        }
        Ok(Part::Update(update))
    }

    fn unwritable(&self, shard: u32, attribute: &str, problem: String) -> RecordError {
        CorruptRecord {
            record: "bucket",
            key: self.id.key(shard).to_string(),
            attribute: attribute.to_owned(),
            problem,
        }
        .into()
    }
}

/// The instant that all shards are brought to.
fn instant(shards: &Shards, now: EpochMillis) -> EpochMillis {
    let refilled = shards.values().map(|image| image.earned_until(now).plus(1));
    let starts = shards.values().flat_map(|image| {
        let limits = image.limits.iter();
        limits.filter_map(|limit| image.terms(limit).session_start())
    });
    // As where a bucket is refilled: only a wrong clock has begun a session further ahead.
    let starts = starts.filter(|start| start.since(now) <= MAX_AHEAD_MS);
    refilled.chain(starts).fold(now, EpochMillis::max)
}

fn held<'a>(image: &Bucket, limit: &'a BucketLimit, terms: Terms<'a>, ends: bool, whole: Whole) -> Held<'a> {
    let at = whole.at;
    let before = image.balance(limit, at);
    let mut turn = terms.turn(before.at, at);
    let is_surplus = !whole.is_complete && terms.is_refilled() && limit.balance.0 > terms.share(at).capacity;
    let (tokens, carry) = if ends || turn == Turn::Opens || is_surplus {
        // The balance of a session that is over is left to the use that begins the next one, and what belongs to shards that do
        // not exist to those that create them.
        (limit.balance, 0)
    } else {
        let balance = terms.turned(turn, before, at);
        (balance.tokens, balance.carry)
    };
    if ends {
        turn = Turn::None;
    }
    let shape = limit.shape.as_ref();
    let allowance = shape.and_then(|shape| shape.allowance());
    let is_new = matches!(turn, Turn::Reset | Turn::Joins);
    let granted = if is_new {
        Some(terms.shards())
    } else {
        unstored(limit).filter(|_| image.shard_count < whole.count)
    };
    let session = match (turn, terms.session_start()) {
        (Turn::Joins, Some(start)) => Some(NewSession::Joined(start)),
        _ => None,
    };
    Held {
        terms,
        turn,
        changed: Changed {
            limit,
            tokens,
            carry: (carry, terms.whole(at).period_ms),
            granted,
            extra: if is_new {
                0
            } else {
                allowance.map_or(0, |allowance| allowance.extra)
            },
            session,
            is_reset: false,
        },
    }
}

/// The shard count that a quota's part was granted for, if the item does not have it: its own, as long as that does not change.
fn unstored(limit: &BucketLimit) -> Option<u32> {
    let shape = limit.shape.as_ref().filter(|shape| !shape.has("gc"))?;
    shape.allowance().map(|allowance| allowance.shards)
}

/// The limit of this name on each shard that has it.
fn of_name<'w, 'a>(
    work: &'w mut [Shard<'a>],
    name: &LimitName,
) -> impl Iterator<Item = (u32, &'w mut Held<'a>)> {
    work.iter_mut().filter_map(move |shard| {
        let mut limits = shard.limits.iter_mut();
        let held = limits.find(|held| held.changed.limit.name == name.as_str())?;
        Some((shard.number, held))
    })
}

/// Makes a limit whole again. Returns the whole tokens that this gives, rounded down.
fn reset(work: &mut [Shard<'_>], name: &LimitName, whole: Whole) -> i128 {
    let at = whole.at;
    let mut gained = 0;
    for (_, held) in of_name(work, name) {
        let (terms, changed) = (held.terms, &mut held.changed);
        let (share, before) = (terms.share(at).capacity, changed.tokens.0);
        match terms.regain() {
            Regain::Rate => {
                let surplus = if whole.is_complete { share } else { before };
                changed.tokens = Millitokens(share.max(surplus));
                changed.carry.0 = 0;
                gained += changed.tokens.0 - before;
            }
            Regain::Resets(..) => {
                changed.tokens = Millitokens(share);
                changed.granted = Some(whole.count);
                changed.extra = 0;
                changed.is_reset = true;
                gained += share - before;
            }
            Regain::Session(session, _) => {
                // It has ended by now, and the next use begins another one with all of it. A balance that was whole already could
                // be spent by a write on its way, and once more by that use.
                changed.session = Some(NewSession::Ended(whole.now.plus(-session.millis)));
                gained += share - before.min(terms.ceiling(at));
            }
            // Not configured like this.
            Regain::Unknown => {}
        }
    }
    gained.div_euclid(1000)
}

/// Adds to a limit. Returns the whole tokens that were added: all of a quota's, and as many as there is room for of a limit that
/// is refilled by its rate.
fn top_up(
    work: &mut [Shard<'_>],
    name: &LimitName,
    amount: Millitokens,
    whole: Whole,
) -> Result<i128, InvalidInput> {
    let Whole { count, now, at, .. } = whole;
    let amount = amount.0 / 1000;
    for (_, held) in of_name(work, name) {
        if held.turn == Turn::Opens {
            // What is added to a session that is over would be gone with the next use.
            held.turn = Turn::None;
            let changed = &mut held.changed;
            changed.tokens = Millitokens(held.terms.share(at).capacity);
            changed.session = Some(NewSession::Begun(
                held.terms.session_end().map_or(now, |end| end.max(now)),
            ));
            changed.granted = Some(count);
            changed.extra = 0;
        }
    }
    let mut is_quota = false;
    let weights: Vec<i128> = of_name(work, name)
        .map(|(_, held)| {
            let changed = &held.changed;
            if held.terms.is_refilled() {
                // What the shard has room for.
                return (held.terms.share(at).capacity - changed.tokens.0).max(0) / 1000;
            }
            is_quota = true;
            let stored = changed.limit.shape.as_ref().and_then(|shape| shape.allowance());
            let granted = changed.granted.or(stored.map(|allowance| allowance.shards));
            i128::from((count / granted.unwrap_or(count).max(1)).max(1))
        })
        .collect();
    if weights.is_empty() {
        let reason =
            "the limit is configured, but not on this bucket yet: take tokens of it once, then add to it";
        return Err(InvalidInput::of_request("amounts", name, reason));
    }
    let portions = if is_quota {
        by_weight(amount, &weights)
    } else {
        by_room(amount, &weights)
    };
    for ((_, held), portion) in of_name(work, name).zip(&portions) {
        let changed = &mut held.changed;
        let portion = Millitokens::from_amount(u64::try_from(*portion).unwrap_or(0));
        changed.tokens += portion;
        if is_quota {
            changed.extra += portion.0;
            changed.granted = changed.granted.or(unstored(changed.limit));
        }
        if changed.extra > Millitokens::from_amount(MAX_TOKENS).0 {
            let reason =
                format!("together with what was added before, that is more than {MAX_TOKENS} tokens");
            return Err(InvalidInput::of_request(
                format!("amounts.{name}"),
                amount,
                reason,
            ));
        }
    }
    Ok(portions.iter().sum())
}

/// Divides an amount by weights. What rounding leaves goes to the first.
fn by_weight(amount: i128, weights: &[i128]) -> Vec<i128> {
    let sum: i128 = weights.iter().sum::<i128>().max(1);
    let mut portions: Vec<i128> = weights.iter().map(|weight| amount * weight / sum).collect();
    let rest = amount - portions.iter().sum::<i128>();
    if let Some(first) = portions.first_mut() {
        *first += rest;
    }
    portions
}

/// Divides as much of an amount as there is room for, in proportion to the room. What rounding leaves goes to the first that have
/// room for it.
fn by_room(amount: i128, room: &[i128]) -> Vec<i128> {
    let all: i128 = room.iter().sum();
    let amount = amount.min(all);
    if amount <= 0 {
        return vec![0; room.len()];
    }
    let mut portions: Vec<i128> = room.iter().map(|room| amount * room / all).collect();
    let mut rest = amount - portions.iter().sum::<i128>();
    for (portion, room) in portions.iter_mut().zip(room) {
        let more = rest.min(room - *portion);
        *portion += more;
        rest -= more;
    }
    portions
}
