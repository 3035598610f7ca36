//! Messages: sent, received for a while, deleted.

use std::time::Duration;

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Queue, Queues, failed, missing};
use crate::clock;
use crate::s3::md5_hex;
use crate::wire::{Refusal, uuid};

/// The longest time until a waiting receiver looks at an empty queue again, even if it is not woken.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub id: String,
    /// When it was first received.
    #[serde(default)]
    pub first_ms: Option<i64>,
}

/// A message as it is received.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub kept: Kept,
    pub body: String,
    pub receipt: String,
    pub sent_ms: i64,
    pub times: u64,
}

/// How many messages a queue has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Those that can be received.
    pub visible: u64,
    /// Messages that were received and not deleted yet.
    pub hidden: u64,
    /// Those that wait for their delay.
    pub delayed: u64,
}

impl Queues {
    /// Sends a message to the queue of an ARN; its id is the answer.
    ///
    /// # Errors
    /// `AWS.SimpleQueueService.NonExistentQueue`, and what SQS says of messages that cannot be.
    pub fn send_to_arn(&self, arn: &str, body: &str) -> Result<String, Refusal> {
        let mut parts = arn.split(':').skip(3);
        let (region, name) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        let queue = self
            .find(region, name)?
            .filter(|queue| queue.arn() == arn)
            .ok_or_else(|| missing(arn))?;
        Ok(self.send(&queue, body, None)?.id)
    }

    /// How many messages a queue has, visible or not.
    ///
    /// # Errors
    /// `AWS.SimpleQueueService.NonExistentQueue`.
    pub fn count(&self, region: &str, name: &str) -> Result<u64, Refusal> {
        let counts = self.counts(&self.need(region, name)?)?;
        Ok(counts.visible + counts.hidden + counts.delayed)
    }

