//! Declared limits: manifests, planned and applied.
//!
//! An apply stores the declared levels, and deletes levels that an earlier apply managed and that are no longer
//! declared. It does not change other levels. It can be stopped at any point, and the next apply finishes it:
//!
//! 1. The levels that will be created are added to the record of managed levels (`state`), so that no level that an
//!    apply creates stays unmanaged. An existing level that was set by hand is added once it is stored as declared.
//! 2. Levels are changed some thirty at a time, each with its registry, its event and, if live buckets must be
//!    updated, a record of that, in one transaction (`write`).
//! 3. The buckets are updated from the stored level, and the record is deleted (`owed`).
//! 4. Concurrency limits and the cascade depth are changed (`settings`). They have a record of their own of what is managed.
//! 5. Levels and settings that are certainly deleted leave the records of what is managed.
//!
//! The rules of manifests and plans are in [`zae_limiter_core::manifest`].

mod answer;
mod flags;
mod owed;
mod settings;
mod state;
mod turn;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join3;
use zae_limiter_core::config::Access;
use zae_limiter_core::manifest::pending::{Kind, LEASE_MARGIN_MS, LONGEST_RUN_MS, Pending, Share};
use zae_limiter_core::manifest::{Change, LevelState, Managed, Manifest, Plan, Target, plan};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Item, Key};
use zae_limiter_core::version::{Gate, Gated};
use zae_limiter_core::{EntityId, EpochMillis, InvalidInput, ResourceName, ResourceScope};

use crate::admin::Admin;
use crate::admin::levels::holds_level;
use crate::admin::retry::LONG;
use crate::error::Error;
use crate::table::TableExt as _;

pub use answer::{LimitsApplied, LimitsPlan};
use owed::Owed;
use state::Record;
use turn::Turn;

/// How a manifest is planned and applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Write every declared level, whether it differs or not, and update all live buckets of entities' levels. Repairs
    /// what a plan does not compare: indexes, levels missing from a registry, and those buckets. If it is interrupted,
    /// the next one begins again.
    pub full: bool,
    /// After how long this process is certainly gone, such as the timeout of a function. Until then, and a minute
    /// longer, other applies count the buckets that it has still to update as its own. Default: 15 minutes.
    pub remaining: Option<Duration>,
}

/// All that a plan is made from, as read.
#[derive(Debug)]
struct Seen {
    record: Record,
    pending: Vec<Pending>,
    stored: BTreeMap<Key, Item>,
    plan: Plan,
    settings: settings::Seen,
}

/// Adds the changes of what no change is listed of yet.
fn add_new<T, K: PartialEq>(listed: &mut Vec<T>, more: Vec<T>, key: impl Fn(&T) -> &K) {
    for change in more {
        if listed.iter().all(|other| key(other) != key(&change)) {
            listed.push(change);
        }
    }
}

/// The strictest gate of what is added to levels.
fn gate(changes: &[Change]) -> Option<Gate> {
    let nothing = LevelState::default();
    let gates = changes.iter().flat_map(|change| {
        let (old, new) = (change.old.as_ref().unwrap_or(&nothing), change.new.as_ref());
        let new = new.unwrap_or(&nothing);
        let bypasses = new.access == Some(Access::Bypass) && old.access != new.access;
        let cascades = new.cascade.is_some() && old.cascade != new.cascade;
        [
            Gate::of(&new.limits, &old.limits),
            bypasses.then(|| Gate::of_part(Gated::Bypass)),
            cascades.then(|| Gate::of_part(Gated::CascadePolicy)),
        ]
    });
    gates.flatten().reduce(Gate::and)
}

/// How many levels' buckets are left to others.
fn of_others(pending: &[Pending], now: EpochMillis) -> usize {
    pending.iter().filter(|pending| pending.is_of_others(now)).count()
}

/// An apply whose levels are listed as managed, and that has not changed any yet. See [`Admin::begin_limits`].
#[derive(Debug)]
#[must_use = "nothing is changed until it is finished"]
pub struct BegunApply<'a> {
    admin: Admin,
    manifest: &'a Manifest,
    options: ApplyOptions,
    turn: Turn,
    seen: Seen,
}

/// The state of one apply.
struct Run<'a> {
    admin: &'a Admin,
    turn: Turn,
    share: Share,
    /// Days that events are kept.
    retention: i64,
    /// Whether levels that are stored as declared are written, too.
    rewrite: bool,
}

