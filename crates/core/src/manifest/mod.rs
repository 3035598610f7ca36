//! Manifests: the limits of a namespace, declared in one document.
//!
//! A manifest says which levels exist and what their limits are. [`Manifest::from_json`] reads it from a function's
//! event, `from_yaml` (feature `yaml`) from a file, [`Manifest::from_properties`] from CloudFormation; all three
//! share one set of rules and report every problem they find, with its place. [`plan`] compares a manifest with what
//! is stored, [`managed`] is the record of what manifests manage, [`owners`] which custom resources declare it, [`pending`]
//! the records of live buckets that have not been updated yet. [`settings`] has what is declared beside levels. Nothing here
//! writes.

mod hash;
pub mod managed;
pub mod owners;
pub mod pending;
pub mod plan;
mod properties;
mod read;
pub mod settings;
mod target;
pub mod turn;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::config::{Access, OnUnavailable};
use crate::limit::{Limit, shape};
use crate::name::{EntityId, NamespaceName, ResourceName, ResourceScope};

pub use crate::document::{Position, Problem, Problems};
pub use managed::Managed;
pub use owners::Owners;
pub use plan::{Action, Change, LevelState, Plan};
pub use properties::flag;
pub use read::limit_from_json;
pub use settings::{ManagedSettings, Setting, SettingChange, SettingState, Settings};
pub use target::Target;

/// The refill period of a limit that names none, in seconds.
pub const DEFAULT_PERIOD_SECS: u64 = 60;

/// The limits of a namespace, as declared.
///
/// ```
/// # use zae_limiter_core as zae_limiter;
/// use zae_limiter::manifest::Manifest;
///
/// let manifest = Manifest::from_json(&serde_json::json!({
///     "namespace": "default",
///     "resources": { "gpt-4": { "limits": { "tpm": { "capacity": 50_000 } } } },
/// }))?;
/// let tpm = &manifest.resources.values().next().unwrap().limits[0];
/// assert_eq!((tpm.refill_amount(), tpm.refill_period().as_secs()), (50_000, 60));
///
/// let err = Manifest::from_json(&serde_json::json!({ "namespace": "default", "resorces": {} })).unwrap_err();
/// assert!(err.to_string().contains("did you mean 'resources'"));
/// # Ok::<(), zae_limiter::manifest::Problems>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The namespace's name.
    pub namespace: NamespaceName,
    /// The system level; `None` if the manifest does not declare it.
    pub system: Option<SystemLevel>,
    /// The levels of resources.
    pub resources: BTreeMap<ResourceName, Level>,
    /// The levels of entities for resources.
    pub entities: BTreeMap<EntityId, BTreeMap<ResourceScope, Level>>,
    /// The concurrency limits of levels, and the cascade depth. A level can have one and not be declared itself.
    pub settings: Settings,
}

/// What is declared for one resource or scope: its level, and its concurrency limit.
type Parts<'a> = (Option<&'a Level>, Option<u32>);

/// A resource's level of a manifest, or an entity's for a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Level {
    /// The limits, sorted by name.
    pub limits: Vec<Limit>,
    /// What it says about access (`disabled`); `None` leaves that to the levels further away.
    pub access: Option<Access>,
    /// Whether requests are debited from the parent; `None` leaves that to the levels further away.
    pub cascade: Option<bool>,
}

/// The system level of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemLevel {
    /// The limits, sorted by name.
    pub limits: Vec<Limit>,
    /// The policy for outages; never [`OnUnavailable::Degrade`], which cannot be stored.
    pub on_unavailable: Option<OnUnavailable>,
}

impl Manifest {
    /// The JSON Schema of a manifest (draft 2020-12), for editors.
    pub const SCHEMA: &'static str = include_str!("schema.json");

    /// A manifest that declares nothing: applied, it deletes all that is managed.
    pub fn empty(namespace: NamespaceName) -> Self {
        Self {
            namespace,
            system: None,
            resources: BTreeMap::new(),
            entities: BTreeMap::new(),
            settings: Settings::default(),
        }
    }

