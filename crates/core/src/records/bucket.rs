//! The bucket record: one item per entity, resource and shard, holding all limits of that pair.
//!
//! [`Bucket::decode`] reads items of any client, reports what it can and cannot evaluate, and never
//! panics. What may be *done* with an image is decided in [`crate::acquire`]. Attribute layout: data model,
//! section 8.

mod shape;

use std::sync::Arc;

use smol_str::{SmolStr, SmolStrBuilder};

use self::shape::{Held, ItemSchedules, is_shape_of};
pub(crate) use self::shape::{PERIOD_PARTS, Shape};

use crate::error::RecordError;
use crate::limit::{Limit, Params};
use crate::name::{EntityId, WCU};
use crate::records::reader::Reader;
use crate::refill::{Balance, Wait};
use crate::table::{Attr, Item, Value};
use crate::terms::Terms;
use crate::units::{EpochMillis, MAX_PERIOD_SECS, MAX_TOKENS, Millitokens};

/// The most shards a bucket is ever split into (the cap of 0.17 clients).
pub const MAX_SHARDS: u32 = 32;

/// How far a refill instant may lie in the future, in milliseconds: more than clocks differ that are kept by NTP, or
/// corrected by the table's own clock to within a second.
pub const MAX_AHEAD_MS: i64 = 5000;

/// Shard counts above this on an item are taken for corruption. Old clients had no cap.
const MAX_SHARDS_READ: i128 = 4096;

/// The cost of one write on the reserved `wcu` limit: one unit, in thousandths.
pub const WCU_COST: i128 = 1000;

/// Stands for the deadline of a bypass whose stamp is not a number.
pub(crate) const NO_DEADLINE: EpochMillis = EpochMillis(i64::MIN);

/// The reserved limit's parameters: DynamoDB's write ceiling of 1000 units a second and partition.
pub const WCU_PARAMS: Params = Params {
    capacity: 1_000_000,
    refill: 1_000_000,
    period_ms: 1000,
};

/// Marks a limit of an item that has schedules as having none itself.
pub(crate) const NO_SCHEDULE: &str = "-";

/// The attribute that carries the fractions of millitokens earned but not paid out.
pub(crate) const CARRY: &str = "fr";

/// The attribute that names the last credit written to the item.
pub(crate) const RECEIPT: &str = "cr";

/// The attribute that a repeated credit changes, so that nothing sent before it can still happen. It begins with
/// the item's birth mark, so that no credit of a former item happens on a later one of the same key:
/// `{birth}.{receipt}`, both of which may be empty. The birth mark is `{random}-{shard count}` on the first shard, and
/// `{random}-{shard count}-{life}` on others: their bucket's [life](Bucket::life).
pub(crate) const FENCE: &str = "cf";

/// The fence of a new item.
pub(crate) fn first_fence(birth: &str) -> String {
    format!("{birth}.")
}

/// The name of one of a limit's attributes: `b_{limit}_{part}`.
pub fn limit_attr(limit: &str, part: &str) -> Attr {
    let mut name = SmolStrBuilder::new();
    for piece in ["b_", limit, "_", part] {
        name.push_str(piece);
    }
    name.finish()
}

/// The parent that an entity's requests also debit, according to its META or its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// Whether the parent is debited too.
    pub cascade: bool,
    /// The parent.
    pub parent: Option<EntityId>,
    /// Generation of the parent link: raised whenever the entity moves.
    pub generation: Option<i64>,
    /// The entity's incarnation: new whenever it is created.
    pub incarnation: Option<SmolStr>,
}

impl Owner {
    /// The parent that must be debited too, if there is one.
    pub fn cascade_parent(&self) -> Option<&EntityId> {
        self.parent.as_ref().filter(|_| self.cascade)
    }

    /// Whether this stamp on a bucket was written from knowledge of the entity, not by default.
    pub fn is_authoritative(&self) -> bool {
        self.generation.is_some() || self.parent.is_some()
    }
}

