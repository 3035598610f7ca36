//! Where items are kept: the only seam between the limiter and a database.
//!
//! [`Table`] takes an [`Op`] and answers it. [`DynamoTable`] speaks to DynamoDB, or to the embedded engine
//! through the very same code; the simulator and tests bring their own. Nothing outside this module sees an
//! expression string or a body of a request.
//!
//! Start with [`Table`], continue with [`dynamo`] for what a request looks like and [`failure`] for what a
//! failed one means. [`client`] sends requests, [`config`] finds out where to, [`definition`] creates the table, [`meter`]
//! counts what requests cost.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

pub mod client;
pub mod config;
mod date;
pub mod definition;
pub mod dynamo;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod failure;
pub mod meter;
mod past_proxies;
mod render;
#[cfg(feature = "sdk")]
pub mod sdk;

pub use client::DynamoClient;
pub use config::{Connection, Timeouts};
pub use dynamo::DynamoTable;
#[cfg(feature = "embedded")]
pub use embedded::EmbeddedEngine;
pub use meter::{Meter, RequestCost};
#[cfg(feature = "sdk")]
pub use sdk::SdkTable;
/// The requests to a table, and its answers.
pub use zae_limiter_core::table::{
    Answer, Applied, Attr, Cancelled, Condition, Delete, FailureKind, Index, Item, Key, Op, Part, Put, Query,
    TableError, Update, Value,
};

/// How many keys one batch read may name.
pub const BATCH_GET_LIMIT: usize = 100;

/// How many keys one batch delete may name.
pub const BATCH_DELETE_LIMIT: usize = 25;

/// How many batch reads [`TableExt::batch_get`] has in flight at once.
const BATCHES_IN_FLIGHT: usize = 4;

/// A request on its way.
///
/// It is `'static`: it owns all it needs and borrows neither the table nor the caller. A request that is in
/// flight can outlive the caller, for instance in a background task. A write whose outcome matters needs that
/// when its caller is cancelled.
pub type TableFuture = Pin<Box<dyn Future<Output = Result<Answer, TableError>> + Send + 'static>>;

/// A key-value table with conditional updates.
///
/// Implementations clone what a request needs before they return, see [`TableFuture`]. They never send a
/// write twice of their own accord, except a batch delete, which has no conditions and may be repeated, and a
/// request whose signature was refused, which was not executed.
///
/// A request must end by itself, with a timeout if need be: writes are finished in the background when their caller has
/// gone, and the circuit breaker learns of an outage by failures.
///
/// # Cancellation
/// Dropping a future before it is done leaves it open whether a write happened.
pub trait Table: Send + Sync + fmt::Debug + 'static {
    /// Starts one request. The answer is of the kind that [`Op`] documents for it.
    ///
    /// Nothing is sent before the future is first polled.
    fn call(&self, op: Op) -> TableFuture;
}

impl<T: Table + ?Sized> Table for Arc<T> {
    fn call(&self, op: Op) -> TableFuture {
        (**self).call(op)
    }
}

/// The outcome of a conditional write.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a refused write did not happen"]
pub enum Write<T> {
    /// It happened.
    Applied(T),
    /// Its condition did not hold. The stored item, if there is one.
    Refused(Option<Item>),
}

impl<T> Write<T> {
    /// Whether the write happened.
    pub const fn is_applied(&self) -> bool {
        matches!(self, Self::Applied(_))
    }
}

/// The outcome of a transaction.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a cancelled transaction did not happen"]
pub enum Transacted {
    /// Every part happened.
    Applied,
    /// No part happened; the reason of each, in the order of the parts.
    Cancelled(Vec<Cancelled>),
}

