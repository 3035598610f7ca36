//! Remembers the tokens of transactions beyond the life of an engine, as DynamoDB remembers them: for ten minutes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use dynoxide::DynoxideError;
use dynoxide::storage::Storage as Connection;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::{DATA_FILE, EmbeddedEngine, OpenError, Storage};

/// How long a token is remembered, in seconds (DynamoDB API reference, `TransactWriteItems`).
const REMEMBERED: i64 = 600;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS zae_limiter_tokens (token TEXT PRIMARY KEY, digest BLOB NOT NULL, at INTEGER NOT NULL)";

/// The tokens of the transactions of an engine whose data is in a directory.
pub struct TokenKeeper {
    engine: EmbeddedEngine,
    connection: Mutex<Connection>,
    /// Those of earlier engines: digest and time. The engine has its own.
    earlier: HashMap<String, (Vec<u8>, i64)>,
}

/// A transaction with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokened {
    token: String,
    digest: Vec<u8>,
}

/// What an earlier engine has done with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing within ten minutes.
    Unknown,
    /// This very transaction.
    Done,
    /// Another transaction.
    Other,
}

impl Tokened {
    /// Reads the body of a `TransactWriteItems` request. `None` if it has no token.
    pub fn read(body: &[u8]) -> Option<Self> {
        let request: Json = serde_json::from_slice(body).ok()?;
        let token = request.get("ClientRequestToken")?.as_str()?.to_owned();
        // The order of members does not matter, and what is asked about the cost neither.
        let digest = Sha256::digest(sorted(request.get("TransactItems")?)).to_vec();
        Some(Self { token, digest })
    }
}

/// JSON with the members of objects in the order of their names.
fn sorted(value: &Json) -> String {
    match value {
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            let members = members
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", sorted(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Json::Array(values) => format!("[{}]", values.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

impl EmbeddedEngine {
    /// Opens what is remembered of tokens; `now` is in seconds since 1970. `None` for an engine in memory.
    ///
    /// # Errors
    /// If the engine's database cannot be opened a second time.
    pub fn keep_tokens(&self, now: i64) -> Result<Option<TokenKeeper>, OpenError> {
        let Storage::Directory(held) = &self.storage else {
            return Ok(None);
        };
        let name = held.0.join(DATA_FILE).to_string_lossy().into_owned();
        let _alone = self.gate.0.write().unwrap_or_else(PoisonError::into_inner);
        let opened = Connection::new(&name).and_then(|connection| {
            connection.conn().execute_batch(TABLE)?;
            let oldest = now.saturating_sub(REMEMBERED);
            connection
                .conn()
                .execute("DELETE FROM zae_limiter_tokens WHERE at < ?1", [oldest])?;
            let mut statement = connection
                .conn()
                .prepare("SELECT token, digest, at FROM zae_limiter_tokens")?;
            let earlier = statement
                .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
                .collect::<Result<_, _>>()?;
            drop(statement);
            Ok((connection, earlier))
        });
        let (connection, earlier) = opened.map_err(|err| OpenError::Engine { source: err.into() })?;
        Ok(Some(TokenKeeper {
            engine: self.clone(),
            connection: Mutex::new(connection),
            earlier,
        }))
    }
}

impl TokenKeeper {
    /// What an earlier engine has done with this token.
    pub fn earlier(&self, transaction: &Tokened, now: i64) -> Earlier {
        match self.earlier.get(&transaction.token) {
            Some((_, at)) if at.saturating_add(REMEMBERED) < now => Earlier::Unknown,
            Some((digest, _)) if *digest == transaction.digest => Earlier::Done,
            Some(_) => Earlier::Other,
            None => Earlier::Unknown,
        }
    }

    /// Remembers a transaction that was executed. Blocks for a write to the disk.
    ///
    /// # Errors
    /// If it cannot be written: the transaction is done, and would be done again with this token after a restart.
    pub fn remember(
        &self,
        transaction: &Tokened,
        now: i64,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.engine.gate.0.write().unwrap_or_else(PoisonError::into_inner);
        let write = || -> Result<(), DynoxideError> {
            let mut insert = connection
                .conn()
                .prepare_cached("INSERT OR REPLACE INTO zae_limiter_tokens VALUES (?1, ?2, ?3)")?;
            insert.execute((&transaction.token, &transaction.digest, now))?;
            Ok(())
        };
        Ok(write()?)
    }
}

impl fmt::Debug for TokenKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeeper")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_932_000;

    fn transaction(token: &str, delta: u8) -> Tokened {
        let body = format!(
            r#"{{"ClientRequestToken":"{token}","TransactItems":[{{"Update":{{"TableName":"t","Key":{{"PK":{{"S":"a"}}}},
                "ExpressionAttributeValues":{{":o":{{"N":"{delta}"}}}}}}}}],"ReturnConsumedCapacity":"TOTAL"}}"#
        );
        Tokened::read(body.as_bytes()).unwrap()
    }

    #[test]
    fn tokens_of_an_earlier_engine_are_known_for_ten_minutes() {
        let directory = tempfile::tempdir().unwrap();
        let done = transaction("t1", 1);
        {
            let engine = EmbeddedEngine::open(directory.path()).unwrap();
            let keeper = engine.keep_tokens(NOW).unwrap().unwrap();
            assert_eq!(keeper.earlier(&done, NOW), Earlier::Unknown);
            keeper.remember(&done, NOW).unwrap();
            // The engine itself knows it while it lives.
            assert_eq!(keeper.earlier(&done, NOW), Earlier::Unknown);
        }
        let engine = EmbeddedEngine::open(directory.path()).unwrap();
        let keeper = engine.keep_tokens(NOW + 60).unwrap().unwrap();
        assert_eq!(keeper.earlier(&done, NOW + 60), Earlier::Done);
        assert_eq!(keeper.earlier(&transaction("t1", 2), NOW + 60), Earlier::Other);
        assert_eq!(keeper.earlier(&transaction("t2", 1), NOW + 60), Earlier::Unknown);
        assert_eq!(keeper.earlier(&done, NOW + 601), Earlier::Unknown);
        drop((keeper, engine));
        let engine = EmbeddedEngine::open(directory.path()).unwrap();
        let keeper = engine.keep_tokens(NOW + 601).unwrap().unwrap();
        assert_eq!(keeper.earlier(&done, NOW), Earlier::Unknown, "it was deleted");
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let one = Tokened::read(
            br#"{"ClientRequestToken":"t","TransactItems":[{"Put":{"TableName":"t","Item":{}}}]}"#,
        );
        let two = Tokened::read(
            br#"{"TransactItems":[{"Put":{"Item":{},"TableName":"t"}}],"ClientRequestToken":"t"}"#,
        );
        assert_eq!(one, two);
        assert!(one.is_some());
        for none in [
            "",
            "[]",
            "{}",
            r#"{"ClientRequestToken":1,"TransactItems":[]}"#,
            r#"{"TransactItems":[]}"#,
        ] {
            assert_eq!(Tokened::read(none.as_bytes()), None, "{none}");
        }
        assert!(
            EmbeddedEngine::memory()
                .unwrap()
                .keep_tokens(NOW)
                .unwrap()
                .is_none()
        );
    }
}
