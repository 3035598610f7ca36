//! Settings that a manifest declares beside levels, each with a record of its own: concurrency limits and the cascade depth.
//!
//! They are declared, managed and planned one by one: a level that has nothing but `concurrency` leaves the limits and
//! flags alone that are stored for it. The list of those that manifests manage is a record beside that of the
//! managed levels, because the Python library replaces that one with what it knows.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use super::managed::Managed;
use super::plan::Action;
use super::target::Target;
use crate::concurrency::{
    MOST, check_in_flight, concurrency_item, concurrency_limit, entity_concurrency_key,
    resource_concurrency_key, system_concurrency_key,
};
use crate::depth::{CascadeDepth, DEPTH};
use crate::error::{InvalidInput, RecordError};
use crate::name::NamespaceId;
use crate::records::reader::Reader;
use crate::schema::{add_namespace_index, depth_key, key_item, system_pk};
use crate::table::{Condition, Delete, Item, Key, Part, Put, Value};

/// A setting with a record of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// The concurrency limit of a level.
    Concurrency(Target),
    /// The cascade depth of the namespace.
    CascadeDepth,
}

impl Setting {
    /// Its key in a manifest: `concurrency` or `cascade_depth`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Concurrency(_) => "concurrency",
            Self::CascadeDepth => "cascade_depth",
        }
    }

    /// The level that it belongs to.
    pub fn target(&self) -> &Target {
        match self {
            Self::Concurrency(target) => target,
            Self::CascadeDepth => &Target::System,
        }
    }

    /// The key of its record.
    pub fn key(&self, namespace: &NamespaceId) -> Key {
        match self {
            Self::Concurrency(Target::System) => system_concurrency_key(namespace),
            Self::Concurrency(Target::Resource(resource)) => resource_concurrency_key(namespace, resource),
            Self::Concurrency(Target::Entity(entity, scope)) => {
                entity_concurrency_key(namespace, entity, scope)
            }
            Self::CascadeDepth => depth_key(namespace),
        }
    }

    /// Reads its record.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] for a value that this release does not know.
    pub fn read(&self, item: &Item) -> Result<u32, RecordError> {
        match self {
            Self::Concurrency(_) => concurrency_limit(item),
            Self::CascadeDepth => CascadeDepth::decode(item).map(u32::from),
        }
    }

    /// The write that stores a value, or deletes the record. `None` if there is nothing to delete.
    ///
    /// Guards that the record is as it was read.
    ///
    /// # Errors
    /// [`InvalidInput`] for a value that is out of range.
    pub fn write(
        &self,
        namespace: &NamespaceId,
        value: Option<u32>,
        old: Option<&Item>,
    ) -> Result<Option<Part>, InvalidInput> {
        let key = self.key(namespace);
        let condition = match old {
            None => Condition::Absent("PK".into()),
            Some(old) => self.unchanged(old),
        };
        Ok(match (self, value) {
            (_, None) => old.map(|_| Part::Delete(Delete { key, condition })),
            (Self::Concurrency(target), Some(limit)) => {
                let limit = check_in_flight(self.as_str(), limit)?;
                let item = concurrency_item(namespace, &key, &target.identity(), limit);
                Some(Part::Put(Put { item, condition }))
            }
            (Self::CascadeDepth, Some(depth)) => Some(Part::Put(Put {
                condition,
                ..CascadeDepth::new(depth)?.put(namespace)
            })),
        })
    }

    fn unchanged(&self, old: &Item) -> Condition {
        let attribute = match self {
            Self::Concurrency(_) => SmolStr::new_static(MOST),
            Self::CascadeDepth => SmolStr::new_static(DEPTH),
        };
        let same = match old.get(attribute.as_str()) {
            // Of a type that cannot be compared.
            Some(Value::Other) => Condition::Exists(attribute),
            value => Condition::same(attribute, value.cloned()),
        };
        Condition::All(vec![Condition::Exists("PK".into()), same])
    }

    fn rank(&self) -> (u8, Option<String>, bool) {
        let target = self.target();
        (target.rank(), target.name(), matches!(self, Self::CascadeDepth))
    }
}

