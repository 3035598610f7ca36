//! Declared limits: manifests, planned and applied.
//!
//! An apply makes the declared levels what the manifest says, deletes those that an earlier apply managed and that are
//! no longer declared, and leaves everything else alone. It may be stopped at any point; the next one finishes it:
//!
//! 1. What is declared is added to the record of managed levels (`state`), so that nothing is ever written unmanaged.
//! 2. Levels are changed some thirty at a time, each with its registry, its event, and, where live buckets must be
//!    told, a record that says so, in one transaction (`write`).
//! 3. The buckets are told, from what is stored then, and the record goes (`owed`).
//! 4. What is deleted for sure leaves the record of managed levels.
//!
//! The rules of manifests and plans are in [`zae_limiter_core::manifest`].

mod owed;
mod state;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join;
use serde_json::{Value as Json, json};
use zae_limiter_core::manifest::pending::{LEASE_MARGIN_MS, LONGEST_RUN_MS, Pending, Share};
use zae_limiter_core::manifest::{Change, Managed, Manifest, Plan, Target, plan};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Item, Key};
use zae_limiter_core::{EntityId, InvalidInput, ResourceName, ResourceScope};

use crate::error::Error;
use crate::levels::holds_level;
use crate::repository::Repository;
use crate::retry::LONG;
use crate::table::TableExt as _;

use owed::Owed;
use state::Record;

/// How a manifest is planned and applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Write every declared level, whether it differs or not, and tell all its live buckets. Repairs what a plan does
    /// not compare: registries, indexes, and buckets.
    pub full: bool,
    /// After how long this process is certainly gone, such as the timeout of a function. Until then, and a minute
    /// longer, other applies count the buckets that it has still to tell as its own. Default: 15 minutes.
    pub remaining: Option<Duration>,
}

/// What an apply would change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitsPlan {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// How many declared levels are stored as declared.
    pub unchanged: usize,
    /// Whether every declared level was asked for.
    pub full: bool,
    /// Whether such an apply was interrupted before, so that this one goes on with it instead of beginning again.
    pub resumed: bool,
    /// How many levels have live buckets that are still to be told.
    pub pending: usize,
}

/// What an apply has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitsApplied {
    /// The changes, in order, those that failed included.
    pub changes: Vec<Change>,
    /// How many levels were created.
    pub created: usize,
    /// How many were updated.
    pub updated: usize,
    /// How many were deleted.
    pub deleted: usize,
    /// How many were stored as declared.
    pub unchanged: usize,
    /// As in the plan.
    pub full: bool,
    /// As in the plan.
    pub resumed: bool,
    /// How many levels have live buckets that are still to be told, by failures of this apply or by another one.
    pub pending: usize,
    /// What failed, each in a line; applied again, it is tried again.
    pub errors: Vec<String>,
}

impl LimitsPlan {
    /// As the provisioner answers it.
    pub fn to_json(&self) -> Json {
        json!({
            "status": "planned",
            "changes": changes_json(&self.changes),
            "unchanged": self.unchanged,
            "full": self.full,
            "resumed": self.resumed,
            "pending": self.pending,
        })
    }
}

/// How many changes an answer shows with what was and what will be; more would not fit a function's answer.
const SHOWN_IN_FULL: usize = 1000;

fn changes_json(changes: &[Change]) -> Json {
    let json = if changes.len() <= SHOWN_IN_FULL {
        Change::to_full_json
    } else {
        Change::to_json
    };
    changes.iter().map(json).collect()
}

impl LimitsApplied {
    /// As the provisioner answers it.
    pub fn to_json(&self) -> Json {
        json!({
            "status": "applied",
            "changes": changes_json(&self.changes),
            "created": self.created,
            "updated": self.updated,
            "deleted": self.deleted,
            "unchanged": self.unchanged,
            "full": self.full,
            "resumed": self.resumed,
            "pending": self.pending,
            "errors": self.errors,
        })
    }
}

/// All that a plan is made from, as read.
struct Seen {
    record: Record,
    pending: Vec<Pending>,
    stored: BTreeMap<Key, Item>,
    plan: Plan,
    resumed: bool,
}

/// What one apply has at hand.
struct Run<'a> {
    repo: &'a Repository,
    share: Share,
    /// Days that events are kept.
    retention: i64,
    /// Whether levels that are stored as declared are written all the same.
    rewrite: bool,
}

impl Repository {
    /// What applying a manifest would change. Reads, and writes nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use zae_limiter::core::manifest::Manifest;
    /// use zae_limiter::{ApplyOptions, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let manifest = Manifest::from_json(&serde_json::json!({
    ///     "namespace": "default",
    ///     "resources": { "gpt-4": { "limits": { "rpm": { "capacity": 500 } } } },
    /// }))?;
    /// let plan = repo.plan_limits(&manifest, ApplyOptions::default()).await?;
    /// assert_eq!(plan.changes[0].target.to_string(), "gpt-4");
    ///
    /// let applied = repo.apply_limits(&manifest, ApplyOptions::default()).await?;
    /// assert_eq!((applied.created, applied.errors.len()), (1, 0));
    /// assert!(repo.plan_limits(&manifest, ApplyOptions::default()).await?.changes.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the manifest is for another namespace.
    pub async fn plan_limits(&self, manifest: &Manifest, options: ApplyOptions) -> Result<LimitsPlan, Error> {
        self.check_namespace(manifest)?;
        let seen = self.look(manifest, options).await?;
        Ok(LimitsPlan {
            changes: seen.plan.changes,
            unchanged: seen.plan.unchanged,
            full: options.full,
            resumed: seen.resumed,
            pending: seen.pending.len(),
        })
    }

