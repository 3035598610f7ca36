//! CloudWatch Logs: groups, streams and what was written to them.
//!
//! A group keeps its newest events up to a bound, and no longer than its retention says.

mod api;
mod events;
mod pattern;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::store::Store;
use crate::tagging::{Tagged, TaggedResource};
use crate::wire::{ACCOUNT, Refusal};

/// The documents of groups, named `region:group`.
const GROUP: &str = "log-group";

/// The documents of streams, named `region:group:stream`. Neither a group's nor a stream's name has a colon.
const STREAM: &str = "log-stream";

/// The most events that a group keeps.
const MOST: usize = 100_000;

/// How many events are written between two looks at how many there are.
const BETWEEN: usize = 1000;

/// The retentions that CloudWatch Logs supports, in days.
const RETENTIONS: [u32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

const DAY_MS: i64 = 86_400_000;

/// A group of logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_ms: i64,
    /// How long its events are kept; without it, they never expire.
    pub retention_days: Option<u32>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A stream of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stream {
    name: String,
    created_ms: i64,
}

/// A line to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it happened, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its message.
    pub message: String,
}

/// The logs. Clones share them.
#[derive(Debug, Clone)]
pub struct Logs {
    store: Store,
    /// Events written to each group since it was last cut to size.
    written: Arc<Mutex<HashMap<String, usize>>>,
}

/// The ARN of a group, without the `:*` that some answers end it with.
pub fn group_arn(region: &str, name: &str) -> String {
    format!("arn:aws:logs:{region}:{ACCOUNT}:log-group:{name}")
}

fn group_key(region: &str, name: &str) -> String {
    format!("{region}:{name}")
}

fn stream_key(region: &str, group: &str, stream: &str) -> String {
    format!("{region}:{group}:{stream}")
}