/// The settings that a manifest declares, each within its range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings(BTreeMap<Setting, u32>);

impl Settings {
    /// Declares one.
    ///
    /// # Errors
    /// [`InvalidInput`] unless a concurrency limit is from 1 to 1000, and a cascade depth from 2 to 8.
    pub fn set(&mut self, setting: Setting, value: u32) -> Result<(), InvalidInput> {
        match setting {
            Setting::Concurrency(_) => drop(check_in_flight(setting.as_str(), value)?),
            Setting::CascadeDepth => drop(CascadeDepth::new(value)?),
        }
        self.0.insert(setting, value);
        Ok(())
    }

    /// The declared value of one.
    pub fn get(&self, setting: &Setting) -> Option<u32> {
        self.0.get(setting).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Setting, u32)> {
        self.0.iter().map(|(setting, value)| (setting, *value))
    }

    /// Whether none is declared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The levels with a concurrency limit.
    pub(super) fn concurrency(&self) -> impl Iterator<Item = (&Target, u32)> {
        self.iter().filter_map(|(setting, value)| match setting {
            Setting::Concurrency(target) => Some((target, value)),
            Setting::CascadeDepth => None,
        })
    }
}

/// The settings that manifests manage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManagedSettings {
    /// The levels whose concurrency limit is.
    pub concurrency: Managed,
    /// Whether the cascade depth is.
    pub cascade_depth: bool,
}

/// The attribute for the cascade depth in the record.
const MANAGED_DEPTH: &str = "managed_cascade_depth";

impl ManagedSettings {
    /// Of settings one by one.
    pub fn of<'a>(settings: impl IntoIterator<Item = &'a Setting>) -> Self {
        let (mut levels, mut cascade_depth) = (Vec::new(), false);
        for setting in settings {
            match setting {
                Setting::Concurrency(target) => levels.push(target),
                Setting::CascadeDepth => cascade_depth = true,
            }
        }
        Self {
            concurrency: Managed::of_targets(levels),
            cascade_depth,
        }
    }

    /// The key of the record.
    pub fn key(namespace: &NamespaceId) -> Key {
        Key {
            pk: system_pk(namespace),
            sk: SmolStr::new_static("#PROVISIONER#SETTINGS"),
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] if a part of it is of another type: what is managed must not be guessed.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("record of managed settings", item);
        Ok(Self {
            concurrency: Managed::decode(item)?,
            cascade_depth: reader.bool_opt(MANAGED_DEPTH)?.unwrap_or(false),
        })
    }

    /// Whether a setting is managed.
    pub fn contains(&self, setting: &Setting) -> bool {
        match setting {
            Setting::Concurrency(target) => self.concurrency.contains(target),
            Setting::CascadeDepth => self.cascade_depth,
        }
    }

    /// Adds all that another set manages.
    pub fn add(&mut self, other: &Self) {
        self.concurrency.add(&other.concurrency);
        self.cascade_depth |= other.cascade_depth;
    }

    /// Takes a setting out.
    pub fn remove(&mut self, setting: &Setting) {
        match setting {
            Setting::Concurrency(target) => self.concurrency.remove(target),
            Setting::CascadeDepth => self.cascade_depth = false,
        }
    }

    /// The managed settings.
    pub fn settings(&self) -> Vec<Setting> {
        let depth = self.cascade_depth.then_some(Setting::CascadeDepth);
        let concurrency = self.concurrency.targets().into_iter();
        concurrency.map(Setting::Concurrency).chain(depth).collect()
    }

    /// The write that stores the set in place of the record as it was read.
    ///
    /// Guards that the record is as it was read; refused, it must be read again and merged.
    pub fn put(&self, namespace: &NamespaceId, old: Option<&Item>) -> Put {
        let key = Self::key(namespace);
        let mut item = old.cloned().unwrap_or_else(|| key_item(&key));
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        self.concurrency.store(&mut item);
        item.insert(MANAGED_DEPTH.into(), Value::Bool(self.cascade_depth));
        let revision = old.and_then(|old| old.get("revision")?.as_int()).unwrap_or(0);
        item.insert("revision".into(), Value::int(revision.wrapping_add(1)));
        let condition = match old {
            None => Condition::Absent("PK".into()),
            Some(old) => Condition::same("revision".into(), old.get("revision").cloned()),
        };
        Put { item, condition }
    }
}

