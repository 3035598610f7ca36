//! Objects: what is known of them, and writing, reading and deleting them.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::S3;
use super::checksum::{Checksum, md5_hex};
use super::conditions::WriteConditions;
use crate::clock;
use crate::wire::Refusal;

/// The documents of objects, named `bucket/key`. A bucket's name has no slash, so this cannot be misread.
pub(super) const KIND: &str = "s3-object";

/// The longest key in bytes.
const LONGEST_KEY: usize = 1024;

/// How often a file is looked for that an overwriting request may just have replaced.
const ATTEMPTS: usize = 5;

/// The attributes of an object in the request of its upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Headers that are given back as they came, such as `content-type`; names in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The uploader's own metadata, without the prefix `x-amz-meta-`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The storage class, unless it is `STANDARD`.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// The record of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag without quotes: the MD5 of the bytes, or of the parts' MD5s and their number.
    pub etag: String,
    /// When it was written.
    pub modified_ms: i64,
    /// Its checksum.
    pub checksum: Checksum,
    /// The attributes in the request of its upload.
    pub described: Described,
    /// The file with its bytes.
    pub(super) file: String,
}

/// An object as it is about to be written.
pub(super) struct NewObject<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub bytes: &'a [u8],
    pub etag: String,
    pub checksum: Checksum,
    pub described: Described,
}

impl S3 {
    /// Writes an object.
    ///
    /// # Errors
    /// `NoSuchBucket`, `KeyTooLongError`.
    pub fn put(&self, bucket: &str, key: &str, bytes: &Bytes) -> Result<Object, Refusal> {
        let object = NewObject {
            bucket,
            key,
            bytes,
            etag: md5_hex(bytes),
            checksum: Checksum::verified(None, bytes)?,
            described: Described::default(),
        };
        self.write(object, &WriteConditions::default())
    }

    /// An object and its bytes.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    pub fn get(&self, bucket: &str, key: &str) -> Result<(Object, Bytes), Refusal> {
        self.read(bucket, key, |_| Ok(None))
    }

    /// The record of an object.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    pub fn head(&self, bucket: &str, key: &str) -> Result<Object, Refusal> {
        self.need_bucket(bucket)?;
        self.store.get(KIND, &name(bucket, key))?.ok_or_else(|| {
            Refusal::new("NoSuchKey", format!("The specified key does not exist: {key}")).status(404)
        })
    }

    /// Deletes an object; returns whether there was one.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn delete(&self, bucket: &str, key: &str) -> Result<bool, Refusal> {
        let gone = {
            let _change = self.change();
            self.need_bucket(bucket)?;
            let object: Option<Object> = self.store.get(KIND, &name(bucket, key))?;
            self.store.delete(KIND, &name(bucket, key))?;
            object
        };
        if let Some(object) = &gone {
            self.files.delete(&object.file);
        }
        Ok(gone.is_some())
    }

    /// Changes an object's tags.
    pub(super) fn tag_object(
        &self,
        bucket: &str,
        key: &str,
        tags: BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let _change = self.change();
        let mut object = self.head(bucket, key)?;
        object.described.tags = tags;
        self.store.put(KIND, &name(bucket, key), &object)?;
        Ok(())
    }

    /// An object and the bytes of it that `choose` wants: all of them, or a range.
    pub(super) fn read(
        &self,
        bucket: &str,
        key: &str,
        mut choose: impl FnMut(&Object) -> Result<Option<Range<u64>>, Refusal>,
    ) -> Result<(Object, Bytes), Refusal> {
        for _ in 0..ATTEMPTS {
            let object = self.head(bucket, key)?;
            let range = choose(&object)?;
            // The file is missing if another request replaced the object since its document was read.
            if let Some(bytes) = self.files.read(&object.file, range)? {
                return Ok((object, bytes));
            }
        }
        Err(Refusal::new(
            "InternalError",
            format!("the file with the bytes of {bucket}/{key} is missing"),
        )
        .status(500))
    }

    /// Writes an object, if the conditions hold.
    pub(super) fn write(&self, new: NewObject<'_>, conditions: &WriteConditions) -> Result<Object, Refusal> {
        check_key(new.key)?;
        self.need_bucket(new.bucket)?;
        let object = Object {
            key: new.key.to_owned(),
            size: new.bytes.len() as u64,
            etag: new.etag,
            modified_ms: clock::now_ms(),
            checksum: new.checksum,
            described: new.described,
            file: self.files.write(new.bytes)?,
        };
        match self.replace(new.bucket, &object, conditions) {
            Ok(Some(old)) => self.files.delete(&old.file),
            Ok(None) => {}
            Err(refusal) => {
                self.files.delete(&object.file);
                return Err(refusal);
            }
        }
        Ok(object)
    }

    fn replace(
        &self,
        bucket: &str,
        object: &Object,
        conditions: &WriteConditions,
    ) -> Result<Option<Object>, Refusal> {
        let _change = self.change();
        // It may have gone while the file was written.
        self.need_bucket(bucket)?;
        let name = name(bucket, &object.key);
        let old: Option<Object> = self.store.get(KIND, &name)?;
        conditions.check(old.as_ref().map(|old| old.etag.as_str()))?;
        self.store.put(KIND, &name, object)?;
        Ok(old)
    }
}

