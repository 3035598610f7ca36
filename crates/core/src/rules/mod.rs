//! The rule of one bucket, its arithmetic, and how it depends on the local time.

pub mod limit;
pub mod refill;
pub mod schedule;
pub mod terms;
