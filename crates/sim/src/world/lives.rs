//! Entities that are deleted and created again, and what must not be carried from one life into the next.
//!
//! An operator's deletion takes many requests, in the order that the library deletes in, and traffic continues
//! meanwhile. All shards of a bucket are deleted at once ([`delete_bucket`]): its life ends when its first shard is
//! deleted. In that instant no other shard may be left, and the account of the bucket starts anew (see
//! [`crate::judge::check`]). Beyond what holds in each life,
//! an acquire debits a parent that was in force for the entity at some time between one cache time before it began and
//! its end. What holds for refunds is in [`crate::judge::lives`].

use std::collections::BTreeSet;

use zae_limiter_core::EntityId;
use zae_limiter_core::acquire::Grant;
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::bucket::is_disputed;
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::removal::delete_bucket;
use zae_limiter_core::schema::{BucketId, meta_key};
use zae_limiter_core::sync::owner_pins;
use zae_limiter_core::table::{Condition, Delete, Key, Op, Put};

use super::{Event, Step, World};
use crate::plan::{Action, Rule};
use crate::rng::Rng;
use crate::rows::change::Source;

/// Microseconds between the requests of a deletion.
const STRIDE_US: u64 = 1500;

/// How much later than its time to live a configuration may be used, by a clock that drifts, in microseconds.
const DRIFT_US: u64 = 100_000;

