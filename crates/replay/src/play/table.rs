//! A table in the memory of this process.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zae_limiter::table::{Table, TableFuture};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Answer, Index, Item, Key, Op, Part, TableError, Update, Value};

/// The attribute by which the index of an entity's items is read.
const BY_ENTITY: &str = "GSI3PK";

/// A table that answers at once. Items do not expire: the time to live of a bucket is longer than it needs to fill.
#[derive(Clone, Default)]
pub(super) struct ReplayTable(Arc<Mutex<Indexed>>);

/// A table, and which items to look at for an entity: to create an entity reads its buckets, and a table in memory looks at all items
/// for that.
#[derive(Default)]
struct Indexed {
    items: MemoryTable,
    /// The items that were ever written with this value of [`BY_ENTITY`], and perhaps more.
    by_entity: HashMap<String, BTreeSet<Key>>,
}

impl Indexed {
    fn call(&mut self, op: &Op) -> Result<Answer, TableError> {
        match op {
            Op::Query(query) if query.index == Index::Gsi3 => {
                let mut found = MemoryTable::new();
                for key in self.by_entity.get(&query.hash).into_iter().flatten() {
                    if let Some(item) = self.items.get(key) {
                        found.insert(item.clone())?;
                    }
                }
                return found.call(op);
            }
            Op::Put(put) => self.note_item(&put.item),
            Op::Update(update) => self.note_update(update),
            Op::Transact(parts) => {
                for part in parts {
                    match part {
                        Part::Put(put) => self.note_item(&put.item),
                        Part::Update(update) => self.note_update(update),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        self.items.call(op)
    }

    fn note_item(&mut self, item: &Item) {
        if let (Some(entity), Some(key)) = (item.get(BY_ENTITY), key_of(item)) {
            self.note(entity, key);
        }
    }

    fn note_update(&mut self, update: &Update) {
        if let Some((_, entity)) = update.set.iter().find(|(name, _)| name == BY_ENTITY) {
            self.note(entity, update.key.clone());
        }
    }

    /// Notes an item that may be written with this value.
    fn note(&mut self, entity: &Value, key: Key) {
        if let Some(entity) = entity.as_text() {
            self.by_entity.entry(entity.to_owned()).or_default().insert(key);
        }
    }
}

impl Table for ReplayTable {
    fn call(&self, op: Op) -> TableFuture {
        let table = self.clone();
        Box::pin(async move { table.0.lock().unwrap_or_else(PoisonError::into_inner).call(&op) })
    }
}

impl fmt::Debug for ReplayTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayTable")
    }
}
