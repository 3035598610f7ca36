//! The conditional writes of the acquire path, each built here and nowhere else. [`sync`] has those that apply changed
//! limits to live buckets.
//!
//! | write | guards | failing means |
//! |---|---|---|
//! | [`debit`] | each balance covers its amount; the item is alive, enabled, has the parameters that were assumed and was refilled lately | look at the image |
//! | [`refill_debit`] | everything the decision was made from is as it was, balances have not risen | look at the new image |
//! | [`create`] | the shard does not exist, the entity is as read | another client created it, or the entity moved |
//! | [`double`] | the shard count is as read | another client doubled |
//! | [`credit`] | the item exists and stays within its ceiling | see [`crate::credit`] |
//! | [`operate`](operation::operate) | the shard was neither refilled nor split, and its limits are as read | read again |
//!
//! Balances move by `ADD` alone, so writers compose; the refill instant `rf` serialises refills.

pub mod access;
pub(crate) mod operation;
pub mod removal;
pub(crate) mod seeds;
pub(crate) mod shapes;
pub mod sync;

use smol_str::SmolStr;

use self::seeds::Seed;
use crate::bucket::{
    Bucket, BucketLimit, CARRY, FENCE, MAX_AHEAD_MS, Owner, RECEIPT, WCU_COST, WCU_PARAMS, first_fence,
    least_life_secs, limit_attr, write_carries,
};
use crate::config::{Level, Resolved};
use crate::limit::{Limit, MAX_CONDITION, Params, refill_bytes};
use crate::name::{LimitName, WCU};
use crate::refill::Balance;
use crate::schema::BucketId;
use crate::table::{Attr, Condition, Item, Key, Part, Put, Update, Value};
use crate::terms::{Terms, Turn};
use crate::units::{EpochMillis, Millitokens};

/// Amounts by limit.
pub(crate) type Amounts = Vec<(LimitName, Millitokens)>;

fn attr(name: &'static str) -> Attr {
    SmolStr::new_static(name)
}

fn wcu(part: &'static str) -> Attr {
    attr(match part {
        "tk" => "b_wcu_tk",
        "tc" => "b_wcu_tc",
        "cp" => "b_wcu_cp",
        "ra" => "b_wcu_ra",
        _ => "b_wcu_rp",
    })
}

/// Moves a limit's balance by `-cost` and its consumption counter by `+cost`.
fn spend(update: &mut Update, limit: &str, cost: Millitokens) {
    if cost != Millitokens::ZERO {
        update.add.push((limit_attr(limit, "tk"), -cost.0));
        update.add.push((limit_attr(limit, "tc"), cost.0));
    }
}

/// The assumptions of a plain debit about the item.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    /// What holds for each limit that is debited, in the order of the amounts.
    pub(crate) limits: Vec<Assumed>,
    /// How old its last refill may be, in milliseconds; `None` if nothing is spent. It follows from the parameters.
    pub(crate) horizon_ms: Option<i64>,
}

/// The assumptions about a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assumed {
    /// Its parameters, if they are known: what is stored must be the same.
    pub(crate) params: Option<Params>,
    /// Whether it never refuses, so that its balance need not cover the amount.
    pub(crate) is_soft: bool,
}

/// Takes the amounts from the balances as they are: one write, no read.
///
/// Without a basis, an item is spent that has features which are not understood: it only has to be valid.
pub(crate) fn debit(key: Key, amounts: &Amounts, basis: Option<&Basis>, now: EpochMillis) -> Update {
    let mut update = Update::new(key);
    update.add.reserve(2 + 2 * amounts.len());
    let mut parts = Vec::with_capacity(5 + 4 * amounts.len());
    for (at, (limit, amount)) in amounts.iter().enumerate() {
        spend(&mut update, limit.as_str(), *amount);
        let assumed = basis.and_then(|basis| basis.limits.get(at));
        let balance = limit_attr(limit.as_str(), "tk");
        parts.push(if assumed.is_some_and(|assumed| assumed.is_soft) {
            Condition::Exists(balance)
        } else {
            Condition::AtLeast(balance, amount.0)
        });
        match assumed.and_then(|assumed| assumed.params) {
            Some(params) => parts.extend(has_params(limit.as_str(), params)),
            // A balance without capacity is debris of an old client.
            None => parts.push(Condition::Exists(limit_attr(limit.as_str(), "cp"))),
        }
    }
    update.add.push((wcu("tk"), -WCU_COST));
    update.add.push((wcu("tc"), WCU_COST));
    parts.push(Condition::AtLeast(wcu("tk"), WCU_COST));
    if let Some(horizon) = basis.and_then(|basis| basis.horizon_ms) {
        parts.push(Condition::AtLeast(
            attr("rf"),
            i128::from(now.0) - i128::from(horizon),
        ));
    }
    parts.push(Condition::Any(vec![
        Condition::Absent(attr("ttl")),
        Condition::AtLeast(attr("ttl"), i128::from(now.secs()) + 1),
    ]));
    parts.push(Condition::Absent(attr("disabled")));
    parts.push(Condition::Any(vec![
        Condition::Absent(attr("vu")),
        Condition::AtLeast(attr("vu"), i128::from(now.0) + 1),
    ]));
    update.condition = Condition::All(parts);
    update
}

