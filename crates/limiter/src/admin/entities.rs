//! Entities: creating, reading and listing who spends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use zae_limiter_core::bucket::is_disputed;
use zae_limiter_core::entity::{Entity, MetaRecord, Metadata};
use zae_limiter_core::removal::delete_bucket;
use zae_limiter_core::schema::{BucketId, META, entity_pk, key_of, meta_key, parent_pk};
use zae_limiter_core::sync::{Drift, owner_pins, reconcile};
use zae_limiter_core::table::{Answer, Condition, Delete, Index, Item, Key, Op, Put, Query, Value};
use zae_limiter_core::{Bucket, EntityId, EpochMillis, IntoName, InvalidInput, ResourceScope};

use crate::admin::Admin;
use crate::admin::audit::Event;
use crate::admin::pages::Pages;
use crate::admin::retry::{BRIEF, LONG};
use crate::admin::sweep::{IN_FLIGHT, Progress, Sweep};
use crate::error::Error;
use crate::table::TableExt;

/// How many entities are deleted together with the one above them.
const MAX_BELOW: usize = 10_000;

/// How often buckets of a deleted entity are looked for again.
const MAX_ROUNDS: u32 = 8;

/// An entity about to be created.
///
/// ```
/// use zae_limiter::NewEntity;
///
/// let key = NewEntity::new("key-1").name("Build bot").parent("proj-1").cascade(true);
/// ```
#[derive(Debug, Clone)]
#[must_use = "describes an entity; pass it to `create_entity`"]
pub struct NewEntity {
    id: Result<EntityId, InvalidInput>,
    name: Option<String>,
    parent: Option<Result<EntityId, InvalidInput>>,
    cascade: bool,
    metadata: Metadata,
}

impl NewEntity {
    /// An entity of this id, without a parent.
    pub fn new(id: impl IntoName<EntityId>) -> Self {
        Self {
            id: id.into_name(),
            name: None,
            parent: None,
            cascade: false,
            metadata: Metadata::new(),
        }
    }

    /// A name for people. Default: the id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The entity whose limits it shares. It need not exist yet.
    pub fn parent(mut self, parent: impl IntoName<EntityId>) -> Self {
        self.parent = Some(parent.into_name().map_err(|err| err.in_field("parent_id")));
        self
    }

    /// Whether what it spends is debited from its parent too. Default: no.
    ///
    /// What the parent says for itself matters once the [cascade depth](crate::Admin::set_cascade_depth) is above 2.
    pub fn cascade(mut self, cascade: bool) -> Self {
        self.cascade = cascade;
        self
    }

    /// A free-form fact about it.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), Value::S(value.into()));
        self
    }
}

