//! The blocking [`Repository`].

use std::fmt;
#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::admin::Admin;
use super::runtime::Engine;
use crate::clock::ClockOffset;
use crate::{
    CacheStats, DetachedLease, Drained, EndedLease, EpochMillis, Error, IntoName, LeaseEnd, NamespaceId,
    NamespaceName, Prefetched, RepositoryBuilder, Swept,
};

/// The blocking [`Repository`](crate::Repository).
#[derive(Clone)]
pub struct Repository {
    pub(super) inner: crate::Repository,
    pub(super) runtime: Arc<Engine>,
    admin: Admin,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Repository {
    /// See [`crate::Repository::open`].
    pub fn open(namespace: impl Into<String>) -> Result<Self, Error> {
        Self::from_builder(crate::Repository::builder().namespace(namespace))
    }

    /// See [`crate::Repository::connect`].
    pub fn connect(namespace: impl Into<String>) -> Result<Self, Error> {
        Self::connect_builder(crate::Repository::builder().namespace(namespace))
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
    pub fn connect_builder(builder: RepositoryBuilder) -> Result<Self, Error> {
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

    pub(super) fn on(inner: crate::Repository, runtime: &Arc<Engine>) -> Self {
        runtime.adopt(&inner.inner.background);
        Self {
            admin: Admin::new(inner.admin().clone(), runtime),
            inner,
            runtime: Arc::clone(runtime),
        }
    }

    /// The async repository behind this one.
    pub fn as_async(&self) -> &crate::Repository {
        &self.inner
    }

    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(work)
    }

    /// See [`crate::Repository::namespace`].
    pub fn namespace(&self, name: impl IntoName<NamespaceName>) -> Result<Self, Error> {
        let inner = self.wait(self.inner.namespace(name))?;
        Ok(Self::on(inner, &self.runtime))
    }

    /// See [`crate::Repository::register_namespace`].
    pub fn register_namespace(&self, name: impl IntoName<NamespaceName>) -> Result<NamespaceId, Error> {
        self.wait(self.inner.register_namespace(name))
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

    /// See [`crate::Repository::prefetched`].
    pub fn prefetched(&self) -> Prefetched {
        self.inner.prefetched()
    }

    /// See [`crate::Repository::now`].
    pub fn now(&self) -> crate::EpochMillis {
        self.inner.now()
    }

    /// See [`crate::Repository::clock_offset`].
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.clock_offset()
    }

    /// See [`crate::Repository::record_gauges`].
    #[cfg(feature = "metrics")]
    pub fn record_gauges(&self) {
        self.inner.record_gauges();
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

    /// See [`crate::Repository::end_lease`].
    pub fn end_lease(&self, lease: &DetachedLease, end: LeaseEnd) -> Result<EndedLease, Error> {
        self.wait(self.inner.end_lease(lease, end))
    }

    /// See [`crate::Repository::extend_lease`].
    pub fn extend_lease(&self, lease: &DetachedLease, ttl: Duration) -> Result<EpochMillis, Error> {
        self.wait(self.inner.extend_lease(lease, ttl))
    }

    /// See [`crate::Repository::sweep_leases`].
    pub fn sweep_leases(&self) -> Result<Swept, Error> {
        self.wait(self.inner.sweep_leases())
    }

    /// See [`crate::Repository::is_available`]. False on a thread that runs async tasks.
    pub fn is_available(&self, timeout: Duration) -> bool {
        self.wait(async { Ok(self.inner.is_available(timeout).await) })
            .unwrap_or(false)
    }

    /// See [`crate::Repository::admin`].
    pub fn admin(&self) -> &Admin {
        &self.admin
    }
}
