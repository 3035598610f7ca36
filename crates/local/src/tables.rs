//! DynamoDB and its streams: the embedded engine, and the notification of stream consumers.

mod refused;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use zae_limiter::table::EmbeddedEngine;
use zae_limiter::table::embedded::Reply as EngineReply;
use zae_limiter::table::embedded::{Earlier, OpenError, StreamKeeper, TokenKeeper, Tokened};

use crate::clock::now_ms;
use crate::tagging::{Tagged, TaggedResource};
use crate::wire::{ACCOUNT, Refusal, Reply, Request};

/// The prefix of the engine's ARNs; those of a region are translated.
const ENGINE_ARN: &str = "arn:aws:dynamodb:dynoxide:000000000000:";

/// How the engine's ids of shards begin.
const ENGINE_SHARD: &str = "\"shardId-";

/// How they begin for clients: those of AWS refuse ids of fewer than 28 characters, as the engine has for tables with short
/// names.
const SHARD: &str = "\"shardId-00000000000-";

/// The operations with ids of shards.
const SHARDS: [&str; 2] = ["DescribeStream", "GetShardIterator"];

/// The operations that change items, and so may add to a stream.
const WRITES: [&str; 5] = [
    "UpdateItem",
    "PutItem",
    "DeleteItem",
    "TransactWriteItems",
    "BatchWriteItem",
];

/// The operations on items, whose bodies are the users' own: nothing in them is translated.
const ITEMS: [&str; 6] = [
    "GetItem",
    "Query",
    "Scan",
    "BatchGetItem",
    "TransactGetItems",
    "GetRecords",
];

/// The tables. Clones share them.
#[derive(Debug, Clone)]
pub struct Tables {
    engine: EmbeddedEngine,
    /// The tokens of transactions, for data on disk.
    tokens: Option<Arc<TokenKeeper>>,
    /// Dropped after the engine: its end is the signal that the data is free.
    writes: Arc<watch::Sender<u64>>,
}

/// The streams of the tables, for trimming.
#[derive(Debug)]
pub struct Streams {
    /// The task that trims them.
    pub keeper: StreamKeeper,
    _tables: Tables,
}

impl Tables {
    /// The tables of an engine.
    ///
    /// # Errors
    /// If the engine's database cannot be opened a second time.
    pub fn new(engine: EmbeddedEngine) -> Result<Self, OpenError> {
        Ok(Self {
            tokens: engine.keep_tokens(now_ms() / 1000)?.map(Arc::new),
            engine,
            writes: Arc::new(watch::Sender::new(0)),
        })
    }

