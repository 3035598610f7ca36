//! What the library reports about itself: metrics, spans, and the documents that list them.

mod counts;
mod documents;
mod gauges;
pub(crate) mod recorder;
mod spans;
