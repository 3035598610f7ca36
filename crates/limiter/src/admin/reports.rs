//! What an operator asks for: what is configured where, what was consumed, and what is left.

mod across;
mod capacity;
mod listings;
mod usage;

pub use capacity::{CapacityOf, EntityCapacity, ResourceCapacity};
pub use usage::UsageQuery;
