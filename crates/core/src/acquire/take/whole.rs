//! Looking at a bucket's shards together: sharing out what some hold for others, and requests that no single shard
//! covers.
//!
//! Such a request is divided over the shards, and all parts are debited in one transaction. Each part is guarded as
//! a debit of one shard is: by the balance as it stands where that suffices and the shard was refilled lately, else
//! by everything that the refill was computed from. See ADR 15.

use std::sync::Arc;

use smol_str::SmolStr;

use super::judge::is_open;
use super::portions::{NOTHING, PLENTY, divide};
use super::{Next, Scope, State, Take, TakeEnd};
use crate::acquire::protocol::{Ask, DisabledAt, Env, Grant, Observation};
use crate::backoff::Again;
use crate::bucket::{Bucket, BucketLimit, MAX_SHARDS};
use crate::limit::Limit;
use crate::name::LimitName;
use crate::refill::Balance;
use crate::shards::births::{Shards, births, family};
use crate::shards::together;
use crate::table::{Applied, Cancelled, FailureKind, Item, Op, Part, TableError, Update};
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::LimitStatus;
use crate::write::{self, Amounts};

/// The longest wait after the first lost race, in milliseconds; it doubles with each.
const RACE_WAIT_MS: u32 = 10;

/// A shard of which a request may take.
struct Holding {
    shard: u32,
    image: Arc<Bucket>,
    /// The most that a plain debit may take, by amount.
    ready: Vec<i128>,
    /// The balance after a refill, by amount.
    refilled: Vec<i128>,
}

impl Take {
    /// Whether a refill of the shard would cut tokens that may belong to shards that do not exist yet.
    ///
    /// A doubling raises the count before the new shards exist, so their tokens lie as a surplus with the shards
    /// that they descend from.
    pub(super) fn must_share_out(&self, image: &Bucket, now: EpochMillis) -> bool {
        let count = image.shard_count;
        let has_surplus = image
            .limits
            .iter()
            .filter(|limit| !limit.is_quota())
            .any(|limit| limit.balance.0 > image.ceiling(limit, now));
        has_surplus
            && self.is_divisible(image)
            && (2..=MAX_SHARDS).contains(&count)
            && self.shard < count / 2
            && self.shared_out != Some((self.shard, count, image.birth().map(SmolStr::new)))
    }

    /// Whether the bucket of a shard can be divided and looked at as a whole: its rules are known, and it has no quota or session limit
    /// but those that are not configured any more. A shard that is created does not have those. If they are named again, it is
    /// given of them what the shard gives that was granted its part.
    pub(super) fn is_divisible(&self, image: &Bucket) -> bool {
        let is_in_the_way =
            |limit: &BucketLimit| limit.is_quota() && !write::is_left(limit, Some(&self.config));
        image.unsupported.is_none() && !image.limits.iter().any(is_in_the_way)
    }

    /// Has the shard's descendants created with its surplus, before it is refilled.
    pub(super) fn share_out(&mut self, image: &Bucket, env: &mut Env<'_>) {
        self.shard_count = image.shard_count;
        self.count_before = self.count_before.max(image.shard_count);
        self.scope = Scope::Descendants;
        self.read_shards(0, env);
    }

    /// Goes by all shards together from here on, if the bucket has several and can be looked at so.
    pub(super) fn gather(&mut self, env: &mut Env<'_>) -> bool {
        let may = (2..=MAX_SHARDS).contains(&self.shard_count) && !self.alone && !self.amounts.is_empty();
        if may {
            self.scope = Scope::Whole;
            self.read_shards(0, env);
        }
        may
    }

    /// Whether the limits are known to hold what is asked for, and no single shard to do so.
    pub(super) fn is_large(&self, now: EpochMillis) -> bool {
        let beyond_share = |(name, need): &(LimitName, Millitokens)| {
            let limit = self.config.limit(name);
            let limit = limit.filter(|_| !self.config.is_soft(name.as_str()));
            limit.is_some_and(|limit| need.0 > Terms::of(limit, self.shard_count).share(now).capacity)
        };
        self.fits_whole(now) && self.amounts.iter().any(beyond_share)
    }

