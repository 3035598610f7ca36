//! The operations of SQS, over requests and answers in JSON.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::messages::Received;
use super::{NUMBERS, Queue, Queues, missing};
use crate::s3::md5_hex;
use crate::wire::{ACCOUNT, Refusal};

/// The most messages that are received at once.
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
            "SendMessage" => self.send(),
            "DeleteMessage" => {
                queues.delete_message(&self.queue()?, &self.need::<String>("ReceiptHandle")?)?;
                Ok(json!({}))
            }
            "ChangeMessageVisibility" => self.change_visibility(),
            other => Err(Refusal::unsupported("SQS", other)),
        }
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Refusal> {
        match &self.body[name] {
            Json::Null => Ok(None),
            value => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|err| invalid(&format!("{name}: {err}"))),
        }
    }

    fn need<T: DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        self.get(name)?.ok_or_else(|| {
            Refusal::new(
                "MissingParameter",
                format!("The request must contain the parameter {name}."),
            )
        })
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

    fn send(&self) -> Result<Json, Refusal> {
        for unknown in [
            "MessageAttributes",
            "MessageDeduplicationId",
            "MessageGroupId",
            "MessageSystemAttributes",
        ] {
            if !self.body[unknown].is_null() {
                return Err(Refusal::unsupported(
                    "SQS",
                    &format!("SendMessage with {unknown}"),
                ));
            }
        }
        let body: String = self.need("MessageBody")?;
        let kept = self
            .queues
            .send(&self.queue()?, &body, self.get("DelaySeconds")?)?;
        Ok(json!({"MessageId": kept.id, "MD5OfMessageBody": md5_hex(body.as_bytes())}))
    }

    fn change_visibility(&self) -> Result<Json, Refusal> {
        let receipt: String = self.need("ReceiptHandle")?;
        self.queues
            .change_visibility(&self.queue()?, &receipt, self.need("VisibilityTimeout")?)?;
        Ok(json!({}))
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
        let messages: Vec<Json> = found.iter().map(|one| shown(one, &system)).collect();
        Ok(json!({"Messages": messages}))
    }
}

/// A message as its receiver asked to see it.
fn shown(received: &Received, system: &[String]) -> Json {
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
    message
}

fn invalid(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("InvalidParameterValue", why.to_string())
}

#[cfg(test)]
mod tests;
