//! The same without async: for programs that have no runtime of their own.
//!
//! A thin wrapper, method by method, over the async types; the logic is theirs. Each [`Repository`] brings a
//! runtime with one worker thread, which also finishes refunds of dropped leases.
//!
//! ```
//! use zae_limiter::blocking::{RateLimiter, Repository};
//! use zae_limiter::Limit;
//!
//! # fn main() -> Result<(), zae_limiter::Error> {
//! let repo = Repository::in_memory()?;
//! repo.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)])?;
//! let limiter = RateLimiter::new(repo);
//!
//! let lease = limiter.acquire("key-1", "gpt-4").consume("rpm", 1).send()?;
//! lease.commit()?;
//! assert_eq!(limiter.available("key-1", "gpt-4")?["rpm"], 99);
//! # Ok(()) }
//! ```
//!
//! # Inside async code
//! A blocking call on a thread that runs async tasks would hold up all of them. It does nothing and returns
//! [`Error::AsyncContext`]; [`Repository::is_available`] returns false. A commit or rollback is started all the same, and
//! goes on in the background. `spawn_blocking` and `block_in_place` make threads on which blocking calls are allowed.
//!
//! # Drop
//! When the last handle of a repository (with its leases, pages and stacks) is dropped while refunds are being sent, the
//! drop waits for them, 5 seconds at most. After that, or at once on a thread that runs async tasks, a thread goes on for up
//! to 30 seconds while the process lives. [`Repository::drain`] tells what is left.

mod runtime;

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::manifest::{Manifest, Target};

use self::runtime::Engine;
use crate::clock::ClockOffset;
use crate::{
    ApplyOptions, AuditEvent, Availability, CacheStats, CapacityOf, Cursor, Drained, Entity, EntityId, Error,
    IntoLimit, Limit, LimitsApplied, LimitsPlan, NamespaceId, NamespaceRecord, NewEntity, OnUnavailable,
    Progress, RateLimitExceeded, RepositoryBuilder, ResourceCapacity, UsageQuery, UsageSnapshot,
    UsageSummary, VersionRecord,
};

/// The blocking [`Repository`](crate::Repository).
#[derive(Clone)]
pub struct Repository {
    inner: crate::Repository,
    runtime: Arc<Engine>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Repository {
    /// See [`crate::Repository::open`].
    pub fn open(namespace: &str) -> Result<Self, Error> {
        Self::from_builder(crate::Repository::builder().namespace(namespace))
    }

    /// See [`crate::Repository::embedded`].
    #[cfg(feature = "embedded")]
    pub fn embedded(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::from_builder(crate::Repository::builder().embedded(path))
    }

    /// See [`crate::Repository::in_memory`].
    #[cfg(feature = "embedded")]
    pub fn in_memory() -> Result<Self, Error> {
        Self::from_builder(crate::Repository::builder().in_memory())
    }

    /// Opens what a builder describes; see [`RepositoryBuilder::open`].
    pub fn from_builder(builder: RepositoryBuilder) -> Result<Self, Error> {
        Self::start(|| builder.open())
    }

    /// Connects to what a builder describes, without writing; see [`RepositoryBuilder::connect`].
    pub fn connect(builder: RepositoryBuilder) -> Result<Self, Error> {
        Self::start(|| builder.connect())
    }

    fn start<F>(open: impl FnOnce() -> F) -> Result<Self, Error>
    where
        F: Future<Output = Result<crate::Repository, Error>>,
    {
        let runtime = Engine::start()?;
        let inner = runtime.block_on(async { open().await })?;
        Ok(Self::on(inner, &runtime))
    }

    fn on(inner: crate::Repository, runtime: &Arc<Engine>) -> Self {
        runtime.adopt(&inner.inner.background);
        Self {
            inner,
            runtime: Arc::clone(runtime),
        }
    }

    /// The async repository behind this one.
    pub fn as_async(&self) -> &crate::Repository {
        &self.inner
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(work)
    }

    /// See [`crate::Repository::namespace`].
    pub fn namespace(&self, name: &str) -> Result<Self, Error> {
        let inner = self.wait(self.inner.namespace(name))?;
        Ok(Self::on(inner, &self.runtime))
    }

    /// See [`crate::Repository::register_namespace`].
    pub fn register_namespace(&self, name: &str) -> Result<NamespaceId, Error> {
        self.wait(self.inner.register_namespace(name))
    }

    /// See [`crate::Repository::stack_handle`].
    pub fn stack_handle(&self) -> Stack {
        Stack {
            inner: self.inner.stack_handle(),
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// See [`crate::Repository::plan_limits`].
    pub fn plan_limits(&self, manifest: &Manifest, options: ApplyOptions) -> Result<LimitsPlan, Error> {
        self.wait(self.inner.plan_limits(manifest, options))
    }

    /// See [`crate::Repository::apply_limits`].
    pub fn apply_limits(&self, manifest: &Manifest, options: ApplyOptions) -> Result<LimitsApplied, Error> {
        self.wait(self.inner.apply_limits(manifest, options))
    }

    /// See [`crate::Repository::withdraw_limits`].
    pub fn withdraw_limits(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
    ) -> Result<LimitsApplied, Error> {
        self.wait(self.inner.withdraw_limits(manifest, options))
    }

    /// See [`crate::Repository::hand_made_limits`].
    pub fn hand_made_limits(&self, manifest: &Manifest) -> Result<Vec<Target>, Error> {
        self.wait(self.inner.hand_made_limits(manifest))
    }

    /// See [`crate::Repository::audit_retention`].
    pub fn audit_retention(&self) -> Result<u32, Error> {
        self.runtime.block_on(self.inner.audit_retention())
    }

    /// See [`crate::Repository::set_audit_retention`].
    pub fn set_audit_retention(&self, days: u32) -> Result<(), Error> {
        self.runtime.block_on(self.inner.set_audit_retention(days))
    }

    /// See [`crate::Repository::delete_stack`].
    #[cfg(feature = "provision")]
    pub fn delete_stack(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.delete_stack())
    }

    /// See [`crate::Repository::cache_stats`].
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.cache_stats()
    }

    /// See [`crate::Repository::clock_offset`].
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.clock_offset()
    }

