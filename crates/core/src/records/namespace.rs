//! Namespace records and their life: registered, deleted, recovered, purged. Data model, section 4.
//!
//! A namespace has two records: the forward one leads from its name to its id, the reverse one from its id
//! to its name. Each change of both is one transaction, so no crash leaves half of it behind.

use std::time::SystemTime;

use crate::error::RecordError;
use crate::name::{NamespaceId, NamespaceName};
use crate::records::reader::Reader;
use crate::schema::{TABLE_PK, add_namespace_index, key_item, namespace_id_key, namespace_key};
use crate::table::{Condition, Delete, Item, Key, Part, Put, Update, Value};
use crate::units::{EpochMillis, stored_time};

/// The state of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceStatus {
    /// In use.
    Active,
    /// Deleted; its data is still there, and it can be recovered.
    Deleted,
    /// Its data is being deleted permanently.
    Purging,
}

impl NamespaceStatus {
    /// The status as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deleted => "deleted",
            Self::Purging => "purging",
        }
    }
}

/// One of a namespace's two records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// The id that prefixes its keys.
    pub id: NamespaceId,
    /// Its name, as stored.
    pub name: String,
    /// Its state.
    pub status: NamespaceStatus,
    /// When it was registered, to the second. `None` if the stored time is missing or cannot be read.
    pub created_at: Option<SystemTime>,
    /// When it was deleted, likewise.
    pub deleted_at: Option<SystemTime>,
    /// The times of its registration and its deletion as stored.
    stored: [Option<String>; 2],
}

impl NamespaceRecord {
    /// Reads a forward or a reverse record.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("namespace", item);
        let text = |attr| Ok::<_, RecordError>(reader.text_opt(attr)?.map(str::to_owned));
        let stored = [text("created_at")?, text("deleted_at")?];
        let [created_at, deleted_at] = stored
            .each_ref()
            .map(|text| text.as_deref().and_then(stored_time));
        Ok(Self {
            id: crate::config::stored_name(&reader, "namespace_id", |text| NamespaceId::new(text))?,
            name: reader.text("namespace_name")?.to_owned(),
            status: match reader.text_opt("status")? {
                Some("deleted") => NamespaceStatus::Deleted,
                Some("purging") => NamespaceStatus::Purging,
                _ => NamespaceStatus::Active,
            },
            created_at,
            deleted_at,
            stored,
        })
    }

    /// Deletes the namespace: frees its name, keeps its data.
    ///
    /// Guards that the name still leads to this id, and that no purge has begun. A reverse record that was
    /// lost is written anew, so that the data can be found again.
    pub fn delete(&self, now: EpochMillis) -> Vec<Part> {
        let mut reverse = Update::new(namespace_id_key(&self.id));
        let mut set = |attr: &'static str, value| reverse.set.push((attr.into(), value));
        set("status", Value::text("deleted"));
        set("deleted_at", Value::S(now.to_text()));
        set("namespace_id", Value::text(self.id.as_str()));
        set("namespace_name", Value::text(&self.name));
        set("GSI4PK", Value::text("_"));
        set("GSI4SK", Value::text(TABLE_PK));
        if let [Some(created_at), _] = &self.stored {
            set("created_at", Value::text(created_at));
        }
        reverse.condition = Condition::IsNot("status".into(), Value::text("purging"));
        vec![
            Part::Delete(Delete {
                key: self.forward_key(),
                condition: Condition::Is("namespace_id".into(), Value::text(self.id.as_str())),
            }),
            Part::Update(reverse),
        ]
    }

    /// Gives the namespace its name back.
    ///
    /// The first part guards that the name was not registered in the meantime, the second that the reverse record is
    /// as it was read: it was not recovered, and no purge has begun.
    pub fn recover(&self) -> Vec<Part> {
        let mut reverse = Update::new(namespace_id_key(&self.id));
        reverse.set.push(("status".into(), Value::text("active")));
        reverse.remove.push("deleted_at".into());
        reverse.condition = Condition::Is("status".into(), Value::text(self.status.as_str()));
        let created_at = self.stored[0].as_deref().unwrap_or_default();
        vec![
            put_record(&self.forward_key(), self.id.as_str(), &self.name, created_at),
            Part::Update(reverse),
        ]
    }

    /// Marks the namespace as being purged, after which it cannot be recovered.
    ///
    /// Guards that the reverse record is as it was read: it was not recovered.
    pub fn start_purge(&self, now: EpochMillis) -> Update {
        let mut update = Update::new(namespace_id_key(&self.id));
        update.set.push(("status".into(), Value::text("purging")));
        if self.stored[1].is_none() {
            update.set.push(("deleted_at".into(), Value::S(now.to_text())));
        }
        update.condition = Condition::Is("status".into(), Value::text(self.status.as_str()));
        update
    }

    /// Removes the last trace of a purged namespace.
    pub fn finish_purge(&self) -> Delete {
        Delete {
            key: namespace_id_key(&self.id),
            condition: Condition::Is("status".into(), Value::text("purging")),
        }
    }

    /// The forward record's key. Built from the name as stored, which need not be one that we would register.
    pub fn forward_key(&self) -> Key {
        Key {
            pk: TABLE_PK.into(),
            sk: format!("#NAMESPACE#{}", self.name).into(),
        }
    }
}

