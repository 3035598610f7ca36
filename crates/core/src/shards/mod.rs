//! The shards of a split bucket as a whole: what they hold together, and what a new one begins with.

pub(crate) mod births;
pub(crate) mod together;
