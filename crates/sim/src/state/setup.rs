//! The names in a plan, and the table before a run.

use std::time::{Duration, SystemTime};

use zae_limiter_core::bucket::limit_attr;
use zae_limiter_core::config::limit_attributes;
use zae_limiter_core::depth::CascadeDepth;
use zae_limiter_core::entity::{MetaRecord, Metadata};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::schedule::{ResetSchedule, Schedule, ScheduleEntry};
use zae_limiter_core::schema::{BucketId, entity_config_key, key_item, resource_config_key};
use zae_limiter_core::table::{Condition, Item, Key, Op, Put, Value};
use zae_limiter_core::{
    Entity, EntityId, EpochMillis, Limit, LimitBuilder, LimitName, NamespaceId, Recovery, ResourceName,
    ResourceScope,
};

use crate::plan::shape::{Change, Regain, Shape, Window, ZONES};
use crate::plan::{EntityPlan, LIMITS, Origin, Plan, Rule};
use crate::time::EPOCH_MS;

/// The names of everything in a plan.
#[derive(Debug, Clone)]
pub struct Names {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The resource.
    pub resource: ResourceName,
    /// Further resources.
    pub more: Vec<ResourceName>,
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
            more: (0..plan.more.len())
                .map(|i| ResourceName::new(format!("more-{i}")).expect("a valid name"))
                .collect(),
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

    /// An entity's bucket of any resource.
    pub(crate) fn bucket_in(&self, entity: &EntityId, resource: &ResourceName) -> BucketId {
        BucketId {
            resource: resource.clone(),
            ..self.bucket_of(entity)
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
    rules.iter().filter_map(|rule| limit(rule).build().ok()).collect()
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn limit(rule: &Rule) -> LimitBuilder {
    let zone = ZONES[rule.shape.zone];
    let (name, capacity) = (LIMITS[rule.limit], positive(rule.capacity));
    let secs = |secs: i64| Duration::from_secs(positive(secs));
    let limit = match rule.shape.regain {
        Regain::Rate => Limit::custom(name, capacity, positive(rule.refill), secs(rule.period_secs)),
        Regain::Resets(minutes) => Limit::quota(name, capacity).resets(minutes.cron(), zone),
        Regain::Session(length) => Limit::session(name, capacity, secs(length)),
    };
    let entry = |window: &Window| {
        let entry = ScheduleEntry::on(window.minutes.cron()).zone(zone);
        match window.change {
            Change::Scale(thousandths) => entry.scale(f64::from(thousandths) / 1000.0),
            Change::Capacity(tokens) => entry.capacity(positive(tokens)),
            Change::Refill(tokens, period) => {
                entry.refill_amount(positive(tokens)).refill_period(secs(period))
            }
        }
    };
    let entries: Vec<_> = rule.shape.windows.iter().flatten().map(entry).collect();
    if entries.is_empty() {
        limit
    } else {
        limit.scheduled(entries)
    }
}

pub(crate) fn config_item(key: &Key, rules: &[Rule], disabled: Option<Value>) -> Item {
    let mut item = key_item(key);
    for (name, value) in limit_attributes(&limits(rules)) {
        item.insert(name.into(), value);
    }
    if let Some(disabled) = disabled {
        item.insert("disabled".into(), disabled);
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
    if plan.depth != CascadeDepth::default() {
        put(plan.depth.put(&names.namespace).item);
    }
    put(config_item(&names.config_key(None), &plan.rules, None));
    for (resource, rules) in names.more.iter().zip(&plan.more) {
        put(config_item(
            &resource_config_key(&names.namespace, resource),
            rules,
            None,
        ));
    }
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
    MetaRecord::new(
        Entity {
            id: names.entities[i].clone(),
            name: "n".into(),
            parent: parent.map(|parent| names.entities[parent].clone()),
            cascade: entity.cascade,
            metadata: Metadata::new(),
            created_at: EpochMillis::parse("2026-11-21T19:43:18Z").map(SystemTime::from),
        },
        (!old || generation != 7).then_some(generation),
        (!old).then(|| "80729c5437a39750".into()),
    )
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
    let mut rules = rules.clone();
    if entity.origin == Origin::Old {
        // From before the limits had shapes.
        for rule in &mut rules {
            rule.shape = Shape::default();
        }
    }
    let zone = limits(&rules).iter().find_map(|limit| limit.zone().cloned());
    if let Some(zone) = zone {
        put("sched_tz", Value::text(zone.name()));
    }
    for (at, limit) in limits(&rules).iter().enumerate() {
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
            let schedule = limit.schedule().map_or_else(|| "-".to_owned(), Schedule::encode);
            let resets = limit
                .reset_schedule()
                .map_or_else(|| "-".to_owned(), ResetSchedule::encode);
            put(&limit_attr(name, "sched"), Value::text(schedule));
            put(&limit_attr(name, "rsched"), Value::text(resets));
        }
        if let Recovery::Session { secs } = limit.recovery() {
            put(&limit_attr(name, "rsa"), Value::int(*secs));
            put(&limit_attr(name, "ws"), Value::int(EPOCH_MS - 1000));
            put(&limit_attr(name, "wa"), Value::int(EPOCH_MS - 1000));
        }
        if limit.is_quota() {
            put(&limit_attr(name, "gc"), Value::int(entity.shards));
        }
    }
    for (part, value) in [("cp", 1_000_000), ("ra", 1_000_000), ("rp", 1000), ("tc", 0)] {
        put(&limit_attr("wcu", part), Value::int(value));
    }
    put("b_wcu_tk", Value::int(entity.write_units * 1000));
    item
}
