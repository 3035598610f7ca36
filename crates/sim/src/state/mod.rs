//! The state of a run: names, processes, and what these hold and have in flight.

pub(crate) mod groups;
pub(crate) mod job;
pub(crate) mod lease;
pub mod process;
pub mod setup;
pub(crate) mod slices;
