//! What an apply would change: a manifest beside what is managed and what is stored.
//!
//! Levels that are stored but neither declared nor managed were made by hand, and are never touched.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use super::managed::Managed;
use super::target::Target;
use super::{Level, Manifest, normalised, policy_text, put_flags};
use crate::config::{Access, Config, OnUnavailable, is_limit_attribute, limit_attributes};
use crate::limit::Limit;
use crate::name::{NamespaceId, ResourceScope};
use crate::table::{Item, Key, Value};

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is declared, and not managed or not stored.
    Create,
    /// It is declared, managed, and stored with something else.
    Update,
    /// It is managed and no longer declared.
    Delete,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The sign for it: `+`, `~` or `-`.
    pub fn symbol(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of a level's content that a manifest can express.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LevelState {
    /// The limits, sorted by name.
    pub limits: Vec<Limit>,
    /// The policy for outages. System level only.
    pub on_unavailable: Option<OnUnavailable>,
    /// What it says about access. Resource and entity levels only.
    pub access: Option<Access>,
    /// Whether requests are debited from the parent. Resource and entity levels only.
    pub cascade: Option<bool>,
    /// Why not all that is stored can be shown.
    pub note: Option<String>,
}

impl LevelState {
    /// Reads a level's record.
    pub fn of(item: &Item) -> Self {
        match Config::decode(item) {
            Ok(config) => {
                let mut limits = config.limits;
                limits.sort_by(|a, b| a.name().cmp(b.name()));
                Self {
                    limits,
                    on_unavailable: config.on_unavailable,
                    access: config.access,
                    cascade: config.cascade,
                    note: config.unsupported.map(|feature| feature.to_string()),
                }
            }
            // Live buckets go by its flags also if its limits cannot be read.
            Err(err) => Self {
                access: item.get("disabled").map(Access::read),
                cascade: item.get("cascade").and_then(Value::as_bool),
                note: Some(err.to_string()),
                ..Self::default()
            },
        }
    }

    /// As a manifest has it.
    pub fn to_json(&self) -> Json {
        let mut level = json!({ "limits": normalised(&self.limits) });
        if let Some(policy) = policy_text(self.on_unavailable) {
            level["on_unavailable"] = json!(policy);
        }
        put_flags(&mut level, self.access, self.cascade);
        if let Some(note) = &self.note {
            level["note"] = json!(note);
        }
        level
    }

    /// Whether a record holds exactly this: the same limits without any addition, the same policy and flags. Other
    /// attributes of the record do not belong to a manifest, and the period in which a quota or a session limit gains
    /// nothing is not compared: other clients store another one.
    pub fn is_stored(&self, item: &Item) -> bool {
        let stored = item.iter().filter(|(name, _)| is_limit_attribute(name));
        let declared: BTreeMap<SmolStr, Value> = limit_attributes(&self.limits).into_iter().collect();
        let gains_nothing = |name: &str| {
            let limit = name.strip_suffix("_rp");
            limit.is_some_and(|limit| declared.get(&*format!("{limit}_ra")) == Some(&Value::int(0)))
        };
        let same = |name: &str, a: &Value, b: &Value| match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b || gains_nothing(name),
            _ => a == b,
        };
        let limits = stored.clone().count() == declared.len()
            && stored.into_iter().all(|(name, value)| {
                declared
                    .get(name.as_str())
                    .is_some_and(|other| same(name, value, other))
            });
        limits
            && item.get("on_unavailable").and_then(Value::as_text) == policy_text(self.on_unavailable)
            && item.get("disabled").map(Access::read) == self.access
            && item.get("cascade") == self.cascade.map(Value::Bool).as_ref()
    }

    /// The same limits and policy with the flags of another level.
    #[must_use]
    pub fn with_flags_of(&self, other: &Self) -> Self {
        Self {
            access: other.access,
            cascade: other.cascade,
            ..self.clone()
        }
    }
}

/// One level that an apply changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The kind of the change.
    pub action: Action,
    /// Which level.
    pub target: Target,
    /// The stored content; `None` if there is none.
    pub old: Option<LevelState>,
    /// The declared content; `None` for a deletion.
    pub new: Option<LevelState>,
}