fn has_params(limit: &str, params: Params) -> [Condition; 3] {
    let is = |part, n| Condition::Is(limit_attr(limit, part), Value::int(n));
    [
        is("cp", params.capacity),
        is("ra", params.refill),
        is("rp", params.period_ms),
    ]
}

fn set_params(update: &mut Update, limit: &str, params: Params) {
    update
        .set
        .push((limit_attr(limit, "cp"), Value::int(params.capacity)));
    update
        .set
        .push((limit_attr(limit, "ra"), Value::int(params.refill)));
    update
        .set
        .push((limit_attr(limit, "rp"), Value::int(params.period_ms)));
}

/// A limit as a refilling write will leave it, before anything is taken.
pub(crate) struct Refilled<'a> {
    pub(crate) limit: &'a BucketLimit,
    /// Parameters from now on.
    pub(crate) params: Params,
    /// The balance at the new refill instant.
    pub(crate) balance: Balance,
    /// The time in which it earns fractions from now on, in milliseconds.
    pub(crate) period_ms: i128,
    /// What becomes of it beside what it earns.
    pub(crate) turn: Turn,
}

impl<'a> Refilled<'a> {
    /// The terms and the balance that a request is judged by at `now`: those of the item, or the parameters from now on.
    pub(crate) fn standing(&self, image: &Bucket, now: EpochMillis) -> (Terms<'a>, Balance) {
        if self.params == self.limit.params {
            (image.terms(self.limit), image.balance(self.limit, now))
        } else {
            (Terms::new(self.params, None, image.shard_count), self.balance)
        }
    }
}

/// Refills every limit of an image to `now`, under the parameters that `exact` demands, if it does.
pub(crate) fn refill_all<'a>(
    image: &'a Bucket,
    exact: Option<&[Limit]>,
    now: EpochMillis,
) -> Vec<Refilled<'a>> {
    let refill = |limit| refill(image, limit, exact, now);
    image.limits.iter().map(refill).collect()
}

/// Refills one limit of an image, as [`refill_all`] does.
pub(crate) fn refill<'a>(
    image: &'a Bucket,
    limit: &'a BucketLimit,
    exact: Option<&[Limit]>,
    now: EpochMillis,
) -> Refilled<'a> {
    let terms = image.terms(limit);
    let before = image.balance(limit, now);
    // Time until now was earned under the old parameters; only the new ceiling applies at once.
    // A session that was over when the shard was refilled last is over for a clock that is behind, too.
    let turn = terms.turn(before.at, now.max(before.at));
    let mut balance = terms.turned(turn, before, now);
    let wanted = exact
        .unwrap_or_default()
        .iter()
        .find(|wanted| wanted.name().as_str() == limit.name);
    let params = wanted.map_or(limit.params, Limit::params);
    if params != limit.params {
        let ceiling = params.share(image.shard_count).capacity;
        balance = Balance {
            tokens: balance.tokens.min(Millitokens(ceiling)),
            carry: 0,
            ..balance
        };
    }
    let period_ms = if params == limit.params {
        terms.whole(balance.at).period_ms
    } else {
        params.period_ms
    };
    Refilled {
        limit,
        params,
        balance,
        period_ms,
        turn,
    }
}

/// The parts of a refilling write beside the refill.
pub(crate) struct RefillDebit<'a> {
    /// The amounts to take.
    pub(crate) amounts: &'a Amounts,
    /// Limits that the item lacks and that it gains: then the write is one as of [`seeds::instant`].
    pub(crate) seeds: &'a [Seed<'a>],
    /// A new expiry: `None` for an item that never expires.
    pub(crate) ttl: Ttl,
    /// Whether it is a use of the bucket, which begins sessions.
    pub(crate) is_use: bool,
    /// The configuration that it goes by, if it goes by one: which limits never refuse.
    pub(crate) config: Option<&'a Resolved>,
}

impl RefillDebit<'_> {
    fn is_soft(&self, limit: &str) -> bool {
        self.config.is_some_and(|config| config.is_soft(limit))
    }

    fn leaves(&self, limit: &BucketLimit) -> bool {
        // A write for several requests goes by the configuration of one, and another may know a limit that this one does not.
        let is_taken = || self.amounts.iter().any(|(name, _)| name.as_str() == limit.name);
        is_left(limit, self.config) && !is_taken()
    }
}

