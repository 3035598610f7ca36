//! LocalStack in Docker, against a daemon that is made up (`daemon`): there is no Docker where tests run.
//!
//! - `connect`: the ways to a daemon, and servers that are not one;
//! - `up`: images, creation, waiting, and every way in which these end;
//! - `down`, `status`, `logs`: what is done with the container then.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

mod connect;
mod daemon;
mod down;
mod logs;
mod status;
mod up;