/// Whether a bucket's stamp belongs to another life of the entity than the one that was read, or to an entity that
/// is not there.
///
/// The two do not show which of them is out of date. META does, if it is read consistently after the stamp was seen.
pub fn is_disputed(stamp: &Owner, read: Option<&Owner>) -> bool {
    stamp.is_authoritative()
        && read.is_none_or(|read| stamp.incarnation.is_some() && stamp.incarnation != read.incarnation)
}

/// Who owns an entity's buckets: a bucket's own stamp if it was written from knowledge, unless what was read
/// of the entity is of a later generation. Stamps of old clients have neither generation nor incarnation, and
/// date from the bucket's creation: anything read of the entity is later.
///
/// If the two are [disputed](is_disputed), the answer is a guess: a generation begins with the instant of the
/// entity's creation.
pub fn newest_owner<'a>(stamp: &'a Owner, read: Option<&'a Owner>) -> Option<&'a Owner> {
    match read {
        Some(read) if !stamp.is_authoritative() || read.generation > stamp.generation => Some(read),
        _ => Some(stamp),
    }
}

/// One limit on a bucket item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketLimit {
    /// Its name.
    pub name: SmolStr,
    /// Its balance at the bucket's refill instant.
    pub balance: Millitokens,
    /// Its parameters as stored, undivided by shards.
    pub params: Params,
    /// Earned but not yet a whole millitoken; see [`Balance::carry`].
    pub carry: i128,
    /// Net consumption so far, as counted on the item.
    pub consumed: Option<Millitokens>,
    /// What it has under `sched` and `rsched`, beside what the item has for all limits.
    pub(crate) marks: [Option<SmolStr>; 2],
    /// Its shape, if it is not refilled at one rate.
    pub(crate) shape: Option<Arc<Shape>>,
    /// Whether other clients may not refuse by it for some time, according to a stamp.
    pub is_soft: bool,
}

/// A bucket shard as an item showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The instant that all balances stand for.
    pub refilled_at: EpochMillis,
    /// How many shards the bucket is split into, according to this shard.
    pub shard_count: u32,
    /// The parent to which the entity cascades, as stored here.
    pub owner: Owner,
    /// When the item expires, in epoch seconds.
    pub ttl: Option<i64>,
    /// Until when the balances may be spent without a refilling write; 0 forces one.
    pub valid_until: Option<i64>,
    /// Whether requests are refused outright.
    pub disabled: bool,
    /// Until when every request is admitted, and only counted, according to a stamp. One of an unknown type has passed.
    pub bypass: Option<EpochMillis>,
    /// The application's limits, by name.
    pub limits: Vec<BucketLimit>,
    /// The reserved write ceiling, if the item has it.
    pub wcu: Option<BucketLimit>,
    /// The last credit written to the item. A text, unless another program wrote it.
    pub receipt: Option<Value>,
    /// The item's birth mark, and the last credit that had to be sent again. A text, unless another program wrote
    /// it.
    pub fence: Option<Value>,
    /// The fractions earned, as they stand on the item.
    pub(crate) fractions: Option<SmolStr>,
    /// What the item has under `sched`, `rsched` and `sched_tz` for all of its limits.
    pub(crate) schedules: [Option<SmolStr>; 3],
    /// Sessions of limits that the item lacks: other shards have told it when they began.
    pub(crate) announced: Vec<(SmolStr, EpochMillis)>,
    /// The first attribute that only a client with more features can evaluate.
    pub unsupported: Option<SmolStr>,
}

/// The birth mark of an item that is created as one of so many shards, in a life of its bucket that has begun already,
/// if it is known.
pub(crate) fn birth_mark(bits: u64, shard_count: u32, life: Option<&str>) -> String {
    let mut mark = format!("{:012x}-{shard_count}", bits >> 16);
    if let Some(life) = life {
        mark.push('-');
        mark.push_str(life);
    }
    mark
}

