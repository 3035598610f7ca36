//! What is wrong with a document, and where.

use std::fmt;

/// How many characters of a value or of a part of a path are shown.
const SHOWN: usize = 50;

/// How many problems are reported; more would hide the first.
const MOST: usize = 100;

/// A place in a file. Both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file; `None` if the document is not a file.
    pub at: Option<Position>,
    /// The path in the document, such as `resources.gpt-4.limits.tpm.capacity`; empty for a manifest as a whole.
    pub path: String,
    /// The value that is wrong, as far as one is.
    pub value: Option<String>,
    /// The expected value.
    pub reason: String,
}

impl Problem {
    /// A problem at a place.
    pub fn new(at: Option<Position>, path: &Path, reason: impl Into<String>) -> Self {
        Self {
            at,
            path: path.to_string(),
            value: None,
            reason: reason.into(),
        }
    }

    /// The same with the value that is wrong.
    pub fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        let path = if self.path.is_empty() {
            "the manifest"
        } else {
            &self.path
        };
        match &self.value {
            Some(value) => write!(f, "{path} is {value}: it {}", self.reason),
            None => write!(f, "{path} {}", self.reason),
        }
    }
}

/// All that is wrong with a document, in the order of the file; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems in the order of the file. There must be at least one.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        Self(problems)
    }

    /// The problems.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(MOST).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.0.len() > MOST {
            write!(f, "\nand {} more", self.0.len() - MOST)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The way to a value.
#[derive(Debug, Clone, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// The way through these names.
    pub fn of(parts: &[&str]) -> Self {
        parts.iter().fold(Self::default(), |path, part| path.to(part))
    }

    /// The way to a part of the value.
    pub fn to(&self, part: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(cut(&part.escape_debug().to_string()));
        Self(parts)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A text, cut to what fits a message.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
