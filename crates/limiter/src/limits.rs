//! Limits at the four levels: set, read, deleted, and carried to live buckets.

use smol_str::SmolStr;
use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::audit::{DEFAULT_RETENTION_DAYS, SYSTEM_SUBJECT, limits_detail, resource_subject};
use zae_limiter_core::config::{Config, OnUnavailable, Resolved, limit_attributes};
use zae_limiter_core::limit::check_limits;
use zae_limiter_core::name::DEFAULT_RESOURCE;
use zae_limiter_core::schema::{
    BucketId, add_namespace_index, entity_config_key, entity_config_pk, entity_pk, entity_registry_key,
    key_item, key_of, resource_config_key, resource_registry_key, system_config_key,
};
use zae_limiter_core::sync::{Drift, LimitChange, change_limits, reconcile};
use zae_limiter_core::table::{
    Condition, Delete, Index, Item, Key, Part, Put, Query, TableError, Update, Value,
};
use zae_limiter_core::{
    Bucket, CorruptRecord, EntityId, IntoLimit, InvalidInput, Limit, ResourceName, ResourceScope,
};

use crate::error::Error;
use crate::pages::Pages;
use crate::repository::{Inner, Repository};
use crate::retry::{BRIEF, is_passing};
use crate::table::{TableExt, Transacted, Write};

/// Stands for all resources of an entity, in [`Repository::set_entity_limits`] and its like.
pub const ALL_RESOURCES: &str = DEFAULT_RESOURCE;

/// How often a change is tried again when somebody else changes the same level at the same time.
const MAX_RACES: usize = 8;

impl Repository {
    /// Sets the limits of an entity for one resource, or for [`ALL_RESOURCES`] that have none of their own.
    /// Replaces the level's limits as a whole, and carries them to the entity's live buckets.
    ///
    /// Balances stay: raising a capacity gives no tokens at once, lowering one cuts the surplus at the next
    /// acquire.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written; [`Error::FanoutIncomplete`] if the limits are set
    /// but not every live bucket was told.
    pub async fn set_entity_limits<L: IntoLimit>(
        &self,
        entity: &str,
        resource: &str,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        let (entity, scope) = (EntityId::new(entity)?, ResourceScope::new(resource)?);
        let limits = check_limits(limits)?;
        let inner = &self.inner;
        let key = entity_config_key(&inner.namespace, &entity, &scope);
        let mut level = vec![
            ("entity_id".into(), Value::text(entity.as_str())),
            ("resource".into(), Value::text(scope.as_str())),
            (
                "GSI3PK".into(),
                Value::S(entity_config_pk(&inner.namespace, &scope)),
            ),
            ("GSI3SK".into(), Value::text(entity.as_str())),
        ];
        level.extend(limit_attributes(&limits));
        self.write_level(&key, level, Some(Registry::Entities(&scope)))
            .await?;
        // Before the buckets, so that no acquire of this process puts the old limits back.
        inner.config.forget(&key);
        let stale: [SmolStr; 0] = [];
        let told = self.carry_to_buckets(&entity, &scope, &stale).await;
        // The level has changed, told or not.
        let details = Item::from([("limits".into(), limits_detail(&limits))]);
        let logged = self
            .audit(entity.as_str(), "limits_set", Some(scope.as_str()), details)
            .await;
        told.and(logged)
    }

    /// The limits that an entity has of its own for a resource or for [`ALL_RESOURCES`]; empty if none.
    pub async fn entity_limits(&self, entity: &str, resource: &str) -> Result<Vec<Limit>, Error> {
        let (entity, scope) = (EntityId::new(entity)?, ResourceScope::new(resource)?);
        Ok(self
            .level(&entity_config_key(&self.inner.namespace, &entity, &scope))
            .await?
            .limits)
    }