    /// See [`crate::Repository::invalidate_caches`].
    pub fn invalidate_caches(&self) {
        self.inner.invalidate_caches();
    }

    /// See [`crate::Repository::drain`].
    pub fn drain(&self) -> Result<Drained, Error> {
        self.wait(async { Ok(self.inner.drain().await) })
    }

    /// See [`crate::Repository::drain_within`].
    pub fn drain_within(&self, timeout: Duration) -> Result<Drained, Error> {
        self.wait(async { Ok(self.inner.drain_within(timeout).await) })
    }

    /// See [`crate::Repository::is_available`]. False on a thread that runs async tasks.
    pub fn is_available(&self, timeout: Duration) -> bool {
        self.wait(async { Ok(self.inner.is_available(timeout).await) })
            .unwrap_or(false)
    }

    /// See [`crate::Repository::create_entity`].
    pub fn create_entity(&self, new: NewEntity) -> Result<Entity, Error> {
        self.wait(self.inner.create_entity(new))
    }

    /// See [`crate::Repository::entity`].
    pub fn entity(&self, id: &str) -> Result<Option<Entity>, Error> {
        self.wait(self.inner.entity(id))
    }

    /// See [`crate::Repository::children`].
    pub fn children(&self, parent: &str) -> Result<Vec<Entity>, Error> {
        self.wait(self.inner.children(parent))
    }

    /// See [`crate::Repository::delete_entity`].
    pub fn delete_entity(&self, id: &str) -> Result<u64, Error> {
        self.wait(self.inner.delete_entity(id))
    }

    /// See [`crate::Repository::delete_entity_with_progress`].
    pub fn delete_entity_with_progress(&self, id: &str, progress: Progress<'_>) -> Result<u64, Error> {
        self.wait(self.inner.delete_entity_with_progress(id, progress))
    }

    /// See [`crate::Repository::limits_above_parent`].
    pub fn limits_above_parent(
        &self,
        entity: &str,
        resource: &str,
    ) -> Result<Vec<crate::AboveParent>, Error> {
        self.wait(self.inner.limits_above_parent(entity, resource))
    }

    /// See [`crate::Repository::all_limits_above_parent`].
    pub fn all_limits_above_parent(&self, entity: &str) -> Result<Vec<crate::AboveParent>, Error> {
        self.wait(self.inner.all_limits_above_parent(entity))
    }

    /// See [`crate::Repository::declared_limits_above_parent`].
    pub fn declared_limits_above_parent(
        &self,
        manifest: &Manifest,
        deleted: &[Target],
    ) -> Result<Vec<crate::AboveParent>, Error> {
        self.wait(self.inner.declared_limits_above_parent(manifest, deleted))
    }

