//! The path of an acquire: [`RateLimiter`] and [`Lease`], what drives the machines of `zae-limiter-core`, and what a
//! process caches and does in the background.

pub(crate) mod alerts;
mod attempt;
mod availability;
pub(crate) mod background;
pub(crate) mod config_cache;
pub(crate) mod detached;
pub(crate) mod draws;
pub(crate) mod driver;
pub(crate) mod flight;
pub(crate) mod groups;
pub(crate) mod image_cache;
pub(crate) mod lease;
mod limiter;
pub(crate) mod occasional;
pub(crate) mod outage;
pub(crate) mod permits;
pub(crate) mod refunds;
mod several;
pub(crate) mod slices;
mod spread;
pub(crate) mod waiting;

pub use alerts::{Alert, AlertReason};
pub use availability::{Availability, Check, DisabledBy, PlacesTaken};
pub use config_cache::CacheStats;
pub use detached::{EndedLease, Swept};
pub use lease::{Lease, LeasePart};
pub use limiter::{Acquire, RateLimiter};
pub use slices::{Prefetch, Prefetched};
