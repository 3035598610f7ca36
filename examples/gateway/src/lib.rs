//! A gateway in front of a language model: an API like OpenAI's, with limits per key and per project.
//!
//! [`gateway`] has the layers, [`setup`] the limits, and [`model`] stands in for the model. With the feature `otlp`, `traces` sends spans to OpenTelemetry.

pub mod gateway;
pub mod model;
pub mod setup;
#[cfg(feature = "otlp")]
pub mod traces;
