//! One level's record: how it is written and cleared, listed and logged.
//!
//! Single calls ([`set_entity_limits`](crate::Admin::set_entity_limits) and its like) and manifests change levels
//! through what is here, so that both leave the same behind: the record, its registry and the event of the change.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use zae_limiter_core::audit::{SYSTEM_SUBJECT, limits_detail, resource_subject};
use zae_limiter_core::config::{Config, OnUnavailable, is_limit_attribute, limit_attributes, limit_name_of};
use zae_limiter_core::manifest::Target;
use zae_limiter_core::schema::{
    add_namespace_index, entity_config_key, entity_config_pk, entity_registry_key, key_item,
    resource_registry_key,
};
use zae_limiter_core::table::{Condition, Delete, Item, Key, Part, Put, Update, Value};
use zae_limiter_core::{CorruptRecord, EntityId, Limit, NamespaceId, ResourceName, ResourceScope};

use crate::admin::Admin;
use crate::admin::audit::Event;
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::{TableExt as _, Transacted};

/// How often a change is retried when another client changes the same level at the same time.
pub(crate) const MAX_RACES: usize = 8;

/// A level's record, its registry, and what the record says of itself.
#[derive(Debug, Clone)]
pub(crate) struct LevelRecord {
    pub(crate) key: Key,
    registry: Option<Registry>,
    identity: Vec<(SmolStr, Value)>,
}

/// Where a level is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Registry {
    /// Among the counts of entities with limits of their own.
    Entities(ResourceScope),
    /// Among the resources with limits.
    Resources(ResourceName),
}

/// The change of one level, made out against what was stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The change of the record.
    pub(crate) part: Part,
    /// The change of its registry: one more, or one fewer.
    pub(crate) count: Option<(Registry, i8)>,
    /// Whether anything has changed.
    pub(crate) changes: bool,
}

impl LevelRecord {
    pub(crate) fn of(namespace: &NamespaceId, target: &Target) -> Self {
        let identity = target.identity().into_iter();
        let mut identity: Vec<_> = identity
            .map(|(name, value)| (name.into(), Value::text(value)))
            .collect();
        let registry = match target {
            Target::System => None,
            Target::Resource(resource) => Some(Registry::Resources(resource.clone())),
            Target::Entity(entity, scope) => {
                identity.push(("GSI3PK".into(), Value::S(entity_config_pk(namespace, scope))));
                identity.push(("GSI3SK".into(), Value::text(entity.as_str())));
                Some(Registry::Entities(scope.clone()))
            }
        };
        Self {
            key: target.key(namespace),
            registry,
            identity,
        }
    }

    /// Replaces the limits of a level and leaves everything else on the record: flags, retention, and attributes of
    /// newer clients. A null among the attributes removes.
    ///
    /// Guards that the record is as it was read.
    pub(crate) fn write(
        &self,
        namespace: &NamespaceId,
        old: Option<&Item>,
        attributes: &[(SmolStr, Value)],
    ) -> Result<Prepared, Error> {
        self.replace(namespace, old, |name| !is_limit_attribute(name), attributes)
    }

    /// Writes the record with the attributes of the old one that `keeps` names, and these.
    fn replace(
        &self,
        namespace: &NamespaceId,
        old: Option<&Item>,
        keeps: impl Fn(&str) -> bool,
        attributes: &[(SmolStr, Value)],
    ) -> Result<Prepared, Error> {
        let condition = match old {
            Some(old) => unchanged(&self.key, old)?,
            None => Condition::Absent("PK".into()),
        };
        let mut item = old.cloned().unwrap_or_else(|| key_item(&self.key));
        item.retain(|name, _| keeps(name));
        add_namespace_index(&mut item, namespace.as_str(), &self.key.pk);
        item.insert("config_version".into(), Value::int(1));
        for (name, value) in self.identity.iter().chain(attributes) {
            match value {
                Value::Null => drop(item.remove(name.as_str())),
                value => drop(item.insert(name.to_string(), value.clone())),
            }
        }
        let count = self.registry.clone().filter(|registry| match registry {
            // Put in again each time: a level that other clients wrote may be missing from it.
            Registry::Resources(_) => true,
            // The original's provisioner neither lists nor counts the levels that it writes.
            Registry::Entities(_) => old.is_none_or(|old| !old.contains_key("GSI3PK")),
        });
        Ok(Prepared {
            part: Part::Put(Put { item, condition }),
            count: count.map(|registry| (registry, 1)),
            changes: true,
        })
    }

