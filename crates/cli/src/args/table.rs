//! Commands about the table as a whole: `check` and `version`.

use clap::Args;

use super::{Common, Connection};

/// Check that this version is compatible with the deployed stack.
///
/// Only reads. The exit code is 1 if it is not compatible, and 4 if the table does not exist.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter check --name my-app --region us-east-1
  zae-limiter check --endpoint-url http://localhost:4566"
)]
pub(crate) struct Check {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Show the versions of this program, the table and the functions.
///
/// Only reads. Also shows whether they are compatible.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter version --name my-app --region us-east-1
  zae-limiter version --endpoint-url http://localhost:4566"
)]
pub(crate) struct Version {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}
