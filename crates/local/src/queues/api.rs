//! The operations of SQS, over requests and answers in JSON.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::digest::{self, Attribute};
use super::messages::{Kept, Received};
use super::{NUMBERS, Queue, Queues, missing};
use crate::s3::md5_hex;
use crate::wire::{ACCOUNT, Refusal};

/// The most messages in a batch, or received at once.
const MOST: usize = 10;

impl Queues {
    /// Runs an operation.
    pub(super) async fn run(&self, region: &str, operation: &str, body: &Json) -> Result<Json, Refusal> {
        let call = Call {
            queues: self,
            region,
            body,
        };
        match operation {
            "ReceiveMessage" => call.receive().await,
            _ => call.answer(operation),
        }
    }
}

struct Call<'a> {
    queues: &'a Queues,
    region: &'a str,
    body: &'a Json,
}

impl Call<'_> {
    fn answer(&self, operation: &str) -> Result<Json, Refusal> {
        let queues = self.queues;
        match operation {
            "CreateQueue" => {
                let queue = queues.create(
                    self.region,
                    &self.need::<String>("QueueName")?,
                    &self.map("Attributes")?,
                    &self.map("tags")?,
                )?;
                Ok(json!({"QueueUrl": queues.url_of(&queue)}))
            }
            "GetQueueUrl" => {
                let owner: Option<String> = self.get("QueueOwnerAWSAccountId")?;
                let name: String = self.need("QueueName")?;
                if owner.is_some_and(|owner| owner != ACCOUNT) {
                    return Err(missing(&name));
                }
                let queue = queues.need(self.region, &name)?;
                Ok(json!({"QueueUrl": queues.url_of(&queue)}))
            }
            "ListQueues" => self.list(),
            "GetQueueAttributes" => self.attributes(),
            "SetQueueAttributes" => {
                let queue = self.queue()?;
                queues.set_attributes(self.region, &queue.name, &self.map("Attributes")?)?;
                Ok(json!({}))
            }
            "DeleteQueue" => {
                queues.delete(self.region, &self.queue()?.name)?;
                Ok(json!({}))
            }
            "PurgeQueue" => {
                queues.purge(&self.queue()?)?;
                Ok(json!({}))
            }
            "ListQueueTags" => Ok(json!({"Tags": self.queue()?.tags})),
            "TagQueue" => {
                let mut queue = self.queue()?;
                queue.tags.extend(self.map("Tags")?);
                queues.set_tags(self.region, &queue.name, &queue.tags)?;
                Ok(json!({}))
            }
            "UntagQueue" => {
                let mut queue = self.queue()?;
                let keys: Vec<String> = self.need("TagKeys")?;
                queue.tags.retain(|key, _| !keys.contains(key));
                queues.set_tags(self.region, &queue.name, &queue.tags)?;
                Ok(json!({}))
            }
            "SendMessage" => self.send(&self.queue()?, self.body),
            "SendMessageBatch" => self.batch(|queue, entry| self.send(queue, entry)),
            "DeleteMessage" => {
                queues.delete_message(&self.queue()?, &self.need::<String>("ReceiptHandle")?)?;
                Ok(json!({}))
            }
            "DeleteMessageBatch" => self.batch(|queue, entry| {
                queues.delete_message(queue, &need::<String>(entry, "ReceiptHandle")?)?;
                Ok(json!({}))
            }),
            "ChangeMessageVisibility" => self.change_visibility(&self.queue()?, self.body),
            "ChangeMessageVisibilityBatch" => self.batch(|queue, entry| self.change_visibility(queue, entry)),
            other => Err(Refusal::unsupported("SQS", other)),
        }
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Refusal> {
        get(self.body, name)
    }

    fn need<T: DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        need(self.body, name)
    }

    fn map(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        Ok(self.get(name)?.unwrap_or_default())
    }

    /// The queue that a request is about: the last part of its URL.
    fn queue(&self) -> Result<Queue, Refusal> {
        let url: String = self.need("QueueUrl")?;
        let name = url.rsplit('/').next().unwrap_or_default();
        self.queues.need(self.region, name)
    }

    fn list(&self) -> Result<Json, Refusal> {
        let prefix: String = self.get("QueueNamePrefix")?.unwrap_or_default();
        let after: Option<String> = self.get("NextToken")?;
        let limit: Option<usize> = self.get("MaxResults")?;
        if limit.is_some_and(|limit| !(1..=1000).contains(&limit)) {
            return Err(invalid(&"MaxResults must be 1 to 1000"));
        }
        let mut found = self.queues.list(self.region)?;
        found.retain(|queue| {
            queue.name.starts_with(&prefix) && after.as_ref().is_none_or(|after| queue.name > *after)
        });
        let most = limit.unwrap_or(1000);
        let more = found.len() > most;
        found.truncate(most);
        let mut answer = Map::new();
        if !found.is_empty() {
            let urls: Vec<String> = found.iter().map(|queue| self.queues.url_of(queue)).collect();
            answer.insert("QueueUrls".into(), json!(urls));
        }
        if let Some(last) = found.last().filter(|_| more && limit.is_some()) {
            answer.insert("NextToken".into(), json!(last.name));
        }
        Ok(answer.into())
    }

    fn attributes(&self) -> Result<Json, Refusal> {
        let queue = self.queue()?;
        let asked: Vec<String> = self.get("AttributeNames")?.unwrap_or_default();
        let counts = self.queues.counts(&queue)?;
        let mut all = BTreeMap::from([
            ("QueueArn".to_owned(), queue.arn()),
            (
                "ApproximateNumberOfMessages".to_owned(),
                counts.visible.to_string(),
            ),
            (
                "ApproximateNumberOfMessagesNotVisible".to_owned(),
                counts.hidden.to_string(),
            ),
            (
                "ApproximateNumberOfMessagesDelayed".to_owned(),
                counts.delayed.to_string(),
            ),
            (
                "CreatedTimestamp".to_owned(),
                (queue.created_ms / 1000).to_string(),
            ),
            (
                "LastModifiedTimestamp".to_owned(),
                (queue.modified_ms / 1000).to_string(),
            ),
            ("SqsManagedSseEnabled".to_owned(), "true".to_owned()),
        ]);
        for (name, ..) in NUMBERS {
            all.insert(name.to_owned(), queue.number(name).to_string());
        }
        let known = |name: &String| name == "All" || name == "Policy" || all.contains_key(name);
        if let Some(unknown) = asked.iter().find(|name| !known(name)) {
            return Err(Refusal::new(
                "InvalidAttributeName",
                format!("Unknown Attribute {unknown}."),
            ));
        }
        all.extend(queue.attributes.clone());
        let every = asked.iter().any(|name| name == "All");
        all.retain(|name, _| every || asked.contains(name));
        Ok(if all.is_empty() {
            json!({})
        } else {
            json!({"Attributes": all})
        })
    }

    fn send(&self, queue: &Queue, message: &Json) -> Result<Json, Refusal> {
        for unknown in [
            "MessageDeduplicationId",
            "MessageGroupId",
            "MessageSystemAttributes",
        ] {
            if !message[unknown].is_null() {
                return Err(Refusal::unsupported(
                    "SQS",
                    &format!("SendMessage with {unknown}"),
                ));
            }
        }
        let body: String = need(message, "MessageBody")?;
        let attributes: BTreeMap<String, Attribute> = get(message, "MessageAttributes")?.unwrap_or_default();
        let delay = get(message, "DelaySeconds")?;
        let kept: Kept = self.queues.send(queue, &body, attributes, delay)?;
        let mut answer = json!({"MessageId": kept.id, "MD5OfMessageBody": md5_hex(body.as_bytes())});
        if let Some(digest) = digest::of_attributes(&kept.attributes) {
            answer["MD5OfMessageAttributes"] = digest.into();
        }
        Ok(answer)
    }

    fn change_visibility(&self, queue: &Queue, entry: &Json) -> Result<Json, Refusal> {
        let receipt: String = need(entry, "ReceiptHandle")?;
        self.queues
            .change_visibility(queue, &receipt, need(entry, "VisibilityTimeout")?)?;
        Ok(json!({}))
    }

    /// Does something with each entry of a batch.
    fn batch(&self, each: impl Fn(&Queue, &Json) -> Result<Json, Refusal>) -> Result<Json, Refusal> {
        let queue = self.queue()?;
        let entries: Vec<Json> = self.get("Entries")?.unwrap_or_default();
        if entries.is_empty() {
            return Err(Refusal::new(
                "AWS.SimpleQueueService.EmptyBatchRequest",
                "There should be at least one entry in the request.",
            ));
        }
        if entries.len() > MOST {
            return Err(Refusal::new(
                "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
                format!(
                    "Maximum number of entries per request are {MOST}. You have sent {}.",
                    entries.len()
                ),
            ));
        }
        let mut ids: Vec<String> = entries
            .iter()
            .map(|entry| need(entry, "Id"))
            .collect::<Result<_, _>>()?;
        ids.sort();
        let twice = ids.iter().zip(ids.iter().skip(1)).find(|(one, next)| one == next);
        if let Some((twice, _)) = twice {
            return Err(Refusal::new(
                "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
                format!("Id {twice} repeated."),
            ));
        }
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for entry in &entries {
            match each(&queue, entry) {
                Ok(mut answer) => {
                    answer["Id"] = entry["Id"].clone();
                    done.push(answer);
                }
                Err(refusal) => refused.push(json!({
                    "Id": entry["Id"], "Code": refusal.code, "Message": refusal.message,
                    "SenderFault": refusal.status < 500,
                })),
            }
        }
        let mut answer = json!({"Successful": done});
        if !refused.is_empty() {
            answer["Failed"] = refused.into();
        }
        Ok(answer)
    }

    async fn receive(&self) -> Result<Json, Refusal> {
        let queue = self.queue()?;
        let number = |name: &str, least: u32, most: u32, without: u32| -> Result<u32, Refusal> {
            let value = self.get(name)?.unwrap_or(without);
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            Err(invalid(&format!(
                "Value {value} for parameter {name} is invalid. Reason: Must be between {least} and {most}, if provided."
            )))
        };
        let limit = number("MaxNumberOfMessages", 1, MOST as u32, 1)?;
        let hidden = number("VisibilityTimeout", 0, 43_200, queue.number("VisibilityTimeout"))?;
        let wait = number(
            "WaitTimeSeconds",
            0,
            20,
            queue.number("ReceiveMessageWaitTimeSeconds"),
        )?;
        // The first of these is its old name.
        let mut system: Vec<String> = self.get("AttributeNames")?.unwrap_or_default();
        system.extend(
            self.get::<Vec<String>>("MessageSystemAttributeNames")?
                .unwrap_or_default(),
        );
        let names: Vec<String> = self.get("MessageAttributeNames")?.unwrap_or_default();
        let found = self
            .queues
            .receive(
                &queue,
                limit as usize,
                i64::from(hidden) * 1000,
                i64::from(wait) * 1000,
            )
            .await?;
        if found.is_empty() {
            return Ok(json!({}));
        }
        let messages: Vec<Json> = found.iter().map(|one| shown(one, &system, &names)).collect();
        Ok(json!({"Messages": messages}))
    }
}