/// How an item relates to an earlier one of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is the same item, according to its marks.
    Same,
    /// It has been stamped for an entity since. The marks do not show whether it is the same item.
    Stamped,
    /// It is another item.
    Other,
}

/// The meaning of an attribute of a bucket item for this version.
enum Kind<'a> {
    /// Belongs to the item.
    Item,
    /// Part of a limit: its name, and the part.
    Limit(&'a str, &'a str),
    /// Not understood.
    Foreign,
}

/// A part of a limit on an item: the limit's name, the part, the value.
type Part<'a> = (&'a str, &'a str, &'a Value);

/// Of the parts of an item's limits, in the order of their attributes, those of the limit of the part at `at`, and few others:
/// they are next to each other.
fn parts_near<'a, 'b>(parts: &'b [Part<'a>], at: usize) -> &'b [Part<'a>] {
    let (before, from) = parts.split_at(at);
    let name = from.first().map_or("", |(name, ..)| *name);
    let is_other = |(other, ..): &Part<'_>| !other.starts_with(name);
    let begin = before.iter().rposition(is_other).map_or(0, |last| last + 1);
    let end = from.iter().position(is_other).unwrap_or(from.len());
    parts.get(begin..at + end).unwrap_or_default()
}

/// Splits at the last `_`. Parts are short, so going backwards byte by byte is faster than a search for long texts.
fn split_part(rest: &str) -> Option<(&str, &str)> {
    let at = rest.bytes().rposition(|byte| byte == b'_')?;
    Some((rest.get(..at)?, rest.get(at + 1..)?))
}

fn classify(attr: &str) -> Kind<'_> {
    match attr {
        "PK" | "SK" | "entity_id" | "resource" | "rf" | "shard_count" | "cascade" | "parent_id" | "ttl"
        | "disabled" | "bypass" | "vu" | "sched" | "rsched" | "sched_tz" | "pgen" | "pinc" | CARRY
        | RECEIPT | FENCE | "GSI2PK" | "GSI2SK" | "GSI3PK" | "GSI3SK" | "GSI4PK" | "GSI4SK" => Kind::Item,
        _ => match attr.strip_prefix("b_").and_then(split_part) {
            Some((
                name,
                part @ ("tk" | "cp" | "ra" | "rp" | "tc" | "sched" | "rsched" | "soft" | "rsa" | "gc" | "tu"
                | "rn" | "ws" | "wa" | "wtc"),
            )) => Kind::Limit(name, part),
            _ => Kind::Foreign,
        },
    }
}

