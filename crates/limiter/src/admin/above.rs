//! Limits of entities that their parents' limits keep from being reached.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::config::Config;
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::manifest::{Manifest, Target};
use zae_limiter_core::resolve::{Slot, Stored, resolve};
use zae_limiter_core::schema::{entity_config_key, entity_pk, key_of, meta_key, system_config_key};
use zae_limiter_core::table::{Index, Key, Query};
use zae_limiter_core::{EntityId, EpochMillis, IntoName, Limit, NamespaceId, ResourceScope};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::error::Error;

/// A limit of an entity that is above its parent's. See [`Admin::limits_above_parent`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AboveParent {
    /// The entity.
    pub entity: EntityId,
    /// The resource that the limit is for, or all.
    pub resource: ResourceScope,
    /// The parent.
    pub parent: EntityId,
    /// The entity's limit.
    pub limit: Limit,
    /// The limit of the same name that is in force for the parent.
    pub parents: Limit,
}

/// A level of an entity that has a parent.
struct Level {
    meta: MetaRecord,
    parent: EntityId,
    scope: ResourceScope,
}

impl Level {
    /// The level, if the entity has a parent.
    fn of(meta: &MetaRecord, scope: ResourceScope) -> Option<Self> {
        Some(Self {
            meta: meta.clone(),
            parent: meta.entity.parent.clone()?,
            scope,
        })
    }

    /// The records of configuration that decide whether its limits are above the parent's.
    fn keys(&self, namespace: &NamespaceId) -> Vec<Key> {
        let id = &self.meta.entity.id;
        match &self.scope {
            ResourceScope::One(resource) => {
                let slots = Slot::ALL.into_iter().filter(|slot| *slot != Slot::Meta);
                slots
                    .flat_map(|slot| [id, &self.parent].map(|of| slot.key(namespace, of, resource)))
                    .collect()
            }
            ResourceScope::All => vec![
                entity_config_key(namespace, id, &ResourceScope::All),
                entity_config_key(namespace, &self.parent, &ResourceScope::All),
                system_config_key(namespace),
            ],
        }
    }

    /// Its limits that are above the parent's, with these records.
    fn above(&self, namespace: &NamespaceId, configs: &BTreeMap<Key, Config>) -> Vec<AboveParent> {
        let id = &self.meta.entity.id;
        let limits = |key: &Key| configs.get(key).map_or(&[][..], |config| &config.limits);
        let own = limits(&entity_config_key(namespace, id, &self.scope));
        let of_parent = match &self.scope {
            ResourceScope::One(resource) => {
                let of = |entity: &EntityId, meta: Option<&MetaRecord>| {
                    let stored = Slot::ALL.map(|slot| Stored {
                        meta: meta.filter(|_| slot == Slot::Meta).cloned(),
                        config: configs.get(&slot.key(namespace, entity, resource)).cloned(),
                    });
                    resolve(entity, stored.each_ref(), EpochMillis::default())
                };
                let owner = of(id, Some(&self.meta)).owner;
                if !owner.is_some_and(|owner| owner.cascade) {
                    return Vec::new();
                }
                of(&self.parent, None).limits
            }
            ResourceScope::All if !self.meta.entity.cascade => return Vec::new(),
            // Without a resource, the parent's limits for all of them, or those of the system.
            ResourceScope::All => {
                let of_parent = limits(&entity_config_key(namespace, &self.parent, &ResourceScope::All));
                let of_system = limits(&system_config_key(namespace));
                if of_parent.is_empty() {
                    of_system
                } else {
                    of_parent
                }
                .to_vec()
            }
        };
        let above = |limit: &Limit| {
            let parents = of_parent.iter().find(|parents| parents.name() == limit.name())?;
            let (of_own, of_parent) = (limit.params(), parents.params());
            let have_rates = !limit.is_quota() && !parents.is_quota();
            let faster =
                have_rates && of_own.refill * of_parent.period_ms > of_parent.refill * of_own.period_ms;
            (of_own.capacity > of_parent.capacity || faster).then(|| AboveParent {
                entity: id.clone(),
                resource: self.scope.clone(),
                parent: self.parent.clone(),
                limit: limit.clone(),
                parents: parents.clone(),
            })
        };
        own.iter().filter_map(above).collect()
    }
}

