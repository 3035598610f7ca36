//! Manifests, and the levels at which they declare limits.

use std::collections::BTreeSet;

use zae_limiter::manifest::Manifest;
use zae_limiter_core::{EntityId, Limit, LimitName, ResourceName, ResourceScope};

/// A manifest and its name, which is mostly that of its file.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The name in reports.
    pub name: String,
    /// What is declared.
    pub manifest: Manifest,
}

/// The level at which a manifest declares limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeclaredAt {
    /// For the entity and the resource.
    Entity,
    /// For the entity and all resources for which it has no limits.
    EntityDefault,
    /// For the resource.
    Resource,
    /// For all resources and entities without limits.
    System,
}

impl DeclaredAt {
    /// Its name, as in the JSON output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::EntityDefault => "entity_default",
            Self::Resource => "resource",
            Self::System => "system",
        }
    }
}

impl Declared {
    /// Names a manifest.
    pub fn new(name: impl Into<String>, manifest: Manifest) -> Self {
        Self {
            name: name.into(),
            manifest,
        }
    }

    /// The level whose limits an entity has on a resource: the first one that declares any.
    pub fn level(&self, entity: &EntityId, resource: &ResourceName) -> Option<(DeclaredAt, &[Limit])> {
        let manifest = &self.manifest;
        let own = manifest.entities.get(entity);
        let of_entity =
            |scope: ResourceScope| own.and_then(|own| own.get(&scope)).map(|level| &*level.limits);
        let levels = [
            (
                DeclaredAt::Entity,
                of_entity(ResourceScope::One(resource.clone())),
            ),
            (DeclaredAt::EntityDefault, of_entity(ResourceScope::All)),
            (
                DeclaredAt::Resource,
                manifest.resources.get(resource).map(|level| &*level.limits),
            ),
            (
                DeclaredAt::System,
                manifest.system.as_ref().map(|level| &*level.limits),
            ),
        ];
        levels
            .into_iter()
            .find_map(|(at, limits)| Some((at, limits.filter(|limits| !limits.is_empty())?)))
    }

    fn all_limits(&self) -> impl Iterator<Item = &Limit> {
        let manifest = &self.manifest;
        let of_system = manifest.system.iter().flat_map(|level| &level.limits);
        let of_resources = manifest.resources.values().flat_map(|level| &level.limits);
        let of_entities = manifest
            .entities
            .values()
            .flat_map(|levels| levels.values())
            .flat_map(|level| &level.limits);
        of_system.chain(of_resources).chain(of_entities)
    }
}

/// The names of all limits of manifests, for [`TraceOptions::limits`](crate::trace::TraceOptions::limits).
pub fn limits_of(declared: &[Declared]) -> BTreeSet<LimitName> {
    let limits = declared.iter().flat_map(Declared::all_limits);
    limits.map(|limit| limit.name().clone()).collect()
}

/// The resource that manifests mean, if they name only one.
pub fn only_resource(declared: &[Declared]) -> Option<ResourceName> {
    let of_levels = declared.iter().flat_map(|one| one.manifest.resources.keys());
    let of_entities = declared.iter().flat_map(|one| one.manifest.entities.values());
    let of_entities = of_entities
        .flat_map(|levels| levels.keys())
        .filter_map(|scope| match scope {
            ResourceScope::One(resource) => Some(resource),
            ResourceScope::All => None,
        });
    let named: BTreeSet<&ResourceName> = of_levels.chain(of_entities).collect();
    match named.len() {
        1 => named.first().map(|resource| (*resource).clone()),
        _ => None,
    }
}
