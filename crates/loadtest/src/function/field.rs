//! Fields of a call's configuration.

use serde_json::{Map, Value as Json};

/// An event that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// A value that cannot be used.
    #[error("'{field}' is {value}; it must be {right}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What would be right.
        right: &'static str,
    },
    /// A field that is not known.
    #[error("'{field}' is not a field of a call; the fields are {known}")]
    Unknown {
        /// The field.
        field: String,
        /// Those that are known.
        known: String,
    },
}

impl BadEvent {
    pub(super) fn unknown(field: &str, known: &[&str]) -> Self {
        Self::Unknown {
            field: field.chars().take(100).collect(),
            known: known.join(", "),
        }
    }
}

pub(super) fn wrong(field: &'static str, value: &Json, right: &'static str) -> BadEvent {
    // What does not fit the line says little.
    let value = value.to_string().chars().take(100).collect();
    BadEvent::Value { field, value, right }
}

/// A field's value, unless it is missing or null.
pub(super) fn given<'a>(config: &'a Map<String, Json>, field: &str) -> Option<&'a Json> {
    config.get(field).filter(|value| !value.is_null())
}

pub(super) fn number(
    config: &Map<String, Json>,
    field: &'static str,
    is_right: impl Fn(f64) -> bool,
    right: &'static str,
) -> Result<Option<f64>, BadEvent> {
    given(config, field)
        .map(|value| {
            let number = value.as_f64().filter(|number| is_right(*number));
            number.ok_or_else(|| wrong(field, value, right))
        })
        .transpose()
}

pub(super) fn text(
    config: &Map<String, Json>,
    field: &'static str,
    right: &'static str,
) -> Result<Option<String>, BadEvent> {
    given(config, field)
        .map(|value| {
            let text = value.as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| wrong(field, value, right))
        })
        .transpose()
}
