//! The decisions of the stack's functions: records of the table's stream, additions to usage snapshots, help for hot
//! buckets.

pub mod assist;
pub mod stream;
pub mod tally;
