//! A table in DynamoDB.
//!
//! Turns operations into requests and answers back. What it decides itself is little: every
//! write asks for the image that the caller needs (the new one of an update, the stored one of a refused
//! condition), and batches are resent where DynamoDB left parts of them undone. It never sends a
//! conditional write twice, but for one that was refused unread ([`DynamoClient`]).
//!
//! A status of 200 does not prove that DynamoDB answered: proxies and captive portals answer so, too. An answer
//! without the parts that DynamoDB always sends is therefore an error, and a write behind it has an unknown
//! outcome:
//!
//! | Request | DynamoDB always sends | Without it |
//! |---|---|---|
//! | `UpdateItem` | the new image, with the key that was asked for | unknown outcome |
//! | `BatchGetItem` | `Responses` | the read failed |
//! | `Query` | `Items` | the read failed |
//! | `BatchWriteItem` | `UnprocessedItems` | unknown outcome |
//! | `GetItem` | nothing, if there is no item | read as "no item" |
//! | `PutItem`, `DeleteItem`, `TransactWriteItems` | nothing | read as applied |
//!
//! Answers of the last two rows cannot be distinguished. An acquire reads by `BatchGetItem` only, and nothing is
//! refunded because of a transaction's answer.

use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::table::{
    Answer, Applied, Cancelled, Condition, Delete, FailureKind, Item, Key, Op, Part, Put, Query, TableError,
    Update, Value,
};

use super::client::answer::{
    Attributes, BatchGot, BatchWritten, Capacity, Found, Got, Reason, Transacted, Written, read,
};
use super::client::request::Body;
use super::client::{DynamoClient, Failed};
use super::failure::Access;
use super::meter::{Call, Meter, Units, item_size};
use super::render::{Aliases, PK, Renderer, SK, index_names};
use super::{Table, TableFuture};

/// How long at most to wait before unread keys of a batch are asked for again; jitter takes up to half of it. After the
/// last of them the read counts as throttled, and its caller decides whether to send it again.
pub(super) const READ_PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// How long at most to wait before undone deletes of a batch are sent again; jitter takes up to half of it.
pub(super) const DELETE_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// A pause with jitter: half of it to all of it.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A table in DynamoDB, or in anything that speaks its protocol.
///
/// Cheap to clone. Requests are not retried, but for what [`DynamoClient`] says.
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: DynamoClient,
    name: Arc<str>,
    meter: Option<Arc<Meter>>,
}

impl DynamoTable {
    /// The table of this name.
    pub fn new(client: DynamoClient, name: impl Into<Arc<str>>) -> Self {
        Self {
            client,
            name: name.into(),
            meter: None,
        }
    }

    /// The same table, whose requests report what they cost to `meter`.
    pub fn with_meter(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client that requests go through.
    pub fn client(&self) -> &DynamoClient {
        &self.client
    }
}

impl Table for DynamoTable {
    fn call(&self, op: Op) -> TableFuture {
        let table = self.clone();
        // One box per kind: the future of a batch is larger than that of an update.
        match op {
            Op::Update(update) => Box::pin(table.update(update)),
            Op::Get { key, consistent } => Box::pin(table.get(key, consistent)),
            Op::BatchGet { keys, consistent } => Box::pin(table.batch_get(keys, consistent)),
            Op::Query(query) => Box::pin(table.query(query)),
            Op::Put(put) => Box::pin(table.put(put)),
            Op::Delete(delete) => Box::pin(table.delete(delete)),
            Op::BatchDelete(keys) => Box::pin(table.batch_delete(keys)),
            Op::Transact(parts) => Box::pin(table.transact(parts)),
        }
    }
}

impl DynamoTable {
    async fn get(self, key: Key, consistent: bool) -> Result<Answer, TableError> {
        let mut body = self.body();
        body.key("Key", &key).truth("ConsistentRead", consistent);
        let got: Got = self.read(Call::Get, "GetItem", body).await?;
        self.used(Units::Read, got.consumed_capacity.as_ref());
        Ok(Answer::Item(got.item.map(|item| item.0)))
    }

