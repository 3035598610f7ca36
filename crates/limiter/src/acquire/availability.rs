//! Asking without taking: how many tokens there are, and when there will be enough.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zae_limiter_core::acquire::Request;
use zae_limiter_core::bucket::{is_disputed, newest_owner};
use zae_limiter_core::config::Resolved;
use zae_limiter_core::limit::Limit;
use zae_limiter_core::outage::policy::last_known;
use zae_limiter_core::schema::{BucketId, key_of};
use zae_limiter_core::verdict::LimitStatus;
use zae_limiter_core::{
    Bucket, EntityId, IntoName, InvalidInput, LimitName, Millitokens, RateLimitExceeded, ResourceName, Wait,
};

use crate::acquire::limiter::{Amounts, RateLimiter, add, both};
use crate::error::Error;
use crate::inner::Inner;
use crate::table::TableExt;

/// How every limit stood at one moment: the entity's, and its parent's if it cascades.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Availability {
    /// When the balances were refilled to.
    #[cfg_attr(feature = "serde", serde(with = "zae_limiter_core::serialized::time"))]
    pub checked_at: SystemTime,
    /// The limits in order, the entity's before its parent's.
    #[cfg_attr(feature = "serde", serde(rename = "limits"))]
    pub statuses: Vec<LimitStatus>,
}

impl Availability {
    /// Whether the tokens asked for could be taken.
    pub fn is_admitted(&self) -> bool {
        self.statuses.iter().all(|status| !status.exceeded)
    }

    /// How long until they can be taken, if no other client takes tokens; `None` if never.
    pub fn retry_after(&self) -> Option<Duration> {
        if self.is_admitted() {
            return Some(Duration::ZERO);
        }
        RateLimitExceeded::new(self.statuses.clone()).retry_after()
    }

    /// Available whole tokens by limit: the lesser of the entity's and its parent's. Negative in debt.
    pub fn available(&self) -> BTreeMap<String, i64> {
        let mut least = BTreeMap::new();
        for status in &self.statuses {
            let entry = least
                .entry(status.limit_name.to_string())
                .or_insert(status.available);
            *entry = status.available.min(*entry);
        }
        least
    }
}

/// Looks at limits, without taking anything. Does nothing until it is awaited.
#[derive(Debug)]
#[must_use = "a check does nothing until it is awaited"]
pub struct Check {
    inner: Arc<Inner>,
    names: Result<(EntityId, ResourceName), InvalidInput>,
    needed: Result<Amounts, InvalidInput>,
}

impl Check {
    /// Names tokens that would be taken: 0 to 10^15 of `limit`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_hour("rph", 10), Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// limiter.acquire("key-1", "gpt-4").consume("tpd", 1_000).await?.commit().await?;
    ///
    /// let check = limiter.check("key-1", "gpt-4").needed("rph", 1).needed("tpd", 500).await?;
    /// assert!(!check.is_admitted());
    /// let refused: Vec<_> = check.statuses.iter().filter(|status| status.exceeded).collect();
    /// assert_eq!((refused.len(), refused[0].limit_name.as_str()), (1, "tpd"));
    /// // 500 of 1,000 a day.
    /// assert!(check.retry_after().unwrap() <= Duration::from_hours(12));
    /// # Ok(()) }
    /// ```
    pub fn needed(mut self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        add(&mut self.needed, "needed", limit, tokens);
        self
    }

    /// Looks; the same as awaiting the check itself.
    ///
    /// # Errors
    /// [`Error::NotConfigured`], [`Error::InvalidInput`], or the table's.
    pub async fn send(self) -> Result<Availability, Error> {
        let (entity, resource) = self.names?;
        self.inner.check(&entity, &resource, &self.needed?).await
    }
}

impl IntoFuture for Check {
    type Output = Result<Availability, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl RateLimiter {
    /// Prepares to look at all limits of an entity and resource, and its parent's if it cascades, without taking anything.
    /// Name what would be taken with [`needed`](Check::needed), if anything, then `.await` it.
    ///
    /// Reads are eventually consistent. What it says may be outdated at once: it never admits, only
    /// [`acquire`](Self::acquire) does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// # use std::time::Duration;
    /// # use zae_limiter::{Limit, RateLimiter, Repository};
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_resource_defaults("gpt-4", [Limit::per_minute("tpm", 1_000)]).await?;
    /// let limiter = RateLimiter::new(repo);
    /// assert_eq!(limiter.check("key-1", "gpt-4").await?.statuses[0].available, 1_000);
    /// let check = limiter.check("key-1", "gpt-4").needed("tpm", 500).await?;
    /// assert_eq!(check.retry_after(), Some(Duration::ZERO));
    /// let check = limiter.check("key-1", "gpt-4").needed("tpm", 1_001).await?;
    /// assert_eq!(check.retry_after(), None, "it never can");
    /// # Ok(()) }
    /// ```
    pub fn check(&self, entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Check {
        Check {
            inner: Arc::clone(&self.repository().inner),
            names: both(entity, resource),
            needed: Ok(Vec::new()),
        }
    }

    /// Whole tokens that are available now, by limit. See [`check`](Self::check).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Limit, NewEntity, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// admin.create_entity(NewEntity::new("key-1").parent("project").cascade(true)).await?;
    /// admin.set_entity_limits("project", ALL_RESOURCES, [Limit::per_day("tpd", 300)]).await?;
    ///
    /// // The key has 1,000 of its own, but its project has fewer.
    /// let limiter = RateLimiter::new(repo);
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 300);
    /// // A correction above the estimate puts both into debt, which is a negative number.
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 200).await?;
    /// lease.adjust_to("tpd", 1_100)?;
    /// lease.commit().await?;
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], -800);
    /// # Ok(()) }
    /// ```
    pub async fn available(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<BTreeMap<String, i64>, Error> {
        Ok(self.check(entity, resource).await?.available())
    }
}