impl Admin {
    /// The limits of an entity that its parent's keep it from reaching: for each of the entity's own limits for a
    /// resource or for [`ALL_RESOURCES`](crate::ALL_RESOURCES) with a higher capacity or rate than the limit of the
    /// same name that is in force for its parent, the two. Empty unless the entity cascades.
    ///
    /// Requests above the parent's capacity are never admitted, so that such a limit is usually a mistake.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Limit, NewEntity, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.create_entity(NewEntity::new("key-1").parent("project").cascade(true)).await?;
    /// admin.set_entity_limits("project", ALL_RESOURCES, [Limit::per_minute("tpm", 5_000)]).await?;
    /// admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_minute("tpm", 9_000)]).await?;
    ///
    /// let above = admin.limits_above_parent("key-1", ALL_RESOURCES).await?;
    /// assert_eq!((above[0].limit.capacity(), above[0].parents.capacity()), (9_000, 5_000));
    /// # Ok(()) }
    /// ```
    pub async fn limits_above_parent(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Vec<AboveParent>, Error> {
        let (id, scope) = (entity.into_name()?, resource.into_name()?);
        let levels = match self.meta(&id).await? {
            Some(meta) => Vec::from_iter(Level::of(&meta, scope)),
            None => Vec::new(),
        };
        self.above(levels, |_| ()).await
    }

    /// As [`limits_above_parent`](Self::limits_above_parent), for all limits that the entity has of its own.
    pub async fn all_limits_above_parent(
        &self,
        entity: impl IntoName<EntityId>,
    ) -> Result<Vec<AboveParent>, Error> {
        let inner = &self.inner;
        let id = entity.into_name()?;
        let Some(meta) = self.meta(&id).await?.filter(|meta| meta.entity.parent.is_some()) else {
            return Ok(Vec::new());
        };
        let query = Query::new(Index::Primary, entity_pk(&inner.namespace, &id)).prefix("#CONFIG#");
        let scopes = Pages::new(&inner.place, &inner.table, Some(query), |item| {
            let scope =
                key_of(item).and_then(|key| ResourceScope::new(key.sk.strip_prefix("#CONFIG#")?).ok());
            Ok(scope)
        });
        let scopes = scopes.all().await?.into_iter();
        self.above(
            scopes.filter_map(|scope| Level::of(&meta, scope)).collect(),
            |_| (),
        )
        .await
    }

    /// As [`limits_above_parent`](Self::limits_above_parent), for the limits of entities that a manifest declares, as
    /// if it had been applied. `deleted` are the levels that the apply would delete.
    pub async fn declared_limits_above_parent(
        &self,
        manifest: &Manifest,
        deleted: &[Target],
    ) -> Result<Vec<AboveParent>, Error> {
        let namespace = &self.inner.namespace;
        let keys: Vec<Key> = manifest
            .entities
            .keys()
            .map(|id| meta_key(namespace, id))
            .collect();
        let mut levels = Vec::new();
        for item in self.read_all(&keys).await? {
            let meta = MetaRecord::decode(&item)?;
            let scopes = manifest
                .entities
                .get(&meta.entity.id)
                .into_iter()
                .flat_map(BTreeMap::keys);
            levels.extend(scopes.filter_map(|scope| Level::of(&meta, scope.clone())));
        }
        levels.sort_by(|a, b| {
            let name = |level: &Level| (level.meta.entity.id.clone(), level.scope.clone());
            name(a).cmp(&name(b))
        });
        let apply = |configs: &mut BTreeMap<Key, Config>| {
            let mut set = |target: &Target, limits: &[Limit]| {
                let config = configs.entry(target.key(namespace)).or_default();
                (config.limits, config.unsupported) = (limits.to_vec(), None);
            };
            for target in deleted {
                set(target, &[]);
            }
            if let Some(system) = &manifest.system {
                set(&Target::System, &system.limits);
            }
            for (resource, level) in &manifest.resources {
                set(&Target::Resource(resource.clone()), &level.limits);
            }
            for (id, levels) in &manifest.entities {
                for (scope, level) in levels {
                    set(&Target::Entity(id.clone(), scope.clone()), &level.limits);
                }
            }
        };
        self.above(levels, apply).await
    }

    pub(crate) async fn meta(&self, id: &EntityId) -> Result<Option<MetaRecord>, Error> {
        let inner = &self.inner;
        let item = inner
            .place
            .read(&*inner.table, &meta_key(&inner.namespace, id))
            .await?;
        Ok(item.map(|item| MetaRecord::decode(&item)).transpose()?)
    }

    /// The limits of these levels that are above the parent's, with the records as `change` leaves them.
    async fn above(
        &self,
        levels: Vec<Level>,
        change: impl FnOnce(&mut BTreeMap<Key, Config>),
    ) -> Result<Vec<AboveParent>, Error> {
        let namespace = &self.inner.namespace;
        let keys: BTreeSet<Key> = levels.iter().flat_map(|level| level.keys(namespace)).collect();
        let mut configs = BTreeMap::new();
        for item in self.read_all(&Vec::from_iter(keys)).await? {
            if let Some(key) = key_of(&item) {
                configs.insert(key, Config::decode(&item)?);
            }
        }
        change(&mut configs);
        Ok(levels
            .iter()
            .flat_map(|level| level.above(namespace, &configs))
            .collect())
    }
}