    async fn batch_get(self, keys: Vec<Key>, consistent: bool) -> Result<Answer, TableError> {
        let mut items = Vec::with_capacity(keys.len());
        let mut wanted = keys;
        let mut pauses = READ_PAUSES.iter();
        while !wanted.is_empty() {
            let mut body = Body::new();
            body.object("RequestItems", |body| {
                let of_table = body.object(&self.name, |body| {
                    body.keys("Keys", &wanted).truth("ConsistentRead", consistent);
                    Ok(())
                });
                of_table.map(|_| ())
            })?;
            let got: BatchGot = self.read(Call::BatchGet, "BatchGetItem", body).await?;
            self.used(Units::Read, got.consumed_capacity.iter().flatten());
            let Some(responses) = got.responses else {
                return Err(incomplete("BatchGetItem", "Responses", Applied::No));
            };
            items.extend(responses.into_values().flatten().map(|item| item.0));
            let rest = got.unprocessed_keys.unwrap_or_default().into_values();
            let rest: Vec<_> = rest.flat_map(|rest| rest.keys.unwrap_or_default()).collect();
            let count = rest.len();
            wanted = rest.into_iter().filter_map(Attributes::into_key).collect();
            // A key without an answer is not a key without an item: either all are answered, or none.
            if count > 0 {
                let pause = pauses.next().filter(|_| wanted.len() == count);
                let Some(pause) = pause else {
                    return Err(undone("read", count, Applied::No));
                };
                tokio::time::sleep(jittered(*pause)).await;
            }
        }
        Ok(Answer::Items(items))
    }

    async fn query(self, query: Query) -> Result<Answer, TableError> {
        let mut render = Renderer::default();
        let (index, hash, range) = index_names(query.index);
        let condition = render.key_range((hash, query.hash), (range, query.sort));
        let mut body = self.body();
        body.text_if("IndexName", index)
            .text("KeyConditionExpression", &condition)
            .truth("ScanIndexForward", !query.descending)
            .truth("ConsistentRead", query.consistent);
        if let Some(limit) = query.limit {
            // DynamoDB reads it as a signed number.
            body.number("Limit", limit.min(i32::MAX as u32));
        }
        if let Some(start) = &query.start {
            body.item("ExclusiveStartKey", start)?;
        }
        body.aliases(&render.finish())?;
        let found: Found = self.read(Call::Query, "Query", body).await?;
        self.used(Units::Read, found.consumed_capacity.as_ref());
        let Some(items) = found.items else {
            return Err(incomplete("Query", "Items", Applied::No));
        };
        Ok(Answer::Page {
            items: items.into_iter().map(|item| item.0).collect(),
            next: found.last_evaluated_key.map(|key| key.0),
        })
    }

    async fn put(self, put: Put) -> Result<Answer, TableError> {
        let mut body = self.body();
        write_put(&mut body, &put.item, put.condition)?;
        let offered = if self.meter.is_some() {
            item_size(&put.item)
        } else {
            0
        };
        match self.write(Call::Put, "PutItem", body).await {
            Ok(written) => Ok(self.applied(&written, None)),
            Err(failed) => self.refused(failed, offered),
        }
    }

    async fn update(self, mut update: Update) -> Result<Answer, TableError> {
        let body = update_body(&self.name, &mut update)?;
        match self.write(Call::Update, "UpdateItem", body).await {
            Ok(mut written) => match written.attributes.take() {
                Some(image) if has_key(&image.0, &update.key) => Ok(self.applied(&written, Some(image.0))),
                _ => Err(incomplete("UpdateItem", "the item's new image", Applied::Unknown)),
            },
            Err(failed) => self.refused(failed, 0),
        }
    }

    async fn delete(self, delete: Delete) -> Result<Answer, TableError> {
        let mut body = self.body();
        write_delete(&mut body, &delete.key, delete.condition)?;
        match self.write(Call::Delete, "DeleteItem", body).await {
            Ok(written) => Ok(self.applied(&written, None)),
            Err(failed) => self.refused(failed, 0),
        }
    }