fn put_record(key: &Key, id: &str, name: &str, created_at: &str) -> Part {
    let mut item = key_item(key);
    item.insert("namespace_id".into(), Value::text(id));
    item.insert("namespace_name".into(), Value::text(name));
    item.insert("status".into(), Value::text("active"));
    item.insert("created_at".into(), Value::text(created_at));
    add_namespace_index(&mut item, "_", TABLE_PK);
    Part::Put(Put {
        item,
        condition: Condition::Absent("PK".into()),
    })
}

/// The two records of a new namespace, to be written in one transaction: each only if its key is free.
pub fn register(name: &NamespaceName, id: &NamespaceId, now: EpochMillis) -> Vec<Part> {
    let record = |key: Key| put_record(&key, id.as_str(), name.as_str(), &now.to_text());
    vec![record(namespace_key(name)), record(namespace_id_key(id))]
}

/// The check that a name leads to this namespace: it is not deleted.
pub fn is_named(name: &NamespaceName, id: &NamespaceId) -> Part {
    Part::Check(
        namespace_key(name),
        Condition::Is("namespace_id".into(), Value::text(id.as_str())),
    )
}

/// The id in a forward record, unless the namespace is deleted or being purged.
pub fn active_id(item: &Item) -> Result<Option<NamespaceId>, RecordError> {
    let record = NamespaceRecord::decode(item)?;
    Ok((record.status == NamespaceStatus::Active).then_some(record.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTable;
    use crate::table::{Answer, Op};

    fn record(table: &mut MemoryTable, key: Key) -> Option<NamespaceRecord> {
        let Ok(Answer::Item(item)) = table.call(&Op::Get {
            key,
            consistent: true,
        }) else {
            panic!("no item answered");
        };
        item.map(|item| NamespaceRecord::decode(&item).unwrap())
    }

    #[track_caller]
    fn transact(table: &mut MemoryTable, parts: Vec<Part>, applied: bool) {
        let answer = table.call(&Op::Transact(parts)).unwrap();
        assert_eq!(answer == Answer::Applied(None), applied, "{answer:?}");
    }

    #[test]
    fn a_namespace_comes_and_goes() {
        let mut table = MemoryTable::new();
        let (name, id) = (
            NamespaceName::new("team-a").unwrap(),
            NamespaceId::new("dSkXlbmmfyU").unwrap(),
        );
        transact(&mut table, register(&name, &id, EpochMillis(0)), true);
        let first = record(&mut table, namespace_key(&name)).unwrap();
        assert_eq!(
            (first.status, first.created_at),
            (NamespaceStatus::Active, Some(SystemTime::UNIX_EPOCH))
        );

        transact(&mut table, first.delete(EpochMillis(5000)), true);
        assert_eq!(record(&mut table, namespace_key(&name)), None);
        let deleted = record(&mut table, namespace_id_key(&id)).unwrap();
        assert_eq!(deleted.status, NamespaceStatus::Deleted);
        assert_eq!(deleted.deleted_at, stored_time("1970-01-01T00:00:05Z"));
        // A second delete of the same knowledge changes nothing.
        transact(&mut table, first.delete(EpochMillis(9000)), false);

        transact(&mut table, deleted.recover(), true);
        assert_eq!(record(&mut table, namespace_key(&name)), Some(first.clone()));
        assert_eq!(record(&mut table, namespace_id_key(&id)), Some(first.clone()));
        transact(&mut table, deleted.recover(), false);

        transact(&mut table, first.delete(EpochMillis(5000)), true);
        assert!(matches!(
            table.call(&Op::Update(deleted.start_purge(EpochMillis(6000)))),
            Ok(Answer::Applied(_))
        ));
        transact(&mut table, deleted.recover(), false);
        assert!(matches!(
            table.call(&Op::Delete(deleted.finish_purge())),
            Ok(Answer::Applied(_))
        ));
        assert_eq!(record(&mut table, namespace_id_key(&id)), None);
    }
}
