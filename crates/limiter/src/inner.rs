//! The state of a [`Repository`](crate::Repository): one namespace of one table, with its caches and queues.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use aws_types::SdkConfig;
use quick_cache::sync::Cache;
use zae_limiter_core::acquire::Settings;
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::outage::local_buckets::LocalBuckets;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::TableError;
use zae_limiter_core::{EntityId, EpochMillis, NamespaceId, NamespaceName, ResourceName};

use crate::acquire::alerts::Alerts;
use crate::acquire::background::Background;
use crate::acquire::config_cache::ConfigCache;
use crate::acquire::detached::sweeps::Sweeps;
use crate::acquire::draws::Draws;
use crate::acquire::flight::Flight;
use crate::acquire::groups::Groups;
use crate::acquire::image_cache::ImageCache;
use crate::acquire::occasional::CallLog;
use crate::acquire::outage::breaker::Breaker;
use crate::acquire::permits::{MAX_IN_FLIGHT, Permits};
use crate::acquire::refunds::queues::Refunds;
use crate::acquire::slices::{Prefetch, Slices};
use crate::acquire::waiting::Queues;
use crate::admin::principal::Principal;
use crate::clock::{TableOffset, Time};
use crate::error::{Error, Place};
use crate::table::{Meter, Table};
use crate::telemetry::{Labels, OfTable, Recorder};

pub(crate) struct Inner {
    pub(crate) place: Place,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) namespace_name: NamespaceName,
    pub(crate) namespace: NamespaceId,
    pub(crate) clock: Time,
    pub(crate) offset: Option<Arc<TableOffset>>,
    pub(crate) config: ConfigCache,
    pub(crate) images: ImageCache,
    /// Debits that wait for a write of their shard.
    pub(crate) groups: Groups,
    pub(crate) background: Background,
    pub(crate) refunds: Refunds,
    /// Tokens taken ahead.
    pub(crate) slices: Slices,
    /// Places for requests in flight.
    pub(crate) flight: Flight,
    /// How far expired leases have been settled.
    pub(crate) sweeps: Sweeps,
    /// Calls that wait for tokens.
    pub(crate) queues: Arc<Queues>,
    pub(crate) log: CallLog,
    pub(crate) telemetry: Recorder,
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
    pub(crate) local: LocalBuckets<RandomState>,
    pub(crate) principal: Arc<Principal>,
    /// How to reach AWS, if that is where the table is.
    pub(crate) config_of_aws: Option<SdkConfig>,
    /// Whether functions can work on the table, as on any but an embedded one.
    pub(crate) has_functions: bool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("place", &self.place)
            .finish_non_exhaustive()
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

    /// Clears all cached configuration and images.
    pub(crate) fn forget(&self) {
        self.config.clear();
        self.flight.limits.clear();
        self.images.clear();
    }

    pub(crate) fn table_error(&self, err: TableError) -> Error {
        self.place.table_error(err)
    }

    /// Counts a request that was refused from memory.
    pub(crate) fn count_local_rejection(&self) {
        self.config.local_rejections.fetch_add(1, Ordering::Relaxed);
        self.telemetry.refused_from_memory();
    }

    /// The state that this namespace shares with others of its table.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            place: self.place.clone(),
            table: Arc::clone(&self.table),
            meter: Arc::clone(&self.meter),
            clock: self.clock.clone(),
            offset: self.offset.clone(),
            options: self.options.clone(),
            principal: Arc::clone(&self.principal),
            breaker: Arc::clone(&self.breaker),
            permits: Arc::clone(&self.permits),
            of_table: self.telemetry.of_table().clone(),
            config: self.config_of_aws.clone(),
            has_functions: self.has_functions,
        }
    }
}

/// The settings of a builder.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) config_cache_ttl: Duration,
    pub(crate) reject_cache_ttl: Duration,
    pub(crate) reject_cache_size: usize,
    pub(crate) settings: Settings,
    pub(crate) on_unavailable: Option<OnUnavailable>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) max_in_flight: usize,
    /// Whether debits of one shard are joined in one write.
    pub(crate) group_commit: bool,
    /// How long corrections of leases wait for a debit that carries them.
    pub(crate) correction_delay: Duration,
    /// How many tokens are taken ahead, if any.
    pub(crate) prefetch: Option<Prefetch>,
    pub(crate) principal: Option<String>,
    /// How acquires choose shards and waits.
    pub(crate) draws: Draws,
    /// What is called when limits are nearly used up, if anything.
    pub(crate) alerts: Option<Alerts>,
    /// Which labels metrics have beside those that all have.
    pub(crate) labels: Labels,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config_cache_ttl: Duration::from_mins(1),
            reject_cache_ttl: Duration::from_secs(1),
            reject_cache_size: 10_000,
            settings: Settings::default(),
            on_unavailable: None,
            acquire_timeout: Duration::from_secs(5),
            max_in_flight: MAX_IN_FLIGHT,
            group_commit: true,
            correction_delay: Duration::ZERO,
            prefetch: None,
            principal: None,
            draws: Draws::default(),
            alerts: None,
            labels: Labels::none(),
        }
    }
}

/// The state that all namespaces of a table share.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) place: Place,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Time,
    /// How far the machine's clock is from the table's, if the table has one of its own.
    pub(crate) offset: Option<Arc<TableOffset>>,
    pub(crate) options: Options,
    pub(crate) principal: Arc<Principal>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) of_table: OfTable,
    /// How to reach AWS, if that is where the table is.
    pub(crate) config: Option<SdkConfig>,
    /// Whether functions can work on the table, as on any but an embedded one.
    pub(crate) has_functions: bool,
}

impl Parts {
    pub(crate) fn assemble(self, name: NamespaceName, namespace: NamespaceId) -> Inner {
        let Self {
            place,
            table,
            meter,
            clock,
            offset,
            options,
            principal,
            breaker,
            permits,
            of_table,
            config,
            has_functions,
        } = self;
        Inner {
            config: ConfigCache::new(
                namespace.clone(),
                options.config_cache_ttl,
                Arc::clone(&breaker),
                Arc::clone(&permits),
            ),
            images: ImageCache::new(options.reject_cache_ttl, options.reject_cache_size),
            telemetry: Recorder::new(&of_table, &name, &options.labels),
            place,
            table,
            meter,
            namespace_name: name,
            namespace,
            clock,
            offset,
            groups: Groups::default(),
            background: Background::new(),
            refunds: Refunds::default(),
            slices: Slices::default(),
            flight: Flight::new(options.config_cache_ttl),
            sweeps: Sweeps::default(),
            queues: Arc::default(),
            log: CallLog::default(),
            breaker,
            permits,
            options,
            last_policy: std::sync::Mutex::new(None),
            order: AtomicU64::new(0),
            round_trip_ms: AtomicI64::new(0),
            reconciled: Cache::new(10_000),
            local: LocalBuckets::new(RandomState::new()),
            principal,
            config_of_aws: config,
            has_functions,
        }
    }
}