    /// Deleting what is gone already changes nothing, so what was left undone is sent again.
    async fn batch_delete(self, keys: Vec<Key>) -> Result<Answer, TableError> {
        let mut wanted = keys;
        let mut pauses = DELETE_PAUSES.iter();
        while !wanted.is_empty() {
            let mut body = Body::new();
            body.object("RequestItems", |body| {
                let of_table = body.objects(&self.name, &wanted, |body, key| {
                    let delete = body.object("DeleteRequest", |body| {
                        body.key("Key", key);
                        Ok::<_, TableError>(())
                    });
                    delete.map(|_| ())
                });
                of_table.map(|_| ())
            })?;
            let written = self.send(Call::BatchDelete, "BatchWriteItem", body).await;
            let written: BatchWritten = written.map_err(|failed| failed.into_error(Access::Write))?;
            self.used(Units::Write, written.consumed_capacity.iter().flatten());
            let Some(unprocessed) = written.unprocessed_items else {
                return Err(incomplete("BatchWriteItem", "UnprocessedItems", Applied::Unknown));
            };
            let rest: Vec<_> = unprocessed.into_values().flatten().collect();
            let count = rest.len();
            let rest = rest
                .into_iter()
                .filter_map(|write| write.delete_request?.key.into_key());
            wanted = rest.collect();
            if count > 0 {
                let pause = pauses.next().filter(|_| wanted.len() == count);
                let Some(pause) = pause else {
                    return Err(undone("deleted", count, Applied::Unknown));
                };
                tokio::time::sleep(jittered(*pause)).await;
            }
        }
        Ok(Answer::Applied(None))
    }

    async fn transact(self, parts: Vec<Part>) -> Result<Answer, TableError> {
        let mut body = Body::new();
        body.objects("TransactItems", parts, |body, part| self.part(body, part))?;
        // A transaction that arrives twice is executed once. The embedded engine keeps tokens for ten minutes, and looks at all of
        // them for each transaction.
        if self.client.may_repeat() {
            body.text("ClientRequestToken", &format!("{:032x}", fastrand::u128(..)));
        }
        match self
            .send::<Transacted>(Call::Transact, "TransactWriteItems", body)
            .await
        {
            Ok(done) => {
                self.used(Units::Write, done.consumed_capacity.iter().flatten());
                Ok(Answer::Applied(None))
            }
            Err(Failed::Service(err)) if err.code == "TransactionCanceledException" => {
                Ok(self.cancelled(err.reasons.unwrap_or_default()))
            }
            Err(failed) => Err(failed.into_error(Access::Write)),
        }
    }

    fn part(&self, body: &mut Body, part: Part) -> Result<(), TableError> {
        let kind = match &part {
            Part::Put(_) => "Put",
            Part::Update(_) => "Update",
            Part::Delete(_) => "Delete",
            Part::Check(..) => "ConditionCheck",
        };
        let written = body.object(kind, |body| {
            body.text("TableName", &self.name);
            match part {
                Part::Put(put) => write_put(body, &put.item, put.condition),
                Part::Update(mut update) => {
                    // Alone it is fine, but DynamoDB refuses it in a transaction.
                    if !write_update(body, &mut update)? {
                        let message = "an update in a transaction must change something".to_owned();
                        return Err(TableError::new(FailureKind::BadRequest, Applied::No, message));
                    }
                    Ok(())
                }
                Part::Delete(delete) => write_delete(body, &delete.key, delete.condition),
                Part::Check(key, condition) => {
                    if !write_delete_or_check(body, &key, condition)? {
                        let message =
                            format!("a check in a transaction on {} must have a condition", self.name);
                        return Err(TableError::new(FailureKind::BadRequest, Applied::No, message));
                    }
                    Ok(())
                }
            }
        });
        written.map(|_| ())
    }

    /// The beginning of a request to this table.
    fn body(&self) -> Body {
        body_for(&self.name)
    }

    /// Sends a request that only reads.
    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        call: Call,
        operation: &'static str,
        body: Body,
    ) -> Result<T, TableError> {
        let answer = self.send(call, operation, body).await;
        answer.map_err(|failed| failed.into_error(Access::Read))
    }

    async fn write(&self, call: Call, operation: &'static str, body: Body) -> Result<Written, Failed> {
        self.send(call, operation, body).await
    }

    /// Sends a request, and asks for its cost if it is measured.
    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        call: Call,
        operation: &'static str,
        mut body: Body,
    ) -> Result<T, Failed> {
        if let Some(meter) = &self.meter {
            meter.sent(call);
            body.word("ReturnConsumedCapacity", "TOTAL");
        }
        let answer = self.client.send(operation, body.finish()).await?;
        read(operation, &answer).map_err(Failed::Lost)
    }

    fn used<'a>(&self, units: Units, capacity: impl IntoIterator<Item = &'a Capacity>) {
        if let Some(meter) = &self.meter {
            meter.used(units, Capacity::sum(capacity));
        }
    }

    fn applied(&self, written: &Written, image: Option<Item>) -> Answer {
        self.used(Units::Write, written.consumed_capacity.as_ref());
        Answer::Applied(image)
    }

    /// The answer to a write that was not made because its condition did not hold; every other failure is an error.
    fn refused(&self, failed: Failed, offered: usize) -> Result<Answer, TableError> {
        match failed {
            Failed::Service(err) if err.code == "ConditionalCheckFailedException" => {
                let image = err.item.map(|item| item.0);
                if let Some(meter) = &self.meter {
                    meter.refused(image.as_ref(), offered);
                }
                Ok(Answer::Refused(stored(image)))
            }
            failed => Err(failed.into_error(Access::Write)),
        }
    }

    fn cancelled(&self, reasons: Vec<Reason>) -> Answer {
        let reason = |reason: Reason| undone_part(reason.code.as_deref(), || reason.item.map(|item| item.0));
        let parts: Vec<Cancelled> = reasons.into_iter().map(reason).collect();
        if let Some(meter) = &self.meter {
            meter.cancelled(&parts);
        }
        Answer::Cancelled(parts)
    }
}

