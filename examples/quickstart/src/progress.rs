//! One line on a terminal that shows the progress of the replay.
#![expect(
    clippy::print_stderr,
    reason = "progress is shown beside the report, which goes to stdout"
)]

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::replay::Totals;
use crate::report::{count, span};

/// The interval between two updates of the line.
const EVERY: Duration = Duration::from_millis(100);

/// A line on stderr, rewritten in place. Shown only if stderr is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Option<Instant>,
    requests: u64,
    on: bool,
}

impl Progress {
    /// Progress of this many requests.
    pub(crate) fn new(requests: usize) -> Self {
        Self {
            shown: None,
            requests: requests as u64,
            on: std::io::stderr().is_terminal(),
        }
    }

    /// Updates the line, unless it was updated within the interval.
    pub(crate) fn show(&mut self, at_ms: i64, totals: &Totals) {
        if !self.on || self.shown.is_some_and(|shown| shown.elapsed() < EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        eprint!(
            "\r\x1b[K{} in: {} of {} requests, {} admitted",
            span(Duration::from_millis(at_ms.unsigned_abs())),
            count(totals.arrived),
            count(self.requests),
            count(totals.admitted_at_once + totals.admitted_later),
        );
    }
}

impl Drop for Progress {
    /// Removes the line.
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
