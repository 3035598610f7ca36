//! Limits at the four levels: set, read, deleted, and carried to live buckets.

use smol_str::SmolStr;
use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::audit::DEFAULT_RETENTION_DAYS;
use zae_limiter_core::config::{Config, OnUnavailable, Resolved};
use zae_limiter_core::limit::check_limits;
use zae_limiter_core::manifest::Target;
use zae_limiter_core::name::DEFAULT_RESOURCE;
use zae_limiter_core::schema::{
    BucketId, entity_config_key, entity_pk, key_of, resource_config_key, system_config_key,
};
use zae_limiter_core::sync::{Drift, LimitChange, change_limits, reconcile};
use zae_limiter_core::table::{Index, Key, Query, TableError};
use zae_limiter_core::{
    Bucket, EntityId, IntoLimit, IntoName, InvalidInput, Limit, ResourceName, ResourceScope,
};

use crate::admin::Admin;
use crate::admin::levels::{LevelRecord, deleted_event, level_attributes, set_event, stale_names};
use crate::admin::pages::Pages;
use crate::admin::retry::{BRIEF, is_passing};
use crate::error::Error;
use crate::inner::Inner;
use crate::table::{TableExt as _, Write};

/// Stands for each resource of an entity that has no limits of its own, in [`Admin::set_entity_limits`] and its like.
///
/// An entity has a bucket for each resource. Limits for all resources apply to each of these buckets by itself, and not to their
/// sum.
pub const ALL_RESOURCES: &str = DEFAULT_RESOURCE;

impl Admin {
    /// Sets the limits of an entity for one resource, or for [`ALL_RESOURCES`] that have none of their own.
    /// Replaces the level's limits as a whole, and carries them to the entity's live buckets.
    ///
    /// Balances stay: raising a capacity gives no tokens at once, lowering one cuts the surplus at the next
    /// acquire.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let (admin, limiter) = (repo.admin(), RateLimiter::new(repo.clone()));
    /// admin.set_entity_limits("key-1", "gpt-4", [Limit::per_hour("rph", 10), Limit::per_day("tpd", 1_000)]).await?;
    /// limiter.acquire("key-1", "gpt-4").consume("tpd", 400).await?.commit().await?;
    ///
    /// // The new limits are the only ones: `rph` is gone. The balance of `tpd` is not raised to the new capacity.
    /// admin.set_entity_limits("key-1", "gpt-4", [Limit::per_day("tpd", 5_000)]).await?;
    /// let available = limiter.available("key-1", "gpt-4").await?;
    /// assert!(!available.contains_key("rph"));
    /// assert!((600..700).contains(&available["tpd"]), "{available:?}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written; [`Error::FanoutIncomplete`] if the limits are set
    /// but not every live bucket was updated.
    pub async fn set_entity_limits<L: IntoLimit>(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        let (entity, scope) = (entity.into_name()?, resource.into_name()?);
        let limits = check_limits(limits)?;
        let inner = &self.inner;
        let target = Target::Entity(entity.clone(), scope.clone());
        let record = LevelRecord::of(&inner.namespace, &target);
        self.check_storable(&record, &limits).await?;
        let old = self
            .write_level(&record, &level_attributes(&target, &limits, None))
            .await?;
        // Before the buckets, so that no acquire of this process puts the old limits back.
        inner.config.forget(&record.key);
        let stale = stale_names(old.as_ref(), &limits);
        let told = self.carry_to_buckets(&entity, &scope, &stale).await;
        // Log the change even if the fan-out failed.
        let logged = self.audit(set_event(&target, &limits, None)).await;
        told.map(drop).and(logged)
    }