impl Bucket {
    /// Reads a bucket item.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] if an attribute contradicts the format. A feature that is not understood is
    /// not an error here; see [`Bucket::unsupported`].
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("bucket", item);
        let refilled_at = EpochMillis(
            reader
                .int64("rf")?
                .ok_or_else(|| reader.corrupt("rf", "is missing"))?,
        );
        let shard_count = reader.int_within("shard_count", 1, MAX_SHARDS_READ)?.unwrap_or(1) as u32;
        let parent = match reader.text_opt("parent_id")? {
            Some(parent) => {
                Some(EntityId::new(parent).map_err(|err| reader.corrupt("parent_id", err.to_string()))?)
            }
            None => None,
        };
        let shared = ItemSchedules::read(&reader)?;
        let mut bucket = Self {
            refilled_at,
            shard_count,
            owner: Owner {
                cascade: reader.bool_opt("cascade")?.unwrap_or(false),
                parent,
                generation: reader.int64("pgen")?,
                incarnation: reader.text_opt("pinc")?.map(SmolStr::new),
            },
            ttl: reader.int64("ttl")?,
            valid_until: reader.int64("vu")?,
            disabled: reader.bool_opt("disabled")?.unwrap_or(false),
            bypass: reader.get("bypass").map(|_| {
                reader
                    .int64("bypass")
                    .ok()
                    .flatten()
                    .map_or(NO_DEADLINE, EpochMillis)
            }),
            limits: Vec::new(),
            wcu: None,
            receipt: item.get(RECEIPT).cloned(),
            fence: item.get(FENCE).cloned(),
            fractions: item.get(CARRY).and_then(Value::as_text).map(SmolStr::new),
            schedules: shared.stored(),
            announced: Vec::new(),
            unsupported: None,
        };
        let mut parts = Vec::with_capacity(item.len());
        for (attr, value) in item {
            match classify(attr) {
                Kind::Limit(name, part) => parts.push((name, part, value)),
                Kind::Item => {}
                Kind::Foreign => {
                    bucket.unsupported.get_or_insert_with(|| attr.into());
                }
            }
        }
        for (at, (name, part, value)) in parts.iter().enumerate() {
            match *part {
                "tk" => bucket.add_limit(&reader, name, parts_near(&parts, at), &shared)?,
                // The limit's balance would have come before.
                "ws" if bucket.limit(name).is_none() => {
                    let start = value.as_int().and_then(|start| i64::try_from(start).ok());
                    bucket
                        .announced
                        .extend(start.map(|start| (SmolStr::new(name), EpochMillis(start))));
                }
                _ => {}
            }
        }
        Ok(bucket)
    }

    fn add_limit(
        &mut self,
        reader: &Reader<'_>,
        name: &str,
        parts: &[Part<'_>],
        shared: &ItemSchedules<'_>,
    ) -> Result<(), RecordError> {
        // By numbers, so that each part is looked at once, and no attribute's name is made.
        let number = |part: &str| match part {
            "cp" => 0,
            "ra" => 1,
            "rp" => 2,
            "tc" => 3,
            "tk" => 4,
            "sched" => 5,
            "rsched" => 6,
            "rsa" => 7,
            "soft" => 8,
            _ => 9,
        };
        let mut values: [Option<&Value>; 10] = [None; 10];
        for (_, part, value) in parts.iter().filter(|(of, ..)| *of == name) {
            values[number(part)] = Some(*value);
        }
        let get = |part: &str| values[number(part)];
        if get("cp").is_none() {
            // A balance without parameters is debris of an old client, not a limit.
            return Ok(());
        }
        let max_tokens = Millitokens::from_amount(MAX_TOKENS).0;
        let part = |part: &str, min: i128, max: i128| match get(part).and_then(Value::as_int) {
            Some(n) if (min..=max).contains(&n) => Ok(n),
            // Read again, to say what is wrong.
            _ => {
                let attr = limit_attr(name, part);
                reader
                    .int_within(&attr, min, max)?
                    .ok_or_else(|| reader.corrupt(&attr, "is missing"))
            }
        };
        let params = Params {
            capacity: part("cp", 0, max_tokens)?,
            refill: part("ra", 0, max_tokens)?,
            period_ms: part("rp", 1, i128::from(MAX_PERIOD_SECS) * 1000)?,
        };
        let held = Held {
            params,
            balance: Millitokens(part("tk", i128::MIN, i128::MAX)?),
            consumed: match get("tc") {
                Some(_) => Some(Millitokens(part("tc", i128::MIN, i128::MAX)?)),
                None => None,
            },
            refilled_at: self.refilled_at,
            shard_count: self.shard_count,
        };
        let mark = |part: &str| get(part).and_then(Value::as_text).map(SmolStr::new);
        let has_none = |part: &str| {
            let own = get(part);
            own.is_none_or(|own| own.as_text() == Some(NO_SCHEDULE))
        };
        let is_plain = shared.is_empty()
            && params.refill > 0
            && has_none("sched")
            && has_none("rsched")
            && get("rsa").is_none();
        let shape = if name == WCU || is_plain {
            None
        } else {
            match shared.shape(reader, name, &held)? {
                Ok(shape) => shape.map(Arc::new),
                Err(attr) => {
                    self.unsupported.get_or_insert(attr);
                    None
                }
            }
        };
        let mut limit = BucketLimit {
            name: name.into(),
            balance: held.balance,
            params,
            carry: 0,
            consumed: held.consumed,
            marks: [mark("sched"), mark("rsched")],
            is_soft: get("soft").is_some(),
            shape,
        };
        if let Some(carries) = &self.fractions {
            // It counts in parts of the period that was in force.
            let period_ms = self.terms(&limit).whole(self.refilled_at).period_ms;
            limit.carry = read_carry(carries, self.refilled_at, name, period_ms);
        }
        if name == WCU {
            self.wcu = Some(limit);
        } else {
            self.limits.push(limit);
        }
        Ok(())
    }

    /// The application limit of this name, if the item has it.
    pub fn limit(&self, name: &str) -> Option<&BucketLimit> {
        self.limits.iter().find(|limit| limit.name == name)
    }

    /// A limit's balance at the bucket's refill instant, ready to be projected to `now`.
    ///
    /// If the refill instant lies [too far ahead](Self::is_ahead), the balance stands for `now`.
    pub fn balance(&self, limit: &BucketLimit, now: EpochMillis) -> Balance {
        Balance {
            tokens: limit.balance,
            carry: if self.is_ahead(now) { 0 } else { limit.carry },
            at: self.earned_until(now),
        }
    }

    /// Until when the bucket has earned: its refill instant, or `now` if that lies [too far ahead](Self::is_ahead).
    pub fn earned_until(&self, now: EpochMillis) -> EpochMillis {
        if self.is_ahead(now) { now } else { self.refilled_at }
    }

    /// Whether the refill instant lies so far after `now` that only a wrong clock can have written it. Such a bucket
    /// would earn nothing until then, so the next write dates it back to `now`.
    pub fn is_ahead(&self, now: EpochMillis) -> bool {
        self.refilled_at.since(now) > MAX_AHEAD_MS
    }

    /// The terms of a limit on this shard.
    pub fn terms<'a>(&self, limit: &'a BucketLimit) -> Terms<'a> {
        self.terms_among(limit, self.shard_count)
    }

    /// The terms of a limit on this shard, as one of so many.
    pub fn terms_among<'a>(&self, limit: &'a BucketLimit, shards: u32) -> Terms<'a> {
        if limit.name == WCU {
            return Terms::new(limit.params, None, 1);
        }
        let Some(shape) = &limit.shape else {
            return Terms::new(limit.params, None, shards);
        };
        Terms::new(limit.params, shape.schedule.as_deref(), shards).with_regain(shape.regain())
    }

    /// A limit's balance at `now`: see [`Terms::refilled`].
    pub fn refilled(&self, limit: &BucketLimit, now: EpochMillis) -> Balance {
        self.terms(limit).refilled(self.balance(limit, now), now)
    }

    /// How long after `now` a limit covers `need`: see [`Terms::wait`].
    pub fn wait(&self, limit: &BucketLimit, need: Millitokens, now: EpochMillis) -> Wait {
        self.terms(limit).wait(self.balance(limit, now), need, now)
    }

    /// The most that the shard may hold of a limit at `now`.
    pub fn ceiling(&self, limit: &BucketLimit, now: EpochMillis) -> i128 {
        self.terms(limit).ceiling(now)
    }

    /// Whether a stamp admits every request at `now`.
    pub fn is_bypassed(&self, now: EpochMillis) -> bool {
        self.bypass.is_some_and(|until| until > now)
    }

    /// Whether it has a quota or a session limit, whose parts cannot be divided as a rate can.
    pub fn has_quota(&self) -> bool {
        self.limits.iter().any(BucketLimit::is_quota)
    }

    /// When a session of a limit that the item lacks began, if another shard has told it.
    pub(crate) fn announced(&self, limit: &str) -> Option<EpochMillis> {
        let mut announced = self.announced.iter();
        announced.find(|(name, _)| name == limit).map(|(_, start)| *start)
    }

    /// The mark that distinguishes this item from earlier and later ones of the same key; `None` if another client
    /// created it.
    pub fn birth(&self) -> Option<&str> {
        let (birth, _) = self.fence.as_ref()?.as_text()?.split_once('.')?;
        (!birth.is_empty()).then_some(birth)
    }

    /// How many shards the bucket had when this one was created, according to its birth mark.
    pub(crate) fn count_at_birth(&self) -> Option<u32> {
        let count = self.birth()?.split('-').nth(1)?;
        count
            .parse()
            .ok()
            .filter(|count| (1..=MAX_SHARDS).contains(count))
    }

    /// The life of the bucket that this item, its shard `shard`, belongs to: the random part of the birth mark of the
    /// first shard. A bucket lives from the creation of its first shard until that is deleted or expires. `None` if another
    /// client created the item, or the first shard of its time.
    pub(crate) fn life(&self, shard: u32) -> Option<&str> {
        let mut parts = self.birth()?.split('-');
        let own = parts.next().filter(|_| shard == 0);
        parts.nth(1).or(own)
    }

    /// Whether this image shows the item that an earlier image showed, and not one that was created under the same
    /// key after that was deleted or had expired.
    pub fn life_since(&self, earlier: &Self) -> Life {
        match (earlier.birth(), self.birth()) {
            (Some(then), Some(now)) if then == now => return Life::Same,
            (_, Some(_)) => return Life::Other,
            // No client ever removes the mark.
            (_, None) if earlier.fence.is_some() && self.fence.is_none() => return Life::Other,
            (_, None) => {}
        }
        match (&earlier.owner.incarnation, &self.owner.incarnation) {
            (then, now) if then == now => Life::Same,
            (None, Some(_)) => Life::Stamped,
            _ => Life::Other,
        }
    }

    /// Whether two images show the same item, whichever is the earlier one.
    pub fn is_one_item_with(&self, other: &Self) -> bool {
        self.life_since(other) == Life::Same && other.life_since(self) == Life::Same
    }

    /// Whether the item has expired at `now`, swept or not.
    pub fn is_expired(&self, now: EpochMillis) -> bool {
        self.ttl.is_some_and(|ttl| ttl <= now.secs())
    }

    /// Until which epoch second the item must exist, so that a new one in its place would hold no more than it does:
    /// each limit is kept for the time it takes to fill, times `multiplier`, and until it would be full again if it
    /// were emptied now.
    pub fn needed_until(&self, multiplier: u32, now: EpochMillis) -> i64 {
        let needed = |limit: &BucketLimit| {
            if limit.is_quota() {
                return self.secs_until_whole(limit, now);
            }
            let (debt_secs, fill_secs) = self.secs_to_fill(limit, now);
            let kept = fill_secs.saturating_mul(multiplier.into());
            kept.max(least_life_secs(&self.terms(limit)))
                .saturating_add(debt_secs)
        };
        let secs = self.limits.iter().map(needed).max().unwrap_or(0);
        now.secs().saturating_add(secs)
    }

    /// Whether the item expires before it has paid its debts and is full again.
    pub fn expires_in_debt(&self, now: EpochMillis) -> bool {
        let Some(ttl) = self.ttl else { return false };
        self.limits.iter().any(|limit| {
            // An expiry is in whole seconds, and this one has begun.
            let in_secs = now.secs().saturating_add(1);
            if limit.is_quota() {
                return ttl < in_secs.saturating_add(self.secs_until_whole(limit, now));
            }
            let (debt_secs, fill_secs) = self.secs_to_fill(limit, now);
            let paid = in_secs.saturating_add(debt_secs);
            debt_secs > 0 && ttl < paid.saturating_add(fill_secs)
        })
    }

    /// Seconds until a quota or a session limit is whole again, rounded up.
    fn secs_until_whole(&self, limit: &BucketLimit, now: EpochMillis) -> i64 {
        let until = self.terms(limit).resets_at(now).unwrap_or(now);
        until.since(now).saturating_add(999) / 1000
    }

    /// Seconds until a limit has paid its debt at `now`, rounded up, and from then on until it is full at its slowest, rounded
    /// down.
    fn secs_to_fill(&self, limit: &BucketLimit, now: EpochMillis) -> (i64, i64) {
        let debt_ms = match self.wait(limit, Millitokens::ZERO, now) {
            Wait::Millis(millis) => millis,
            Wait::Never => i64::MAX - 1000,
        };
        // In the second after the one in which it is paid.
        let debt_secs = debt_ms / 1000 + i64::from(debt_ms > 0);
        (debt_secs, self.terms(limit).fill_secs())
    }

    /// Whether the shard has no write units left, even refilled to `now`.
    pub(crate) fn is_out_of_writes(&self, now: EpochMillis) -> bool {
        let left = |wcu: &BucketLimit| self.refilled(wcu, now).tokens.0;
        self.wcu.as_ref().is_some_and(|wcu| left(wcu) < WCU_COST)
    }

    /// Whether balances may be spent at `now` without a refilling write.
    pub fn is_valid(&self, now: EpochMillis) -> bool {
        self.valid_until.is_none_or(|until| until > now.0)
    }
}

