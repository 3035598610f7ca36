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
//! repo.admin().set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)])?;
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
//! [`Error::AsyncContext`](crate::Error::AsyncContext); [`Repository::is_available`] returns false. A commit or
//! rollback is still started, and continues in the background. `spawn_blocking` and `block_in_place` make threads on
//! which blocking calls are allowed.
//!
//! # Drop
//! When the last handle of a repository (with its leases, pages and stacks) is dropped while refunds are being sent, the
//! drop waits for them, 5 seconds at most. After that, or at once on a thread that runs async tasks, a thread continues
//! for up to 30 seconds while the process lives. [`Repository::drain`] returns what is left.

mod admin;
mod concurrency;
mod lease;
mod limiter;
mod pages;
mod repository;
mod runtime;
mod stack;

pub use admin::Admin;
pub use lease::{Lease, LeasePart};
pub use limiter::{Acquire, Check, RateLimiter};
pub use pages::Pages;
pub use repository::Repository;
pub use stack::Stack;
