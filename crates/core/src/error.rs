//! Errors of the pure layer: bad input, and records that cannot be used.
//!
//! Nothing here is about a network or a rate limit being reached. Those belong to the layer that talks to
//! a table and to [`crate::acquire`].

use std::fmt;

/// How many characters of a rejected value an error shows (data model, section 13.6).
const SHOWN: usize = 50;

/// Input that was refused before anything was written.
///
/// Names the field, shows the value (cut to 50 characters) and says what would be right.
///
/// ```
/// # use zae_limiter_core as zae_limiter;
/// use zae_limiter::{EntityId, InputKind};
///
/// let err = EntityId::new("key#1").unwrap_err();
/// assert_eq!(err.field(), "entity_id");
/// assert_eq!(err.value(), "key#1");
/// assert_eq!(err.kind(), InputKind::Request);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field} '{value}': {reason}")]
pub struct InvalidInput {
    field: String,
    value: String,
    reason: String,
    kind: InputKind,
    is_unknown: bool,
}

/// What a refused value belongs to. Tells a service whether its client or its own configuration has to be corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InputKind {
    /// To one request: an entity, a resource, a namespace, the name of a limit to take tokens of, an amount. If the
    /// service's client has chosen it, the HTTP status is 400.
    Request,
    /// To the configuration: a limit, an option, an environment variable, a manifest. The HTTP status is 500, unless the
    /// service lets its clients set limits.
    Configuration,
}

impl InvalidInput {
    /// Builds an error for `field` holding `value`, with the `reason` it was refused: a fault of the
    /// [configuration](InputKind::Configuration).
    pub fn new(field: impl Into<String>, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        let value = value.to_string();
        let value = match value.char_indices().nth(SHOWN) {
            Some((cut, _)) => format!("{}...", &value[..cut]),
            None => value,
        };
        Self {
            field: field.into(),
            value,
            reason: reason.into(),
            kind: InputKind::Configuration,
            is_unknown: false,
        }
    }

    /// Builds an error as [`new`](Self::new) does, for a value of one [request](InputKind::Request).
    pub fn of_request(field: impl Into<String>, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::new(field, value, reason).with_kind(InputKind::Request)
    }

    /// Builds an error as [`of_request`](Self::of_request) does, for a name that is well formed and names nothing that there is.
    pub fn unknown(field: impl Into<String>, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self {
            is_unknown: true,
            ..Self::of_request(field, value, reason)
        }
    }

    /// Whether a name is well formed, and names nothing that there is, such as a limit that is not configured. If the service has
    /// chosen the name, this is its own fault, also of values of a [request](InputKind::Request).
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// What the value belongs to.
    pub fn kind(&self) -> InputKind {
        self.kind
    }

    /// The same error reported under another kind.
    pub fn with_kind(mut self, kind: InputKind) -> Self {
        self.kind = kind;
        self
    }

    /// The name of the offending field, such as `entity_id` or `consume.tpm`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The offending value, cut to 50 characters.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The problem, and the expected value.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The same error reported under another field name.
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }
}

impl From<std::convert::Infallible> for InvalidInput {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A row whose attributes contradict the format: wrong types, numbers out of range, missing parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {record} at {key}: attribute '{attribute}' {problem}")]
pub struct CorruptRecord {
    /// The kind of record, such as `bucket` or `config`.
    pub record: &'static str,
    /// Partition and sort key, joined by a space.
    pub key: String,
    /// The attribute that is wrong.
    pub attribute: String,
    /// The problem.
    pub problem: String,
}

/// A row that uses a feature this version does not evaluate, so acting on it could break a promise.
///
/// Schedules, quotas and session windows of newer clients are detected on the item and refused rather than
/// half-enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{record} at {key} uses '{attribute}', which this version cannot evaluate: {advice}")]
pub struct UnsupportedFeature {
    /// The kind of record, such as `bucket` or `config`.
    pub record: &'static str,
    /// Partition and sort key, joined by a space.
    pub key: String,
    /// The attribute that shows the feature.
    pub attribute: String,
    /// The advice.
    pub advice: &'static str,
}

/// Why a stored record could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record contradicts the format.
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
    /// The record uses a feature that is not understood.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedFeature),
}