impl World<'_> {
    /// An entity is deleted, and created again.
    pub(crate) fn recreate(&mut self, action: usize, step: Step) {
        let plan = self.plan;
        let Some((
            _,
            Action::Recreate {
                entity,
                parent,
                rules,
            },
        )) = plan.actions.get(action)
        else {
            return;
        };
        let (entity, parent) = (*entity, *parent);
        let id = self.names.bucket(entity);
        if *self.lives.deleting.entry(entity).or_insert(action) != action {
            return;
        }
        if let Some(op) = self.lives.pending.remove(&action) {
            let reply = self.write(Source::Admin, &op);
            self.note(|| format!("the bucket of {} is deleted: {reply:?}", id.entity));
        }
        self.note(|| format!("{} is deleted and created again: {step:?}", id.entity));
        let next = match step {
            Step::Buckets | Step::Rest => {
                // Under other conditions than when it was read, it is read again.
                if self.ends_life(action, &id, |_| Some(Vec::new())) {
                    (self.now_us, step)
                } else {
                    // Without the first shard, none is of a life that lasts.
                    for shard in self.rows(entity).into_keys() {
                        self.delete_now(id.key(shard), Condition::ALWAYS);
                    }
                    match step {
                        Step::Buckets => (self.now_us, Step::Record),
                        _ => (self.now_us, Step::Orphans),
                    }
                }
            }
            Step::Record => {
                let meta = meta_key(&self.names.namespace, &id.entity);
                let stored = self.table.get(&meta).and_then(|item| item.get("pgen")?.as_int());
                self.lives.generations.insert(entity, stored.unwrap_or(0) as i64);
                let keys = [self.names.config_key(Some(entity)), meta];
                for key in keys {
                    self.delete_now(key, Condition::ALWAYS);
                }
                self.owned_by(entity, None);
                (self.now_us, Step::Rest)
            }
            Step::Orphans => {
                let disputed = |image: &Bucket| is_disputed(&image.owner, None);
                let pins = |image: &Bucket| disputed(image).then(|| owner_pins(&image.owner).into());
                let mut found = self.ends_life(action, &id, pins);
                for shard in self
                    .rows(entity)
                    .into_keys()
                    .filter(|_| !found)
                    .collect::<Vec<_>>()
                {
                    let key = id.key(shard);
                    let image = self.table.get(&key).and_then(|item| Bucket::decode(item).ok());
                    if let Some(image) = image.filter(disputed) {
                        found = true;
                        let condition = Condition::All(owner_pins(&image.owner).into());
                        self.schedule_delete(self.now_us + STRIDE_US, key, condition);
                    }
                }
                let next = if found { Step::Orphans } else { Step::Birth };
                (self.now_us + STRIDE_US, next)
            }
            Step::Birth => {
                self.lives.deleting.remove(&entity);
                self.stats.recreated += 1;
                self.be_born(action, entity, parent, rules.as_deref());
                return;
            }
        };
        let (at, step) = next;
        self.schedule(at + STRIDE_US, Event::Recreate { action, step });
    }

    /// Prepares to delete a bucket, if its first shard is there and `pins` has conditions for it.
    fn ends_life(
        &mut self,
        action: usize,
        id: &BucketId,
        pins: impl Fn(&Bucket) -> Option<Vec<Condition>>,
    ) -> bool {
        let first = self.table.get(&id.key(0));
        let first = first.and_then(|item| Bucket::decode(item).ok());
        let op = first.and_then(|first| delete_bucket(id, &first, pins(&first)?));
        let is_there = op.is_some();
        self.lives.pending.extend(op.map(|op| (action, op)));
        is_there
    }

    fn be_born(&mut self, action: usize, entity: usize, parent: Option<usize>, rules: Option<&[Rule]>) {
        // A generation begins with the clock of the machine that creates the entity, which may be behind that of the
        // machine before.
        let former = self.lives.generations.get(&entity).copied().unwrap_or(0);
        let mut rng = Rng::of(self.plan.seed, (action as u64) << 8 | 0xfe);
        let generation = rng.pick(&[self.true_ms(), former - 1, former + 1]);
        let mut item = crate::state::setup::meta(self.plan, &self.names, entity, parent, generation);
        if let Ok(mut record) = MetaRecord::decode(&item) {
            record.entity.cascade = parent.is_some();
            record.generation = Some(generation);
            record.incarnation = Some(format!("{:016x}", 0xb1 + action as u64).into());
            item = record.encode(&self.names.namespace);
        }
        let condition = Condition::Absent("PK".into());
        let _ = self.write(Source::Admin, &Op::Put(Put { item, condition }));
        self.owned_by(entity, parent);
        if let Some(rules) = rules {
            self.set_limits(Some(entity), rules);
        }
    }

    fn schedule_delete(&mut self, at: u64, key: Key, condition: Condition) {
        let op = Op::Delete(Delete { key, condition });
        let source = Source::Admin;
        self.schedule(at, Event::Other { source, op });
    }

    fn delete_now(&mut self, key: Key, condition: Condition) {
        let _ = self.write(Source::Admin, &Op::Delete(Delete { key, condition }));
    }

    /// An entity cascades to this parent from now on.
    pub(crate) fn owned_by(&mut self, entity: usize, parent: Option<usize>) {
        self.owners.entry(entity).or_default().push((self.now_us, parent));
    }

    /// Whether an admitted acquire debited a parent that was in force.
    pub(crate) fn judge_parent(&self, job: usize, grants: &[Grant]) -> Result<(), String> {
        let plan = self.plan;
        let Some((
            began,
            Action::Acquire {
                entity,
                amounts,
                also,
                ..
            },
        )) = plan.actions.get(self.jobs[job].action)
        else {
            return Ok(());
        };
        // Reads that show what was long ago are bounded by nothing.
        if plan.stale_reads > 0 {
            return Ok(());
        }
        let since = began.saturating_sub(plan.config_ttl_ms.unsigned_abs() * 1000 + DRIFT_US);
        let own = &self.names.entities[*entity];
        // Of each resource with its amounts: those of a further one are the same for all entities.
        let of_further = |(more, amounts): &'_ (usize, Vec<(usize, i64)>)| {
            let rules = &plan.more[*more];
            let asks = amounts
                .iter()
                .any(|(limit, _)| rules.iter().any(|rule| rule.limit == *limit));
            (&self.names.more[*more], asks)
        };
        let asks_parent = |parent: usize| amounts.iter().any(|(limit, _)| self.has_limit(parent, *limit));
        let further = also
            .iter()
            .map(of_further)
            .map(|(resource, asks)| (resource, Some(asks)));
        for (resource, asks) in std::iter::once((&self.names.resource, None)).chain(further) {
            let debited: BTreeSet<&EntityId> = grants
                .iter()
                .filter(|grant| grant.id.resource == *resource)
                .map(|grant| &grant.id.entity)
                .filter(|id| *id != own)
                .collect();
            let asks = |parent: usize| asks.unwrap_or_else(|| asks_parent(parent));
            if !self.is_chain(&mut vec![*entity], &debited, since, &asks) {
                return Err(format!(
                    "job {job} debited {debited:?} above {own} for {resource}, which were not above it"
                ));
            }
        }
        Ok(())
    }

    /// Who was above an entity at some time since then.
    fn parents_since(&self, entity: usize, since: u64) -> Vec<Option<usize>> {
        let planned = &self.plan.entities[entity];
        let first = planned.parent.filter(|_| planned.cascade && planned.meta);
        let mut in_force = vec![first];
        for (at, parent) in self.owners.get(&entity).into_iter().flatten() {
            if *at < since {
                in_force.clear();
            }
            in_force.push(*parent);
        }
        in_force
    }

    /// Whether these entities were debited because they are above the last of a chain: no other, and of those above none is left
    /// out that has one of the limits asked for.
    fn is_chain(
        &self,
        chain: &mut Vec<usize>,
        debited: &BTreeSet<&EntityId>,
        since: u64,
        asks: &dyn Fn(usize) -> bool,
    ) -> bool {
        let Some(last) = chain.last() else { return false };
        let parents = self.parents_since(*last, since);
        parents.into_iter().any(|parent| {
            let ends = chain.len() >= self.plan.depth.get();
            let Some(parent) = parent.filter(|parent| !ends && !chain.contains(parent)) else {
                return debited.is_empty();
            };
            let mut others = debited.clone();
            // An entity above has a say only on the limits that it has.
            if !others.remove(&self.names.entities[parent]) && asks(parent) {
                return false;
            }
            chain.push(parent);
            let is_one = self.is_chain(chain, &others, since, asks);
            chain.pop();
            is_one
        })
    }

    /// Whether an entity has a limit at any time.
    fn has_limit(&self, entity: usize, limit: usize) -> bool {
        let has = |rules: &[Rule]| rules.iter().any(|rule| rule.limit == limit);
        has(&self.plan.rules) && self.plan.entities[entity].rules.as_deref().is_none_or(has)
    }
}
