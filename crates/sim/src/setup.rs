//! The table before a run, and what others than our clients write during it.

use std::collections::BTreeMap;

use zae_limiter_core::bucket::limit_attr;
use zae_limiter_core::config::limit_attributes;
use zae_limiter_core::entity::{MetaRecord, Metadata};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::schema::{BucketId, entity_config_key, key_item, meta_key, resource_config_key};
use zae_limiter_core::table::{Condition, Delete, Item, Key, Op, Put, Update, Value};
use zae_limiter_core::{Entity, EntityId, Limit, LimitName, NamespaceId, ResourceName, ResourceScope};

use crate::check::Source;
use crate::plan::{Action, EntityPlan, LIMITS, Origin, Plan, Rule};
use crate::row::Row;
use crate::world::{EPOCH_MS, Event, World, true_ms};

/// The names of everything in a plan.
#[derive(Debug, Clone)]
pub struct Names {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The resource.
    pub resource: ResourceName,
    /// The entities.
    pub entities: Vec<EntityId>,
    /// The limits.
    pub limits: Vec<LimitName>,
}

impl Names {
    /// Names a plan's actors.
    ///
    /// # Panics
    /// Never: the names are valid.
    pub fn of(plan: &Plan) -> Self {
        let name = |i| EntityId::new(format!("e{i}:x@y.z-_")).expect("a valid name");
        Self {
            namespace: NamespaceId::new("dSkXlbmmfyU").expect("a valid name"),
            resource: ResourceName::new("a/b:8b").expect("a valid name"),
            entities: (0..plan.entities.len()).map(name).collect(),
            limits: LIMITS
                .iter()
                .map(|name| LimitName::new(name).expect("a valid name"))
                .collect(),
        }
    }

    /// An entity's bucket.
    pub fn bucket(&self, entity: usize) -> BucketId {
        self.bucket_of(&self.entities[entity])
    }

    /// An entity's bucket.
    pub fn bucket_of(&self, entity: &EntityId) -> BucketId {
        BucketId {
            namespace: self.namespace.clone(),
            entity: entity.clone(),
            resource: self.resource.clone(),
        }
    }

    pub(crate) fn config_key(&self, entity: Option<usize>) -> Key {
        match entity {
            Some(entity) => {
                let scope = ResourceScope::One(self.resource.clone());
                entity_config_key(&self.namespace, &self.entities[entity], &scope)
            }
            None => resource_config_key(&self.namespace, &self.resource),
        }
    }
}

/// A plan's rules as limits.
pub fn limits(rules: &[Rule]) -> Vec<Limit> {
    let limit =
        |rule: &Rule| Limit::custom(LIMITS[rule.limit], rule.capacity, rule.refill, rule.period_secs).build();
    rules.iter().filter_map(|rule| limit(rule).ok()).collect()
}

fn config_item(key: &Key, rules: &[Rule], disabled: Option<bool>) -> Item {
    let mut item = key_item(key);
    for (name, value) in limit_attributes(&limits(rules)) {
        item.insert(name.into(), value);
    }
    if let Some(disabled) = disabled {
        item.insert("disabled".into(), Value::Bool(disabled));
    }
    item
}

/// The table before the run.
pub fn table(plan: &Plan, names: &Names) -> MemoryTable {
    let mut table = MemoryTable::new();
    let mut put = |item| {
        let put = Put {
            item,
            condition: Condition::ALWAYS,
        };
        let done = table.call(&Op::Put(put));
        debug_assert!(done.is_ok(), "{done:?}");
    };
    put(config_item(&names.config_key(None), &plan.rules, None));
    for (i, entity) in plan.entities.iter().enumerate() {
        if let Some(rules) = &entity.rules {
            put(config_item(&names.config_key(Some(i)), rules, None));
        }
        if entity.meta {
            put(meta(plan, names, i, entity.parent, 7));
        }
        if entity.origin != Origin::None {
            for shard in 0..entity.shards {
                put(foreign_bucket(plan, names, i, entity, shard));
            }
        }
    }
    table
}

pub(crate) fn meta(plan: &Plan, names: &Names, i: usize, parent: Option<usize>, generation: i64) -> Item {
    let entity = &plan.entities[i];
    let old = entity.origin == Origin::Old;
    MetaRecord {
        entity: Entity {
            id: names.entities[i].clone(),
            name: "n".into(),
            parent: parent.map(|parent| names.entities[parent].clone()),
            cascade: entity.cascade,
            metadata: Metadata::new(),
            created_at: "2026-11-21T19:43:18Z".into(),
        },
        generation: (!old || generation != 7).then_some(generation),
        incarnation: (!old).then(|| "80729c5437a39750".into()),
    }
    .encode(&names.namespace)
}