/// Whether a refill leaves a limit as it is, until it would be whole again: a quota that is not configured any more. It gains nothing
/// by time, and its conditions would take the room of others.
pub(crate) fn is_left(limit: &BucketLimit, config: Option<&Resolved>) -> bool {
    // The limits of a call are not all that are configured, and nor are those of a level that cannot be read.
    let config = config.filter(|config| config.level != Level::Override && config.unsupported.is_none());
    limit.is_quota()
        && config.is_some_and(|config| {
            config
                .limits
                .iter()
                .all(|known| known.name().as_str() != limit.name)
        })
}

/// So many limits that are not configured any more are removed by one refilling write, so that it is short enough. That is more
/// than the levels have together.
const MAX_REMOVED: usize = 40;

/// The change of an item's expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// Leave it.
    Keep,
    /// Never expire.
    Remove,
    /// Expire at this epoch second.
    At(i64),
}

impl Ttl {
    /// Writes the change of an item that has been seen like this.
    fn write(self, update: &mut Update, image: &Bucket) {
        match self {
            Self::At(secs) => update.set.push((attr("ttl"), Value::int(secs))),
            Self::Remove if image.ttl.is_some() => update.remove.push(attr("ttl")),
            Self::Remove | Self::Keep => {}
        }
    }

    /// The expiry of a bucket under these limits. A multiplier of 0 switches expiry off.
    ///
    /// `image` is the item as it is before the write, if there is one. Its expiry never moves backwards, and what it
    /// holds besides the configured limits (the limits of a single call, debts) lives until it is full again: an
    /// item that expires earlier would be created anew with tokens that were spent.
    pub(crate) fn of(config: &Resolved, image: Option<&Bucket>, multiplier: u32, now: EpochMillis) -> Self {
        match config.bucket_ttl_secs(multiplier) {
            None => Self::Remove,
            Some(_) if multiplier == 0 => Self::Keep,
            Some(secs) => {
                let life = |limit: &Limit| least_life_secs(&Terms::of(limit, 1));
                let secs = config.limits.iter().map(life).fold(secs, i64::max);
                let configured = now.secs().saturating_add(secs);
                let held = image.map_or(configured, |image| image.needed_until(multiplier, now));
                let stored = image.and_then(|image| image.ttl).unwrap_or(configured);
                Self::At(configured.max(held).max(stored))
            }
        }
    }
}