    /// Sends a message.
    pub(super) fn send(&self, queue: &Queue, body: &str, delay: Option<u32>) -> Result<Kept, Refusal> {
        let most = queue.number("MaximumMessageSize") as usize;
        if body.is_empty() {
            return Err(Refusal::new(
                "MissingParameter",
                "The request must contain the parameter MessageBody.",
            ));
        }
        if !body.chars().all(is_valid) {
            return Err(Refusal::new(
                "InvalidMessageContents",
                "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | \
                 #x10000 to #x10FFFF.",
            ));
        }
        if body.len() > most {
            return Err(invalid(&format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {most} bytes, and has {}.",
                body.len()
            )));
        }
        let delay = match delay {
            Some(seconds @ 901..) => {
                return Err(invalid(&format!(
                    "Value {seconds} for parameter DelaySeconds is invalid. Reason: must be between 0 and 900."
                )));
            }
            Some(seconds) => i64::from(seconds) * 1000,
            None => queue.millis("DelaySeconds"),
        };
        let kept = Kept {
            id: uuid(),
            first_ms: None,
        };
        let document = serde_json::to_string(&kept).map_err(|err| Refusal::internal(&err))?;
        let now = clock::now_ms();
        self.execute(
            "INSERT INTO messages (queue, body, attributes, visible_at, sent_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![queue.key(), body, document, now + delay, now],
        )?;
        self.sent.send_modify(|count| *count = count.wrapping_add(1));
        Ok(kept)
    }

    /// Deletes what is kept no longer.
    pub(super) fn expire(&self, queue: &Queue) -> Result<(), Refusal> {
        let oldest = clock::now_ms() - queue.millis("MessageRetentionPeriod");
        self.execute(
            "DELETE FROM messages WHERE queue = ?1 AND sent_at <= ?2",
            params![queue.key(), oldest],
        )?;
        Ok(())
    }

    /// Receives messages, and waits for the first if there are none.
    pub(super) async fn receive(
        &self,
        queue: &Queue,
        limit: usize,
        visibility_ms: i64,
        wait_ms: i64,
    ) -> Result<Vec<Received>, Refusal> {
        let end = clock::now_ms() + wait_ms;
        let mut sent = self.sent.subscribe();
        loop {
            sent.borrow_and_update();
            // The queue may be deleted while a receiver waits.
            let queue = self.need(&queue.region, &queue.name)?;
            let found = self.take(&queue, limit, visibility_ms)?;
            let left = end - clock::now_ms();
            if !found.is_empty() || left <= 0 {
                return Ok(found);
            }
            let pause = Duration::from_millis(left as u64).min(LOOK_AGAIN);
            // Either outcome is a reason to look again.
            let _ = tokio::time::timeout(pause, sent.changed()).await;
        }
    }

    /// Takes messages that are visible, and hides them.
    pub(super) fn take(
        &self,
        queue: &Queue,
        limit: usize,
        visibility_ms: i64,
    ) -> Result<Vec<Received>, Refusal> {
        self.expire(queue)?;
        let now = clock::now_ms();
        let mut database = self.store.database();
        let transaction = database.transaction().map_err(|err| failed(&err))?;
        let mut received = Vec::new();
        {
            let mut select = transaction
                .prepare_cached(
                    "SELECT id, body, attributes, sent_at, received FROM messages
                     WHERE queue = ?1 AND visible_at <= ?2 ORDER BY visible_at, id LIMIT ?3",
                )
                .map_err(|err| failed(&err))?;
            let rows = select
                .query_map(params![queue.key(), now, limit], |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, i64>(3)?,
                        row.get::<_, i64>(4)?,
                    ))
                })
                .map_err(|err| failed(&err))?;
            let mut update = transaction
                .prepare_cached(
                    "UPDATE messages SET visible_at = ?2, received = received + 1, receipt = ?3, attributes = ?4
                     WHERE id = ?1",
                )
                .map_err(|err| failed(&err))?;
            for row in rows.collect::<Result<Vec<_>, _>>().map_err(|err| failed(&err))? {
                let (id, body, document, sent_ms, times) = row;
                let mut kept: Kept =
                    serde_json::from_str(&document).map_err(|err| Refusal::internal(&err))?;
                kept.first_ms = kept.first_ms.or(Some(now));
                let document = serde_json::to_string(&kept).map_err(|err| Refusal::internal(&err))?;
                let receipt = format!("{id}.{}", uuid());
                update
                    .execute(params![id, now + visibility_ms, receipt, document])
                    .map_err(|err| failed(&err))?;
                received.push(Received {
                    kept,
                    body,
                    receipt,
                    sent_ms,
                    times: times as u64 + 1,
                });
            }
        }
        transaction.commit().map_err(|err| failed(&err))?;
        Ok(received)
    }

    /// Deletes a message by its latest receipt. With an earlier one the call succeeds and the message stays, as in AWS: it
    /// has been received again since.
    pub(super) fn delete_message(&self, queue: &Queue, receipt: &str) -> Result<(), Refusal> {
        self.execute(
            "DELETE FROM messages WHERE queue = ?1 AND id = ?2 AND receipt = ?3",
            params![queue.key(), id_of(receipt)?, receipt],
        )?;
        Ok(())
    }

    /// Hides a message that was received for longer or shorter from now.
    pub(super) fn change_visibility(
        &self,
        queue: &Queue,
        receipt: &str,
        seconds: u32,
    ) -> Result<(), Refusal> {
        if seconds > 43_200 {
            return Err(invalid(&format!(
                "Value {seconds} for parameter VisibilityTimeout is invalid. Reason: must be between 0 and 43200."
            )));
        }
        let id = id_of(receipt)?;
        let now = clock::now_ms();
        let changed = self.execute(
            "UPDATE messages SET visible_at = ?4 WHERE queue = ?1 AND id = ?2 AND receipt = ?5 AND visible_at > ?3",
            params![queue.key(), id, now, now + i64::from(seconds) * 1000, receipt],
        )?;
        if changed == 0 {
            return Err(Refusal::new(
                "MessageNotInflight",
                format!("The message of receipt {receipt} is not in flight: it is visible again, or deleted"),
            ));
        }
        if seconds == 0 {
            self.sent.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(())
    }

    /// How many messages a queue has.
    pub(super) fn counts(&self, queue: &Queue) -> Result<Counts, Refusal> {
        self.expire(queue)?;
        let database = self.store.database();
        database
            .prepare_cached(
                "SELECT count(*) FILTER (WHERE visible_at <= ?2), count(*) FILTER (WHERE visible_at > ?2 AND received > 0),
                        count(*) FILTER (WHERE visible_at > ?2 AND received = 0) FROM messages WHERE queue = ?1",
            )
            .and_then(|mut statement| {
                statement.query_row(params![queue.key(), clock::now_ms()], |row| {
                    Ok(Counts {
                        visible: row.get::<_, i64>(0)? as u64,
                        hidden: row.get::<_, i64>(1)? as u64,
                        delayed: row.get::<_, i64>(2)? as u64,
                    })
                })
            })
            .map_err(|err| failed(&err))
    }
}

impl Received {
    /// The MD5 of its body.
    pub(super) fn md5(&self) -> String {
        md5_hex(self.body.as_bytes())
    }
}

/// Whether a message may hold a character: one of XML 1.0.
fn is_valid(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

/// The message that a receipt is of.
fn id_of(receipt: &str) -> Result<i64, Refusal> {
    let id = receipt.split('.').next().and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        Refusal::new(
            "ReceiptHandleIsInvalid",
            format!("The input receipt handle \"{receipt}\" is not a valid receipt handle."),
        )
    })
}

fn invalid(why: &str) -> Refusal {
    Refusal::new("InvalidParameterValue", why)
}