/// A bucket as another client left it.
fn foreign_bucket(plan: &Plan, names: &Names, i: usize, entity: &EntityPlan, shard: u32) -> Item {
    let mut item = names.bucket(i).key_attributes(shard);
    let mut put = |name: &str, value| drop(item.insert(name.to_owned(), value));
    let rules = entity.rules.as_ref().unwrap_or(&plan.rules);
    put("rf", Value::int(EPOCH_MS - 250));
    let doubled = if shard == 0 { entity.untold } else { 0 };
    put("shard_count", Value::int(entity.shards << doubled));
    put("cascade", Value::Bool(entity.cascade));
    if let Some(parent) = entity.parent {
        put("parent_id", Value::text(names.entities[parent].as_str()));
    }
    if entity.origin == Origin::New {
        put("vu", Value::int(0));
        if entity.meta {
            put("pgen", Value::int(7));
            put("pinc", Value::text("80729c5437a39750"));
        }
    }
    for (at, limit) in limits(rules).iter().enumerate() {
        let (name, params) = (limit.name().as_str(), limit.params());
        if at > 0 && entity.origin == Origin::New && entity.filled < 100 {
            // A limit that was configured after this bucket was made; an old client has left a stub.
            put(&limit_attr(name, "tk"), Value::int(-5));
            put(&limit_attr(name, "tc"), Value::int(5));
            continue;
        }
        let full = params.capacity / i128::from(entity.shards);
        let held = full * i128::from(entity.filled) / 100;
        put(&limit_attr(name, "tk"), Value::int(held));
        put(&limit_attr(name, "tc"), Value::int(full - held));
        put(&limit_attr(name, "cp"), Value::int(params.capacity));
        put(&limit_attr(name, "ra"), Value::int(params.refill));
        put(&limit_attr(name, "rp"), Value::int(params.period_ms));
        if entity.origin == Origin::New {
            put(&limit_attr(name, "sched"), Value::text("-"));
            put(&limit_attr(name, "rsched"), Value::text("-"));
        }
    }
    for (part, value) in [("cp", 1_000_000), ("ra", 1_000_000), ("rp", 1000), ("tc", 0)] {
        put(&limit_attr("wcu", part), Value::int(value));
    }
    put("b_wcu_tk", Value::int(entity.write_units * 1000));
    item
}

/// Milliseconds between the writes of a fan-out.
const STRIDE_US: u64 = 3000;