    /// Whether the whole limits can hold what is asked for.
    pub(super) fn fits_whole(&self, now: EpochMillis) -> bool {
        self.amounts.iter().all(|(name, need)| {
            let limit = self.config.limit(name);
            limit.is_none_or(|limit| {
                self.config.is_soft(name.as_str()) || Terms::of(limit, 1).whole(now).capacity >= need.0
            })
        })
    }

    /// Reads all shards, after a wait.
    pub(super) fn read_shards(&mut self, delay_ms: u64, env: &mut Env<'_>) {
        let keys = (0..self.shard_count).map(|shard| self.id.key(shard)).collect();
        let ask = Ask::Table(Op::BatchGet {
            keys,
            consistent: true,
        });
        self.send_after(delay_ms, ask, State::Shards, env);
    }

    /// Decides what to do about all shards of the bucket.
    pub(super) fn look_at_shards(&mut self, items: &[Item], env: &mut Env<'_>) {
        let shards = match self.images(items, env) {
            Ok(shards) => shards,
            Err(err) => return self.fail(err),
        };
        let Some(root) = shards.get(&0) else {
            if shards.is_empty() {
                self.shard_count = 1;
            } else if !self.has_seen_others {
                // They were not read at one instant: the bucket may have been deleted in between, with all its shards.
                self.has_seen_others = true;
                return self.read_shards(0, env);
            }
            // Only shard 0 has the count: start again from there.
            (self.scope, self.shard) = (Scope::One, 0);
            return self.create(env);
        };
        if shards.values().any(|image| image.disabled) {
            return self.finish(TakeEnd::Disabled(DisabledAt::Bucket));
        }
        let stamped = shards
            .iter()
            .find(|(_, image)| image.bypass.is_some() || self.config.is_bypassed());
        if let Some((shard, image)) = stamped.map(|(shard, image)| (*shard, Arc::clone(image)))
            && (!self.fresh || self.config.is_bypassed())
        {
            (self.scope, self.shard) = (Scope::One, shard);
            return self.look_at(&image, env);
        }
        let count = root.shard_count;
        if self.scope == Scope::One {
            // It was missing, and is there by now. Nothing else was to be found out.
            self.shard_count = count;
            self.has_counted = false;
            return self.debit(None, env);
        }
        if count != self.shard_count {
            return self.count_differs(count, env);
        }
        let most = shards
            .values()
            .map(|image| image.shard_count)
            .max()
            .unwrap_or(count);
        if most > count.max(self.count_before) && most <= MAX_SHARDS {
            // The first shard was read before the bucket was split: not all shards that it has now were looked at.
            self.count_before = most;
            return self.count_differs(most, env);
        }
        let scope = self.scope;
        let gains_quota = || {
            shards
                .values()
                .any(|image| self.lacking(image).any(Limit::is_quota))
        };
        if !shards.values().all(|image| self.is_divisible(image)) || (scope == Scope::Whole && gains_quota())
        {
            // What such a bucket holds follows rules that are not known here, or cannot be moved.
            self.alone = true;
            if scope == Scope::Whole {
                self.scope = Scope::One;
                return match self.best.take() {
                    Some(best) => self.finish(TakeEnd::Short(best)),
                    None => self.debit(None, env),
                };
            }
            return self.shared_out(&shards, items, env);
        }
        let missing: Vec<u32> = (0..count)
            .filter(|shard| !shards.contains_key(shard))
            .filter(|shard| scope == Scope::Whole || family(*shard, count).contains(&self.shard))
            .collect();
        if scope == Scope::Whole && self.amounts.is_empty() {
            // The parent has lost the limits that were asked for.
            self.scope = Scope::One;
            return self.debit(None, env);
        }
        if scope == Scope::Whole {
            let holdings = self.holdings(&shards, env.now);
            if let Some(portions) = self.division(&holdings, |holding| &holding.ready) {
                return self.take_together(&holdings, portions, items, env);
            }
            if missing.is_empty() {
                return self.look_together(&shards, &holdings, items, env);
            }
        } else if missing.is_empty() {
            return self.shared_out(&shards, items, env);
        }
        if !self.fresh {
            return self.create(env);
        }
        let config = Arc::clone(&self.config);
        let limits = Self::limits_of_new(&config, self.exact().is_some(), &shards, count);
        let plan = births(&missing, count, &shards, &limits, env.now);
        let parts = plan.of_relatives(&self.id, count, &shards);
        self.put_shards(&plan.newborns, parts, root.life(0), env);
    }