    /// See [`crate::Repository::delete_entity_with_children`].
    pub fn delete_entity_with_children(&self, id: &str, progress: Progress<'_>) -> Result<u64, Error> {
        self.wait(self.inner.delete_entity_with_children(id, progress))
    }

    /// See [`crate::Repository::entities_with_limits`].
    pub fn entities_with_limits(&self, resource: &str) -> Result<Pages<EntityId>, Error> {
        Ok(self.pages(self.inner.entities_with_limits(resource)?))
    }

    /// See [`crate::Repository::resources_with_defaults`].
    pub fn resources_with_defaults(&self) -> Result<Vec<String>, Error> {
        self.wait(self.inner.resources_with_defaults())
    }

    /// See [`crate::Repository::resources_with_entity_limits`].
    pub fn resources_with_entity_limits(&self) -> Result<BTreeMap<String, i64>, Error> {
        self.wait(self.inner.resources_with_entity_limits())
    }

    /// See [`crate::Repository::audit_events`].
    pub fn audit_events(&self, subject: &str, before: Option<&str>) -> Result<Pages<AuditEvent>, Error> {
        Ok(self.pages(self.inner.audit_events(subject, before)?))
    }

    /// See [`crate::Repository::usage_snapshots`].
    pub fn usage_snapshots(&self, query: UsageQuery) -> Result<Pages<UsageSnapshot>, Error> {
        Ok(self.pages(self.inner.usage_snapshots(query)?))
    }

    /// See [`crate::Repository::usage_summary`].
    pub fn usage_summary(&self, query: UsageQuery) -> Result<UsageSummary, Error> {
        self.wait(self.inner.usage_summary(query))
    }

    /// See [`crate::Repository::resource_capacity`].
    pub fn resource_capacity(
        &self,
        resource: &str,
        limit: &str,
        of: CapacityOf,
    ) -> Result<ResourceCapacity, Error> {
        self.wait(self.inner.resource_capacity(resource, limit, of))
    }

    fn pages<T>(&self, inner: crate::Pages<T>) -> Pages<T> {
        Pages {
            inner,
            ready: Vec::new().into_iter(),
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// See [`crate::Repository::set_entity_limits`].
    pub fn set_entity_limits<L: IntoLimit>(
        &self,
        entity: &str,
        resource: &str,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_entity_limits(entity, resource, limits))
    }

    /// See [`crate::Repository::entity_limits`].
    pub fn entity_limits(&self, entity: &str, resource: &str) -> Result<Vec<Limit>, Error> {
        self.wait(self.inner.entity_limits(entity, resource))
    }

    /// See [`crate::Repository::delete_entity_limits`].
    pub fn delete_entity_limits(&self, entity: &str, resource: &str) -> Result<bool, Error> {
        self.wait(self.inner.delete_entity_limits(entity, resource))
    }

    /// See [`crate::Repository::set_resource_defaults`].
    pub fn set_resource_defaults<L: IntoLimit>(
        &self,
        resource: &str,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_resource_defaults(resource, limits))
    }

    /// See [`crate::Repository::resource_defaults`].
    pub fn resource_defaults(&self, resource: &str) -> Result<Vec<Limit>, Error> {
        self.wait(self.inner.resource_defaults(resource))
    }

    /// See [`crate::Repository::delete_resource_defaults`].
    pub fn delete_resource_defaults(&self, resource: &str) -> Result<bool, Error> {
        self.wait(self.inner.delete_resource_defaults(resource))
    }

    /// See [`crate::Repository::set_system_defaults`].
    pub fn set_system_defaults<L: IntoLimit>(
        &self,
        limits: impl IntoIterator<Item = L>,
        on_unavailable: Option<OnUnavailable>,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_system_defaults(limits, on_unavailable))
    }

    /// See [`crate::Repository::system_defaults`].
    pub fn system_defaults(&self) -> Result<(Vec<Limit>, Option<OnUnavailable>), Error> {
        self.wait(self.inner.system_defaults())
    }

    /// See [`crate::Repository::delete_system_defaults`].
    pub fn delete_system_defaults(&self) -> Result<bool, Error> {
        self.wait(self.inner.delete_system_defaults())
    }

    /// See [`crate::Repository::effective_limits`].
    pub fn effective_limits(&self, entity: &str, resource: &str) -> Result<Vec<Limit>, Error> {
        self.wait(self.inner.effective_limits(entity, resource))
    }
}

