//! Keys of every record in the table (data model, section 3).
//!
//! One function per record kind. Validated names in, keys out, so nothing built here can collide.

use smol_str::SmolStr;

use crate::name::{EntityId, NamespaceId, NamespaceName, ResourceName, ResourceScope};
use crate::table::{Item, Key, Value};

/// Sort key of a bucket's state.
pub const STATE: &str = "#STATE";
/// Sort key of an entity's META record.
pub const META: &str = "#META";
/// Sort key of system and resource configuration.
pub const CONFIG: &str = "#CONFIG";
/// Partition of the records that belong to the table as a whole.
pub const TABLE_PK: &str = "_/SYSTEM#";
/// Version of the stored schema.
pub const SCHEMA_VERSION: &str = "0.10.0";

/// One bucket: what an entity may spend on a resource. Its shards are separate items.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The entity.
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
}

impl BucketId {
    /// The key of one shard.
    pub fn key(&self, shard: u32) -> Key {
        let Self {
            namespace,
            entity,
            resource,
        } = self;
        let shard = shard.to_string();
        let parts = [
            namespace.as_str(),
            "/BUCKET#",
            entity.as_str(),
            "#",
            resource.as_str(),
            "#",
            &shard,
        ];
        Key {
            pk: parts.concat(),
            sk: SmolStr::new_static(STATE),
        }
    }

    /// The key and index attributes of one shard's item.
    pub fn key_attributes(&self, shard: u32) -> Item {
        let Self {
            namespace,
            entity,
            resource,
        } = self;
        let mut item = key_item(&self.key(shard));
        item.insert("entity_id".into(), Value::text(entity.as_str()));
        item.insert("resource".into(), Value::text(resource.as_str()));
        item.insert("GSI2PK".into(), Value::S(resource_pk(namespace, resource)));
        item.insert("GSI2SK".into(), Value::S(format!("BUCKET#{entity}#{shard}")));
        item.insert("GSI3PK".into(), Value::S(entity_pk(namespace, entity)));
        item.insert("GSI3SK".into(), Value::S(format!("BUCKET#{resource}#{shard}")));
        item.insert("GSI4PK".into(), Value::text(namespace.as_str()));
        item.insert(
            "GSI4SK".into(),
            Value::S(format!("BUCKET#{entity}#{resource}#{shard}")),
        );
        item
    }

    /// Reads a bucket's key back: the id and the shard. `None` for any other key.
    ///
    /// The namespace ends at the first `/`, the shard starts after the last `#`, the entity ends at the
    /// first `#` of what is between.
    pub fn parse(key: &Key) -> Option<(Self, u32)> {
        if key.sk != STATE {
            return None;
        }
        let (namespace, rest) = key.pk.split_once('/')?;
        let (rest, shard) = rest.strip_prefix("BUCKET#")?.rsplit_once('#')?;
        let (entity, resource) = rest.split_once('#')?;
        let id = Self {
            namespace: NamespaceId::new(namespace).ok()?,
            entity: EntityId::new(entity).ok()?,
            resource: ResourceName::new(resource).ok()?,
        };
        let number: u32 = shard.parse().ok()?;
        (number.to_string() == shard).then_some((id, number))
    }
}

/// The two key attributes as an item.
pub fn key_item(key: &Key) -> Item {
    Item::from([
        ("PK".into(), Value::S(key.pk.clone())),
        ("SK".into(), Value::text(key.sk.as_str())),
    ])
}

/// The key of an item, if it has one.
pub fn key_of(item: &Item) -> Option<Key> {
    let part = |name| item.get(name).and_then(Value::as_text);
    Some(Key {
        pk: part("PK")?.to_owned(),
        sk: part("SK")?.into(),
    })
}

/// The partition of an entity's META, configuration and usage; also the hash of its buckets in GSI3.
pub fn entity_pk(namespace: &NamespaceId, entity: &EntityId) -> String {
    format!("{namespace}/ENTITY#{entity}")
}

/// The partition of a resource's configuration; also the hash of its buckets in GSI2.
pub fn resource_pk(namespace: &NamespaceId, resource: &ResourceName) -> String {
    format!("{namespace}/RESOURCE#{resource}")
}

