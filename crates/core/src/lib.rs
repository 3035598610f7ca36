//! The pure part of zae-limiter: what a token bucket is, how it is stored, and how an acquire is decided.
//!
//! Nothing here performs I/O, reads a clock, spawns a task or depends on AWS. Functions take values and the time,
//! and return values: new balances, table operations to perform, decisions. Reading order:
//!
//! 1. [`limit`] and [`refill`]: the rule of one bucket, and its arithmetic; [`schedule`] and
//!    [`terms`]: how it depends on the local time.
//! 2. [`table`]: operations on a table, as values; `memory` (feature `test-util`) executes them in memory.
//! 3. [`schema`], [`bucket`], [`config`], [`concurrency`], [`depth`], [`entity`], [`namespace`], [`version`],
//!    [`audit`], [`usage`]: the records of the shared table; [`definition`]: the table that holds them.
//! 4. [`acquire`] and [`credit`]: the state machines that take tokens and give them back.
//! 5. [`detached`]: leases that another process ends; [`flight`]: places for requests in flight; [`operator`]: what an operator
//!    gives back or adds to a bucket.
//! 6. [`verdict`]: the answer to the caller; [`alert`]: what is reported of the use of limits.
//! 7. [`outage`]: decisions while the table cannot be used.
//! 8. [`document`]: settings in files, with places for what is wrong; [`manifest`]: limits declared in one document, and what
//!    applying it would change.
//!
//! Applications use the crate `zae-limiter`, which drives these machines.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod acquire;
pub mod alert;
pub mod credit;
pub mod detached;
pub mod document;
mod error;
pub mod flight;
mod functions;
pub mod manifest;
pub mod name;
mod operations;
pub mod operator;
pub mod outage;
pub mod random;
mod records;
mod rules;
#[cfg(feature = "serde")]
pub mod serialized;
mod shards;
pub mod units;
pub mod verdict;
mod write;

pub use functions::{alerts, assist, stream, tally};
pub(crate) use operations::backoff;
#[cfg(any(test, feature = "test-util"))]
pub use operations::memory;
pub use operations::table;
pub use records::{
    audit, bucket, concurrency, config, definition, depth, entity, namespace, resolve, schema, usage, version,
};
pub use rules::{limit, refill, schedule, terms};
pub use write::{access, removal, sync};

pub use audit::AuditEvent;
pub use bucket::{Bucket, Owner};
pub use config::{Access, Level, OnUnavailable, Percent};
pub use entity::{Entity, Metadata};
pub use error::{CorruptRecord, InputKind, InvalidInput, RecordError, UnsupportedFeature};
pub use flight::ConcurrencyExceeded;
pub use limit::{IntoLimit, IntoScheduleEntry, Limit, LimitBuilder, Quota, Recovery};
pub use name::{
    EntityId, IntoName, LimitName, NamespaceId, NamespaceName, ResourceName, ResourceScope, StackName,
};
pub use namespace::{NamespaceRecord, NamespaceStatus};
pub use refill::Wait;
pub use units::{EpochMillis, MAX_PERIOD_SECS, MAX_TOKENS, Millitokens};
pub use usage::{UsageSnapshot, UsageSummary, UsageTotal, Window};
pub use verdict::{LimitStatus, RateLimitExceeded};
pub use version::{Compatibility, VersionRecord};