/// The name of an object's document.
pub(super) fn name(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

/// Checks a key's length.
pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.len() > LONGEST_KEY {
        return Err(Refusal::new(
            "KeyTooLongError",
            format!(
                "Your key is too long: it has {} bytes of at most {LONGEST_KEY}",
                key.len()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn s3(directory: &std::path::Path) -> S3 {
        let store = Store::open(&directory.join("records.sqlite")).unwrap();
        S3::open(store, &directory.join("objects")).unwrap()
    }

    fn files(directory: &std::path::Path) -> usize {
        std::fs::read_dir(directory.join("objects")).unwrap().count()
    }

    #[test]
    fn objects_of_any_key_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let one = s3(directory.path());
        one.create_bucket("bucket", "eu-west-1").unwrap();
        let long = "ü".repeat(512);
        for key in ["../../x", "/", "a//b", "\0", ".", &long] {
            one.put("bucket", key, &Bytes::copy_from_slice(key.as_bytes()))
                .unwrap();
        }
        assert_eq!(
            one.put("bucket", &format!("{long}a"), &Bytes::new())
                .unwrap_err()
                .code,
            "KeyTooLongError"
        );
        drop(one);
        std::fs::write(directory.path().join("objects/left-over.part"), "half").unwrap();
        let other = s3(directory.path());
        assert_eq!(files(directory.path()), 6);
        for key in ["../../x", "/", "a//b", "\0", ".", &long] {
            let (object, bytes) = other.get("bucket", key).unwrap();
            assert_eq!((&*bytes, object.size), (key.as_bytes(), key.len() as u64));
        }
        assert_eq!(other.delete_bucket("bucket").unwrap_err().code, "BucketNotEmpty");
        for key in other.keys("bucket", "").unwrap() {
            assert!(other.delete("bucket", &key).unwrap());
        }
        assert_eq!(files(directory.path()), 0);
        other.delete_bucket("bucket").unwrap();
        assert_eq!(other.get("bucket", "a").unwrap_err().code, "NoSuchBucket");
    }

    #[test]
    fn overwriting_leaves_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let s3 = s3(directory.path());
        assert_eq!(
            s3.put("bucket", "k", &Bytes::new()).unwrap_err().code,
            "NoSuchBucket"
        );
        s3.create_bucket("bucket", "us-east-1").unwrap();
        assert_eq!(
            s3.create_bucket("bucket", "us-east-1").unwrap_err().code,
            "BucketAlreadyOwnedByYou"
        );
        s3.put("bucket", "k", &Bytes::from_static(b"one")).unwrap();
        let object = s3.put("bucket", "k", &Bytes::from_static(b"second")).unwrap();
        assert_eq!((object.size, files(directory.path())), (6, 1));
        assert_eq!(&*s3.get("bucket", "k").unwrap().1, b"second");
        assert_eq!(s3.head("bucket", "other").unwrap_err().code, "NoSuchKey");
    }

    #[test]
    fn readers_never_see_a_half_object() {
        let directory = tempfile::tempdir().unwrap();
        let s3 = s3(directory.path());
        s3.create_bucket("bucket", "us-east-1").unwrap();
        s3.put("bucket", "k", &Bytes::from(vec![0; 10_000])).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for byte in 1..100 {
                    s3.put("bucket", "k", &Bytes::from(vec![byte; 10_000])).unwrap();
                }
            });
            for _ in 0..100 {
                let (object, bytes) = s3.get("bucket", "k").unwrap();
                assert_eq!(object.etag, md5_hex(&bytes));
            }
        });
    }
}
