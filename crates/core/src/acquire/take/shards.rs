//! Creating a bucket, splitting it into shards, and creating those.
//!
//! Capacity and rate hold through all of it: a new shard begins with what its relatives hold beyond their
//! shares, and earns from the instant up to which they have earned (`births`). See ADR 3.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Purpose, Scope, State, Take, TakeEnd};
use crate::acquire::protocol::{Ask, DisabledAt, Env, out_of_order};
use crate::backoff::Again;
use crate::bucket::{Bucket, birth_mark};
use crate::config::Resolved;
use crate::error::RecordError;
use crate::limit::{Limit, Params};
use crate::schema::{BucketId, key_of, meta_key};
use crate::shards::births::{NewLimit, Newborn, Shards, Start, births, family};
use crate::table::{Applied, Cancelled, FailureKind, Item, Op, Part, TableError};
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};
use crate::write::shapes::shapes_of_new;
use crate::write::{self, NewShard};

/// Reasons for a cancelled transaction that sending it again does not change.
const PERMANENT: [&str; 4] = [
    "ValidationError",
    "ItemCollectionSizeLimitExceeded",
    "AccessDenied",
    "AccessDeniedException",
];

impl Take {
    pub(super) fn create(&mut self, env: &mut Env<'_>) {
        if !self.fresh {
            // Flags and owner must be read in this very acquire, or a disabled entity gets a new bucket.
            return self.ask_config(State::Config, env);
        }
        if let Some(level) = self.config.disabled() {
            return self.finish(TakeEnd::Disabled(DisabledAt::Config(level)));
        }
        if self.scope != Scope::One {
            return self.read_shards(0, env);
        }
        if self.shard == 0 && self.shard_count > 1 && !self.has_counted {
            // The count may be that of a bucket that is gone with all its shards. Then it begins again with one.
            self.has_counted = true;
            return self.read_shards(0, env);
        }
        if self.shard >= self.shard_count {
            // Drawn when the bucket had more shards. It has been deleted and created again since.
            if self.purpose == Purpose::Shard {
                return self.abandon();
            }
            self.shard = env.random.below(self.shard_count);
            return self.debit(None, env);
        }
        if self.shard == 0 {
            let count = self.shard_count;
            let full = |limit: &Limit| Start {
                name: limit.name().to_smol(),
                params: limit.params(),
                tokens: Millitokens(Terms::of(limit, count).share(env.now).capacity),
            };
            let first = Newborn {
                shard: 0,
                refilled_at: env.now,
                balances: self.config.limits.iter().map(full).collect(),
            };
            return self.put_shards(&[first], Vec::new(), None, env);
        }
        let keys = family(self.shard, self.shard_count)
            .into_iter()
            .map(|shard| self.id.key(shard))
            .collect();
        self.send(
            Ask::Table(Op::BatchGet {
                keys,
                consistent: true,
            }),
            State::Family,
            env,
        );
    }

    /// Creates a shard other than the first: with what its siblings hold beyond their new shares.
    ///
    /// A new shard must not mint tokens, nor may its slice of the rate be earned twice: siblings that still
    /// count on fewer shards are raised in the same transaction.
    pub(super) fn create_sibling(&mut self, items: &[Item], env: &mut Env<'_>) {
        let siblings = match self.images(items, env) {
            Ok(siblings) => siblings,
            Err(err) => return self.fail(err),
        };
        let may_have_more =
            |image: &Bucket| self.is_divisible(image) && image.shard_count == self.shard_count;
        if self.purpose == Purpose::Shard && !siblings.get(&0).is_some_and(|root| may_have_more(root)) {
            return self.abandon();
        }
        let other = siblings.iter().find(|(_, image)| !self.is_divisible(image));
        if let Some((shard, image)) = other.map(|(shard, image)| (*shard, image.clone())) {
            if self.purpose == Purpose::Shard {
                return self.abandon();
            }
            // A new shard of a quota would have tokens of its own: make do with the sibling.
            self.shard = shard;
            return self.look_at(&image, env);
        }
        let Some(root) = siblings.get(&0) else {
            // Only shard 0 has the count: start again from there.
            self.shard = 0;
            return self.create(env);
        };
        let count = root.shard_count;
        if root.disabled {
            return self.finish(TakeEnd::Disabled(DisabledAt::Bucket));
        }
        if count != self.shard_count {
            self.shard_count = count;
            if self.has_lost_too_often() {
                return;
            }
            if self.shard >= count {
                self.shard = env.random.below(count);
            }
            return self.debit(None, env);
        }
        let config = Arc::clone(&self.config);
        let limits = Self::limits_of_new(&config, self.exact().is_some(), &siblings, count);
        let plan = births(&[self.shard], count, &siblings, &limits, env.now);
        let parts = plan.of_relatives(&self.id, count, &siblings);
        self.put_shards(&plan.newborns, parts, root.life(0), env);
    }

