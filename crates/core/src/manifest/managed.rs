//! The record of what manifests manage in a namespace: which levels, not what they hold.
//!
//! Only what is managed is ever deleted by an apply. A level that an apply makes gets into the record before it is
//! written, and leaves it after it is gone, so that whatever interrupts an apply, nothing that it made is left unmanaged.
//! One that was set by hand gets into it only once it is as declared.

use std::collections::{BTreeMap, BTreeSet};

use super::Manifest;
use super::target::Target;
use crate::error::RecordError;
use crate::name::{EntityId, NamespaceId, ResourceName, ResourceScope};
use crate::records::reader::Reader;
use crate::schema::{CONFIG, add_namespace_index, key_item, provisioner_key};
use crate::table::{Condition, Item, Key, Put, Value};

/// The most bytes that DynamoDB stores in one item.
pub const MOST_BYTES: usize = 400 * 1024;

/// The levels that manifests manage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Managed {
    /// Whether the system level is.
    pub system: bool,
    /// The resources, by name as stored.
    pub resources: BTreeSet<String>,
    /// The resources of entities, by id and name as stored.
    pub entities: BTreeMap<String, BTreeSet<String>>,
}

impl Managed {
    /// The levels that a manifest declares.
    pub fn of(manifest: &Manifest) -> Self {
        let names = |scopes: &BTreeMap<ResourceScope, _>| scopes.keys().map(ToString::to_string).collect();
        Self {
            system: manifest.system.is_some(),
            resources: manifest.resources.keys().map(ToString::to_string).collect(),
            entities: manifest
                .entities
                .iter()
                .map(|(id, scopes)| (id.to_string(), names(scopes)))
                .collect(),
        }
    }

