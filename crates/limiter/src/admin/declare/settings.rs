//! Settings beside levels: the record of those that are managed, and how they are changed.
//!
//! They are changed after the levels, one transaction for each: the setting and its event. A setting that will be created is
//! listed before it is written, and leaves the list after it is gone, as levels do.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};
use zae_limiter_core::InvalidInput;
use zae_limiter_core::manifest::managed::{MOST_BYTES, size_of};
use zae_limiter_core::manifest::settings::{SettingsPlan, keys, plan};
use zae_limiter_core::manifest::{ManagedSettings, Manifest, Setting, SettingChange, Settings};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Item, Key, Part};

use super::write::Outcome;
use super::{ApplyOptions, Run};
use crate::admin::Admin;
use crate::admin::levels::MAX_RACES;
use crate::admin::setting::setting_event;
use crate::error::Error;
use crate::table::Transacted;

/// How many settings are changed between two looks at the turn.
const BETWEEN_LOOKS: usize = 32;

/// How many of them at once.
const AT_ONCE: usize = 16;

/// What is managed and stored of settings, and compared.
#[derive(Debug)]
pub(super) struct Seen {
    record: Record,
    stored: BTreeMap<Key, Item>,
    pub(super) plan: SettingsPlan,
}

/// The record as it was read or written last.
#[derive(Debug, Default)]
struct Record {
    item: Option<Item>,
    managed: ManagedSettings,
}

impl Record {
    fn of(item: Option<Item>) -> Result<Self, Error> {
        let managed = item.as_ref().map(ManagedSettings::decode).transpose()?;
        Ok(Self {
            item,
            managed: managed.unwrap_or_default(),
        })
    }
}

impl Admin {
    /// Reads what is managed and stored, and compares; of what is managed, with what is `within`.
    pub(super) async fn look_at_settings(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
        within: Option<&Settings>,
    ) -> Result<Seen, Error> {
        let namespace = &self.inner.namespace;
        let record = Record::of(self.read(&ManagedSettings::key(namespace)).await?)?;
        let mut managed = record.managed.clone();
        if let Some(within) = within {
            let mut inside = managed.settings();
            inside.retain(|setting| within.get(setting).is_some());
            managed = ManagedSettings::of(&inside);
        }
        let stored = self
            .read_all(&keys(namespace, &manifest.settings, &managed))
            .await?;
        let stored = stored
            .into_iter()
            .filter_map(|item| Some((key_of(&item)?, item)))
            .collect();
        let plan = plan(namespace, &manifest.settings, &managed, &stored, options.full);
        Ok(Seen { record, stored, plan })
    }

    /// Refuses what does not fit, before anything is written: until its deletions are done, an apply lists what was
    /// managed and what is declared.
    pub(super) fn check_settings_fit(&self, seen: &Seen, manifest: &Manifest) -> Result<(), InvalidInput> {
        let declared = manifest.settings.iter();
        let mut union = seen.record.managed.clone();
        union.add(&ManagedSettings::of(declared.map(|(setting, _)| setting)));
        let put = union.put(&self.inner.namespace, seen.record.item.as_ref());
        let size = size_of(&put.item);
        if size <= MOST_BYTES {
            return Ok(());
        }
        let count = format!("{} settings", manifest.settings.iter().count());
        let reason = format!(
            "would make the record of managed concurrency limits {size} bytes, more than the {MOST_BYTES} that fit one \
             item; declare fewer of them, or spread them over several namespaces"
        );
        Err(InvalidInput::new("manifest", count, reason))
    }

    /// Lists what is about to be created, beside all that is listed.
    pub(super) async fn list_settings_ahead(&self, seen: &mut Seen) -> Result<(), Error> {
        let changes = seen.plan.changes.iter();
        let created = changes.filter(|change| change.new.is_some() && change.old.is_none());
        let created = ManagedSettings::of(created.map(|change| &change.setting));
        let record = std::mem::take(&mut seen.record);
        seen.record = self.list_settings(record, &created, &[]).await?;
        Ok(())
    }

    /// Changes the record of managed settings, from what it holds by now; not, if nothing differs. Those that were deleted leave it
    /// if they are still gone.
    async fn list_settings(
        &self,
        mut record: Record,
        more: &ManagedSettings,
        deleted: &[Setting],
    ) -> Result<Record, Error> {
        let inner = &self.inner;
        let keys: Vec<Key> = deleted
            .iter()
            .map(|setting| setting.key(&inner.namespace))
            .collect();
        for _ in 0..MAX_RACES {
            let mut managed = record.managed.clone();
            let found: Vec<_> = self.read_all(&keys).await?.iter().filter_map(key_of).collect();
            for (setting, key) in deleted.iter().zip(&keys) {
                if !found.contains(key) {
                    managed.remove(setting);
                }
            }
            managed.add(more);
            if managed == record.managed {
                return Ok(record);
            }
            let put = managed.put(&inner.namespace, record.item.as_ref());
            record = match self.put_as_read(put).await? {
                Ok(written) => return Record::of(Some(written)),
                Err(theirs) => Record::of(theirs)?,
            };
        }
        Err(inner.place.contended(&ManagedSettings::key(&inner.namespace)))
    }
}

