//! Flags of levels: who is refused, who is let through, whose requests count for the parent too, and for how many above.

mod depth;
mod moves;
pub(crate) mod stamps;

use zae_limiter_core::config::Access;
use zae_limiter_core::manifest::Target;
use zae_limiter_core::table::{Item, Value};
use zae_limiter_core::version::{Gate, Gated};
use zae_limiter_core::{EntityId, IntoName, ResourceName, ResourceScope};

use crate::admin::Admin;
use crate::admin::access::stamps::{Stamp, stamped_count};
use crate::admin::levels::{LevelRecord, event};
use crate::error::Error;

impl Admin {
    /// Sets what a resource says about access, for all entities that say nothing of their own: [`Access::Disabled`] refuses every
    /// request with [`Error::Disabled`], [`Access::Bypass`] admits and counts every request without debiting anything, and
    /// [`Access::Enabled`] enforces limits. `None` takes the word back, which has the effect of `Enabled`.
    ///
    /// Carries it to all live buckets of the resource, and returns how many shards that were. From then on each process
    /// goes by it at its next request to the table. What a process has [taken ahead](crate::RepositoryBuilder::prefetch) it may
    /// still spend.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Access, Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_day("rpd", 10)]).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 1).await?.commit().await?;
    ///
    /// assert_eq!(admin.set_resource_access("gpt-4", Access::Disabled).await?, 1, "one bucket");
    /// assert!(matches!(limiter.acquire("key-1", "gpt-4").consume("rpd", 1).await, Err(Error::Disabled { .. })));
    ///
    /// // One key may go on: the word of the entity comes before that of the resource.
    /// admin.set_entity_access("key-1", "gpt-4", Access::Enabled).await?;
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 1).await?.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::FanoutIncomplete`] if the flag is set but not every live bucket was stamped: call it again.
    /// [`Error::VersionMismatch`], before anything is written, if a bypass would be set on a table whose functions predate it.
    pub async fn set_resource_access(
        &self,
        resource: impl IntoName<ResourceName>,
        access: impl Into<Option<Access>>,
    ) -> Result<usize, Error> {
        self.set_access(Target::Resource(resource.into_name()?), access.into())
            .await
    }

    /// Sets what an entity says about access to a resource, or to [all](crate::ALL_RESOURCES) for which it says nothing more
    /// particular. The effects are those of [`set_resource_access`](Self::set_resource_access), over which it takes precedence.
    ///
    /// A bypass of an entity does not extend to its parent, which enforces its own limits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Access, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_system_defaults([Limit::per_day("rpd", 1)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// admin.set_entity_access("load-test", ALL_RESOURCES, Access::Bypass).await?;
    /// for _ in 0..10 {
    ///     let lease = limiter.acquire("load-test", "gpt-4").consume("rpd", 1).await?;
    ///     assert!(lease.is_bypassed());
    ///     lease.commit().await?;
    /// }
    /// admin.set_entity_access("load-test", ALL_RESOURCES, None).await?;
    /// assert_eq!(limiter.available("load-test", "gpt-4").await?["rpd"], 1, "nothing was debited");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`set_resource_access`](Self::set_resource_access).
    pub async fn set_entity_access(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        access: impl Into<Option<Access>>,
    ) -> Result<usize, Error> {
        let target = Target::Entity(entity.into_name()?, resource.into_name()?);
        self.set_access(target, access.into()).await
    }

    /// What a resource says about access; `None` if nothing.
    pub async fn resource_access(
        &self,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Option<Access>, Error> {
        self.access(&Target::Resource(resource.into_name()?)).await
    }

    /// What an entity says about access to a resource, or to [all](crate::ALL_RESOURCES); `None` if nothing.
    pub async fn entity_access(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Option<Access>, Error> {
        self.access(&Target::Entity(entity.into_name()?, resource.into_name()?))
            .await
    }

    async fn access(&self, target: &Target) -> Result<Option<Access>, Error> {
        Ok(self.level(&target.key(&self.inner.namespace)).await?.access)
    }

    async fn set_access(&self, target: Target, access: Option<Access>) -> Result<usize, Error> {
        if access == Some(Access::Bypass) {
            self.pass(&Gate::of_part(Gated::Bypass)).await?;
        }
        let flag = access.map(Access::value);
        self.set_flag(&target, "disabled", flag, Stamp::Access).await
    }

    /// Sets whether requests for a resource are debited from the parents of the entities that make them, for all entities that say
    /// nothing of their own. `None` takes the word back: then it is as the entity was created.
    ///
    /// Carries it to all live buckets of the resource, and returns how many shards that changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Limit, NewEntity, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_system_defaults([Limit::per_day("rpd", 10)], None).await?;
    /// admin.create_entity(NewEntity::new("project")).await?;
    /// admin.create_entity(NewEntity::new("key-1").parent("project").cascade(true)).await?;
    /// // Embeddings are not charged to the project.
    /// admin.set_resource_cascade("embeddings", false).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// for resource in ["gpt-4", "embeddings"] {
    ///     limiter.acquire("key-1", resource).consume("rpd", 1).await?.commit().await?;
    /// }
    /// assert_eq!(limiter.available("project", "gpt-4").await?["rpd"], 9);
    /// assert_eq!(limiter.available("project", "embeddings").await?["rpd"], 10);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`set_resource_access`](Self::set_resource_access).
    pub async fn set_resource_cascade(
        &self,
        resource: impl IntoName<ResourceName>,
        cascade: impl Into<Option<bool>>,
    ) -> Result<usize, Error> {
        self.set_cascade(&Target::Resource(resource.into_name()?), cascade.into())
            .await
    }

    /// Sets whether an entity's requests for a resource, or for [all](crate::ALL_RESOURCES) for which it says nothing more
    /// particular, are debited from its parent. It takes precedence over the word of the resource.
    ///
    /// # Errors
    /// As [`set_resource_access`](Self::set_resource_access).
    pub async fn set_entity_cascade(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        cascade: impl Into<Option<bool>>,
    ) -> Result<usize, Error> {
        let target = Target::Entity(entity.into_name()?, resource.into_name()?);
        self.set_cascade(&target, cascade.into()).await
    }

    /// What a resource says about cascading; `None` if nothing.
    pub async fn resource_cascade(
        &self,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Option<bool>, Error> {
        let target = Target::Resource(resource.into_name()?);
        Ok(self.level(&target.key(&self.inner.namespace)).await?.cascade)
    }

    /// What an entity says about cascading for a resource, or for [all](crate::ALL_RESOURCES); `None` if nothing.
    pub async fn entity_cascade(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Option<bool>, Error> {
        let target = Target::Entity(entity.into_name()?, resource.into_name()?);
        Ok(self.level(&target.key(&self.inner.namespace)).await?.cascade)
    }

    async fn set_cascade(&self, target: &Target, cascade: Option<bool>) -> Result<usize, Error> {
        self.pass(&Gate::of_part(Gated::CascadePolicy)).await?;
        let flag = cascade.map(Value::Bool);
        self.set_flag(target, "cascade", flag, Stamp::Owner).await
    }

    /// Sets or removes a flag of a level, and stamps live buckets.
    async fn set_flag(
        &self,
        target: &Target,
        name: &'static str,
        value: Option<Value>,
        stamp: Stamp,
    ) -> Result<usize, Error> {
        let inner = &self.inner;
        let record = LevelRecord::of(&inner.namespace, target);
        self.write_flag(&record, name, value.clone()).await?;
        // Before the buckets, so that no acquire of this process goes by the old word.
        inner.config.forget(&record.key);
        let told = self.stamp_all(&self.buckets_below(target), stamp).await;
        let details = Item::from([
            (name.into(), value.unwrap_or(Value::Null)),
            ("buckets_stamped".into(), stamped_count(&told)),
        ]);
        // Log the change even if the fan-out failed.
        let logged = self.audit(event(target, "limits_set", details)).await;
        let stamped = told?;
        logged.map(|()| stamped)
    }
}
