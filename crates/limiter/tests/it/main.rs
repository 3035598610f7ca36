//! Integration tests, as one binary.
//!
//! - `table`: one suite for every implementation of `Table`, with its bodies in `table_writes` and `table_reads`;
//! - `engine`: what is particular to the embedded engine;
//! - `failure`: what requests mean that get no answer;
//! - `cost`: what the meter counts;
//! - `acquire`, `lease`, `limits`, `outage`: the limiter on an embedded table;
//! - `paths`: what each path costs in requests and capacity units.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![cfg(feature = "embedded")]

mod acquire;
mod cost;
mod engine;
mod failure;
mod lease;
mod limits;
mod outage;
mod paths;
mod support;
mod table;
mod table_reads;
mod table_writes;
mod world;
