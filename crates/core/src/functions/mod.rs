//! The decisions of the stack's functions: records of the table's stream, additions to usage snapshots, alerts, help for
//! hot buckets.

pub mod alerts;
pub mod assist;
pub mod stream;
pub mod tally;
