//! Changing levels, some at a time: record, registry, event, and what is owed to live buckets, in one transaction.

use std::collections::BTreeMap;

use zae_limiter_core::config::{Config, is_limit_attribute};
use zae_limiter_core::manifest::pending::{Kind, Pending, key as pending_key, owe};
use zae_limiter_core::manifest::{Change, LevelState, Setting, SettingChange, Target};
use zae_limiter_core::name::LimitName;
use zae_limiter_core::namespace::is_named;
use zae_limiter_core::table::{Cancelled, Item, Key, Part, Put};

use super::Run;
use super::flags;
use super::owed::Owed;
use super::settings;
use crate::admin::levels::{
    LevelRecord, MAX_RACES, Registry, deleted_event, level_attributes, set_event, stale_names,
};
use crate::error::Error;
use crate::table::Transacted;

/// How many levels one transaction changes.
const LEVELS_AT_ONCE: usize = 30;

/// How many items of levels it writes: two registries and the namespace's record stay below DynamoDB's hundred with them.
const PARTS_AT_ONCE: usize = 96;

/// Why changes are not made.
const SUPERSEDED: &str =
    "another apply of this namespace has begun, and its manifest holds. Apply again for this one to hold.";
const DELETED: &str = "the namespace was deleted meanwhile.";

/// The outcome of the changes.
#[derive(Default)]
pub(super) struct Outcome<'a> {
    /// Those that are done.
    pub(super) done: Vec<&'a Change>,
    /// The settings that are done.
    pub(super) settings: Vec<&'a SettingChange>,
    /// The work of which buckets were updated, or could not be.
    pub(super) told: Vec<(Kind, Target)>,
    /// Failures.
    pub(super) errors: Vec<String>,
    /// Why the rest was not tried.
    stopped: Option<String>,
    /// Why the rest is not this apply's any more, and how many changes of the latest batch belong to it.
    over: Option<(&'static str, usize)>,
    /// Whether changes were left out because the table had failed.
    has_failed: bool,
    /// Whether the namespace is deleted, so that nothing more is to be written there.
    pub(super) is_gone: bool,
}

/// One level, ready to be changed.
struct Step<'a> {
    change: &'a Change,
    parts: Vec<Part>,
    count: Option<(Registry, i8)>,
    /// The records of pending updates of live buckets, as they will be written.
    owed: Vec<(Kind, Pending)>,
}

impl Step<'_> {
    fn owed(self) -> Vec<Owed> {
        let mut stored = match self.parts.into_iter().next() {
            Some(Part::Put(put)) => put.item,
            _ => Item::new(),
        };
        stored.retain(|name, _| is_limit_attribute(name));
        let owed = self.owed.into_iter().map(|(kind, pending)| Owed {
            kind,
            target: self.change.target.clone(),
            pending,
            stored: Some(stored.clone()),
        });
        owed.collect()
    }
}

impl Outcome<'_> {
    /// These changes of a batch are not made, and none after it.
    fn over(&mut self, changes: usize, why: &'static str) {
        (self.over, self.is_gone) = (Some((why, changes)), why == DELETED);
    }

    /// The settings that are done.
    pub(super) fn settings_done(&self) -> Vec<Setting> {
        self.settings
            .iter()
            .map(|change| change.setting.clone())
            .collect()
    }

    /// The table has failed, so that these changes are not tried.
    pub(super) fn not_tried(&mut self, count: usize, reason: &str) {
        self.has_failed = true;
        if count > 0 {
            self.errors.push(format!(
                "{count} further change(s) were not tried, since the table failed before: {reason}"
            ));
        }
    }
}

/// Whether a limit was soft and is not any more.
fn ceases_to_be_soft(before: &LevelState, after: &LevelState) -> bool {
    let is_soft = |name: &LimitName| {
        after
            .limits
            .iter()
            .any(|limit| limit.name() == name && limit.is_soft())
    };
    let mut soft = before.limits.iter().filter(|limit| limit.is_soft());
    soft.any(|limit| !is_soft(limit.name()))
}

