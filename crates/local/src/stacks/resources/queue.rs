//! `AWS::SQS::Queue`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::log_group::gone;
use super::properties::{Properties, scalar};
use super::{Made, NotMade, Place};

const KIND: &str = "AWS::SQS::Queue";

/// The properties that are attributes of the queue under the same name.
const ATTRIBUTES: [&str; 6] = [
    "DelaySeconds",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
];

fn read(properties: &Json) -> Result<Properties<'_>, String> {
    let mut known = ATTRIBUTES.to_vec();
    known.extend([
        "QueueName",
        "Tags",
        "KmsMasterKeyId",
        "KmsDataKeyReusePeriodSeconds",
    ]);
    Properties::new(KIND, properties, &known)
}

fn attributes(properties: &Properties<'_>) -> BTreeMap<String, String> {
    ATTRIBUTES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), properties.get(name).and_then(scalar)?)))
        .collect()
}

/// The physical id is the queue's URL, from which its name follows.
fn queue_name(physical: &str) -> &str {
    physical.rsplit('/').next().unwrap_or(physical)
}

pub(super) fn name(place: &Place<'_>, properties: &Json) -> Result<String, String> {
    Ok(read(properties)?
        .text("QueueName")?
        .unwrap_or_else(|| place.generated(80)))
}

pub(super) fn exists(place: &Place<'_>, physical: &str) -> bool {
    matches!(
        place.services.queues.find(place.region, queue_name(physical)),
        Ok(Some(_))
    )
}

fn made(place: &Place<'_>, name: &str) -> Result<Made, String> {
    let queues = &place.services.queues;
    let found = queues.find(place.region, name).map_err(|err| err.message)?;
    let queue = found.ok_or_else(|| format!("the queue {name} is gone"))?;
    let url = queues.url_of(&queue);
    let attributes = [
        ("Arn", queue.arn()),
        ("QueueName", name.to_owned()),
        ("QueueUrl", url.clone()),
    ];
    Ok(Made::new(url, attributes))
}

pub(super) fn create(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, NotMade> {
    let read = read(properties)?;
    let tags = place.tags(&read)?;
    let created = place
        .services
        .queues
        .create_new(place.region, name, &attributes(&read), &tags);
    // One that is there is not the stack's, even if it looks the same.
    if created.map_err(|err| err.message)?.is_none() {
        return Err(NotMade::Taken(format!("{name} already exists")));
    }
    Ok(made(place, name)?)
}

pub(super) fn update(place: &Place<'_>, physical: &str, properties: &Json) -> Result<Made, String> {
    let read = read(properties)?;
    let (queues, name) = (&place.services.queues, queue_name(physical));
    queues
        .set_attributes(place.region, name, &attributes(&read))
        .map_err(|err| err.message)?;
    let tags = place.tags(&read)?;
    queues
        .set_tags(place.region, name, &tags)
        .map_err(|err| err.message)?;
    made(place, name)
}

pub(super) fn delete(place: &Place<'_>, physical: &str) -> Result<(), String> {
    gone(
        place.services.queues.delete(place.region, queue_name(physical)),
        "AWS.SimpleQueueService.NonExistentQueue",
    )
}