    /// Deletes an entity's own limits; its live buckets go over to whatever is in force then. Tells whether
    /// there were any.
    ///
    /// # Errors
    /// [`Error::FanoutIncomplete`] if the limits are gone but not every live bucket was told.
    pub async fn delete_entity_limits(&self, entity: &str, resource: &str) -> Result<bool, Error> {
        let (entity, scope) = (EntityId::new(entity)?, ResourceScope::new(resource)?);
        let inner = &self.inner;
        let key = entity_config_key(&inner.namespace, &entity, &scope);
        let old = self.level(&key).await?;
        let existed = self.clear_level(&key, Some(Registry::Entities(&scope))).await?;
        inner.config.forget(&key);
        let names: Vec<SmolStr> = old.limits.iter().map(|limit| limit.name().to_smol()).collect();
        // Even if there were none: an earlier deletion may have stopped before every bucket was told.
        let told = self.carry_to_buckets(&entity, &scope, &names).await;
        if existed {
            let logged = self
                .audit(
                    entity.as_str(),
                    "limits_deleted",
                    Some(scope.as_str()),
                    Item::new(),
                )
                .await;
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
        resource: &str,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        let resource = ResourceName::new(resource)?;
        let limits = check_limits(limits)?;
        let inner = &self.inner;
        let key = resource_config_key(&inner.namespace, &resource);
        let mut level = vec![("resource".into(), Value::text(resource.as_str()))];
        level.extend(limit_attributes(&limits));
        self.write_level(&key, level, Some(Registry::Resources(&resource)))
            .await?;
        inner.config.forget(&key);
        let details = Item::from([("limits".into(), limits_detail(&limits))]);
        self.audit(
            &resource_subject(&resource),
            "limits_set",
            Some(resource.as_str()),
            details,
        )
        .await
    }

    /// The limits of a resource; empty if none.
    pub async fn resource_defaults(&self, resource: &str) -> Result<Vec<Limit>, Error> {
        let key = resource_config_key(&self.inner.namespace, &ResourceName::new(resource)?);
        Ok(self.level(&key).await?.limits)
    }

    /// Deletes the limits of a resource. Tells whether there were any.
    pub async fn delete_resource_defaults(&self, resource: &str) -> Result<bool, Error> {
        let resource = ResourceName::new(resource)?;
        let inner = &self.inner;
        let key = resource_config_key(&inner.namespace, &resource);
        let existed = self
            .clear_level(&key, Some(Registry::Resources(&resource)))
            .await?;
        inner.config.forget(&key);
        let subject = resource_subject(&resource);
        self.audit(&subject, "limits_deleted", Some(resource.as_str()), Item::new())
            .await?;
        Ok(existed)
    }

    /// Sets the limits of the namespace, for resources and entities without any, and the policy for outages;
    /// `None` removes a stored policy.
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
        let policy = policy_value(on_unavailable);
        let inner = &self.inner;
        let key = system_config_key(&inner.namespace);
        let mut level = limit_attributes(&limits);
        level.push(("on_unavailable".into(), policy.clone()));
        self.write_level(&key, level, None).await?;
        inner.config.forget(&key);
        inner.remember_policy(on_unavailable);
        let details = Item::from([
            ("limits".into(), limits_detail(&limits)),
            ("on_unavailable".into(), policy),
        ]);
        self.audit(SYSTEM_SUBJECT, "limits_set", None, details).await
    }

    /// The limits of the namespace, empty if none, and the stored policy for outages.
    pub async fn system_defaults(&self) -> Result<(Vec<Limit>, Option<OnUnavailable>), Error> {
        let config = self.level(&system_config_key(&self.inner.namespace)).await?;
        Ok((config.limits, config.on_unavailable))
    }

    /// Deletes the limits of the namespace and the stored policy for outages. Tells whether there were any.
    pub async fn delete_system_defaults(&self) -> Result<bool, Error> {
        let inner = &self.inner;
        let key = system_config_key(&inner.namespace);
        let old = self.level(&key).await?;
        let existed = self.clear_level(&key, None).await?;
        inner.config.forget(&key);
        inner.remember_policy(None);
        let names = old
            .limits
            .iter()
            .map(|limit| Value::text(limit.name().as_str()))
            .collect();
        let details = Item::from([
            ("limits".into(), Value::L(names)),
            ("on_unavailable".into(), policy_value(old.on_unavailable)),
        ]);
        self.audit(SYSTEM_SUBJECT, "limits_deleted", None, details)
            .await?;
        Ok(existed)
    }