impl Admin {
    /// Returns the changes that applying a manifest would make. Only reads.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use zae_limiter::manifest::Manifest;
    /// use zae_limiter::{ApplyOptions, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let manifest = Manifest::from_json(&serde_json::json!({
    ///     "namespace": "default",
    ///     "resources": { "gpt-4": { "limits": { "rpm": { "capacity": 500 } } } },
    /// }))?;
    /// let plan = repo.admin().plan_limits(&manifest, ApplyOptions::default()).await?;
    /// assert_eq!(plan.changes[0].target.to_string(), "gpt-4");
    ///
    /// let applied = repo.admin().apply_limits(&manifest, ApplyOptions::default()).await?;
    /// assert_eq!((applied.created, applied.errors.len()), (1, 0));
    /// assert!(repo.admin().plan_limits(&manifest, ApplyOptions::default()).await?.changes.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if an apply would refuse the manifest. [`Error::VersionMismatch`] if the table's functions do
    /// not honour limits that it adds.
    pub async fn plan_limits(&self, manifest: &Manifest, options: ApplyOptions) -> Result<LimitsPlan, Error> {
        self.check_namespace(manifest)?;
        let seen = self.look(manifest, options, None).await?;
        self.check_size(&seen.record, manifest)?;
        self.check_settings_fit(&seen.settings, manifest)?;
        if let Some(gate) = gate(&seen.plan.changes) {
            self.check_passable(&gate).await?;
        }
        let settings = seen.settings.plan;
        Ok(LimitsPlan {
            unchanged: seen.plan.unchanged + settings.unchanged,
            adopted: seen.plan.adopted + settings.adopted,
            settings: settings.changes,
            full: options.full,
            pending: seen.pending.len(),
            of_others: of_others(&seen.pending, self.inner.clock.now()),
            changes: seen.plan.changes,
        })
    }

    /// Stores the declared levels, and deletes levels that an earlier apply managed and that are no longer declared.
    /// Live buckets are updated as by single calls. Declared concurrency limits and the cascade depth are changed after the levels.
    ///
    /// A level that cannot be changed does not keep the others from it: see [`LimitsApplied::errors`]. May be
    /// interrupted at any time and called again. Of two applies at the same time the one that began last is finished; the
    /// other stops at its next write, and reports what it did not change.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written: the manifest is for another namespace, or declares more
    /// levels than the record of managed levels can hold. [`Error::VersionMismatch`]: the table's functions do not honour
    /// limits that it adds. [`Error::Unavailable`] and the like if that record cannot be
    /// read, or not be written before the first change.
    pub async fn apply_limits(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
    ) -> Result<LimitsApplied, Error> {
        self.begin_limits(manifest, options).await?.finish().await
    }