/// The partition of a namespace's own records.
pub fn system_pk(namespace: &NamespaceId) -> String {
    format!("{namespace}/SYSTEM#")
}

/// The hash of a parent's children in GSI1.
pub fn parent_pk(namespace: &NamespaceId, parent: &EntityId) -> String {
    format!("{namespace}/PARENT#{parent}")
}

/// The hash of the entities with limits of their own for a resource, in GSI3.
pub fn entity_config_pk(namespace: &NamespaceId, scope: &ResourceScope) -> String {
    format!("{namespace}/ENTITY_CONFIG#{scope}")
}

/// An entity's META record.
pub fn meta_key(namespace: &NamespaceId, entity: &EntityId) -> Key {
    Key {
        pk: entity_pk(namespace, entity),
        sk: SmolStr::new_static(META),
    }
}

/// An entity's configuration for one resource or all.
pub fn entity_config_key(namespace: &NamespaceId, entity: &EntityId, scope: &ResourceScope) -> Key {
    Key {
        pk: entity_pk(namespace, entity),
        sk: format!("#CONFIG#{scope}").into(),
    }
}

/// A resource's configuration.
pub fn resource_config_key(namespace: &NamespaceId, resource: &ResourceName) -> Key {
    Key {
        pk: resource_pk(namespace, resource),
        sk: SmolStr::new_static(CONFIG),
    }
}

/// A namespace's system configuration.
pub fn system_config_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: SmolStr::new_static(CONFIG),
    }
}

/// The record of a namespace's [cascade depth](crate::depth).
pub fn depth_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: SmolStr::new_static("#CASCADE_DEPTH"),
    }
}

/// The set of resources that have a configuration.
pub fn resource_registry_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: SmolStr::new_static("#RESOURCES"),
    }
}

/// The number of entities with limits of their own, per resource.
pub fn entity_registry_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: SmolStr::new_static("#ENTITY_CONFIG_RESOURCES"),
    }
}

/// The key of the record of managed levels in a namespace.
pub fn provisioner_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: SmolStr::new_static("#PROVISIONER"),
    }
}

/// A namespace's forward record: name to id.
pub fn namespace_key(name: &NamespaceName) -> Key {
    Key {
        pk: TABLE_PK.into(),
        sk: format!("#NAMESPACE#{name}").into(),
    }
}

/// A namespace's reverse record: id to name.
pub fn namespace_id_key(id: &NamespaceId) -> Key {
    Key {
        pk: TABLE_PK.into(),
        sk: format!("#NSID#{id}").into(),
    }
}

/// The table's version record.
pub fn version_key() -> Key {
    Key {
        pk: TABLE_PK.into(),
        sk: SmolStr::new_static("#VERSION"),
    }
}

/// The partition of a subject's audit events. `subject` is an entity id, `$SYSTEM` or `$RESOURCE:{resource}`.
pub fn audit_pk(namespace: &NamespaceId, subject: &str) -> String {
    format!("{namespace}/AUDIT#{subject}")
}

/// An audit event.
pub fn audit_key(namespace: &NamespaceId, subject: &str, event: &str) -> Key {
    Key {
        pk: audit_pk(namespace, subject),
        sk: format!("#AUDIT#{event}").into(),
    }
}

/// Adds the attributes that list an item under its namespace (GSI4).
pub fn add_namespace_index(item: &mut Item, namespace: &str, pk: &str) {
    item.insert("GSI4PK".into(), Value::text(namespace));
    item.insert("GSI4SK".into(), Value::text(pk));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_keys_read_back() {
        let id = BucketId {
            namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
            entity: EntityId::new("user-9").unwrap(),
            resource: ResourceName::new("a/b:8b").unwrap(),
        };
        let key = id.key(3);
        assert_eq!(key.pk, "dSkXlbmmfyU/BUCKET#user-9#a/b:8b#3");
        assert_eq!(BucketId::parse(&key), Some((id, 3)));
        assert_eq!(
            BucketId::parse(&Key {
                pk: key.pk.clone(),
                sk: "#OP#x".into()
            }),
            None
        );
        assert_eq!(
            BucketId::parse(&Key {
                pk: "dSkXlbmmfyU/BUCKET#u#r#03".into(),
                sk: STATE.into()
            }),
            None
        );
    }
}