/// The requests of [`Table`] with an answer of their own type each.
///
/// An answer of the wrong kind, which only a broken table gives, is reported as a [`TableError`] of kind
/// [`FailureKind::Internal`] with an unknown outcome.
pub trait TableExt: Table {
    /// Reads one item; `consistent` reads the latest state, at twice the price.
    fn get(
        &self,
        key: Key,
        consistent: bool,
    ) -> impl Future<Output = Result<Option<Item>, TableError>> + Send + 'static {
        let answer = self.call(Op::Get { key, consistent });
        async move {
            match answer.await? {
                Answer::Item(item) => Ok(item),
                other => Err(wrong_kind("get", &other)),
            }
        }
    }

    /// Reads any number of items by key, in no particular order. Keys without an item give none.
    fn batch_get(
        &self,
        keys: Vec<Key>,
        consistent: bool,
    ) -> impl Future<Output = Result<Vec<Item>, TableError>> + Send + 'static {
        let batches: Vec<_> = keys
            .chunks(BATCH_GET_LIMIT)
            .map(|keys| {
                self.call(Op::BatchGet {
                    keys: keys.to_vec(),
                    consistent,
                })
            })
            .collect();
        async move {
            let batches = stream::iter(batches)
                .buffer_unordered(BATCHES_IN_FLIGHT)
                .and_then(async |answer| match answer {
                    Answer::Items(items) => Ok(items),
                    other => Err(wrong_kind("batch get", &other)),
                });
            Ok(batches.try_collect::<Vec<_>>().await?.concat())
        }
    }

    /// Reads one page of a range, and returns where the next begins.
    fn query_page(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<(Vec<Item>, Option<Item>), TableError>> + Send + 'static {
        let answer = self.call(Op::Query(query));
        async move {
            match answer.await? {
                Answer::Page { items, next } => Ok((items, next)),
                other => Err(wrong_kind("query", &other)),
            }
        }
    }

    /// Reads all pages of a range. The query's `limit` is the size of a page, not of the result.
    fn query_all(&self, mut query: Query) -> impl Future<Output = Result<Vec<Item>, TableError>> + Send {
        async move {
            let mut all = Vec::new();
            loop {
                let (mut items, next) = self.query_page(query.clone()).await?;
                all.append(&mut items);
                match next {
                    Some(next) => query.start = Some(next),
                    None => return Ok(all),
                }
            }
        }
    }

    /// Writes a whole item.
    fn put(&self, put: Put) -> impl Future<Output = Result<Write<()>, TableError>> + Send + 'static {
        let answer = self.call(Op::Put(put));
        async move { written("put", answer.await?) }
    }

    /// Changes an item, and returns it as it is now.
    fn update(
        &self,
        update: Update,
    ) -> impl Future<Output = Result<Write<Item>, TableError>> + Send + 'static {
        let answer = self.call(Op::Update(update));
        async move {
            match answer.await? {
                Answer::Applied(Some(item)) => Ok(Write::Applied(item)),
                Answer::Refused(item) => Ok(Write::Refused(item)),
                other => Err(wrong_kind("update", &other)),
            }
        }
    }

    /// Deletes an item.
    fn delete(&self, delete: Delete) -> impl Future<Output = Result<Write<()>, TableError>> + Send + 'static {
        let answer = self.call(Op::Delete(delete));
        async move { written("delete", answer.await?) }
    }

    /// Deletes any number of items by key, batch after batch.
    ///
    /// # Errors
    /// The first batch that fails ends it; earlier ones stay deleted.
    fn delete_all(&self, keys: Vec<Key>) -> impl Future<Output = Result<(), TableError>> + Send {
        async move {
            for keys in keys.chunks(BATCH_DELETE_LIMIT) {
                match self.call(Op::BatchDelete(keys.to_vec())).await? {
                    Answer::Applied(_) => {}
                    other => return Err(wrong_kind("batch delete", &other)),
                }
            }
            Ok(())
        }
    }

    /// Does all parts or none.
    fn transact(
        &self,
        parts: Vec<Part>,
    ) -> impl Future<Output = Result<Transacted, TableError>> + Send + 'static {
        let answer = self.call(Op::Transact(parts));
        async move {
            match answer.await? {
                Answer::Applied(_) => Ok(Transacted::Applied),
                Answer::Cancelled(reasons) => Ok(Transacted::Cancelled(reasons)),
                other => Err(wrong_kind("transaction", &other)),
            }
        }
    }
}

impl<T: Table + ?Sized> TableExt for T {}

fn written(request: &str, answer: Answer) -> Result<Write<()>, TableError> {
    match answer {
        Answer::Applied(_) => Ok(Write::Applied(())),
        Answer::Refused(item) => Ok(Write::Refused(item)),
        other => Err(wrong_kind(request, &other)),
    }
}

/// The request was answered, so a write may well have happened.
fn wrong_kind(request: &str, answer: &Answer) -> TableError {
    let kind = match answer {
        Answer::Item(_) => "an item",
        Answer::Items(_) => "items",
        Answer::Page { .. } => "a page",
        Answer::Applied(_) => "an application",
        Answer::Refused(_) => "a refusal",
        Answer::Cancelled(_) => "a cancellation",
    };
    TableError::new(
        FailureKind::Internal,
        Applied::Unknown,
        format!("the table answered a {request} with {kind}"),
    )
}
