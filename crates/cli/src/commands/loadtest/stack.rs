//! What the commands about load generators share.

use std::pin::Pin;

use zae_limiter_infra::{Error, Progress};

use crate::args::Connection;
use crate::commands::Outcome;
use crate::connect::needs_stack;
use crate::failure::{Failure, of_stack};
use crate::progress::Reporter;
use crate::signals::{Catch, Signals};

/// Runs a command until it ends, or a signal ends it.
pub(super) async fn until_signal(command: Pin<Box<dyn Future<Output = Outcome>>>) -> Outcome {
    let mut signals = Signals::catch(Catch::Ends)?;
    tokio::select! {
        biased;
        ending = signals.ending() => {
            crate::say("");
            Err(ending.into_failure())
        }
        outcome = command => outcome,
    }
}

/// Refuses a name that cannot be a stack's, and a directory in the place of AWS.
pub(super) fn check(at: &Connection) -> Result<(), Failure> {
    crate::names::stack(&at.name)?;
    needs_stack(at, "Run the load test with --local.")
}

/// The failure of something done to a target or to its load generators.
pub(super) fn failure(err: &Error, at: &Connection) -> Failure {
    match err {
        Error::NotFound { stack } => Failure::error(format!("Stack not found: {stack}")),
        Error::MissingOutputs { outputs, .. } => {
            let quoted: Vec<String> = outputs.iter().map(|output| format!("'{output}'")).collect();
            Failure::error(format!("Stack missing outputs: [{}]", quoted.join(", ")))
        }
        other => of_stack(other, at),
    }
}

/// Lines of text, unless results are JSON.
pub(super) fn tell(is_json: bool, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    if is_json {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for line in text.split('\n') {
        writeln!(out, "{}", crate::text::table::printable(line))?;
    }
    Ok(out.flush()?)
}

/// Shows the progress of a deployment, as lines of text among others.
pub(super) fn show(is_json: bool, reporter: &Reporter, creates: &mut bool, progress: &Progress<'_>) {
    let lines: &[&str] = match progress {
        Progress::Creating => {
            *creates = true;
            &[]
        }
        Progress::Updating => &["  Stack already exists, updating..."],
        Progress::Accepted if *creates => &[
            "  CloudFormation stack creation started",
            "  Waiting for stack creation...",
        ],
        _ => &[],
    };
    for line in lines {
        // A closed output ends the command at its next line.
        let _ = tell(is_json, line);
    }
    reporter.show(progress);
}
