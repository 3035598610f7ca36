//! `AWS::DynamoDB::Table`.

use serde_json::{Map, Value as Json, json};

use super::properties::{Properties, scalar, typed};
use super::{Made, NotMade, Place};
use crate::template::same;
use crate::wire::Refusal;

const KIND: &str = "AWS::DynamoDB::Table";

/// The properties that it has. Those that only matter to a service with disks and backups are kept and have no effect.
const KNOWN: [&str; 13] = [
    "AttributeDefinitions",
    "BillingMode",
    "DeletionProtectionEnabled",
    "GlobalSecondaryIndexes",
    "KeySchema",
    "LocalSecondaryIndexes",
    "PointInTimeRecoverySpecification",
    "ProvisionedThroughput",
    "SSESpecification",
    "StreamSpecification",
    "TableName",
    "Tags",
    "TimeToLiveSpecification",
];

fn read(properties: &Json) -> Result<Properties<'_>, String> {
    Properties::new(KIND, properties, &KNOWN)
}

pub(super) fn name(place: &Place<'_>, properties: &Json) -> Result<String, String> {
    Ok(read(properties)?
        .text("TableName")?
        .unwrap_or_else(|| place.generated(255)))
}

pub(super) async fn exists(place: &Place<'_>, name: &str) -> bool {
    describe(place, name).await.is_ok()
}

async fn call(place: &Place<'_>, operation: &str, request: Json) -> Result<Json, Refusal> {
    place
        .services
        .tables
        .call(place.region, operation, &request)
        .await
}

async fn describe(place: &Place<'_>, name: &str) -> Result<Json, Refusal> {
    let answer = call(place, "DescribeTable", json!({"TableName": name})).await?;
    Ok(answer["Table"].clone())
}

async fn made(place: &Place<'_>, name: &str) -> Result<Made, String> {
    let table = describe(place, name).await.map_err(|err| err.to_string())?;
    let text = |field: &str| table[field].as_str().unwrap_or_default().to_owned();
    let arn = text("TableArn");
    Ok(match table["LatestStreamArn"].as_str() {
        Some(stream) => Made::new(name, [("Arn", arn), ("StreamArn", stream.to_owned())]),
        None => Made::new(name, [("Arn", arn)]),
    })
}

