//! The server over real sockets. One binary of tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

mod api;
mod auth;
mod compared;
mod drain;
mod envoy;
mod floods;
mod frames;
mod hostile;
mod page;
mod reload;
mod world;
