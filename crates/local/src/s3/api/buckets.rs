//! What is asked of buckets: making, listing and deleting them, and their settings.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::answers::{declared, document, tagging, tags_of};
use super::call::Call;
use super::{pages, writing};
use crate::clock;
use crate::s3::settings::{NAMESPACE, Setting};
use crate::s3::xml::Element;
use crate::wire::{ACCOUNT, REGION, Refusal, Reply, Xml};

impl Call<'_> {
    /// Answers what is asked of a bucket, or of something about it.
    pub(super) fn on_bucket(&self, aspect: Option<&str>) -> Result<Reply, Refusal> {
        let method = self.request.method.as_str();
        if let Some(setting) = Setting::ALL.into_iter().find(|one| Some(one.name()) == aspect) {
            return self.on_setting(setting);
        }
        match (method, aspect) {
            ("PUT", None) => self.create_bucket(),
            ("HEAD", None) => {
                let bucket = self.s3.need_bucket(&self.bucket)?;
                Ok(Reply::new(StatusCode::OK, "application/xml", "")
                    .with("x-amz-bucket-region", &bucket.region))
            }
            ("DELETE", None) => {
                self.s3.delete_bucket(&self.bucket)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            ("GET", None) => pages::answer(self),
            ("POST", Some("delete")) => writing::delete_many(self),
            ("GET", Some("location")) => {
                let bucket = self.s3.need_bucket(&self.bucket)?;
                // The oldest region has no name here.
                let region = if bucket.region == REGION {
                    ""
                } else {
                    &bucket.region
                };
                let xml = format!("<LocationConstraint xmlns=\"{NAMESPACE}\">{region}</LocationConstraint>");
                Ok(Reply::new(StatusCode::OK, "application/xml", declared(&xml)))
            }
            ("GET", Some("tagging")) => {
                let bucket = self.s3.need_bucket(&self.bucket)?;
                if bucket.tags.is_empty() {
                    return Err(Refusal::new("NoSuchTagSet", "The TagSet does not exist").status(404));
                }
                Ok(tagging(&bucket.tags))
            }
            ("PUT", Some("tagging")) => {
                self.s3
                    .set_bucket_tags(&self.bucket, tags_of(&self.request.body, 50)?)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            ("DELETE", Some("tagging")) => {
                self.s3.set_bucket_tags(&self.bucket, BTreeMap::new())?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(self.unsupported()),
        }
    }

    fn on_setting(&self, setting: Setting) -> Result<Reply, Refusal> {
        match self.request.method.as_str() {
            "GET" => {
                let bucket = self.s3.need_bucket(&self.bucket)?;
                let text = match bucket.settings.get(setting.name()) {
                    Some(text) => text.clone(),
                    None => setting.unset()?,
                };
                let kind = if setting == Setting::Policy {
                    "application/json"
                } else {
                    "application/xml"
                };
                Ok(Reply::new(StatusCode::OK, kind, text))
            }
            "PUT" => {
                let text = String::from_utf8(self.request.body.to_vec())
                    .map_err(|err| Refusal::new("MalformedXML", format!("the body is not text: {err}")))?;
                self.s3.set_setting(&self.bucket, setting, Some(text))?;
                let status = if setting == Setting::Policy {
                    StatusCode::NO_CONTENT
                } else {
                    StatusCode::OK
                };
                Ok(Reply::empty(status))
            }
            "DELETE" => {
                self.s3.set_setting(&self.bucket, setting, None)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(self.unsupported()),
        }
    }

    fn create_bucket(&self) -> Result<Reply, Refusal> {
        let region = self.request.region();
        let place = if self.request.body.is_empty() {
            None
        } else {
            let root = Element::expect(&self.request.body, "CreateBucketConfiguration")?;
            if let Some(unknown) = root.children.iter().find(|child| {
                child.name != "LocationConstraint"
                    && !(child.children.is_empty() && child.text.trim().is_empty())
            }) {
                return Err(Refusal::unsupported(
                    "S3",
                    &format!("CreateBucket with {}", unknown.name),
                ));
            }
            root.get("LocationConstraint")
                .filter(|place| !place.is_empty())
                .map(str::to_owned)
        };
        if self.request.header("x-amz-bucket-object-lock-enabled") == Some("true") {
            return Err(Refusal::unsupported("S3", "CreateBucket with object lock"));
        }
        // A signature names a region; without one there is nothing that a place could contradict.
        let signed = self.request.scope().is_some();
        let region = match place.as_deref() {
            Some(REGION) => {
                return Err(Refusal::new(
                    "InvalidLocationConstraint",
                    format!("The specified location-constraint is not valid: leave it out for {REGION}"),
                ));
            }
            Some(place) if signed && place != region => {
                return Err(Refusal::new(
                    "IllegalLocationConstraintException",
                    format!(
                        "The {place} location constraint is incompatible for the region specific endpoint this request was sent to: {region}"
                    ),
                ));
            }
            None if region != REGION => {
                return Err(Refusal::new(
                    "IllegalLocationConstraintException",
                    format!(
                        "The unspecified location constraint is incompatible for the region specific endpoint this request was sent to: {region}"
                    ),
                ));
            }
            Some(place) => place.to_owned(),
            None => region,
        };
        match self.s3.create_bucket(&self.bucket, &region) {
            Ok(_) => {}
            // The oldest region takes it as done.
            Err(refusal)
                if refusal.code == "BucketAlreadyOwnedByYou"
                    && region == REGION
                    && self
                        .s3
                        .bucket(&self.bucket)?
                        .is_some_and(|old| old.region == REGION) => {}
            Err(refusal) => return Err(refusal),
        }
        Ok(Reply::empty(StatusCode::OK).with("location", &format!("/{}", self.bucket)))
    }

    /// Answers `ListBuckets`.
    pub(super) fn list_buckets(&self) -> Result<Reply, Refusal> {
        let prefix = self.query.get("prefix").map(String::as_str).unwrap_or_default();
        let after = self.query.get("continuation-token");
        let region = self.query.get("bucket-region");
        let limit = self.number("max-buckets", 10_000)?;
        let mut found = self.s3.buckets()?;
        found.retain(|bucket| {
            bucket.name.starts_with(prefix)
                && after.is_none_or(|after| bucket.name > *after)
                && region.is_none_or(|region| bucket.region == *region)
        });
        let more = found.len() > limit;
        found.truncate(limit);
        let mut xml = Xml::default();
        xml.nest("Owner", |owner| {
            owner.element("ID", ACCOUNT);
        })
        .nest("Buckets", |list| {
            for bucket in &found {
                list.nest("Bucket", |xml| {
                    xml.element("Name", &bucket.name)
                        .element("CreationDate", &clock::iso(bucket.created_ms))
                        .element("BucketRegion", &bucket.region);
                });
            }
        });
        let last = found.last().filter(|_| more).map(|bucket| bucket.name.as_str());
        xml.optional("ContinuationToken", last);
        Ok(document("ListAllMyBucketsResult", &xml))
    }
}