impl Change {
    /// Whether there was no such level, or one without limits.
    pub fn creates(&self) -> bool {
        let nothing = LevelState::default();
        self.new.is_some() && self.old.as_ref().is_none_or(|old| *old == nothing)
    }

    /// As the provisioner's answer lists it: `action`, `level` and `target`.
    pub fn to_json(&self) -> Json {
        json!({
            "action": self.action.as_str(), "level": self.target.level(), "target": self.target.name(),
        })
    }

    /// The same with what is stored and what is declared, as `old` and `new`.
    pub fn to_full_json(&self) -> Json {
        let mut json = self.to_json();
        json["old"] = self.old.as_ref().map_or(Json::Null, LevelState::to_json);
        json["new"] = self.new.as_ref().map_or(Json::Null, LevelState::to_json);
        json
    }
}

/// The changes that an apply would make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The changes: system, resources, entities, each sorted by name with deletions last.
    pub changes: Vec<Change>,
    /// How many declared levels are stored as declared.
    pub unchanged: usize,
    /// How many of those are not managed yet.
    pub adopted: usize,
}

/// The levels that a manifest declares, in the order of a plan.
pub fn declared(manifest: &Manifest) -> Vec<(Target, LevelState)> {
    let state = |level: &Level| LevelState {
        limits: level.limits.clone(),
        access: level.access,
        cascade: level.cascade,
        ..LevelState::default()
    };
    let mut levels = Vec::with_capacity(manifest.levels());
    if let Some(system) = &manifest.system {
        let state = LevelState {
            limits: system.limits.clone(),
            on_unavailable: system.on_unavailable,
            ..LevelState::default()
        };
        levels.push((Target::System, state));
    }
    let resources = manifest.resources.iter();
    levels.extend(resources.map(|(name, level)| (Target::Resource(name.clone()), state(level))));
    for (id, scopes) in &manifest.entities {
        let mut scopes: Vec<_> = scopes.iter().collect();
        scopes.sort_by_key(|(scope, _)| scope.as_str());
        let level = |(scope, level): (&ResourceScope, &Level)| {
            (Target::Entity(id.clone(), scope.clone()), state(level))
        };
        levels.extend(scopes.into_iter().map(level));
    }
    levels
}

/// The keys of all records that a plan looks at.
pub fn keys(namespace: &NamespaceId, manifest: &Manifest, managed: &Managed) -> Vec<Key> {
    let declared = declared(manifest).into_iter().map(|(target, _)| target);
    let mut keys: Vec<Key> = declared
        .chain(managed.targets())
        .map(|target| target.key(namespace))
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Compares a manifest with what is managed and stored. With `all`, every declared level is a change.
pub fn plan(
    namespace: &NamespaceId,
    manifest: &Manifest,
    managed: &Managed,
    stored: &BTreeMap<Key, Item>,
    all: bool,
) -> Plan {
    let mut plan = Plan::default();
    let declares = Managed::of(manifest);
    for (target, new) in declared(manifest) {
        let item = stored.get(&target.key(namespace));
        if !all && item.is_some_and(|item| new.is_stored(item)) {
            plan.unchanged += 1;
            plan.adopted += usize::from(!managed.contains(&target));
            continue;
        }
        let mut change = Change {
            action: Action::Create,
            target,
            old: item.map(LevelState::of),
            new: Some(new),
        };
        // A level can be listed as managed and not be stored: an apply lists what it will create before it creates it.
        if managed.contains(&change.target) && change.old.is_some() {
            change.action = Action::Update;
        }
        plan.changes.push(change);
    }
    for target in managed.targets() {
        if !declares.contains(&target) {
            let old = stored.get(&target.key(namespace)).map(LevelState::of);
            plan.changes.push(Change {
                action: Action::Delete,
                target,
                old,
                new: None,
            });
        }
    }
    // Sorting is stable: the two runs of each level stay in the order of names.
    plan.changes
        .sort_by_key(|change| (change.target.rank(), change.action == Action::Delete));
    plan
}
