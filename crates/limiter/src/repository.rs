//! [`Repository`]: one namespace of one table, and everything that is remembered of it.

use std::fmt;
#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use aws_types::SdkConfig;
use quick_cache::sync::Cache;
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::schema::{BucketId, version_key};
use zae_limiter_core::table::{FailureKind, TableError};
use zae_limiter_core::{EntityId, EpochMillis, NamespaceId, NamespaceName, ResourceName};

use crate::background::Background;
use crate::breaker::Breaker;
use crate::builder::{Options, Parts, RepositoryBuilder};
use crate::clock::{Clock, ClockOffset, TableOffset};
use crate::config_cache::{CacheStats, ConfigCache};
use crate::degrade::LocalBuckets;
use crate::error::{Error, Place};
use crate::image_cache::ImageCache;
use crate::permits::Permits;
use crate::principal::Principal;
use crate::refunds::Refunds;
use crate::stack::Stack;
use crate::table::{Meter, Table, TableExt, Usage};
use crate::waiting::Queues;

/// The stack that is used unless another is named, here or in `ZAEL_STACK`.
pub const DEFAULT_STACK: &str = "zae-limiter";

/// The namespace that is used unless another is named, here or in `ZAEL_NAMESPACE`.
pub const DEFAULT_NAMESPACE: &str = "default";

/// How long [`Repository::drain`] waits at most.
const DRAIN: Duration = Duration::from_secs(30);