    /// The limits that new shards have. Those that came with a call are not all that their relatives hold tokens of.
    pub(super) fn limits_of_new<'a>(
        config: &'a Resolved,
        exact: bool,
        siblings: &'a Shards,
        count: u32,
    ) -> Vec<NewLimit<'a>> {
        let configured = config.limits.iter();
        let mut limits: Vec<_> = configured.map(|limit| NewLimit::of(limit, count)).collect();
        if exact {
            for image in siblings.values() {
                for held in &image.limits {
                    if limits.iter().all(|limit| limit.name != held.name) {
                        limits.push(NewLimit::held(image, held, count));
                    }
                }
            }
        }
        limits
    }

    /// The images in what was read of the bucket, by shard.
    pub(super) fn images(&self, items: &[Item], env: &mut Env<'_>) -> Result<Shards, RecordError> {
        let mut images = Shards::new();
        for item in items {
            let shard = key_of(item)
                .and_then(|key| BucketId::parse(&key))
                .map(|(_, shard)| shard);
            let image = Arc::new(Bucket::decode(item)?);
            if let Some(shard) = shard {
                env.observe(&self.id, shard, &image);
                images.insert(shard, image);
            }
        }
        Ok(images)
    }

    /// Creates shards, in this life of their bucket, unless the first one is among them. One that this leg has drawn also
    /// pays what is asked for, if it holds that.
    pub(super) fn put_shards(
        &mut self,
        newborns: &[Newborn],
        relatives: Vec<Part>,
        life: Option<&str>,
        env: &mut Env<'_>,
    ) {
        let now = env.now;
        let need = |limit: &str| {
            self.amounts
                .iter()
                .find(|(name, _)| name.as_str() == limit)
                .map_or(Millitokens::ZERO, |(_, need)| *need)
        };
        let covers = |new: &Newborn| {
            self.amounts.iter().all(|(name, need)| {
                let start = new.balances.iter().find(|start| start.name == name.as_str());
                start.is_some_and(|start| start.tokens >= *need || self.config.is_soft(&start.name))
            })
        };
        // Under a bypass, its tokens are not taken.
        let is_bypassed = self.config.is_bypassed() && self.purpose != Purpose::Shard;
        let takes = self.scope == Scope::One && newborns.iter().all(covers) && !is_bypassed;
        if let (Scope::One, false, [new]) = (self.scope, takes, newborns)
            && !is_bypassed
            && new.shard == 0
            && (self.shard_count == 1 || !self.fits_whole(now))
        {
            return self.finish(TakeEnd::Short(self.untouched(now)));
        }
        if takes && self.holds_new() {
            return self.hold_new(now);
        }
        let row = |start: &Start| -> (Params, SmolStr, Millitokens, Millitokens) {
            let cost = if takes {
                need(&start.name)
            } else {
                Millitokens::ZERO
            };
            (start.params, start.name.clone(), start.tokens, cost)
        };
        // Those that were not drawn are stamped by the requests that draw them.
        let stamp = (is_bypassed && self.scope == Scope::One)
            .then(|| now.plus(self.settings.stamp_life_ms(env.random)));
        let drawn = self.shard;
        let mut parts = Vec::with_capacity(newborns.len() + relatives.len() + 1);
        for new in newborns {
            // An expiry depends on the shard.
            self.shard = new.shard;
            let birth = birth_mark(env.random.bits(), self.shard_count, life);
            let has = |limit: &&Limit| {
                let mut balances = new.balances.iter();
                balances.any(|start| start.name == limit.name().as_str())
            };
            let limits: Vec<Limit> = self.config.limits.iter().filter(has).cloned().collect();
            parts.push(Part::Put(write::create(&NewShard {
                id: &self.id,
                shard: new.shard,
                shard_count: self.shard_count,
                refilled_at: new.refilled_at,
                config: &self.config,
                ttl: self.ttl(None, self.shard_count, now),
                birth: &birth,
                balances: new.balances.iter().map(row).collect(),
                shapes: shapes_of_new(&limits, self.shard_count, new.refilled_at),
                bypass: stamp,
            })));
        }
        self.shard = drawn;
        let meta = meta_key(&self.id.namespace, &self.id.entity);
        parts.push(Part::Check(meta, self.config.meta_unchanged.clone()));
        parts.extend(relatives);
        self.send(
            Ask::Table(Op::Transact(parts)),
            State::Create { takes, stamp },
            env,
        );
    }

    pub(super) fn created(&mut self, takes: bool, stamp: Option<EpochMillis>, env: &mut Env<'_>) {
        if !takes {
            // The shard exists now, but what could be moved into it is not enough: look elsewhere.
            if self.has_lost_too_often() {
                return;
            }
            if self.scope != Scope::One {
                return self.read_shards(0, env);
            }
            if let Some(until) = stamp {
                return self.stamped(until, env);
            }
            return self.debit(None, env);
        }
        let Some(Ask::Table(Op::Transact(parts))) = self.last.take() else {
            return self.fail(out_of_order());
        };
        match parts.into_iter().next() {
            Some(Part::Put(put)) => self.taken(&put.item, self.amounts.clone(), false, env),
            _ => self.fail(out_of_order()),
        }
    }

    pub(super) fn not_created(&mut self, takes: bool, reasons: &[Cancelled], env: &mut Env<'_>) {
        if self.has_lost_too_often() {
            return;
        }
        if let (Scope::One, Some(Cancelled::Refused(image))) = (self.scope, reasons.first()) {
            // Another client created it.
            if self.purpose == Purpose::Shard {
                return self.abandon();
            }
            return match image {
                Some(item) => self.look(item, env),
                None => self.debit(None, env),
            };
        }
        if reasons
            .iter()
            .any(|reason| matches!(reason, Cancelled::Refused(_)))
        {
            // The entity or a sibling changed under our hands: read again.
            self.fresh = false;
            return self.create(env);
        }
        let permanent = reasons.iter().any(|reason| match reason {
            Cancelled::Other(code) => PERMANENT.contains(&code.as_str()),
            _ => false,
        });
        if permanent {
            return self.fail(TableError::new(
                FailureKind::BadRequest,
                Applied::No,
                format!("the bucket cannot be created: {reasons:?}"),
            ));
        }
        let conflict = reasons.contains(&Cancelled::Conflict);
        let again = if conflict {
            self.backoff.conflict(env.random)
        } else {
            self.backoff.resend(env.random)
        };
        match again {
            Again::After(delay) => {
                self.state = State::Create { takes, stamp: None };
                self.again_after(delay, env);
            }
            Again::Contended => self.finish(TakeEnd::Contended),
            Again::No => self.fail(TableError::new(
                FailureKind::Throttled,
                Applied::No,
                format!("the bucket could not be created: {reasons:?}"),
            )),
        }
    }

    pub(super) fn doubled(&mut self, from: u32, env: &mut Env<'_>) {
        self.doubled = true;
        self.shard_count = from * 2;
        self.last = None;
        if from == 1 {
            return self.go_to_new_shard(from, env);
        }
        self.state = State::Propagate(from - 1);
        for shard in 1..from {
            let update = write::propagate(self.id.key(shard), self.shard_count);
            env.send(0, Ask::Table(Op::Update(update)));
        }
    }

    pub(super) fn propagated(&mut self, left: u32, env: &mut Env<'_>) {
        if left > 1 {
            self.state = State::Propagate(left - 1);
        } else {
            self.go_to_new_shard(self.shard_count / 2, env);
        }
    }

    pub(super) fn go_to_new_shard(&mut self, from: u32, env: &mut Env<'_>) {
        self.doubled = true;
        let new = self.shard_count.saturating_sub(from);
        self.shard = if new == 0 {
            env.random.below(self.shard_count)
        } else {
            from + env.random.below(new)
        };
        self.debit(None, env);
    }
}