impl World<'_> {
    /// Begins an action that is not an acquire.
    pub(crate) fn act_other(&mut self, action: &Action) {
        match action {
            Action::Acquire { .. } | Action::Recreate { .. } | Action::Nothing => {}
            Action::Crash(process) => {
                self.stats.crashes += 1;
                self.crash(*process);
            }
            Action::SetLimits { entity, rules } => {
                self.stats.limit_changes += 1;
                self.set_limits(*entity, rules);
            }
            Action::SetDisabled(entity, disabled) => {
                self.stats.flag_changes += 1;
                self.set_disabled(*entity, *disabled);
            }
            Action::Move(child, parent) => self.move_to(*child, *parent),
            Action::Sweep => self.sweep(),
            Action::DrainWrites(entity, left) => self.drain(*entity, *left),
            Action::ForeignTake(entity, amounts) => self.foreign_take(*entity, amounts),
            Action::ForeignRefill(entity) => self.foreign_refill(*entity, 0),
            Action::ForeignClock(entity, off_ms) => self.foreign_refill(*entity, *off_ms),
        }
    }

    pub(crate) fn true_ms(&self) -> i64 {
        true_ms(self.now_us)
    }

    pub(crate) fn rows(&self, entity: usize) -> BTreeMap<u32, Row> {
        let id = self.names.bucket(entity);
        let row = |shard| Some((shard, Row::read(self.table.get(&id.key(shard))?).ok()?));
        (0..32).filter_map(row).collect()
    }

    /// Configuration first, then every shard found, in two passes.
    fn fan_out(&mut self, entity: usize, update: impl Fn(Key) -> Update) {
        let id = self.names.bucket(entity);
        let mut at = self.now_us;
        for _ in 0..2 {
            for shard in 0..32 {
                at += STRIDE_US / 3;
                let op = Op::Update(update(id.key(shard)));
                let source = Source::Admin;
                self.schedule(at, Event::Other { source, op });
            }
        }
    }

    pub(crate) fn set_limits(&mut self, entity: Option<usize>, rules: &[Rule]) {
        let key = self.names.config_key(entity);
        let disabled = self
            .table
            .get(&key)
            .and_then(|item| item.get("disabled")?.as_bool());
        let op = Op::Put(Put {
            item: config_item(&key, rules, disabled),
            condition: Condition::ALWAYS,
        });
        let _ = self.write(Source::Admin, &op);
        let Some(entity) = entity else { return };
        let limits = limits(rules);
        self.fan_out(entity, |key| {
            let mut update = Update::new(key);
            let mut parts = vec![Condition::Exists("PK".into())];
            for limit in &limits {
                let (name, params) = (limit.name().as_str(), limit.params());
                update
                    .set
                    .push((limit_attr(name, "cp"), Value::int(params.capacity)));
                update
                    .set
                    .push((limit_attr(name, "ra"), Value::int(params.refill)));
                update
                    .set
                    .push((limit_attr(name, "rp"), Value::int(params.period_ms)));
                // 0.17 would write the parameters of a limit that the item lacks; that is data without balance.
                parts.push(Condition::Exists(limit_attr(name, "tk")));
            }
            update.set.push(("vu".into(), Value::int(0)));
            update.remove.push("ttl".into());
            update.condition = Condition::All(parts);
            update
        });
    }

    fn set_disabled(&mut self, entity: usize, disabled: bool) {
        let mut update = Update::new(self.names.config_key(Some(entity)));
        update.set.push(("disabled".into(), Value::Bool(disabled)));
        let _ = self.write(Source::Admin, &Op::Update(update));
        self.fan_out(entity, |key| {
            let mut update = Update::new(key);
            if disabled {
                update.set.push(("disabled".into(), Value::Bool(true)));
            } else {
                update.remove.push("disabled".into());
            }
            update.condition = Condition::Exists("PK".into());
            update
        });
    }

    fn move_to(&mut self, child: usize, parent: usize) {
        let key = meta_key(&self.names.namespace, &self.names.entities[child]);
        let Some(stored) = self.table.get(&key) else {
            return;
        };
        if child == parent || self.plan.entities[parent].parent == Some(child) {
            return;
        }
        self.stats.moves += 1;
        let Ok(mut record) = MetaRecord::decode(stored) else {
            return;
        };
        let generation = stored.get("pgen").and_then(Value::as_int).unwrap_or(100) as i64 + 1;
        record.entity.parent = Some(self.names.entities[parent].clone());
        record.generation = Some(generation);
        let op = Op::Put(Put {
            item: record.encode(&self.names.namespace),
            condition: Condition::ALWAYS,
        });
        let _ = self.write(Source::Admin, &op);
        self.owned_by(child, Some(parent).filter(|_| record.entity.cascade));
    }

    fn sweep(&mut self) {
        let now = self.true_ms() / 1000;
        let expired = |(key, item): (&Key, &Item)| {
            let ttl = item.get("ttl").and_then(Value::as_int)?;
            (ttl < i128::from(now)).then(|| key.clone())
        };
        let keys: Vec<Key> = self.table.items().filter_map(expired).collect();
        for key in keys {
            self.stats.swept += 1;
            self.note(|| format!("swept {key}"));
            let op = Op::Delete(Delete {
                key,
                condition: Condition::ALWAYS,
            });
            let _ = self.write(Source::Sweep, &op);
        }
    }

    fn drain(&mut self, entity: usize, left: i64) {
        let id = self.names.bucket(entity);
        for shard in self.rows(entity).into_keys() {
            let mut update = Update::new(id.key(shard));
            update.set.push(("b_wcu_tk".into(), Value::int(left * 1000)));
            let _ = self.write(Source::Admin, &Op::Update(update));
        }
    }

    /// The fast write of a 0.17 client.
    fn foreign_take(&mut self, entity: usize, amounts: &[(usize, i64)]) {
        let mut update = Update::new(self.names.bucket(entity).key(0));
        let mut parts = vec![
            Condition::Exists("PK".into()),
            Condition::Absent("disabled".into()),
            Condition::Absent("vu".into()),
            Condition::Absent("ttl".into()),
        ];
        for (limit, amount) in amounts {
            let (name, cost) = (LIMITS[*limit], i128::from(*amount) * 1000);
            update.add.push((limit_attr(name, "tk"), -cost));
            update.add.push((limit_attr(name, "tc"), cost));
            parts.push(Condition::AtLeast(limit_attr(name, "tk"), cost));
            parts.push(Condition::Exists(limit_attr(name, "cp")));
        }
        update.condition = Condition::All(parts);
        if let Ok(zae_limiter_core::table::Answer::Applied(_)) =
            self.write(Source::Foreign, &Op::Update(update))
        {
            self.stats.foreign_writes += 1;
        }
    }

    /// The refill of the stream function, or of a client whose clock is off, from an image that is up to date.
    fn foreign_refill(&mut self, entity: usize, off_ms: i64) {
        let Some(row) = self.rows(entity).remove(&0) else {
            return;
        };
        let now = self.true_ms() + off_ms;
        if row.vu.is_some() || row.disabled || now <= row.rf {
            return;
        }
        let mut update = Update::new(self.names.bucket(entity).key(0));
        update.set.push(("rf".into(), Value::int(now)));
        for (name, cell) in &row.limits {
            let earned = i128::from(now - row.rf) * (cell.ra / row.count) / cell.rp;
            let gained = earned.min(row.ceiling(cell) - cell.tk);
            if gained > 0 {
                update.add.push((limit_attr(name, "tk"), gained));
                if off_ms > 0 {
                    self.check
                        .minted(&self.names.bucket(entity), name, gained, self.now_us);
                }
            }
        }
        update.condition = Condition::Is("rf".into(), Value::int(row.rf));
        if let Ok(zae_limiter_core::table::Answer::Applied(_)) =
            self.write(Source::Foreign, &Op::Update(update))
        {
            self.stats.foreign_writes += 1;
        }
    }
}
