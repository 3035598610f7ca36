//! Concurrency limits: how many requests of an entity and resource may be in flight at the same time.
//!
//! They have records of their own beside those of the levels' other limits, since a Python client rewrites such a record and
//! loses what it does not know.

use smol_str::{SmolStr, format_smolstr};

use crate::config::Level;
use crate::error::{InvalidInput, RecordError};
use crate::name::{EntityId, NamespaceId, ResourceName, ResourceScope};
use crate::records::reader::Reader;
use crate::schema::{add_namespace_index, entity_pk, key_item, resource_pk, system_pk};
use crate::table::{Item, Key, Value};

/// The largest concurrency limit. All holders are in one item, whose size decides what a write costs.
pub const MOST_IN_FLIGHT: u32 = 1000;

/// The sort key of the record of a resource or of the system, and the beginning of an entity's.
const CONCURRENCY: &str = "#CONCURRENCY";

/// The attribute of the limit.
pub(crate) const MOST: &str = "max_in_flight";

/// Checks a concurrency limit.
pub fn check_in_flight(field: &str, limit: u32) -> Result<u32, InvalidInput> {
    if limit == 0 || limit > MOST_IN_FLIGHT {
        let reason = format!("must be from 1 to {MOST_IN_FLIGHT}");
        return Err(InvalidInput::new(field, limit, reason));
    }
    Ok(limit)
}

/// The key of an entity's concurrency limit for a resource, or for all that have none of their own.
pub fn entity_concurrency_key(namespace: &NamespaceId, entity: &EntityId, scope: &ResourceScope) -> Key {
    Key {
        pk: entity_pk(namespace, entity),
        sk: format_smolstr!("{CONCURRENCY}#{scope}"),
    }
}

/// The key of a resource's concurrency limit.
pub fn resource_concurrency_key(namespace: &NamespaceId, resource: &ResourceName) -> Key {
    Key {
        pk: resource_pk(namespace, resource),
        sk: SmolStr::new_static(CONCURRENCY),
    }
}

/// The key of a namespace's concurrency limit.
pub fn system_concurrency_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: SmolStr::new_static(CONCURRENCY),
    }
}

/// The keys of the limits that bear on an entity and resource. The first that has a record decides.
pub fn concurrency_keys(
    namespace: &NamespaceId,
    entity: &EntityId,
    resource: &ResourceName,
) -> [(Level, Key); 4] {
    let one = ResourceScope::One(resource.clone());
    [
        (Level::Entity, entity_concurrency_key(namespace, entity, &one)),
        (
            Level::EntityDefault,
            entity_concurrency_key(namespace, entity, &ResourceScope::All),
        ),
        (Level::Resource, resource_concurrency_key(namespace, resource)),
        (Level::System, system_concurrency_key(namespace)),
    ]
}

/// The record of a limit at this key. `identity` has what the record says of its level: `entity_id` and `resource`.
pub fn concurrency_item(
    namespace: &NamespaceId,
    key: &Key,
    identity: &[(&'static str, &str)],
    limit: u32,
) -> Item {
    let mut item = key_item(key);
    for (name, value) in identity {
        item.insert((*name).to_owned(), Value::text(*value));
    }
    item.insert(MOST.to_owned(), Value::int(limit));
    add_namespace_index(&mut item, namespace.as_str(), &key.pk);
    item
}

/// Reads the record of a limit.
///
/// # Errors
/// [`RecordError::Corrupt`] unless it is from 1 to 1000.
pub fn concurrency_limit(item: &Item) -> Result<u32, RecordError> {
    let reader = Reader::new("concurrency limit", item);
    let limit = reader.int_within(MOST, 1, MOST_IN_FLIGHT.into())?;
    limit
        .map(|limit| limit as u32)
        .ok_or_else(|| reader.corrupt(MOST, "is missing"))
}