impl Run<'_> {
    /// Makes all changes, those of `settings` last. `stored` and `pending` are what was read of levels and of work that
    /// others owe.
    pub(super) async fn write<'c>(
        &self,
        changes: &'c [Change],
        settings: &'c settings::Seen,
        stored: &BTreeMap<Key, Item>,
        pending: &[Pending],
    ) -> Outcome<'c> {
        let mut outcome = Outcome::default();
        let owed: BTreeMap<(Kind, Target), Pending> = pending
            .iter()
            .filter_map(|pending| Some((pending.work()?, pending.clone())))
            .collect();
        let (mut rest, settings_left) = (changes, settings.plan.changes.len());
        while let Some(first) = rest.first() {
            match self.admin.has_turn(&self.turn).await {
                Ok(true) => {}
                Ok(false) => {
                    self.lost_turn(0, &mut outcome).await;
                    break;
                }
                Err(err) => {
                    outcome.not_tried(rest.len() + settings_left, &err.to_string());
                    break;
                }
            }
            // A registry cannot gain and lose in one write.
            let mut parts = 0;
            let fits = |change: &&Change| {
                // Record, event, and what is owed.
                parts += 2 + self.kinds(change, change.old.as_ref(), true).len();
                parts <= PARTS_AT_ONCE && change.new.is_none() == first.new.is_none()
            };
            let alike = rest.iter().take(LEVELS_AT_ONCE).take_while(fits).count().max(1);
            let (some, others) = rest.split_at(alike);
            rest = others;
            let steps = self.commit(some, stored, &owed, &mut outcome).await;
            let owed_now = steps.into_iter().flat_map(Step::owed).collect();
            let (told, errors) = self.tell_all(owed_now).await;
            outcome.told.extend(told);
            outcome.errors.extend(errors);
            if outcome.over.is_some() {
                break;
            }
            if let Some(reason) = outcome.stopped.take() {
                outcome.not_tried(rest.len() + settings_left, &reason);
                break;
            }
        }
        let mut left = rest.len() + settings_left;
        if outcome.over.is_none() && !outcome.has_failed {
            self.write_settings(settings, &mut outcome).await;
            left = 0;
        }
        if let Some((why, changes)) = outcome.over {
            let count = changes + left;
            outcome
                .errors
                .push(format!("{count} change(s) were not made: {why}"));
        }
        outcome
    }

    /// The mark is not this apply's any more, so that these changes are not made.
    pub(super) async fn lost_turn(&self, changes: usize, outcome: &mut Outcome<'_>) {
        // A purge deletes the mark, too.
        if matches!(self.admin.is_gone().await, Ok(true)) {
            outcome.over(changes, DELETED);
        } else {
            outcome.over(changes, SUPERSEDED);
        }
    }

    /// Sends a transaction, if the namespace still has its name; `None` if it is deleted.
    pub(super) async fn transact(&self, mut parts: Vec<Part>) -> Result<Option<Transacted>, Error> {
        let inner = &self.admin.inner;
        parts.push(is_named(&inner.namespace_name, &inner.namespace));
        let sent = self.admin.transact(parts).await?;
        let is_gone = match &sent {
            Transacted::Cancelled(reasons) => matches!(reasons.last(), Some(Cancelled::Refused(_))),
            Transacted::Applied => false,
        };
        Ok((!is_gone).then_some(sent))
    }

    /// Changes some levels; returns those that are changed.
    async fn commit<'c>(
        &self,
        changes: &'c [Change],
        stored: &BTreeMap<Key, Item>,
        owed: &BTreeMap<(Kind, Target), Pending>,
        outcome: &mut Outcome<'c>,
    ) -> Vec<Step<'c>> {
        let mut steps = Vec::with_capacity(changes.len());
        let mut alone = Vec::new();
        for change in changes {
            let old = stored.get(&change.target.key(&self.admin.inner.namespace));
            match self.prepare(change, old, owed).await {
                Ok(Some(step)) => steps.push(step),
                Ok(None) => outcome.done.push(change),
                Err(err) => outcome.errors.push(failed(change, &err)),
            }
        }
        if !steps.is_empty() {
            let counts = self
                .admin
                .counts(steps.iter().filter_map(|step| step.count.clone()));
            let parts = steps.iter().flat_map(|step| step.parts.clone()).chain(counts);
            match self.transact(parts.collect()).await {
                Ok(Some(Transacted::Applied)) => {}
                Ok(None) => outcome.over(std::mem::take(&mut steps).len(), DELETED),
                // One of them has changed since it was read: write each by itself, from its current state.
                Ok(Some(Transacted::Cancelled(_))) => alone = std::mem::take(&mut steps),
                // One that the table refuses must not keep the others from it.
                Err(Error::Unavailable(err)) if !err.is_retryable() => alone = std::mem::take(&mut steps),
                Err(err) => {
                    for step in std::mem::take(&mut steps) {
                        outcome.errors.push(failed(step.change, &err));
                    }
                    outcome.stopped = Some(err.to_string());
                }
            }
        }
        // Perhaps it was another apply that has changed it.
        if !alone.is_empty() && matches!(self.admin.has_turn(&self.turn).await, Ok(false)) {
            self.lost_turn(alone.len(), outcome).await;
            alone.clear();
        }
        for step in alone {
            match self.commit_alone(step.change).await {
                Ok(Some(step)) => steps.push(step),
                Ok(None) => outcome.done.push(step.change),
                Err(err) => {
                    outcome.is_gone |= matches!(err, Error::NamespaceNotFound(_));
                    outcome.errors.push(failed(step.change, &err));
                }
            }
        }
        for step in &steps {
            outcome.done.push(step.change);
            self.admin
                .inner
                .config
                .forget(&step.change.target.key(&self.admin.inner.namespace));
            if step.change.target == Target::System {
                let policy = step.change.new.as_ref().and_then(|new| new.on_unavailable);
                self.admin.inner.remember_policy(policy);
            }
        }
        steps
    }

    /// Changes one level as it is now; `None` if it is as it should be already.
    async fn commit_alone<'c>(&self, change: &'c Change) -> Result<Option<Step<'c>>, Error> {
        let inner = &self.admin.inner;
        let key = change.target.key(&inner.namespace);
        let key_of_work = |kind| pending_key(&inner.namespace, kind, &change.target);
        for _ in 0..MAX_RACES {
            let old = self.admin.read(&key).await?;
            let declared = |old: &Item| change.new.as_ref().is_some_and(|new| new.is_stored(old));
            if !self.rewrite && old.as_ref().is_some_and(declared) {
                return Ok(None);
            }
            let mut owed = BTreeMap::new();
            for kind in Kind::ALL {
                let found = self.admin.read(&key_of_work(kind)).await?;
                let found = found.and_then(Pending::decode);
                owed.extend(found.map(|found| ((kind, change.target.clone()), found)));
            }
            let Some(step) = self.prepare(change, old.as_ref(), &owed).await? else {
                return Ok(None);
            };
            let mut parts = step.parts.clone();
            parts.extend(self.admin.counts(step.count.clone()));
            match self.transact(parts).await? {
                Some(Transacted::Applied) => return Ok(Some(step)),
                Some(Transacted::Cancelled(_)) => {}
                None => return Err(Error::NamespaceNotFound(inner.namespace_name.to_string())),
            }
        }
        Err(inner.place.contended(&key))
    }

    /// What live buckets must take over when a level is changed from what was stored.
    fn kinds(&self, change: &Change, before: Option<&LevelState>, limits_change: bool) -> Vec<Kind> {
        let nothing = LevelState::default();
        let before = before.unwrap_or(&nothing);
        let after = change.new.as_ref().unwrap_or(&nothing);
        let differs = |kind: &Kind| match kind {
            Kind::Sync => matches!(change.target, Target::Entity(..)) && (limits_change || self.rewrite),
            Kind::Disabled => before.access != after.access || self.rewrite && after.access.is_some(),
            Kind::Cascade => before.cascade != after.cascade || self.rewrite && after.cascade.is_some(),
            Kind::Soft => !matches!(change.target, Target::Entity(..)) && ceases_to_be_soft(before, after),
        };
        Kind::ALL.into_iter().filter(differs).collect()
    }

    /// The writes of one change; `None` if there is nothing to do.
    async fn prepare<'c>(
        &self,
        change: &'c Change,
        old: Option<&Item>,
        owed: &BTreeMap<(Kind, Target), Pending>,
    ) -> Result<Option<Step<'c>>, Error> {
        let (admin, target) = (self.admin, &change.target);
        let namespace = &admin.inner.namespace;
        let record = LevelRecord::of(namespace, target);
        let prepared = match &change.new {
            Some(new) => {
                let mut attributes = level_attributes(target, &new.limits, new.on_unavailable);
                attributes.extend(flags::attributes(target, new));
                record.write(namespace, old, &attributes)?
            }
            None => match flags::erase(&record, target, old)? {
                Some(prepared) => prepared,
                None => return Ok(None),
            },
        };
        let mut parts = vec![prepared.part];
        let mut work = Vec::new();
        if prepared.changes {
            let before = old.map(LevelState::of);
            let limits_change = match (&change.new, old, &before) {
                (Some(new), Some(item), Some(before)) => !new.with_flags_of(before).is_stored(item),
                _ => true,
            };
            let kinds = self.kinds(change, before.as_ref(), limits_change);
            let event = if let Some(new) = &change.new {
                let mut event = set_event(target, &new.limits, new.on_unavailable);
                let flags = flags::attributes(target, new).into_iter();
                let changed = flags.filter(|(name, _)| kinds.iter().any(|kind| kind.as_str() == name));
                event
                    .details
                    .extend(changed.map(|(name, value)| (name.to_string(), value)));
                event
            } else {
                let old = old.and_then(|old| Config::decode(old).ok());
                deleted_event(target, &old.unwrap_or_default())
            };
            parts.push(Part::Put(admin.event_put(event, self.retention).await));
            for kind in kinds {
                let stale = match kind {
                    Kind::Sync => stale_names(old, change.new.as_ref().map_or(&[], |new| &new.limits)),
                    Kind::Disabled | Kind::Cascade | Kind::Soft => Vec::new(),
                };
                let now = admin.inner.clock.now();
                let found = owed.get(&(kind, target.clone()));
                let put: Put = owe(namespace, (kind, target), &self.share, &stale, found, now);
                work.extend(Pending::decode(put.item.clone()).map(|pending| (kind, pending)));
                parts.push(Part::Put(put));
            }
        }
        Ok(Some(Step {
            change,
            parts,
            count: prepared.count,
            owed: work,
        }))
    }
}

/// The line for a change that failed.
fn failed(change: &Change, err: &dyn std::fmt::Display) -> String {
    let target = change
        .target
        .name()
        .map_or_else(String::new, |name| format!(" {name}"));
    format!("{} {}{target}: {err}", change.action, change.target.level())
}
