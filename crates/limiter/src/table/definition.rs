//! Creates the table from its definition: keys, indexes, billing, stream and expiry (data model, section 2).

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, LocalSecondaryIndex,
    Projection, ProjectionType, ScalarAttributeType, StreamSpecification, StreamViewType, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
pub use zae_limiter_core::definition::{INDEXES, IndexDefinition, KEY, STREAM_VIEW, TTL_ATTRIBUTE};
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use super::failure::{Access, from_sdk};

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
pub async fn create_table(client: &Client, name: &str) -> Result<(), TableError> {
    if status(client, name).await?.is_none() {
        request_table(client, name).await?;
    }
    wait_until_active(client, name).await?;
    enable_ttl(client, name).await
}

async fn request_table(client: &Client, name: &str) -> Result<(), TableError> {
    let mut attributes: Vec<&str> = KEY.to_vec();
    for index in &INDEXES {
        attributes.extend([index.hash, index.range]);
    }
    attributes.sort_unstable();
    attributes.dedup();

    let mut request = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema(KEY[0], KEY[1])?));
    for attribute in attributes {
        let definition = AttributeDefinition::builder().attribute_name(attribute);
        let definition = definition
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(invalid)?;
        request = request.attribute_definitions(definition);
    }
    for index in &INDEXES {
        let schema = Some(key_schema(index.hash, index.range)?);
        let projection = if index.keys_only {
            ProjectionType::KeysOnly
        } else {
            ProjectionType::All
        };
        let projection = Projection::builder().projection_type(projection).build();
        if index.local {
            let index = LocalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(schema);
            request = request.local_secondary_indexes(index.projection(projection).build().map_err(invalid)?);
        } else {
            let index = GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(schema);
            request =
                request.global_secondary_indexes(index.projection(projection).build().map_err(invalid)?);
        }
    }
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::from(STREAM_VIEW))
        .build()
        .map_err(invalid)?;
    match request.stream_specification(stream).send().await {
        Ok(_) => Ok(()),
        // Another client was faster.
        Err(err) if err.code() == Some("ResourceInUseException") => Ok(()),
        Err(err) => Err(from_sdk(err, Access::Write)),
    }
}

fn key_schema(hash: &str, range: &str) -> Result<Vec<KeySchemaElement>, TableError> {
    let element = |name: &str, kind| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(kind)
            .build()
            .map_err(invalid)
    };
    Ok(vec![
        element(hash, KeyType::Hash)?,
        element(range, KeyType::Range)?,
    ])
}

/// The table's status, or `None` if there is no table.
async fn status(client: &Client, name: &str) -> Result<Option<TableStatus>, TableError> {
    match client.describe_table().table_name(name).send().await {
        Ok(output) => Ok(output.table.and_then(|table| table.table_status)),
        Err(err) => match from_sdk(err, Access::Read) {
            err if err.kind == FailureKind::TableMissing => Ok(None),
            err => Err(err),
        },
    }
}

async fn wait_until_active(client: &Client, name: &str) -> Result<(), TableError> {
    let mut pause = Duration::from_millis(50);
    for _ in 0..POLLS {
        // A table may take a moment to show up at all.
        if matches!(
            status(client, name).await?,
            Some(TableStatus::Active | TableStatus::Updating)
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
async fn enable_ttl(client: &Client, name: &str) -> Result<(), TableError> {
    if ttl_enabled(client, name).await? {
        return Ok(());
    }
    let on = TimeToLiveSpecification::builder()
        .attribute_name(TTL_ATTRIBUTE)
        .enabled(true);
    let on = on.build().map_err(invalid)?;
    match client
        .update_time_to_live()
        .table_name(name)
        .time_to_live_specification(on)
        .send()
        .await
    {
        Ok(_) => Ok(()),
        Err(_) if ttl_enabled(client, name).await? => Ok(()),
        Err(err) => Err(from_sdk(err, Access::Write)),
    }
}

async fn ttl_enabled(client: &Client, name: &str) -> Result<bool, TableError> {
    let output = client.describe_time_to_live().table_name(name).send().await;
    let output = output.map_err(|err| from_sdk(err, Access::Read))?;
    let ttl = output
        .time_to_live_description
        .and_then(|ttl| ttl.time_to_live_status);
    Ok(matches!(
        ttl,
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    ))
}

fn invalid(err: impl std::fmt::Display) -> TableError {
    TableError::new(FailureKind::BadRequest, Applied::No, err.to_string())
}
