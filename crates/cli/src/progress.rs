//! What an operation on a stack is doing, on standard error while it does it.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use zae_limiter_infra::{Progress, StackEvent};

use crate::args::{Events, Format, OutputFormat};
use crate::text::number;
use crate::text::table::printable;

/// The type of the events about a stack as a whole.
const STACK: &str = "AWS::CloudFormation::Stack";

/// Shows events as lines, and on a terminal what is being waited for, and for how long.
pub(crate) struct Reporter {
    silent: bool,
    /// Whether every event is printed.
    verbose: bool,
    spinner: Option<ProgressBar>,
}

impl Reporter {
    /// Shows nothing beside JSON.
    pub(crate) fn new(format: &Format, events: &Events) -> Self {
        let is_json = format.output == OutputFormat::Json;
        let spinner = (!is_json && !events.quiet && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            let spinner = ProgressBar::new_spinner();
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Self {
            silent: is_json || events.quiet,
            verbose: events.verbose,
            spinner,
        }
    }

    /// Shows what is being done.
    pub(crate) fn show(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Event(event) if self.verbose || is_result(event) => self.line(&line_of(event)),
            Progress::Event(event) => self.wait(format!("{} {}", event.logical_id, event.status)),
            Progress::Uploading { bucket, bytes } => {
                self.wait(format!("Uploading {} to {bucket}", number::size(*bytes)));
            }
            Progress::Creating => self.wait("Creating the stack".into()),
            Progress::Updating => self.wait("Updating the stack".into()),
            Progress::Deleting => self.wait("Deleting the stack".into()),
            Progress::Comparing => self.wait("Comparing the template with the stack".into()),
            Progress::WaitingForOther { status } => {
                self.line(&format!("Waiting for another operation on the stack ({status})"));
                self.wait("Waiting for another operation".into());
            }
            _ => {}
        }
    }

    /// Says what is being waited for from now on.
    pub(crate) fn wait(&self, what: String) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(what);
        }
    }

    /// Prints something else while the spinner is hidden.
    pub(crate) fn pause(&self, print: impl FnOnce()) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(print),
            None => print(),
        }
    }

    fn line(&self, text: &str) {
        if self.silent {
            return;
        }
        let text = printable(text);
        match &self.spinner {
            Some(spinner) => spinner.println(text),
            // If this fails, there is no other place for the message.
            None => drop(writeln!(io::stderr(), "{text}")),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// Whether an event is what became of a resource, or is about the stack as a whole.
fn is_result(event: &StackEvent) -> bool {
    event.resource_type == STACK || !event.status.ends_with("_IN_PROGRESS")
}

fn line_of(event: &StackEvent) -> String {
    let time = event.timestamp.get(11..19).unwrap_or("--:--:--");
    let reason = match &event.reason {
        Some(reason) => format!("  {reason}"),
        None => String::new(),
    };
    format!("{time}  {}  {}{reason}", event.logical_id, event.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let mut event = StackEvent {
            id: "1".into(),
            timestamp: "2026-11-22T03:14:15Z".into(),
            logical_id: "RateLimitsTable".into(),
            resource_type: "AWS::DynamoDB::Table".into(),
            status: "CREATE_FAILED".into(),
            reason: Some("already exists".into()),
        };
        assert_eq!(
            line_of(&event),
            "03:14:15  RateLimitsTable  CREATE_FAILED  already exists"
        );
        assert!(is_result(&event));
        event.status = "CREATE_IN_PROGRESS".into();
        assert!(!is_result(&event));
        event.resource_type = STACK.into();
        assert!(is_result(&event));
        event.status = "CREATE_FAILED".into();
        (event.timestamp, event.reason) = (String::new(), None);
        assert_eq!(line_of(&event), "--:--:--  RateLimitsTable  CREATE_FAILED");
    }
}