    /// Sets or removes a flag of a level, and leaves everything else on the record. A record that holds nothing any more is deleted.
    /// `None` if there is nothing to do.
    ///
    /// Guards that the record is as it was read.
    pub(crate) fn flag(
        &self,
        namespace: &NamespaceId,
        old: Option<&Item>,
        name: &'static str,
        value: Option<Value>,
    ) -> Result<Option<Prepared>, Error> {
        let is_as_wanted = old.and_then(|old| old.get(name)) == value.as_ref();
        if is_as_wanted {
            return Ok(None);
        }
        if let (Some(old), None) = (old, &value)
            && old.keys().all(|kept| kept == name || goes_with_limits(kept))
            && !holds_level(old)
        {
            let bare: Item = old
                .iter()
                .filter(|(kept, _)| *kept != name)
                .map(|(kept, value)| (kept.clone(), value.clone()))
                .collect();
            let cleared = self.clear(Some(&bare))?;
            let condition = unchanged(&self.key, old)?;
            return Ok(cleared.map(|prepared| Prepared {
                part: Part::Delete(Delete {
                    key: self.key.clone(),
                    condition,
                }),
                ..prepared
            }));
        }
        let flag = [(SmolStr::new_static(name), value.unwrap_or(Value::Null))];
        self.replace(namespace, old, |_| true, &flag).map(Some)
    }

    /// Takes the limits of a level away, and its policy for outages: deletes the record, unless it holds anything
    /// else (flags, retention, what newer clients keep there), which stays. `None` if there is nothing to do.
    ///
    /// Guards that the record is as it was read.
    pub(crate) fn clear(&self, old: Option<&Item>) -> Result<Option<Prepared>, Error> {
        let Some(old) = old else {
            // Other clients write level and registry apart; a crash between leaves a name behind.
            let listed = self.registry.clone();
            let listed = listed.filter(|registry| matches!(registry, Registry::Resources(_)));
            return Ok(listed.map(|registry| Prepared {
                part: Part::Check(self.key.clone(), Condition::Absent("PK".into())),
                count: Some((registry, -1)),
                changes: false,
            }));
        };
        let unchanged = unchanged(&self.key, old)?;
        if old.keys().all(|name| goes_with_limits(name)) {
            let count = self.registry.clone().filter(|registry| match registry {
                Registry::Resources(_) => true,
                Registry::Entities(_) => old.contains_key("GSI3PK"),
            });
            return Ok(Some(Prepared {
                part: Part::Delete(Delete {
                    key: self.key.clone(),
                    condition: unchanged,
                }),
                count: count.map(|registry| (registry, -1)),
                changes: true,
            }));
        }
        let mut item = old.clone();
        item.retain(|name, _| !is_limit_attribute(name) && name != "on_unavailable");
        Ok((item.len() < old.len()).then_some(Prepared {
            part: Part::Put(Put {
                item,
                condition: unchanged,
            }),
            count: None,
            changes: true,
        }))
    }
}

/// The attributes that say what a level holds: its limits, and at the system level the policy for outages.
pub(crate) fn level_attributes(
    target: &Target,
    limits: &[Limit],
    policy: Option<OnUnavailable>,
) -> Vec<(SmolStr, Value)> {
    let mut attributes = limit_attributes(limits);
    if *target == Target::System {
        attributes.push(("on_unavailable".into(), policy_value(policy)));
    }
    attributes
}

/// The limits that a level loses, which its buckets must lose too.
pub(crate) fn stale_names(old: Option<&Item>, new: &[Limit]) -> Vec<SmolStr> {
    let old = old.into_iter().flat_map(|item| item.keys());
    let names = old.filter_map(|name| limit_name_of(name));
    let kept = |name: &str| new.iter().any(|limit| limit.name() == name);
    names.filter(|name| !kept(name)).map(SmolStr::new).collect()
}

/// The event of a level that was set.
pub(crate) fn set_event(target: &Target, limits: &[Limit], policy: Option<OnUnavailable>) -> Event {
    let mut details = Item::from([("limits".into(), limits_detail(limits))]);
    if *target == Target::System {
        details.insert("on_unavailable".into(), policy_value(policy));
    }
    event(target, "limits_set", details)
}

/// The event of a level that was deleted.
pub(crate) fn deleted_event(target: &Target, old: &Config) -> Event {
    let mut details = Item::new();
    if *target == Target::System {
        let names = old.limits.iter().map(|limit| Value::text(limit.name().as_str()));
        details.insert("limits".into(), Value::L(names.collect()));
        details.insert("on_unavailable".into(), policy_value(old.on_unavailable));
    }
    event(target, "limits_deleted", details)
}