impl Logs {
    /// The logs in a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            written: Arc::default(),
        }
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `ResourceAlreadyExistsException`, `InvalidParameterException`.
    pub fn create_group(
        &self,
        region: &str,
        name: &str,
        tags: BTreeMap<String, String>,
    ) -> Result<Group, Refusal> {
        check_group(name)?;
        let group = Group {
            name: name.to_owned(),
            created_ms: clock::now_ms(),
            retention_days: None,
            tags,
        };
        if !self.store.insert(GROUP, &group_key(region, name), &group)? {
            return Err(Refusal::new(
                "ResourceAlreadyExistsException",
                format!("The specified log group already exists: {name}"),
            ));
        }
        Ok(group)
    }

    /// A group, if there is one of that name.
    pub fn group(&self, region: &str, name: &str) -> Result<Option<Group>, Refusal> {
        Ok(self.store.get(GROUP, &group_key(region, name))?)
    }

    fn need_group(&self, region: &str, name: &str) -> Result<Group, Refusal> {
        self.group(region, name)?
            .ok_or_else(|| missing("log group", name))
    }

    /// Deletes a group and all that was written to it.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn delete_group(&self, region: &str, name: &str) -> Result<(), Refusal> {
        self.need_group(region, name)?;
        let key = group_key(region, name);
        for (stream, _) in self.streams(region, name)? {
            self.store.delete(STREAM, &stream)?;
        }
        self.execute("DELETE FROM log_events WHERE log_group = ?1", params![key])?;
        self.store.delete(GROUP, &key)?;
        Ok(())
    }

    /// Sets how long a group's events are kept; with `None` they never expire.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidParameterException` for a number of days that CloudWatch Logs has not.
    pub fn set_retention(&self, region: &str, name: &str, days: Option<u32>) -> Result<(), Refusal> {
        if let Some(days) = days.filter(|days| !RETENTIONS.contains(days)) {
            let known: Vec<String> = RETENTIONS.iter().map(u32::to_string).collect();
            return Err(invalid(&format!(
                "Value {days} at 'retentionInDays' failed to satisfy constraint: it must be one of {}",
                known.join(", ")
            )));
        }
        let mut group = self.need_group(region, name)?;
        group.retention_days = days;
        self.store.put(GROUP, &group_key(region, name), &group)?;
        self.expire(region, &group)
    }

    /// Puts tags in place of all that a group has.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn set_tags(&self, region: &str, name: &str, tags: BTreeMap<String, String>) -> Result<(), Refusal> {
        let mut group = self.need_group(region, name)?;
        group.tags = tags;
        self.store.put(GROUP, &group_key(region, name), &group)?;
        Ok(())
    }

    /// Writes lines to a stream, in their order; group and stream are made if they are missing.
    ///
    /// # Errors
    /// `InvalidParameterException` for names that cannot be.
    pub fn append(&self, region: &str, group: &str, stream: &str, lines: &[LogLine]) -> Result<(), Refusal> {
        if self.group(region, group)?.is_none() {
            match self.create_group(region, group, BTreeMap::new()) {
                Err(refusal) if refusal.code != "ResourceAlreadyExistsException" => return Err(refusal),
                _ => {}
            }
        }
        if self.stream(region, group, stream)?.is_none() {
            self.create_stream(region, group, stream)?;
        }
        self.write(region, group, stream, lines)
    }

    fn write(&self, region: &str, group: &str, stream: &str, lines: &[LogLine]) -> Result<(), Refusal> {
        let key = group_key(region, group);
        let now = clock::now_ms();
        {
            let mut database = self.store.database();
            let transaction = database.transaction().map_err(|err| failed(&err))?;
            {
                let mut insert = transaction
                    .prepare_cached(
                        "INSERT INTO log_events (log_group, stream, at, ingested, message) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )
                    .map_err(|err| failed(&err))?;
                for line in lines {
                    insert
                        .execute(params![key, stream, line.at_ms, now, line.message])
                        .map_err(|err| failed(&err))?;
                }
            }
            transaction.commit().map_err(|err| failed(&err))?;
        }
        self.cut(&key, lines.len())
    }

    /// Deletes a group's oldest events if it has too many.
    fn cut(&self, key: &str, added: usize) -> Result<(), Refusal> {
        {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            // At the first write the group may be full already.
            let count = written.entry(key.to_owned()).or_insert(BETWEEN);
            *count += added;
            if *count < BETWEEN {
                return Ok(());
            }
            *count = 0;
        }
        self.execute(
            "DELETE FROM log_events WHERE log_group = ?1 AND (at, id) <= (
                SELECT at, id FROM log_events WHERE log_group = ?1 ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?2)",
            params![key, MOST],
        )
    }

    /// Deletes what a group's retention ends.
    fn expire(&self, region: &str, group: &Group) -> Result<(), Refusal> {
        let Some(days) = group.retention_days else {
            return Ok(());
        };
        self.execute(
            "DELETE FROM log_events WHERE log_group = ?1 AND at < ?2",
            params![
                group_key(region, &group.name),
                clock::now_ms() - i64::from(days) * DAY_MS
            ],
        )
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), Refusal> {
        let database = self.store.database();
        let mut statement = database.prepare_cached(sql).map_err(|err| failed(&err))?;
        statement.execute(params).map_err(|err| failed(&err))?;
        Ok(())
    }

    /// Makes a stream, if there is none of that name.
    fn create_stream(&self, region: &str, group: &str, name: &str) -> Result<(), Refusal> {
        check_stream(name)?;
        let stream = Stream {
            name: name.to_owned(),
            created_ms: clock::now_ms(),
        };
        self.store
            .insert(STREAM, &stream_key(region, group, name), &stream)?;
        Ok(())
    }

    fn stream(&self, region: &str, group: &str, name: &str) -> Result<Option<Stream>, Refusal> {
        Ok(self.store.get(STREAM, &stream_key(region, group, name))?)
    }

    /// The streams of a group by name, with the names of their documents.
    fn streams(&self, region: &str, group: &str) -> Result<Vec<(String, Stream)>, Refusal> {
        Ok(self.store.with_prefix(STREAM, &stream_key(region, group, ""))?)
    }

    /// The groups of a region by name.
    fn groups(&self, region: &str) -> Result<Vec<Group>, Refusal> {
        let found = self.store.with_prefix(GROUP, &group_key(region, ""))?;
        Ok(found.into_iter().map(|(_, group)| group).collect())
    }
}

impl Tagged for Logs {
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let groups = self.groups(region)?.into_iter();
        Ok(groups
            .map(|group| TaggedResource {
                arn: group_arn(region, &group.name),
                tags: group.tags,
            })
            .collect())
    }
}

fn check_group(name: &str) -> Result<(), Refusal> {
    let fits = (1..=512).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.' | b'#'));
    if fits {
        return Ok(());
    }
    Err(invalid(&format!(
        "Value '{name}' at 'logGroupName' failed to satisfy constraint: 1 to 512 letters, digits and _-/.#"
    )))
}

fn check_stream(name: &str) -> Result<(), Refusal> {
    if (1..=512).contains(&name.len()) && !name.contains([':', '*']) {
        return Ok(());
    }
    Err(invalid(&format!(
        "Value '{name}' at 'logStreamName' failed to satisfy constraint: 1 to 512 bytes without : and *"
    )))
}

fn missing(what: &str, name: &str) -> Refusal {
    Refusal::new(
        "ResourceNotFoundException",
        format!("The specified {what} does not exist: {name}"),
    )
}

fn invalid(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("InvalidParameterException", why.to_string())
}

fn failed(err: &rusqlite::Error) -> Refusal {
    Refusal::new(
        "ServiceUnavailableException",
        format!("the logs could not be used: {err}"),
    )
    .status(500)
}