    /// Shard 0 has another count than the one used for the read.
    fn count_differs(&mut self, count: u32, env: &mut Env<'_>) {
        if self.has_lost_too_often() {
            return;
        }
        self.shard_count = count;
        if self.shard >= count {
            self.shard = 0;
        }
        if (2..=MAX_SHARDS).contains(&count) {
            return self.read_shards(0, env);
        }
        self.scope = Scope::One;
        self.debit(None, env);
    }

    /// All descendants of the shard exist, so that its surplus may be cut.
    fn shared_out(&mut self, shards: &Shards, items: &[Item], env: &mut Env<'_>) {
        self.scope = Scope::One;
        let image = shards.get(&self.shard);
        let count = image.map_or(self.shard_count, |image| image.shard_count);
        let birth = image.and_then(|image| image.birth().map(SmolStr::new));
        self.shared_out = Some((self.shard, count, birth));
        match item_of(items, &self.id.key(self.shard)) {
            Some(item) => self.look(item, env),
            None => self.create(env),
        }
    }

    fn holdings(&self, shards: &Shards, now: EpochMillis) -> Vec<Holding> {
        let holding = |(shard, image): (&u32, &Arc<Bucket>)| {
            let refilled = write::refill_all(image, self.exact(), now);
            let spendable = is_open(image, now) && self.is_fresh(image, now);
            let ready = |name: &LimitName| {
                let exact = self.exact().and_then(|all| all.iter().find(|l| l.name() == name));
                let limit = image.limit(name.as_str());
                let limit = limit.filter(|limit| spendable && exact.is_none_or(|exact| limit.matches(exact)));
                limit.map_or(NOTHING, |limit| {
                    if self.config.is_soft(name.as_str()) {
                        PLENTY
                    } else {
                        limit.balance.0
                    }
                })
            };
            let after = |name: &LimitName| {
                if self.config.is_soft(name.as_str()) {
                    return PLENTY;
                }
                let found = refilled.iter().find(|r| r.limit.name == name.as_str());
                let seed = || self.config.limit(name).map(|limit| share(limit, image, now));
                let tokens = found.map(|r| r.balance.tokens.0).or_else(seed);
                tokens.unwrap_or(NOTHING)
            };
            Holding {
                shard: *shard,
                ready: self.amounts.iter().map(|(name, _)| ready(name)).collect(),
                refilled: self.amounts.iter().map(|(name, _)| after(name)).collect(),
                image: Arc::clone(image),
            }
        };
        shards.iter().map(holding).collect()
    }

    /// The part of each shard, if the shards hold enough.
    fn division(
        &self,
        holdings: &[Holding],
        held: impl Fn(&Holding) -> &Vec<i128>,
    ) -> Option<Vec<(usize, Amounts)>> {
        let needs: Vec<i128> = self.amounts.iter().map(|(_, need)| need.0).collect();
        let held: Vec<Vec<i128>> = holdings.iter().map(|holding| held(holding).clone()).collect();
        Some(self.named(divide(&needs, &held)?))
    }

    fn named(&self, portions: Vec<super::portions::Portion>) -> Vec<(usize, Amounts)> {
        let name = |(amount, part): (usize, i128)| (self.amounts[amount].0.clone(), Millitokens(part));
        portions
            .into_iter()
            .map(|(at, parts)| (at, parts.into_iter().map(name).collect()))
            .collect()
    }