pub(crate) fn event(target: &Target, action: &'static str, details: Item) -> Event {
    let (subject, resource) = match target {
        Target::System => (SYSTEM_SUBJECT.to_owned(), None),
        Target::Resource(resource) => (resource_subject(resource), Some(resource.to_string())),
        Target::Entity(entity, scope) => (entity.to_string(), Some(scope.to_string())),
    };
    Event {
        subject,
        action,
        resource,
        details,
    }
}

/// The stored form of a policy for outages.
fn policy_value(policy: Option<OnUnavailable>) -> Value {
    match policy {
        Some(OnUnavailable::Allow) => Value::text("allow"),
        Some(OnUnavailable::Block) => Value::text("block"),
        // Refused before it could be stored.
        Some(OnUnavailable::Degrade(_)) | None => Value::Null,
    }
}

/// How many attributes one condition compares; DynamoDB takes 4,096 bytes of it, some 16 for each.
const MAX_COMPARED: usize = 220;

/// The condition that a level's record is as it was read, so that whole records can be written: no
/// limits were set in the meantime, and no flag that would be lost.
///
/// Other clients store levels of any size. Of a very large one, not every limit is compared: a change of the rest
/// is replaced, as if it had come before.
pub(crate) fn unchanged(key: &Key, old: &Item) -> Result<Condition, Error> {
    let mut parts = Vec::with_capacity(old.len() + FLAGS.len());
    let (limits, rest): (Vec<_>, Vec<_>) = old.iter().partition(|(name, _)| is_limit_attribute(name));
    for (name, value) in rest.into_iter().chain(limits).take(MAX_COMPARED) {
        if matches!(value, Value::Other) {
            return Err(Error::Corrupt(CorruptRecord {
                record: "config",
                key: key.to_string(),
                attribute: name.clone(),
                problem: "is of a type that no client stores there; the record was left alone".into(),
            }));
        }
        parts.push(Condition::Is(name.as_str().into(), value.clone()));
    }
    let absent = FLAGS.iter().filter(|name| !old.contains_key(**name));
    parts.extend(absent.map(|name| Condition::Absent(SmolStr::new_static(name))));
    Ok(Condition::All(parts))
}

/// Attributes of a level beside limits.
const FLAGS: [&str; 3] = ["disabled", "cascade", "audit_retention_days"];

/// Whether an attribute of a configuration record has no use without limits.
fn goes_with_limits(name: &str) -> bool {
    is_limit_attribute(name)
        || name.starts_with("GSI")
        || matches!(
            name,
            "PK" | "SK" | "config_version" | "entity_id" | "resource" | "on_unavailable"
        )
}

/// Whether a record holds anything that a manifest could have put there: limits, or a policy for outages.
pub(crate) fn holds_level(item: &Item) -> bool {
    item.keys()
        .any(|name| is_limit_attribute(name) || name == "on_unavailable")
}

impl Admin {
    pub(crate) async fn level(&self, key: &Key) -> Result<Config, Error> {
        let item = self.read(key).await?;
        Ok(item
            .map(|item| Config::decode(&item))
            .transpose()?
            .unwrap_or_default())
    }

    /// As [`level`](Self::level), unless some of the limits cannot be read.
    pub(crate) async fn readable_level(&self, key: &Key) -> Result<Config, Error> {
        let config = self.level(key).await?;
        match config.unsupported {
            Some(feature) => Err(feature.into()),
            None => Ok(config),
        }
    }

    pub(crate) async fn read(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.inner.place.read(&*self.inner.table, key).await
    }

    pub(crate) async fn transact(&self, parts: Vec<Part>) -> Result<Transacted, Error> {
        self.inner.place.transact(&*self.inner.table, parts).await
    }

    /// Sets a level, and its registry with it. Returns the record that it replaced.
    pub(crate) async fn write_level(
        &self,
        record: &LevelRecord,
        attributes: &[(SmolStr, Value)],
    ) -> Result<Option<Item>, Error> {
        for _ in 0..MAX_RACES {
            let old = self.read(&record.key).await?;
            let prepared = record.write(&self.inner.namespace, old.as_ref(), attributes)?;
            if self.commit_level(prepared).await? {
                return Ok(old);
            }
        }
        Err(self.inner.place.contended(&record.key))
    }

    /// Sets or removes a flag of a level, and its registry with it.
    pub(crate) async fn write_flag(
        &self,
        record: &LevelRecord,
        name: &'static str,
        value: Option<Value>,
    ) -> Result<(), Error> {
        for _ in 0..MAX_RACES {
            let old = self.read(&record.key).await?;
            let prepared = record.flag(&self.inner.namespace, old.as_ref(), name, value.clone())?;
            let Some(prepared) = prepared else {
                return Ok(());
            };
            let gone = prepared.count.clone().filter(|(_, by)| *by < 0);
            if self.commit_level(prepared).await? {
                if let Some((registry, _)) = gone {
                    self.tidy(&registry).await?;
                }
                return Ok(());
            }
        }
        Err(self.inner.place.contended(&record.key))
    }

