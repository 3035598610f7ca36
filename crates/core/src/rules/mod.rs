//! The rule of one bucket, and its arithmetic.

pub mod limit;
pub mod refill;