impl Run<'_> {
    /// Makes all changes of settings.
    pub(super) async fn write_settings<'c>(&self, seen: &'c Seen, outcome: &mut Outcome<'c>) {
        let mut rest = &seen.plan.changes[..];
        while !rest.is_empty() {
            match self.admin.has_turn(&self.turn).await {
                Ok(true) => {}
                Ok(false) => return self.lost_turn(rest.len(), outcome).await,
                Err(err) => return outcome.not_tried(rest.len(), &err.to_string()),
            }
            let (some, others) = rest.split_at(rest.len().min(BETWEEN_LOOKS));
            rest = others;
            let mut work = Vec::with_capacity(some.len());
            for change in some {
                let old = seen.stored.get(&change.setting.key(&self.admin.inner.namespace));
                work.push(self.write_setting(change, old.cloned()));
            }
            let done: Vec<_> = stream::iter(work).buffered(AT_ONCE).collect().await;
            let (mut lost, mut failure) = (0, None);
            for (change, done) in some.iter().zip(done) {
                match done {
                    Ok(true) => {
                        self.admin.forget_setting(&change.setting);
                        outcome.settings.push(change);
                    }
                    Ok(false) => lost += 1,
                    Err(err) => {
                        outcome.errors.push(failed(change, &err));
                        if matches!(&err, Error::Unavailable(err) if err.is_retryable()) {
                            failure = Some(err.to_string());
                        }
                    }
                }
            }
            if lost > 0 {
                return self.lost_turn(lost + rest.len(), outcome).await;
            }
            if let Some(reason) = failure {
                return outcome.not_tried(rest.len(), &reason);
            }
        }
    }

    /// Changes one setting, which was read as `old`. Returns whether it is as it should be; if not, another apply has begun, or
    /// the namespace is deleted.
    async fn write_setting(&self, change: &SettingChange, mut old: Option<Item>) -> Result<bool, Error> {
        let (admin, setting) = (self.admin, &change.setting);
        let key = setting.key(&admin.inner.namespace);
        for _ in 0..MAX_RACES {
            let before = old.as_ref().and_then(|old| setting.read(old).ok());
            let differs = before != change.new || old.is_some() != change.new.is_some();
            let part = setting.write(&admin.inner.namespace, change.new, old.as_ref())?;
            let Some(part) = part.filter(|_| differs || self.rewrite) else {
                return Ok(true);
            };
            let mut parts = vec![part];
            if differs {
                let event = setting_event(setting, before, change.new);
                parts.push(Part::Put(admin.event_put(event, self.retention).await));
            }
            match self.transact(parts).await? {
                Some(Transacted::Applied) => return Ok(true),
                // It has changed since it was read, perhaps by another apply.
                Some(Transacted::Cancelled(_)) if admin.has_turn(&self.turn).await? => {
                    old = admin.read(&key).await?;
                }
                Some(Transacted::Cancelled(_)) | None => return Ok(false),
            }
        }
        Err(admin.inner.place.contended(&key))
    }

    /// Lists what is declared and was changed, and what others have listed, without what was deleted and is still gone.
    pub(super) async fn list_changed_settings(
        &self,
        seen: Seen,
        manifest: &Manifest,
        done: &[Setting],
    ) -> Result<(), Error> {
        let declared = manifest.settings.iter().map(|(setting, _)| setting);
        let mut declared = ManagedSettings::of(declared);
        let mut deleted = Vec::new();
        for SettingChange { setting, new, .. } in &seen.plan.changes {
            match (done.contains(setting), new) {
                (true, None) => deleted.push(setting.clone()),
                // A setting that was made by hand, and could not be replaced, stays unmanaged.
                (false, Some(_)) => declared.remove(setting),
                _ => {}
            }
        }
        let listed = self.admin.list_settings(seen.record, &declared, &deleted);
        listed.await.map(drop)
    }
}

/// The line for a change that failed.
fn failed(change: &SettingChange, err: &dyn std::fmt::Display) -> String {
    let (setting, target) = (&change.setting, change.setting.target());
    let name = target.name().map_or_else(String::new, |name| format!(" {name}"));
    format!(
        "{} {} {}{name}: {err}",
        change.action,
        target.level(),
        setting.as_str()
    )
}
