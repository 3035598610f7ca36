//! Recorded traffic: files of several formats, read as requests in the order of time.
//!
//! `lines` and `record` split a file, `columns` makes requests of its parts, `pattern` finds parts in lines of a log, `usage`
//! spreads the sums of an export, `time` reads times, and `order` sorts what is nearly in order. A file is read once, from begin to
//! end, and only what `order` holds back is in memory.

mod columns;
mod lines;
mod options;
mod order;
mod pattern;
mod reader;
mod record;
mod time;
mod usage;

use std::fmt;

use zae_limiter_core::{EntityId, LimitName, ResourceName};

pub use options::{Format, StatusRange, TraceOptions};
pub use reader::{Description, Trace};

/// A recorded request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: i64,
    /// The line of the trace, or the number of a snapshot of an export.
    pub line: u64,
    /// Who made it.
    pub entity: EntityId,
    /// What it was for.
    pub resource: ResourceName,
    /// The entity above, which is debited as well.
    pub parent: Option<EntityId>,
    /// What it takes. Not empty, and each limit once.
    pub amounts: Vec<Amount>,
    /// How long it lasted, in milliseconds. At its end it is corrected.
    pub lasts_ms: u64,
    /// Whether it failed, so that its tokens are given back at its end.
    pub fails: bool,
}

/// What a request takes of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amount {
    /// The limit.
    pub limit: LimitName,
    /// Tokens that are taken when it arrives: the estimate.
    pub asked: u64,
    /// Tokens that it has used at its end.
    pub used: u64,
}

/// Numbers of what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows left out because of their status or method.
    pub filtered: u64,
    /// Rows left out because they cannot be read.
    pub bad: u64,
    /// Why the first of those cannot be read.
    pub first_bad: Option<String>,
}

/// A trace that cannot be replayed: the file, the place in it, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TraceError {
    name: String,
    line: Option<u64>,
    problem: String,
    is_bad_row: bool,
}

impl TraceError {
    /// A file that cannot be opened.
    pub fn unreadable(name: &str, err: &std::io::Error) -> Self {
        Self::of_file(name, format!("cannot be read: {err}"))
    }

    /// An error that is not about a line.
    pub(crate) fn of_file(name: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            line: None,
            problem: problem.into(),
            is_bad_row: false,
        }
    }

    /// An error in the form of the file, after which it cannot be read further.
    pub(crate) fn at(name: &str, line: u64, problem: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            ..Self::of_file(name, problem)
        }
    }

    /// A row that cannot be used, after which others may be.
    pub(crate) fn bad_row(name: &str, line: u64, problem: impl Into<String>) -> Self {
        Self {
            is_bad_row: true,
            ..Self::at(name, line, problem)
        }
    }

    /// The line, from 1, if it is about one.
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    /// Whether it is about one row, so that [`TraceOptions::skip_bad`] leaves the row out.
    pub fn is_bad_row(&self) -> bool {
        self.is_bad_row
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, problem, .. } = self;
        match self.line {
            Some(line) => write!(f, "{name}:{line}: {problem}"),
            None => write!(f, "{name}: {problem}"),
        }
    }
}

/// A text of the file in a message, shortened.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("'{shown}'")
}