/// The blocking [`Pages`](crate::Pages): an iterator that reads page by page.
///
/// After an error it may be asked again, and goes on with the page that could not be read.
#[derive(Debug)]
#[must_use = "nothing is read before the first result is asked for"]
pub struct Pages<T> {
    inner: crate::Pages<T>,
    ready: std::vec::IntoIter<T>,
    runtime: Arc<Engine>,
}

impl<T> Pages<T> {
    /// See [`crate::Pages::page_size`].
    pub fn page_size(mut self, records: u32) -> Self {
        self.inner = self.inner.page_size(records);
        self
    }

    /// See [`crate::Pages::after`].
    pub fn after(mut self, cursor: &Cursor) -> Self {
        self.inner = self.inner.after(cursor);
        self
    }

    /// See [`crate::Pages::cursor`]. Results read but not yet taken from the iterator are before it.
    pub fn cursor(&self) -> Option<Cursor> {
        self.inner.cursor()
    }
}

impl<T> Iterator for Pages<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready.next() {
                return Some(Ok(ready));
            }
            match self.runtime.block_on(self.inner.next_page()) {
                Ok(Some(page)) => self.ready = page.into_iter(),
                Ok(None) => return None,
                Err(err) => return Some(Err(err)),
            }
        }
    }
}

/// The blocking [`Stack`](crate::Stack).
#[derive(Debug, Clone)]
pub struct Stack {
    inner: crate::Stack,
    runtime: Arc<Engine>,
}

impl Stack {
    /// See [`RepositoryBuilder::stack_handle`].
    pub fn from_builder(builder: RepositoryBuilder) -> Result<Self, Error> {
        let runtime = Engine::start()?;
        let inner = runtime.block_on(async { builder.stack_handle().await })?;
        Ok(Self { inner, runtime })
    }

    fn repository(&self, inner: crate::Repository) -> Repository {
        Repository::on(inner, &self.runtime)
    }

    /// See [`crate::Stack::open`].
    pub fn open(&self, namespace: &str) -> Result<Repository, Error> {
        Ok(self.repository(self.runtime.block_on(self.inner.open(namespace))?))
    }

    /// See [`crate::Stack::connect`].
    pub fn connect(&self, namespace: &str) -> Result<Repository, Error> {
        Ok(self.repository(self.runtime.block_on(self.inner.connect(namespace))?))
    }

    /// See [`crate::Stack::connect_within`].
    pub fn connect_within(&self, namespace: &str, timeout: Duration) -> Result<Repository, Error> {
        let connected = self.inner.connect_within(namespace, timeout);
        Ok(self.repository(self.runtime.block_on(connected)?))
    }

    /// See [`crate::Stack::connect_id`].
    pub fn connect_id(&self, id: &str) -> Result<Repository, Error> {
        Ok(self.repository(self.runtime.block_on(self.inner.connect_id(id))?))
    }

    /// See [`crate::Stack::record_deployment`].
    pub fn record_deployment(&self, functions: Option<&str>, updated_by: &str) -> Result<(), Error> {
        self.runtime
            .block_on(self.inner.record_deployment(functions, updated_by))
    }