/// Refills the item from an image and takes the amounts, in one write that holds only if the image still
/// tells the truth: every attribute that bears on the decision is pinned to the value seen, absent ones to
/// absent; balances may only have fallen.
///
/// The image must be plain: see [`Bucket::unsupported`].
pub(crate) fn refill_debit(
    key: Key,
    image: &Bucket,
    refilled: &[Refilled<'_>],
    change: &RefillDebit<'_>,
    now: EpochMillis,
) -> Update {
    let mut update = Update::new(key);
    // No session that has begun lies ahead of it, unless a wrong clock has begun it.
    let starts = refilled
        .iter()
        .filter_map(|r| image.terms(r.limit).session_start())
        .chain(change.seeds.iter().filter_map(|seed| seed.joins))
        .filter(|start| start.since(now) <= MAX_AHEAD_MS);
    let at = starts.fold(image.earned_until(now).max(now), EpochMillis::max);
    update.set.push((attr("rf"), Value::int(at.0)));
    let carries = refilled
        .iter()
        .map(|r| (r.limit.name.as_str(), r.balance.carry, r.period_ms));
    match write_carries(at, carries) {
        Some(text) => update.set.push((attr(CARRY), Value::S(text))),
        None => update.remove.push(attr(CARRY)),
    }
    let mut parts = pins(image, |limit| change.leaves(limit));
    let (mut valid_until, mut removed) = (None, 0);
    let mut cuts = Vec::new();
    for Refilled {
        limit,
        params,
        balance,
        turn,
        ..
    } in refilled
    {
        if change.leaves(limit) {
            let is_over = matches!(turn, Turn::Reset | Turn::Opens);
            let until = if is_over && removed < MAX_REMOVED {
                removed += 1;
                shapes::remove(&mut update, limit);
                None
            } else {
                if balance.tokens < limit.balance {
                    cuts.push((*limit, balance.tokens - limit.balance));
                }
                image.terms(limit).valid_until(at)
            };
            valid_until = earlier(valid_until, until);
            continue;
        }
        if *turn == Turn::Opens && !change.is_use {
            // Only a use begins a session. Until then the balance of the last one may not be spent.
            valid_until = Some(EpochMillis(0));
            continue;
        }
        let until = shapes::apply_turn(&mut update, image, limit, *turn, at);
        valid_until = earlier(valid_until, until);
        let name = limit.name.as_str();
        let need = change
            .amounts
            .iter()
            .find(|(named, _)| named.as_str() == name)
            .map(|(_, need)| *need);
        let gained = balance.tokens - limit.balance;
        let (tk, cost) = (limit_attr(name, "tk"), need.unwrap_or_default());
        if gained - cost != Millitokens::ZERO {
            update.add.push((tk.clone(), (gained - cost).0));
        }
        if cost != Millitokens::ZERO {
            update.add.push((limit_attr(name, "tc"), cost.0));
        }
        if gained.0 < 0 || *turn != Turn::None {
            // A surplus is cut, or a quota is whole again: exact only on the very balance seen. What was taken since would otherwise
            // be missing in the new period.
            parts.push(Condition::Is(tk.clone(), Value::int(limit.balance.0)));
        } else {
            // A refund that came in between must not be stacked on a refill that was capped without it; nor
            // may a forced pass be lifted by who has not seen the surplus that it is for.
            parts.push(Condition::AtMost(tk.clone(), limit.balance.0));
        }
        if need.is_some() && !change.is_soft(name) {
            parts.push(Condition::AtLeast(tk, (cost - gained).0));
        }
        shapes::mark_soft(&mut update, limit, change.config, at);
        if *params != limit.params {
            set_params(&mut update, name, *params);
        }
    }
    refill_wcu(&mut update, image, now);
    for seed in change.seeds {
        parts.extend(seed.write(&mut update, image, change.amounts, at));
        valid_until = earlier(valid_until, seed.valid_until(at));
    }
    if let Some(zone) = change.seeds.iter().find_map(|seed| seed.limit.zone())
        && image.schedules[2].is_none()
    {
        update.set.push((attr("sched_tz"), Value::text(zone.name())));
    }
    if !cut(&mut update, &mut parts, &cuts) {
        valid_until = Some(EpochMillis(0));
    }
    change.ttl.write(&mut update, image);
    match valid_until {
        Some(until) if image.valid_until != Some(until.0) => {
            update.set.push((attr("vu"), Value::int(until.0)));
        }
        None if image.valid_until.is_some() => update.remove.push(attr("vu")),
        Some(_) | None => {}
    }
    update.condition = Condition::All(parts);
    update
}

/// Cuts quotas that are not configured any more, which their schedules have lowered: a client that still knows one would spend the
/// rest. Returns whether the conditions leave room for all of them.
fn cut(update: &mut Update, parts: &mut Vec<Condition>, cuts: &[(&BucketLimit, Millitokens)]) -> bool {
    for (limit, by) in cuts {
        let tk = limit_attr(&limit.name, "tk");
        parts.push(Condition::Is(tk.clone(), Value::int(limit.balance.0)));
        if !fits_all(parts) {
            parts.pop();
            return false;
        }
        update.add.push((tk, by.0));
    }
    true
}

/// The earlier of two instants, of which either may not exist.
fn earlier(one: Option<EpochMillis>, other: Option<EpochMillis>) -> Option<EpochMillis> {
    one.into_iter().chain(other).min()
}

/// Whether the condition of [`refill_debit`] is short enough for an item that holds these limits, so many of which it takes
/// from, and that gains so many.
pub(crate) fn refill_fits(
    held: &[BucketLimit],
    config: Option<&Resolved>,
    taken: usize,
    seeds: usize,
) -> bool {
    let held = held.iter().filter(|limit| !is_left(limit, config));
    let (held, quotas) = held.fold((0, 0), |(held, quotas), limit| {
        (held + 1, quotas + usize::from(limit.is_quota()))
    });
    refill_bytes(held, quotas, taken, seeds) <= MAX_CONDITION
}

/// Whether a condition is short enough. Counted as [`refill_bytes`] counts, for the longest form of each part.
pub(crate) fn fits(condition: &Condition) -> bool {
    bytes(condition) <= MAX_CONDITION
}

/// Whether a condition of all these parts is short enough.
fn fits_all(parts: &[Condition]) -> bool {
    joined_bytes(parts) <= MAX_CONDITION
}

fn bytes(condition: &Condition) -> usize {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => joined_bytes(parts),
        Condition::Exists(_) | Condition::Absent(_) => "attribute_not_exists(#123)".len(),
        Condition::Is(..) | Condition::AtLeast(..) | Condition::AtMost(..) => "#123 >= :123".len(),
        Condition::IsNot(..) => "(attribute_not_exists(#123) OR #123 <> :123)".len(),
    }
}

/// Joined by " AND ".
fn joined_bytes(parts: &[Condition]) -> usize {
    2 + parts.iter().map(|part| bytes(part) + 5).sum::<usize>()
}

