//! SQS: standard queues. FIFO queues are refused by name, and nothing moves messages to a dead-letter queue.

mod api;
mod messages;
mod protocol;

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::params;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock;
use crate::store::Store;
use crate::tagging::{Tagged, TaggedResource};
use crate::wire::{ACCOUNT, Refusal};

/// The documents of queues, named `region:queue`.
const KIND: &str = "queue";

/// The attributes that can be set to a number: least, most, and without being set.
const NUMBERS: [(&str, u32, u32, u32); 5] = [
    ("DelaySeconds", 0, 900, 0),
    ("MaximumMessageSize", 1024, 1_048_576, 1_048_576),
    ("MessageRetentionPeriod", 60, 1_209_600, 345_600),
    ("ReceiveMessageWaitTimeSeconds", 0, 20, 0),
    ("VisibilityTimeout", 0, 43_200, 30),
];

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// The attributes that were set.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    pub created_ms: i64,
    /// When its attributes were last set.
    pub modified_ms: i64,
}

impl Queue {
    /// Its ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:sqs:{}:{ACCOUNT}:{}", self.region, self.name)
    }

    fn key(&self) -> String {
        key(&self.region, &self.name)
    }

    /// An attribute that is a number, as it is set or by default.
    fn number(&self, name: &str) -> u32 {
        let default = NUMBERS
            .iter()
            .find(|(known, ..)| *known == name)
            .map_or(0, |(.., default)| *default);
        let set = self.attributes.get(name).and_then(|text| text.parse().ok());
        set.unwrap_or(default)
    }

    /// An attribute as it is set or by default.
    fn attribute(&self, name: &str) -> String {
        match (self.attributes.get(name), name) {
            (Some(set), _) => set.clone(),
            (None, "SqsManagedSseEnabled") => "true".to_owned(),
            (None, "FifoQueue") => "false".to_owned(),
            (None, "Policy") => String::new(),
            (None, _) => self.number(name).to_string(),
        }
    }

    fn millis(&self, name: &str) -> i64 {
        i64::from(self.number(name)) * 1000
    }
}

fn key(region: &str, name: &str) -> String {
    format!("{region}:{name}")
}

/// The queues. Clones share them.
#[derive(Debug, Clone)]
pub struct Queues {
    store: Store,
    url: Arc<str>,
    /// Changes after each message that is sent: wakes those who wait for one.
    sent: Arc<watch::Sender<u64>>,
}

