//! What is wrong with a template or with the values given for it, in the words that CloudFormation uses where they are
//! known.

use std::fmt;

/// A place in the text of a template; both numbers begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// The kind of mistake in a [`TemplateError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The template is not well-formed, or refers to what it does not declare.
    Format,
    /// The template is valid for CloudFormation, but asks for something that is not offered here.
    Unsupported,
    /// A value given for a parameter is missing, unknown or not allowed.
    Parameter,
    /// A value was not there when it was needed: an attribute, an export, a list element.
    Unresolved,
}

/// An error of reading or evaluating a template; its text is what CloudFormation answers as `ValidationError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TemplateError {
    kind: ErrorKind,
    message: String,
    position: Option<Position>,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.position {
            Some(Position { line, column }) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

impl TemplateError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            position: None,
        }
    }

    /// `Template format error: …`
    pub(super) fn format(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Format, format!("Template format error: {message}"))
    }

    /// `Template error: …`, which CloudFormation says of functions.
    pub(super) fn function(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Format, format!("Template error: {message}"))
    }

    /// Something that CloudFormation has and this endpoint has not.
    pub(super) fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("Template error: {what} is not supported by this endpoint"),
        )
    }

    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Parameter, message)
    }

    pub(super) fn unresolved(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unresolved, message)
    }

    pub(super) fn at(mut self, line: usize, column: usize) -> Self {
        self.position = Some(Position { line, column });
        self
    }

    /// The kind of mistake.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Where in the template's text the mistake is; known only for mistakes of syntax.
    pub fn position(&self) -> Option<Position> {
        self.position
    }
}