/// Lets a credit find so much more of a limit than its ceiling leaves room for: a debit in the same write takes it.
pub(crate) fn lift_ceiling(credit: &mut Update, limit: &str, by: i128) {
    let balance = limit_attr(limit, "tk");
    if let Condition::All(parts) = &mut credit.condition {
        for part in parts {
            match part {
                Condition::AtMost(attr, most) if *attr == balance => *most += by,
                _ => {}
            }
        }
    }
}

/// A debit and a correction of the same item in one write, under the conditions of both. Both move balances by `ADD`, so the
/// item ends as after one and then the other.
pub(crate) fn join(debit: &Update, credit: &Update) -> Update {
    let mut joined = debit.clone();
    for (attr, n) in &credit.add {
        match joined.add.iter_mut().find(|(known, _)| known == attr) {
            Some((_, sum)) => *sum += n,
            None => joined.add.push((attr.clone(), *n)),
        }
    }
    joined.add.retain(|(_, n)| *n != 0);
    joined.set.extend(credit.set.iter().cloned());
    joined.copy.extend(credit.copy.iter().cloned());
    joined.condition = Condition::All(vec![debit.condition.clone(), credit.condition.clone()]);
    joined
}

/// Lets a debit take this much more of a limit than its condition asks for.
///
/// For what the rounding of shares keeps from a request of the whole capacity: less than a millitoken a shard.
pub(crate) fn overdraw(debit: &mut Update, limit: &str, by: Millitokens) {
    let balance = limit_attr(limit, "tk");
    if let Condition::All(parts) = &mut debit.condition {
        for part in parts {
            match part {
                Condition::AtLeast(attr, least) if *attr == balance => *least -= by.0,
                _ => {}
            }
        }
    }
}

/// Pins every attribute of an image that bears on a decision, balances excepted.
fn pins(image: &Bucket, leaves: impl Fn(&BucketLimit) -> bool) -> Vec<Condition> {
    let is = |name, n: i64| Condition::Is(attr(name), Value::int(n));
    let text = |text: &str| Value::text(text);
    let mut parts = vec![
        is("rf", image.refilled_at.0),
        // A refill by a clock that is behind pays fractions out and leaves `rf` as it is.
        Condition::same(attr(CARRY), image.fractions.as_deref().map(text)),
        Condition::same(attr("vu"), image.valid_until.map(Value::int)),
        Condition::same(attr("ttl"), image.ttl.map(Value::int)),
        Condition::Absent(attr("disabled")),
        shard_count_is(image.shard_count),
    ];
    parts.extend(shapes::shared_pins(image));
    parts.extend(owner_pins(&image.owner));
    parts.extend(limit_pins(image, leaves));
    parts
}

/// Pins the parameters, the shape and the period of an image's limits.
fn limit_pins(image: &Bucket, leaves: impl Fn(&BucketLimit) -> bool) -> Vec<Condition> {
    let text = |text: &str| Value::text(text);
    let mut parts = Vec::new();
    for limit in image.limits.iter().filter(|limit| !leaves(limit)) {
        parts.extend(has_params(&limit.name, limit.params));
        for (part, stored) in ["sched", "rsched"].into_iter().zip(&limit.marks) {
            let stored = stored.as_deref().map(text);
            parts.push(Condition::same(limit_attr(&limit.name, part), stored));
        }
        parts.extend(limit.shape.iter().flat_map(|shape| shape.pins(&limit.name)));
    }
    parts
}

/// The owner's stamp is as it was seen.
pub fn owner_pins(owner: &Owner) -> [Condition; 3] {
    let text = |text: &str| Value::text(text);
    [
        Condition::same(
            attr("parent_id"),
            owner.parent.as_ref().map(|parent| text(parent.as_str())),
        ),
        Condition::same(attr("pgen"), owner.generation.map(Value::int)),
        Condition::same(attr("pinc"), owner.incarnation.as_deref().map(text)),
    ]
}

/// The shard count, where an absent one counts as 1.
pub(crate) fn shard_count_is(count: u32) -> Condition {
    let is = Condition::Is(attr("shard_count"), Value::int(count));
    if count == 1 {
        Condition::Any(vec![is, Condition::Absent(attr("shard_count"))])
    } else {
        is
    }
}

fn refill_wcu(update: &mut Update, image: &Bucket, now: EpochMillis) {
    match &image.wcu {
        Some(limit) => {
            let gained = image.refilled(limit, now).tokens - limit.balance;
            if gained != Millitokens::ZERO {
                update.add.push((wcu("tk"), gained.0));
            }
        }
        None => {
            for (part, value) in wcu_parts() {
                update.set.push((wcu(part), Value::int(value)));
            }
        }
    }
}

