//! CloudFormation templates: read, checked, evaluated, ordered and compared. Values in, values out.
//!
//! [`Template::parse`] reads JSON or YAML and checks all that does not depend on values of parameters.
//! [`Template::values`] makes values for its parameters, [`Template::bind`] puts the two together. The [`Bound`] template
//! knows which resources exist and in which [order](Bound::order) they are made, and evaluates their
//! [properties](Bound::properties) from what is [`Known`]; [`changes`] compares two of them.
//!
//! ```
//! use std::sync::Arc;
//! use zae_limiter_local::template::{Given, GivenValue, Known, Pseudo, Template};
//!
//! # fn main() -> Result<(), zae_limiter_local::template::TemplateError> {
//! let template = Arc::new(Template::parse(
//!     "
//! Parameters:
//!   Days: {Type: Number, MinValue: 1}
//! Resources:
//!   Log:
//!     Type: AWS::Logs::LogGroup
//!     Properties: {LogGroupName: !Sub '/app/${AWS::StackName}', RetentionInDays: !Ref Days}
//! ",
//! )?);
//! let days = Given { name: "Days".to_owned(), value: GivenValue::Text("7".to_owned()) };
//! let values = template.values(&[days], None)?;
//! let pseudo = Pseudo { stack_name: "web".to_owned(), ..Pseudo::default() };
//! let bound = template.bind(values, pseudo)?;
//! let properties = bound.properties("Log", &Known::default())?;
//! assert_eq!(properties["LogGroupName"], "/app/web");
//! assert_eq!(properties["RetentionInDays"], "7");
//! # Ok(())
//! # }
//! ```
//!
//! What CloudFormation offers and this module does not is refused by name, never ignored. This module does not
//! check whether a resource type or a property exists, and does not create resources.
//!
//! Reading order: `read` (text to tree), `node` (what a value is), `declared` (what a template has), `values`, `bound`,
//! `evaluate`, `changes`.

mod bound;
mod changes;
mod declared;
mod error;
mod evaluate;
mod graph;
mod known;
mod node;
mod pseudo;
mod read;
mod text;
mod values;
mod walk;

pub use bound::{Bound, OutputValue};
pub use changes::{
    Action, Attribute, ChangeSource, Changes, Detail, Evaluation, NO_UPDATES, Recreation, Replacement,
    ResourceChange, Rules, additions, changes,
};
pub use declared::{Capabilities, Output, Parameter, ParameterType, Policy, Resource, Template};
pub use error::{ErrorKind, Position, TemplateError};
pub use known::{Known, KnownResource, has_unknown, is_unknown, unknown_causes};
pub use pseudo::Pseudo;
pub use text::{same, scalars_as_text};
pub use values::{Given, GivenValue, ParameterValues};
