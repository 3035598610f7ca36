//! What the commands about load generators share.

use zae_limiter_infra::{Error, Progress};

use crate::args::{Connection, Format};
use crate::connect::needs_stack;
use crate::failure::{Failure, of_stack};
use crate::out::Out;
use crate::progress::Reporter;

/// Refuses a name that cannot be a stack's, and a directory in the place of AWS.
pub(super) fn check(at: &Connection) -> Result<(), Failure> {
    crate::names::stack(&at.name)?;
    needs_stack(at, "Run the load test with --local.")
}

/// The failure of something done to a target or to its load generators.
pub(in super::super) fn failure(err: &Error, at: &Connection) -> Failure {
    match err {
        Error::NotFound { stack } => Failure::error(format!("Stack not found: {stack}")),
        Error::MissingOutputs { outputs, .. } => {
            let quoted: Vec<String> = outputs.iter().map(|output| format!("'{output}'")).collect();
            Failure::error(format!("Stack missing outputs: [{}]", quoted.join(", ")))
        }
        other => of_stack(other, at),
    }
}

/// Prints lines of text, unless results are JSON. The command goes on if they cannot be written.
pub(super) fn tell(format: &Format, text: &str) {
    // Such output does not fail.
    let _ = Out::to_the_end(format).tell(text);
}

/// Shows the progress of a deployment, as lines of text among others.
pub(super) fn show(format: &Format, reporter: &Reporter, creates: &mut bool, progress: &Progress<'_>) {
    match progress {
        Progress::Creating => *creates = true,
        Progress::Updating => tell(format, "  Stack already exists, updating..."),
        Progress::Accepted if *creates => tell(
            format,
            "  CloudFormation stack creation started\n  Waiting for stack creation...",
        ),
        _ => {}
    }
    reporter.show(progress);
}