    /// The limits that an entity has of its own for a resource or for [`ALL_RESOURCES`]; empty if none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if a newer client has stored some that cannot be read.
    pub async fn entity_limits(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Vec<Limit>, Error> {
        let (entity, scope) = (entity.into_name()?, resource.into_name()?);
        let key = entity_config_key(&self.inner.namespace, &entity, &scope);
        Ok(self.readable_level(&key).await?.limits)
    }

    /// Deletes an entity's own limits; its live buckets switch to the limits that apply then. Returns whether
    /// there were any.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 20)]).await?;
    /// admin.set_entity_limits("key-1", "gpt-4", [Limit::per_minute("rpm", 200)]).await?;
    /// assert!(admin.delete_entity_limits("key-1", "gpt-4").await?);
    /// assert_eq!(admin.effective_limits("key-1", "gpt-4").await?[0].capacity(), 20, "the resource's again");
    /// assert!(!admin.delete_entity_limits("key-1", "gpt-4").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::FanoutIncomplete`] if the limits are deleted but not every live bucket was updated.
    pub async fn delete_entity_limits(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<bool, Error> {
        let (entity, scope) = (entity.into_name()?, resource.into_name()?);
        let inner = &self.inner;
        let target = Target::Entity(entity.clone(), scope.clone());
        let record = LevelRecord::of(&inner.namespace, &target);
        let old = self.level(&record.key).await?;
        let existed = self.clear_level(&record).await?;
        inner.config.forget(&record.key);
        let names: Vec<SmolStr> = old.limits.iter().map(|limit| limit.name().to_smol()).collect();
        // Even if there were none: an earlier deletion may have stopped before every bucket was updated.
        let told = self.carry_to_buckets(&entity, &scope, &names).await.map(drop);
        if existed {
            let logged = self.audit(deleted_event(&target, &old)).await;
            told.and(logged)?;
        } else {
            told?;
        }
        Ok(existed)
    }

    /// Sets the limits of a resource, for entities without limits of their own.
    ///
    /// Live buckets take them over within the configuration cache's time to live, in every process.
    pub async fn set_resource_defaults<L: IntoLimit>(
        &self,
        resource: impl IntoName<ResourceName>,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        let target = Target::Resource(resource.into_name()?);
        let limits = check_limits(limits)?;
        let inner = &self.inner;
        let record = LevelRecord::of(&inner.namespace, &target);
        self.check_storable(&record, &limits).await?;
        let attributes = level_attributes(&target, &limits, None);
        let old = self.write_level(&record, &attributes).await?;
        inner.config.forget(&record.key);
        let told = self.harden_all(&target, old.as_ref(), &attributes).await;
        let logged = self.audit(set_event(&target, &limits, None)).await;
        told.and(logged)
    }

    /// The limits of a resource; empty if none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if a newer client has stored some that cannot be read.
    pub async fn resource_defaults(
        &self,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Vec<Limit>, Error> {
        let key = resource_config_key(&self.inner.namespace, &resource.into_name()?);
        Ok(self.readable_level(&key).await?.limits)
    }

    /// Deletes the limits of a resource. Returns whether there were any.
    pub async fn delete_resource_defaults(
        &self,
        resource: impl IntoName<ResourceName>,
    ) -> Result<bool, Error> {
        let target = Target::Resource(resource.into_name()?);
        let inner = &self.inner;
        let record = LevelRecord::of(&inner.namespace, &target);
        let old = self.read(&record.key).await?;
        let existed = self.clear_level(&record).await?;
        inner.config.forget(&record.key);
        let told = self.harden_all(&target, old.as_ref(), &[]).await;
        let logged = self.audit(deleted_event(&target, &Config::default())).await;
        told.and(logged)?;
        Ok(existed)
    }

    /// Sets the limits of the namespace, for resources and entities without any, and the policy for outages;
    /// `None` removes a stored policy.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, OnUnavailable, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_system_defaults([Limit::per_minute("rpm", 60)], Some(OnUnavailable::Allow)).await?;
    /// let (limits, policy) = admin.system_defaults().await?;
    /// assert_eq!((limits[0].capacity(), policy), (60, Some(OnUnavailable::Allow)));
    /// // To change the limits and keep the policy, pass it again.
    /// admin.set_system_defaults([Limit::per_minute("rpm", 90)], policy).await?;
    /// assert_eq!(admin.system_defaults().await?.1, Some(OnUnavailable::Allow));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for [`OnUnavailable::Degrade`], which the shared format cannot store: choose it
    /// for a process with [`on_unavailable`](crate::RepositoryBuilder::on_unavailable).
    pub async fn set_system_defaults<L: IntoLimit>(
        &self,
        limits: impl IntoIterator<Item = L>,
        on_unavailable: Option<OnUnavailable>,
    ) -> Result<(), Error> {
        let limits = check_limits(limits)?;
        if let Some(OnUnavailable::Degrade(part)) = on_unavailable {
            let reason = "cannot be stored for all clients; set it on the repository's builder";
            return Err(
                InvalidInput::new("on_unavailable", format!("degrade({})", part.get()), reason).into(),
            );
        }
        let inner = &self.inner;
        let target = Target::System;
        let record = LevelRecord::of(&inner.namespace, &target);
        self.check_storable(&record, &limits).await?;
        let attributes = level_attributes(&target, &limits, on_unavailable);
        let old = self.write_level(&record, &attributes).await?;
        inner.config.forget(&record.key);
        inner.remember_policy(on_unavailable);
        let told = self.harden_all(&target, old.as_ref(), &attributes).await;
        let logged = self.audit(set_event(&target, &limits, on_unavailable)).await;
        told.and(logged)
    }

    /// The limits of the namespace, empty if none, and the stored policy for outages.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if a newer client has stored limits that cannot be read.
    pub async fn system_defaults(&self) -> Result<(Vec<Limit>, Option<OnUnavailable>), Error> {
        let key = system_config_key(&self.inner.namespace);
        let config = self.readable_level(&key).await?;
        Ok((config.limits, config.on_unavailable))
    }

    /// Deletes the limits of the namespace and the stored policy for outages. Returns whether there were any.
    pub async fn delete_system_defaults(&self) -> Result<bool, Error> {
        let inner = &self.inner;
        let record = LevelRecord::of(&inner.namespace, &Target::System);
        let old = self.read(&record.key).await?;
        let config = old.as_ref().map(Config::decode).transpose()?.unwrap_or_default();
        let existed = self.clear_level(&record).await?;
        inner.config.forget(&record.key);
        inner.remember_policy(None);
        let told = self.harden_all(&Target::System, old.as_ref(), &[]).await;
        let logged = self.audit(deleted_event(&Target::System, &config)).await;
        told.and(logged)?;
        Ok(existed)
    }

    /// The limits in force for an entity and resource, read now: those of the first level that defines any.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Error, Limit, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// assert!(matches!(admin.effective_limits("key-1", "gpt-4").await, Err(Error::NotConfigured { .. })));
    /// admin.set_system_defaults([Limit::per_minute("rpm", 60), Limit::per_minute("tpm", 9_000)], None).await?;
    /// admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_minute("rpm", 600)]).await?;
    /// // The entity's level replaces the system's as a whole: there is no `tpm` for this key.
    /// let names: Vec<_> = admin.effective_limits("key-1", "gpt-4").await?.into_iter().map(|limit| limit.name().to_string()).collect();
    /// assert_eq!(names, ["rpm"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotConfigured`] if no level does; [`Error::Unsupported`] if a newer client has stored some that cannot be read.
    pub async fn effective_limits(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Vec<Limit>, Error> {
        let (entity, resource) = (entity.into_name()?, resource.into_name()?);
        let config = self.inner.resolve_now(&entity, &resource).await?;
        if config.limits.is_empty() {
            if let Some(feature) = &config.unsupported {
                return Err(feature.clone().into());
            }
            return Err(Error::NotConfigured {
                entity: entity.to_string(),
                resource: resource.to_string(),
            });
        }
        Ok(config.limits.clone())
    }

    pub(crate) async fn audit_retention_days(&self) -> Result<i64, Error> {
        let config = self.level(&system_config_key(&self.inner.namespace)).await?;
        Ok(config
            .audit_retention_days
            .filter(|days| *days > 0)
            .unwrap_or(DEFAULT_RETENTION_DAYS))
    }

    /// Rewrites the entity's live buckets with the limits now in force for them.
    ///
    /// Buckets are discovered twice: the second pass catches those created in between. Returns how many shards were
    /// updated.
    pub(crate) async fn carry_to_buckets(
        &self,
        entity: &EntityId,
        scope: &ResourceScope,
        stale: &[SmolStr],
    ) -> Result<usize, Error> {
        let inner = &self.inner;
        let mut told: Vec<Key> = Vec::new();
        for _ in 0..2 {
            let found = self.buckets_of(entity, scope).await?;
            let total = found.len().max(told.len());
            for key in found {
                if told.contains(&key) {
                    continue;
                }
                let Some((id, _)) = BucketId::parse(&key) else {
                    continue;
                };
                let config = inner.resolve_now(entity, &id.resource).await?;
                if let Err(source) = self.carry_to_bucket(&key, &config, stale).await {
                    return Err(Error::FanoutIncomplete {
                        done: told.len(),
                        total,
                        source,
                    });
                }
                inner.images.forget(&id);
                told.push(key);
            }
        }
        Ok(told.len())
    }

    async fn carry_to_bucket(
        &self,
        key: &Key,
        config: &Resolved,
        stale: &[SmolStr],
    ) -> Result<(), TableError> {
        if config.limits.is_empty() {
            // Nothing is in force, or nothing that can be read: the bucket is left as it is.
            return Ok(());
        }
        let gone = |name: &&SmolStr| {
            !config
                .limits
                .iter()
                .any(|limit| limit.name().as_str() == name.as_str())
        };
        let stale: Vec<SmolStr> = stale.iter().filter(gone).cloned().collect();
        let change = LimitChange {
            may_expire: true,
            limits: &config.limits,
            level: config.level,
            stale: &stale,
            bucket_ttl_multiplier: self.inner.options.settings.bucket_ttl_multiplier,
        };
        let table = &self.inner.table;
        for mut piece in change.pieces() {
            let now = self.inner.clock.now();
            let mut update = change_limits(key.clone(), &piece, &config.limits, now);
            let told = BRIEF.repeat(is_passing, || table.update(update.clone())).await?;
            // An image means the first shard of a split bucket, which must not expire. Otherwise refused means
            // that the bucket is gone, and does not need the update.
            if matches!(told, Write::Refused(Some(_))) {
                piece.may_expire = false;
                update = change_limits(key.clone(), &piece, &config.limits, now);
                let _ = BRIEF.repeat(is_passing, || table.update(update.clone())).await?;
            }
        }
        Ok(())
    }

    /// The query that finds the shards of an entity's buckets.
    pub(crate) fn query_of_buckets(&self, entity: &EntityId, scope: &ResourceScope) -> Query {
        let prefix = match scope {
            ResourceScope::All => "BUCKET#".to_owned(),
            ResourceScope::One(resource) => format!("BUCKET#{resource}#"),
        };
        Query::new(Index::Gsi3, entity_pk(&self.inner.namespace, entity)).prefix(prefix)
    }

    pub(crate) async fn buckets_of(
        &self,
        entity: &EntityId,
        scope: &ResourceScope,
    ) -> Result<Vec<Key>, Error> {
        let query = self.query_of_buckets(entity, scope);
        let pages = Pages::new(&self.inner.place, &self.inner.table, Some(query), |item| {
            Ok(key_of(item))
        });
        pages.all().await
    }
}

impl Inner {
    /// Reads the configuration now, whatever is cached; sends the read again while it may help.
    pub(crate) async fn resolve_now(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
    ) -> Result<std::sync::Arc<Resolved>, Error> {
        let passing = |err: &AcquireError| matches!(err, AcquireError::Table(err) if is_passing(err));
        let fetch = || {
            self.config
                .fetch_unhurried(&self.table, &self.clock, entity, resource, true)
        };
        let config = BRIEF.repeat(passing, fetch).await;
        config.map_err(|err| self.place.acquire_error(err))
    }

    /// Brings a shard that is behind the configuration up to date, in the background, at most once a second.
    pub(crate) fn reconcile_soon(self: &std::sync::Arc<Self>, id: BucketId, shard: u32) {
        let (now, target) = (self.clock.now(), (id, shard));
        if self
            .reconciled
            .get(&target)
            .is_some_and(|last| (0..1000).contains(&now.since(last)))
        {
            return;
        }
        self.reconciled.insert(target.clone(), now);
        let inner = std::sync::Arc::clone(self);
        self.background.spawn("bucket reconciliation", async move {
            let (id, shard) = target;
            if let Err(error) = inner.reconcile(&id, shard).await {
                tracing::warn!(resource = id.resource.as_str(), shard, %error, "bucket not brought up to date");
            }
        });
    }

    async fn reconcile(&self, id: &BucketId, shard: u32) -> Result<(), Error> {
        // Only what was read just now may be written: of two processes with different caches, the one that
        // has older data must not win.
        let config = self
            .config
            .fetch_unhurried(&self.table, &self.clock, &id.entity, &id.resource, true)
            .await
            .map_err(|err| self.place.acquire_error(err))?;
        let Some(image) = self.images.latest(id, shard) else {
            return Ok(());
        };
        if !Drift::between(&image, &config, self.clock.now()).is_some() {
            return Ok(());
        }
        let multiplier = self.options.settings.bucket_ttl_multiplier;
        let order = self.next_order();
        let update = reconcile(id.key(shard), &image, &config, multiplier, self.clock.now());
        let (Write::Applied(item) | Write::Refused(Some(item))) = self
            .table
            .update(update)
            .await
            .map_err(|err| self.table_error(err))?
        else {
            return Ok(());
        };
        let image = std::sync::Arc::new(Bucket::decode(&item)?);
        let observation = zae_limiter_core::acquire::Observation {
            id: id.clone(),
            shard,
            image,
        };
        self.images.observe(&observation, order, self.clock.now());
        Ok(())
    }
}
