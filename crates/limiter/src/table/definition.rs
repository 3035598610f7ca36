//! Creates the table from its definition: keys, indexes, billing, stream and expiry (data model, section 2).

use std::time::Duration;

use serde_json::{Value as Json, json};
pub use zae_limiter_core::definition::{
    INDEXES, IndexDefinition, KEY, LEAN_INDEX, STREAM_VIEW, TTL_ATTRIBUTE,
};
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use super::DynamoClient;
use super::failure::Access;

/// How often at most [`create_table`] looks whether the table is there.
const POLLS: u32 = 120;

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Creates the table if it is not there, waits until it can be used, and switches expiry on.
///
/// Safe to call by several processes at once, and again. The definition of a table that is there already is
/// not looked at.
///
/// # Errors
/// [`FailureKind::Timeout`] if the table does not become active within two minutes.
pub async fn create_table(client: &DynamoClient, name: &str) -> Result<(), TableError> {
    create(client, name, false).await
}

/// Creates a table as [`create_table`] does, with a [lean index](LEAN_INDEX).
///
/// # Errors
/// As [`create_table`].
pub async fn create_lean_table(client: &DynamoClient, name: &str) -> Result<(), TableError> {
    create(client, name, true).await
}

pub(crate) async fn create(client: &DynamoClient, name: &str, lean_index: bool) -> Result<(), TableError> {
    if status(client, name).await?.is_none() {
        request_table(client, name, lean_index).await?;
    }
    wait_until_active(client, name).await?;
    enable_ttl(client, name).await
}

async fn request_table(client: &DynamoClient, name: &str, lean_index: bool) -> Result<(), TableError> {
    match client
        .request("CreateTable", Access::Write, &definition(name, lean_index))
        .await
    {
        Ok(_) => Ok(()),
        // Another client was faster.
        Err(err) if is_in_use(&err) => Ok(()),
        Err(err) => Err(err),
    }
}

fn is_in_use(err: &TableError) -> bool {
    err.message.starts_with("ResourceInUseException")
}

/// The request that creates the table.
fn definition(name: &str, lean_index: bool) -> Json {
    let mut attributes: Vec<&str> = KEY.to_vec();
    for index in &INDEXES {
        attributes.extend([index.hash, index.range]);
    }
    attributes.sort_unstable();
    attributes.dedup();
    let attributes = attributes
        .iter()
        .map(|name| json!({"AttributeName": name, "AttributeType": "S"}));
    let indexes = |local: bool| -> Vec<Json> {
        let indexes = INDEXES.iter().filter(|index| index.local == local);
        let described = indexes.map(|index| {
            let projection = if index.is_keys_only(lean_index) {
                "KEYS_ONLY"
            } else {
                "ALL"
            };
            json!({
                "IndexName": index.name,
                "KeySchema": key_schema(index.hash, index.range),
                "Projection": {"ProjectionType": projection},
            })
        });
        described.collect()
    };
    let mut request = json!({
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": key_schema(KEY[0], KEY[1]),
        "AttributeDefinitions": attributes.collect::<Vec<_>>(),
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": STREAM_VIEW},
    });
    // An empty list is refused.
    for (field, local) in [("LocalSecondaryIndexes", true), ("GlobalSecondaryIndexes", false)] {
        let indexes = indexes(local);
        if !indexes.is_empty() {
            request[field] = indexes.into();
        }
    }
    request
}

fn key_schema(hash: &str, range: &str) -> Json {
    json!([
        {"AttributeName": hash, "KeyType": "HASH"},
        {"AttributeName": range, "KeyType": "RANGE"},
    ])
}

/// The table's status, or `None` if there is no table.
async fn status(client: &DynamoClient, name: &str) -> Result<Option<String>, TableError> {
    let request = json!({"TableName": name});
    match client.request("DescribeTable", Access::Read, &request).await {
        Ok(answer) => Ok(answer["Table"]["TableStatus"].as_str().map(str::to_owned)),
        Err(err) if err.kind == FailureKind::TableMissing => Ok(None),
        Err(err) => Err(err),
    }
}

async fn wait_until_active(client: &DynamoClient, name: &str) -> Result<(), TableError> {
    let mut pause = Duration::from_millis(50);
    for _ in 0..POLLS {
        // A table may take a moment to show up at all.
        if matches!(
            status(client, name).await?.as_deref(),
            Some("ACTIVE" | "UPDATING")
        ) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(TableError::new(
        FailureKind::Timeout,
        Applied::Unknown,
        format!("table {name} does not become active"),
    ))
}

/// Asking for what is on already is an error, so looks first; another process may still be faster.
async fn enable_ttl(client: &DynamoClient, name: &str) -> Result<(), TableError> {
    if ttl_enabled(client, name).await? {
        return Ok(());
    }
    let on = json!({
        "TableName": name,
        "TimeToLiveSpecification": {"AttributeName": TTL_ATTRIBUTE, "Enabled": true},
    });
    match client.request("UpdateTimeToLive", Access::Write, &on).await {
        Ok(_) => Ok(()),
        Err(_) if ttl_enabled(client, name).await? => Ok(()),
        Err(err) => Err(err),
    }
}

async fn ttl_enabled(client: &DynamoClient, name: &str) -> Result<bool, TableError> {
    let request = json!({"TableName": name});
    let answer = client
        .request("DescribeTimeToLive", Access::Read, &request)
        .await?;
    let status = answer["TimeToLiveDescription"]["TimeToLiveStatus"].as_str();
    Ok(matches!(status, Some("ENABLED" | "ENABLING")))
}