/// The stored content of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingState {
    /// The value, if it can be read.
    pub value: Option<u32>,
    /// Why it cannot be read.
    pub note: Option<String>,
}

/// The change of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// What happens to it.
    pub action: Action,
    /// Which one.
    pub setting: Setting,
    /// What is stored; `None` if nothing is.
    pub old: Option<SettingState>,
    /// The declared value; `None` for a deletion.
    pub new: Option<u32>,
}

impl SettingChange {
    /// As the provisioner's answer lists it: `action`, `level` and `target` of its level, and the name of the `setting`.
    pub fn to_json(&self) -> Json {
        let target = self.setting.target();
        json!({
            "action": self.action.as_str(), "level": target.level(), "target": target.name(),
            "setting": self.setting.as_str(),
        })
    }

    /// The same with what is stored and what is declared, as `old` and `new`.
    pub fn to_full_json(&self) -> Json {
        let name = self.setting.as_str();
        let mut json = self.to_json();
        json["old"] = match &self.old {
            None => Json::Null,
            Some(SettingState {
                value: Some(value), ..
            }) => json!({ name: value }),
            Some(SettingState { note, .. }) => json!({ "note": note }),
        };
        json["new"] = self.new.map_or(Json::Null, |value| json!({ name: value }));
        json
    }
}

/// The changes of settings that an apply would make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsPlan {
    /// The changes: system, resources, entities, each sorted by name with deletions last.
    pub changes: Vec<SettingChange>,
    /// How many declared settings are stored as declared.
    pub unchanged: usize,
    /// How many of those are not managed yet.
    pub adopted: usize,
}

/// The keys of all records that a plan looks at.
pub fn keys(namespace: &NamespaceId, declared: &Settings, managed: &ManagedSettings) -> Vec<Key> {
    let managed = managed.settings();
    let all = declared.iter().map(|(setting, _)| setting).chain(&managed);
    let mut keys: Vec<Key> = all.map(|setting| setting.key(namespace)).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Compares what is declared with what is managed and stored. With `all`, every declared setting is a change.
pub fn plan(
    namespace: &NamespaceId,
    declared: &Settings,
    managed: &ManagedSettings,
    stored: &BTreeMap<Key, Item>,
    all: bool,
) -> SettingsPlan {
    let mut plan = SettingsPlan::default();
    let state = |setting: &Setting| {
        let item = stored.get(&setting.key(namespace))?;
        Some(match setting.read(item) {
            Ok(value) => SettingState {
                value: Some(value),
                note: None,
            },
            Err(err) => SettingState {
                value: None,
                note: Some(err.to_string()),
            },
        })
    };
    for (setting, new) in declared.iter() {
        let old = state(setting);
        let is_managed = managed.contains(setting);
        if !all && old.as_ref().is_some_and(|old| old.value == Some(new)) {
            plan.unchanged += 1;
            plan.adopted += usize::from(!is_managed);
            continue;
        }
        // A setting can be listed as managed and not be stored: an apply lists what it will create before it creates it.
        let action = match (is_managed, &old) {
            (true, Some(_)) => Action::Update,
            _ => Action::Create,
        };
        plan.changes.push(SettingChange {
            action,
            setting: setting.clone(),
            old,
            new: Some(new),
        });
    }
    for setting in managed.settings() {
        if declared.get(&setting).is_none() {
            plan.changes.push(SettingChange {
                action: Action::Delete,
                old: state(&setting),
                setting,
                new: None,
            });
        }
    }
    plan.changes.sort_by_cached_key(|change| {
        let (level, name, is_depth) = change.setting.rank();
        (level, change.action == Action::Delete, name, is_depth)
    });
    plan
}
