//! Operations on a table, as values, and what interprets them.

pub(crate) mod backoff;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
pub mod table;
