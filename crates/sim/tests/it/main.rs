//! Simulation runs that `cargo test` makes: a batch of seeds, the seeds that found faults before, and that the
//! simulator is what it claims to be.
//!
//! - [`seeds`]: seeds hold, and together they leave nothing out.
//! - [`progress`]: on slow tables, and after a stall, what a limit allows is admitted.
//! - [`places`]: places in flight.
//! - [`replays`]: a seed replays, and shrinking keeps a failure.

mod places;
mod progress;
mod replays;
mod seeds;