    /// The first half of [`apply_limits`](Self::apply_limits): reads, compares, and lists as managed what will be
    /// created. Up to here no limit has changed.
    ///
    /// # Errors
    /// As those of [`apply_limits`](Self::apply_limits).
    pub async fn begin_limits<'a>(
        &self,
        manifest: &'a Manifest,
        options: ApplyOptions,
    ) -> Result<BegunApply<'a>, Error> {
        self.check_namespace(manifest)?;
        let turn = self.take_turn().await?;
        let begun = self.begun_in(turn.clone(), manifest, options).await;
        if begun.is_err() {
            self.end_turn(&turn).await;
        }
        begun
    }

    async fn begun_in<'a>(
        &self,
        turn: Turn,
        manifest: &'a Manifest,
        options: ApplyOptions,
    ) -> Result<BegunApply<'a>, Error> {
        let mut seen = self.look(manifest, options, None).await?;
        if let Some(gate) = gate(&seen.plan.changes) {
            self.pass(&gate).await?;
        }
        self.check_settings_fit(&seen.settings, manifest)?;
        let created = seen.plan.changes.iter().filter(|change| change.creates());
        let created = Managed::of_targets(created.map(|change| &change.target));
        seen.record = self.write_ahead(seen.record, &created, manifest).await?;
        self.list_settings_ahead(&mut seen.settings).await?;
        Ok(BegunApply {
            admin: self.clone(),
            manifest,
            options,
            turn,
            seen,
        })
    }

    /// Deletes the levels that a manifest declares, as far as they are managed: undoes an apply that did not come to
    /// its end, where deleting all that is managed would take what other applies made.
    ///
    /// # Errors
    /// As those of [`apply_limits`](Self::apply_limits).
    pub async fn withdraw_limits(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
    ) -> Result<LimitsApplied, Error> {
        self.check_namespace(manifest)?;
        let none = Manifest::empty(manifest.namespace.clone());
        let turn = self.take_turn().await?;
        let done = async {
            let seen = self.look(&none, options, Some(manifest)).await?;
            let begun = BegunApply {
                admin: self.clone(),
                manifest: &none,
                options,
                turn: turn.clone(),
                seen,
            };
            begun.write().await
        };
        let done = done.await;
        self.end_turn(&turn).await;
        done
    }

    /// The levels that hold something, are not managed and would not be by this manifest: those made by hand, as far
    /// as the registries list them.
    pub async fn hand_made_limits(&self, manifest: &Manifest) -> Result<Vec<Target>, Error> {
        self.check_namespace(manifest)?;
        let mut known = self.managed().await?.managed;
        known.add(&Managed::of(manifest));
        let mut found = vec![Target::System];
        let resources = self.resources_with_defaults().await?;
        found.extend(resources.iter().flat_map(ResourceName::new).map(Target::Resource));
        let mut entities: Vec<(EntityId, ResourceScope)> = Vec::new();
        for name in self.resources_with_entity_limits().await?.into_keys() {
            let Ok(scope) = ResourceScope::new(&name) else {
                continue;
            };
            let ids = self.entities_with_limits(&name)?.all().await?;
            entities.extend(ids.into_iter().map(|id| (id, scope.clone())));
        }
        entities.sort_by(|a, b| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
        found.extend(entities.into_iter().map(|(id, scope)| Target::Entity(id, scope)));
        found.retain(|target| !known.contains(target));
        // What has lost its limits and keeps a flag stays listed.
        let keys: Vec<Key> = found
            .iter()
            .map(|target| target.key(&self.inner.namespace))
            .collect();
        let mut holding = BTreeSet::new();
        for item in self.read_all(&keys).await? {
            holding.extend(key_of(&item).filter(|_| holds_level(&item)));
        }
        found.retain(|target| holding.contains(&target.key(&self.inner.namespace)));
        Ok(found)
    }

    /// Reads the latest state of many items, in parts, so that a retry after a failure does not repeat all.
    pub(crate) async fn read_all(&self, keys: &[Key]) -> Result<Vec<Item>, Error> {
        let inner = &self.inner;
        let mut items = Vec::with_capacity(keys.len());
        for keys in keys.chunks(1000) {
            let read = || inner.table.batch_get(keys.to_vec(), true);
            items.extend(inner.place.insisting(LONG, read).await?);
        }
        Ok(items)
    }

    fn check_namespace(&self, manifest: &Manifest) -> Result<(), InvalidInput> {
        let own = self.inner.namespace_name.as_str();
        if manifest.namespace == own {
            return Ok(());
        }
        let reason = format!("is not the namespace that is open, which is '{own}'");
        Err(InvalidInput::new("namespace", &manifest.namespace, reason))
    }

    /// Reads what is managed, owed and stored, and compares; of what is managed, with what another manifest declares, if one
    /// is given.
    async fn look(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
        within: Option<&Manifest>,
    ) -> Result<Seen, Error> {
        let inner = &self.inner;
        let settings = self.look_at_settings(manifest, options, within.map(|within| &within.settings));
        let (record, pending, settings) = try_join3(self.managed(), self.pending(), settings).await?;
        let mut managed = record.managed.clone();
        if let Some(within) = within.map(Managed::of) {
            let inside = managed.targets().into_iter();
            let inside: Vec<Target> = inside.filter(|target| within.contains(target)).collect();
            managed = Managed::of_targets(&inside);
        }
        let keys = plan::keys(&inner.namespace, manifest, &managed);
        let stored = self.read_all(&keys).await?;
        let stored = stored
            .into_iter()
            .filter_map(|item| Some((key_of(&item)?, item)))
            .collect();
        let plan = plan::plan(&inner.namespace, manifest, &managed, &stored, options.full);
        Ok(Seen {
            record,
            pending,
            stored,
            plan,
            settings,
        })
    }
}

