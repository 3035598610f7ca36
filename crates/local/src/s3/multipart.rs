//! Uploads in parts: what has been started, the parts so far, and the whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::S3;
use super::checksum::{Algorithm, Checksum, hex, md5};
use super::conditions::WriteConditions;
use super::objects::{Described, NewObject, Object, check_key};
use crate::clock;
use crate::wire::{Refusal, uuid};

/// The documents of started uploads; their names are the uploads' ids.
pub(super) const KIND: &str = "s3-upload";

/// The documents of parts, named `upload/number`.
pub(super) const PART: &str = "s3-part";

/// The least bytes of a part that is not the last.
const LEAST: u64 = 5 * 1024 * 1024;

/// The most bytes of an object of parts here: it is put together in memory.
const MOST: u64 = 1024 * 1024 * 1024;

/// The highest number of a part.
const HIGHEST: u32 = 10_000;

/// An upload that has been started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Started {
    pub id: String,
    pub bucket: String,
    pub key: String,
    pub begun_ms: i64,
    pub described: Described,
    /// The checksum that the caller wants, and whether of the whole object.
    pub algorithm: Algorithm,
    pub whole: bool,
}

/// A part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub number: u32,
    pub size: u64,
    /// Its MD5 in hexadecimal.
    pub etag: String,
    pub modified_ms: i64,
    pub checksum: Checksum,
    pub file: String,
}

/// A part as the caller names it when it completes the upload.
pub(super) struct NamedPart {
    pub number: u32,
    pub etag: String,
    pub checksum: Option<String>,
}

impl S3 {
    /// Starts an upload.
    pub(super) fn start(
        &self,
        bucket: &str,
        key: &str,
        described: Described,
        algorithm: Algorithm,
        whole: bool,
    ) -> Result<Started, Refusal> {
        self.need_bucket(bucket)?;
        check_key(key)?;
        let started = Started {
            id: uuid().replace('-', ""),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            begun_ms: clock::now_ms(),
            described,
            algorithm,
            whole,
        };
        self.store.put(KIND, &started.id, &started)?;
        Ok(started)
    }

    /// An upload that must have been started, for that key.
    pub(super) fn started(&self, id: &str, bucket: &str, key: &str) -> Result<Started, Refusal> {
        self.need_bucket(bucket)?;
        let found: Option<Started> = self.store.get(KIND, id)?;
        found
            .filter(|started| started.bucket == bucket && started.key == key)
            .ok_or_else(|| {
                Refusal::new(
                    "NoSuchUpload",
                    format!(
                        "The specified upload does not exist: {id}. The upload ID may be invalid, or the upload may \
                         have been aborted or completed."
                    ),
                )
                .status(404)
            })
    }

    /// Takes a part, in place of an earlier one of its number.
    pub(super) fn take_part(
        &self,
        started: &Started,
        number: u32,
        bytes: &[u8],
        checksum: Checksum,
    ) -> Result<Part, Refusal> {
        if !(1..=HIGHEST).contains(&number) {
            return Err(Refusal::new(
                "InvalidArgument",
                format!("Part number must be an integer between 1 and {HIGHEST}, inclusive, not {number}"),
            ));
        }
        // Parts are compared by one algorithm, whichever they were sent with.
        let checksum = if checksum.algorithm == started.algorithm {
            checksum
        } else {
            Checksum {
                algorithm: started.algorithm,
                value: started.algorithm.of_bytes(bytes),
            }
        };
        let part = Part {
            number,
            size: bytes.len() as u64,
            etag: hex(&md5(bytes)),
            modified_ms: clock::now_ms(),
            checksum,
            file: self.files.write(bytes)?,
        };
        let name = part_name(&started.id, number);
        let replaced = {
            let _change = self.change();
            // It may have been completed or aborted meanwhile.
            let alive = self.started(&started.id, &started.bucket, &started.key);
            if let Err(refusal) = alive {
                self.files.delete(&part.file);
                return Err(refusal);
            }
            let old: Option<Part> = self.store.get(PART, &name)?;
            self.store.put(PART, &name, &part)?;
            old
        };
        if let Some(old) = replaced {
            self.files.delete(&old.file);
        }
        Ok(part)
    }

    /// The parts of an upload by number.
    pub(super) fn parts(&self, id: &str) -> Result<Vec<Part>, Refusal> {
        let found = self.store.with_prefix::<Part>(PART, &format!("{id}/"))?;
        Ok(found.into_iter().map(|(_, part)| part).collect())
    }

