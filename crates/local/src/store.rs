//! The endpoint's data except the tables: JSON documents in their own database.
//!
//! A write is in the file when it returns, so a killed process loses nothing that it answered.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The tables of the database. A document is named by its kind and its name within that.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS documents (
        kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS log_events (
        id INTEGER PRIMARY KEY, log_group TEXT NOT NULL, stream TEXT NOT NULL, at INTEGER NOT NULL,
        ingested INTEGER NOT NULL, message TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS log_events_of_group ON log_events (log_group, at, id);
    CREATE INDEX IF NOT EXISTS log_events_of_stream ON log_events (log_group, stream, at, id);
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, body TEXT NOT NULL, attributes TEXT NOT NULL,
        visible_at INTEGER NOT NULL, sent_at INTEGER NOT NULL, received INTEGER NOT NULL DEFAULT 0, receipt TEXT
    );
    CREATE INDEX IF NOT EXISTS messages_order ON messages (queue, visible_at, id);
    CREATE TABLE IF NOT EXISTS stack_events (id INTEGER PRIMARY KEY, stack TEXT NOT NULL, body TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS stack_events_order ON stack_events (stack, id);";

/// The documents could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed.
    #[error("the endpoint's own records could not be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// A document is not what this version writes.
    #[error("the record {kind}/{name} cannot be read: {source}")]
    Document {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The reader's error.
        source: serde_json::Error,
    },
}

/// The endpoint's records. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Records that go with the process.
    pub fn memory() -> Result<Self, StoreError> {
        Self::of(Connection::open_in_memory()?)
    }

    /// Records in a file, which is created if need be.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        // As with the tables: killing the process loses nothing, a power cut perhaps the last moments.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        Self::of(connection)
    }

    fn of(connection: Connection) -> Result<Self, StoreError> {
        connection.execute_batch(SCHEMA)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// The database, for data other than documents. Hold it briefly, and never across an `await`.
    pub fn database(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves the database as SQLite left it.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does several things with the database: all of them or, if one fails, none.
    pub fn together<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut database = self.database();
        let transaction = database.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// A document.
    pub fn get<T: DeserializeOwned>(&self, kind: &'static str, name: &str) -> Result<Option<T>, StoreError> {
        let body: Option<String> = self
            .database()
            .prepare_cached("SELECT body FROM documents WHERE kind = ?1 AND name = ?2")?
            .query_row(params![kind, name], |row| row.get(0))
            .optional()?;
        body.map(|body| read(kind, name, &body)).transpose()
    }

    /// Writes a document in place of any other of its name.
    pub fn put(&self, kind: &'static str, name: &str, document: &impl Serialize) -> Result<(), StoreError> {
        put(&self.database(), kind, name, document)
    }

    /// Writes a document unless there is one of its name; returns whether it did.
    pub fn insert(
        &self,
        kind: &'static str,
        name: &str,
        document: &impl Serialize,
    ) -> Result<bool, StoreError> {
        let body = write(kind, name, document)?;
        let inserted = self
            .database()
            .prepare_cached("INSERT OR IGNORE INTO documents (kind, name, body) VALUES (?1, ?2, ?3)")?
            .execute(params![kind, name, body])?;
        Ok(inserted > 0)
    }

    /// Deletes a document; returns whether there was one.
    pub fn delete(&self, kind: &'static str, name: &str) -> Result<bool, StoreError> {
        delete(&self.database(), kind, name)
    }

    /// The documents of a kind, with their names, in the names' order.
    pub fn list<T: DeserializeOwned>(&self, kind: &'static str) -> Result<Vec<(String, T)>, StoreError> {
        let found: Vec<(String, String)> = self
            .database()
            .prepare_cached("SELECT name, body FROM documents WHERE kind = ?1 ORDER BY name")?
            .query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        read_all(kind, found)
    }

    /// Up to `limit` documents of a kind, from a name on, in the names' order.
    pub fn range<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        from: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let found: Vec<(String, String)> = self
            .database()
            .prepare_cached(
                "SELECT name, body FROM documents WHERE kind = ?1 AND name >= ?2 ORDER BY name LIMIT ?3",
            )?
            .query_map(params![kind, from, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        read_all(kind, found)
    }

    /// The documents of a kind whose names begin so, in the names' order.
    pub fn with_prefix<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let found: Vec<(String, String)> = self
            .database()
            .prepare_cached(
                "SELECT name, body FROM documents
                 WHERE kind = ?1 AND name >= ?2 AND substr(name, 1, length(?2)) = ?2 ORDER BY name",
            )?
            .query_map([kind, prefix], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        read_all(kind, found)
    }
}

/// As [`Store::put`], among other things that are done together.
pub(crate) fn put(
    database: &Connection,
    kind: &'static str,
    name: &str,
    document: &impl Serialize,
) -> Result<(), StoreError> {
    let body = write(kind, name, document)?;
    database
        .prepare_cached("INSERT OR REPLACE INTO documents (kind, name, body) VALUES (?1, ?2, ?3)")?
        .execute(params![kind, name, body])?;
    Ok(())
}

/// As [`Store::delete`], among other things that are done together.
pub(crate) fn delete(database: &Connection, kind: &'static str, name: &str) -> Result<bool, StoreError> {
    let deleted = database
        .prepare_cached("DELETE FROM documents WHERE kind = ?1 AND name = ?2")?
        .execute(params![kind, name])?;
    Ok(deleted > 0)
}

fn read_all<T: DeserializeOwned>(
    kind: &'static str,
    found: Vec<(String, String)>,
) -> Result<Vec<(String, T)>, StoreError> {
    found
        .into_iter()
        .map(|(name, body)| {
            let document = read(kind, &name, &body)?;
            Ok((name, document))
        })
        .collect()
}

fn write(kind: &'static str, name: &str, document: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(document).map_err(|source| StoreError::Document {
        kind,
        name: name.to_owned(),
        source,
    })
}

