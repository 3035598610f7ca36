//! Buckets: what they are called, and what they are set to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{S3, Setting, multipart, objects};
use crate::clock;
use crate::tagging::{Tagged, TaggedResource};
use crate::wire::Refusal;

/// The documents of buckets; their names are the buckets'.
const KIND: &str = "s3-bucket";

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// When it was made.
    pub created_ms: i64,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Its settings by the names that S3's addresses have for them, as they were sent.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl S3 {
    /// Makes a bucket.
    ///
    /// # Errors
    /// `InvalidBucketName`; `BucketAlreadyOwnedByYou` in every region.
    pub fn create_bucket(&self, name: &str, region: &str) -> Result<Bucket, Refusal> {
        check_name(name)?;
        let _change = self.change();
        if self.bucket(name)?.is_some() {
            return Err(Refusal::new(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
            )
            .status(409));
        }
        let bucket = Bucket {
            name: name.to_owned(),
            region: region.to_owned(),
            created_ms: clock::now_ms(),
            tags: BTreeMap::new(),
            settings: BTreeMap::new(),
        };
        self.store.put(KIND, name, &bucket)?;
        Ok(bucket)
    }

    /// A bucket, if there is one of that name.
    pub fn bucket(&self, name: &str) -> Result<Option<Bucket>, Refusal> {
        Ok(self.store.get(KIND, name)?)
    }

    /// A bucket that must be there.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn need_bucket(&self, name: &str) -> Result<Bucket, Refusal> {
        self.bucket(name)?.ok_or_else(|| {
            Refusal::new(
                "NoSuchBucket",
                format!("The specified bucket does not exist: {name}"),
            )
            .status(404)
        })
    }

    /// The buckets by name.
    pub fn buckets(&self) -> Result<Vec<Bucket>, Refusal> {
        let found = self.store.list(KIND)?;
        Ok(found.into_iter().map(|(_, bucket)| bucket).collect())
    }

    /// Deletes an empty bucket, and what was being uploaded to it.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`.
    pub fn delete_bucket(&self, name: &str) -> Result<(), Refusal> {
        let _change = self.change();
        self.need_bucket(name)?;
        let first = self
            .store
            .range::<objects::Object>(objects::KIND, &format!("{name}/"), 1)?;
        if first
            .iter()
            .any(|(found, _)| found.starts_with(&format!("{name}/")))
        {
            return Err(Refusal::new(
                "BucketNotEmpty",
                "The bucket you tried to delete is not empty; delete its objects first",
            )
            .status(409));
        }
        for upload in self.uploads_of(name)? {
            self.forget_upload(&upload)?;
        }
        self.store.delete(KIND, name)?;
        Ok(())
    }

    /// Puts tags in place of all that a bucket has.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn set_bucket_tags(&self, name: &str, tags: BTreeMap<String, String>) -> Result<(), Refusal> {
        self.update(name, |bucket| bucket.tags = tags)
    }

    /// Keeps a setting, in S3's own XML, or JSON for a policy; `None` removes it.
    ///
    /// # Errors
    /// `NoSuchBucket`; `MalformedXML` or `MalformedPolicy` if it is not that.
    pub fn set_setting(&self, name: &str, setting: Setting, text: Option<String>) -> Result<(), Refusal> {
        if let Some(text) = &text {
            setting.check(text)?;
        }
        self.update(name, |bucket| {
            match text {
                Some(text) => bucket.settings.insert(setting.name().to_owned(), text),
                None => bucket.settings.remove(setting.name()),
            };
        })
    }

    fn update(&self, name: &str, change: impl FnOnce(&mut Bucket)) -> Result<(), Refusal> {
        let _change = self.change();
        let mut bucket = self.need_bucket(name)?;
        change(&mut bucket);
        self.store.put(KIND, name, &bucket)?;
        Ok(())
    }

    /// The multipart uploads of a bucket.
    pub(super) fn uploads_of(&self, bucket: &str) -> Result<Vec<multipart::Started>, Refusal> {
        let all = self.store.list::<multipart::Started>(multipart::KIND)?;
        Ok(all
            .into_iter()
            .map(|(_, upload)| upload)
            .filter(|upload| upload.bucket == bucket)
            .collect())
    }
}

impl Tagged for S3 {
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let buckets = self.buckets()?.into_iter();
        let here = buckets.filter(|bucket| bucket.region == region);
        Ok(here
            .map(|bucket| TaggedResource {
                arn: format!("arn:aws:s3:::{}", bucket.name),
                tags: bucket.tags,
            })
            .collect())
    }
}

/// Checks a name against S3's rules.
fn check_name(name: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let fits = (3..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| plain(*byte) || matches!(byte, b'.' | b'-'))
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.last().is_some_and(|byte| plain(*byte))
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    if fits {
        return Ok(());
    }
    Err(Refusal::new(
        "InvalidBucketName",
        format!(
            "The specified bucket is not valid: {name:?} is not 3 to 63 lower-case letters, digits, dots and hyphens \
             that begin and end with a letter or digit"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["abc", "a-b.c", "zae-limiter-code-000000000000-us-east-1", "1a2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            "a..b",
            "127.0.0.1",
            "a/b",
            "äbc",
            &long,
        ] {
            assert_eq!(check_name(bad).unwrap_err().code, "InvalidBucketName", "{bad}");
        }
    }
}