    /// Clears a level, and its registry with it. Returns whether there was anything to take.
    pub(crate) async fn clear_level(&self, record: &LevelRecord) -> Result<bool, Error> {
        for _ in 0..MAX_RACES {
            let old = self.read(&record.key).await?;
            let Some(prepared) = record.clear(old.as_ref())? else {
                return Ok(false);
            };
            let (changes, count) = (prepared.changes, prepared.count.clone());
            if self.commit_level(prepared).await? {
                if let (true, Some((registry, -1))) = (changes, count) {
                    self.tidy(&registry).await?;
                }
                return Ok(changes);
            }
        }
        Err(self.inner.place.contended(&record.key))
    }

    /// Record and registry change together, or neither does.
    async fn commit_level(&self, prepared: Prepared) -> Result<bool, Error> {
        let mut parts = vec![prepared.part];
        parts.extend(self.counts(prepared.count));
        Ok(self.transact(parts).await? == Transacted::Applied)
    }

    /// Deletes an entity's whole record of a scope, flags included, and counts it out of the registry. Returns
    /// whether there was one.
    pub(crate) async fn delete_counted(
        &self,
        entity: &EntityId,
        scope: &ResourceScope,
    ) -> Result<bool, Error> {
        let delete = Delete {
            key: entity_config_key(&self.inner.namespace, entity, scope),
            condition: Condition::Exists("PK".into()),
        };
        let registry = Registry::Entities(scope.clone());
        let mut parts = vec![Part::Delete(delete)];
        parts.extend(self.counts([(registry.clone(), -1)]));
        let done = self.transact(parts).await?;
        self.tidy(&registry).await?;
        Ok(done == Transacted::Applied)
    }

    /// The changes of the registries when levels come and go: one write for each registry.
    pub(crate) fn counts(&self, levels: impl IntoIterator<Item = (Registry, i8)>) -> Vec<Part> {
        let mut sums: BTreeMap<Registry, i128> = BTreeMap::new();
        for (registry, by) in levels {
            *sums.entry(registry).or_default() += i128::from(by);
        }
        let namespace = &self.inner.namespace;
        let (mut entities, mut resources) = (None, None);
        for (registry, by) in sums {
            match registry {
                Registry::Entities(scope) => entities
                    .get_or_insert_with(|| self.namespace_update(entity_registry_key(namespace)))
                    .add
                    .push((scope.as_str().into(), by)),
                Registry::Resources(name) => {
                    let update: &mut Update = resources
                        .get_or_insert_with(|| self.namespace_update(resource_registry_key(namespace)));
                    let sets = if by > 0 {
                        &mut update.add_to_set
                    } else {
                        &mut update.delete_from_set
                    };
                    sets.push(("resources".into(), name.to_string()));
                }
            }
        }
        entities.into_iter().chain(resources).map(Part::Update).collect()
    }

    /// Removes a count that has come to nothing.
    pub(crate) async fn tidy(&self, registry: &Registry) -> Result<(), Error> {
        let Registry::Entities(scope) = registry else {
            return Ok(());
        };
        let inner = &self.inner;
        let mut tidy = Update::new(entity_registry_key(&inner.namespace));
        tidy.remove.push(scope.as_str().into());
        tidy.condition = Condition::AtMost(scope.as_str().into(), 0);
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.update(tidy.clone()))
            .await?;
        Ok(())
    }

    /// Removes every count that has come to nothing; a client that was killed may have left one.
    pub(crate) async fn tidy_counts(&self) -> Result<(), Error> {
        let key = entity_registry_key(&self.inner.namespace);
        for (name, count) in self.read(&key).await?.unwrap_or_default() {
            if let (Ok(scope), Some(..=0)) = (ResourceScope::new(&name), count.as_int()) {
                self.tidy(&Registry::Entities(scope)).await?;
            }
        }
        Ok(())
    }

    /// An update of a record of the namespace that lists it in the namespace's index if it is new.
    fn namespace_update(&self, key: Key) -> Update {
        let mut index = Item::new();
        add_namespace_index(&mut index, self.inner.namespace.as_str(), &key.pk);
        let mut update = Update::new(key);
        update
            .set
            .extend(index.into_iter().map(|(name, value)| (name.into(), value)));
        update
    }
}