impl BucketLimit {
    /// Whether the stored parameters and the stored shape are this limit's.
    pub fn matches(&self, limit: &Limit) -> bool {
        self.params == limit.params() && is_shape_of(self.shape.as_deref(), limit)
    }

    /// Whether it is a quota or a session limit.
    pub fn is_quota(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.is_quota())
    }

    /// Whether it is refilled at one rate.
    pub fn is_plain(&self) -> bool {
        self.shape.is_none()
    }

    /// How often an operator has reset it, as counted on the item for quotas and session limits.
    pub(crate) fn resets(&self) -> i64 {
        self.shape.as_ref().map_or(0, |shape| shape.resets())
    }
}

/// How many seconds an item must exist at least after a write, so that a new one in its place would hold no more: the
/// time in which the limit fills, half of that again, since a plain debit may come a horizon after the write, and what
/// rounding loses.
pub(crate) fn least_life_secs(terms: &Terms<'_>) -> i64 {
    let fill_secs = terms.fill_secs();
    fill_secs.saturating_add(fill_secs / 2).saturating_add(2)
}

/// Writes the fractions that limits carry on: `"{rf} {limit}:{numerator}/{denominator} ..."`, or nothing.
///
/// They hold only together with the refill instant they were written with: a client that does not know
/// the attribute moves `rf` and so discards them.
pub(crate) fn write_carries<'a>(
    at: EpochMillis,
    carries: impl Iterator<Item = (&'a str, i128, i128)>,
) -> Option<String> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (name, carry, period_ms) in carries.filter(|(_, carry, _)| *carry != 0) {
        if text.is_empty() {
            let _ = write!(text, "{}", at.0);
        }
        let _ = write!(text, " {name}:{carry}/{period_ms}");
    }
    (!text.is_empty()).then_some(text)
}

