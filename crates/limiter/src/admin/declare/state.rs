//! The record of managed levels: read, written ahead, and written at the end, never over the record of another apply.

use zae_limiter_core::EpochMillis;
use zae_limiter_core::InvalidInput;
use zae_limiter_core::manifest::managed::{Applied, MOST_BYTES, size_of};
use zae_limiter_core::manifest::{Managed, Manifest, Owners, Target};
use zae_limiter_core::schema::{key_of, provisioner_key};
use zae_limiter_core::table::{Condition, Delete, Item, Put};

use crate::admin::Admin;
use crate::admin::levels::{MAX_RACES, holds_level};
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::{TableExt as _, Write};

/// The record as it was read or written last.
#[derive(Debug)]
pub(super) struct Record {
    item: Option<Item>,
    /// The levels that it lists.
    pub(super) managed: Managed,
}

impl Record {
    fn of(item: Option<Item>) -> Result<Self, Error> {
        let managed = item
            .as_ref()
            .map(Managed::decode)
            .transpose()?
            .unwrap_or_default();
        Ok(Self { item, managed })
    }
}

impl Admin {
    /// The managed levels.
    pub(super) async fn managed(&self) -> Result<Record, Error> {
        Record::of(self.read(&provisioner_key(&self.inner.namespace)).await?)
    }

    /// Lists what is about to be created, beside all that is listed. Refuses a manifest that does not fit.
    pub(super) async fn write_ahead(
        &self,
        mut record: Record,
        created: &Managed,
        manifest: &Manifest,
    ) -> Result<Record, Error> {
        for _ in 0..MAX_RACES {
            let mut union = record.managed.clone();
            union.add(created);
            self.check_size(&record, manifest)?;
            if union == record.managed {
                return Ok(record);
            }
            let put = union.put(&self.inner.namespace, record.item.as_ref(), None);
            match self.put_record(put).await? {
                Ok(written) => return Ok(written),
                Err(theirs) => record = theirs,
            }
        }
        Err(self.contended())
    }

    /// Lists what is declared and what others have listed, without what was deleted and is still gone.
    ///
    /// The record is read before the deleted levels. If another client has written one of them again since then, and
    /// listed it, the record has changed, and this begins again.
    pub(super) async fn write_final(
        &self,
        mut record: Record,
        declared: &Managed,
        deleted: &[Target],
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let at = instant(inner.clock.now());
        let hash = manifest.hash();
        let applied = Applied { at: &at, hash: &hash };
        for _ in 0..MAX_RACES {
            let keys: Vec<_> = deleted
                .iter()
                .map(|target| target.key(&inner.namespace))
                .collect();
            let read = || inner.table.batch_get(keys.clone(), true);
            let stored = inner.place.insisting(BRIEF, read).await?;
            let is_back = |target: &&Target| {
                let key = target.key(&inner.namespace);
                let mut found = stored.iter().filter(|item| holds_level(item));
                found.any(|item| key_of(item).as_ref() == Some(&key))
            };
            let mut managed = record.managed.clone();
            for target in deleted.iter().filter(|target| !is_back(target)) {
                managed.remove(target);
            }
            for key in managed.take_impossible(&inner.namespace) {
                let condition = Condition::ALWAYS;
                let delete = Delete { key, condition };
                let _ = inner
                    .place
                    .insisting(BRIEF, || inner.table.delete(delete.clone()))
                    .await?;
            }
            managed.add(declared);
            managed.remove_empty(declared);
            let put = managed.put(&inner.namespace, record.item.as_ref(), Some(&applied));
            match self.put_record(put).await? {
                Ok(_) => return Ok(()),
                Err(theirs) => record = theirs,
            }
        }
        Err(self.contended())
    }

    /// The custom resources of CloudFormation that declare what is managed, as stack and logical id.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub async fn limits_owners(&self) -> Result<Vec<String>, Error> {
        let record = self.managed().await?;
        Ok(record
            .item
            .as_ref()
            .map(Owners::decode)
            .unwrap_or_default()
            .into_names())
    }

    /// Notes that a custom resource declares what is managed, or no longer does. Levels are not changed.
    ///
    /// # Errors
    /// If the record cannot be read or written.
    pub async fn set_limits_owner(&self, owner: &str, declares: bool) -> Result<(), Error> {
        let mut record = self.managed().await?;
        for _ in 0..MAX_RACES {
            let before = record.item.as_ref().map(Owners::decode).unwrap_or_default();
            let mut owners = before.clone();
            if declares {
                owners.add(owner);
            } else {
                owners.remove(owner);
            }
            if owners == before {
                return Ok(());
            }
            let mut put = record
                .managed
                .put(&self.inner.namespace, record.item.as_ref(), None);
            owners.store(&mut put.item);
            match self.put_record(put).await? {
                Ok(_) => return Ok(()),
                Err(theirs) => record = theirs,
            }
        }
        Err(self.contended())
    }

    /// Writes the record; returns the record of another process that was faster.
    async fn put_record(&self, put: Put) -> Result<Result<Record, Record>, Error> {
        Ok(match self.put_as_read(put).await? {
            Ok(written) => Ok(Record::of(Some(written))?),
            Err(theirs) => Err(Record::of(theirs)?),
        })
    }

    /// Writes an item on condition that it is as it was read; returns what it is now if another process was faster.
    pub(super) async fn put_as_read(&self, put: Put) -> Result<Result<Item, Option<Item>>, Error> {
        let inner = &self.inner;
        let sent = inner.place.retrying(|| inner.table.put(put.clone())).await?;
        Ok(match sent {
            Write::Applied(()) => Ok(put.item),
            Write::Refused(Some(theirs)) => Err(Some(theirs)),
            Write::Refused(None) => match key_of(&put.item) {
                Some(key) => Err(self.read(&key).await?),
                None => Err(None),
            },
        })
    }

    fn contended(&self) -> Error {
        let inner = &self.inner;
        inner.place.contended(&provisioner_key(&inner.namespace))
    }

    /// Refuses what does not fit, before anything is written: until its deletions are done, an apply lists what was
    /// managed and what is declared.
    pub(super) fn check_size(&self, record: &Record, manifest: &Manifest) -> Result<(), InvalidInput> {
        let (at, hash) = (instant(self.inner.clock.now()), manifest.hash());
        let applied = Applied { at: &at, hash: &hash };
        let bytes = |managed: &Managed| {
            let put = managed.put(&self.inner.namespace, record.item.as_ref(), Some(&applied));
            size_of(&put.item)
        };
        let declared = Managed::of(manifest);
        let mut union = record.managed.clone();
        union.add(&declared);
        let size = bytes(&union);
        if size <= MOST_BYTES {
            return Ok(());
        }
        let way_out = if bytes(&declared) <= MOST_BYTES {
            "apply it without the new entities first, which deletes the old ones, and then as it is"
        } else {
            "declare fewer entities, or spread them over several namespaces"
        };
        let reason = format!(
            "would make the record of managed levels {size} bytes, more than the {MOST_BYTES} that fit one item; \
             {way_out}"
        );
        let levels = format!("{} levels", manifest.levels());
        Err(InvalidInput::new("manifest", levels, reason))
    }
}

/// An instant with microseconds and offset, as other clients write it into the record.
fn instant(now: EpochMillis) -> String {
    let text = now.to_text();
    let seconds = text.strip_suffix('Z').unwrap_or(&text);
    format!("{seconds}.{:03}000+00:00", now.0.rem_euclid(1000))
}
