//! A table behind a client of the AWS SDK.
//!
//! For applications that bring their own client ([`RepositoryBuilder::client`](crate::RepositoryBuilder::client)). It does what
//! [`DynamoTable`](super::DynamoTable) does, with the same checks of answers; a test sends all requests through both.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, ConsumedCapacity, DeleteRequest, KeysAndAttributes,
    ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    WriteRequest,
};
use aws_smithy_types::error::operation::BuildError;
use zae_limiter_core::table::{
    Answer, Applied, Cancelled, Condition, Delete, FailureKind, Item, Key, Op, Part, Put, Query, TableError,
    Update,
};

use self::convert::{SdkAliases, from_attributes, to_attributes, to_key};
use self::date::ReadDate;
pub use self::failure::{from_sdk, from_service, service_error};
use super::dynamo::{DELETE_PAUSES, READ_PAUSES, has_key, incomplete, jittered, stored, undone, undone_part};
use super::failure::Access;
use super::meter::{Call, Meter, Units, item_size};
use super::render::{Renderer, index_names};
use super::{Table, TableFuture};
use crate::clock::{Signature, TableOffset};

pub(crate) mod config;
mod convert;
mod date;
#[cfg(feature = "embedded")]
mod embedded;
mod empty;
mod failure;

type Attributes = HashMap<String, AttributeValue>;

/// A table in DynamoDB, or in anything that speaks its protocol.
///
/// Cheap to clone. Requests are not retried; a debit or refund must not be repeated blindly.
#[derive(Debug, Clone)]
pub struct SdkTable {
    client: Client,
    name: Arc<str>,
    meter: Option<Arc<Meter>>,
    offset: Option<Arc<TableOffset>>,
}