    /// All shards exist, and what they hold as they stand does not cover the request: refill them, or refuse.
    fn look_together(&mut self, shards: &Shards, holdings: &[Holding], items: &[Item], env: &mut Env<'_>) {
        let statuses = self.statuses_together(shards, env.now);
        if !statuses.iter().any(|status| status.exceeded) {
            // Shares are rounded down: a request of all there can be takes a little less, and owes the rest.
            let parts = self.amounts.iter().map(|(name, need)| {
                let (whole, parts) = self.parts(shards, name, env.now);
                let capacity = whole.map_or(0, |whole| whole.whole(env.now).capacity);
                together::goal(capacity, &parts, *need, env.now)
                    .unwrap_or(*need)
                    .0
            });
            let goals: Vec<i128> = parts.collect();
            let held: Vec<Vec<i128>> = holdings.iter().map(|h| h.refilled.clone()).collect();
            let portions = divide(&goals, &held).map(|portions| self.named(portions));
            return match portions {
                Some(mut portions) => {
                    self.owe(&goals, &mut portions);
                    self.take_together(holdings, portions, items, env);
                }
                None => self.finish(TakeEnd::Contended),
            };
        }
        let retuned = |holding: &Holding| {
            let refilled = write::refill_all(&holding.image, self.exact(), env.now);
            refilled.iter().any(|r| r.params != r.limit.params)
                || holding.image.is_ahead(env.now)
                || self.loses_debts(&holding.image, env.now)
        };
        let behind: Vec<&Holding> = holdings.iter().filter(|holding| retuned(holding)).collect();
        if behind.is_empty() {
            return self.finish(TakeEnd::Short(statuses));
        }
        // They earn by their own parameters until those are changed, earn nothing while they are dated in the future,
        // and forget their debts when they expire.
        let drawn = self.shard;
        let mut parts = Vec::with_capacity(behind.len());
        for holding in behind {
            self.shard = holding.shard;
            parts.push(Part::Update(self.refilling(
                &holding.image,
                &Amounts::new(),
                env.now,
            )));
        }
        self.shard = drawn;
        self.send(Ask::Table(Op::Transact(parts)), State::RetuneAll, env);
    }

    /// Has the first shard that pays for an amount pay what the division leaves of it.
    fn owe(&self, goals: &[i128], portions: &mut [(usize, Amounts)]) {
        for ((name, need), goal) in self.amounts.iter().zip(goals) {
            let paid = portions
                .iter_mut()
                .flat_map(|(_, amounts)| amounts.iter_mut())
                .find(|(of, _)| of == name);
            if let Some((_, part)) = paid {
                part.0 += need.0 - goal;
            }
        }
    }

