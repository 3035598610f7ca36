//! The commands, one module for each group of them.

pub(crate) mod above;
pub(crate) mod access;
pub(crate) mod acquire;
pub(crate) mod audit;
pub(crate) mod concurrency;
pub(crate) mod entity;
pub(crate) mod limits;
pub(crate) mod loadtest;
pub(crate) mod local;
pub(crate) mod namespace;
pub(crate) mod operations;
pub(crate) mod replay;
pub(crate) mod resource;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod stack;
pub(crate) mod system;
pub(crate) mod table;
pub(crate) mod usage;

use std::fmt::Display;
use std::io::{self, Write as _};

use serde_json::{Value as Json, json};
use zae_limiter::Limit;

use crate::args::{Common, Connection, Format, Namespaced, WrittenLimits};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::out::Out;
use crate::text::limit;

/// How a command ends.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Reads limits as they were written; the first bad one ends it.
fn written_limits(written: &WrittenLimits) -> Result<Vec<Limit>, Failure> {
    limit::read(written).map_err(Failure::usage)
}

/// Prints a JSON Schema.
fn print_schema(schema: &str) -> Outcome {
    let mut to = io::stdout().lock();
    writeln!(to, "{}", schema.trim_end())?;
    to.flush()?;
    Ok(Exit::Success)
}

/// Says what is left if a signal ends the command before it is [done](Self::done).
struct Unfinished(Option<String>);

impl Unfinished {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(left) = &self.0 {
            crate::say(&format!("\n{left}"));
        }
    }
}

/// Stored limits in order of name.
fn sorted(mut limits: Vec<Limit>) -> Vec<Limit> {
    limits.sort_by(|a, b| a.name().cmp(b.name()));
    limits
}

/// Prints limits, a line each, and the entries of their schedules below.
fn print_limits(out: &mut Out, indent: &str, limits: &[Limit]) -> Result<(), Failure> {
    for limit in limits {
        for (index, line) in limit::lines(limit).iter().enumerate() {
            let deeper = if index > 0 { "  " } else { "" };
            out.line(format_args!("{indent}{deeper}{line}"))?;
        }
    }
    Ok(())
}

/// Prints what was done or found: a line, or JSON.
fn say(common: &Common<Namespaced>, told: &Json, line: impl Display) -> Outcome {
    let mut out = Out::to_the_end(&common.format);
    if out.is_json() {
        out.json(told)?;
    } else {
        out.line(line)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// The user answered no, which is not a failure here.
fn cancelled(format: &Format) -> Outcome {
    let mut out = Out::new(format);
    if out.is_json() {
        out.json(&json!({ "cancelled": true }))?;
    } else {
        out.line("Cancelled")?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Turns the library's errors into failures of what is being done.
fn failed<'a>(at: &'a Connection, what: &'static str) -> impl Fn(zae_limiter::Error) -> Failure + Copy + 'a {
    move |err| Doing { at, what }.failed(&err)
}
