//! The acquire and credit machines over a table in memory, driven as a limiter drives them.
//!
//! - [`access`]: bypasses admit, count, and end.
//! - [`calls`]: how many requests each path costs.
//! - [`chains`]: entities above each other.
//! - [`waits`]: promised waits are exact.
//! - [`changes`]: overrides, late-added limits, flags and forced passes on live buckets.
//! - [`detached`]: leases that another process ends.
//! - [`divided`]: refunds of leases that were held across a split.
//! - [`shards`]: splitting, moving tokens, expiry.
//! - [`credits`]: refunds happen once.
//! - [`foreign`]: items and configuration of other clients, understood or refused.
//! - [`levels`]: limits with shapes are stored as by the original.
//! - [`lives`]: buckets that are deleted and created again.
//! - [`lifetime`]: buckets that a wrong clock has dated, and how long buckets are kept.
//! - [`operator`]: resets and top-ups.
//! - [`gained`]: quotas and session limits that a split bucket gains, or that are left over.
//! - [`garbage`]: whatever a row holds, nothing panics and nothing is admitted from nothing.
//! - [`outcomes`]: answers that do not show what they claim.
//! - [`session_clocks`]: sessions where clocks differ.
//! - [`schedules`]: schedules and resets are those of the original.
//! - [`hostile`]: whatever bytes a table, a stream or a file holds, nothing panics.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod access;
mod calls;
mod carried;
mod chains;
mod changes;
mod credits;
mod detached;
mod divided;
mod drive;
mod foreign;
mod gained;
mod garbage;
mod groups;
mod hostile;
mod levels;
mod lifetime;
mod lives;
mod operator;
mod outcomes;
mod schedules;
mod session_clocks;
mod several;
mod shape_changes;
mod shapes;
mod shards;
mod slices;
mod waits;
