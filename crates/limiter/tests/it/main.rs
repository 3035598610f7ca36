//! Integration tests, as one binary.
//!
//! - `table`: one suite for every implementation of `Table`, with its bodies in `table_writes` and `table_reads`;
//! - `engine`: what is particular to the embedded engine;
//! - `failure`: what requests mean that get no answer;
//! - `clock`: a machine whose clock is wrong;
//! - `cost`: what the meter counts;
//! - `acquire`, `lease`, `refunds`, `limits`, `outage`, `degrade`: the limiter on an embedded table;
//! - `flight`: places for requests in flight;
//! - `alerts`: what is called when limits are nearly used up;
//! - `telemetry`: metrics, spans, and the documents that list them;
//! - `testing`: what applications test with, under the feature `test-util`;
//! - `waiting`: calls that wait for tokens, in turn;
//! - `sdk_config`: an application's own AWS configuration;
//! - `silence`: load during an outage;
//! - `namespaces`, `versions`, `deletion`, `registries`, `audit`, `usage`, `capacity`, `paging`, `blocking_admin`:
//!   administration, on tables of `admin` that can be read through and through;
//! - `several`: several resources in one acquire;
//! - `shapes`: schedules, quotas and session limits;
//! - `operations`: resets and top-ups;
//! - `kills`: administrators that are killed in the middle of a change of many buckets;
//! - `declare`: limits from manifests, interrupted and at once;
//! - `parity`: the blocking facade has every call;
//! - `blocking_ends`: blocking handles that are dropped, and used or dropped inside async code;
//! - `json`: values under the feature `serde`;
//! - `paths`: what each path costs in requests and capacity units.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

mod acquire;
mod admin;
mod alerts;
mod audit;
mod availability;
mod blocking_admin;
mod blocking_ends;
mod capacity;
mod carried;
mod chains;
mod clock;
mod conformance;
mod cost;
mod declare;
mod degrade;
mod deletion;
mod engine;
mod failure;
mod flight;
mod groups;
mod json;
mod kills;
mod lean_index;
mod lease;
mod limits;
mod namespaces;
mod operations;
mod outage;
mod paging;
mod parity;
mod paths;
mod prefetch;
mod refunds;
mod refusal;
mod registries;
mod sdk_config;
mod sendable;
mod several;
mod shapes;
mod silence;
mod support;
mod table;
mod table_reads;
mod table_writes;
mod telemetry;
mod testing;
mod usage;
mod versions;
mod waiting;
mod world;
