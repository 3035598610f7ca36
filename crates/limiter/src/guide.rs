//! A guide by examples. Each one is compiled and run with the tests of this crate.
//!
//! 1. [Quick start](#quick-start)
//! 2. [Levels of limits](#levels-of-limits)
//! 3. [Hierarchy: keys, projects, tenants](#hierarchy)
//! 4. [Language models: estimate and reconcile](#language-models)
//! 5. [Waiting for tokens](#waiting-for-tokens)
//! 6. [Errors and HTTP status](#errors-and-http-status)
//! 7. [Outages](#outages)
//! 8. [Shutdown](#shutdown)
//! 9. [Testing](#testing)
//! 10. [Costs](#costs)
//! 11. [JSON and configuration](#json-and-configuration)
//!
//! # Quick start
//!
//! A [`Repository`](crate::Repository) is one namespace of one table. A [`RateLimiter`](crate::RateLimiter) takes tokens from
//! its buckets. The feature `embedded` keeps the table in memory or in a directory; [`Repository::open`](crate::Repository::open)
//! uses the one in AWS.
//!
//! ```
//! use zae_limiter::{Limit, RateLimiter, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! let repo = Repository::in_memory().await?;
//! repo.admin().set_resource_defaults("search", [Limit::per_second("rps", 50)]).await?;
//!
//! let limiter = RateLimiter::new(repo);
//! let lease = limiter.acquire("key-1", "search").consume("rps", 1).await?;
//! // ... handle the request ...
//! lease.commit().await?;
//! # Ok(()) }
//! ```
//!
//! An *entity* is what a limit counts for: an API key, a user, a project. A *resource* is what is limited: a model, an
//! endpoint, a queue. Neither has to be created before it is used.
//!
//! # Levels of limits
//!
//! Limits are stored at four levels. For an entity and a resource, the most specific level that defines any applies as a
//! whole: entity and resource, entity, resource, system.
//!
//! ```
//! use zae_limiter::{ALL_RESOURCES, Limit, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! let repo = Repository::in_memory().await?;
//! let admin = repo.admin();
//! admin.set_system_defaults([Limit::per_minute("rpm", 60)], None).await?;
//! admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 20)]).await?;
//! admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_minute("rpm", 600)]).await?;
//! admin.set_entity_limits("key-1", "gpt-4", [Limit::per_minute("rpm", 200)]).await?;
//!
//! let rpm = async |entity, resource| Ok::<_, zae_limiter::Error>(admin.effective_limits(entity, resource).await?[0].capacity());
//! assert_eq!(rpm("key-1", "gpt-4").await?, 200);
//! assert_eq!(rpm("key-1", "search").await?, 600);
//! assert_eq!(rpm("key-2", "gpt-4").await?, 20);
//! assert_eq!(rpm("key-2", "search").await?, 60);
//! # Ok(()) }
//! ```
//!
//! A changed limit reaches processes that use it within the time to live of their configuration cache, 60 s by default
//! ([`RepositoryBuilder::config_cache_ttl`](crate::RepositoryBuilder::config_cache_ttl)).
//!
//! # Hierarchy
//!
//! An entity can have a parent. If it cascades, each acquire takes the same amounts from the parent's bucket too, or
//! nothing at all.
//!
//! ```
//! use zae_limiter::{ALL_RESOURCES, Error, Limit, NewEntity, RateLimiter, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! let repo = Repository::in_memory().await?;
//! let admin = repo.admin();
//! admin.set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
//! admin.create_entity(NewEntity::new("project")).await?;
//! admin.set_entity_limits("project", ALL_RESOURCES, [Limit::per_day("tpd", 1_500)]).await?;
//! for key in ["key-1", "key-2"] {
//!     admin.create_entity(NewEntity::new(key).parent("project").cascade(true)).await?;
//! }
//!
//! let limiter = RateLimiter::new(repo);
//! limiter.acquire("key-1", "gpt-4").consume("tpd", 1_000).await?.commit().await?;
//! // The key has 1,000 tokens left, the project only 500.
//! let refused = limiter.acquire("key-2", "gpt-4").consume("tpd", 800).await;
//! let Err(Error::RateLimitExceeded(refused)) = refused else { panic!("{refused:?}") };
//! assert_eq!(refused.worst().unwrap().entity.as_str(), "project");
//! assert_eq!(limiter.available("key-2", "gpt-4").await?["tpd"], 500);
//! # Ok(()) }
//! ```
//!
//! # Language models
//!
//! The number of tokens is known only after the model has answered. Take an estimate, then correct it: the difference is
//! given back, or charged even if the bucket goes into debt.
//!
//! ```
//! use zae_limiter::{Error, Limit, RateLimiter, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! # let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_minute("rpm", 60), Limit::per_minute("tpm", 10_000)], None).await?;
//! # let limiter = RateLimiter::new(repo);
//! # async fn call_model() -> Result<u64, Error> { Ok(1_840) }
//! let estimate = 500 + 1_000; // tokens of the prompt, and max_tokens
//! let call = limiter.acquire("key-1", "gpt-4").consume("rpm", 1).consume("tpm", estimate);
//! let used = call
//!     .run(async |lease| {
//!         // An error in here gives everything back.
//!         let used = call_model().await?;
//!         lease.adjust_to("tpm", used)?;
//!         Ok::<_, Error>(used)
//!     })
//!     .await?;
//! assert_eq!(used, 1_840);
//! # Ok(()) }
//! ```
//!
//! A stream takes more while it goes on, with [`Lease::consume`](crate::Lease::consume), which is refused if there is too
//! little.
//!
//! ```
//! # use zae_limiter::{Error, Limit, RateLimiter, Repository};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! # let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_hour("tph", 1_000)], None).await?;
//! # let limiter = RateLimiter::new(repo);
//! let mut lease = limiter.acquire("key-1", "gpt-4").consume("tph", 400).await?;
//! lease.consume("tph", 400).await?;
//! assert!(matches!(lease.consume("tph", 400).await, Err(Error::RateLimitExceeded(_))));
//! assert_eq!(lease.consumed("tph"), 800);
//! lease.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # Waiting for tokens
//!
//! A batch job that should slow down rather than fail waits, in arrival order for each entity and resource of the process
//! ([`Acquire::wait`](crate::Acquire::wait), [`Acquire::until_ready`](crate::Acquire::until_ready)).
//!
//! ```
//! # use zae_limiter::{Limit, RateLimiter, Repository};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! # let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_second("rps", 100).burst(2)], None).await?;
//! # let limiter = RateLimiter::new(repo);
//! for _ in 0..4 {
//!     let call = limiter.acquire("batch", "gpt-4").consume("rps", 1).wait(Duration::from_secs(30));
//!     call.await?.commit().await?;
//! }
//! # Ok(()) }
//! ```
//!
//! # Errors and HTTP status
//!
//! ```
//! use zae_limiter::{Error, InputKind};
//!
//! /// Status and `Retry-After` of a gateway's answer.
//! fn answer(err: &Error) -> (u16, Option<String>) {
//!     match err {
//!         // The refusal's JSON is `refused.to_json()`.
//!         Error::RateLimitExceeded(refused) if refused.is_never() => (413, None),
//!         Error::RateLimitExceeded(refused) => (429, refused.retry_after_header()),
//!         Error::Disabled { .. } => (403, None),
//!         // The client has named the model, for example. All else is a fault of the gateway.
//!         Error::InvalidInput(bad) if bad.kind() == InputKind::Request => (400, None),
//!         Error::NotConfigured { .. } | Error::InvalidInput(_) => (500, None),
//!         Error::Unavailable(down) if down.is_retryable() => (503, Some("1".to_owned())),
//!         _ => (500, None),
//!     }
//! }
//! # use zae_limiter::{Limit, RateLimiter, Repository};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! # let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_minute("rpm", 1)], None).await?;
//! # let limiter = RateLimiter::new(repo);
//! # let call = |n| limiter.acquire("k", "r").consume("rpm", n);
//! # call(1).await?.commit().await?;
//! assert_eq!(answer(&call(1).await.unwrap_err()), (429, Some("60".to_owned())));
//! assert_eq!(answer(&call(2).await.unwrap_err()), (413, None));
//! let odd = limiter.acquire("k", "no model").consume("rpm", 1);
//! assert_eq!(answer(&odd.await.unwrap_err()), (400, None));
//! # Ok(()) }
//! ```
//!
//! `docs/errors.md` in the repository lists every error, and which are worth a retry.
//!
//! # Outages
//!
//! While the table does not answer, calls are refused (`Block`, the default), admitted without limits (`Allow`), or
//! admitted from a part of the limits in memory (`Degrade`).
//!
//! ```
//! use std::time::Duration;
//! use zae_limiter::{OnUnavailable, Percent, Repository};
//!
//! # fn main() -> Result<(), zae_limiter::Error> {
//! let builder = Repository::builder()
//!     .stack("my-app")
//!     .acquire_timeout(Duration::from_millis(800))
//!     // Four processes with a quarter of each limit.
//!     .on_unavailable(OnUnavailable::Degrade(Percent::new(25)?));
//! # let _ = builder;
//! # Ok(()) }
//! ```
//!
//! [`Lease::is_degraded`](crate::Lease::is_degraded) tells leases that were granted without the table.
//!
//! # Shutdown
//!
//! A dropped lease, and a cancelled call, give their tokens back in the background. Wait for it before the process ends.
//!
//! ```
//! # use zae_limiter::{Limit, RateLimiter, Repository};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! # let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
//! let limiter = RateLimiter::new(repo.clone());
//! drop(limiter.acquire("key-1", "gpt-4").consume("rph", 10).await?);
//! assert!(repo.drain().await.is_complete());
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["rph"], 10);
//! # Ok(()) }
//! ```
//!
//! # Testing
//!
//! [`Repository::in_memory`](crate::Repository::in_memory) is the whole limiter without AWS. With a clock of the test's own,
//! nothing has to sleep.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use zae_limiter::clock::ManualClock;
//! use zae_limiter::{Limit, RateLimiter, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
//! let repo = Repository::builder().in_memory().clock(clock.clone()).open().await?;
//! repo.admin().set_system_defaults([Limit::per_minute("rpm", 2)], None).await?;
//! let limiter = RateLimiter::new(repo);
//! let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 2);
//! call().await?.commit().await?;
//! assert!(call().await.is_err());
//! clock.advance(Duration::from_mins(1));
//! assert!(call().await.is_ok());
//! # Ok(()) }
//! ```
//!
//! An implementation of [`Table`](crate::table::Table) in front of the in-memory one
//! ([`RepositoryBuilder::custom_table`](crate::RepositoryBuilder::custom_table)) fails on demand.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use zae_limiter::table::{Applied, FailureKind, Op, Table, TableError, TableFuture};
//! use zae_limiter::{Error, Limit, RateLimiter, Repository};
//!
//! #[derive(Debug)]
//! struct Faulty(Arc<dyn Table>, Arc<AtomicBool>);
//!
//! impl Table for Faulty {
//!     fn call(&self, op: Op) -> TableFuture {
//!         if self.1.load(Ordering::Relaxed) {
//!             let lost = TableError::new(FailureKind::Timeout, Applied::Unknown, "as the test ordered");
//!             return Box::pin(async { Err(lost) });
//!         }
//!         self.0.call(op)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let (real, fails) = (Repository::in_memory().await?, Arc::new(AtomicBool::new(false)));
//! let table = Arc::new(Faulty(real.table(), Arc::clone(&fails)));
//! let repo = Repository::builder().custom_table(table).open().await?;
//! repo.admin().set_system_defaults([Limit::per_minute("rpm", 2)], None).await?;
//! let limiter = RateLimiter::new(repo);
//! limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await?.commit().await?;
//!
//! fails.store(true, Ordering::Relaxed);
//! let err = limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await.unwrap_err();
//! assert!(err.in_doubt(), "{err}");
//! # Ok(()) }
//! ```
//!
//! # Costs
//!
//! [`RepositoryBuilder::measure`](crate::RepositoryBuilder::measure) counts requests and capacity units.
//!
//! ```
//! use zae_limiter::{Limit, RateLimiter, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
//! let repo = Repository::builder().in_memory().measure().open().await?;
//! repo.admin().set_system_defaults([Limit::per_minute("rpm", 100)], None).await?;
//! let limiter = RateLimiter::new(repo.clone());
//! limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await?.commit().await?;
//!
//! let before = repo.request_cost();
//! limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await?.commit().await?;
//! let cost = repo.request_cost().since(&before);
//! assert_eq!((cost.updates, cost.write_units, cost.read_units), (1, 2.0, 0.0));
//! # Ok(()) }
//! ```
//!
//! # JSON and configuration
//!
//! With the feature `serde`, a service can have limits and policies in its configuration, and return what the library tells
//! in any format of serde. Values are read with the checks of their constructors, so a bad value is an error of the reader.
//!
//! ```
//! # #[cfg(feature = "serde")] {
//! use zae_limiter::{Limit, OnUnavailable};
//!
//! // What is omitted is as in a manifest: the capacity refills in a minute.
//! let limit: Limit = serde_json::from_str(r#"{"name": "tpm", "capacity": 10000, "burst": 50000}"#)?;
//! assert_eq!(limit, Limit::per_minute("tpm", 50_000).build()?);
//! let err = serde_json::from_str::<Limit>(r#"{"name": "tpm", "capacity": 0}"#).unwrap_err();
//! assert!(err.to_string().starts_with("invalid tpm.capacity '0': must be between 1 and"), "{err}");
//! assert!(matches!(serde_json::from_str(r#"{"degrade": 25}"#)?, OnUnavailable::Degrade(_)));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Type | Form |
//! |---|---|
//! | names and ids | text |
//! | [`Limit`](crate::Limit) | `name`, `capacity`, `refill_amount` (capacity if omitted), `refill_period` in seconds (60 if omitted); when read, also `burst`, which replaces the capacity. Other keys are refused |
//! | [`OnUnavailable`](crate::OnUnavailable) | `"block"`, `"allow"`, `{"degrade": 25}` |
//! | [`Window`](crate::Window) | `"hourly"`, `"daily"`, `"monthly"` |
//! | [`LimitStatus`](crate::LimitStatus) | `entity_id`, `resource`, `limit_name`, `capacity`, `refill_amount`, `refill_period_seconds`, `shards`, `available`, `requested`, `exceeded`, `retry_after_ms` (null for never) |
//! | [`RateLimitExceeded`](crate::RateLimitExceeded) | `limits` (a list of statuses), `contended`. The body of a 429 response is [`to_json`](crate::RateLimitExceeded::to_json) |
//! | [`Availability`](crate::Availability) | `checked_at`, `limits` |
//! | [`UsageSnapshot`](crate::UsageSnapshot) | `entity_id`, `resource`, `window`, `window_start`, `total_events`, `counters` |
//! | [`UsageSummary`](crate::UsageSummary) | `snapshots`, `limits` (by name: `total`, `snapshots`), `first_window_start`, `last_window_start` |
//! | [`AuditEvent`](crate::AuditEvent) | `event_id`, `entity_id` (the subject), `action`, `principal`, `resource`, `details`, `timestamp` |
//! | [`Entity`](crate::Entity) | `entity_id`, `name`, `parent_id`, `cascade`, `metadata`, `created_at` |
//! | [`ResourceCapacity`](crate::ResourceCapacity) | `resource`, `limit_name`, `entities` (a list of `entity_id`, `capacity`, `available`) |
//!
//! Times are texts of RFC 3339 in UTC. Metadata and details are plain JSON: a set is a list, and an integer beyond 64 bits is a
//! text.