fn body_for(table: &str) -> Body {
    let mut body = Body::new();
    body.text("TableName", table);
    body
}

/// The body of an `UpdateItem`. Takes the parts out of the update, not its key.
pub(super) fn update_body(table: &str, update: &mut Update) -> Result<Body, TableError> {
    let mut body = body_for(table);
    write_update(&mut body, update)?;
    body.word("ReturnValues", "ALL_NEW");
    Ok(body)
}

fn write_put(body: &mut Body, item: &Item, condition: Condition) -> Result<(), TableError> {
    let mut render = Renderer::default();
    let condition = render.condition(condition)?;
    body.item("Item", item)?;
    write_condition(body, condition.as_deref(), &render.finish())
}

/// Whether the update changes anything.
fn write_update(body: &mut Body, update: &mut Update) -> Result<bool, TableError> {
    let mut render = Renderer::default();
    let change = render.change(update);
    let condition = render.condition(std::mem::replace(&mut update.condition, Condition::ALWAYS))?;
    body.key("Key", &update.key)
        .text_if("UpdateExpression", change.as_deref());
    write_condition(body, condition.as_deref(), &render.finish())?;
    Ok(change.is_some())
}

fn write_delete(body: &mut Body, key: &Key, condition: Condition) -> Result<(), TableError> {
    write_delete_or_check(body, key, condition).map(|_| ())
}

/// Whether there is a condition.
fn write_delete_or_check(body: &mut Body, key: &Key, condition: Condition) -> Result<bool, TableError> {
    let mut render = Renderer::default();
    let condition = render.condition(condition)?;
    body.key("Key", key);
    write_condition(body, condition.as_deref(), &render.finish())?;
    Ok(condition.is_some())
}

fn write_condition(body: &mut Body, condition: Option<&str>, aliases: &Aliases) -> Result<(), TableError> {
    if let Some(condition) = condition {
        body.text("ConditionExpression", condition)
            .word("ReturnValuesOnConditionCheckFailure", "ALL_OLD");
    }
    body.aliases(aliases)?;
    Ok(())
}

/// Whether an image is that of the item with this key.
pub(super) fn has_key(image: &Item, key: &Key) -> bool {
    let is = |name: &str, text: &str| matches!(image.get(name), Some(Value::S(found)) if found == text);
    is(PK, &key.pk) && is(SK, &key.sk)
}

/// An absent item is reported as an image without attributes by some engines; every real one has its key.
pub(super) fn stored(image: Option<Item>) -> Option<Item> {
    image.filter(|image| !image.is_empty())
}

/// Why a part of a transaction was not done, by its code; `image` is the stored item.
pub(super) fn undone_part(code: Option<&str>, image: impl FnOnce() -> Option<Item>) -> Cancelled {
    match code {
        None | Some("None") => Cancelled::Fine,
        Some("ConditionalCheckFailed") => Cancelled::Refused(stored(image())),
        Some("TransactionConflict") => Cancelled::Conflict,
        Some(code) => Cancelled::Other(code.to_owned()),
    }
}

/// An answer of 200 without what DynamoDB always sends: something else answered, or the answer was cut.
pub(super) fn incomplete(request: &str, part: &str, applied: Applied) -> TableError {
    let message = format!("the answer to {request} lacks {part}; it may come from a proxy");
    TableError::new(FailureKind::Internal, applied, message)
}

pub(super) fn undone(what: &str, count: usize, applied: Applied) -> TableError {
    let message = format!("{count} items of a batch were not {what}, after several attempts");
    TableError::new(FailureKind::Throttled, applied, message)
}
