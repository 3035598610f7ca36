//! A guide by examples. Each one is compiled and run with the tests of this crate.
//!
//! 1. [Quick start](#quick-start)
//! 2. [Levels of limits](#levels-of-limits)
//! 3. [Hierarchy: keys and their projects](#hierarchy)
//! 4. [Language models: estimate and reconcile](#language-models)
//! 5. [Waiting for tokens](#waiting-for-tokens)
//! 6. [Requests in flight](#requests-in-flight)
//! 7. [Errors and HTTP status](#errors-and-http-status)
//! 8. [A request handler](#a-request-handler)
//! 9. [Unknown keys](#unknown-keys)
//! 10. [Outages](#outages)
//! 11. [Shutdown](#shutdown)
//! 12. [Testing](#testing)
//! 13. [Costs](#costs)
//! 14. [Usage](#usage)
//! 15. [Support operations: resets and top-ups](#support-operations)
//! 16. [Audit log](#audit-log)
//! 17. [JSON and configuration](#json-and-configuration)
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
//! endpoint, a queue. Neither has to be created before it is used. Each entity has a bucket of its own for each resource.
//!
//! The library logs with [`tracing`](https://docs.rs/tracing), such as leases that were dropped and the state of the circuit breaker.
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
//! A level's limits apply to each bucket by itself: 600 a minute for [`ALL_RESOURCES`](crate::ALL_RESOURCES) are 600 for each resource,
//! not for their sum. For a limit on all models together, use one resource for them, such as `llm`.
//!
//! A changed limit reaches processes that use it within the time to live of their configuration cache, 60 s by default
//! ([`RepositoryBuilder::config_cache_ttl`](crate::RepositoryBuilder::config_cache_ttl)).
//!
//! # Hierarchy
//!
//! An entity can have a parent. If it cascades, each acquire takes the same amounts from the parent's bucket too, or
//! nothing at all. There is one step: the parent of a parent is not debited, also if the parent cascades, until the
//! [cascade depth](crate::Admin::set_cascade_depth) of the namespace is raised. Then up to 8 entities above each other are, such as key,
//! project, team and organisation.
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
//! An entity and its parent can have different limits. Each consumed limit is looked up for both, by the levels above:
//!
//! | The limit is defined for | What a call that consumes it does |
//! |---|---|
//! | both | takes the tokens from both buckets, or from none |
//! | the entity only | takes them from the entity's bucket; the parent is not debited |
//! | the parent only | fails with [`InvalidInput`](crate::Error::InvalidInput), and takes nothing |
//!
//! A parent without any limits, at no level, is a fault of the configuration: calls of entities that cascade to it fail with
//! [`NotConfigured`](crate::Error::NotConfigured), which names the parent. A limit that only the parent shall enforce needs
//! one of the same name for the entity that is not lower than it.
//!
//! ```
//! use zae_limiter::{ALL_RESOURCES, Error, Limit, NewEntity, RateLimiter, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let repo = Repository::in_memory().await?;
//! let admin = repo.admin();
//! admin.create_entity(NewEntity::new("key-1").parent("project").cascade(true)).await?;
//! admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_day("rpd", 100)]).await?;
//! admin.set_entity_limits("project", ALL_RESOURCES, [Limit::per_day("tpd", 5_000)]).await?;
//!
//! // Only the key has `rpd`: the project's bucket is not touched.
//! let limiter = RateLimiter::new(repo.clone());
//! limiter.acquire("key-1", "gpt-4").consume("rpd", 1).await?.commit().await?;
//! // Only the project has `tpd`: the call names a limit that the key does not have.
//! let unknown = limiter.acquire("key-1", "gpt-4").consume("rpd", 1).consume("tpd", 400).await;
//! let Err(Error::InvalidInput(bad)) = unknown else { panic!("{unknown:?}") };
//! assert_eq!(bad.field(), "consume.tpd");
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["rpd"], 99);
//!
//! // With a limit of the same name for the key, the project's applies.
//! admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_day("rpd", 100), Limit::per_day("tpd", 5_000)]).await?;
//! limiter.acquire("key-1", "gpt-4").consume("rpd", 1).consume("tpd", 400).await?.commit().await?;
//! assert_eq!(limiter.available("project", "gpt-4").await?["tpd"], 4_600);
//! # Ok(()) }
//! ```
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
//! A service waits, too, where a short delay is better than a refusal: many clients send bursts, and the tokens for the last
//! call of a burst are often there within a second. Choose `max` by the client's patience:
//!
//! - An interactive request: no wait, or up to 2 s. The client gets 429 with `Retry-After` for anything longer.
//! - A request of another service with a deadline: the deadline less the time of the work and one
//!   [`timeout`](crate::Acquire::timeout), since a call can take up to `max` and one `timeout`.
//! - A consumer of a queue: less than the time after which the queue hands the message to another consumer.
//!
//! A call whose turn has come is refused at once if its tokens come later than `max`; a call behind others waits for its turn,
//! up to `max`. Each call that waits holds its connection and memory: bound the number of requests that the service handles
//! at the same time. If the client disconnects and the handler's future is dropped, the call leaves the queue and takes
//! nothing.
//!
//! ```
//! # use zae_limiter::{Error, Limit, RateLimiter, Repository};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! # let repo = Repository::in_memory().await?;
//! # repo.admin().set_system_defaults([Limit::per_second("rps", 100).burst(1), Limit::per_hour("tph", 10)], None).await?;
//! # let limiter = RateLimiter::new(repo);
//! // At most 2 s for the tokens and 800 ms for the table.
//! let call = |limit| {
//!     let call = limiter.acquire("key-1", "gpt-4").consume(limit, 1);
//!     call.wait(Duration::from_secs(2)).timeout(Duration::from_millis(800))
//! };
//! call("rps").await?.commit().await?;
//! call("rps").await?.commit().await?; // after 10 ms
//! # limiter.acquire("key-1", "gpt-4").consume("tph", 10).await?.commit().await?;
//! // The next token of an hourly limit comes in minutes: refused without a wait.
//! assert!(matches!(call("tph").await, Err(Error::RateLimitExceeded(_))));
//! # Ok(()) }
//! ```
//!
//! # Requests in flight
//!
//! A [concurrency limit](crate::Admin::set_entity_concurrency) bounds how many requests of an entity run at the same time. A call that asks
//! for a [place](crate::Acquire::in_flight) takes it with its tokens, all or nothing. The lease holds the place until it ends, and renews it
//! meanwhile, so that the place of a crashed process is free after a minute.
//!
//! ```
//! use std::time::Duration;
//! use zae_limiter::{Error, Limit, RateLimiter, Repository};
//!
//! # async fn stream_from_model() {}
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! # let repo = Repository::in_memory().await?;
//! let admin = repo.admin();
//! admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
//! admin.set_resource_concurrency("gpt-4", 2).await?;
//! let limiter = RateLimiter::new(repo.clone());
//!
//! let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 1).in_flight();
//! let (first, second) = (call().await?, call().await?);
//! let refused = call().await.unwrap_err();
//! assert_eq!(refused.refusal().map(|answer| answer.status()), Some(429));
//!
//! // One that waits goes on as soon as another one has ended.
//! first.commit().await?;
//! let third = call().wait(Duration::from_secs(10)).await?;
//! stream_from_model().await;
//! third.commit().await?;
//! second.rollback().await?;
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
//!     // A limit refused (429, or 413 if no wait helps), the key is disabled (403), or the table cannot be used (503).
//!     if let Some(refusal) = err.refusal() {
//!         return (refusal.status(), refusal.retry_after_header().map(str::to_owned));
//!     }
//!     match err {
//!         // The client has named the model, for example. All else is a fault of the gateway.
//!         Error::InvalidInput(bad) if bad.kind() == InputKind::Request => (400, None),
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
//! The JSON of the answer is [`refusal.body()`](crate::Refusal::body), with a schema for the documentation of an API
//! ([`Refusal::SCHEMA`](crate::Refusal::SCHEMA)). `docs/errors.md` in the repository lists every error, and which are worth a retry.
//!
//! # A request handler
//!
//! The parts together, for any HTTP framework: acquire, work, correct, commit. After the model has answered, the client gets
//! the answer in any case, after at most the lease's [timeout](crate::Lease::set_timeout). An error of `commit` is logged: the
//! library continues to send the correction in the background, or the estimate stays consumed. Do not repeat it.
//!
//! **If a client disconnects, most frameworks drop the handler's future.** A lease that is dropped gives back all of its tokens, although the
//! model has used some. So the work is a task of its own here, which goes on to its end. At the shutdown, wait for these
//! tasks (`TaskTracker` of the crate `tokio-util` does), and then [drain](#shutdown).
//!
//! Resources are names that the service has: a client that may invent names of models gets a full bucket for each.
//!
//! ```
//! use std::time::Duration;
//! use zae_limiter::{Error, InputKind, RateLimiter};
//!
//! struct Answer {
//!     status: u16,
//!     retry_after: Option<String>,
//!     body: String,
//! }
//!
//! impl Answer {
//!     fn new(status: u16, body: impl Into<String>) -> Self {
//!         Self { status, retry_after: None, body: body.into() }
//!     }
//!
//!     /// The answer to a request that was not admitted.
//!     fn refused(err: &Error) -> Self {
//!         if let Some(refusal) = err.refusal() {
//!             let retry_after = refusal.retry_after_header().map(str::to_owned);
//!             return Self { retry_after, ..Self::new(refusal.status(), refusal.body().to_string()) };
//!         }
//!         match err {
//!             Error::InvalidInput(bad) if bad.kind() == InputKind::Request => Self::new(400, bad.to_string()),
//!             // A fault of the service or its configuration, whose text is for its log.
//!             _ => Self::new(500, "internal error"),
//!         }
//!     }
//! }
//!
//! const MODELS: [&str; 2] = ["gpt-4", "gpt-4-mini"];
//!
//! /// Goes on if the client disconnects.
//! async fn chat(limiter: RateLimiter, key: String, model: String, prompt: String) -> Answer {
//!     let work = tokio::spawn(async move { handle(&limiter, &key, &model, &prompt).await });
//!     work.await.unwrap_or_else(|_| Answer::new(500, "internal error"))
//! }
//!
//! async fn handle(limiter: &RateLimiter, key: &str, model: &str, prompt: &str) -> Answer {
//!     if !MODELS.contains(&model) {
//!         return Answer::new(404, "no such model");
//!     }
//!     let estimate = prompt.len() as u64 / 4 + 1_000; // tokens of the prompt, and max_tokens
//!     let call = limiter.acquire(key, model).consume("rpm", 1).consume("tpm", estimate);
//!     let mut lease = match call.await {
//!         Ok(lease) => lease,
//!         Err(err) => {
//!             eprintln!("not admitted: {err}");
//!             return Answer::refused(&err);
//!         }
//!     };
//!     lease.set_timeout(Duration::from_millis(800));
//!     let (text, used) = match call_model(prompt).await {
//!         Ok(done) => done,
//!         Err(err) => {
//!             // Nothing was used: give everything back. A dropped lease would do the same in the background.
//!             if let Err(err) = lease.rollback().await {
//!                 eprintln!("rollback: {err}");
//!             }
//!             return Answer::new(502, err);
//!         }
//!     };
//!     let corrected = match lease.adjust_to("tpm", used) {
//!         Ok(()) => lease.commit().await,
//!         Err(err) => Err(err),
//!     };
//!     if let Err(err) = corrected {
//!         eprintln!("commit: {err}, in doubt: {}", err.in_doubt());
//!     }
//!     Answer::new(200, text)
//! }
//! # use std::sync::Arc;
//! # use std::sync::atomic::{AtomicBool, Ordering};
//! # use zae_limiter::table::{Applied, FailureKind, Op, Table, TableError, TableFuture};
//! # use zae_limiter::clock::ManualClock;
//! # use zae_limiter::{Limit, Repository};
//! # static FAILS: AtomicBool = AtomicBool::new(false);
//! # #[derive(Debug)]
//! # struct Faulty(Arc<dyn Table>);
//! # impl Table for Faulty {
//! #     fn call(&self, op: Op) -> TableFuture {
//! #         if FAILS.load(Ordering::Relaxed) {
//! #             let refused = TableError::new(FailureKind::BadRequest, Applied::No, "refused");
//! #             return Box::pin(async { Err(refused) });
//! #         }
//! #         self.0.call(op)
//! #     }
//! # }
//! # async fn call_model(prompt: &str) -> Result<(String, u64), &'static str> {
//! #     match prompt {
//! #         "fail" => return Err("the model is overloaded"),
//! #         "fail the commit" => FAILS.store(true, Ordering::Relaxed),
//! #         _ => {}
//! #     }
//! #     Ok(("the answer".to_owned(), 300))
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! # let table = Repository::in_memory().await?.table();
//! # let clock = ManualClock::at(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000));
//! # let repo = Repository::builder().custom_table(Arc::new(Faulty(table))).clock(clock).open().await?;
//! # repo.admin().set_system_defaults([Limit::per_minute("rpm", 4), Limit::per_minute("tpm", 10_000)], None).await?;
//! # let limiter = RateLimiter::new(repo);
//! // A failure of the model gives the request back.
//! assert_eq!(handle(&limiter, "key-1", "gpt-4", "fail").await.status, 502);
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["tpm"], 10_000);
//! assert_eq!(handle(&limiter, "key-1", "gpt-4", "hello").await.body, "the answer");
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["tpm"], 9_700);
//! assert_eq!(handle(&limiter, "key-1", "gpt-0", "hello").await.status, 404);
//! assert_eq!(handle(&limiter, "no key", "gpt-4", "hello").await.status, 400);
//! assert_eq!(handle(&limiter, "key-1", "gpt-4", &"x".repeat(40_000)).await.status, 413);
//! # assert_eq!(handle(&limiter, "key-1", "gpt-4", "hello").await.status, 200);
//! # assert_eq!(handle(&limiter, "key-1", "gpt-4", "hello").await.status, 200);
//! # assert_eq!(handle(&limiter, "key-1", "gpt-4", "hello").await.status, 200);
//! let refused = handle(&limiter, "key-1", "gpt-4", "hello").await;
//! assert!(refused.status == 429 && refused.retry_after.is_some());
//! // A client that hangs up while the model works has used the tokens.
//! # let left = limiter.available("key-3", "gpt-4").await?["tpm"];
//! let request = tokio::spawn(chat(limiter.clone(), "key-3".to_owned(), "gpt-4".to_owned(), "hello".to_owned()));
//! tokio::task::yield_now().await;
//! request.abort();
//! # tokio::time::sleep(Duration::from_millis(500)).await;
//! # assert_eq!(limiter.available("key-3", "gpt-4").await?["tpm"], left - 300);
//! // A commit that fails does not fail the answer.
//! assert_eq!(handle(&limiter, "key-2", "gpt-4", "fail the commit").await.status, 200);
//! # assert!(FAILS.load(Ordering::Relaxed));
//! # Ok(()) }
//! ```
//!
//! # Unknown keys
//!
//! Entities and resources need not be created, so an id that was never seen before has the limits of its resource or of the
//! system. If no level defines limits for an id, an acquire of it fails with [`NotConfigured`](crate::Error::NotConfigured) and takes nothing.
//! A service has three choices:
//!
//! - Default limits apply to keys that have none: store them with [`set_resource_defaults`](crate::Admin::set_resource_defaults) or
//!   [`set_system_defaults`](crate::Admin::set_system_defaults). An unknown key is then not an error. Its first acquire creates a
//!   bucket, so authenticate the key before.
//! - Unknown keys get 404 (or 401): store limits for entities only, no defaults, and answer `NotConfigured` with it.
//! - Unknown keys get limits that the service chooses: repeat the call with [`limits`](crate::Acquire::limits).
//!
//! ```
//! use zae_limiter::{ALL_RESOURCES, Error, Lease, Limit, RateLimiter, Repository};
//!
//! /// The status of an answer where every valid key has limits of its own, and there are no defaults.
//! fn status(err: &Error, key: &str) -> u16 {
//!     match err {
//!         // The error of a parent without limits names the parent, and is a fault of the configuration.
//!         Error::NotConfigured { entity, .. } if entity == key => 404,
//!         _ => 500, // as above
//!     }
//! }
//!
//! /// Admits keys that have no limits under small ones.
//! async fn admit(limiter: &RateLimiter, key: &str) -> Result<Lease, Error> {
//!     let call = || limiter.acquire(key, "gpt-4").consume("rpd", 1);
//!     match call().await {
//!         Err(Error::NotConfigured { .. }) => call().limits([Limit::per_day("rpd", 1)]).await,
//!         other => other,
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let repo = Repository::in_memory().await?;
//! repo.admin().set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_day("rpd", 10)]).await?;
//! let limiter = RateLimiter::new(repo);
//! let unknown = limiter.acquire("key-9", "gpt-4").consume("rpd", 1).await.unwrap_err();
//! assert_eq!(status(&unknown, "key-9"), 404);
//!
//! admit(&limiter, "key-9").await?.commit().await?;
//! assert!(matches!(admit(&limiter, "key-9").await, Err(Error::RateLimitExceeded(_))));
//! admit(&limiter, "key-1").await?.commit().await?;
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["rpd"], 9);
//! # Ok(()) }
//! ```
//!
//! An entity that was created and has no limits at any level gets the same error. [`Admin::entity`](crate::Admin::entity)
//! returns whether an id was created, at the cost of a read.
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
//! [`Lease::is_degraded`](crate::Lease::is_degraded) tells leases that were granted without the table. For a health check,
//! [`Repository::is_available`](crate::Repository::is_available) reads the table once.
//!
//! # Shutdown
//!
//! A dropped lease, and a cancelled call, give their tokens back in the background. Wait for it before the process ends. The order
//! for a server: stop accepting requests, wait for those that are handled, drain
//! ([`drain_within`](crate::Repository::drain_within) has a bound), and log what is left.
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
//! The feature `test-util` has the module `zae_limiter::testing` for tests of a service: a table in memory that fails on
//! demand, on which a repository is opened like on any other. With tokio's time paused, nothing has to sleep.
//!
//! ```toml
//! [dev-dependencies]
//! zae-limiter = { git = "https://github.com/zeroae/zae-limiter-rs", features = ["test-util"] } # as in [dependencies]
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! Buckets earn while tokio's time passes, paused or not. Where a test needs exact balances, use limits per day, or a
//! [`ManualClock`](crate::clock::ManualClock): `table.builder().clock(clock)`.
//!
//! The service's function that is tested here answers a request with a text or with an HTTP status.
//!
//! ```
//! use std::time::Duration;
//! use zae_limiter::testing::TestTable;
//! use zae_limiter::{Error, Limit, RateLimiter};
//!
//! async fn chat(limiter: &RateLimiter, key: &str) -> Result<String, u16> {
//!     let call = limiter.acquire(key, "gpt-4").consume("rpm", 1);
//!     match call.run(async |_lease| Ok::<_, Error>("Hello!".to_owned())).await {
//!         Ok(text) => Ok(text),
//!         Err(Error::RateLimitExceeded(_)) => Err(429),
//!         Err(_) => Err(503),
//!     }
//! }
//!
//! // #[tokio::test(start_paused = true)] async fn the_third_request_of_a_minute_is_refused() {
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
//! let repo = TestTable::new().open().await?;
//! repo.admin().set_system_defaults([Limit::per_minute("rpm", 2)], None).await?;
//! let limiter = RateLimiter::new(repo);
//! assert!(chat(&limiter, "key-1").await.is_ok());
//! assert!(chat(&limiter, "key-1").await.is_ok());
//! assert_eq!(chat(&limiter, "key-1").await, Err(429));
//! assert!(chat(&limiter, "key-2").await.is_ok());
//! // Two a minute are one in 30 s. This returns at once.
//! tokio::time::sleep(Duration::from_secs(30)).await;
//! assert!(chat(&limiter, "key-1").await.is_ok());
//! # Ok(()) }
//! ```
//!
//! During an outage, under `Allow`, it answers all requests, and counts again when the table has recovered. Under `Block` it
//! would answer 503, after the deadline of the call.
//!
//! ```
//! # use zae_limiter::{Error, Limit, RateLimiter};
//! # async fn chat(limiter: &RateLimiter, key: &str) -> Result<String, u16> {
//! #     let call = limiter.acquire(key, "gpt-4").consume("rpm", 1);
//! #     match call.run(async |_lease| Ok::<_, Error>("Hello!".to_owned())).await {
//! #         Ok(text) => Ok(text),
//! #         Err(Error::RateLimitExceeded(_)) => Err(429),
//! #         Err(_) => Err(503),
//! #     }
//! # }
//! use std::time::Duration;
//! use zae_limiter::OnUnavailable;
//! use zae_limiter::testing::{Fault, TestTable};
//!
//! // #[tokio::test(start_paused = true)] async fn an_outage_stops_no_request() {
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
//! let table = TestTable::new();
//! let repo = table.builder().on_unavailable(OnUnavailable::Allow).open().await?;
//! repo.admin().set_system_defaults([Limit::per_hour("rpm", 2)], None).await?;
//! let limiter = RateLimiter::new(repo);
//! table.fail(Fault::Unreachable);
//! for _ in 0..10 {
//!     assert!(chat(&limiter, "key-1").await.is_ok());
//! }
//! table.recover();
//! // The circuit breaker has opened. The next request is its probe.
//! tokio::time::sleep(Duration::from_secs(1)).await;
//! assert!(chat(&limiter, "key-1").await.is_ok());
//! assert!(chat(&limiter, "key-1").await.is_ok());
//! assert_eq!(chat(&limiter, "key-1").await, Err(429));
//! # Ok(()) }
//! ```
//!
//! If the model fails, the tokens are given back, once, even if the answer to the refund is lost.
//!
//! ```
//! use zae_limiter::testing::{Fault, TestTable};
//! use zae_limiter::{Error, Limit, RateLimiter};
//!
//! async fn summarise(
//!     limiter: &RateLimiter,
//!     model: impl AsyncFnOnce() -> Result<u64, u16>,
//! ) -> Result<u64, Box<dyn std::error::Error>> {
//!     let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpm", 1_000).await?;
//!     match model().await {
//!         Ok(used) => {
//!             lease.adjust_to("tpm", used)?;
//!             lease.commit().await?;
//!             Ok(used)
//!         }
//!         Err(status) => {
//!             lease.rollback().await?;
//!             Err(format!("the model answered {status}").into())
//!         }
//!     }
//! }
//!
//! // #[tokio::test(start_paused = true)] async fn a_failed_call_costs_nothing() {
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let table = TestTable::new();
//! let repo = table.open().await?;
//! repo.admin().set_system_defaults([Limit::per_hour("tpm", 10_000)], None).await?;
//! let limiter = RateLimiter::new(repo);
//! summarise(&limiter, async || Ok(800)).await?;
//!
//! let overloaded = async || {
//!     table.fail_next(1, Fault::AnswerLost); // the next request to the table is the refund
//!     Err(529)
//! };
//! assert!(summarise(&limiter, overloaded).await.is_err());
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["tpm"], 9_200);
//! # Ok(()) }
//! ```
//!
//! Where tests need more, such as a fault of certain items, an implementation of [`Table`](crate::table::Table) can stand in
//! front of another ([`RepositoryBuilder::custom_table`](crate::RepositoryBuilder::custom_table)). A clock of the test's own
//! is set with [`RepositoryBuilder::clock`](crate::RepositoryBuilder::clock).
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
//! Four options lower the costs. A table with a [lean index](crate::RepositoryBuilder::lean_index) takes one write unit in place of
//! two. Acquires of one bucket at the same time [share writes](crate::RepositoryBuilder::group_commit), which is on by default. The
//! correction of an estimate can wait for the next acquire of its bucket, [which carries it](crate::RepositoryBuilder::correction_delay).
//! A write can take tokens for [many calls](crate::RepositoryBuilder::prefetch), which are then served from memory, within a stated bound.
//!
//! # Usage
//!
//! The functions of a deployed stack count what each entity takes of each resource, net of refunds, in windows of an hour, a
//! day or a month (`SnapshotWindows` of the stack). [`Admin::usage_snapshots`](crate::Admin::usage_snapshots) reads the windows,
//! [`Admin::usage_summary`](crate::Admin::usage_summary) adds up those of one kind. **An embedded table has no functions, so it counts no
//! usage**: the queries work, and find nothing. The same holds for a stack that was deployed without functions.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use zae_limiter::{Limit, RateLimiter, Repository, UsageQuery, Window};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let repo = Repository::in_memory().await?; // `open("default")` for a deployed stack
//! repo.admin().set_system_defaults([Limit::per_minute("tpm", 10_000)], None).await?;
//! RateLimiter::new(repo.clone()).acquire("key-1", "gpt-4").consume("tpm", 500).await?.commit().await?;
//!
//! // The last 30 days of a key, for its bill. Name the kind of window, as an hour counts in its day, too.
//! let since = SystemTime::now() - Duration::from_hours(30 * 24);
//! let query = UsageQuery::entity("key-1").window(Window::Daily).from(since);
//! let summary = repo.admin().usage_summary(query.clone()).await?;
//! for (limit, usage) in &summary.limits {
//!     println!("{limit}: {} tokens in {} days", usage.total, usage.snapshots);
//! }
//! // The same by day and resource.
//! for day in repo.admin().usage_snapshots(query)?.all().await? {
//!     let start = jiff::Timestamp::try_from(day.window_start)?;
//!     println!("{start} {}: {:?}", day.resource, day.counters); // 2026-11-28T00:00:00Z gpt-4: {"tpm": 500}
//! }
//! assert_eq!(summary.snapshots, 0, "an embedded table counts no usage");
//! # Ok(()) }
//! ```
//!
//! Usage trails the requests by seconds, and each batch of the functions is counted once. To be notified when a limit is nearly used up,
//! see [`RepositoryBuilder::on_alert`](crate::RepositoryBuilder::on_alert); the aggregator reports it, too (`docs/alerts.md`). To see what a key has left now, use
//! [`RateLimiter::available`](crate::RateLimiter::available); for the cost of the requests to the table, see [Costs](#costs).
//!
//! # Support operations
//!
//! A customer gets the allowance back after an incident, or has bought more. [`Admin::reset_bucket`](crate::Admin::reset_bucket) and
//! [`Admin::top_up`](crate::Admin::top_up) change the live bucket, at once and for all processes. Name the operation after the ticket or the
//! order: a handler that runs twice, or again after an error, then changes nothing the second time.
//!
//! ```
//! use zae_limiter::{BucketReset, Error, Limit, RateLimiter, Repository, TopUp};
//!
//! /// Called when an order is paid, perhaps more than once.
//! async fn order_is_paid(repo: &Repository, order: &str, key: &str, tokens: u64) -> Result<(), Error> {
//!     let bought = TopUp::new(key, "gpt-4").add("tokens", tokens).idempotency_key(format!("order-{order}"));
//!     repo.admin().top_up(bought).await?;
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let repo = Repository::in_memory().await?;
//! let quota = Limit::quota("tokens", 1_000).resets("0 0 1 * *", "Europe/Berlin");
//! repo.admin().set_system_defaults([quota], None).await?;
//! let limiter = RateLimiter::new(repo.clone());
//! limiter.acquire("key-1", "gpt-4").consume("tokens", 1_000).await?.commit().await?;
//! for _ in 0..2 {
//!     order_is_paid(&repo, "17", "key-1", 500).await?;
//! }
//! limiter.acquire("key-1", "gpt-4").consume("tokens", 500).await?.commit().await?;
//! assert!(limiter.acquire("key-1", "gpt-4").consume("tokens", 1).await.is_err());
//!
//! // A wrong loop of ours has used up the month.
//! let reset = BucketReset::new("key-1", "gpt-4").limit("tokens").idempotency_key("incident-3");
//! assert_eq!(repo.admin().reset_bucket(reset).await?.shards, 1);
//! assert_eq!(limiter.available("key-1", "gpt-4").await?["tokens"], 1_000);
//! # Ok(()) }
//! ```
//!
//! What was bought lasts until the period ends. A larger plan is another limit
//! ([`set_entity_limits`](crate::Admin::set_entity_limits)), with a top-up of the difference for the period that has begun.
//!
//! # Audit log
//!
//! Each change of an entity or of limits is logged in the table, also in an embedded one, with the principal that made it and
//! for 90 days ([`Admin::set_audit_retention`](crate::Admin::set_audit_retention)). Acquires are not logged.
//!
//! Times of this API are [`SystemTime`](std::time::SystemTime), which has no text. A crate for dates, such as
//! [jiff](https://docs.rs/jiff), prints them.
//!
//! ```
//! use zae_limiter::{Limit, Repository};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::time::{Duration, SystemTime};
//! # use zae_limiter::clock::ManualClock;
//! # let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
//! // The principal is the caller's identity of AWS unless it is set. The clock is one of a test.
//! let repo = Repository::builder().in_memory().clock(clock).principal("ops@example.com").open().await?;
//! repo.admin().set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
//!
//! // The subject is an entity's id, `$RESOURCE:{resource}` or `$SYSTEM`. Newest first.
//! let events = repo.admin().audit_events("$RESOURCE:gpt-4", None)?.all().await?;
//! let event = &events[0];
//! let at = jiff::Timestamp::try_from(event.timestamp.ok_or("an event without a time")?)?;
//! let line = format!("{at} {} {}", event.action, event.principal.as_deref().unwrap_or("-"));
//! assert_eq!(line, "2027-01-15T08:00:00Z limits_set ops@example.com");
//! // In a time zone: `at.in_tz("Europe/Berlin")?`, with jiff's feature for time zones.
//! # Ok(()) }
//! ```
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
//! | [`Limit`](crate::Limit) | `name`, `capacity`, `refill_amount` (capacity if omitted), `refill_period` in seconds (60 if omitted); if it has them, `schedule`, `reset_schedule`, `reset_after_seconds` and `soft`, and then no refill unless it has one; when read, also `burst`, which replaces the capacity. Other keys are refused |
//! | [`OnUnavailable`](crate::OnUnavailable) | `"block"`, `"allow"`, `{"degrade": 25}` |
//! | [`Window`](crate::Window) | `"hourly"`, `"daily"`, `"monthly"` |
//! | [`LimitStatus`](crate::LimitStatus) | `entity_id`, `resource`, `limit_name`, `capacity`, `refill_amount`, `refill_period_seconds`, `shards`, `available`, `requested`, `exceeded`, `retry_after_ms` (null for never), `quota` and `soft` (if true), `resets_at_ms` (of a quota or a session) |
//! | [`RateLimitExceeded`](crate::RateLimitExceeded) | `limits` (a list of statuses), `contended`. The body of a 429 response is [`to_json`](crate::RateLimitExceeded::to_json) |
//! | [`Availability`](crate::Availability) | `entity_id`, `resource`, `checked_at`, `limits` (a list of statuses), `configured` (the entity's limits), `disabled` (if it is: `entity_id`, `level`), `bypassed` (a list of ids, if there are any) |
//! | [`UsageSnapshot`](crate::UsageSnapshot) | `entity_id`, `resource`, `window`, `window_start`, `total_events`, `counters` |
//! | [`UsageSummary`](crate::UsageSummary) | `window`, `other_windows`, `snapshots`, `limits` (by name: `total`, `snapshots`), `first_window_start`, `last_window_start` |
//! | [`AuditEvent`](crate::AuditEvent) | `event_id`, `entity_id` (the subject), `action`, `principal`, `resource`, `details`, `timestamp` |
//! | [`Entity`](crate::Entity) | `entity_id`, `name`, `parent_id`, `cascade`, `metadata`, `created_at` |
//! | [`ResourceCapacity`](crate::ResourceCapacity) | `resource`, `limit_name`, `entities` (a list of `entity_id`, `capacity`, `available`) |
//!
//! Times are texts of RFC 3339 in UTC. Metadata and details are plain JSON: a set is a list, and an integer beyond 64 bits is a
//! text.