    /// Puts an object together of the parts named.
    pub(super) fn complete(
        &self,
        started: &Started,
        named: &[NamedPart],
        conditions: &WriteConditions,
        expected: Option<&Checksum>,
    ) -> Result<Object, Refusal> {
        let parts: BTreeMap<u32, Part> = self
            .parts(&started.id)?
            .into_iter()
            .map(|part| (part.number, part))
            .collect();
        let chosen = choose(named, &parts)?;
        let mut bytes = Vec::with_capacity(chosen.iter().map(|part| part.size as usize).sum());
        let mut sums = Vec::new();
        for part in &chosen {
            let read = self.files.read(&part.file, None)?;
            bytes.extend(read.ok_or_else(|| invalid_part(part.number))?);
            sums.extend(md5_of_hex(&part.etag));
        }
        let checksum = if started.whole {
            Checksum {
                algorithm: started.algorithm,
                value: started.algorithm.of_bytes(&bytes),
            }
        } else {
            Checksum::composite(
                started.algorithm,
                chosen.iter().map(|part| part.checksum.value.as_str()),
            )?
        };
        if let Some(expected) = expected
            && expected.algorithm == checksum.algorithm
            && expected.value != checksum.value
            && Some(expected.value.as_str()) != checksum.value.split('-').next()
        {
            return Err(Refusal::new(
                "BadDigest",
                format!(
                    "The {} you specified for the object did not match: it says {}, and the parts make {}",
                    checksum.algorithm.name(),
                    expected.value,
                    checksum.value
                ),
            ));
        }
        let object = NewObject {
            bucket: &started.bucket,
            key: &started.key,
            bytes: &bytes,
            etag: format!("{}-{}", hex(&md5(&sums)), chosen.len()),
            checksum,
            described: started.described.clone(),
        };
        let object = self.write(object, conditions)?;
        let _change = self.change();
        self.forget_upload(started)?;
        Ok(object)
    }

    /// Forgets an upload and its parts. The caller holds `change`.
    pub(super) fn forget_upload(&self, started: &Started) -> Result<(), Refusal> {
        self.store.delete(KIND, &started.id)?;
        for part in self.parts(&started.id)? {
            self.store.delete(PART, &part_name(&started.id, part.number))?;
            self.files.delete(&part.file);
        }
        Ok(())
    }

    /// Aborts an upload.
    pub(super) fn abort(&self, started: &Started) -> Result<(), Refusal> {
        let _change = self.change();
        self.forget_upload(started)
    }
}

fn part_name(id: &str, number: u32) -> String {
    format!("{id}/{number:05}")
}

/// The parts that are named, if they are there, in order, and large enough.
fn choose<'a>(named: &[NamedPart], parts: &'a BTreeMap<u32, Part>) -> Result<Vec<&'a Part>, Refusal> {
    if named.is_empty() {
        return Err(Refusal::new("MalformedXML", "You must specify at least one part"));
    }
    if named.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(Refusal::new(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ));
    }
    let mut chosen = Vec::with_capacity(named.len());
    let mut total = 0_u64;
    for (index, name) in named.iter().enumerate() {
        let part = parts
            .get(&name.number)
            .filter(|part| part.etag == name.etag)
            .filter(|part| {
                name.checksum
                    .as_ref()
                    .is_none_or(|sum| *sum == part.checksum.value)
            })
            .ok_or_else(|| invalid_part(name.number))?;
        if part.size < LEAST && index + 1 < named.len() {
            return Err(Refusal::new(
                "EntityTooSmall",
                format!(
                    "Your proposed upload is smaller than the minimum allowed size: part {} has {} bytes of at least {LEAST}",
                    part.number, part.size
                ),
            ));
        }
        total += part.size;
        chosen.push(part);
    }
    if total > MOST {
        return Err(Refusal::new(
            "EntityTooLarge",
            format!(
                "Your proposed upload exceeds the maximum allowed size: {total} bytes, and the local endpoint takes {MOST}"
            ),
        ));
    }
    Ok(chosen)
}

fn invalid_part(number: u32) -> Refusal {
    Refusal::new(
        "InvalidPart",
        format!(
            "Part {number} could not be found: it was not uploaded, or its entity tag or checksum is another"
        ),
    )
}

fn md5_of_hex(text: &str) -> impl Iterator<Item = u8> {
    (0..text.len() / 2).filter_map(|index| u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn parts_become_an_object() {
        let directory = tempfile::tempdir().unwrap();
        let s3 = S3::open(Store::memory().unwrap(), directory.path()).unwrap();
        s3.create_bucket("bucket", "us-east-1").unwrap();
        let started = s3
            .start("bucket", "key", Described::default(), Algorithm::Crc32, false)
            .unwrap();
        let take = |number, bytes: &[u8]| {
            let checksum = Checksum::verified(None, bytes).unwrap();
            s3.take_part(&started, number, bytes, checksum).unwrap()
        };
        let (large, small) = (vec![1; LEAST as usize], vec![2; 10]);
        take(2, b"replaced");
        let parts = [take(1, &large), take(2, &small)];
        let name = |part: &Part| NamedPart {
            number: part.number,
            etag: part.etag.clone(),
            checksum: Some(part.checksum.value.clone()),
        };
        let complete = |named: &[NamedPart]| s3.complete(&started, named, &WriteConditions::default(), None);
        let code = |named: &[NamedPart]| complete(named).unwrap_err().code;
        assert_eq!(code(&[name(&parts[1]), name(&parts[0])]), "InvalidPartOrder");
        assert_eq!(code(&[]), "MalformedXML");
        let wrong = NamedPart {
            etag: "0".into(),
            ..name(&parts[0])
        };
        assert_eq!(code(&[wrong]), "InvalidPart");
        let third = take(3, b"more");
        assert_eq!(code(&[name(&parts[1]), name(&third)]), "EntityTooSmall");
        let object = complete(&[name(&parts[0]), name(&parts[1])]).unwrap();
        assert!(object.etag.ends_with("-2") && object.checksum.value.ends_with("-2"));
        assert_eq!(s3.get("bucket", "key").unwrap().1, [large, small].concat());
        // The parts are gone, and those that were not named too.
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(code(&[name(&parts[0])]), "InvalidPart");
        assert_eq!(
            s3.started(&started.id, "bucket", "key").unwrap_err().code,
            "NoSuchUpload"
        );
    }
}
