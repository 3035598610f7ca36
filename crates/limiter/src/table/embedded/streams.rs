//! Trimming streams by who has read what, for an engine that serves readers of streams.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use dynoxide::DynoxideError;
use dynoxide::storage::Storage as Connection;

use super::{DATA_FILE, EmbeddedEngine, OpenError, STREAM_KEEPS, Storage};

/// The engine's public sequence numbers are its stored ones plus this.
const OFFSET: i128 = 100_000_000_000_000_000_000;

/// How many records are deleted at once: some milliseconds during which requests wait.
const AT_ONCE: usize = 1_000;

/// The first records of a table that may go. What may go is always a beginning of the stream: places, positions
/// and times of its records ascend together.
const TRIM: &str = "
    DELETE FROM _stream_records WHERE id IN (
        SELECT id FROM (
            SELECT id, created_at, CAST(sequence_number AS INTEGER) AS position FROM _stream_records
            WHERE table_name = ?1 ORDER BY CAST(sequence_number AS INTEGER) LIMIT ?2)
        WHERE id <= (SELECT MAX(id) FROM _stream_records) - ?3 AND (position <= ?4 OR created_at < ?5))
    RETURNING CAST(sequence_number AS INTEGER) > ?4";

/// How far a reader of a table's stream has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReader {
    /// The table.
    pub table: String,
    /// The sequence number of the last record that it is done with; `None` if it has not begun.
    pub read: Option<String>,
}

/// The records deleted from a table's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// The table.
    pub table: String,
    /// How many records.
    pub deleted: usize,
    /// How many of them a reader had not read.
    pub unread: usize,
}

/// The streams could not be trimmed.
#[derive(Debug, thiserror::Error)]
#[error("the streams of the embedded tables could not be trimmed")]
pub struct TrimError {
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<DynoxideError> for TrimError {
    fn from(err: DynoxideError) -> Self {
        Self { source: err.into() }
    }
}

/// Trims the streams of an engine, which then does not do so by itself.
pub struct StreamKeeper {
    engine: EmbeddedEngine,
    connection: Mutex<Connection>,
}

impl EmbeddedEngine {
    /// Takes over the trimming of the streams: from now on they grow until [`StreamKeeper::trim`] is called. When the
    /// engine is opened the next time, it trims by its own rule again.
    pub fn keep_streams(&self) -> Result<StreamKeeper, OpenError> {
        let name = match &self.storage {
            Storage::Memory(name) => name.to_string(),
            Storage::Directory(held) => held.0.join(DATA_FILE).to_string_lossy().into_owned(),
        };
        let _alone = self.gate.0.write().unwrap_or_else(PoisonError::into_inner);
        let connection = Connection::new(&name)
            .and_then(|connection| {
                connection
                    .conn()
                    .execute_batch("DROP TRIGGER IF EXISTS zae_limiter_stream_trim")?;
                Ok(connection)
            })
            .map_err(|err| OpenError::Engine { source: err.into() })?;
        Ok(StreamKeeper {
            engine: self.clone(),
            connection: Mutex::new(connection),
        })
    }
}

impl StreamKeeper {
    /// Deletes old records: all but the last [`STREAM_KEEPS`], and of those only what every reader of their
    /// table has read, or what was made before `oldest`, in seconds since 1970.
    ///
    /// Blocks while it works. Requests are served between its steps.
    pub fn trim(&self, readers: &[StreamReader], oldest: i64) -> Result<Vec<Trimmed>, TrimError> {
        self.trim_to(readers, oldest, STREAM_KEEPS)
    }

    fn trim_to(&self, readers: &[StreamReader], oldest: i64, keeps: u32) -> Result<Vec<Trimmed>, TrimError> {
        let mut read: BTreeMap<&str, i64> = BTreeMap::new();
        for reader in readers {
            let position = reader.read.as_deref().map_or(0, stored);
            read.entry(&reader.table)
                .and_modify(|least| *least = (*least).min(position))
                .or_insert(position);
        }
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trimmed = Vec::new();
        for table in self.alone(|| tables(&connection))? {
            let position = read.get(table.as_str()).copied().unwrap_or(i64::MAX);
            let (mut deleted, mut unread) = (0, 0);
            loop {
                let gone = self.alone(|| delete(&connection, &table, keeps, position, oldest))?;
                deleted += gone.len();
                unread += gone.iter().filter(|unread| **unread).count();
                if gone.len() < AT_ONCE {
                    break;
                }
            }
            if deleted > 0 {
                trimmed.push(Trimmed {
                    table,
                    deleted,
                    unread,
                });
            }
        }
        Ok(trimmed)
    }