fn wcu_parts() -> [(&'static str, i128); 5] {
    let Params {
        capacity,
        refill,
        period_ms,
    } = WCU_PARAMS;
    [
        ("tk", capacity),
        ("cp", capacity),
        ("ra", refill),
        ("rp", period_ms),
        ("tc", 0),
    ]
}

/// Whether an item does not have a limit.
fn lacks(name: &str) -> Condition {
    Condition::Any(vec![
        Condition::Absent(limit_attr(name, "cp")),
        Condition::Absent(limit_attr(name, "tk")),
    ])
}

/// The stamp attributes of an owner, as they stand on a bucket.
pub(crate) fn owner_attributes(owner: Option<&Owner>) -> Vec<(Attr, Value)> {
    let mut attrs = vec![(
        attr("cascade"),
        Value::Bool(owner.is_some_and(|owner| owner.cascade)),
    )];
    let Some(owner) = owner else { return attrs };
    if let Some(parent) = &owner.parent {
        attrs.push((attr("parent_id"), Value::text(parent.as_str())));
    }
    if let Some(generation) = owner.generation {
        attrs.push((attr("pgen"), Value::int(generation)));
    }
    if let Some(incarnation) = &owner.incarnation {
        attrs.push((attr("pinc"), Value::text(incarnation.as_str())));
    }
    attrs
}

/// A new shard: its parameters, its balances and what it belongs to.
pub(crate) struct NewShard<'a> {
    pub(crate) id: &'a BucketId,
    pub(crate) shard: u32,
    pub(crate) shard_count: u32,
    /// From when on it earns.
    pub(crate) refilled_at: EpochMillis,
    pub(crate) config: &'a Resolved,
    pub(crate) ttl: Ttl,
    /// Distinguishes the item from others of the same key.
    pub(crate) birth: &'a str,
    /// Each limit's balance to begin with, and what of it is taken by this very acquire.
    pub(crate) balances: Vec<(Params, SmolStr, Millitokens, Millitokens)>,
    /// The shapes of its limits, with the instant until which its balances may be spent as they stand.
    pub(crate) shapes: Vec<(Attr, Value)>,
    /// Until when every request is admitted, if one is.
    pub(crate) bypass: Option<EpochMillis>,
}

/// Creates a shard, if it does not exist.
pub(crate) fn create(new: &NewShard<'_>) -> Put {
    let mut item: Item = new.id.key_attributes(new.shard);
    let mut put = |name: Attr, value| drop(item.insert(name.into(), value));
    put(attr("rf"), Value::int(new.refilled_at.0));
    put(attr("shard_count"), Value::int(new.shard_count));
    put(attr(FENCE), Value::S(first_fence(new.birth)));
    for (name, value) in owner_attributes(new.config.owner.as_ref()) {
        put(name, value);
    }
    if let Ttl::At(secs) = new.ttl {
        put(attr("ttl"), Value::int(secs));
    }
    for (params, name, balance, taken) in &new.balances {
        put(limit_attr(name, "tk"), Value::int((*balance - *taken).0));
        put(limit_attr(name, "tc"), Value::int(taken.0));
        put(limit_attr(name, "cp"), Value::int(params.capacity));
        put(limit_attr(name, "ra"), Value::int(params.refill));
        put(limit_attr(name, "rp"), Value::int(params.period_ms));
    }
    for (name, value) in &new.shapes {
        put(name.clone(), value.clone());
    }
    if let Some(until) = new.bypass {
        put(attr("bypass"), Value::int(until.0));
    }
    for (part, value) in wcu_parts() {
        put(limit_attr(WCU, part), Value::int(value));
    }
    Put {
        item,
        condition: Condition::Absent(attr("PK")),
    }
}

/// The tokens that a sibling gives to a new shard.
pub(crate) struct Donation<'a> {
    /// The sibling's image.
    pub(crate) image: &'a Bucket,
    /// The shard count it has from now on.
    pub(crate) shard_count: u32,
    /// The tokens it gives.
    pub(crate) given: &'a [(SmolStr, Millitokens)],
    /// Limits that it lacks.
    pub(crate) lacking: &'a [SmolStr],
    /// Set if it has earned the new shards' parts of the rate so far: until when.
    pub(crate) hands_over_at: Option<EpochMillis>,
}