impl BegunApply<'_> {
    /// The second half of [`Admin::apply_limits`]: makes the changes, and lists what is managed then.
    ///
    /// # Errors
    /// If the record of managed levels cannot be read. What fails else is in [`LimitsApplied::errors`].
    pub async fn finish(self) -> Result<LimitsApplied, Error> {
        let (admin, turn) = (self.admin.clone(), self.turn.clone());
        let finished = self.write_to_the_end().await;
        admin.end_turn(&turn).await;
        finished
    }

    /// Makes the changes; and once more, if another apply was at work when this one began: it may have been in the middle
    /// of a write.
    async fn write_to_the_end(self) -> Result<LimitsApplied, Error> {
        let (admin, manifest, turn) = (self.admin.clone(), self.manifest, self.turn.clone());
        let options = ApplyOptions {
            full: false,
            ..self.options
        };
        let mut applied = self.write().await?;
        if turn.is_contested && applied.errors.is_empty() {
            let rest = admin.begun_in(turn, manifest, options).await?.write().await?;
            applied.created += rest.created;
            applied.updated += rest.updated;
            applied.deleted += rest.deleted;
            applied.pending = rest.pending;
            applied.of_others = rest.of_others;
            applied.errors = rest.errors;
            add_new(&mut applied.changes, rest.changes, |change| &change.target);
            add_new(&mut applied.settings, rest.settings, |change| &change.setting);
        }
        Ok(applied)
    }

    async fn write(self) -> Result<LimitsApplied, Error> {
        let Self {
            admin,
            manifest,
            options,
            turn,
            seen,
        } = self;
        let now = admin.inner.clock.now();
        let run_ms = options
            .remaining
            .and_then(|left| i64::try_from(left.as_millis()).ok())
            .filter(|left| *left > 0)
            .unwrap_or(LONGEST_RUN_MS);
        let run = Run {
            admin: &admin,
            turn,
            share: Share {
                token: format!("{:032x}", fastrand::u128(..)),
                lease: Some(now.0.saturating_add(run_ms).saturating_add(LEASE_MARGIN_MS)),
                // Not all buckets are noted beforehand, so what is left behind is not all that is left to do.
                full: false,
            },
            retention: admin.audit_retention_days().await?,
            rewrite: options.full,
        };
        let outcome = run
            .write(&seen.plan.changes, &seen.settings, &seen.stored, &seen.pending)
            .await;
        let (settings, of_settings) = (&seen.settings.plan, outcome.settings_done());
        let mut applied = LimitsApplied {
            settings: settings.changes.clone(),
            unchanged: seen.plan.unchanged + settings.unchanged,
            adopted: seen.plan.adopted + settings.adopted,
            full: options.full,
            errors: outcome.errors,
            ..LimitsApplied::default()
        };
        let levels = outcome.done.iter().map(|change| change.action);
        applied.count(levels.chain(outcome.settings.iter().map(|change| change.action)));
        if outcome.is_gone {
            applied.changes = seen.plan.changes;
            return Ok(applied);
        }
        let told: BTreeSet<&(Kind, Target)> = outcome.told.iter().collect();
        let left = seen.pending.into_iter().filter_map(|pending| {
            let (kind, target) = pending.work().filter(|work| !told.contains(work))?;
            Some(Owed {
                kind,
                target,
                pending,
                stored: None,
            })
        });
        applied.errors.extend(run.tell_all(left.collect()).await.1);
        // Also what an apply that was killed has left: until the record is written, its deletions are planned again.
        if seen.plan.changes.iter().any(|change| change.new.is_none())
            && let Err(error) = admin.tidy_counts().await
        {
            tracing::warn!(%error, "counts that have come to nothing stay in the registry");
        }
        let done: BTreeSet<&Target> = outcome.done.iter().map(|change| &change.target).collect();
        let (mut declared, mut deleted) = (Managed::of(manifest), Vec::new());
        for change in &seen.plan.changes {
            match (done.contains(&change.target), &change.new) {
                (true, None) => deleted.push(change.target.clone()),
                // A level that was set by hand, and could not be replaced, stays unmanaged.
                (false, Some(_)) => declared.remove(&change.target),
                _ => {}
            }
        }
        let listed = run
            .list_changed_settings(seen.settings, manifest, &of_settings)
            .await;
        if let Err(err) = listed {
            applied.errors.push(format!(
                "the record of managed settings could not be written, so apply again: {err}"
            ));
        }
        let recorded = admin
            .write_final(seen.record, &declared, &deleted, manifest)
            .await;
        match recorded {
            Ok(()) => match run.leave().await {
                Ok(left) => {
                    applied.pending = left.len();
                    applied.of_others = of_others(&left, admin.inner.clock.now());
                }
                Err(err) => applied.errors.push(format!(
                    "whether live buckets are still to be updated could not be read, so apply again: {err}"
                )),
            },
            // The caller still learns which levels are changed.
            Err(err) => applied.errors.push(format!(
                "the record of managed levels could not be written, so apply again: {err}"
            )),
        }
        applied.changes = seen.plan.changes;
        Ok(applied)
    }
}
