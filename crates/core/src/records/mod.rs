//! The records of the shared table: their keys, and how each is read from an item and written to one.

pub mod audit;
pub mod bucket;
pub mod concurrency;
pub mod config;
pub mod definition;
pub mod depth;
pub mod entity;
pub mod namespace;
pub(crate) mod reader;
pub mod resolve;
pub mod schema;
pub mod usage;
pub mod version;