    fn alone<T>(&self, work: impl FnOnce() -> Result<T, DynoxideError>) -> Result<T, DynoxideError> {
        let _alone = self.engine.gate.0.write().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

impl fmt::Debug for StreamKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamKeeper")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// The stored form of a public sequence number. Any other text counts as "nothing read".
fn stored(public: &str) -> i64 {
    public
        .parse::<i128>()
        .ok()
        .and_then(|number| i64::try_from(number - OFFSET).ok())
        .unwrap_or(0)
}

fn tables(connection: &Connection) -> Result<Vec<String>, DynoxideError> {
    let mut statement = connection.conn().prepare("SELECT table_name FROM _tables")?;
    let names = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(names)
}

/// Deletes some records of a table; returns for each whether it had not been read.
fn delete(
    connection: &Connection,
    table: &str,
    keeps: u32,
    position: i64,
    oldest: i64,
) -> Result<Vec<bool>, DynoxideError> {
    let mut statement = connection.conn().prepare_cached(TRIM)?;
    let gone = statement
        .query_map((table, AT_ONCE, keeps, position, oldest), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn call(engine: &EmbeddedEngine, operation: &str, request: &Json) -> Json {
        let reply = engine.answer(operation, request.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }

    fn furnished(engine: &EmbeddedEngine, table: &str) -> String {
        let made = call(
            engine,
            "CreateTable",
            &json!({
                "TableName": table, "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
                "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_IMAGE"},
            }),
        );
        made["TableDescription"]["LatestStreamArn"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn put(engine: &EmbeddedEngine, table: &str, key: usize) {
        let item = json!({"k": {"S": key.to_string()}});
        call(engine, "PutItem", &json!({"TableName": table, "Item": item}));
    }

    fn numbers(engine: &EmbeddedEngine, table: &str, arn: &str) -> Vec<String> {
        let shard = format!("shardId-00000001-{table}");
        let request = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
        let iterator = call(engine, "GetShardIterator", &request);
        let records = call(
            engine,
            "GetRecords",
            &json!({"ShardIterator": iterator["ShardIterator"]}),
        );
        let number = |record: &Json| record["dynamodb"]["SequenceNumber"].as_str().unwrap().to_owned();
        records["Records"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect()
    }

    fn check(engine: &EmbeddedEngine) {
        let (arn, other) = (furnished(engine, "things"), furnished(engine, "others"));
        let keeper = engine.keep_streams().unwrap();
        for key in 0..1_100 {
            put(engine, "things", key);
        }
        // The engine's own rule would have looked at these.
        let read = |number: Option<&String>| StreamReader {
            table: "things".into(),
            read: number.cloned(),
        };
        let all = numbers(engine, "things", &arn);
        assert_eq!(keeper.trim_to(&[read(None)], 0, 100).unwrap(), []);
        // Two readers: the slower one counts. Its record itself is read.
        let trimmed = keeper
            .trim_to(&[read(Some(&all[399])), read(Some(&all[9]))], 0, 100)
            .unwrap();
        assert_eq!((trimmed[0].deleted, trimmed[0].unread), (10, 0));
        assert_eq!(numbers(engine, "things", &arn)[0], all[10]);
        // Read, but among the last.
        let trimmed = keeper.trim_to(&[read(all.last())], 0, 400).unwrap();
        assert_eq!(trimmed[0].deleted, 690);
        // Unread, but old.
        let trimmed = keeper.trim_to(&[read(Some(&all[709]))], i64::MAX, 100).unwrap();
        assert_eq!((trimmed[0].deleted, trimmed[0].unread), (300, 290));
        // It has no reader.
        put(engine, "others", 0);
        let trimmed = keeper.trim_to(&[read(None)], 0, 0).unwrap();
        assert_eq!(trimmed.len(), 1);
        assert_eq!((trimmed[0].table.as_str(), trimmed[0].deleted), ("others", 1));
        assert!(numbers(engine, "others", &other).is_empty());
        assert_eq!(numbers(engine, "things", &arn).len(), 100);
    }

    #[test]
    fn what_a_reader_has_not_read_stays() {
        check(&EmbeddedEngine::memory().unwrap());
        let directory = tempfile::tempdir().unwrap();
        check(&EmbeddedEngine::open(directory.path()).unwrap());
    }

    #[test]
    fn requests_are_served_while_streams_are_trimmed() {
        let engine = EmbeddedEngine::memory().unwrap();
        furnished(&engine, "things");
        let keeper = engine.keep_streams().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let engine = &engine;
                scope.spawn(move || (0..200).for_each(|key| put(engine, "things", writer * 1_000 + key)));
            }
            scope.spawn(|| (0..50).for_each(|_| drop(keeper.trim_to(&[], 0, 10).unwrap())));
        });
    }

    #[test]
    fn the_engine_trims_again_when_it_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let triggers = |engine: &EmbeddedEngine| -> usize {
            let name = engine.path().unwrap().join(DATA_FILE);
            let connection = Connection::new(name.to_str().unwrap()).unwrap();
            connection
                .conn()
                .query_row(
                    "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'zae_limiter_stream_trim'",
                    [],
                    |row| row.get(0),
                )
                .unwrap()
        };
        let engine = EmbeddedEngine::open(directory.path()).unwrap();
        assert_eq!(triggers(&engine), 1);
        let keeper = engine.keep_streams().unwrap();
        assert_eq!(triggers(&engine), 0);
        drop((engine, keeper));
        assert_eq!(triggers(&EmbeddedEngine::open(directory.path()).unwrap()), 1);
    }
}