    /// A limit's terms for all shards together, and what each shard holds of it.
    fn parts<'a>(
        &'a self,
        shards: &'a Shards,
        name: &LimitName,
        now: EpochMillis,
    ) -> (Option<Terms<'a>>, Vec<together::Part<'a>>) {
        let mut whole = None;
        let mut parts = Vec::with_capacity(shards.len());
        for image in shards.values() {
            let part = match (image.limit(name.as_str()), self.config.limit(name)) {
                (Some(limit), _) => {
                    let refilled = write::refill(image, limit, self.exact(), now);
                    let (terms, balance) = refilled.standing(image, now);
                    together::Part { terms, balance }
                }
                (None, Some(seed)) => together::Part {
                    terms: Terms::of(seed, image.shard_count),
                    balance: Balance::new(Millitokens(share(seed, image, now)), now),
                },
                (None, None) => continue,
            };
            whole.get_or_insert(part.terms.among(1));
            parts.push(part);
        }
        (whole, parts)
    }

    fn statuses_together(&self, shards: &Shards, now: EpochMillis) -> Vec<LimitStatus> {
        let status = |(name, need): &(LimitName, Millitokens)| {
            let (whole, parts) = self.parts(shards, name, now);
            Some(LimitStatus::together(self.of(name), &whole?, &parts, *need, now))
        };
        self.amounts.iter().filter_map(status).collect()
    }

    /// Debits shards, all or none.
    fn take_together(
        &mut self,
        holdings: &[Holding],
        portions: Vec<(usize, Amounts)>,
        items: &[Item],
        env: &mut Env<'_>,
    ) {
        let (mut parts, mut grants) = (Vec::new(), Vec::new());
        let drawn = self.shard;
        let single = portions.len() == 1;
        for (at, amounts) in portions {
            let holding = &holdings[at];
            self.shard = holding.shard;
            let (update, refills) = self.portion(holding, &amounts, env.now);
            if single {
                self.scope = Scope::One;
                let state = if refills { State::Refill } else { State::Debit };
                return self.send(Ask::Table(Op::Update(update)), state, env);
            }
            let image = after(items, &update).unwrap_or_else(|| Arc::clone(&holding.image));
            parts.push(Part::Update(update));
            grants.push(Grant {
                id: self.id.clone(),
                shard: holding.shard,
                amounts,
                image,
                is_bypassed: false,
            });
        }
        self.shard = drawn;
        self.send(Ask::Table(Op::Transact(parts)), State::Portions(grants), env);
    }

    /// The debit of one shard, and whether it refills it.
    fn portion(&self, holding: &Holding, amounts: &Amounts, now: EpochMillis) -> (Update, bool) {
        let held = |of: &[i128], name: &LimitName| {
            let at = self.amounts.iter().position(|(known, _)| known == name);
            at.and_then(|at| of.get(at)).copied().unwrap_or(NOTHING)
        };
        if amounts
            .iter()
            .all(|(name, part)| held(&holding.ready, name) >= part.0)
        {
            let key = self.id.key(holding.shard);
            let basis = self.basis(Some(&holding.image), amounts, now);
            return (write::debit(key, amounts, Some(&basis), now), false);
        }
        let mut update = self.refilling(&holding.image, amounts, now);
        for (name, part) in amounts {
            let beyond = part.0 - held(&holding.refilled, name);
            if beyond > 0 {
                write::overdraw(&mut update, name.as_str(), Millitokens(beyond));
            }
        }
        (update, true)
    }

    /// Several shards have been debited at once.
    pub(super) fn taken_together(&mut self, grants: Vec<Grant>, env: &mut Env<'_>) {
        for grant in &grants {
            env.observations.push(Observation {
                id: grant.id.clone(),
                shard: grant.shard,
                image: Arc::clone(&grant.image),
            });
        }
        self.finish(TakeEnd::Taken(grants));
        self.announce(env);
    }

    /// A transaction over shards did not happen, or was not a debit: all shards are read again.
    pub(super) fn not_together(&mut self, reasons: &[Cancelled], env: &mut Env<'_>) {
        if self.has_lost_too_often() {
            return;
        }
        let refused = reasons.is_empty()
            || reasons
                .iter()
                .any(|reason| matches!(reason, Cancelled::Refused(_)));
        let again = if refused {
            let longest = RACE_WAIT_MS << self.races.min(5);
            Again::After(u64::from(env.random.below(longest)))
        } else if reasons.contains(&Cancelled::Conflict) {
            self.backoff.conflict(env.random)
        } else {
            self.backoff.resend(env.random)
        };
        match again {
            Again::After(delay_ms) if self.scope == Scope::One => {
                // Other shards were to give tokens to this one.
                (self.kin, self.seen) = (None, None);
                self.pause(delay_ms, Next::Debit, env);
            }
            Again::After(delay_ms) => self.read_shards(delay_ms, env),
            Again::Contended => self.finish(TakeEnd::Contended),
            Again::No => self.fail(TableError::new(
                FailureKind::Throttled,
                Applied::No,
                format!("the shards could not be debited: {reasons:?}"),
            )),
        }
    }
}

/// A shard's share of a limit that the item lacks.
fn share(limit: &Limit, image: &Bucket, now: EpochMillis) -> i128 {
    Terms::of(limit, image.shard_count).share(now).capacity
}

/// An item in what was read.
fn item_of<'a>(items: &'a [Item], key: &crate::table::Key) -> Option<&'a Item> {
    items
        .iter()
        .find(|item| crate::schema::key_of(item).as_ref() == Some(key))
}

/// The image that a debit leaves of an item that was read: a transaction does not return it.
pub(super) fn after(items: &[Item], update: &Update) -> Option<Arc<Bucket>> {
    let mut item = item_of(items, &update.key)?.clone();
    if !update.condition.holds(Some(&item)) {
        return None;
    }
    update.apply(&mut item);
    Some(Arc::new(Bucket::decode(&item).ok()?))
}
