//! A trace, from its first line to its last request.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

use zae_limiter_core::EntityId;

use super::columns::{Columns, Row};
use super::lines::{LineError, Lines};
use super::options::{Format, TraceOptions};
use super::order::{Order, TooLate};
use super::pattern::Pattern;
use super::record::Records;
use super::usage::{LARGEST, Spread};
use super::{Counts, Request, TraceError, shown};

type File = BufReader<Box<dyn Read + Send>>;

/// What is known of a trace once it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The name of the file.
    pub name: String,
    /// The format.
    pub format: Format,
    /// Where the amounts come from, a line for each limit.
    pub amounts: Vec<String>,
    /// What must be known about the replay.
    pub notes: Vec<String>,
}

/// Recorded requests, read in the order of time.
///
/// ```
/// use zae_limiter_replay::trace::{Trace, TraceOptions};
///
/// let text = "timestamp,entity,rpm\n2026-01-15 09:30:00,key-1,1\n";
/// let options = TraceOptions {
///     limits: ["rpm".try_into()?].into(),
///     resource: Some("gpt-4".try_into()?),
///     ..TraceOptions::default()
/// };
/// let mut trace = Trace::open("trace.csv", text.as_bytes(), options)?;
/// let request = trace.next_request()?.expect("one request");
/// assert_eq!((request.entity.as_str(), request.at_ms), ("key-1", 1_768_469_400_000));
/// assert!(trace.next_request()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trace {
    description: Description,
    options: TraceOptions,
    source: Source,
    order: Order,
    counts: Counts,
    /// The entity above each entity that has one.
    parents: HashMap<EntityId, EntityId>,
    has_ended: bool,
}

/// How many entities can be above each other.
const MOST_ABOVE: usize = 8;

enum Source {
    Csv(Records<File>, Columns),
    Log {
        lines: Lines<File>,
        pattern: Pattern,
        columns: Columns,
        /// Whether the line that was read last is still to be used.
        is_unread: bool,
    },
    Usage(Spread),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Csv(..) => "Csv",
            Self::Log { .. } => "Log",
            Self::Usage(_) => "Usage",
        })
    }
}

/// What a source has next.
enum Next {
    Row(Row),
    End,
}

impl Trace {
    /// Opens a trace. `name` is for messages.
    ///
    /// # Errors
    /// If its format is not recognised, or lacks something that `options` do not have either.
    pub fn open(
        name: &str,
        from: impl Read + Send + 'static,
        options: TraceOptions,
    ) -> Result<Self, TraceError> {
        let failed = |problem: String| TraceError::of_file(name, problem);
        options.check().map_err(failed)?;
        let mut from: File = BufReader::with_capacity(1 << 18, Box::new(from));
        let is_json = match options.format {
            Some(format) => format == Format::Usage,
            None if options.pattern.is_some() => false,
            None => begins_with_brace(&mut from).map_err(|err| failed(format!("cannot be read: {err}")))?,
        };
        let source = if is_json {
            Source::Usage(usage(name, from, &options)?)
        } else {
            lines(name, from, &options)?
        };
        let (format, amounts, notes) = match &source {
            Source::Csv(_, columns) => (Format::Csv, columns.described(), Vec::new()),
            Source::Log { columns, .. } => (Format::Log, columns.described(), Vec::new()),
            Source::Usage(spread) => (Format::Usage, Vec::new(), spread.notes.clone()),
        };
        let disorder = i64::try_from(options.disorder.as_millis()).unwrap_or(i64::MAX);
        Ok(Self {
            description: Description {
                name: name.to_owned(),
                format,
                amounts,
                notes,
            },
            options,
            source,
            order: Order::new(disorder),
            counts: Counts::default(),
            parents: HashMap::new(),
            has_ended: false,
        })
    }

    /// What is known of it.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Numbers of the rows that were read so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The next request in the order of time; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read or a row cannot be used. With [`TraceOptions::skip_bad`], rows that cannot be used are only
    /// counted.
    pub fn next_request(&mut self) -> Result<Option<Request>, TraceError> {
        loop {
            if let Some(request) = self.order.ready() {
                return Ok(Some(request));
            }
            if self.has_ended {
                return Ok(self.order.next());
            }
            let step = self.advance().and_then(|next| match next {
                Next::End => {
                    self.has_ended = true;
                    Ok(())
                }
                Next::Row(Row::Filtered) => {
                    self.counts.filtered += 1;
                    Ok(())
                }
                Next::Row(Row::Request(request)) => {
                    self.check_parent(&request)?;
                    let (line, at_ms) = (request.line, request.at_ms);
                    let pushed = self.order.push(request);
                    pushed.map_err(|late| too_late(&self.description.name, line, at_ms, late))
                }
            });
            match step {
                Err(err) if err.is_bad_row() && self.options.skip_bad => {
                    self.counts.bad += 1;
                    self.counts.first_bad.get_or_insert_with(|| err.to_string());
                }
                other => other?,
            }
        }
    }

