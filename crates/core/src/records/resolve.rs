//! Resolving what is stored about an entity and a resource into what an acquire needs.
//!
//! Six records bear on it: the entity's META, the four levels of configuration, and the namespace's cascade depth. A caller
//! reads them in one batch, or keeps them cached one by one, and puts them together here.

use crate::config::{Config, Level, Levels, Resolved};
use crate::depth::CascadeDepth;
use crate::entity::MetaRecord;
use crate::error::RecordError;
use crate::name::{EntityId, NamespaceId, ResourceName, ResourceScope};
use crate::schema::{depth_key, entity_config_key, meta_key, resource_config_key, system_config_key};
use crate::table::{Condition, Item, Key};
use crate::units::EpochMillis;

/// The records that bear on one entity and resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The entity's META.
    Meta,
    /// The entity's configuration for the resource.
    Entity,
    /// The entity's configuration for all resources.
    EntityDefault,
    /// The resource's configuration.
    Resource,
    /// The namespace's configuration.
    System,
    /// The namespace's cascade depth.
    Depth,
}

impl Slot {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Meta,
        Self::Entity,
        Self::EntityDefault,
        Self::Resource,
        Self::System,
        Self::Depth,
    ];

    /// The key of the record.
    pub fn key(self, namespace: &NamespaceId, entity: &EntityId, resource: &ResourceName) -> Key {
        match self {
            Self::Meta => meta_key(namespace, entity),
            Self::Entity => entity_config_key(namespace, entity, &ResourceScope::One(resource.clone())),
            Self::EntityDefault => entity_config_key(namespace, entity, &ResourceScope::All),
            Self::Resource => resource_config_key(namespace, resource),
            Self::System => system_config_key(namespace),
            Self::Depth => depth_key(namespace),
        }
    }
}

/// A decoded record of one [`Slot`], or the knowledge that there is none.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The META record.
    pub meta: Option<MetaRecord>,
    /// The configuration.
    pub config: Option<Config>,
    /// The cascade depth.
    pub depth: Option<CascadeDepth>,
}

impl Stored {
    /// Decodes the item found at a slot's key.
    pub fn decode(slot: Slot, item: Option<&Item>) -> Result<Self, RecordError> {
        let Some(item) = item else {
            return Ok(Self::default());
        };
        Ok(match slot {
            Slot::Meta => Self {
                meta: Some(MetaRecord::decode(item)?),
                ..Self::default()
            },
            Slot::Depth => Self {
                depth: Some(CascadeDepth::decode(item)?),
                ..Self::default()
            },
            _ => Self {
                config: Some(Config::decode(item)?),
                ..Self::default()
            },
        })
    }
}

/// Finds the six records of an entity and resource by their keys, and puts them together as [`resolve`] does.
pub fn resolve_items<'a>(
    namespace: &NamespaceId,
    (entity, resource): (&EntityId, &ResourceName),
    find: impl Fn(&Key) -> Option<&'a Item>,
    read_at: EpochMillis,
) -> Result<Resolved, RecordError> {
    let mut stored: [Stored; 6] = Default::default();
    for (slot, stored) in Slot::ALL.into_iter().zip(&mut stored) {
        *stored = Stored::decode(slot, find(&slot.key(namespace, entity, resource)))?;
    }
    Ok(resolve(entity, stored.each_ref(), read_at))
}

/// Puts the six records together, in the order of [`Slot::ALL`]. `read_at` is when the oldest was asked for.
///
/// The result says if nothing is configured, or if the configuration cannot be enforced, since a call may pass
/// limits of its own.
pub fn resolve(entity: &EntityId, stored: [&Stored; 6], read_at: EpochMillis) -> Resolved {
    let [
        meta,
        entity_config,
        entity_default,
        resource_config,
        system,
        depth,
    ] = stored;
    let levels = Levels {
        entity: entity_config.config.clone(),
        entity_default: entity_default.config.clone(),
        resource: resource_config.config.clone(),
        system: system.config.clone(),
    };
    let (level, limits, unsupported) = match levels.answer() {
        Some((level, config)) => match &config.unsupported {
            Some(feature) => (level, Vec::new(), Some(feature.clone())),
            None => (level, config.limits.clone(), None),
        },
        None => (Level::System, Vec::new(), None),
    };
    Resolved {
        entity: entity.clone(),
        limits,
        level,
        unsupported,
        owner: meta.meta.as_ref().map(|meta| meta.owner(levels.cascade())),
        meta_unchanged: match &meta.meta {
            Some(meta) => meta.unchanged(),
            None => Condition::Absent("PK".into()),
        },
        access: levels.access(),
        on_unavailable: levels.on_unavailable(),
        depth: depth.depth.unwrap_or_default(),
        overdraws: false,
        read_at,
    }
}
