//! What a template declares: `document` is the template, of a `parameter` and a `resource` each, `sections` reads it with the
//! checks of `check`, and `capabilities` are those that it asks for.

mod capabilities;
mod check;
mod document;
mod parameter;
mod resource;
mod sections;

pub use capabilities::Capabilities;
pub use document::Template;
pub use parameter::{Parameter, ParameterType};
pub use resource::{Output, Policy, Resource};

pub(super) use check::{undeclared_mapping, unresolved_resources};