    /// The manifest with every default written out. [`from_json`](Self::from_json) reads it back.
    pub fn to_json(&self) -> Json {
        let level = |(level, concurrency): Parts<'_>| {
            let mut json = json!({});
            if let Some(level) = level {
                json["limits"] = normalised(&level.limits);
                put_flags(&mut json, level.access, level.cascade);
            }
            if let Some(limit) = concurrency {
                json["concurrency"] = json!(limit);
            }
            json
        };
        let mut manifest = Map::new();
        manifest.insert("namespace".into(), json!(self.namespace.as_str()));
        let mut system = json!({});
        if let Some(declared) = &self.system {
            system["limits"] = normalised(&declared.limits);
            if let Some(policy) = policy_text(declared.on_unavailable) {
                system["on_unavailable"] = json!(policy);
            }
        }
        for (setting, value) in self.of_system() {
            system[setting.as_str()] = json!(value);
        }
        if self.system.is_some() || self.of_system().next().is_some() {
            manifest.insert("system".into(), system);
        }
        let resources = self.of_resources();
        if !resources.is_empty() {
            let levels = resources.into_iter();
            let levels: Map<_, _> = levels
                .map(|(name, parts)| (name.to_string(), level(parts)))
                .collect();
            manifest.insert("resources".into(), levels.into());
        }
        let entities = self.of_entities();
        if !entities.is_empty() {
            let entity = |levels: BTreeMap<&ResourceScope, Parts<'_>>| {
                let levels = levels.into_iter();
                let levels: Map<_, _> = levels
                    .map(|(name, parts)| (name.to_string(), level(parts)))
                    .collect();
                json!({ "resources": levels })
            };
            let entities = entities.into_iter();
            let entities: Map<_, _> = entities
                .map(|(id, levels)| (id.to_string(), entity(levels)))
                .collect();
            manifest.insert("entities".into(), entities.into());
        }
        manifest.into()
    }

    /// The settings of the system level.
    fn of_system(&self) -> impl Iterator<Item = (&Setting, u32)> {
        let settings = self.settings.iter();
        settings.filter(|(setting, _)| *setting.target() == Target::System)
    }

    /// All that is declared for resources.
    fn of_resources(&self) -> BTreeMap<&ResourceName, Parts<'_>> {
        let levels = self.resources.iter();
        let mut all: BTreeMap<_, Parts<'_>> =
            levels.map(|(name, level)| (name, (Some(level), None))).collect();
        for (target, limit) in self.settings.concurrency() {
            if let Target::Resource(name) = target {
                all.entry(name).or_default().1 = Some(limit);
            }
        }
        all
    }

    /// All that is declared for entities.
    fn of_entities(&self) -> BTreeMap<&EntityId, BTreeMap<&ResourceScope, Parts<'_>>> {
        let mut all: BTreeMap<_, BTreeMap<_, Parts<'_>>> = BTreeMap::new();
        for (id, levels) in &self.entities {
            let levels = levels.iter().map(|(scope, level)| (scope, (Some(level), None)));
            all.entry(id).or_default().extend(levels);
        }
        for (target, limit) in self.settings.concurrency() {
            if let Target::Entity(id, scope) = target {
                all.entry(id).or_default().entry(scope).or_default().1 = Some(limit);
            }
        }
        all
    }

    /// The fingerprint that an apply leaves in the record of what is managed.
    pub fn hash(&self) -> String {
        hash::fingerprint(&self.to_json())
    }

    /// How many levels it declares.
    pub fn levels(&self) -> usize {
        let entities = self.entities.values().map(BTreeMap::len);
        usize::from(self.system.is_some()) + self.resources.len() + entities.sum::<usize>()
    }
}

/// Adds the flags of a level, as manifests and the answers of the provisioner have them.
fn put_flags(level: &mut Json, access: Option<Access>, cascade: Option<bool>) {
    if let Some(access) = access {
        level["disabled"] = access.to_json();
    }
    if let Some(cascade) = cascade {
        level["cascade"] = json!(cascade);
    }
}

fn normalised(limits: &[Limit]) -> Json {
    let limit = |limit: &Limit| {
        let mut parts = shape(limit);
        parts.insert("capacity".into(), limit.capacity().into());
        parts.insert("refill_amount".into(), limit.refill_amount().into());
        parts.insert("refill_period".into(), limit.refill_period().as_secs().into());
        (limit.name().to_string(), Json::Object(parts))
    };
    limits.iter().map(limit).collect::<Map<_, _>>().into()
}

/// The stored form of a policy for outages; `None` for what cannot be stored.
pub(crate) fn policy_text(policy: Option<OnUnavailable>) -> Option<&'static str> {
    match policy {
        Some(OnUnavailable::Allow) => Some("allow"),
        Some(OnUnavailable::Block) => Some("block"),
        Some(OnUnavailable::Degrade(_)) | None => None,
    }
}
