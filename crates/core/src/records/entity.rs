//! Entities: who spends, under which parent. Data model, sections 6 and 15.2.

use std::collections::BTreeMap;
use std::time::SystemTime;

use smol_str::SmolStr;

use crate::bucket::Owner;
use crate::config::{incarnation, stored_name};
use crate::error::RecordError;
use crate::name::{EntityId, NamespaceId};
use crate::records::reader::Reader;
use crate::schema::{add_namespace_index, key_item, meta_key, parent_pk};
use crate::table::{Condition, Item, Value};
use crate::units::{EpochMillis, stored_time};

/// Free-form facts about an entity.
pub type Metadata = BTreeMap<String, Value>;

/// A consumer of tokens: an API key, a project, a tenant.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Entity {
    /// Its id.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub id: EntityId,
    /// A name for people; the id unless given.
    pub name: String,
    /// The entity whose limits it shares.
    #[cfg_attr(feature = "serde", serde(rename = "parent_id"))]
    pub parent: Option<EntityId>,
    /// Whether what it spends is debited from its parent too.
    pub cascade: bool,
    /// Free-form facts.
    pub metadata: Metadata,
    /// When it was created, to the second. `None` if the stored time is missing or cannot be read.
    #[cfg_attr(feature = "serde", serde(with = "crate::serialized::time_opt"))]
    pub created_at: Option<SystemTime>,
}

/// An entity's META record: the entity, and what orders concurrent moves and re-creations of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaRecord {
    /// The entity.
    pub entity: Entity,
    /// Generation of its parent link.
    pub generation: Option<i64>,
    /// Its incarnation mark.
    pub incarnation: Option<SmolStr>,
    /// The time of its creation as stored; tells incarnations without a mark apart.
    created_at: String,
}

impl MetaRecord {
    /// The record of an entity.
    pub fn new(entity: Entity, generation: Option<i64>, incarnation: Option<SmolStr>) -> Self {
        let created_at = entity.created_at.map(|time| EpochMillis::from(time).to_text());
        Self {
            created_at: created_at.unwrap_or_default(),
            entity,
            generation,
            incarnation,
        }
    }

