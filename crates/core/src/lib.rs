//! The pure part of zae-limiter: what a token bucket is, how it is stored, and how an acquire is decided.
//!
//! Nothing here performs I/O, reads a clock, spawns a task or depends on AWS. Functions take values and the time,
//! and return values: new balances, table operations to perform, decisions. Reading order:
//!
//! 1. [`limit`] and [`refill`]: the rule of one bucket, and its arithmetic.
//! 2. [`schema`], [`bucket`], [`config`], [`entity`], [`namespace`], [`version`], [`audit`], [`usage`]: the
//!    records of the shared table; [`definition`]: the table that holds them.
//! 3. [`table`]: operations on a table, as values; [`memory`] interprets them.
//! 4. [`acquire`] and [`credit`]: the state machines that take tokens and give them back.
//! 5. [`verdict`]: the answer to the caller.
//! 6. [`manifest`]: limits declared in one document, and what applying it would change.
//!
//! Applications use the crate `zae-limiter`, which drives these machines.

pub mod acquire;
pub mod assist;
pub mod audit;
mod backoff;
mod births;
pub mod bucket;
pub mod config;
pub mod credit;
pub mod definition;
pub mod entity;
mod error;
pub mod limit;
pub mod manifest;
pub mod memory;
pub mod name;
pub mod namespace;
pub mod random;
mod record;
pub mod refill;
pub mod resolve;
pub mod schema;
pub mod stream;
pub mod sync;
pub mod table;
pub mod tally;
mod together;
pub mod units;
pub mod usage;
pub mod verdict;
pub mod version;

pub use audit::AuditEvent;
pub use bucket::{Bucket, Owner};
pub use config::{Level, OnUnavailable, Percent};
pub use entity::{Entity, Metadata};
pub use error::{CorruptRecord, InvalidInput, RecordError, UnsupportedFeature};
pub use limit::{IntoLimit, Limit, LimitBuilder};
pub use name::{EntityId, LimitName, NamespaceId, NamespaceName, ResourceName, ResourceScope, StackName};
pub use namespace::{NamespaceRecord, NamespaceStatus};
pub use refill::Wait;
pub use units::{EpochMillis, MAX_PERIOD_SECS, MAX_TOKENS, Millitokens};
pub use usage::{UsageSnapshot, UsageSummary, UsageTotal, Window};
pub use verdict::{LimitStatus, RateLimitExceeded};
pub use version::{Compatibility, VersionRecord};
