//! Distributed rate limits without a server: token buckets in one DynamoDB table.
//!
//! A service takes tokens before the work and corrects the estimate afterwards. Limits are stored in the
//! table, for a namespace, a resource, an entity, or an entity and a resource. Any number of processes share them, and
//! no process can exceed them: see [the bound](#the-bound).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! use zae_limiter::{ALL_RESOURCES, Limit, NewEntity, RateLimiter, Repository};
//!
//! let repo = Repository::in_memory().await?; // or `open("default")` for a deployed stack
//! let limiter = RateLimiter::new(repo.clone());
//!
//! // Each key may make 100 requests a minute. The keys of the project share 100,000 tokens a minute.
//! repo.admin().set_system_defaults([Limit::per_minute("rpm", 100), Limit::per_minute("tpm", 10_000).burst(50_000)], None)
//!     .await?;
//! repo.admin().create_entity(NewEntity::new("proj-1")).await?;
//! repo.admin().set_entity_limits("proj-1", ALL_RESOURCES, [Limit::per_minute("tpm", 100_000)]).await?;
//! repo.admin().create_entity(NewEntity::new("key-1").parent("proj-1").cascade(true)).await?;
//!
//! let mut lease = limiter.acquire("key-1", "gpt-4").consume("rpm", 1).consume("tpm", 500).await?;
//! let used = 420; // what the model reports
//! lease.adjust_to("tpm", used)?;
//! assert_eq!(lease.consumed("tpm"), 420);
//! lease.commit().await?;
//!
//! assert!(limiter.available("key-1", "gpt-4").await?["tpm"] >= 50_000 - 420);
//! # Ok(()) }
//! ```
//!
//! # The bound
//!
//! In any window of length `W`, the processes that share a table take at most `C + r * (W + H + L + E)` tokens of a
//! limit with capacity `C` and rate `r`, refunds deducted:
//!
//! - `H` is the horizon `max(C / 8r, 4R)`: an eighth of the time in which the limit fills, or four round trips `R` to the
//!   table if that is more. A round trip counts as at most 2 s.
//! - `L` is the longest time that a request takes to reach the table.
//! - `E` is the difference between the clocks of the processes.
//!
//! Debts that a caller takes on purpose ([`Lease::adjust`]) and tokens admitted during an outage
//! ([`OnUnavailable`]) are outside it. The proof is in `docs/adr/0014-the-horizon-follows-the-round-trip.md`; the
//! simulator in `crates/sim` checks every schedule against it.
//!
//! The [guide] shows common tasks by example. [`RateLimiter`] and [`Acquire`] take tokens, and [`Lease`] is their
//! result. [`Repository`] opens a namespace, and [`Admin`] manages its limits and entities and reads usage and
//! changes. [`Stack`] manages namespaces, [`Error`] lists the failures, and the feature `blocking` adds the same
//! API without async. The feature `test-util` adds a table for tests of applications. `zae-limiter-core` has
//! the arithmetic and all decisions; [`table`] is the interface to the storage.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod admin;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
pub mod clock;
mod error;
pub mod guide;
mod inner;
mod refusal;
mod repository;
pub mod table;
#[cfg(feature = "metrics")]
pub mod telemetry;
#[cfg(not(feature = "metrics"))]
mod telemetry;
#[cfg(feature = "test-util")]
pub mod testing;

// Types of the AWS SDK in signatures of this crate.
pub use aws_credential_types::provider::ProvideCredentials;
#[cfg(feature = "sdk")]
pub use aws_sdk_dynamodb::Client as SdkClient;
pub use aws_types::SdkConfig;

pub use acquire::{
    Acquire, Alert, AlertReason, Availability, CacheStats, Check, DisabledBy, EndedLease, Lease, LeasePart,
    PlacesTaken, Prefetch, Prefetched, RateLimiter, Swept,
};
pub use admin::{
    ALL_RESOURCES, AboveParent, Admin, ApplyOptions, BegunApply, BucketReset, CapacityOf, Cursor,
    EntityCapacity, LimitsApplied, LimitsPlan, NewEntity, Pages, PlaceInFlight, Progress, ResourceCapacity,
    Stack, TopUp, UsageQuery,
};
pub use builder::RepositoryBuilder;
pub use error::{Error, Unavailable};
pub use refusal::Refusal;
pub use repository::{DEFAULT_NAMESPACE, DEFAULT_STACK, Drained, Repository};
pub use zae_limiter_core::detached::{DetachedLease, LeaseEnd, NotALease, OnExpiry};
pub use zae_limiter_core::operator::OperationResult;
pub use zae_limiter_core::{
    Access, AuditEvent, Compatibility, ConcurrencyExceeded, Entity, EntityId, EpochMillis, InputKind,
    IntoLimit, IntoName, IntoScheduleEntry, InvalidInput, Limit, LimitBuilder, LimitName, LimitStatus,
    NamespaceId, NamespaceName, NamespaceRecord, NamespaceStatus, OnUnavailable, Percent, Quota,
    RateLimitExceeded, Recovery, ResourceName, ResourceScope, UsageSnapshot, UsageSummary, UsageTotal,
    VersionRecord, Wait, Window,
};

#[cfg(feature = "provision")]
pub use admin::stack_manager;
#[cfg(feature = "provision")]
pub use zae_limiter_infra::StackOptions;

pub use zae_limiter_core::{manifest, schedule};

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The example of the error index, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/errors.md")]
struct ErrorIndex;
