//! Limits of entities that the limits of an entity above keep from being reached.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::config::{Config, Resolved};
use zae_limiter_core::depth::CascadeDepth;
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::manifest::{Manifest, Target};
use zae_limiter_core::resolve::{Slot, Stored, resolve};
use zae_limiter_core::schema::{entity_config_key, entity_pk, key_of, meta_key, system_config_key};
use zae_limiter_core::table::{Index, Key, Query};
use zae_limiter_core::{EntityId, EpochMillis, IntoName, Limit, NamespaceId, ResourceName, ResourceScope};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::error::Error;

/// A limit of an entity that is above that of an entity which its requests debit, too. See [`Admin::limits_above_parent`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AboveParent {
    /// The entity.
    pub entity: EntityId,
    /// The resource that the limit is for, or all.
    pub resource: ResourceScope,
    /// The parent, or another entity above it.
    pub parent: EntityId,
    /// How far above: 1 for the parent.
    pub distance: usize,
    /// The entity's limit.
    pub limit: Limit,
    /// The limit of the same name that is in force for the parent.
    pub parents: Limit,
}

/// A level of an entity that has a parent.
struct Level {
    /// The entity, and those above it that have a parent of their own, as far as requests are followed.
    chain: Vec<MetaRecord>,
    scope: ResourceScope,
}

impl Level {
    /// The entity.
    fn id(&self) -> Option<&EntityId> {
        Some(&self.chain.first()?.entity.id)
    }

    /// The entities above it, nearest first.
    fn ancestors(&self) -> impl Iterator<Item = &EntityId> {
        self.chain.iter().filter_map(|meta| meta.entity.parent.as_ref())
    }

    /// The records of configuration that decide whether its limits are above those of an entity above.
    fn keys(&self, namespace: &NamespaceId) -> Vec<Key> {
        let all = self.id().into_iter().chain(self.ancestors());
        match &self.scope {
            ResourceScope::One(resource) => {
                let levels = [Slot::Entity, Slot::EntityDefault, Slot::Resource, Slot::System];
                all.flat_map(|id| levels.map(|slot| slot.key(namespace, id, resource)))
                    .collect()
            }
            ResourceScope::All => {
                let of = |id| entity_config_key(namespace, id, &ResourceScope::All);
                all.map(of).chain([system_config_key(namespace)]).collect()
            }
        }
    }

    /// Whether requests of an entity debit its parent, with these records.
    fn cascades(&self, meta: &MetaRecord, namespace: &NamespaceId, configs: &BTreeMap<Key, Config>) -> bool {
        match &self.scope {
            ResourceScope::One(resource) => {
                let resolved = in_force((&meta.entity.id, Some(meta)), resource, namespace, configs);
                resolved.owner.is_some_and(|owner| owner.cascade)
            }
            ResourceScope::All => meta.entity.cascade,
        }
    }

    /// The limits in force for an entity above, with these records.
    fn limits_of(
        &self,
        id: &EntityId,
        namespace: &NamespaceId,
        configs: &BTreeMap<Key, Config>,
    ) -> Vec<Limit> {
        match &self.scope {
            ResourceScope::One(resource) => in_force((id, None), resource, namespace, configs).limits,
            // Without a resource, its limits for all of them, or those of the system.
            ResourceScope::All => {
                let own = entity_config_key(namespace, id, &ResourceScope::All);
                let levels = [own, system_config_key(namespace)];
                let mut levels = levels.iter().filter_map(|key| configs.get(key));
                levels
                    .find(|config| !config.limits.is_empty())
                    .map_or_else(Vec::new, |config| config.limits.clone())
            }
        }
    }

    /// Its limits that are above those of an entity above, with these records.
    fn above(&self, namespace: &NamespaceId, configs: &BTreeMap<Key, Config>) -> Vec<AboveParent> {
        let mut found = Vec::new();
        let Some(id) = self.id() else { return found };
        let own = entity_config_key(namespace, id, &self.scope);
        let own = configs.get(&own).map_or(&[][..], |config| &config.limits);
        for ((distance, below), parent) in (1..).zip(&self.chain).zip(self.ancestors()) {
            if !self.cascades(below, namespace, configs) {
                break;
            }
            let of_parent = self.limits_of(parent, namespace, configs);
            found.extend(own.iter().filter_map(|limit| {
                let parents = of_parent.iter().find(|parents| parents.name() == limit.name())?;
                is_above(limit, parents).then(|| AboveParent {
                    entity: id.clone(),
                    resource: self.scope.clone(),
                    parent: parent.clone(),
                    distance,
                    limit: limit.clone(),
                    parents: parents.clone(),
                })
            }));
        }
        found
    }
}