impl Inner {
    /// See [`Check::send`].
    async fn check(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        needed: &[(LimitName, Millitokens)],
    ) -> Result<Availability, Error> {
        let config = self.limits_of(entity, resource).await?;
        for (name, amount) in needed {
            if config.limit(name).is_none() {
                let reason = "no limit of this name is configured for this entity and resource";
                return Err(InvalidInput::of_request(format!("needed.{name}"), amount, reason).into());
            }
        }
        let (mut statuses, bucket) = self.statuses(entity, resource, &config, needed).await?;
        let config = match &bucket {
            Some(bucket) if is_disputed(&bucket.owner, config.owner.as_ref()) => {
                self.resolve_now(entity, resource).await?
            }
            _ => config,
        };
        let owner = match &bucket {
            Some(bucket) if is_disputed(&bucket.owner, config.owner.as_ref()) => config.owner.as_ref(),
            Some(bucket) => newest_owner(&bucket.owner, config.owner.as_ref()),
            None => config.owner.as_ref(),
        };
        if let Some(parent) = owner.and_then(|owner| owner.cascade_parent().cloned()) {
            let config = self.limits_of(&parent, resource).await?;
            statuses.extend(self.statuses(&parent, resource, &config, needed).await?.0);
        }
        for status in &mut statuses {
            // Tokens that this process has taken ahead are for its own calls.
            status.available += self.held_ahead(&status.entity, resource, &status.limit_name);
            if status.exceeded && i128::from(status.available) >= i128::from(status.requested) {
                (status.exceeded, status.wait) = (false, Wait::Millis(0));
            }
        }
        Ok(Availability {
            checked_at: self.clock.now().into(),
            statuses,
        })
    }

    /// The error of a call whose time to wait ended before its turn came, from what this process last knew of the limits
    /// and the bucket: no request is sent for it.
    pub(crate) fn refused_in_queue(&self, request: &Request) -> Error {
        let now = self.clock.now();
        let mut statuses = Vec::new();
        for (resource, amounts) in request.parts() {
            let id = self.bucket_id(&request.id.entity, resource);
            let Some(config) = last_known(&id, request, self) else {
                return self
                    .place
                    .unavailable("the time to wait ended behind other calls of this process".to_owned());
            };
            let hint = self.images.hint(&id, now);
            let shards: BTreeMap<u32, Arc<Bucket>> = hint.older.into_iter().chain(hint.images).collect();
            let status = |(name, need): &(LimitName, Millitokens)| {
                let limit = config.limit(name)?;
                Some(LimitStatus::over_shards(
                    (&id.entity, resource),
                    limit,
                    &shards,
                    *need,
                    now,
                ))
            };
            statuses.extend(amounts.iter().filter_map(status));
        }
        if statuses.iter().any(|status| status.exceeded) {
            RateLimitExceeded::new(statuses).into()
        } else {
            RateLimitExceeded::contended(statuses).into()
        }
    }

    async fn limits_of(&self, entity: &EntityId, resource: &ResourceName) -> Result<Arc<Resolved>, Error> {
        let known = self.config.peek(entity, resource, self.clock.now());
        let config = if let Some(config) = known {
            config
        } else {
            let fetched = self
                .config
                .fetch_unhurried(&self.table, &self.clock, entity, resource, false)
                .await;
            fetched.map_err(|err| self.place.acquire_error(err))?
        };
        if let Some(feature) = &config.unsupported {
            return Err(feature.clone().into());
        }
        if config.limits.is_empty() {
            return Err(Error::NotConfigured {
                entity: entity.to_string(),
                resource: resource.to_string(),
            });
        }
        Ok(config)
    }

    /// The statuses of one entity's limits over all shards, and its first shard.
    async fn statuses(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        config: &Resolved,
        needed: &[(LimitName, Millitokens)],
    ) -> Result<(Vec<LimitStatus>, Option<Arc<Bucket>>), Error> {
        let id = self.bucket_id(entity, resource);
        let shards = self.shards(&id).await?;
        let now = self.clock.now();
        let need = |limit: &Limit| {
            needed
                .iter()
                .find(|(name, _)| name == limit.name())
                .map_or(Millitokens::ZERO, |(_, need)| *need)
        };
        let status =
            |limit: &Limit| LimitStatus::over_shards((entity, resource), limit, &shards, need(limit), now);
        Ok((
            config.limits.iter().map(status).collect(),
            shards.into_values().next(),
        ))
    }

    /// All shards of a bucket; the first one's count says how many there may be.
    async fn shards(&self, id: &BucketId) -> Result<BTreeMap<u32, Arc<Bucket>>, Error> {
        let known = self.images.hint(id, self.clock.now()).shard_count.max(1);
        let mut shards = self.read_shards(id, 0..known).await?;
        let count = shards.get(&0).map_or(1, |first| first.shard_count);
        if count > known {
            shards.extend(self.read_shards(id, known..count).await?);
        }
        Ok(shards)
    }

    async fn read_shards(
        &self,
        id: &BucketId,
        shards: std::ops::Range<u32>,
    ) -> Result<BTreeMap<u32, Arc<Bucket>>, Error> {
        let keys = shards.map(|shard| id.key(shard)).collect();
        let items = self
            .table
            .batch_get(keys, false)
            .await
            .map_err(|err| self.table_error(err))?;
        let mut images = BTreeMap::new();
        for item in &items {
            let shard = key_of(item).and_then(|key| BucketId::parse(&key));
            let image = Bucket::decode(item)?;
            if let Some((_, shard)) = shard {
                images.insert(shard, Arc::new(image));
            }
        }
        Ok(images)
    }
}