/// A message as its receiver asked to see it.
fn shown(received: &Received, system: &[String], names: &[String]) -> Json {
    let mut message = json!({
        "MessageId": received.kept.id,
        "ReceiptHandle": received.receipt,
        "MD5OfBody": received.md5(),
        "Body": received.body,
    });
    let first = received.kept.first_ms.unwrap_or(received.sent_ms);
    let mut all = BTreeMap::from([
        ("SenderId", ACCOUNT.to_owned()),
        ("SentTimestamp", received.sent_ms.to_string()),
        ("ApproximateReceiveCount", received.times.to_string()),
        ("ApproximateFirstReceiveTimestamp", first.to_string()),
    ]);
    all.retain(|name, _| system.iter().any(|asked| asked == "All" || asked == name));
    if !all.is_empty() {
        message["Attributes"] = json!(all);
    }
    let (attributes, digest) = received.wanted(names);
    if let Some(digest) = digest {
        message["MD5OfMessageAttributes"] = digest.into();
        message["MessageAttributes"] = json!(attributes);
    }
    message
}

fn get<T: DeserializeOwned>(body: &Json, name: &str) -> Result<Option<T>, Refusal> {
    match &body[name] {
        Json::Null => Ok(None),
        value => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|err| invalid(&format!("{name}: {err}"))),
    }
}

fn need<T: DeserializeOwned>(body: &Json, name: &str) -> Result<T, Refusal> {
    get(body, name)?.ok_or_else(|| missing_parameter(name))
}

/// Says that a parameter is not there.
pub(super) fn missing_parameter(name: &str) -> Refusal {
    Refusal::new(
        "MissingParameter",
        format!("The request must contain the parameter {name}."),
    )
}

fn invalid(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("InvalidParameterValue", why.to_string())
}

#[cfg(test)]
mod tests;
