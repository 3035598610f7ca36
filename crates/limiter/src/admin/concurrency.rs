//! Concurrency limits at the four levels, and the places in flight.

use std::time::SystemTime;

use zae_limiter_core::concurrency::{check_in_flight, concurrency_item, concurrency_keys, concurrency_limit};
use zae_limiter_core::flight::{Holders, flight_key};
use zae_limiter_core::manifest::{Setting, Target};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Condition, Delete, Key, Put};
use zae_limiter_core::{EntityId, IntoName, ResourceName, ResourceScope};

use crate::admin::Admin;
use crate::admin::retry::BRIEF;
use crate::admin::setting::setting_event;
use crate::error::Error;
use crate::table::TableExt as _;

/// A place in flight that a lease holds, or has held until it crashed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaceInFlight {
    /// The name of the holder: of one lease, and of no other.
    pub holder: String,
    /// When it expires unless the lease renews it. Others can take it 5 s later.
    pub expires_at: SystemTime,
    /// Whether others can take it now.
    pub is_expired: bool,
}

impl Admin {
    /// Sets how many requests of an entity may be in flight at the same time, from 1 to 1000: for one resource, or for
    /// [`ALL_RESOURCES`](crate::ALL_RESOURCES) that have no limit of their own. Each resource has its own places.
    ///
    /// Requests that are in flight stay so, also if there are more than the new limit. Other processes go by the old limit until their
    /// cached configuration has expired. Only calls that ask for a place are limited: [`Acquire::in_flight`](crate::Acquire::in_flight).
    /// Clients of the Python library know neither the limit nor places.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{RateLimiter, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_concurrency("gpt-4", 10).await?;
    /// admin.set_entity_concurrency("key-1", "gpt-4", 2).await?;
    /// assert_eq!(admin.effective_concurrency("key-1", "gpt-4").await?, Some(2));
    /// assert_eq!(admin.effective_concurrency("key-2", "gpt-4").await?, Some(10));
    ///
    /// let lease = RateLimiter::new(repo.clone()).acquire("key-1", "gpt-4").in_flight().await?;
    /// assert_eq!(admin.places_in_flight("key-1", "gpt-4").await?.len(), 1);
    /// lease.commit().await?;
    /// assert!(admin.delete_entity_concurrency("key-1", "gpt-4").await?);
    /// assert_eq!(admin.effective_concurrency("key-1", "gpt-4").await?, Some(10));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written.
    pub async fn set_entity_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        limit: u32,
    ) -> Result<(), Error> {
        let target = Target::Entity(entity.into_name()?, resource.into_name()?);
        self.set_concurrency(&target, limit).await
    }

    /// Reads the concurrency limit of an entity's own level; `None` if it has none.
    pub async fn entity_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Option<u32>, Error> {
        let target = Target::Entity(entity.into_name()?, resource.into_name()?);
        self.concurrency(&target).await
    }

    /// Deletes the concurrency limit of an entity's own level. Returns whether there was one.
    pub async fn delete_entity_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<bool, Error> {
        let target = Target::Entity(entity.into_name()?, resource.into_name()?);
        self.delete_concurrency(&target).await
    }

    /// Sets the concurrency limit of each entity on a resource, unless it has one of its own:
    /// [`set_entity_concurrency`](Self::set_entity_concurrency).
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written.
    pub async fn set_resource_concurrency(
        &self,
        resource: impl IntoName<ResourceName>,
        limit: u32,
    ) -> Result<(), Error> {
        let target = Target::Resource(resource.into_name()?);
        self.set_concurrency(&target, limit).await
    }

    /// Reads the concurrency limit of a resource; `None` if it has none.
    pub async fn resource_concurrency(
        &self,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Option<u32>, Error> {
        let target = Target::Resource(resource.into_name()?);
        self.concurrency(&target).await
    }

    /// Deletes the concurrency limit of a resource. Returns whether there was one.
    pub async fn delete_resource_concurrency(
        &self,
        resource: impl IntoName<ResourceName>,
    ) -> Result<bool, Error> {
        let target = Target::Resource(resource.into_name()?);
        self.delete_concurrency(&target).await
    }

    /// Sets the concurrency limit of each entity on each resource, unless another level says otherwise:
    /// [`set_entity_concurrency`](Self::set_entity_concurrency).
    ///
    /// # Errors
    /// [`Error::InvalidInput`] before anything is written.
    pub async fn set_system_concurrency(&self, limit: u32) -> Result<(), Error> {
        self.set_concurrency(&Target::System, limit).await
    }

    /// Reads the concurrency limit of the system level; `None` if it has none.
    pub async fn system_concurrency(&self) -> Result<Option<u32>, Error> {
        self.concurrency(&Target::System).await
    }

    /// Deletes the concurrency limit of the system level. Returns whether there was one.
    pub async fn delete_system_concurrency(&self) -> Result<bool, Error> {
        self.delete_concurrency(&Target::System).await
    }

    /// The concurrency limit that holds for an entity and resource: that of the most specific level which has one, in the order
    /// of other limits. `None` if no level has one.
    pub async fn effective_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Option<u32>, Error> {
        let (entity, resource) = (entity.into_name()?, resource.into_name()?);
        let inner = &self.inner;
        let levels = concurrency_keys(&inner.namespace, &entity, &resource);
        let keys: Vec<Key> = levels.iter().map(|(_, key)| key.clone()).collect();
        let read = || inner.table.batch_get(keys.clone(), true);
        let items = inner.place.insisting(BRIEF, read).await?;
        for (_, key) in levels {
            if let Some(item) = items.iter().find(|item| key_of(item).as_ref() == Some(&key)) {
                return Ok(Some(concurrency_limit(item)?));
            }
        }
        Ok(None)
    }

    /// The places that requests of an entity hold on a resource, in the order of their expiry. Those of crashed processes stay
    /// listed after their expiry, until a request needs them.
    pub async fn places_in_flight(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Vec<PlaceInFlight>, Error> {
        let id = self.inner.bucket_id(&entity.into_name()?, &resource.into_name()?);
        let item = self.read(&flight_key(&id)).await?;
        let holders = Holders::decode(item.as_ref())?;
        let expired = holders.expired(self.inner.clock.now());
        let mut places: Vec<_> = holders.iter().collect();
        places.sort_by_key(|(_, expiry)| *expiry);
        let place = |(holder, expiry): (&str, zae_limiter_core::EpochMillis)| PlaceInFlight {
            holder: holder.to_owned(),
            expires_at: expiry.into(),
            is_expired: expired.iter().any(|(name, _)| name == holder),
        };
        Ok(places.into_iter().map(place).collect())
    }

    async fn concurrency(&self, target: &Target) -> Result<Option<u32>, Error> {
        let setting = Setting::Concurrency(target.clone());
        let item = self.read(&setting.key(&self.inner.namespace)).await?;
        Ok(item.as_ref().map(concurrency_limit).transpose()?)
    }

    async fn set_concurrency(&self, target: &Target, limit: u32) -> Result<(), Error> {
        let limit = check_in_flight("concurrency", limit)?;
        let inner = &self.inner;
        let setting = Setting::Concurrency(target.clone());
        let key = setting.key(&inner.namespace);
        let put = Put {
            item: concurrency_item(&inner.namespace, &key, &target.identity(), limit),
            condition: Condition::ALWAYS,
        };
        // Without a condition it is never refused.
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.put(put.clone()))
            .await?;
        self.forget_setting(&setting);
        self.audit(setting_event(&setting, None, Some(limit))).await
    }

    async fn delete_concurrency(&self, target: &Target) -> Result<bool, Error> {
        let inner = &self.inner;
        let setting = Setting::Concurrency(target.clone());
        let key = setting.key(&inner.namespace);
        let Some(old) = self.read(&key).await? else {
            return Ok(false);
        };
        let delete = Delete {
            key,
            condition: Condition::ALWAYS,
        };
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.delete(delete.clone()))
            .await?;
        self.forget_setting(&setting);
        self.audit(setting_event(&setting, concurrency_limit(&old).ok(), None))
            .await?;
        Ok(true)
    }
}