impl Admin {
    /// Creates an entity.
    ///
    /// Buckets that it spent from before it was created are stamped with its parent if it cascades, so that every
    /// process debits the parent from then on. If only that or the audit event fails, the call succeeds and the
    /// failure is logged. An entity that exists keeps its parent: to move it, delete it first.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, NewEntity, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let new = || NewEntity::new("key-1").name("Build bot").parent("project").cascade(true).metadata("owner", "ci");
    /// let key = repo.admin().create_entity(new()).await?;
    /// assert_eq!((key.id.as_str(), key.name.as_str(), key.cascade), ("key-1", "Build bot", true));
    ///
    /// // A start that runs more than once accepts that the entity exists.
    /// match repo.admin().create_entity(new()).await {
    ///     Ok(_) | Err(Error::EntityExists(_)) => {}
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::EntityExists`]; [`Error::InvalidInput`] for a bad id, or a cascade without a parent.
    pub async fn create_entity(&self, new: NewEntity) -> Result<Entity, Error> {
        let inner = &self.inner;
        let id = new.id?;
        let parent = new.parent.transpose()?;
        if parent.as_ref() == Some(&id) {
            return Err(InvalidInput::of_request("parent_id", &id, "is the entity itself").into());
        }
        if new.cascade && parent.is_none() {
            return Err(InvalidInput::of_request("cascade", "true", "needs a parent to cascade to").into());
        }
        let now = inner.clock.now();
        let meta = MetaRecord::new(
            Entity {
                name: new.name.unwrap_or_else(|| id.to_string()),
                id,
                parent,
                cascade: new.cascade,
                metadata: new.metadata,
                // As it is stored.
                created_at: Some(EpochMillis(now.secs().saturating_mul(1000)).into()),
            },
            Some(now.0),
            Some(format!("{:016x}", fastrand::u64(..)).into()),
        );
        let put = Put {
            item: meta.encode(&inner.namespace),
            condition: Condition::Absent("PK".into()),
        };
        let written = inner.place.retrying(|| inner.table.put(put.clone())).await?;
        if !written.is_applied() {
            return Err(Error::EntityExists(meta.entity.id.to_string()));
        }
        inner.config.forget(&meta_key(&inner.namespace, &meta.entity.id));
        let Entity {
            id,
            name,
            parent,
            cascade,
            metadata,
            ..
        } = meta.entity.clone();
        let parent = parent.map_or(Value::Null, |parent| Value::text(parent.as_str()));
        let details = Item::from([
            ("name".into(), Value::S(name)),
            ("parent_id".into(), parent),
            ("cascade".into(), Value::Bool(cascade)),
            ("metadata".into(), Value::M(metadata)),
        ]);
        if meta.entity.cascade
            && let Err(error) = self.stamp_buckets(&meta.entity.id).await
        {
            tracing::warn!(entity = %id, %error, "buckets learn of the entity's parent at their next use");
        }
        // The entity exists; an error would send the caller into `EntityExists`.
        if let Err(error) = self.audit(Event::of_entity(&id, "entity_created", details)).await {
            tracing::error!(entity = %id, %error, "the entity was created, but the audit log lacks the event");
        }
        Ok(meta.entity)
    }

    /// Brings the stamps of an entity's live buckets up to date.
    async fn stamp_buckets(&self, id: &EntityId) -> Result<(), Error> {
        let inner = &self.inner;
        let keys = self.buckets_of(id, &ResourceScope::All).await?;
        let items = inner
            .place
            .insisting(BRIEF, || inner.table.batch_get(keys.clone(), true))
            .await?;
        for item in &items {
            let parsed = key_of(item).and_then(|key| Some((BucketId::parse(&key)?.0, key)));
            let (Some((bucket, key)), Ok(image)) = (parsed, Bucket::decode(item)) else {
                continue;
            };
            let config = inner.resolve_now(id, &bucket.resource).await?;
            let now = inner.clock.now();
            if Drift::between(&image, &config, now).owner {
                let multiplier = inner.options.settings.bucket_ttl_multiplier;
                let update = reconcile(key, &image, &config, multiplier, now);
                // Refused, another process was faster, or the bucket is gone.
                let _ = inner
                    .place
                    .insisting(BRIEF, || inner.table.update(update.clone()))
                    .await?;
            }
        }
        Ok(())
    }

    /// Reads an entity; `None` if it was never created. (Tokens can be taken for any id.)
    pub async fn entity(&self, id: impl IntoName<EntityId>) -> Result<Option<Entity>, Error> {
        let inner = &self.inner;
        let key = meta_key(&inner.namespace, &id.into_name()?);
        let item = inner.place.read(&*inner.table, &key).await?;
        Ok(item
            .map(|item| MetaRecord::decode(&item))
            .transpose()?
            .map(|meta| meta.entity))
    }

    /// The entities whose parent this is, by id.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{NewEntity, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// for key in ["key-2", "key-1"] {
    ///     repo.admin().create_entity(NewEntity::new(key).parent("project")).await?;
    /// }
    /// let children = repo.admin().children("project").await?;
    /// assert_eq!(children.iter().map(|child| child.id.as_str()).collect::<Vec<_>>(), ["key-1", "key-2"]);
    /// // The parent was only named so far.
    /// assert_eq!(repo.admin().entity("project").await?, None);
    /// # Ok(()) }
    /// ```
    pub async fn children(&self, parent: impl IntoName<EntityId>) -> Result<Vec<Entity>, Error> {
        let inner = &self.inner;
        let hash = parent_pk(&inner.namespace, &parent.into_name()?);
        let query = Query::new(Index::Gsi1, hash).prefix("CHILD#");
        let decode = |item: &Item| Ok(Some(MetaRecord::decode(item)?.entity));
        Pages::new(&inner.place, &inner.table, Some(query), decode)
            .all()
            .await
    }