/// What still runs in the background after [`Repository::drain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Corrections of leases (refunds and adjustments) whose outcome is not known yet. If the process ends now, the
    /// refunds among them may be lost: their tokens stay consumed until they refill.
    pub corrections: usize,
    /// Other tasks: cancelled acquires that may still have to give tokens back, and buckets that are being brought up
    /// to date.
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
/// // A table inside this process, gone when it ends.
/// let repo = Repository::in_memory().await?;
/// repo.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
/// assert_eq!(repo.resource_defaults("gpt-4").await?[0].capacity(), 100);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) place: Place,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) namespace_name: NamespaceName,
    pub(crate) namespace: NamespaceId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) offset: Option<Arc<TableOffset>>,
    pub(crate) config: ConfigCache,
    pub(crate) images: ImageCache,
    pub(crate) background: Background,
    pub(crate) refunds: Refunds,
    /// Calls that wait for tokens.
    pub(crate) queues: Arc<Queues>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) options: Options,
    /// The stored policy for outages as last seen, for when it cannot be read.
    pub(crate) last_policy: std::sync::Mutex<Option<OnUnavailable>>,
    pub(crate) order: AtomicU64,
    /// How long the table takes to answer at present; see [`zae_limiter_core::acquire::next_round_trip`].
    pub(crate) round_trip_ms: AtomicI64,
    /// When a shard was last brought up to date.
    pub(crate) reconciled: Cache<(BucketId, u32), EpochMillis>,
    pub(crate) local: LocalBuckets,
    pub(crate) principal: Arc<Principal>,
    /// How to reach AWS, if that is where the table is.
    pub(crate) config_of_aws: Option<SdkConfig>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
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
    /// Opens a namespace of the stack that the environment names, and registers it if it is new. A stack that does
    /// not exist is deployed; see [`RepositoryBuilder::open`].
    ///
    /// The stack is `ZAEL_STACK`, else `zae-limiter`; region and credentials are AWS's own. An empty
    /// `namespace` means `ZAEL_NAMESPACE`, else `default`.
    pub async fn open(namespace: &str) -> Result<Self, Error> {
        Self::builder().namespace(namespace).open().await
    }

    /// Opens a table kept in a directory of this machine: no server, no network, no credentials.
    ///
    /// One process at a time can use a directory.
    #[cfg(feature = "embedded")]
    pub async fn embedded(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::builder().embedded(path).open().await
    }

    /// Opens a table in this process's memory, for trying things out and for tests.
    #[cfg(feature = "embedded")]
    pub async fn in_memory() -> Result<Self, Error> {
        Self::builder().in_memory().open().await
    }

    /// Starts to describe a repository with options.
    pub fn builder() -> RepositoryBuilder {
        RepositoryBuilder::default()
    }

    /// Another namespace of the same table, with the same options and caches of its own.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`] if it is not registered.
    pub async fn namespace(&self, name: &str) -> Result<Self, Error> {
        self.stack_handle().connect(name).await
    }

    /// The table as a whole: its version and its namespaces.
    pub fn stack_handle(&self) -> Stack {
        let inner = &self.inner;
        Stack {
            parts: Parts {
                place: inner.place.clone(),
                table: Arc::clone(&inner.table),
                meter: Arc::clone(&inner.meter),
                clock: Arc::clone(&inner.clock),
                offset: inner.offset.clone(),
                options: inner.options.clone(),
                principal: Arc::clone(&inner.principal),
                breaker: Arc::clone(&inner.breaker),
                permits: Arc::clone(&inner.permits),
                config: inner.config_of_aws.clone(),
            },
        }
    }

    /// Registers a namespace unless it is, and returns its id.
    pub async fn register_namespace(&self, name: &str) -> Result<NamespaceId, Error> {
        self.stack_handle().register_namespace(name).await
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

    /// What the configuration cache and the reject cache have done so far.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.config.stats()
    }

    /// How far this machine's clock is from the table's, for metrics and alarms. All that is stored and decided goes
    /// by the corrected time, unless [`RepositoryBuilder::clock`] brought a clock.
    ///
    /// Measured from the `Date` of every answer; `None` if the table is embedded or custom, or if its answers have none.
    /// A machine's clock that is wrong by more than two seconds ([`ClockOffset::is_wrong`]) is reported in the log, once
    /// a minute at most.
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.offset.as_ref()?.get()
    }

    /// Forgets all cached configuration and all remembered images, so that the next calls read the table.
    pub fn invalidate_caches(&self) {
        self.inner.config.clear();
        self.inner.images.clear();
    }

    /// Forgets all remembered images, so that the next requests ask the table rather than be refused from memory.
    pub fn invalidate_images(&self) {
        self.inner.images.clear();
    }

    /// Table requests and capacity units used so far, by this repository and the namespaces opened from it.
    /// All zero unless [`RepositoryBuilder::measure`] was switched on.
    pub fn usage(&self) -> Usage {
        self.inner.meter.snapshot()
    }

    /// Waits until everything that runs in the background is done: refunds of dropped leases and of
    /// cancelled acquires, buckets being brought up to date. Call it before a process ends.
    ///
    /// Waits 30 s at most. See [`drain_within`](Self::drain_within) for another bound.
    pub async fn drain(&self) -> Drained {
        self.drain_within(DRAIN).await
    }

    /// Waits until everything that runs in the background is done, but no longer than `timeout`. Returns what is
    /// left; it goes on running, and can be waited for again.
    pub async fn drain_within(&self, timeout: Duration) -> Drained {
        let tasks = self.inner.background.drain(timeout).await;
        let refunds = &self.inner.refunds;
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

impl Inner {
    pub(crate) fn bucket_id(&self, entity: &EntityId, resource: &ResourceName) -> BucketId {
        BucketId {
            namespace: self.namespace.clone(),
            entity: entity.clone(),
            resource: resource.clone(),
        }
    }

    /// The policy for outages: the call's, else the builder's, else the one stored, as far as it is known.
    pub(crate) fn policy(
        &self,
        call: Option<OnUnavailable>,
        entity: &EntityId,
        resource: &ResourceName,
    ) -> OnUnavailable {
        let stored = || {
            self.config
                .stale(entity, resource)
                .and_then(|config| config.on_unavailable)
        };
        let last = || {
            *self
                .last_policy
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        call.or(self.options.on_unavailable)
            .or_else(stored)
            .or_else(last)
            .unwrap_or_default()
    }

    /// Remembers the stored policy.
    pub(crate) fn remember_policy(&self, policy: Option<OnUnavailable>) {
        *self
            .last_policy
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = policy;
    }

    pub(crate) fn table_error(&self, err: TableError) -> Error {
        self.place.table_error(err)
    }
}

impl Inner {
    /// Counts a request that was refused from memory.
    pub(crate) fn count_local_rejection(&self) {
        self.config.local_rejections.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether an error is an outage of the table, so that the policy for outages applies.
///
/// Errors that no wait heals are not outages: admitting without limits because of them would never end.
pub(crate) fn is_outage(err: &TableError) -> bool {
    matches!(
        err.kind,
        FailureKind::Throttled
            | FailureKind::Conflict
            | FailureKind::Timeout
            | FailureKind::Unreachable
            | FailureKind::Internal
    )
}

#[cfg(test)]
mod tests {
    use zae_limiter_core::table::Applied;

    use super::*;

    #[test]
    fn only_failures_that_pass_are_outages() {
        for (kind, outage) in [
            (FailureKind::Throttled, true),
            (FailureKind::Conflict, true),
            (FailureKind::Timeout, true),
            (FailureKind::Unreachable, true),
            (FailureKind::Internal, true),
            (FailureKind::AccessDenied, false),
            (FailureKind::TableMissing, false),
            (FailureKind::BadRequest, false),
        ] {
            let err = TableError::new(kind, Applied::No, "as the test ordered");
            assert_eq!(is_outage(&err), outage, "{kind:?}");
        }
    }
}