    /// Reads a META item.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("entity", item);
        let id = stored_name(&reader, "entity_id", |text| EntityId::new(text))?;
        let parent = match reader.text_opt("parent_id")? {
            Some(_) => Some(stored_name(&reader, "parent_id", |text| EntityId::new(text))?),
            None => None,
        };
        let metadata = match reader.get("metadata") {
            Some(Value::M(map)) => map.clone(),
            _ => Metadata::new(),
        };
        let created_at = reader.text_opt("created_at")?.unwrap_or_default();
        Ok(Self {
            created_at: created_at.to_owned(),
            entity: Entity {
                name: reader.text_opt("name")?.unwrap_or(id.as_str()).to_owned(),
                id,
                parent,
                cascade: reader.bool_opt("cascade")?.unwrap_or(false),
                metadata,
                created_at: stored_time(created_at),
            },
            generation: reader.int64("pgen")?,
            incarnation: reader.text_opt("pinc")?.map(SmolStr::new),
        })
    }

    /// The item that stores it.
    pub fn encode(&self, namespace: &NamespaceId) -> Item {
        let entity = &self.entity;
        let key = meta_key(namespace, &entity.id);
        let mut item = key_item(&key);
        item.insert("entity_id".into(), Value::text(entity.id.as_str()));
        item.insert("name".into(), Value::text(&entity.name));
        item.insert("cascade".into(), Value::Bool(entity.cascade));
        item.insert("metadata".into(), Value::M(entity.metadata.clone()));
        item.insert("created_at".into(), Value::text(&self.created_at));
        match &entity.parent {
            Some(parent) => {
                item.insert("parent_id".into(), Value::text(parent.as_str()));
                item.insert("GSI1PK".into(), Value::S(parent_pk(namespace, parent)));
                item.insert("GSI1SK".into(), Value::S(format!("CHILD#{}", entity.id)));
            }
            None => drop(item.insert("parent_id".into(), Value::Null)),
        }
        if let Some(generation) = self.generation {
            item.insert("pgen".into(), Value::int(generation));
        }
        if let Some(incarnation) = &self.incarnation {
            item.insert("pinc".into(), Value::text(incarnation.as_str()));
        }
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        item
    }

    /// The stamp that this entity's buckets carry, under a cascade policy if one is configured.
    pub fn owner(&self, policy: Option<bool>) -> Owner {
        let created_at = Some(self.created_at.as_str()).filter(|text| !text.is_empty());
        Owner {
            cascade: self.entity.parent.is_some() && policy.unwrap_or(self.entity.cascade),
            parent: self.entity.parent.clone(),
            generation: Some(self.generation.unwrap_or(0)),
            incarnation: Some(incarnation(self.incarnation.as_deref(), created_at)),
        }
    }

    /// The condition that META is still of this generation and incarnation.
    pub fn unchanged(&self) -> Condition {
        let text = |text: &SmolStr| Value::text(text.as_str());
        let mut parts = vec![
            Condition::same("pgen".into(), self.generation.map(Value::int)),
            Condition::same("pinc".into(), self.incarnation.as_ref().map(text)),
            Condition::Exists("PK".into()),
        ];
        if self.incarnation.is_none() && !self.created_at.is_empty() {
            parts.push(Condition::Is("created_at".into(), Value::text(&self.created_at)));
        }
        Condition::All(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_round_trips() {
        let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
        let meta = MetaRecord::new(
            Entity {
                id: EntityId::new("key-1").unwrap(),
                name: "Key".into(),
                parent: Some(EntityId::new("proj-1").unwrap()),
                cascade: true,
                metadata: Metadata::from([
                    ("tier".into(), Value::text("gold")),
                    ("ratio".into(), Value::N("0.5".into())),
                    ("tags".into(), Value::L(vec![Value::Null, Value::Bool(true)])),
                ]),
                created_at: stored_time("2026-11-21T19:43:18Z"),
            },
            Some(1_795_290_198_636),
            Some("80729c5437a39750".into()),
        );
        let item = meta.encode(&namespace);
        assert_eq!(MetaRecord::decode(&item).unwrap(), meta);
        assert!(meta.unchanged().holds(Some(&item)));
        assert_eq!(item["created_at"], Value::text("2026-11-21T19:43:18Z"));
        assert_eq!(item["GSI1PK"], Value::text("dSkXlbmmfyU/PARENT#proj-1"));
    }

    #[test]
    fn an_entity_of_an_old_client_has_its_creation_time_for_incarnation() {
        let item = Item::from([
            ("entity_id".into(), Value::text("k")),
            ("created_at".into(), Value::text("2026-11-21T19:43:18Z")),
            ("parent_id".into(), Value::Null),
        ]);
        let owner = MetaRecord::decode(&item).unwrap().owner(Some(true));
        assert_eq!(owner.generation, Some(0));
        assert_eq!(owner.incarnation.as_deref(), Some("2026-11-21T19:43:18Z"));
        assert!(!owner.cascade, "an entity without a parent never cascades");
    }

    #[test]
    fn a_time_that_cannot_be_read_stays_as_it_is_stored() {
        let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
        let item = Item::from([
            ("entity_id".into(), Value::text("k")),
            ("created_at".into(), Value::text("long ago")),
        ]);
        let meta = MetaRecord::decode(&item).unwrap();
        assert_eq!(meta.entity.created_at, None);
        assert_eq!(meta.encode(&namespace)["created_at"], Value::text("long ago"));
        assert!(meta.unchanged().holds(Some(&meta.encode(&namespace))));
        assert_eq!(meta.owner(None).incarnation.as_deref(), Some("long ago"));
    }
}