    /// Deletes an entity with everything of its own: buckets, limits, usage. What was logged of it stays.
    ///
    /// Returns how many records that were; zero if there were none. May be interrupted at any time and called again:
    /// the entity itself goes last.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Limit, NewEntity, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.create_entity(NewEntity::new("key-1")).await?;
    /// admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_minute("rpm", 5)]).await?;
    /// assert!(admin.delete_entity("key-1").await? >= 2, "the entity and its limits");
    /// assert_eq!(admin.delete_entity("key-1").await?, 0, "nothing is left");
    /// // The log still has what happened.
    /// let events = admin.audit_events("key-1", None)?.all().await?;
    /// assert_eq!(events[0].action, "entity_deleted");
    /// # Ok(()) }
    /// ```
    ///
    /// # Children
    /// Its [children](Self::children) stay, and keep naming it as their parent. Those that cascade continue debiting a
    /// bucket of this id, but the limits that the entity had of its own are gone: the bucket is under the limits of
    /// the resource or of the system. If neither has any, acquires of these children fail with
    /// [`Error::NotConfigured`], which names this id. To delete them as well, call
    /// [`delete_entity_with_children`](Self::delete_entity_with_children).
    ///
    /// # Traffic
    /// An id can be spent from without an entity, so requests that arrive during the deletion may leave a bucket
    /// under the limits of the resource or the system. A bucket is deleted with all its shards at once; if other requests
    /// keep that from happening for some seconds, the call fails and can be repeated. Processes that have cached the
    /// entity learn of the deletion within the time to live of their configuration cache.
    pub async fn delete_entity(&self, id: impl IntoName<EntityId>) -> Result<u64, Error> {
        self.delete_entity_with_progress(id, &|_| ()).await
    }

    /// [`delete_entity`](Self::delete_entity), with reports of its progress.
    pub async fn delete_entity_with_progress(
        &self,
        id: impl IntoName<EntityId>,
        progress: Progress<'_>,
    ) -> Result<u64, Error> {
        let inner = &self.inner;
        let id = id.into_name()?;
        let sweep = Sweep::new(&inner.place, &inner.table, progress);
        let done = self.sweep_entity(&sweep, &id).await;
        let records = sweep.deleted();
        self.inner.forget();
        if records > 0 {
            let details = Item::from([
                ("records_deleted".into(), Value::int(i128::from(records))),
                ("complete".into(), Value::Bool(done.is_ok())),
            ]);
            let logged = self.audit(Event::of_entity(&id, "entity_deleted", details)).await;
            // The error of the deletion is reported first.
            done.and(logged)?;
        } else {
            done?;
        }
        Ok(records)
    }

    /// Deletes an entity, its children, their children and so on, with everything that they have.
    ///
    /// Entities below go first, so that an interrupted call is finished by another one. Returns how many records
    /// were deleted.
    ///
    /// # Errors
    /// [`Error::InvalidInput`], before anything is deleted, if there are more than 10,000 entities below.
    pub async fn delete_entity_with_children(
        &self,
        id: impl IntoName<EntityId>,
        progress: Progress<'_>,
    ) -> Result<u64, Error> {
        let id = id.into_name()?;
        let mut records = 0;
        // A child may be created meanwhile, and the index that lists children may be behind.
        for _ in 0..MAX_ROUNDS {
            let below = self.entities_below(&id).await?;
            for entity in below.iter().rev() {
                let before = records;
                let told = |deleted: u64| progress(before + deleted);
                records += self.delete_entity_with_progress(entity, &told).await?;
            }
            if below.is_empty() {
                let before = records;
                let told = |deleted: u64| progress(before + deleted);
                return Ok(before + self.delete_entity_with_progress(&id, &told).await?);
            }
        }
        let what = format!("children of the entity '{id}' are being created; call it again to delete them");
        Err(self.inner.place.unavailable(what))
    }

