//! Asking without taking: how many tokens there are, and when there will be enough.

mod look;
mod places;

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zae_limiter_core::limit::Limit;
use zae_limiter_core::verdict::LimitStatus;
use zae_limiter_core::{EntityId, IntoName, InvalidInput, LimitName, RateLimitExceeded, ResourceName};

use crate::acquire::limiter::{Amounts, RateLimiter, add, both};
use crate::error::Error;
use crate::inner::Inner;

/// What an acquire would have found at one moment: how every limit stood, the entity's and its parent's if it cascades, and whether
/// they applied.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Availability {
    /// The entity asked about.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: EntityId,
    /// The resource asked about.
    pub resource: ResourceName,
    /// The moment. All numbers are as of then.
    #[cfg_attr(feature = "serde", serde(with = "zae_limiter_core::serialized::time"))]
    pub checked_at: SystemTime,
    /// The entities whose limits a request is measured by: the one asked about, and those above it that it debits, nearest first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub chain: Vec<EntityId>,
    /// How the limits stood, the entity's before its parent's.
    #[cfg_attr(feature = "serde", serde(rename = "limits"))]
    pub statuses: Vec<LimitStatus>,
    /// The limits of the entity as they are configured, in the order of its statuses.
    pub configured: Vec<Limit>,
    /// Who is refused every request: the parent, or else the entity.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub disabled: Option<DisabledBy>,
    /// Those of the entity and its parent whose requests are only counted, under a bypass.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub bypassed: Vec<EntityId>,
    /// The places in flight, if they were [asked for](Check::in_flight): the entity's, before those of the entities above it that have
    /// a concurrency limit of their own.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub places: Vec<PlacesTaken>,
}

/// How many of an entity's places are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PlacesTaken {
    /// The entity, or one above it.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: EntityId,
    /// How many requests may be in flight at the same time.
    #[cfg_attr(feature = "serde", serde(rename = "max_in_flight"))]
    pub limit: u32,
    /// How many are, without those of crashed processes whose places another request can take. More than the limit if it was
    /// lowered.
    pub in_flight: u32,
}

impl PlacesTaken {
    /// Whether all are taken.
    pub fn is_full(&self) -> bool {
        self.in_flight >= self.limit
    }
}

/// Who is disabled, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DisabledBy {
    /// The entity, or its parent.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: EntityId,
    /// Where the flag is: `entity`, `entity_default`, `resource` or `bucket`, as in [`Error::Disabled`].
    pub level: String,
}

impl Availability {
    /// Whether an acquire of the tokens and the place asked for would have been admitted. Without any: whether the entity is not
    /// disabled.
    pub fn is_admitted(&self) -> bool {
        self.disabled.is_none() && self.has_tokens() && !self.is_full()
    }

    /// Whether all places of the entity, or of one above it, are taken, so that a request for one is refused. Under a bypass, no
    /// place is taken, and none is missing.
    pub fn is_full(&self) -> bool {
        let mut places = self.places.iter();
        places.any(|of| of.is_full() && !self.bypassed.contains(&of.entity))
    }

    fn has_tokens(&self) -> bool {
        self.statuses.iter().all(|status| !status.exceeded)
    }

    /// Whether requests of the entity are only counted, under a bypass. Those of its parent can be under one of its own, see
    /// [`bypassed`](Self::bypassed).
    pub fn is_bypassed(&self) -> bool {
        self.bypassed.contains(&self.entity)
    }

    /// How long until the tokens asked for can be taken, if no other client takes tokens. `None` if no wait helps: an amount is larger
    /// than its limit, or the entity is disabled. When a place in flight becomes free is not known, and does not count.
    pub fn retry_after(&self) -> Option<Duration> {
        if self.disabled.is_some() {
            return None;
        }
        if self.has_tokens() {
            return Some(Duration::ZERO);
        }
        RateLimitExceeded::new(self.statuses.clone()).retry_after()
    }

    /// How a limit of the entity stood. For those of the parent, look through [`statuses`](Self::statuses).
    pub fn status(&self, limit: &str) -> Option<&LimitStatus> {
        let mut own = self.statuses.iter().filter(|status| status.entity == self.entity);
        own.find(|status| status.limit_name == limit)
    }

    /// The limits that the tokens asked for exceed.
    pub fn exceeded(&self) -> impl Iterator<Item = &LimitStatus> {
        self.statuses.iter().filter(|status| status.exceeded)
    }

    /// Available whole tokens by limit: the lesser of the entity's and its parent's. Negative in debt.
    pub fn available(&self) -> BTreeMap<String, i64> {
        self.by_limit(|status| Some(status.available), i64::min)
    }

    /// The tokens that were asked for, by limit, without amounts of 0.
    pub fn needed(&self) -> BTreeMap<String, u64> {
        self.by_limit(
            |status| Some(status.requested).filter(|tokens| *tokens > 0),
            u64::max,
        )
    }

