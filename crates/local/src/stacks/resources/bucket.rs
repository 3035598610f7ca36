//! `AWS::S3::Bucket`.

use serde_json::Value as Json;

use super::log_group::gone;
use super::properties::Properties;
use super::{Made, NotMade, Place};
use crate::s3::Setting;

/// The properties that are settings of the bucket: kept, and given back by S3's API.
const SETTINGS: [(&str, Setting); 4] = [
    ("BucketEncryption", Setting::Encryption),
    ("LifecycleConfiguration", Setting::Lifecycle),
    ("OwnershipControls", Setting::OwnershipControls),
    ("PublicAccessBlockConfiguration", Setting::PublicAccessBlock),
];

fn read(properties: &Json) -> Result<Properties<'_>, String> {
    let mut known = vec!["BucketName", "Tags"];
    known.extend(SETTINGS.iter().map(|(name, _)| *name));
    Properties::new("AWS::S3::Bucket", properties, &known)
}

pub(super) fn name(place: &Place<'_>, properties: &Json) -> Result<String, String> {
    let named = read(properties)?.text("BucketName")?;
    Ok(named.unwrap_or_else(|| place.generated(63).to_lowercase()))
}

pub(super) fn exists(place: &Place<'_>, name: &str) -> bool {
    matches!(place.services.s3.bucket(name), Ok(Some(_)))
}

pub(super) fn create(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, NotMade> {
    read(properties)?;
    let created = place.services.s3.create_bucket(name, place.region);
    created.map_err(|err| NotMade::refused(err, "BucketAlreadyOwnedByYou"))?;
    Ok(update(place, name, properties)?)
}

pub(super) fn update(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, String> {
    let read = read(properties)?;
    let s3 = &place.services.s3;
    for (property, setting) in SETTINGS {
        let value = read.get(property).map(|value| setting.from_properties(value));
        let value = value.transpose().map_err(|err| err.message)?;
        s3.set_setting(name, setting, value).map_err(|err| err.message)?;
    }
    let tags = place.tags(&read)?;
    s3.set_bucket_tags(name, tags).map_err(|err| err.message)?;
    let region = place.region;
    Ok(Made::new(
        name,
        [
            ("Arn", format!("arn:aws:s3:::{name}")),
            ("DomainName", format!("{name}.s3.amazonaws.com")),
            ("RegionalDomainName", format!("{name}.s3.{region}.amazonaws.com")),
        ],
    ))
}

pub(super) fn delete(place: &Place<'_>, name: &str) -> Result<(), String> {
    gone(place.services.s3.delete_bucket(name), "NoSuchBucket")
}