    /// The entities below one, parents before their children.
    async fn entities_below(&self, id: &EntityId) -> Result<Vec<EntityId>, Error> {
        let mut known = BTreeSet::from([id.clone()]);
        let mut below: Vec<EntityId> = Vec::new();
        let mut parent = Some(id.clone());
        let mut at = 0;
        while let Some(of) = parent {
            for child in self.children(of).await? {
                if known.insert(child.id.clone()) {
                    below.push(child.id);
                }
            }
            if below.len() > MAX_BELOW {
                let reason =
                    format!("has more than {MAX_BELOW} entities below it; delete some of them first");
                return Err(InvalidInput::of_request("entity_id", id, reason).into());
            }
            parent = below.get(at).cloned();
            at += 1;
        }
        Ok(below)
    }

    async fn sweep_entity(&self, sweep: &Sweep<'_>, id: &EntityId) -> Result<(), Error> {
        let inner = &self.inner;
        let pk = entity_pk(&inner.namespace, id);
        let mut swept = BTreeSet::from_iter(self.sweep_buckets(sweep, &pk).await?);
        let own = Query::new(Index::Primary, &pk).consistent();
        for key in sweep.find(own.clone().prefix("#CONFIG#")).await? {
            let scope = key.sk.strip_prefix("#CONFIG#").map(ResourceScope::new);
            if let Some(Ok(scope)) = scope
                && self.delete_counted(id, &scope).await?
            {
                sweep.count(1);
            }
        }
        self.tidy_counts().await?;
        // While META is there, a bucket may be created under it; look again for those that were.
        let is_meta = |item: &Item| key_of(item).is_some_and(|key| key.sk == META);
        sweep.delete_found(own.clone(), is_meta).await?;
        swept.extend(self.sweep_buckets(sweep, &pk).await?);
        sweep.delete_found(own, |_| false).await?;
        self.sweep_orphans(sweep, id, swept).await
    }

    /// Deletes buckets that were created for the entity while it was being deleted. They carry its stamp, and would
    /// hand its parent on to an entity that is created later under the same id.
    ///
    /// Under traffic, buckets without a stamp appear at any time. They belong to no entity, and stay.
    async fn sweep_orphans(
        &self,
        sweep: &Sweep<'_>,
        id: &EntityId,
        mut candidates: BTreeSet<Key>,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let pk = entity_pk(&inner.namespace, id);
        let mut left = None;
        for round in 0..MAX_ROUNDS {
            if round > 0 {
                tokio::time::sleep(Duration::from_millis(25 << round.min(5))).await;
            }
            // The index may be behind, so the buckets that were there before are looked at in any case.
            candidates.extend(sweep.find(Query::new(Index::Gsi3, &pk).prefix("BUCKET#")).await?);
            let keys: Vec<Key> = candidates.iter().cloned().collect();
            let items = inner
                .place
                .insisting(LONG, || inner.table.batch_get(keys.clone(), true))
                .await?;
            let meta = inner
                .place
                .read(&*inner.table, &meta_key(&inner.namespace, id))
                .await?;
            // Another client may have created the entity again.
            let meta = meta.map(|item| MetaRecord::decode(&item)).transpose()?;
            let owner = meta.map(|meta| meta.owner(None));
            let orphans: Vec<(Key, Bucket)> = items
                .iter()
                .filter_map(|item| Some((key_of(item)?, Bucket::decode(item).ok()?)))
                .filter(|(_, bucket)| is_disputed(&bucket.owner, owner.as_ref()))
                .collect();
            let Some((first, _)) = orphans.first() else {
                return Ok(());
            };
            left = Some((orphans.len(), first.clone()));
            let found: BTreeSet<&Key> = orphans.iter().map(|(key, _)| key).collect();
            for (key, bucket) in &orphans {
                let Some((bucket_id, shard)) = BucketId::parse(key) else {
                    continue;
                };
                let pins = owner_pins(&bucket.owner);
                let whole = if shard == 0 {
                    let operations = Query::new(Index::Primary, &key.pk).prefix("#OP#");
                    sweep.delete_found(operations, |_| false).await?;
                    delete_bucket(&bucket_id, bucket, pins.clone())
                } else if found.contains(&bucket_id.key(0)) {
                    // It goes with the first.
                    continue;
                } else {
                    None
                };
                let op = whole.unwrap_or_else(|| {
                    Op::Delete(Delete {
                        key: key.clone(),
                        condition: Condition::All(pins.into()),
                    })
                });
                let deleted = inner
                    .place
                    .insisting(LONG, || inner.table.call(op.clone()))
                    .await?;
                if matches!(deleted, Answer::Applied(_)) {
                    sweep.count(1);
                }
            }
        }
        let (count, key) = left.map_or((0, String::new()), |(count, key)| (count, key.to_string()));
        let what = format!(
            "the entity '{id}' is deleted, but clients kept creating buckets for it: {count} found in the last of \
             {MAX_ROUNDS} rounds, such as {key}; call it again to delete them"
        );
        Err(inner.place.unavailable(what))
    }

