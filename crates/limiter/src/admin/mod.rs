//! Administration: the table as a whole, what is stored in it, and what it tells of the past.

mod above;
mod audit;
mod capacity;
mod declare;
mod entities;
mod levels;
mod limits;
mod listings;
mod pages;
pub(crate) mod principal;
#[cfg(feature = "provision")]
pub(crate) mod provision;
mod retention;
pub(crate) mod retry;
pub(crate) mod stack;
mod sweep;
mod usage;

pub use above::AboveParent;
pub use capacity::{CapacityOf, EntityCapacity, ResourceCapacity};
pub use declare::{ApplyOptions, BegunApply, LimitsApplied, LimitsPlan};
pub use entities::NewEntity;
pub use limits::ALL_RESOURCES;
pub use pages::{Cursor, Pages};
#[cfg(feature = "provision")]
pub use provision::stack_manager;
pub use stack::Stack;
pub use sweep::Progress;
pub use usage::UsageQuery;
