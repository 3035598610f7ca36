//! The blocking [`RateLimiter`], and its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lease::Lease;
use super::repository::Repository;
use super::runtime::Engine;
use crate::{
    Availability, EntityId, Error, IntoLimit, IntoName, LimitName, OnUnavailable, Prefetch,
    RateLimitExceeded, ResourceName,
};

/// The blocking [`RateLimiter`](crate::RateLimiter).
#[derive(Debug, Clone)]
pub struct RateLimiter {
    inner: crate::RateLimiter,
    repository: Repository,
}

impl RateLimiter {
    /// See [`crate::RateLimiter::new`].
    pub fn new(repository: Repository) -> Self {
        Self {
            inner: crate::RateLimiter::new(repository.inner.clone()),
            repository,
        }
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// See [`crate::RateLimiter::acquire`]; end the call with [`Acquire::send`] or [`Acquire::run`].
    pub fn acquire(&self, entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Acquire {
        Acquire {
            inner: self.inner.acquire(entity, resource),
            runtime: Arc::clone(&self.repository.runtime),
        }
    }

    /// See [`crate::RateLimiter::check`]; end the call with [`Check::send`].
    pub fn check(&self, entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Check {
        Check {
            inner: self.inner.check(entity, resource),
            runtime: Arc::clone(&self.repository.runtime),
        }
    }

    /// See [`crate::RateLimiter::available`].
    pub fn available(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<BTreeMap<String, i64>, Error> {
        self.repository.wait(self.inner.available(entity, resource))
    }

    /// See [`crate::RateLimiter::time_until_available`].
    pub fn time_until_available<L: IntoName<LimitName>>(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
        needed: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<Option<Duration>, Error> {
        let wait = self.inner.time_until_available(entity, resource, needed);
        self.repository.wait(wait)
    }
}

/// The blocking [`Check`](crate::Check).
#[derive(Debug)]
#[must_use = "a check does nothing until it is sent"]
pub struct Check {
    inner: crate::Check,
    runtime: Arc<Engine>,
}

impl Check {
    /// See [`crate::Check::needed`].
    pub fn needed(mut self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        self.inner = self.inner.needed(limit, tokens);
        self
    }

    /// See [`crate::Check::consistent`].
    pub fn consistent(mut self) -> Self {
        self.inner = self.inner.consistent();
        self
    }

    /// See [`crate::Check::in_flight`].
    pub fn in_flight(mut self) -> Self {
        self.inner = self.inner.in_flight();
        self
    }

    /// See [`crate::Check::send`].
    pub fn send(self) -> Result<Availability, Error> {
        self.runtime.block_on(self.inner.send())
    }
}

/// The blocking [`Acquire`](crate::Acquire).
#[derive(Debug)]
#[must_use = "an acquire does nothing until it is sent"]
pub struct Acquire {
    inner: crate::Acquire,
    runtime: Arc<Engine>,
}

impl Acquire {
    /// See [`crate::Acquire::entity`].
    pub fn entity(&self) -> Option<&crate::EntityId> {
        self.inner.entity()
    }

    /// See [`crate::Acquire::resource`].
    pub fn resource(&self) -> Option<&crate::ResourceName> {
        self.inner.resource()
    }

    /// See [`crate::Acquire::consume`].
    pub fn consume(mut self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        self.inner = self.inner.consume(limit, tokens);
        self
    }

    /// See [`crate::Acquire::also`].
    pub fn also<L: IntoName<LimitName>>(
        mut self,
        resource: impl IntoName<ResourceName>,
        amounts: impl IntoIterator<Item = (L, u64)>,
    ) -> Self {
        self.inner = self.inner.also(resource, amounts);
        self
    }

    /// See [`crate::Acquire::limits`].
    pub fn limits<L: IntoLimit>(mut self, limits: impl IntoIterator<Item = L>) -> Self {
        self.inner = self.inner.limits(limits);
        self
    }

    /// See [`crate::Acquire::in_flight`].
    pub fn in_flight(mut self) -> Self {
        self.inner = self.inner.in_flight();
        self
    }

    /// See [`crate::Acquire::in_flight_at_most`].
    pub fn in_flight_at_most(mut self, limit: u32) -> Self {
        self.inner = self.inner.in_flight_at_most(limit);
        self
    }

    /// See [`crate::Acquire::in_flight_ttl`].
    pub fn in_flight_ttl(mut self, ttl: Duration) -> Self {
        self.inner = self.inner.in_flight_ttl(ttl);
        self
    }

    /// See [`crate::Acquire::on_unavailable`].
    pub fn on_unavailable(mut self, policy: OnUnavailable) -> Self {
        self.inner = self.inner.on_unavailable(policy);
        self
    }

    /// See [`crate::Acquire::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.inner = self.inner.timeout(timeout);
        self
    }

    /// See [`crate::Acquire::wait`].
    pub fn wait(mut self, max: Duration) -> Self {
        self.inner = self.inner.wait(max);
        self
    }

    /// See [`crate::Acquire::prefetch`].
    pub fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.inner = self.inner.prefetch(prefetch);
        self
    }

    /// See [`crate::Acquire::overdraw`].
    pub fn overdraw(mut self) -> Self {
        self.inner = self.inner.overdraw();
        self
    }

    /// See [`crate::Acquire::exact`].
    pub fn exact(mut self) -> Self {
        self.inner = self.inner.exact();
        self
    }

    /// See [`crate::Acquire::on_wait`].
    pub fn on_wait(mut self, tell: impl Fn(&RateLimitExceeded, Duration) + Send + Sync + 'static) -> Self {
        self.inner = self.inner.on_wait(tell);
        self
    }

    /// See [`crate::Acquire::until_ready`].
    pub fn until_ready(self) -> Result<Lease, Error> {
        let inner = self.runtime.block_on(self.inner.until_ready())?;
        Ok(Lease {
            inner,
            runtime: self.runtime,
        })
    }

    /// See [`crate::Acquire::send`].
    pub fn send(self) -> Result<Lease, Error> {
        let inner = self.runtime.block_on(self.inner.send())?;
        Ok(Lease {
            inner,
            runtime: self.runtime,
        })
    }

    /// See [`crate::Acquire::run`]: the result of `work` is returned in any case.
    ///
    /// ```
    /// # fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::blocking::{RateLimiter, Repository};
    /// use zae_limiter::{Error, Limit};
    ///
    /// let repo = Repository::in_memory()?;
    /// repo.admin().set_resource_defaults("gpt-4", [Limit::per_day("tpd", 1_000)])?;
    /// let limiter = RateLimiter::new(repo);
    /// let answer = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).run(|lease| {
    ///     lease.adjust_to("tpd", 120)?;
    ///     Ok::<_, Error>("the answer")
    /// })?;
    /// assert_eq!(answer, "the answer");
    /// assert_eq!(limiter.available("key-1", "gpt-4")?["tpd"], 880);
    /// # Ok(()) }
    /// ```
    pub fn run<T, E: From<Error>>(self, work: impl FnOnce(&mut Lease) -> Result<T, E>) -> Result<T, E> {
        let mut lease = self.send()?;
        match work(&mut lease) {
            Ok(done) => {
                if let Err(error) = lease.commit() {
                    tracing::error!(%error, "commit failed after the work succeeded");
                }
                Ok(done)
            }
            Err(err) => {
                if let Err(refund) = lease.rollback() {
                    tracing::error!(error = %refund, "rollback failed after the work did");
                }
                Err(err)
            }
        }
    }
}