/// Reads one limit's fraction. Anything unexpected reads as none: it is worth less than a millitoken.
fn read_carry(text: &str, at: EpochMillis, name: &str, period_ms: i128) -> i128 {
    let mut parts = text.split(' ');
    if parts.next().and_then(|rf| rf.parse().ok()) != Some(at.0) {
        return 0;
    }
    let carry = || {
        let (_, fraction) = parts
            .filter_map(|part| part.split_once(':'))
            .find(|(n, _)| *n == name)?;
        let (carry, period) = fraction.split_once('/')?;
        let (carry, period): (i128, i128) = (carry.parse().ok()?, period.parse().ok()?);
        (period == period_ms && (0..period).contains(&carry)).then_some(carry)
    };
    carry().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(attrs: &[(&str, Value)]) -> Item {
        let mut item = Item::from([
            ("PK".into(), Value::text("dSkXlbmmfyU/BUCKET#u#r#0")),
            ("SK".into(), Value::text("#STATE")),
            ("rf".into(), Value::int(1000)),
            ("b_rpm_tk".into(), Value::int(5000)),
            ("b_rpm_cp".into(), Value::int(10_000)),
            ("b_rpm_ra".into(), Value::int(10_000)),
            ("b_rpm_rp".into(), Value::int(60_000)),
        ]);
        for (name, value) in attrs {
            item.insert((*name).into(), value.clone());
        }
        item
    }

    #[test]
    fn a_balance_without_parameters_is_no_limit() {
        let bucket = Bucket::decode(&item(&[
            ("b_tpm_tk", Value::int(-5)),
            ("b_tpm_tc", Value::int(5)),
        ]))
        .unwrap();
        assert_eq!(bucket.limits.len(), 1);
        assert!(bucket.unsupported.is_none());
    }

    #[test]
    fn a_dash_means_no_schedule_and_a_text_means_one() {
        let plain = Bucket::decode(&item(&[("b_rpm_sched", Value::text("-"))])).unwrap();
        assert_eq!(plain.unsupported, None);
        assert!(plain.limits[0].is_plain());
        let scheduled = Bucket::decode(&item(&[("b_rpm_sched", Value::text("1h0-6s500"))])).unwrap();
        assert_eq!(scheduled.unsupported, None);
        assert!(!scheduled.limits[0].is_plain());
        let unknown = Bucket::decode(&item(&[("b_rpm_sched", Value::text("2h0-6s500"))])).unwrap();
        assert_eq!(unknown.unsupported.as_deref(), Some("b_rpm_sched"));
    }

    #[test]
    fn features_of_newer_clients_are_named() {
        for (attr, value) in [
            ("sched", Value::text("2h0s500")),
            ("b_rpm_rsched", Value::text("1m0h0")),
            ("b_rpm_rsa", Value::int(1)),
            ("from_the_future", Value::int(1)),
        ] {
            let bucket = Bucket::decode(&item(&[(attr, value)])).unwrap();
            assert_eq!(bucket.unsupported.as_deref(), Some(attr));
        }
        let quota = Bucket::decode(&item(&[("b_rpm_ra", Value::int(0))])).unwrap();
        assert!(quota.limits[0].is_quota(), "without times of reset");
    }

    #[test]
    fn corrupt_rows_are_errors_that_name_the_attribute() {
        for (attr, value) in [
            ("rf", Value::text("soon")),
            ("b_rpm_rp", Value::int(0)),
            ("b_rpm_cp", Value::int(-1)),
            ("b_rpm_tk", Value::N("1.5".into())),
            ("b_rpm_tk", Value::N("1E+100".into())),
            ("shard_count", Value::int(0)),
            ("vu", Value::Bool(true)),
            ("sched", Value::int(1)),
            ("b_rpm_rsched", Value::Bool(true)),
            ("parent_id", Value::text("a#b")),
        ] {
            let err = Bucket::decode(&item(&[(attr, value)])).unwrap_err();
            assert!(err.to_string().contains(&format!("'{attr}'")), "{err}");
        }
    }

    #[test]
    fn carried_fractions_hold_only_with_their_instant_and_period() {
        let text = write_carries(EpochMillis(1000), [("rpm", 7, 60_000), ("tpm", 0, 1)].into_iter()).unwrap();
        assert_eq!(text, "1000 rpm:7/60000");
        assert_eq!(read_carry(&text, EpochMillis(1000), "rpm", 60_000), 7);
        assert_eq!(read_carry(&text, EpochMillis(1001), "rpm", 60_000), 0);
        assert_eq!(read_carry(&text, EpochMillis(1000), "rpm", 1000), 0);
        assert_eq!(read_carry("1000 rpm:9/8", EpochMillis(1000), "rpm", 8), 0);
        assert_eq!(read_carry("garbage", EpochMillis(1000), "rpm", 8), 0);
        assert_eq!(write_carries(EpochMillis(1), [("rpm", 0, 1)].into_iter()), None);
    }
}
