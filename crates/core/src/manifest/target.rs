//! The levels that a manifest can declare limits for.

use std::fmt;

use crate::name::{EntityId, NamespaceId, ResourceName, ResourceScope};
use crate::schema::{entity_config_key, resource_config_key, system_config_key};
use crate::table::Key;

/// A level that a manifest can declare.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The namespace's own.
    System,
    /// A resource's.
    Resource(ResourceName),
    /// An entity's, for a resource or for all.
    Entity(EntityId, ResourceScope),
}

impl Target {
    /// The kind of level: `system`, `resource` or `entity`.
    pub fn level(&self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Resource(_) => "resource",
            Self::Entity(..) => "entity",
        }
    }

    /// Its place in the order of a plan.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::System => 0,
            Self::Resource(_) => 1,
            Self::Entity(..) => 2,
        }
    }

    /// Which one: the resource, or entity and resource with a `/` between; `None` for the system level.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::System => None,
            Self::Resource(name) => Some(name.to_string()),
            Self::Entity(id, scope) => Some(format!("{id}/{scope}")),
        }
    }

    /// What its record says of the level: `entity_id` and `resource`, as far as it has them.
    pub fn identity(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::System => Vec::new(),
            Self::Resource(resource) => vec![("resource", resource.as_str())],
            Self::Entity(entity, scope) => vec![("entity_id", entity.as_str()), ("resource", scope.as_str())],
        }
    }

    /// Reads a level and its name; `None` if there can be no such level.
    pub fn parse(level: &str, name: &str) -> Option<Self> {
        match level {
            "system" => name.is_empty().then_some(Self::System),
            "resource" => ResourceName::new(name).ok().map(Self::Resource),
            "entity" => {
                let (id, scope) = name.split_once('/')?;
                Some(Self::Entity(
                    EntityId::new(id).ok()?,
                    ResourceScope::new(scope).ok()?,
                ))
            }
            _ => None,
        }
    }

    /// The key of its record.
    pub fn key(&self, namespace: &NamespaceId) -> Key {
        match self {
            Self::System => system_config_key(namespace),
            Self::Resource(name) => resource_config_key(namespace, name),
            Self::Entity(id, scope) => entity_config_key(namespace, id, scope),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(&name),
            None => f.write_str("(system defaults)"),
        }
    }
}