impl Queues {
    /// The queues in a store. Their URLs begin with the endpoint's own.
    pub fn new(store: Store, url: &str) -> Self {
        Self {
            store,
            url: url.trim_end_matches('/').into(),
            sent: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Makes a queue, or finds the one of that name, if it has these attributes.
    ///
    /// # Errors
    /// `QueueAlreadyExists`, `InvalidParameterValue`, `InvalidAttributeName`, `InvalidAttributeValue`.
    pub fn create(
        &self,
        region: &str,
        name: &str,
        attributes: &BTreeMap<String, String>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Queue, Refusal> {
        if let Some(queue) = self.create_new(region, name, attributes, tags)? {
            return Ok(queue);
        }
        let queue = self.need(region, name)?;
        for (attribute, value) in attributes {
            let has = queue.attribute(attribute);
            if has != *value && !value.is_empty() {
                return Err(Refusal::new(
                    "QueueAlreadyExists",
                    format!(
                        "A queue already exists with the same name and a different value for attribute \
                         {attribute}: it has {has}, not {value}"
                    ),
                ));
            }
        }
        Ok(queue)
    }

    /// Makes a queue, unless there is one of that name.
    ///
    /// # Errors
    /// `InvalidParameterValue`, `InvalidAttributeName`, `InvalidAttributeValue`.
    pub fn create_new(
        &self,
        region: &str,
        name: &str,
        attributes: &BTreeMap<String, String>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Option<Queue>, Refusal> {
        check_name(name)?;
        check_attributes(attributes)?;
        let now = clock::now_ms();
        let queue = Queue {
            name: name.to_owned(),
            region: region.to_owned(),
            attributes: set(attributes),
            tags: tags.clone(),
            created_ms: now,
            modified_ms: now,
        };
        let made = self.store.insert(KIND, &queue.key(), &queue)?;
        Ok(made.then_some(queue))
    }

    /// A queue, if there is one of that name.
    pub fn find(&self, region: &str, name: &str) -> Result<Option<Queue>, Refusal> {
        Ok(self.store.get(KIND, &key(region, name))?)
    }

    fn need(&self, region: &str, name: &str) -> Result<Queue, Refusal> {
        self.find(region, name)?.ok_or_else(|| missing(name))
    }

    /// The queues of a region by name.
    pub fn list(&self, region: &str) -> Result<Vec<Queue>, Refusal> {
        let found = self.store.with_prefix(KIND, &key(region, ""))?;
        Ok(found.into_iter().map(|(_, queue)| queue).collect())
    }

    /// Deletes a queue and its messages.
    ///
    /// # Errors
    /// `AWS.SimpleQueueService.NonExistentQueue`.
    pub fn delete(&self, region: &str, name: &str) -> Result<(), Refusal> {
        let queue = self.need(region, name)?;
        self.purge(&queue)?;
        self.store.delete(KIND, &queue.key())?;
        Ok(())
    }

    fn purge(&self, queue: &Queue) -> Result<(), Refusal> {
        self.execute("DELETE FROM messages WHERE queue = ?1", params![queue.key()])?;
        Ok(())
    }

    /// Sets some attributes; an empty text takes one back.
    ///
    /// # Errors
    /// As of `create`, and `AWS.SimpleQueueService.NonExistentQueue`.
    pub fn set_attributes(
        &self,
        region: &str,
        name: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let mut queue = self.need(region, name)?;
        check_attributes(attributes)?;
        queue.attributes.extend(attributes.clone());
        queue.attributes = set(&queue.attributes);
        queue.modified_ms = clock::now_ms();
        self.store.put(KIND, &queue.key(), &queue)?;
        Ok(())
    }

    /// Puts tags in place of all that a queue has.
    ///
    /// # Errors
    /// `AWS.SimpleQueueService.NonExistentQueue`.
    pub fn set_tags(&self, region: &str, name: &str, tags: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let mut queue = self.need(region, name)?;
        queue.tags.clone_from(tags);
        self.store.put(KIND, &queue.key(), &queue)?;
        Ok(())
    }

    /// A queue's URL.
    pub fn url_of(&self, queue: &Queue) -> String {
        format!("{}/{ACCOUNT}/{}", self.url, queue.name)
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, Refusal> {
        let database = self.store.database();
        let mut statement = database.prepare_cached(sql).map_err(|err| failed(&err))?;
        statement.execute(params).map_err(|err| failed(&err))
    }
}

impl Tagged for Queues {
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let queues = self.list(region)?.into_iter();
        Ok(queues
            .map(|queue| TaggedResource {
                arn: queue.arn(),
                tags: queue.tags,
            })
            .collect())
    }
}

/// The attributes that say something.
fn set(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut set = attributes.clone();
    set.retain(|_, value| !value.is_empty());
    set
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.strip_suffix(".fifo").is_some() {
        return Err(Refusal::unsupported(
            "SQS",
            &format!("CreateQueue with a FIFO queue ({name})"),
        ));
    }
    let fits = (1..=80).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fits {
        return Ok(());
    }
    Err(Refusal::new(
        "InvalidParameterValue",
        format!(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length: {name:?}"
        ),
    ))
}

fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for (name, value) in attributes {
        if value.is_empty() {
            continue;
        }
        let invalid = |right: String| {
            Refusal::new(
                "InvalidAttributeValue",
                format!("Invalid value for the parameter {name}: {value} is not {right}"),
            )
        };
        match (NUMBERS.iter().find(|(known, ..)| known == name), name.as_str()) {
            (Some((_, least, most, _)), _) => {
                let number: Option<u32> = value.parse().ok();
                number
                    .filter(|number| (*least..=*most).contains(number))
                    .ok_or_else(|| invalid(format!("a number from {least} to {most}")))?;
            }
            (None, "SqsManagedSseEnabled") if !matches!(value.as_str(), "true" | "false") => {
                return Err(invalid("true or false".into()));
            }
            (None, "FifoQueue") if value == "false" => {}
            (None, "Policy") if serde_json::from_str::<serde_json::Value>(value).is_err() => {
                return Err(invalid("JSON".into()));
            }
            (None, "SqsManagedSseEnabled" | "Policy") => {}
            (
                None,
                "FifoQueue"
                | "ContentBasedDeduplication"
                | "DeduplicationScope"
                | "FifoThroughputLimit"
                | "RedrivePolicy"
                | "RedriveAllowPolicy"
                | "KmsMasterKeyId"
                | "KmsDataKeyReusePeriodSeconds",
            ) => return Err(Refusal::unsupported("SQS", &format!("queue attribute {name}"))),
            (None, _) => {
                return Err(Refusal::new(
                    "InvalidAttributeName",
                    format!("Unknown Attribute {name}."),
                ));
            }
        }
    }
    Ok(())
}

fn missing(name: &str) -> Refusal {
    Refusal::new(
        "AWS.SimpleQueueService.NonExistentQueue",
        format!("The specified queue does not exist: {name}"),
    )
}

fn failed(err: &rusqlite::Error) -> Refusal {
    Refusal::new("InternalFailure", format!("the queues could not be used: {err}")).status(500)
}