    /// See [`crate::Stack::delete_stack`].
    #[cfg(feature = "provision")]
    pub fn delete_stack(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.delete_stack())
    }

    /// See [`crate::Stack::clock_offset`].
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.clock_offset()
    }

    /// See [`crate::Stack::version`].
    pub fn version(&self) -> Result<Option<VersionRecord>, Error> {
        self.runtime.block_on(self.inner.version())
    }

    /// See [`crate::Stack::check_compatible`].
    pub fn check_compatible(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.check_compatible())
    }

    /// See [`crate::Stack::register_namespace`].
    pub fn register_namespace(&self, name: &str) -> Result<NamespaceId, Error> {
        self.runtime.block_on(self.inner.register_namespace(name))
    }

    /// See [`crate::Stack::register_namespaces`].
    pub fn register_namespaces<S: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<BTreeMap<String, NamespaceId>, Error> {
        self.runtime.block_on(self.inner.register_namespaces(names))
    }

    /// See [`crate::Stack::namespaces`].
    pub fn namespaces(&self) -> Result<Vec<NamespaceRecord>, Error> {
        self.runtime.block_on(self.inner.namespaces())
    }

    /// See [`crate::Stack::namespace`].
    pub fn namespace(&self, name: &str) -> Result<Option<NamespaceRecord>, Error> {
        self.runtime.block_on(self.inner.namespace(name))
    }

    /// See [`crate::Stack::delete_namespace`].
    pub fn delete_namespace(&self, name: &str) -> Result<bool, Error> {
        self.runtime.block_on(self.inner.delete_namespace(name))
    }

    /// See [`crate::Stack::orphans`].
    pub fn orphans(&self) -> Result<Vec<NamespaceRecord>, Error> {
        self.runtime.block_on(self.inner.orphans())
    }

    /// See [`crate::Stack::recover_namespace`].
    pub fn recover_namespace(&self, id: &str) -> Result<String, Error> {
        self.runtime.block_on(self.inner.recover_namespace(id))
    }

    /// See [`crate::Stack::purge_namespace`].
    pub fn purge_namespace(&self, id: &str, progress: Progress<'_>) -> Result<u64, Error> {
        self.runtime.block_on(self.inner.purge_namespace(id, progress))
    }
}

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
    pub fn acquire(&self, entity: impl AsRef<str>, resource: impl AsRef<str>) -> Acquire {
        Acquire {
            inner: self.inner.acquire(entity, resource),
            runtime: Arc::clone(&self.repository.runtime),
        }
    }

    /// See [`crate::RateLimiter::check`].
    pub fn check(&self, entity: &str, resource: &str, needed: &[(&str, i64)]) -> Result<Availability, Error> {
        self.repository.wait(self.inner.check(entity, resource, needed))
    }

    /// See [`crate::RateLimiter::available`].
    pub fn available(&self, entity: &str, resource: &str) -> Result<BTreeMap<String, i64>, Error> {
        self.repository.wait(self.inner.available(entity, resource))
    }

    /// See [`crate::RateLimiter::time_until_available`].
    pub fn time_until_available(
        &self,
        entity: &str,
        resource: &str,
        needed: &[(&str, i64)],
    ) -> Result<Option<Duration>, Error> {
        self.repository
            .wait(self.inner.time_until_available(entity, resource, needed))
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
    /// See [`crate::Acquire::consume`].
    pub fn consume(mut self, limit: impl Into<String>, tokens: i64) -> Self {
        self.inner = self.inner.consume(limit, tokens);
        self
    }

    /// See [`crate::Acquire::limits`].
    pub fn limits<L: IntoLimit>(mut self, limits: impl IntoIterator<Item = L>) -> Self {
        self.inner = self.inner.limits(limits);
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

/// The blocking [`Lease`](crate::Lease).
#[derive(Debug)]
#[must_use = "dropping a lease gives its tokens back; finish it with `commit` or `rollback`"]
pub struct Lease {
    inner: crate::Lease,
    runtime: Arc<Engine>,
}

impl Lease {
    /// See [`crate::Lease::consumed`].
    pub fn consumed(&self, limit: &str) -> i64 {
        self.inner.consumed(limit)
    }

    /// See [`crate::Lease::is_degraded`].
    pub fn is_degraded(&self) -> bool {
        self.inner.is_degraded()
    }

    /// See [`crate::Lease::outage`].
    pub fn outage(&self) -> Option<&Error> {
        self.inner.outage()
    }

    /// See [`crate::Lease::consume`].
    pub fn consume(&mut self, limit: &str, tokens: i64) -> Result<(), Error> {
        self.runtime.block_on(self.inner.consume(limit, tokens))
    }

    /// See [`crate::Lease::adjust`].
    pub fn adjust(&mut self, limit: &str, delta: i64) -> Result<(), Error> {
        self.inner.adjust(limit, delta)
    }

    /// See [`crate::Lease::release`].
    pub fn release(&mut self, limit: &str, tokens: i64) -> Result<(), Error> {
        self.inner.release(limit, tokens)
    }

    /// See [`crate::Lease::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.inner.set_timeout(timeout);
    }

    /// See [`crate::Lease::commit`].
    pub fn commit(self) -> Result<(), Error> {
        self.runtime.finish(self.inner.commit())
    }

    /// See [`crate::Lease::rollback`].
    pub fn rollback(self) -> Result<(), Error> {
        self.runtime.finish(self.inner.rollback())
    }
}