    /// Of levels one by one.
    pub fn of_targets<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Self {
        let mut managed = Self::default();
        for target in targets {
            match target {
                Target::System => managed.system = true,
                Target::Resource(name) => drop(managed.resources.insert(name.to_string())),
                Target::Entity(id, scope) => {
                    let names = managed.entities.entry(id.to_string()).or_default();
                    names.insert(scope.to_string());
                }
            }
        }
        managed
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] if a part of it is of another type: what is managed must not be guessed.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("record of managed levels", item);
        let texts = |attribute: &str, value: &Value| match value {
            Value::L(list) => list
                .iter()
                .map(|value| value.as_text().map(str::to_owned))
                .collect::<Option<BTreeSet<_>>>()
                .ok_or_else(|| reader.corrupt(attribute, "lists something that is not a text")),
            _ => Err(reader.corrupt(attribute, "is not a list of texts")),
        };
        let resources = match reader.get("managed_resources") {
            None => BTreeSet::new(),
            Some(value) => texts("managed_resources", value)?,
        };
        let entities = match reader.get("managed_entities") {
            None => BTreeMap::new(),
            Some(Value::M(entities)) => entities
                .iter()
                .map(|(id, value)| Ok((id.clone(), texts("managed_entities", value)?)))
                .collect::<Result<_, RecordError>>()?,
            Some(_) => return Err(reader.corrupt("managed_entities", "is not a map")),
        };
        Ok(Self {
            system: reader.bool_opt("managed_system")?.unwrap_or(false),
            resources,
            entities,
        })
    }

    /// Adds all that another set manages.
    pub fn add(&mut self, other: &Self) {
        self.system |= other.system;
        self.resources.extend(other.resources.iter().cloned());
        for (id, names) in &other.entities {
            self.entities
                .entry(id.clone())
                .or_default()
                .extend(names.iter().cloned());
        }
    }

    /// Whether a level is managed.
    pub fn contains(&self, target: &Target) -> bool {
        match target {
            Target::System => self.system,
            Target::Resource(name) => self.resources.contains(name.as_str()),
            Target::Entity(id, scope) => self
                .entities
                .get(id.as_str())
                .is_some_and(|names| names.contains(scope.as_str())),
        }
    }

    /// Takes a level out, and an entity with its last one.
    pub fn remove(&mut self, target: &Target) {
        match target {
            Target::System => self.system = false,
            Target::Resource(name) => drop(self.resources.remove(name.as_str())),
            Target::Entity(id, scope) => {
                if let Some(names) = self.entities.get_mut(id.as_str()) {
                    names.remove(scope.as_str());
                    if names.is_empty() {
                        self.entities.remove(id.as_str());
                    }
                }
            }
        }
    }

    /// Takes out the entities of which nothing is managed, unless another set has them.
    pub fn remove_empty(&mut self, but: &Self) {
        self.entities
            .retain(|id, names| !names.is_empty() || but.entities.contains_key(id));
    }

    /// The managed levels, apart from [impossible](Self::take_impossible) ones.
    pub fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        if self.system {
            targets.push(Target::System);
        }
        let resources = self.resources.iter().map(ResourceName::new);
        targets.extend(resources.flatten().map(Target::Resource));
        for (id, names) in &self.entities {
            let Ok(id) = EntityId::new(id) else { continue };
            let scopes = names.iter().map(|name| ResourceScope::new(name));
            targets.extend(scopes.flatten().map(|scope| Target::Entity(id.clone(), scope)));
        }
        targets
    }

    /// Takes out levels whose names no library accepts, and returns the keys of their records. A client that did not
    /// check names wrote them. No client reads them, and no index lists them.
    pub fn take_impossible(&mut self, namespace: &NamespaceId) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut key = |pk: String, sk: String| {
            let sk = sk.into();
            keys.push(Key { pk, sk });
        };
        self.resources.retain(|name| {
            let possible = ResourceName::new(name).is_ok();
            if !possible {
                key(format!("{namespace}/RESOURCE#{name}"), CONFIG.to_owned());
            }
            possible
        });
        for (id, names) in &mut self.entities {
            let known = EntityId::new(id).is_ok();
            names.retain(|name| {
                let possible = known && ResourceScope::new(name).is_ok();
                if !possible {
                    key(format!("{namespace}/ENTITY#{id}"), format!("{CONFIG}#{name}"));
                }
                possible
            });
        }
        self.entities
            .retain(|id, names| !names.is_empty() || EntityId::new(id).is_ok());
        keys
    }

    /// Stores the set in a record.
    pub(super) fn store(&self, item: &mut Item) {
        let texts = |names: &BTreeSet<String>| Value::L(names.iter().map(Value::text).collect());
        item.insert("managed_system".into(), Value::Bool(self.system));
        item.insert("managed_resources".into(), texts(&self.resources));
        let entities = self.entities.iter();
        let entities = entities.map(|(id, names)| (id.clone(), texts(names))).collect();
        item.insert("managed_entities".into(), Value::M(entities));
    }

    /// The write that stores the set in place of the record as it was read, attributes that are not understood
    /// included.
    ///
    /// Guards that the record is as it was read; refused, it must be read again and merged.
    pub fn put(&self, namespace: &NamespaceId, old: Option<&Item>, applied: Option<&Applied<'_>>) -> Put {
        let key = provisioner_key(namespace);
        let mut item = old.cloned().unwrap_or_else(|| key_item(&key));
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        self.store(&mut item);
        if let Some(applied) = applied {
            item.insert("last_applied".into(), Value::text(applied.at));
            item.insert("applied_hash".into(), Value::text(applied.hash));
        }
        let revision = old.and_then(|old| old.get("revision")?.as_int()).unwrap_or(0);
        item.insert("revision".into(), Value::int(revision.wrapping_add(1)));
        let condition = match old {
            None => Condition::Absent("PK".into()),
            // Clients that know no revision drop it, and change the other two each time.
            Some(old) => Condition::All(
                ["revision", "last_applied", "applied_hash"]
                    .map(|name| Condition::same(name.into(), old.get(name).cloned()))
                    .into(),
            ),
        };
        Put { item, condition }
    }
}

/// The attributes that an apply stores beside the set.
#[derive(Debug, Clone, Copy)]
pub struct Applied<'a> {
    /// When it ended, in ISO 8601.
    pub at: &'a str,
    /// The manifest's fingerprint.
    pub hash: &'a str,
}

/// How many bytes an item takes by DynamoDB's count.
pub fn size_of(item: &Item) -> usize {
    item.iter()
        .map(|(name, value)| name.len() + size_of_value(value))
        .sum()
}

fn size_of_value(value: &Value) -> usize {
    match value {
        Value::S(text) => text.len(),
        Value::N(digits) => digits.len().div_ceil(2) + 2,
        Value::Bool(_) | Value::Null | Value::Other => 1,
        Value::M(map) => {
            3 + map
                .iter()
                .map(|(name, value)| name.len() + size_of_value(value) + 1)
                .sum::<usize>()
        }
        Value::L(list) => 3 + list.iter().map(|value| size_of_value(value) + 1).sum::<usize>(),
        Value::Ss(set) => set.iter().map(String::len).sum(),
    }
}
