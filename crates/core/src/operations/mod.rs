//! Operations on a table, as values, and what interprets them.

pub(crate) mod backoff;
pub mod memory;
pub mod table;