pub(super) async fn create(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, NotMade> {
    let read = read(properties)?;
    let mut request = Map::new();
    request.insert("TableName".into(), name.into());
    for field in [
        "AttributeDefinitions",
        "BillingMode",
        "DeletionProtectionEnabled",
        "GlobalSecondaryIndexes",
        "KeySchema",
        "LocalSecondaryIndexes",
        "ProvisionedThroughput",
    ] {
        if let Some(value) = read.get(field) {
            request.insert(field.into(), strict(field, value));
        }
    }
    if let Some(stream) = read.get("StreamSpecification") {
        request.insert("StreamSpecification".into(), stream_specification(stream));
    }
    let tags = place.tags(&read)?;
    let tags: Vec<Json> = tags
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    request.insert("Tags".into(), tags.into());
    call(place, "CreateTable", Json::Object(request))
        .await
        .map_err(|err| NotMade::refused(err, "ResourceInUseException"))?;
    set_time_to_live(place, name, None, read.get("TimeToLiveSpecification")).await?;
    Ok(made(place, name).await?)
}

/// A property in the form of the service's own API.
fn strict(name: &str, value: &Json) -> Json {
    let wrapped = json!({name: value});
    let typed = typed(
        &wrapped,
        &["DeletionProtectionEnabled"],
        &["ReadCapacityUnits", "WriteCapacityUnits"],
    );
    typed[name].clone()
}

fn stream_specification(value: &Json) -> Json {
    json!({"StreamEnabled": true, "StreamViewType": value["StreamViewType"]})
}

async fn set_time_to_live(
    place: &Place<'_>,
    table: &str,
    old: Option<&Json>,
    new: Option<&Json>,
) -> Result<(), String> {
    let enabled = |value: &Json| scalar(&value["Enabled"]).is_some_and(|text| text == "true");
    let was = old.filter(|value| enabled(value));
    let is = new.filter(|value| enabled(value));
    let specification = match (was, is) {
        (None, None) => return Ok(()),
        (Some(was), Some(is)) if same(was, is) => return Ok(()),
        (_, Some(is)) => json!({"Enabled": true, "AttributeName": is["AttributeName"]}),
        (Some(was), None) => json!({"Enabled": false, "AttributeName": was["AttributeName"]}),
    };
    let request = json!({"TableName": table, "TimeToLiveSpecification": specification});
    call(place, "UpdateTimeToLive", request)
        .await
        .map(|_| ())
        .map_err(|err| err.message)
}

pub(super) async fn update(place: &Place<'_>, name: &str, old: &Json, new: &Json) -> Result<Made, String> {
    // What it is said to have been may be what was just refused, and is to be undone.
    let (before, after) = (Properties::unchecked(KIND, old), read(new)?);
    let changed = |field: &str| {
        let none = Json::Null;
        !same(
            before.get(field).unwrap_or(&none),
            after.get(field).unwrap_or(&none),
        )
    };
    for field in [
        "BillingMode",
        "ProvisionedThroughput",
        "DeletionProtectionEnabled",
    ] {
        if changed(field) {
            let value = match (after.get(field), field) {
                (Some(value), _) => strict(field, value),
                (None, "DeletionProtectionEnabled") => Json::Bool(false),
                (None, _) => continue,
            };
            let request = json!({"TableName": name, field: value});
            call(place, "UpdateTable", request)
                .await
                .map_err(|err| err.message)?;
        }
    }
    if changed("StreamSpecification") {
        if before.get("StreamSpecification").is_some() {
            let off = json!({"TableName": name, "StreamSpecification": {"StreamEnabled": false}});
            call(place, "UpdateTable", off).await.map_err(|err| err.message)?;
        }
        if let Some(stream) = after.get("StreamSpecification") {
            let on = json!({"TableName": name, "StreamSpecification": stream_specification(stream)});
            call(place, "UpdateTable", on).await.map_err(|err| err.message)?;
        }
    }
    if changed("GlobalSecondaryIndexes") {
        update_indexes(place, name, &before, &after).await?;
    }
    set_time_to_live(
        place,
        name,
        before.get("TimeToLiveSpecification"),
        after.get("TimeToLiveSpecification"),
    )
    .await?;
    made(place, name).await
}

/// Adds and removes indexes, one at a time, as the service requires.
async fn update_indexes(
    place: &Place<'_>,
    table: &str,
    before: &Properties<'_>,
    after: &Properties<'_>,
) -> Result<(), String> {
    let list = |properties: &Properties<'_>| {
        let found = properties.get("GlobalSecondaryIndexes").and_then(Json::as_array);
        found.cloned().unwrap_or_default()
    };
    let (before, wanted) = (list(before), list(after));
    let attributes = after.get("AttributeDefinitions").cloned().unwrap_or(Json::Null);
    for index in before
        .iter()
        .filter(|index| !wanted.iter().any(|other| same(index, other)))
    {
        let updates = json!([{"Delete": {"IndexName": index["IndexName"]}}]);
        let request = json!({"TableName": table, "GlobalSecondaryIndexUpdates": updates});
        call(place, "UpdateTable", request)
            .await
            .map_err(|err| err.message)?;
    }
    for index in wanted
        .iter()
        .filter(|index| !before.iter().any(|other| same(index, other)))
    {
        let updates = json!([{"Create": strict("GlobalSecondaryIndexes", index)}]);
        let request = json!({
            "TableName": table, "AttributeDefinitions": attributes, "GlobalSecondaryIndexUpdates": updates,
        });
        call(place, "UpdateTable", request)
            .await
            .map_err(|err| err.message)?;
    }
    Ok(())
}

pub(super) async fn delete(place: &Place<'_>, name: &str) -> Result<(), String> {
    match call(place, "DeleteTable", json!({"TableName": name})).await {
        Ok(_) => Ok(()),
        Err(err) if err.code == "ResourceNotFoundException" => Ok(()),
        Err(err) => Err(err.message),
    }
}
