//! Where results go: text for people, or JSON for programs, on standard output.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::sync::OnceLock;

use serde_json::Value;

use crate::args::{Format, OutputFormat};
use crate::failure::Failure;
use crate::text::number::grouped;
use crate::text::table::printable;

/// Whether standard output has no reader any more, for commands that print only now and then.
#[cfg(unix)]
pub(crate) fn is_closed() -> bool {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let stdout = io::stdout();
    let mut found = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let is_told = poll(&mut found, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    is_told
        && found[0]
            .revents()
            .is_some_and(|told| told.contains(PollFlags::POLLERR))
}

/// Whether standard output has no reader any more. Not known here before something is written.
#[cfg(not(unix))]
pub(crate) fn is_closed() -> bool {
    false
}

/// Standard output, in the form that was asked for.
pub(crate) struct Out {
    form: OutputFormat,
    to: BufWriter<io::StdoutLock<'static>>,
    /// Whether the command goes on if its output cannot be written.
    goes_on: bool,
}

/// Why output was not written whose command went on, if its reader did not just close it.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why output was not written, although its command went on to its end.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

impl Out {
    /// Standard output. There is one at a time.
    pub(crate) fn new(format: &Format) -> Self {
        Self {
            form: format.output,
            to: BufWriter::new(io::stdout().lock()),
            goes_on: false,
        }
    }

    /// Standard output of a command that changes something, or whose exit code is its answer: if output cannot be written, it
    /// does not stop, and the message says that it came to its end. See [`lost`].
    pub(crate) fn to_the_end(format: &Format) -> Self {
        Self {
            goes_on: true,
            ..Self::new(format)
        }
    }

    fn written(&self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(err) if self.goes_on => {
                if err.kind() != io::ErrorKind::BrokenPipe {
                    // The first of several.
                    let _ = LOST.set(err);
                }
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.form == OutputFormat::Json
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        let written = writeln!(self.to, "{text}");
        self.written(written)
    }

    /// Prints a value.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        let written = writeln!(self.to, "{value:#}");
        self.written(written)
    }

    /// Prints lines of text, without what could move a terminal's cursor, and hands them on; nothing if programs read it.
    pub(crate) fn tell(&mut self, text: &str) -> Result<(), Failure> {
        if self.is_json() {
            return Ok(());
        }
        for line in text.split('\n') {
            self.line(printable(line))?;
        }
        self.flush()
    }

    /// Hands on what was printed so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let written = self.to.flush();
        self.written(written)
    }

    /// Prints an answer that is one line of text, or one value, and hands it on.
    pub(crate) fn answer(mut self, text: impl Display, value: &Value) -> Result<(), Failure> {
        if self.is_json() {
            self.json(value)?;
        } else {
            self.line(text)?;
        }
        self.flush()
    }

    /// Prints a list of values, and hands it on.
    pub(crate) fn values(&mut self, values: impl IntoIterator<Item = Value>) -> Result<(), Failure> {
        let mut list = self.list()?;
        for value in values {
            list.push("", || value)?;
        }
        list.end()?;
        self.flush()
    }

    /// Starts a list whose elements are printed as they come: a JSON array, or a line each.
    pub(crate) fn list(&mut self) -> Result<List<'_>, Failure> {
        if self.is_json() {
            write!(self.to, "[")?;
        }
        Ok(List { out: self, length: 0 })
    }
}

/// A list under way.
pub(crate) struct List<'a> {
    out: &'a mut Out,
    length: u64,
}

impl List<'_> {
    /// Prints one element: the text, or the value.
    pub(crate) fn push(&mut self, text: impl Display, value: impl FnOnce() -> Value) -> Result<(), Failure> {
        if self.out.is_json() {
            let comma = if self.length == 0 { "" } else { "," };
            write!(self.out.to, "{comma}\n  {}", value())?;
        } else {
            self.out.line(text)?;
        }
        self.length += 1;
        Ok(())
    }

    /// Hands on what was printed so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }

    /// Ends the list; prints how long it was.
    pub(crate) fn end(self) -> Result<u64, Failure> {
        if self.out.is_json() {
            let line_break = if self.length == 0 { "" } else { "\n" };
            writeln!(self.out.to, "{line_break}]")?;
        }
        Ok(self.length)
    }
}

/// Shows the progress of a long deletion on a terminal; prints nothing elsewhere.
pub(crate) struct Counter {
    shown: bool,
}

impl Counter {
    /// How many records lie between two lines.
    const STEP: u64 = 500;

    /// A counter that shows itself if standard error is a terminal.
    pub(crate) fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
        }
    }

    /// Shows a number, now and then.
    pub(crate) fn show(&self, records: u64) {
        if self.shown && records % Self::STEP < 25 {
            // A closed terminal does not stop the command.
            let _ = write!(io::stderr(), "\r{} records deleted", grouped(records.into()));
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
