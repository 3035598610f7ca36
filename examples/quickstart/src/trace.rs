//! Reads a trace of requests to a language model, in the columns of the public Azure LLM inference traces:
//! `TIMESTAMP,ContextTokens,GeneratedTokens`.
//!
//! The columns are found by name, in any order, beside any others. Rows are put in order of time.

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The trace that comes with this example; see `examples/data/README.md`.
const SAMPLE: &str = include_str!("../../data/sample-trace.csv");

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// One request, as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Milliseconds after the first request of the trace.
    pub(crate) at_ms: i64,
    /// Tokens of the prompt.
    pub(crate) context: u32,
    /// Tokens of the answer.
    pub(crate) generated: u32,
}

/// A trace that cannot be replayed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub(crate) struct TraceError {
    name: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Unreadable(std::io::Error),
    NoColumn(&'static str),
    ShortRow {
        line: usize,
        column: &'static str,
    },
    Value {
        line: usize,
        column: &'static str,
        value: String,
    },
    Empty,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(err) => write!(f, "cannot be read: {err}"),
            Self::NoColumn(column) => write!(
                f,
                "the first line names no column {column}; it must name {}",
                COLUMNS.join(", ")
            ),
            Self::ShortRow { line, column } => write!(f, "line {line} ends before column {column}"),
            Self::Value { line, column, value } => {
                let expected = match *column {
                    "TIMESTAMP" => "a time such as 2023-11-16 18:17:03.9799600",
                    _ => "a whole number from 0 to 4294967295",
                };
                write!(f, "line {line}, column {column}: '{value}' is not {expected}")
            }
            Self::Empty => f.write_str("holds no requests"),
        }
    }
}

/// Reads the trace that comes with this example.
pub(crate) fn sample() -> Result<Vec<Request>, TraceError> {
    named("sample-trace.csv", parse(SAMPLE))
}

/// Reads the trace in a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Request>, TraceError> {
    let text = std::fs::read_to_string(path).map_err(Problem::Unreadable);
    named(&path.display().to_string(), text.and_then(|text| parse(&text)))
}

fn named(name: &str, trace: Result<Vec<Request>, Problem>) -> Result<Vec<Request>, TraceError> {
    trace.map_err(|problem| TraceError {
        name: name.to_owned(),
        problem,
    })
}

fn parse(text: &str) -> Result<Vec<Request>, Problem> {
    // `lines` takes Windows line endings and a missing last one; some editors begin a file with a mark.
    let mut lines = text.trim_start_matches('\u{feff}').lines().zip(1..);
    let (header, _) = lines.next().ok_or(Problem::Empty)?;
    let place = |column: &'static str| {
        let mut names = header.split(',').map(str::trim);
        names
            .position(|name| name.eq_ignore_ascii_case(column))
            .ok_or(Problem::NoColumn(column))
    };
    let [time, context, generated] = COLUMNS;
    let places = (place(time)?, place(context)?, place(generated)?);

    let mut requests = Vec::new();
    for (row, line) in lines.filter(|(row, _)| !row.trim().is_empty()) {
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        let row = Row { line, cells: &cells };
        requests.push(Request {
            at_ms: row.value(time, places.0, time_of)?,
            context: row.value(context, places.1, |cell| cell.parse().ok())?,
            generated: row.value(generated, places.2, |cell| cell.parse().ok())?,
        });
    }
    requests.sort_by_key(|request| request.at_ms);
    let start = requests.first().ok_or(Problem::Empty)?.at_ms;
    for request in &mut requests {
        request.at_ms -= start;
    }
    Ok(requests)
}

struct Row<'a> {
    line: usize,
    cells: &'a [&'a str],
}

impl Row<'_> {
    fn value<T>(
        &self,
        column: &'static str,
        place: usize,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Problem> {
        let line = self.line;
        let cell = self.cells.get(place).ok_or(Problem::ShortRow { line, column })?;
        read(cell).ok_or_else(|| Problem::Value {
            line,
            column,
            value: (*cell).to_owned(),
        })
    }
}

/// A time with or without an offset; without one it is UTC.
fn time_of(cell: &str) -> Option<i64> {
    let zoned = || cell.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    let time = cell.parse().ok().or_else(|| Some(zoned()?.timestamp()));
    time.map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

    #[track_caller]
    fn check(text: &str, expected: &[(i64, u32, u32)]) {
        let got: Vec<_> = parse(text)
            .unwrap()
            .iter()
            .map(|r| (r.at_ms, r.context, r.generated))
            .collect();
        assert_eq!(got, expected);
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn the_public_form_is_read_whatever_the_line_endings() {
        let rows = [
            "2023-11-16 18:17:03.9799600,4808,10",
            "2023-11-16 18:17:04.0319600,3180,8",
        ];
        let expected = [(0, 4808, 10), (52, 3180, 8)];
        check(&format!("{HEADER}\n{}\n{}\n", rows[0], rows[1]), &expected);
        check(
            &format!("\u{feff}{HEADER}\r\n{}\r\n\r\n{}", rows[0], rows[1]),
            &expected,
        );
    }

    #[test]
    fn offsets_other_columns_and_disorder_are_taken() {
        let text = "model,generatedtokens,CONTEXTTOKENS,timestamp\n\
            a,2,1,2024-05-10 00:00:01.5+00:00\n\
            b,4,3,2024-05-10 02:00:01+02:00\n";
        check(text, &[(0, 3, 4), (500, 1, 2)]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_place() {
        let good = "2023-11-16 18:17:03,1,2";
        check_error(
            &format!("{HEADER}\n{good}\n\n2023-11-16 18:17:04,1.5,2"),
            "line 4, column ContextTokens: '1.5' is not a whole number from 0 to 4294967295",
        );
        check_error(
            &format!("{HEADER}\nyesterday,1,2"),
            "line 2, column TIMESTAMP: 'yesterday' is not a time such as 2023-11-16 18:17:03.9799600",
        );
        check_error(
            &format!("{HEADER}\n{good}\n2023-11-16 18:17:04,1"),
            "line 3 ends before column GeneratedTokens",
        );
    }

    #[test]
    fn a_trace_without_header_or_requests_is_refused() {
        check_error("", "holds no requests");
        check_error(&format!("{HEADER}\r\n\r\n"), "holds no requests");
        let reason = "the first line names no column TIMESTAMP; it must name TIMESTAMP, ContextTokens, GeneratedTokens";
        check_error("2023-11-16 18:17:03.9799600,4808,10\n", reason);
    }

    #[test]
    fn the_sample_is_some_minutes_of_some_hundred_requests() {
        let trace = sample().unwrap();
        assert!((500..700).contains(&trace.len()));
        assert!((150_000..200_000).contains(&trace[trace.len() - 1].at_ms));
    }
}