    /// Makes the declared levels what the manifest says, and deletes those that an earlier apply managed and that are
    /// no longer declared. Live buckets are told as by single calls.
    ///
    /// A level that cannot be changed does not keep the others from it: see [`LimitsApplied::errors`]. May be
    /// interrupted at any time and called again. Applies may run at the same time; of two that declare the same level,
    /// the later write wins.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written: the manifest is for another namespace, or declares more
    /// levels than the record of managed levels can hold. [`Error::Unavailable`] and the like if that record cannot be
    /// read or written.
    pub async fn apply_limits(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
    ) -> Result<LimitsApplied, Error> {
        self.check_namespace(manifest)?;
        let mut seen = self.look(manifest, options).await?;
        let now = self.inner.clock.now();
        let run_ms = options
            .remaining
            .and_then(|left| i64::try_from(left.as_millis()).ok())
            .filter(|left| *left > 0)
            .unwrap_or(LONGEST_RUN_MS);
        let run = Run {
            repo: self,
            share: Share {
                token: format!("{:032x}", fastrand::u128(..)),
                lease: Some(now.0.saturating_add(run_ms).saturating_add(LEASE_MARGIN_MS)),
                full: options.full,
            },
            retention: self.audit_retention_days().await?,
            rewrite: options.full && !seen.resumed,
        };
        let declared = Managed::of(manifest);
        seen.record = self.write_ahead(seen.record, &declared, manifest).await?;
        let outcome = run.write(&seen.plan.changes, &seen.stored, &seen.pending).await;
        let mut applied = LimitsApplied {
            unchanged: seen.plan.unchanged,
            full: options.full,
            resumed: seen.resumed,
            errors: outcome.errors,
            ..LimitsApplied::default()
        };
        for change in &outcome.done {
            *match change.action {
                plan::Action::Create => &mut applied.created,
                plan::Action::Update => &mut applied.updated,
                plan::Action::Delete => &mut applied.deleted,
            } += 1;
        }
        let told: BTreeSet<&Target> = outcome.told.iter().collect();
        let left = seen.pending.into_iter().filter_map(|pending| {
            let target = pending.target().filter(|target| !told.contains(target))?;
            Some(Owed {
                target,
                pending,
                stored: None,
            })
        });
        applied.errors.extend(run.tell_all(left.collect()).await.1);
        // Also what an apply that was killed has left: until the record is written, its deletions are planned again.
        if seen.plan.changes.iter().any(|change| change.new.is_none())
            && let Err(error) = self.tidy_counts().await
        {
            tracing::warn!(%error, "counts that have come to nothing stay in the registry");
        }
        let deleted = outcome.done.iter().filter(|change| change.new.is_none());
        let deleted: Vec<Target> = deleted.map(|change| change.target.clone()).collect();
        self.write_final(seen.record, &declared, &deleted, manifest)
            .await?;
        applied.pending = run.count_pending().await?;
        applied.changes = seen.plan.changes;
        Ok(applied)
    }

    /// The levels that hold something, are not managed and would not be by this manifest: those made by hand, as far
    /// as the registries list them.
    pub async fn hand_made_limits(&self, manifest: &Manifest) -> Result<Vec<Target>, Error> {
        self.check_namespace(manifest)?;
        let mut known = self.managed().await?.managed;
        known.add(&Managed::of(manifest));
        let mut found = Vec::new();
        let system = self.read(&Target::System.key(&self.inner.namespace)).await?;
        if system.is_some_and(|item| holds_level(&item)) {
            found.push(Target::System);
        }
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
        Ok(found)
    }

    fn check_namespace(&self, manifest: &Manifest) -> Result<(), InvalidInput> {
        let own = self.namespace_name();
        if manifest.namespace == own {
            return Ok(());
        }
        let reason = format!("is not the namespace that is open, which is '{own}'");
        Err(InvalidInput::new("namespace", &manifest.namespace, reason))
    }

    /// Reads what is managed, owed and stored, and compares.
    async fn look(&self, manifest: &Manifest, options: ApplyOptions) -> Result<Seen, Error> {
        let inner = &self.inner;
        let (record, pending) = try_join(self.managed(), self.pending()).await?;
        let keys = plan::keys(&inner.namespace, manifest, &record.managed);
        let mut stored = BTreeMap::new();
        // In parts, so that a repetition after a failure is none of all.
        for keys in keys.chunks(1000) {
            let read = || inner.table.batch_get(keys.to_vec(), true);
            for item in inner.place.insisting(LONG, read).await? {
                stored.extend(key_of(&item).map(|key| (key, item)));
            }
        }
        let now = inner.clock.now();
        let resumed = options.full && pending.iter().any(|pending| pending.is_left_by_full(now));
        let all = options.full && !resumed;
        let plan = plan::plan(&inner.namespace, manifest, &record.managed, &stored, all);
        Ok(Seen {
            record,
            pending,
            stored,
            plan,
            resumed,
        })
    }
}