/// Raises a sibling's shard count and moves tokens out of it, to a shard that is being created.
///
/// Debits may come in between: tokens are moved by `ADD`, and only if they are there. A refill of a sibling
/// that earned the new shard's part may not, or that part would be earned twice; nor a refund up to the
/// ceiling it had with fewer shards. And it must be the item of the image: a transaction that was delayed until the bucket
/// had been deleted and created again would put tokens of the former life into the next.
pub(crate) fn donate(key: Key, donation: &Donation<'_>) -> Part {
    let image = donation.image;
    let mut update = Update::new(key);
    update
        .set
        .push((attr("shard_count"), Value::int(donation.shard_count)));
    let mut parts = vec![
        shard_count_is(image.shard_count),
        Condition::Absent(attr("disabled")),
    ];
    parts.extend(shapes::shared_pins(image));
    parts.extend(same_item(image));
    if donation.shard_count > image.shard_count {
        // What was granted for fewer shards stays so.
        for limit in image.limits.iter().filter(|limit| limit.is_quota()) {
            let counted = limit_attr(&limit.name, "gc");
            if limit.shape.as_ref().is_some_and(|shape| !shape.has("gc")) {
                update.set.push((counted.clone(), Value::int(image.shard_count)));
                parts.push(Condition::Absent(counted));
            }
        }
    }
    if let Some(at) = donation.hands_over_at {
        parts.push(Condition::AtMost(attr("rf"), at.0.into()));
        for limit in &image.limits {
            parts.push(Condition::AtMost(limit_attr(&limit.name, "tk"), limit.balance.0));
            // What the new shard's part has earned was computed from them.
            parts.extend(has_params(&limit.name, limit.params));
        }
        for name in donation.lacking {
            // Gained since, it would be the whole limit, with the new shards' parts.
            parts.push(lacks(name));
        }
    }
    for (name, tokens) in donation.given {
        update.add.push((limit_attr(name, "tk"), -tokens.0));
        parts.push(Condition::AtLeast(limit_attr(name, "tk"), tokens.0));
        let capacity = image.limit(name).map_or(0, |limit| limit.params.capacity);
        parts.push(Condition::Is(limit_attr(name, "cp"), Value::int(capacity)));
    }
    update.condition = Condition::All(parts);
    Part::Update(update)
}

/// Checks that a shard still does not exist.
pub(crate) fn is_absent(key: Key) -> Part {
    Part::Check(key, Condition::Absent(attr("PK")))
}

/// Checks that shard 0 is still the item of this image, with this count.
pub(crate) fn count_is_still(key: Key, image: &Bucket, count: u32) -> Part {
    let mut parts = same_item(image);
    parts.push(shard_count_is(count));
    Part::Check(key, Condition::All(parts))
}

/// Doubles the shard count on shard 0, the authoritative one, which from now on must not expire. `limits` are those that the
/// bucket has, `quotas` those that it does not have and that must not have been added since.
pub(crate) fn double<'a>(
    key: Key,
    from: u32,
    limits: impl IntoIterator<Item = &'a str>,
    quotas: impl IntoIterator<Item = &'a str>,
) -> Update {
    let mut update = Update::new(key);
    update.set.push((attr("shard_count"), Value::int(from * 2)));
    update.remove.push(attr("ttl"));
    let mut parts = vec![
        Condition::Exists(attr("PK")),
        shard_count_is(from),
        // A quota or a session limit cannot be divided by the count alone, and one may have been set since the image was seen.
        Condition::Absent(attr("rsched")),
    ];
    let sessions = limits.into_iter().map(|limit| limit_attr(limit, "rsa"));
    parts.extend(sessions.map(Condition::Absent));
    let added = quotas.into_iter().map(|limit| limit_attr(limit, "cp"));
    parts.extend(added.map(Condition::Absent));
    update.condition = Condition::All(parts);
    update
}

/// Writes the count of a doubling to a sibling; never lowers a count. A bucket that was created again meanwhile admits no
/// more for it (ADR 7).
pub(crate) fn propagate(key: Key, count: u32) -> Update {
    let mut update = Update::new(key);
    update.set.push((attr("shard_count"), Value::int(count)));
    update.condition = Condition::All(vec![
        Condition::Exists(attr("PK")),
        Condition::AtMost(attr("shard_count"), i128::from(count) - 1),
        Condition::Absent(attr("rsched")),
    ]);
    update
}

/// Which guard a credit goes out with.
pub(crate) enum Guard<'a> {
    /// Stay within the ceiling that this image shows.
    Ceiling(&'a Bucket),
    /// Go above it, but prevent debits until a refilling write has cut the surplus.
    Overflow,
    /// Only charges: the item and its limits exist.
    Exists,
}

