//! The crate from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

mod client;
mod endpoint;
mod services;
mod stacks;
mod template;