/// What applies to an entity and resource, with these records.
fn in_force(
    (id, meta): (&EntityId, Option<&MetaRecord>),
    resource: &ResourceName,
    namespace: &NamespaceId,
    configs: &BTreeMap<Key, Config>,
) -> Resolved {
    let stored = Slot::ALL.map(|slot| Stored {
        meta: meta.filter(|_| slot == Slot::Meta).cloned(),
        config: configs.get(&slot.key(namespace, id, resource)).cloned(),
        depth: None,
    });
    resolve(id, stored.each_ref(), EpochMillis::default())
}

/// Whether a limit has a higher capacity or rate than another one.
fn is_above(limit: &Limit, other: &Limit) -> bool {
    let (one, two) = (limit.params(), other.params());
    let have_rates = !limit.is_quota() && !other.is_quota();
    let is_faster = have_rates && one.refill * two.period_ms > two.refill * one.period_ms;
    one.capacity > two.capacity || is_faster
}

impl Admin {
    /// The limits of an entity that those of its parent, or of another entity that its requests debit, keep it from reaching: for each of
    /// the entity's own limits for a resource or for [`ALL_RESOURCES`](crate::ALL_RESOURCES) with a higher capacity or rate
    /// than the limit of the same name that is in force for an entity above, the two. Empty unless the entity cascades. How far
    /// up it looks is for the [cascade depth](Self::cascade_depth) to say.
    ///
    /// Requests above the capacity of an entity above are never admitted, so that such a limit is usually a mistake.
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
        let levels = self.chains(Vec::from_iter(self.meta(&id).await?)).await?;
        let level = |chain| Level {
            chain,
            scope: scope.clone(),
        };
        self.above(levels.into_iter().map(level).collect(), |_| ()).await
    }

    /// As [`limits_above_parent`](Self::limits_above_parent), for all limits that the entity has of its own.
    pub async fn all_limits_above_parent(
        &self,
        entity: impl IntoName<EntityId>,
    ) -> Result<Vec<AboveParent>, Error> {
        let inner = &self.inner;
        let id = entity.into_name()?;
        let mut chains = self.chains(Vec::from_iter(self.meta(&id).await?)).await?;
        let Some(chain) = chains.pop() else {
            return Ok(Vec::new());
        };
        let query = Query::new(Index::Primary, entity_pk(&inner.namespace, &id)).prefix("#CONFIG#");
        let scopes = Pages::new(&inner.place, &inner.table, Some(query), |item| {
            let scope =
                key_of(item).and_then(|key| ResourceScope::new(key.sk.strip_prefix("#CONFIG#")?).ok());
            Ok(scope)
        });
        let scopes = scopes.all().await?.into_iter();
        let level = |scope| Level {
            chain: chain.clone(),
            scope,
        };
        self.above(scopes.map(level).collect(), |_| ()).await
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
        let metas = self.read_all(&keys).await?;
        let metas = metas.iter().map(MetaRecord::decode);
        let mut levels = Vec::new();
        for chain in self.chains(metas.collect::<Result<_, _>>()?).await? {
            let declared = chain
                .first()
                .and_then(|own| manifest.entities.get(&own.entity.id));
            levels.extend(declared.into_iter().flat_map(BTreeMap::keys).map(|scope| Level {
                chain: chain.clone(),
                scope: scope.clone(),
            }));
        }
        levels.sort_by(|a, b| (a.id(), &a.scope).cmp(&(b.id(), &b.scope)));
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

    /// Of these entities, those that have a parent, each with the entities above it that have one, as far as requests are followed.
    async fn chains(&self, metas: Vec<MetaRecord>) -> Result<Vec<Vec<MetaRecord>>, Error> {
        let has_parent = |meta: &MetaRecord| meta.entity.parent.is_some();
        let chains = metas.into_iter().filter(has_parent).map(|meta| vec![meta]);
        let mut chains: Vec<_> = chains.collect();
        if chains.is_empty() {
            return Ok(chains);
        }
        let namespace = &self.inner.namespace;
        for _ in CascadeDepth::MIN.get()..self.depth().await?.get() {
            let parent = |chain: &Vec<MetaRecord>| {
                let parent = chain.last()?.entity.parent.clone()?;
                let is_new = chain.iter().all(|meta| meta.entity.id != parent);
                is_new.then_some(parent)
            };
            let wanted: BTreeSet<EntityId> = chains.iter().filter_map(parent).collect();
            let keys: Vec<Key> = wanted.iter().map(|id| meta_key(namespace, id)).collect();
            let mut above = BTreeMap::new();
            for item in self.read_all(&keys).await? {
                let meta = MetaRecord::decode(&item)?;
                above.insert(meta.entity.id.clone(), meta);
            }
            for chain in &mut chains {
                let meta = parent(chain).and_then(|parent| above.get(&parent));
                chain.extend(meta.filter(|meta| has_parent(meta)).cloned());
            }
        }
        Ok(chains)
    }

    /// The limits of these levels that are above those of an entity above, with the records as `change` leaves them.
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
