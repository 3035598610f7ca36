//! Decisions while the table cannot be used.
//!
//! [`breaker`] decides when calls no longer wait for the table, [`policy`] decides a call without it, and
//! [`local_buckets`] holds this process's part of the limits meanwhile.

pub mod breaker;
pub mod local_buckets;
pub mod policy;
