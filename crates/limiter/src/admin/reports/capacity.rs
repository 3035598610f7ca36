//! Who has what left of a resource: the buckets of all entities at once.

use std::collections::{BTreeMap, HashSet};

use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::schema::{BucketId, key_of, meta_key, resource_pk};
use zae_limiter_core::table::{Index, Query};
use zae_limiter_core::{Bucket, EntityId, IntoName, LimitName, Millitokens, ResourceName};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::TableExt as _;

/// Whose buckets count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapacityOf {
    /// Those of every entity that has one.
    Everybody,
    /// Those of created entities without a parent: what a child spends is in its parent's bucket too.
    TopLevel,
}

/// The remaining tokens of all entities for one limit of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ResourceCapacity {
    /// The resource.
    pub resource: ResourceName,
    /// The limit.
    #[cfg_attr(feature = "serde", serde(rename = "limit_name"))]
    pub limit: LimitName,
    /// By entity, in order of id. Only entities that have a bucket: others have all of their limit.
    pub entities: Vec<EntityCapacity>,
}

/// The remaining tokens of one entity for a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EntityCapacity {
    /// The entity.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: EntityId,
    /// The most tokens its bucket can hold.
    pub capacity: u64,
    /// Tokens it holds now, over all shards. Negative in debt.
    pub available: i64,
}

impl EntityCapacity {
    /// The part of the capacity that is spent, in percent; above 100 in debt.
    pub fn utilization_percent(&self) -> f64 {
        percent(i128::from(self.capacity), self.available.into())
    }
}

impl ResourceCapacity {
    /// The most tokens that all buckets together can hold.
    pub fn total_capacity(&self) -> u128 {
        self.entities.iter().map(|one| u128::from(one.capacity)).sum()
    }

    /// Tokens that all buckets together hold now.
    pub fn total_available(&self) -> i128 {
        self.entities.iter().map(|one| i128::from(one.available)).sum()
    }

    /// The part of the total capacity that is spent, in percent.
    pub fn utilization_percent(&self) -> f64 {
        percent(
            i128::try_from(self.total_capacity()).unwrap_or(i128::MAX),
            self.total_available(),
        )
    }
}

fn percent(capacity: i128, available: i128) -> f64 {
    if capacity == 0 {
        return 0.0;
    }
    (capacity - available) as f64 / capacity as f64 * 100.0
}

impl Admin {
    /// Returns the remaining tokens of all entities for one limit of a resource, from the current state of their
    /// buckets.
    ///
    /// Reads every bucket of the resource, eventually consistent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{CapacityOf, Limit, NewEntity, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_resource_defaults("gpt-4", [Limit::per_day("tpd", 1_000)]).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// for key in ["key-1", "key-2"] {
    ///     repo.admin().create_entity(NewEntity::new(key)).await?;
    /// }
    /// limiter.acquire("key-1", "gpt-4").consume("tpd", 900).await?.commit().await?;
    /// limiter.acquire("key-2", "gpt-4").consume("tpd", 100).await?.commit().await?;
    ///
    /// let all = repo.admin().resource_capacity("gpt-4", "tpd", CapacityOf::TopLevel).await?;
    /// let almost_empty = all.entities.iter().filter(|one| one.utilization_percent() > 80.0);
    /// assert_eq!(almost_empty.map(|one| one.entity.as_str()).collect::<Vec<_>>(), ["key-1"]);
    /// assert_eq!((all.total_capacity(), all.total_available()), (2_000, 1_000));
    /// # Ok(()) }
    /// ```
    pub async fn resource_capacity(
        &self,
        resource: impl IntoName<ResourceName>,
        limit: impl IntoName<LimitName>,
        of: CapacityOf,
    ) -> Result<ResourceCapacity, Error> {
        let (resource, limit) = (resource.into_name()?, limit.into_name()?);
        let inner = &self.inner;
        let query = Query::new(Index::Gsi2, resource_pk(&inner.namespace, &resource)).prefix("BUCKET#");
        let name = limit.clone();
        let now = inner.clock.now();
        // A bucket that cannot be read does not hide the others.
        let decode = move |item: &_| {
            let Some((id, _)) = key_of(item).as_ref().and_then(BucketId::parse) else {
                return Ok(None);
            };
            let Ok(bucket) = Bucket::decode(item) else {
                return Ok(None);
            };
            Ok(bucket.limit(name.as_str()).map(|stored| {
                let capacity = bucket.terms_among(stored, 1).whole(now).capacity;
                let tokens = bucket.refilled(stored, now).tokens;
                (id.entity, Millitokens(capacity), tokens)
            }))
        };
        let mut pages = Pages::new(&inner.place, &inner.table, Some(query), decode);
        let mut found: BTreeMap<EntityId, (Millitokens, Millitokens)> = BTreeMap::new();
        while let Some(page) = pages.next_page().await? {
            for (entity, capacity, tokens) in page {
                let (_, sum) = found.entry(entity).or_insert((capacity, Millitokens::ZERO));
                *sum += tokens;
            }
        }
        if of == CapacityOf::TopLevel {
            let tops = self.top_level(found.keys()).await?;
            found.retain(|entity, _| tops.contains(entity));
        }
        let entities = found
            .into_iter()
            .map(|(entity, (capacity, tokens))| EntityCapacity {
                entity,
                capacity: capacity.floor_amount(),
                available: tokens.min(capacity).floor_tokens(),
            })
            .collect();
        Ok(ResourceCapacity {
            resource,
            limit,
            entities,
        })
    }

    /// Those of some entities that were created and have no parent.
    async fn top_level<'a>(
        &self,
        entities: impl Iterator<Item = &'a EntityId>,
    ) -> Result<HashSet<EntityId>, Error> {
        let inner = &self.inner;
        let keys: Vec<_> = entities.map(|id| meta_key(&inner.namespace, id)).collect();
        let items = inner
            .place
            .insisting(BRIEF, || inner.table.batch_get(keys.clone(), false))
            .await?;
        let metas = items.iter().filter_map(|item| MetaRecord::decode(item).ok());
        Ok(metas
            .filter(|meta| meta.entity.parent.is_none())
            .map(|meta| meta.entity.id)
            .collect())
    }
}