    /// The tokens that are missing, by limit that is exceeded: the greater of the entity's and its parent's.
    pub fn deficit(&self) -> BTreeMap<String, u64> {
        self.by_limit(|status| status.exceeded.then(|| status.deficit()), u64::max)
    }

    /// When each quota and session limit is whole again: the later of the entity's and its parent's.
    pub fn resets_at(&self) -> BTreeMap<String, SystemTime> {
        self.by_limit(|status| status.resets_at.map(SystemTime::from), SystemTime::max)
    }

    fn by_limit<T>(
        &self,
        value: impl Fn(&LimitStatus) -> Option<T>,
        both: fn(T, T) -> T,
    ) -> BTreeMap<String, T> {
        let mut found = BTreeMap::new();
        for status in &self.statuses {
            let Some(mut value) = value(status) else { continue };
            if let Some(other) = found.remove(status.limit_name.as_str()) {
                value = both(value, other);
            }
            found.insert(status.limit_name.to_string(), value);
        }
        found
    }
}

/// Looks at limits, without taking anything. Does nothing until it is awaited.
#[derive(Debug)]
#[must_use = "a check does nothing until it is awaited"]
pub struct Check {
    inner: Arc<Inner>,
    names: Result<(EntityId, ResourceName), InvalidInput>,
    needed: Result<Amounts, InvalidInput>,
    wish: Wish,
}

/// How a look is done.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    /// Whether it reads what all writes that were answered before have left.
    consistent: bool,
    /// Whether it looks at places in flight.
    places: bool,
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
    /// assert_eq!(check.deficit(), [("tpd".to_owned(), 500)].into());
    /// // 500 of 1,000 a day.
    /// assert!(check.retry_after().unwrap() <= Duration::from_hours(12));
    /// # Ok(()) }
    /// ```
    pub fn needed(mut self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        add(&mut self.needed, "needed", limit, tokens);
        self
    }

    /// Reads what all writes that were answered before have left, the configuration included. Costs twice as much for buckets, and a
    /// read of the configuration.
    pub fn consistent(mut self) -> Self {
        self.wish.consistent = true;
        self
    }

    /// Looks at the places in flight, too: the entity's, and those of entities above it that an
    /// [acquire with a place](crate::Acquire::in_flight) would take. Costs a batch of one record for each of them, and reads of their
    /// concurrency limits, which are cached as other configuration. There need not be any other limits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_resource_concurrency("export", 2).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let _export = limiter.acquire("tenant-1", "export").in_flight().await?;
    /// let check = limiter.check("tenant-1", "export").in_flight().await?;
    /// assert_eq!((check.places[0].in_flight, check.places[0].limit), (1, 2));
    /// assert!(check.is_admitted());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`send`](Self::send) fails with [`Error::InvalidInput`] if no level has a concurrency limit for the entity.
    pub fn in_flight(mut self) -> Self {
        self.wish.places = true;
        self
    }

    /// Looks; the same as awaiting the check itself.
    ///
    /// # Errors
    /// [`Error::NotConfigured`], [`Error::InvalidInput`], or the table's.
    pub async fn send(self) -> Result<Availability, Error> {
        let (entity, resource) = self.names?;
        self.inner
            .check(&entity, &resource, &self.needed?, self.wish)
            .await
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
    /// The answer is what an acquire of these tokens would find: over all shards of the bucket, refilled to the moment, with
    /// resets and ends of sessions that no write has applied yet, and with what is disabled or under a bypass. Limits that are not
    /// named never refuse. One that is named with 0 tokens does if it is in debt, as in an acquire. What it says may be outdated at
    /// once: it never admits, only [`acquire`](Self::acquire) does. An acquire that is larger than what one shard holds of a quota can
    /// be refused although all shards have enough together.
    ///
    /// It reads the shards of the one resource, in one or two batches with those of the parent, however many resources the entity
    /// uses. Reads are eventually consistent; see [`consistent`](Check::consistent). The configuration comes from the cache, but
    /// where an acquire would read it: before the first use of a bucket, and where it disables or lets through.
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
            wish: Wish::default(),
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

    /// How long until these tokens can be taken, if no other client takes tokens; `None` if no wait helps. See
    /// [`check`](Self::check).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// assert_eq!(limiter.time_until_available("key-1", "gpt-4", [("rph", 10)]).await?, Some(Duration::ZERO));
    /// assert_eq!(limiter.time_until_available("key-1", "gpt-4", [("rph", 11)]).await?, None);
    /// # Ok(()) }
    /// ```
    pub async fn time_until_available<L: IntoName<LimitName>>(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
        needed: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<Option<Duration>, Error> {
        let check = self.check(entity, resource);
        let check = needed
            .into_iter()
            .fold(check, |check, (limit, tokens)| check.needed(limit, tokens));
        Ok(check.await?.retry_after())
    }
}
