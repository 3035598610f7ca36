//! Listing keys: by prefix, in folders, page by page.

use super::S3;
use super::objects::{KIND, Object};
use crate::wire::Refusal;

/// How many documents are read at once.
const BATCH: usize = 500;

/// A text that sorts after nearly all others.
const LAST: char = char::MAX;

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Their prefix.
    pub prefix: String,
    /// The delimiter of folders; without one there are no folders.
    pub delimiter: Option<String>,
    /// Only what comes after this key or folder.
    pub after: Option<String>,
    /// How many keys and folders at most.
    pub limit: usize,
}

/// Some keys, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects.
    pub objects: Vec<Object>,
    /// Folders.
    pub folders: Vec<String>,
    /// If there is more: the last key or folder of this page.
    pub next: Option<String>,
}

impl S3 {
    /// The keys with a prefix.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, Refusal> {
        let listing = Listing {
            prefix: prefix.to_owned(),
            limit: usize::MAX,
            ..Listing::default()
        };
        let page = self.list(bucket, &listing)?;
        Ok(page.objects.into_iter().map(|object| object.key).collect())
    }

    /// A page of a listing.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list(&self, bucket: &str, listing: &Listing) -> Result<Page, Refusal> {
        self.need_bucket(bucket)?;
        let mut page = Page::default();
        let mut last = None;
        // A folder that is done with: what is left of it is skipped.
        let mut done = listing
            .after
            .clone()
            .filter(|after| listing.folder_of(after) == Some(after));
        let mut from = match (&done, &listing.after) {
            (Some(folder), _) => format!("{folder}{LAST}"),
            (None, Some(after)) => format!("{after}\0").max(listing.prefix.clone()),
            (None, None) => listing.prefix.clone(),
        };
        loop {
            let found = self
                .store
                .range::<Object>(KIND, &format!("{bucket}/{from}"), BATCH)?;
            let more = found.len() == BATCH;
            let mut skipped = false;
            for (name, object) in found {
                let here = name
                    .strip_prefix(bucket)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|key| key.starts_with(&listing.prefix));
                if !here {
                    return Ok(page);
                }
                from = format!("{}\0", object.key);
                if done.as_ref().is_some_and(|folder| object.key.starts_with(folder)) {
                    continue;
                }
                if page.objects.len() + page.folders.len() >= listing.limit {
                    page.next = last;
                    return Ok(page);
                }
                if let Some(folder) = listing.folder_of(&object.key).map(str::to_owned) {
                    from = format!("{folder}{LAST}");
                    page.folders.push(folder.clone());
                    last = Some(folder.clone());
                    done = Some(folder);
                    skipped = true;
                    break;
                }
                last = Some(object.key.clone());
                page.objects.push(object);
            }
            if !more && !skipped {
                return Ok(page);
            }
        }
    }
}

impl Listing {
    /// The folder that a key is shown as, if it is.
    fn folder_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        let delimiter = self
            .delimiter
            .as_deref()
            .filter(|delimiter| !delimiter.is_empty())?;
        let rest = key.strip_prefix(&self.prefix)?;
        let end = rest.find(delimiter)? + delimiter.len();
        Some(&key[..self.prefix.len() + end])
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::Store;

    fn listed(s3: &S3, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<Vec<String>> {
        let mut listing = Listing {
            prefix: prefix.into(),
            delimiter: delimiter.map(str::to_owned),
            after: None,
            limit,
        };
        let mut pages = Vec::new();
        loop {
            let page = s3.list("bucket", &listing).unwrap();
            let keys = page.objects.into_iter().map(|object| object.key);
            let mut names: Vec<String> = keys.chain(page.folders).collect();
            names.sort();
            pages.push(names);
            match page.next {
                Some(next) => listing.after = Some(next),
                None => return pages,
            }
        }
    }

    #[test]
    fn keys_come_in_order_in_folders_and_pages() {
        let directory = tempfile::tempdir().unwrap();
        let s3 = S3::open(Store::memory().unwrap(), directory.path()).unwrap();
        for bucket in ["bucket", "bucket-2", "bucke"] {
            s3.create_bucket(bucket, "us-east-1").unwrap();
            for key in [
                "a",
                "a/1",
                "a/2",
                "a/\u{10FFFF}x",
                "a0",
                "b/1",
                "b/c/1",
                "c",
                "d/",
            ] {
                s3.put(bucket, key, &Bytes::new()).unwrap();
            }
        }
        let all = [
            "a",
            "a/1",
            "a/2",
            "a/\u{10FFFF}x",
            "a0",
            "b/1",
            "b/c/1",
            "c",
            "d/",
        ];
        for limit in 1..10 {
            assert_eq!(listed(&s3, "", None, limit).concat(), all, "{limit}");
            assert_eq!(
                listed(&s3, "", Some("/"), limit).concat(),
                ["a", "a/", "a0", "b/", "c", "d/"],
                "{limit}"
            );
            assert_eq!(
                listed(&s3, "b/", Some("/"), limit).concat(),
                ["b/1", "b/c/"],
                "{limit}"
            );
        }
        assert_eq!(listed(&s3, "", None, 3).len(), 3);
        assert_eq!(listed(&s3, "zz", None, 3), [Vec::<String>::new()]);
        assert_eq!(s3.keys("bucket", "a/").unwrap().len(), 3);
    }

    #[test]
    fn many_keys_take_several_reads() {
        let directory = tempfile::tempdir().unwrap();
        let s3 = S3::open(Store::memory().unwrap(), directory.path()).unwrap();
        s3.create_bucket("bucket", "us-east-1").unwrap();
        for number in 0..=BATCH * 2 {
            s3.put("bucket", &format!("k{number:05}"), &Bytes::new()).unwrap();
        }
        assert_eq!(s3.keys("bucket", "").unwrap().len(), BATCH * 2 + 1);
        let pages = listed(&s3, "", None, BATCH);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH, BATCH, 1]);
    }
}
