//! Places in flight, simulated apart from tokens: many callers of a few places, on the machines of
//! [`zae_limiter_core::flight`].
//!
//! [`plan`] draws callers and faults from a seed, [`world`] plays them event by event, and [`judge`] keeps an account of its own of
//! who holds a place.

pub mod judge;
pub mod plan;
pub mod world;

pub use plan::Plan;
pub use world::{Outcome, run};