/// Gives tokens back (positive) or charges them after the fact (negative), and leaves `receipt` on the item.
///
/// `image` is the latest one: a sending that arrives after a repetition must not happen too, nor one that finds
/// another item under the same key. Items that other clients created tell that by the entity's incarnation alone.
pub(crate) fn credit(
    key: Key,
    deltas: &[(SmolStr, Millitokens)],
    guard: &Guard<'_>,
    receipt: &str,
    image: &Bucket,
    now: EpochMillis,
) -> Update {
    let mut update = Update::new(key);
    let mut parts = same_item(image);
    let mut is_of_quota = false;
    for (name, delta) in deltas {
        spend(&mut update, name, -*delta);
        // Never create a limit, or an item, out of a credit.
        parts.push(Condition::Exists(limit_attr(name, "cp")));
        parts.push(Condition::Exists(limit_attr(name, "tk")));
        if delta.0 <= 0 {
            continue;
        }
        let shape = image.limit(name).and_then(|limit| limit.shape.as_ref());
        if let Some(shape) = shape {
            // What was taken in an earlier period does not come back in this one.
            parts.extend(shape.in_period(name, image.refilled_at));
            is_of_quota |= shape.is_quota();
        }
        if let (Guard::Overflow, Some(limit)) = (guard, image.limit(name)) {
            // A limit that has become a quota since may have been whole again.
            parts.push(Condition::Is(
                limit_attr(name, "ra"),
                Value::int(limit.params.refill),
            ));
        }
        if let Guard::Ceiling(image) = guard
            && let Some(limit) = image.limit(name)
        {
            parts.extend(shape.iter().flat_map(|shape| shape.pins(name)));
            let ceiling = image.ceiling(limit, now);
            parts.push(Condition::AtMost(limit_attr(name, "tk"), ceiling - delta.0));
            parts.push(Condition::Is(
                limit_attr(name, "cp"),
                Value::int(limit.params.capacity),
            ));
        }
    }
    update.set.push((attr(RECEIPT), Value::text(receipt)));
    match guard {
        Guard::Exists => {}
        Guard::Overflow => {
            update.set.push((attr("vu"), Value::int(0)));
            if is_of_quota {
                parts.extend(shapes::shared_pins(image));
            }
        }
        Guard::Ceiling(image) => {
            parts.push(shard_count_is(image.shard_count));
            parts.push(Condition::same(attr("vu"), image.valid_until.map(Value::int)));
            parts.extend(shapes::shared_pins(image));
            if image.unsupported.is_some() {
                // The next boundary of a schedule or quota must still be ahead.
                parts.push(Condition::Any(vec![
                    Condition::Absent(attr("vu")),
                    Condition::AtLeast(attr("vu"), i128::from(now.0) + 1),
                ]));
            }
        }
    }
    update.condition = Condition::All(parts);
    update
}

/// Makes a credit a repetition: it happens only if the item's receipt is still the one from before the first
/// sending, and then fences off all earlier sendings.
pub(crate) fn repeat(credit: &mut Update, receipt: &str, before: Option<&Value>, image: &Bucket) {
    credit.set.push((attr(FENCE), fence(image, receipt)));
    if let Condition::All(parts) = &mut credit.condition {
        parts.push(as_seen(RECEIPT, before));
    }
}

/// Fences off all earlier sendings of a credit and corrects nothing: it happens only if none of them has. The mark
/// becomes the item's fence, so that its own repetition can be recognised.
pub(crate) fn fence_off(
    key: Key,
    deltas: &[(SmolStr, Millitokens)],
    mark: &str,
    before: Option<&Value>,
    image: &Bucket,
) -> Update {
    let mut update = Update::new(key);
    let mut parts = same_item(image);
    parts.push(as_seen(RECEIPT, before));
    // Never create an item.
    parts.extend(
        deltas
            .iter()
            .map(|(name, _)| Condition::Exists(limit_attr(name, "tk"))),
    );
    update.set.push((attr(FENCE), fence(image, mark)));
    update.condition = Condition::All(parts);
    update
}

/// The item is still the one of an image, and no credit was repeated since.
fn same_item(image: &Bucket) -> Vec<Condition> {
    let mut parts = vec![as_seen(FENCE, image.fence.as_ref())];
    if image.birth().is_none() {
        let incarnation = image.owner.incarnation.as_deref();
        parts.push(Condition::same(attr("pinc"), incarnation.map(Value::text)));
    }
    parts
}

fn fence(image: &Bucket, mark: &str) -> Value {
    let mut fence = first_fence(image.birth().unwrap_or_default());
    fence.push_str(mark);
    Value::S(fence)
}

/// Moves an item's expiry to this epoch second, if it is earlier. May be sent any number of times.
pub(crate) fn keep_until(key: Key, secs: i64) -> Update {
    let mut update = Update::new(key);
    update.set.push((attr("ttl"), Value::int(secs)));
    update.condition = Condition::AtMost(attr("ttl"), i128::from(secs) - 1);
    update
}

/// The attribute is as it was seen, whatever its type. Of a type that cannot be compared, only that it is there.
pub(crate) fn as_seen(name: &'static str, value: Option<&Value>) -> Condition {
    match value {
        Some(Value::Other) => Condition::Exists(attr(name)),
        value => Condition::same(attr(name), value.cloned()),
    }
}