    /// An entity has one parent in a replay, and none of its own descendants.
    fn check_parent(&mut self, request: &Request) -> Result<(), TraceError> {
        let (Some(parent), entity) = (&request.parent, &request.entity) else {
            return Ok(());
        };
        let failed = |problem: String| {
            let problem = format!(
                "the parent of {} is {}, {problem}",
                shown(entity.as_str()),
                shown(parent.as_str())
            );
            Err(TraceError::bad_row(&self.description.name, request.line, problem))
        };
        match self.parents.get(entity) {
            Some(before) if before == parent => return Ok(()),
            Some(before) => {
                return failed(format!(
                    "but was {} before; an entity has one parent",
                    shown(before.as_str())
                ));
            }
            None => {}
        }
        let (mut above, mut count) = (Some(parent), 1);
        while let Some(one) = above {
            if one == entity {
                return failed("which is below it".to_owned());
            }
            count += 1;
            if count > MOST_ABOVE {
                return failed(format!(
                    "which has more above it than the {MOST_ABOVE} levels that a cascade can have"
                ));
            }
            above = self.parents.get(one);
        }
        self.parents.insert(entity.clone(), parent.clone());
        Ok(())
    }

    fn advance(&mut self) -> Result<Next, TraceError> {
        let name = &self.description.name;
        match &mut self.source {
            Source::Usage(spread) => Ok(spread
                .next()
                .map_or(Next::End, |request| Next::Row(Row::Request(request)))),
            Source::Csv(records, columns) => {
                let has_one = records.advance();
                if !has_one.map_err(|err| line_failed(name, records.number(), err))? {
                    return Ok(Next::End);
                }
                let record = records.record();
                let (found, expected) = (record.len(), columns.len());
                if found != expected {
                    let problem = format!("has {found} cells; the first line has {expected}");
                    return Err(TraceError::bad_row(name, record.line(), problem));
                }
                let row = columns.row(record.line(), &self.options, |index| record.cell(index));
                row.map(Next::Row)
                    .map_err(|problem| TraceError::bad_row(name, record.line(), problem))
            }
            Source::Log {
                lines,
                pattern,
                columns,
                is_unread,
            } => {
                loop {
                    let has_one = if std::mem::take(is_unread) {
                        Ok(true)
                    } else {
                        lines.advance()
                    };
                    if !has_one.map_err(|err| line_failed(name, lines.number(), err))? {
                        return Ok(Next::End);
                    }
                    if !lines.line().trim_ascii().is_empty() {
                        break;
                    }
                }
                let (number, line) = (lines.number(), lines.line());
                if !pattern.matches(line) {
                    return Err(TraceError::bad_row(name, number, pattern.expected()));
                }
                let row = columns.row(number, &self.options, |group| pattern.part(line, group));
                row.map(Next::Row)
                    .map_err(|problem| TraceError::bad_row(name, number, problem))
            }
        }
    }
}

fn line_failed(name: &str, line: u64, err: LineError) -> TraceError {
    match err {
        LineError::Read(err) => TraceError::of_file(name, format!("cannot be read: {err}")),
        LineError::Malformed(problem) => TraceError::bad_row(name, line, problem),
    }
}

fn too_late(name: &str, line: u64, at_ms: i64, late: TooLate) -> TraceError {
    let seconds = (late.after_ms - at_ms).unsigned_abs().div_ceil(1000);
    let problem = format!(
        "is {seconds}s earlier than line {}, which was replayed already; sort the file by time, or pass a larger --disorder",
        late.line
    );
    TraceError::bad_row(name, line, problem)
}

/// Whether the text begins like JSON. Reads nothing.
fn begins_with_brace(from: &mut File) -> std::io::Result<bool> {
    let begin = from.fill_buf()?;
    let begin = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin);
    Ok(begin.trim_ascii_start().starts_with(b"{"))
}

fn usage(name: &str, from: File, options: &TraceOptions) -> Result<Spread, TraceError> {
    let mut text = Vec::new();
    let read = from.take(LARGEST as u64 + 1).read_to_end(&mut text);
    read.map_err(|err| TraceError::of_file(name, format!("cannot be read: {err}")))?;
    if text.len() > LARGEST {
        let problem = format!(
            "is larger than {} MB, the most that is read of an export",
            LARGEST >> 20
        );
        return Err(TraceError::of_file(name, problem));
    }
    Spread::read(name, &text, options)
}

/// A log or a CSV file, as its first line says.
fn lines(name: &str, from: File, options: &TraceOptions) -> Result<Source, TraceError> {
    let mut lines = Lines::new(from);
    let (failed, empty) = (
        |problem: String| TraceError::of_file(name, problem),
        || TraceError::of_file(name, "has no requests"),
    );
    loop {
        match lines.advance() {
            Ok(false) => return Err(empty()),
            Ok(true) if lines.line().trim_ascii().is_empty() => {}
            Ok(true) => break,
            Err(err) => return Err(line_failed(name, lines.number(), err)),
        }
    }
    let mut pattern = match &options.pattern {
        Some(pattern) => Pattern::new(pattern).map_err(failed)?,
        None => Pattern::log().map_err(failed)?,
    };
    let is_log = match options.format {
        Some(format) => format == Format::Log,
        None => options.pattern.is_some() || pattern.matches(lines.line()),
    };
    if is_log {
        let columns = Columns::find(pattern.names(), true, options).map_err(failed)?;
        return Ok(Source::Log {
            lines,
            pattern,
            columns,
            is_unread: true,
        });
    }
    let number = lines.number();
    let mut records = Records::begun(lines);
    records.first().map_err(|err| line_failed(name, number, err))?;
    let names = records
        .record()
        .cells()
        .map(|cell| String::from_utf8_lossy(cell).trim().to_owned());
    let columns = Columns::find(names.collect(), false, options)
        .map_err(|problem| TraceError::at(name, number, format!("the first line {problem}")))?;
    Ok(Source::Csv(records, columns))
}
