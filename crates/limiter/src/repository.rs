//! [`Repository`]: one namespace of one table, with its caches.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::schema::version_key;
use zae_limiter_core::{EpochMillis, NamespaceId};

use crate::acquire::config_cache::CacheStats;
use crate::acquire::slices::Prefetched;
use crate::admin::Admin;
use crate::clock::ClockOffset;
use crate::inner::Inner;
use crate::table::{RequestCost, Table, TableExt};

/// The default stack, if neither the caller nor `ZAEL_STACK` names one.
pub const DEFAULT_STACK: &str = "zae-limiter";

/// The default namespace, if neither the caller nor `ZAEL_NAMESPACE` names one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// How long [`Repository::drain`] waits at most.
const DRAIN: Duration = Duration::from_secs(30);

/// Work that still runs in the background after [`Repository::drain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Corrections of leases (refunds and adjustments) whose outcome is not known yet. If the process ends now, the
    /// refunds among them may be lost: their tokens stay consumed until they refill.
    pub corrections: usize,
    /// Other tasks: cancelled acquires that may still have to give tokens back, and updates of buckets.
    pub tasks: usize,
}

impl Drained {
    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.corrections == 0 && self.tasks == 0
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} corrections of leases and {} other tasks are unfinished",
            self.corrections, self.tasks
        )
    }
}

/// One namespace of one table: entities, limits, buckets, and the caches in front of them.
///
/// Cheap to clone; clones share everything. [`RateLimiter`](crate::RateLimiter) takes tokens from its buckets.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
/// use zae_limiter::{Limit, Repository};
///
/// // A table in the memory of this process.
/// let repo = Repository::in_memory().await?;
/// repo.admin().set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
/// assert_eq!(repo.admin().resource_defaults("gpt-4").await?[0].capacity(), 100);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
    admin: Admin,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("stack", &self.inner.place.stack)
            .field("namespace", &self.inner.namespace_name)
            .finish_non_exhaustive()
    }
}

impl Repository {
    pub(crate) fn of(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        let admin = Admin {
            inner: Arc::clone(&inner),
        };
        Self { inner, admin }
    }

    /// The administration of this namespace: entities, limits, manifests, the audit log, usage.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The stack's name, which is the table's.
    pub fn stack(&self) -> &str {
        &self.inner.place.stack
    }

    /// The namespace's name.
    pub fn namespace_name(&self) -> &str {
        self.inner.namespace_name.as_str()
    }

    /// The namespace's id, which prefixes its keys.
    pub fn namespace_id(&self) -> &NamespaceId {
        &self.inner.namespace
    }

    /// Counters of the configuration cache and the reject cache.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.config.stats()
    }

    /// Tokens that this process has [taken ahead](crate::RepositoryBuilder::prefetch) and not spent yet, for metrics.
    pub fn prefetched(&self) -> Prefetched {
        self.inner.slices.prefetched()
    }

    /// The present time, by which limits are judged: that of the [clock](crate::RepositoryBuilder::clock), corrected to the table's.
    pub fn now(&self) -> EpochMillis {
        self.inner.clock.now()
    }

    /// The offset of this machine's clock from the table's, for metrics and alarms. Stored times and decisions use the
    /// corrected time, unless [`RepositoryBuilder::clock`](crate::RepositoryBuilder::clock) brought a clock.
    ///
    /// Measured from the `Date` of every answer; `None` if the table is embedded or custom, or if its answers have none.
    /// A machine's clock that is wrong by more than two seconds ([`ClockOffset::is_wrong`]) is reported in the log, once
    /// a minute at most.
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.offset.as_ref()?.get()
    }

    /// Clears cached configuration and images, so that the next calls read the table.
    pub fn invalidate_caches(&self) {
        self.inner.forget();
    }

    /// Clears cached images, so that the next requests are sent to the table and not refused from memory.
    pub fn invalidate_images(&self) {
        self.inner.images.clear();
    }

    /// Table requests and capacity units used so far, by this repository and the namespaces opened from it.
    /// All zero unless [`RepositoryBuilder::measure`](crate::RepositoryBuilder::measure) was switched on.
    pub fn request_cost(&self) -> RequestCost {
        self.inner.meter.snapshot()
    }

    /// Waits until all background work is done: refunds of dropped leases and cancelled acquires, and updates of
    /// buckets. Call it before a process ends.
    ///
    /// Waits 30 s at most. See [`drain_within`](Self::drain_within) for another bound.
    pub async fn drain(&self) -> Drained {
        self.drain_within(DRAIN).await
    }

    /// Waits until all background work is done, at most for `timeout`. Returns the work that is left, which continues,
    /// and for which the caller can wait again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// // A task that is aborted drops its lease.
    /// drop(limiter.acquire("key-1", "gpt-4").consume("rph", 4).await?);
    /// let left = repo.drain_within(Duration::from_secs(5)).await;
    /// assert_eq!((left.corrections, left.tasks), (0, 0), "{left}");
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rph"], 10);
    /// # Ok(()) }
    /// ```
    pub async fn drain_within(&self, timeout: Duration) -> Drained {
        let refunds = &self.inner.refunds;
        // Not by their task alone: its runtime may stand still.
        self.inner.return_all_slices();
        let tasks = self.inner.background.drain(timeout).await;
        let drained = Drained {
            corrections: refunds.unfinished(),
            tasks: tasks.saturating_sub(refunds.senders()),
        };
        if !drained.is_complete() {
            tracing::warn!(%drained, "not all background work has ended");
        }
        drained
    }

    /// The table itself, for tools and tests.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::clone(&self.inner.table)
    }

    /// Whether the table answers a read within `timeout`.
    pub async fn is_available(&self, timeout: Duration) -> bool {
        let read = self.inner.table.get(version_key(), false);
        matches!(tokio::time::timeout(timeout, read).await, Ok(Ok(_)))
    }
}
