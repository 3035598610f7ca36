//! The layers as a service uses them: in axum, over connections, and with requests that are hostile.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod answers;
mod estimates;
mod grpc;
mod hostile;
mod keys;
mod leases;
mod metrics;
mod world;
