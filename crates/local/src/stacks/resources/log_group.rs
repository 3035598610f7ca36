//! `AWS::Logs::LogGroup`.

use serde_json::Value as Json;

use super::properties::Properties;
use super::{Made, NotMade, Place};
use crate::wire::Refusal;

const KNOWN: [&str; 4] = ["KmsKeyId", "LogGroupName", "RetentionInDays", "Tags"];

fn read(properties: &Json) -> Result<Properties<'_>, String> {
    Properties::new("AWS::Logs::LogGroup", properties, &KNOWN)
}

pub(super) fn name(place: &Place<'_>, properties: &Json) -> Result<String, String> {
    Ok(read(properties)?
        .text("LogGroupName")?
        .unwrap_or_else(|| place.generated(512)))
}

pub(super) fn exists(place: &Place<'_>, name: &str) -> bool {
    matches!(place.services.logs.group(place.region, name), Ok(Some(_)))
}

fn made(place: &Place<'_>, name: &str) -> Made {
    Made::new(
        name,
        [("Arn", format!("{}:*", crate::logs::group_arn(place.region, name)))],
    )
}

pub(super) fn create(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, NotMade> {
    let read = read(properties)?;
    let tags = place.tags(&read)?;
    let made_anew = place.services.logs.create_group(place.region, name, tags);
    made_anew.map_err(|err| NotMade::refused(err, "ResourceAlreadyExistsException"))?;
    Ok(update(place, name, properties)?)
}

pub(super) fn update(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, String> {
    let read = read(properties)?;
    let days = read.integer("RetentionInDays")?;
    let days = days.map(u32::try_from).transpose().map_err(|_| {
        format!("RetentionInDays of AWS::Logs::LogGroup is {days:?}; it must be a number of days")
    })?;
    let logs = &place.services.logs;
    logs.set_retention(place.region, name, days)
        .and_then(|()| logs.set_tags(place.region, name, place.tags(&read).unwrap_or_default()))
        .map_err(|err| err.message)?;
    Ok(made(place, name))
}

pub(super) fn delete(place: &Place<'_>, name: &str) -> Result<(), String> {
    gone(
        place.services.logs.delete_group(place.region, name),
        "ResourceNotFoundException",
    )
}

/// A log group that does not exist counts as deleted.
pub(super) fn gone(deleted: Result<(), Refusal>, absent: &str) -> Result<(), String> {
    match deleted {
        Err(err) if err.code != absent => Err(err.message),
        _ => Ok(()),
    }
}