    /// The limits in force for an entity and resource, read now: those of the first level that defines any.
    ///
    /// # Errors
    /// [`Error::NotConfigured`] if no level does.
    pub async fn effective_limits(&self, entity: &str, resource: &str) -> Result<Vec<Limit>, Error> {
        let (entity, resource) = (EntityId::new(entity)?, ResourceName::new(resource)?);
        let config = self.inner.resolve_now(&entity, &resource).await?;
        if let Some(feature) = &config.unsupported {
            return Err(feature.clone().into());
        }
        if config.limits.is_empty() {
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

    async fn level(&self, key: &Key) -> Result<Config, Error> {
        let item = self.read(key).await?;
        Ok(item
            .map(|item| Config::decode(&item))
            .transpose()?
            .unwrap_or_default())
    }

    async fn read(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.inner.place.read(&*self.inner.table, key).await
    }

    async fn transact(&self, parts: Vec<Part>) -> Result<Transacted, Error> {
        self.inner.place.transact(&*self.inner.table, parts).await
    }

    /// Deletes an entity's whole record of a scope, flags included, and counts it out of the registry. Tells
    /// whether there was one.
    pub(crate) async fn delete_counted(
        &self,
        entity: &EntityId,
        scope: &ResourceScope,
    ) -> Result<bool, Error> {
        let delete = Delete {
            key: entity_config_key(&self.inner.namespace, entity, scope),
            condition: Condition::Exists("PK".into()),
        };
        let count = self.count(Registry::Entities(scope), -1);
        let done = self.transact(vec![Part::Delete(delete), count]).await?;
        self.tidy(Registry::Entities(scope)).await?;
        Ok(done == Transacted::Applied)
    }

    /// The change of a registry when a level comes (`+1`) or goes (`-1`).
    fn count(&self, registry: Registry<'_>, by: i128) -> Part {
        let mut update = match registry {
            Registry::Entities(_) => self.namespace_update(entity_registry_key(&self.inner.namespace)),
            Registry::Resources(_) => self.namespace_update(resource_registry_key(&self.inner.namespace)),
        };
        match registry {
            Registry::Entities(scope) => update.add.push((scope.as_str().into(), by)),
            Registry::Resources(resource) => {
                let sets = if by > 0 {
                    &mut update.add_to_set
                } else {
                    &mut update.delete_from_set
                };
                sets.push(("resources".into(), resource.to_string()));
            }
        }
        Part::Update(update)
    }

    /// Removes a count that has come to nothing.
    async fn tidy(&self, registry: Registry<'_>) -> Result<(), Error> {
        let Registry::Entities(scope) = registry else {
            return Ok(());
        };
        let inner = &self.inner;
        let mut tidy = Update::new(entity_registry_key(&inner.namespace));
        tidy.remove.push(scope.as_str().into());
        tidy.condition = Condition::AtMost(scope.as_str().into(), 0);
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.update(tidy.clone()))
            .await?;
        Ok(())
    }

    /// Removes every count that has come to nothing; a client that was killed may have left one.
    pub(crate) async fn tidy_counts(&self) -> Result<(), Error> {
        let key = entity_registry_key(&self.inner.namespace);
        for (name, count) in self.read(&key).await?.unwrap_or_default() {
            if let (Ok(scope), Some(..=0)) = (ResourceScope::new(&name), count.as_int()) {
                self.tidy(Registry::Entities(&scope)).await?;
            }
        }
        Ok(())
    }

    /// Takes the limits of a level away, and its policy for outages: deletes the record, unless it holds
    /// anything else (flags, retention, what newer clients keep there), which stays. Tells whether there was
    /// anything to take. Record and registry change together.
    async fn clear_level(&self, key: &Key, registry: Option<Registry<'_>>) -> Result<bool, Error> {
        for _ in 0..MAX_RACES {
            let Some(old) = self.read(key).await? else {
                if let Some(registry @ Registry::Resources(_)) = registry {
                    // Other clients write level and registry apart; a crash between leaves a name behind.
                    let absent = Part::Check(key.clone(), Condition::Absent("PK".into()));
                    if self.transact(vec![absent, self.count(registry, -1)]).await? != Transacted::Applied {
                        continue;
                    }
                }
                return Ok(false);
            };
            let unchanged = unchanged(key, &old)?;
            let parts = if old.keys().all(|name| goes_with_limits(name)) {
                let delete = Delete {
                    key: key.clone(),
                    condition: unchanged,
                };
                let mut parts = vec![Part::Delete(delete)];
                parts.extend(registry.map(|registry| self.count(registry, -1)));
                parts
            } else {
                let mut item = old.clone();
                item.retain(|name, _| !is_limit_attribute(name) && name != "on_unavailable");
                if item.len() == old.len() {
                    return Ok(false);
                }
                vec![Part::Put(Put {
                    item,
                    condition: unchanged,
                })]
            };
            if self.transact(parts).await? == Transacted::Applied {
                if let Some(registry) = registry {
                    self.tidy(registry).await?;
                }
                return Ok(true);
            }
        }
        Err(self.inner.place.contended(key))
    }

    /// An update of a record of the namespace that lists it in the namespace's index if it is new.
    fn namespace_update(&self, key: Key) -> Update {
        let mut index = Item::new();
        add_namespace_index(&mut index, self.inner.namespace.as_str(), &key.pk);
        let mut update = Update::new(key);
        update
            .set
            .extend(index.into_iter().map(|(name, value)| (name.into(), value)));
        update
    }

    /// Replaces the limits of a level and leaves everything else on the record: flags, retention, and
    /// attributes of newer clients. Null removes. Level and registry change in one transaction.
    async fn write_level(
        &self,
        key: &Key,
        attributes: Vec<(SmolStr, Value)>,
        registry: Option<Registry<'_>>,
    ) -> Result<(), Error> {
        for _ in 0..MAX_RACES {
            let old = self.read(key).await?;
            let is_new = old.is_none();
            let condition = match &old {
                Some(old) => unchanged(key, old)?,
                None => Condition::Absent("PK".into()),
            };
            let mut item = old.unwrap_or_else(|| key_item(key));
            item.retain(|name, _| !is_limit_attribute(name));
            add_namespace_index(&mut item, self.inner.namespace.as_str(), &key.pk);
            item.insert("config_version".into(), Value::int(1));
            for (name, value) in &attributes {
                match value {
                    Value::Null => drop(item.remove(name.as_str())),
                    value => drop(item.insert(name.to_string(), value.clone())),
                }
            }
            let mut parts = vec![Part::Put(Put { item, condition })];
            match registry {
                // Put in again each time: a level that other clients wrote may be missing from it.
                Some(registry @ Registry::Resources(_)) => parts.push(self.count(registry, 1)),
                Some(registry) if is_new => parts.push(self.count(registry, 1)),
                _ => {}
            }
            if self.transact(parts).await? == Transacted::Applied {
                return Ok(());
            }
        }
        Err(self.inner.place.contended(key))
    }

    /// Rewrites the entity's live buckets with the limits now in force for them.
    ///
    /// Buckets are discovered twice: the second pass catches those created in between.
    async fn carry_to_buckets(
        &self,
        entity: &EntityId,
        scope: &ResourceScope,
        stale: &[SmolStr],
    ) -> Result<(), Error> {
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
        Ok(())
    }

    async fn carry_to_bucket(
        &self,
        key: &Key,
        config: &Resolved,
        stale: &[SmolStr],
    ) -> Result<(), TableError> {
        if config.limits.is_empty() || config.unsupported.is_some() {
            // Nothing is in force, or nothing that is understood: the bucket is left as it is.
            return Ok(());
        }
        let gone = |name: &&SmolStr| {
            !config
                .limits
                .iter()
                .any(|limit| limit.name().as_str() == name.as_str())
        };
        let stale: Vec<SmolStr> = stale.iter().filter(gone).cloned().collect();
        let mut change = LimitChange {
            may_expire: true,
            limits: &config.limits,
            level: config.level,
            stale: &stale,
            bucket_ttl_multiplier: self.inner.options.settings.bucket_ttl_multiplier,
        };
        let mut update = change_limits(key.clone(), &change, self.inner.clock.now());
        let table = &self.inner.table;
        let told = BRIEF.repeat(is_passing, || table.update(update.clone())).await?;
        // An image means the first shard of a split bucket, which must not expire. Otherwise refused means that
        // the bucket is gone, and with it what was to be told.
        if matches!(told, Write::Refused(Some(_))) {
            change.may_expire = false;
            update = change_limits(key.clone(), &change, self.inner.clock.now());
            let _ = BRIEF.repeat(is_passing, || table.update(update.clone())).await?;
        }
        Ok(())
    }

    async fn buckets_of(&self, entity: &EntityId, scope: &ResourceScope) -> Result<Vec<Key>, Error> {
        let prefix = match scope {
            ResourceScope::All => "BUCKET#".to_owned(),
            ResourceScope::One(resource) => format!("BUCKET#{resource}#"),
        };
        let query = Query::new(Index::Gsi3, entity_pk(&self.inner.namespace, entity)).prefix(prefix);
        let pages = Pages::new(&self.inner.place, &self.inner.table, Some(query), |item| {
            Ok(key_of(item))
        });
        pages.all().await
    }
}

/// Where a level is listed.
#[derive(Debug, Clone, Copy)]
enum Registry<'a> {
    /// Among the counts of entities with limits of their own.
    Entities(&'a ResourceScope),
    /// Among the resources with limits.
    Resources(&'a ResourceName),
}

/// The stored form of a policy for outages.
fn policy_value(policy: Option<OnUnavailable>) -> Value {
    match policy {
        Some(OnUnavailable::Allow) => Value::text("allow"),
        Some(OnUnavailable::Block) => Value::text("block"),
        // Refused before it could be stored.
        Some(OnUnavailable::Degrade(_)) | None => Value::Null,
    }
}

/// The condition that a level's record is as it was read, so that whole records can be written: nobody set
/// limits, and no flag has come meanwhile that would be lost.
fn unchanged(key: &Key, old: &Item) -> Result<Condition, Error> {
    let mut parts = Vec::with_capacity(old.len() + FLAGS.len());
    for (name, value) in old {
        if matches!(value, Value::Other) {
            return Err(Error::Corrupt(CorruptRecord {
                record: "config",
                key: key.to_string(),
                attribute: name.clone(),
                problem: "is of a type that no client stores there; the record was left alone".into(),
            }));
        }
        parts.push(Condition::Is(name.as_str().into(), value.clone()));
    }
    let absent = FLAGS.iter().filter(|name| !old.contains_key(**name));
    parts.extend(absent.map(|name| Condition::Absent(SmolStr::new_static(name))));
    Ok(Condition::All(parts))
}

/// What a level may hold beside limits.
const FLAGS: [&str; 3] = ["disabled", "cascade", "audit_retention_days"];

/// Whether an attribute of a configuration record has no use without limits.
fn goes_with_limits(name: &str) -> bool {
    is_limit_attribute(name)
        || name.starts_with("GSI")
        || matches!(
            name,
            "PK" | "SK" | "config_version" | "entity_id" | "resource" | "on_unavailable"
        )
}

/// Whether an attribute of a configuration record belongs to its limits.
fn is_limit_attribute(name: &str) -> bool {
    name.starts_with("l_") || name.starts_with("w_") || name == "sched_tz"
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
                .fetch(&*self.table, &*self.clock, entity, resource, true)
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
        // knows less must not win.
        let config = self
            .config
            .fetch(&*self.table, &*self.clock, &id.entity, &id.resource, true)
            .await
            .map_err(|err| self.place.acquire_error(err))?;
        let Some(image) = self.images.latest(id, shard) else {
            return Ok(());
        };
        if !Drift::between(&image, &config).is_some() {
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