    /// Deletes an entity's buckets, each with all its shards at once. Records of operations on a bucket can be found
    /// through its first shard only, so they go before.
    async fn sweep_buckets(&self, sweep: &Sweep<'_>, pk: &str) -> Result<Vec<Key>, Error> {
        let keys = sweep.find(Query::new(Index::Gsi3, pk).prefix("BUCKET#")).await?;
        for key in keys.iter().filter(|key| key.pk.ends_with("#0")) {
            let operations = Query::new(Index::Primary, &key.pk).prefix("#OP#");
            sweep.delete_found(operations, |_| false).await?;
        }
        let mut buckets: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        for key in &keys {
            if let Some((id, _)) = BucketId::parse(key) {
                buckets.entry(id.key(0)).or_default().push(key.clone());
            }
        }
        stream::iter(buckets)
            .map(|(first, listed)| self.sweep_bucket(sweep, first, listed))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        Ok(keys)
    }

    /// Deletes a bucket, with all its shards [at once](delete_bucket). `listed` are those that the index shows.
    async fn sweep_bucket(&self, sweep: &Sweep<'_>, first: Key, listed: Vec<Key>) -> Result<(), Error> {
        let inner = &self.inner;
        let Some((id, _)) = BucketId::parse(&first) else {
            return Ok(());
        };
        for round in 0..MAX_ROUNDS {
            if round > 0 {
                tokio::time::sleep(Duration::from_millis(25 << round.min(5))).await;
            }
            let item = inner
                .place
                .insisting(LONG, || inner.table.get(first.clone(), true))
                .await?;
            let Some(item) = item else {
                // No first shard, so these belong to no bucket. One that is created meanwhile is not deleted in parts.
                let others: Vec<Key> = listed.into_iter().filter(|key| *key != first).collect();
                return sweep.delete(&others).await;
            };
            let image = Bucket::decode(&item).ok();
            let op = image.as_ref().and_then(|image| delete_bucket(&id, image, []));
            let (Some(image), Some(op)) = (image, op) else {
                // Written by another program.
                return sweep.delete(&listed).await;
            };
            let answer = inner
                .place
                .insisting(LONG, || inner.table.call(op.clone()))
                .await?;
            if matches!(answer, Answer::Applied(_)) {
                let is_beyond = |key: &Key| BucketId::parse(key).is_some_and(|(_, n)| n >= image.shard_count);
                let (beyond, within): (Vec<Key>, Vec<Key>) = listed.into_iter().partition(is_beyond);
                sweep.count(within.len().max(1) as u64);
                return sweep.delete(&beyond).await;
            }
        }
        let what = format!(
            "the bucket {first} is busy: other requests kept its deletion from happening; call it again"
        );
        Err(inner.place.unavailable(what))
    }
}