    /// Notifies of writes: its value changes after each, and it ends when the last owner of the tables drops them.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.writes.subscribe()
    }

    /// Deletes items whose time has come. Returns how many.
    pub async fn sweep(&self) -> Result<usize, Refusal> {
        let tables = self.clone();
        let swept = tokio::task::spawn_blocking(move || {
            tables.engine().sweep_expired().map_err(|err| err.to_string())
        })
        .await
        .map_err(|err| Refusal::internal(&err))?
        .map_err(|err| Refusal::internal(&err))?;
        if swept > 0 {
            self.knock();
        }
        Ok(swept)
    }

    /// Takes over the trimming of the streams.
    ///
    /// # Errors
    /// If the engine's database cannot be opened a second time.
    pub fn keep_streams(&self) -> Result<Streams, Refusal> {
        let keeper = self
            .engine
            .keep_streams()
            .map_err(|err| Refusal::internal(&err))?;
        Ok(Streams {
            keeper,
            _tables: self.clone(),
        })
    }

    /// The engine. A closure that calls this keeps the tables, and not the engine alone.
    fn engine(&self) -> &EmbeddedEngine {
        &self.engine
    }

    fn knock(&self) {
        self.writes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Runs an operation, such as `DescribeTable`, as a client of that region would.
    ///
    /// # Errors
    /// DynamoDB's error.
    pub async fn call(&self, region: &str, operation: &str, request: &Json) -> Result<Json, Refusal> {
        let (status, body) = self.answer(operation, region, request.to_string().into()).await?;
        read(status, &body)
    }

    /// Serves a request of DynamoDB or its streams.
    pub async fn serve(&self, request: Request) -> Reply {
        let target = request.header("x-amz-target").unwrap_or_default();
        let operation = target
            .rsplit_once('.')
            .map_or(target, |(_, operation)| operation)
            .to_owned();
        match self.answer(&operation, &request.region(), request.body).await {
            Ok((status, body)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Reply::new(status, "application/x-amz-json-1.0", body)
            }
            Err(refusal) => refusal.amz_json(),
        }
    }

    /// Asks the engine for something small, in its own terms. Blocks for as long as a read of the disk.
    fn ask(&self, operation: &str, request: &Json) -> Result<Json, Refusal> {
        let reply = self.engine.answer(operation, request.to_string().as_bytes());
        read(reply.status, &reply.body)
    }

    /// Runs an operation; a transaction that an earlier engine has executed is not executed again.
    fn once(&self, operation: &str, body: &[u8]) -> EngineReply {
        let transaction = match &self.tokens {
            Some(tokens) if operation == "TransactWriteItems" => {
                Tokened::read(body).map(|read| (tokens, read))
            }
            _ => None,
        };
        let Some((tokens, transaction)) = transaction else {
            return self.engine().answer(operation, body);
        };
        let now = now_ms() / 1000;
        match tokens.earlier(&transaction, now) {
            Earlier::Done => EngineReply {
                status: 200,
                body: "{}".to_owned(),
            },
            Earlier::Other => EngineReply {
                status: 400,
                body: json!({
                    "__type": "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException",
                    "Message": "the token was used for another transaction",
                })
                .to_string(),
            },
            Earlier::Unknown => {
                let reply = self.engine().answer(operation, body);
                if reply.status == 200
                    && let Err(err) = tokens.remember(&transaction, now)
                {
                    tracing::warn!(error = %err, "the token of a transaction is lost when the endpoint ends");
                }
                reply
            }
        }
    }

    async fn answer(
        &self,
        operation: &str,
        region: &str,
        body: bytes::Bytes,
    ) -> Result<(u16, String), Refusal> {
        let is_write = WRITES.contains(&operation);
        let translated = !is_write && !ITEMS.contains(&operation);
        if !translated {
            refused::check(operation, &body)?;
        }
        let arn = format!("arn:aws:dynamodb:{region}:{ACCOUNT}:");
        let has_shards = SHARDS.contains(&operation);
        let body = match std::str::from_utf8(&body) {
            Ok(text) if has_shards => text.replace(&arn, ENGINE_ARN).replace(SHARD, ENGINE_SHARD).into(),
            Ok(text) if translated && text.contains(&arn) => text.replace(&arn, ENGINE_ARN).into(),
            _ => body,
        };
        let reply = if self.engine.path().is_none() && !translated {
            // Some microseconds of work: passing it to another thread would cost more.
            self.engine.answer(operation, &body)
        } else {
            let (tables, operation) = (self.clone(), operation.to_owned());
            tokio::task::spawn_blocking(move || tables.once(&operation, &body))
                .await
                .map_err(|err| Refusal::internal(&err))?
        };
        if is_write && reply.status == 200 {
            self.knock();
        }
        let mut body = reply.body;
        if operation == "GetRecords" && reply.status == 200 {
            body = without_unchanged(body)?;
        }
        if translated {
            body = body.replace(ENGINE_ARN, &arn);
        }
        if has_shards {
            body = body.replace(ENGINE_SHARD, SHARD);
        }
        Ok((reply.status, body))
    }
}

/// An answer to `GetRecords` without records of writes that changed nothing, which DynamoDB does not have.
fn without_unchanged(body: String) -> Result<String, Refusal> {
    if !body.contains("\"MODIFY\"") {
        return Ok(body);
    }
    let mut answer = read(200, &body)?;
    let Some(records) = answer["Records"].as_array_mut() else {
        return Ok(body);
    };
    let all = records.len();
    records.retain(|record| {
        let change = &record["dynamodb"];
        let (old, new) = (&change["OldImage"], &change["NewImage"]);
        record["eventName"] != "MODIFY" || old.is_null() || old != new
    });
    Ok(if records.len() == all {
        body
    } else {
        answer.to_string()
    })
}

/// An answer of the engine.
fn read(status: u16, body: &str) -> Result<Json, Refusal> {
    let body: Json = serde_json::from_str(body).map_err(|err| Refusal::internal(&err))?;
    if status == 200 {
        return Ok(body);
    }
    let code = body["__type"].as_str().unwrap_or_default();
    let code = code.rsplit_once('#').map_or(code, |(_, code)| code).to_owned();
    let message = body["message"]
        .as_str()
        .or(body["Message"].as_str())
        .unwrap_or_default();
    Err(Refusal::new(code, message).status(status))
}

impl Tagged for Tables {
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let mut found = Vec::new();
        let mut after = Json::Null;
        loop {
            let page = self.ask("ListTables", &json!({"ExclusiveStartTableName": after}))?;
            for name in page["TableNames"].as_array().into_iter().flatten() {
                let table = format!("table/{}", name.as_str().unwrap_or_default());
                // A table that was deleted meanwhile has none.
                let asked = self.ask(
                    "ListTagsOfResource",
                    &json!({"ResourceArn": format!("{ENGINE_ARN}{table}")}),
                );
                let tags = asked.map(|answer| tags(&answer["Tags"])).unwrap_or_default();
                let arn = format!("arn:aws:dynamodb:{region}:{ACCOUNT}:{table}");
                found.push(TaggedResource { arn, tags });
            }
            after = page["LastEvaluatedTableName"].clone();
            if after.is_null() {
                return Ok(found);
            }
        }
    }
}

/// A list of keys and values as a map.
fn tags(list: &Json) -> BTreeMap<String, String> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let list = list.as_array().into_iter().flatten();
    list.map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect()
}