impl SdkTable {
    /// The table of this name.
    ///
    /// Requests go through a client of the same configuration that does not retry: a write that is
    /// sent again after its answer was lost could be applied twice. Its timeouts are left as they are.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a client of the table's own takes its place"
    )]
    pub fn new(client: Client, name: impl Into<Arc<str>>) -> Self {
        Self {
            client: config::of_table(&client),
            name: name.into(),
            meter: None,
            offset: None,
        }
    }

    /// The same table, whose requests report what they cost to `meter`.
    pub fn with_meter(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// The same table, which passes the dates of answers to `offset`.
    pub(crate) fn with_offset(mut self, offset: Arc<TableOffset>) -> Self {
        let config = self.client.config().to_builder();
        let config = config.interceptor(ReadDate(Arc::clone(&offset)));
        self.client = Client::from_conf(config.build());
        self.offset = Some(offset);
        self
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client that requests go through.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Table for SdkTable {
    fn call(&self, op: Op) -> TableFuture {
        let Some(offset) = &self.offset else {
            return self.once(op);
        };
        match offset.doubtful_signature() {
            None => self.once(op),
            Some(signed) => Box::pin(self.clone().until_signed_right(op, Arc::clone(offset), signed)),
        }
    }
}

impl SdkTable {
    fn once(&self, op: Op) -> TableFuture {
        let table = self.clone();
        // One box per kind: the future of a transaction is several times that of an update.
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

    /// Sends a request while it is not known how far off this machine's clock is.
    ///
    /// AWS refuses what is signed with a time that is five minutes off, before it looks at the request itself. From the
    /// refusal the SDK knows the right time and signs the next request with it. So a request that was refused like this
    /// is sent once more.
    async fn until_signed_right(
        self,
        op: Op,
        offset: Arc<TableOffset>,
        signed: Signature,
    ) -> Result<Answer, TableError> {
        let refused = |err: &TableError| err.kind == FailureKind::AccessDenied && err.applied == Applied::No;
        match self.once(op.clone()).await {
            Err(err) if refused(&err) && offset.was_too_far_off(signed) => {}
            answer => return answer,
        }
        self.once(op).await.map_err(|mut err| {
            if let (true, Some(clock)) = (refused(&err), offset.too_far_off()) {
                err.message = format!("{}; {clock}", err.message);
            }
            err
        })
    }

    async fn get(self, key: Key, consistent: bool) -> Result<Answer, TableError> {
        let request = self
            .client
            .get_item()
            .table_name(&*self.name)
            .set_key(Some(to_key(key)));
        let request = request
            .consistent_read(consistent)
            .set_return_consumed_capacity(self.metered(Call::Get));
        let output = request.send().await.map_err(|err| from_sdk(err, Access::Read))?;
        self.used(Units::Read, output.consumed_capacity.as_ref());
        Ok(Answer::Item(output.item.map(from_attributes)))
    }

    async fn batch_get(self, keys: Vec<Key>, consistent: bool) -> Result<Answer, TableError> {
        let mut items = Vec::with_capacity(keys.len());
        let mut wanted: Vec<Attributes> = keys.into_iter().map(to_key).collect();
        let mut pauses = READ_PAUSES.iter();
        while !wanted.is_empty() {
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(consistent);
            let request = self
                .client
                .batch_get_item()
                .request_items(&*self.name, keys.build().map_err(malformed)?);
            let request = request.set_return_consumed_capacity(self.metered(Call::BatchGet));
            let output = request.send().await.map_err(|err| from_sdk(err, Access::Read))?;
            self.used(Units::Read, output.consumed_capacity.iter().flatten());
            let Some(responses) = output.responses else {
                return Err(incomplete("BatchGetItem", "Responses", Applied::No));
            };
            let found = responses.into_values().flatten();
            items.extend(found.map(from_attributes));
            let rest = output.unprocessed_keys.into_iter().flat_map(HashMap::into_values);
            wanted = rest.flat_map(|rest| rest.keys).collect();
            // A key without an answer is not a key without an item: either all are answered, or none.
            if !wanted.is_empty() {
                let Some(pause) = pauses.next() else {
                    return Err(undone("read", wanted.len(), Applied::No));
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
        let aliases = SdkAliases::of(render.finish())?;
        let start = query.start.map(to_attributes).transpose()?;
        let request = self
            .client
            .query()
            .table_name(&*self.name)
            .set_index_name(index.map(str::to_owned));
        let request = request
            .key_condition_expression(condition)
            .set_expression_attribute_names(aliases.names)
            .set_expression_attribute_values(aliases.values)
            .scan_index_forward(!query.descending)
            .set_limit(query.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
            .set_exclusive_start_key(start)
            .consistent_read(query.consistent)
            .set_return_consumed_capacity(self.metered(Call::Query));
        let output = request.send().await.map_err(|err| from_sdk(err, Access::Read))?;
        self.used(Units::Read, output.consumed_capacity.as_ref());
        let Some(items) = output.items else {
            return Err(incomplete("Query", "Items", Applied::No));
        };
        Ok(Answer::Page {
            items: items.into_iter().map(from_attributes).collect(),
            next: output.last_evaluated_key.map(from_attributes),
        })
    }

    async fn put(self, put: Put) -> Result<Answer, TableError> {
        let mut render = Renderer::default();
        let condition = render.condition(put.condition)?;
        let aliases = SdkAliases::of(render.finish())?;
        let offered = if self.meter.is_some() {
            item_size(&put.item)
        } else {
            0
        };
        let item = to_attributes(put.item)?;
        let request = self
            .client
            .put_item()
            .table_name(&*self.name)
            .set_item(Some(item));
        let request = request
            .set_return_values_on_condition_check_failure(condition.is_some().then_some(ALL_OLD))
            .set_condition_expression(condition)
            .set_expression_attribute_names(aliases.names)
            .set_expression_attribute_values(aliases.values)
            .set_return_consumed_capacity(self.metered(Call::Put));
        match request.send().await {
            Ok(output) => Ok(self.applied(output.consumed_capacity.as_ref(), None)),
            Err(err) => match service_error(err, Access::Write)? {
                (PutItemError::ConditionalCheckFailedException(refusal), _) => {
                    Ok(self.refused(refusal.item, offered))
                }
                (other, status) => Err(from_service(other, status, Access::Write)),
            },
        }
    }

    async fn update(self, mut update: Update) -> Result<Answer, TableError> {
        let mut render = Renderer::default();
        let change = render.change(&mut update);
        let condition = render.condition(update.condition)?;
        let aliases = SdkAliases::of(render.finish())?;
        let key = update.key.clone();
        let request = self
            .client
            .update_item()
            .table_name(&*self.name)
            .set_key(Some(to_key(update.key)));
        let request = request
            .set_update_expression(change)
            .set_return_values_on_condition_check_failure(condition.is_some().then_some(ALL_OLD))
            .set_condition_expression(condition)
            .set_expression_attribute_names(aliases.names)
            .set_expression_attribute_values(aliases.values)
            .return_values(ReturnValue::AllNew)
            .set_return_consumed_capacity(self.metered(Call::Update));
        match request.send().await {
            Ok(output) => match output.attributes {
                Some(image) => {
                    let image = from_attributes(image);
                    if !has_key(&image, &key) {
                        return Err(incomplete("UpdateItem", "the item's new image", Applied::Unknown));
                    }
                    Ok(self.applied(output.consumed_capacity.as_ref(), Some(image)))
                }
                None => Err(incomplete("UpdateItem", "the item's new image", Applied::Unknown)),
            },
            Err(err) => match service_error(err, Access::Write)? {
                (UpdateItemError::ConditionalCheckFailedException(refusal), _) => {
                    Ok(self.refused(refusal.item, 0))
                }
                (other, status) => Err(from_service(other, status, Access::Write)),
            },
        }
    }

    async fn delete(self, delete: Delete) -> Result<Answer, TableError> {
        let mut render = Renderer::default();
        let condition = render.condition(delete.condition)?;
        let aliases = SdkAliases::of(render.finish())?;
        let request = self
            .client
            .delete_item()
            .table_name(&*self.name)
            .set_key(Some(to_key(delete.key)));
        let request = request
            .set_return_values_on_condition_check_failure(condition.is_some().then_some(ALL_OLD))
            .set_condition_expression(condition)
            .set_expression_attribute_names(aliases.names)
            .set_expression_attribute_values(aliases.values)
            .set_return_consumed_capacity(self.metered(Call::Delete));
        match request.send().await {
            Ok(output) => Ok(self.applied(output.consumed_capacity.as_ref(), None)),
            Err(err) => match service_error(err, Access::Write)? {
                (DeleteItemError::ConditionalCheckFailedException(refusal), _) => {
                    Ok(self.refused(refusal.item, 0))
                }
                (other, status) => Err(from_service(other, status, Access::Write)),
            },
        }
    }

    /// Deleting what is gone already changes nothing, so what was left undone is sent again.
    async fn batch_delete(self, keys: Vec<Key>) -> Result<Answer, TableError> {
        let mut wanted = Vec::with_capacity(keys.len());
        for key in keys {
            let delete = DeleteRequest::builder()
                .set_key(Some(to_key(key)))
                .build()
                .map_err(malformed)?;
            wanted.push(WriteRequest::builder().delete_request(delete).build());
        }
        let mut pauses = DELETE_PAUSES.iter();
        while !wanted.is_empty() {
            let request = self.client.batch_write_item().request_items(&*self.name, wanted);
            let request = request.set_return_consumed_capacity(self.metered(Call::BatchDelete));
            let output = request.send().await.map_err(|err| from_sdk(err, Access::Write))?;
            self.used(Units::Write, output.consumed_capacity.iter().flatten());
            let Some(unprocessed) = output.unprocessed_items else {
                return Err(incomplete("BatchWriteItem", "UnprocessedItems", Applied::Unknown));
            };
            wanted = unprocessed.into_values().flatten().collect();
            if !wanted.is_empty() {
                let Some(pause) = pauses.next() else {
                    return Err(undone("deleted", wanted.len(), Applied::Unknown));
                };
                tokio::time::sleep(jittered(*pause)).await;
            }
        }
        Ok(Answer::Applied(None))
    }

    async fn transact(self, parts: Vec<Part>) -> Result<Answer, TableError> {
        let mut items = Vec::with_capacity(parts.len());
        for part in parts {
            items.push(self.part(part)?);
        }
        let request = self.client.transact_write_items().set_transact_items(Some(items));
        let request = request.set_return_consumed_capacity(self.metered(Call::Transact));
        match request.send().await {
            Ok(output) => {
                self.used(Units::Write, output.consumed_capacity.iter().flatten());
                Ok(Answer::Applied(None))
            }
            Err(err) => match service_error(err, Access::Write)? {
                (TransactWriteItemsError::TransactionCanceledException(cancelled), _) => {
                    Ok(self.cancelled(cancelled.cancellation_reasons.unwrap_or_default()))
                }
                (other, status) => Err(from_service(other, status, Access::Write)),
            },
        }
    }

    fn part(&self, part: Part) -> Result<TransactWriteItem, TableError> {
        let item = TransactWriteItem::builder();
        let mut render = Renderer::default();
        let name = &*self.name;
        Ok(match part {
            Part::Put(put) => {
                let condition = render.condition(put.condition)?;
                let aliases = SdkAliases::of(render.finish())?;
                let put = aws_sdk_dynamodb::types::Put::builder()
                    .table_name(name)
                    .set_item(Some(to_attributes(put.item)?))
                    .set_return_values_on_condition_check_failure(condition.is_some().then_some(ALL_OLD))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(aliases.names)
                    .set_expression_attribute_values(aliases.values);
                item.put(put.build().map_err(malformed)?)
            }
            Part::Update(mut update) => {
                // An update that changes nothing is fine on its own, but not in a transaction: `build` says so.
                let change = render.change(&mut update);
                let condition = render.condition(update.condition)?;
                let aliases = SdkAliases::of(render.finish())?;
                let update = aws_sdk_dynamodb::types::Update::builder()
                    .table_name(name)
                    .set_key(Some(to_key(update.key)))
                    .set_update_expression(change)
                    .set_return_values_on_condition_check_failure(condition.is_some().then_some(ALL_OLD))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(aliases.names)
                    .set_expression_attribute_values(aliases.values);
                item.update(update.build().map_err(malformed)?)
            }
            Part::Delete(delete) => {
                let condition = render.condition(delete.condition)?;
                let aliases = SdkAliases::of(render.finish())?;
                let delete = aws_sdk_dynamodb::types::Delete::builder()
                    .table_name(name)
                    .set_key(Some(to_key(delete.key)))
                    .set_return_values_on_condition_check_failure(condition.is_some().then_some(ALL_OLD))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(aliases.names)
                    .set_expression_attribute_values(aliases.values);
                item.delete(delete.build().map_err(malformed)?)
            }
            Part::Check(key, condition) => {
                let condition = self.check(&mut render, condition)?;
                let aliases = SdkAliases::of(render.finish())?;
                let check = ConditionCheck::builder()
                    .table_name(name)
                    .set_key(Some(to_key(key)))
                    .condition_expression(condition)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .set_expression_attribute_names(aliases.names)
                    .set_expression_attribute_values(aliases.values);
                item.condition_check(check.build().map_err(malformed)?)
            }
        }
        .build())
    }

    /// A check must have a condition.
    fn check(&self, render: &mut Renderer, condition: Condition) -> Result<String, TableError> {
        render.condition(condition)?.ok_or_else(|| {
            let message = format!("a check in a transaction on {} must have a condition", self.name);
            TableError::new(FailureKind::BadRequest, Applied::No, message)
        })
    }

    /// Counts a request about to be sent; requests its cost if it is measured.
    fn metered(&self, call: Call) -> Option<ReturnConsumedCapacity> {
        let meter = self.meter.as_ref()?;
        meter.sent(call);
        Some(ReturnConsumedCapacity::Total)
    }

    fn used<'a>(&self, units: Units, capacity: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        if let Some(meter) = &self.meter {
            let units_used = capacity.into_iter().filter_map(ConsumedCapacity::capacity_units);
            meter.used(units, units_used.sum());
        }
    }

    fn applied(&self, capacity: Option<&ConsumedCapacity>, image: Option<Item>) -> Answer {
        self.used(Units::Write, capacity);
        Answer::Applied(image)
    }

    fn refused(&self, image: Option<Attributes>, offered: usize) -> Answer {
        let image = image.map(from_attributes);
        if let Some(meter) = &self.meter {
            meter.refused(image.as_ref(), offered);
        }
        Answer::Refused(stored(image))
    }

    fn cancelled(&self, reasons: Vec<CancellationReason>) -> Answer {
        let reason = |reason: CancellationReason| {
            undone_part(reason.code.as_deref(), || reason.item.map(from_attributes))
        };
        let parts: Vec<Cancelled> = reasons.into_iter().map(reason).collect();
        if let Some(meter) = &self.meter {
            meter.cancelled(&parts);
        }
        Answer::Cancelled(parts)
    }
}

const ALL_OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

fn malformed(err: BuildError) -> TableError {
    TableError {
        kind: FailureKind::BadRequest,
        applied: Applied::No,
        message: err.to_string(),
        source: Some(Arc::new(err)),
    }
}