fn read<T: DeserializeOwned>(kind: &'static str, name: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|source| StoreError::Document {
        kind,
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_outlive_the_process_that_wrote_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.sqlite");
        let store = Store::open(&path).unwrap();
        store.put("stack", "b", &2).unwrap();
        store.put("stack", "a", &1).unwrap();
        store.put("other", "a", &3).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get::<i32>("stack", "a").unwrap(), Some(1));
        assert_eq!(
            store.list::<i32>("stack").unwrap(),
            [("a".into(), 1), ("b".into(), 2)]
        );
        assert!(!store.insert("stack", "a", &7).unwrap());
        assert_eq!(store.get::<i32>("stack", "a").unwrap(), Some(1));
        assert!(store.insert("stack", "c", &7).unwrap());
        assert!(store.delete("stack", "a").unwrap());
        assert!(!store.delete("stack", "a").unwrap());
        assert_eq!(store.get::<i32>("stack", "a").unwrap(), None);
    }

    #[test]
    fn documents_are_found_by_range_and_prefix() {
        let store = Store::memory().unwrap();
        for name in ["a/1", "a/2", "a/\u{10FFFF}", "b/1", "A/1"] {
            store.put("object", name, &name).unwrap();
        }
        let names = |found: Vec<(String, String)>| -> Vec<String> {
            found.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(
            names(store.range("object", "a/2", 2).unwrap()),
            ["a/2", "a/\u{10FFFF}"]
        );
        assert_eq!(
            names(store.with_prefix("object", "a/").unwrap()),
            ["a/1", "a/2", "a/\u{10FFFF}"]
        );
    }

    #[test]
    fn a_foreign_document_is_an_error_that_names_it() {
        let store = Store::memory().unwrap();
        store.put("stack", "a", &"text").unwrap();
        let text = store.get::<i32>("stack", "a").unwrap_err().to_string();
        assert!(text.starts_with("the record stack/a cannot be read"), "{text}");
    }
}
