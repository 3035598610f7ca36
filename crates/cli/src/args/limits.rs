//! `limits`.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::values::readable;
use super::{Common, Connection, ENDPOINT_VARIABLE};

/// The file name that stands for standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Manage limits that are declared in a YAML file.
///
/// The file (manifest) declares the limits of a namespace. An apply creates and updates the declared limits, and
/// deletes limits that an earlier apply created and that are no longer declared. Limits that were set by hand are not
/// changed.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits plan --name my-app --file limits.yaml
  zae-limiter limits apply --name my-app --file limits.yaml
  zae-limiter limits diff --name my-app --file limits.yaml

A manifest:
  namespace: default
  system:
    limits:
      rpm: {capacity: 1000}
  resources:
    gpt-4:
      limits:
        tpm: {capacity: 50000, refill_amount: 10000, refill_period: 60}
  entities:
    user-premium:
      resources:
        gpt-4:
          limits:
            rpm: {capacity: 1000}"
)]
pub(crate) enum LimitsCommand {
    Apply(Apply),
    CfnTemplate(CfnTemplate),
    Diff(Diff),
    Plan(Plan),
    Schema(Schema),
}

/// Apply the limits that a file declares.
///
/// Does not ask for confirmation; 'limits plan' shows the changes. Registers the namespace if it does not exist. Can be
/// interrupted and run again to finish. The exit code is 1 if a level could not be changed.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits apply --name my-app --file limits.yaml

  # Write every declared level again, and update all live buckets of entities' levels
  zae-limiter limits apply --name my-app --file limits.yaml --full

  # A generated file
  envsubst < limits.yaml.in | zae-limiter limits apply --name my-app --file -"
)]
pub(crate) struct Apply {
    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// Write every declared level even if it is unchanged, and update all live buckets of entities' levels
    #[arg(long)]
    pub(crate) full: bool,

    /// How much is printed.
    #[command(flatten)]
    pub(crate) quiet: Quiet,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Where>,
}

/// Print a CloudFormation template that applies a file.
///
/// Deploy it as a separate stack. It invokes the limits provisioner of the table's stack. Register the namespace
/// before. This command sends no request, and refuses files that a provisioner would refuse.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits cfn-template --name my-app --file limits.yaml > limits-stack.yaml
  aws cloudformation deploy --template-file limits-stack.yaml --stack-name my-app-limits"
)]
pub(crate) struct CfnTemplate {
    /// Name of the stack with the limits provisioner
    #[arg(short, long, env = "ZAEL_STACK", hide_env_values = true)]
    pub(crate) name: String,

    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// Write every declared level at each update, even if it is unchanged
    #[arg(long)]
    pub(crate) full: bool,
}

/// Show how the table's limits differ from a file.
///
/// Only reads. Limits that were changed by hand are differences. Limits that were set by hand and are in no file
/// are listed separately, with '?', and do not count as differences.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits diff --name my-app --file limits.yaml

  # Check for changes in a script
  zae-limiter limits diff --name my-app --file limits.yaml --quiet --detailed-exitcode"
)]
pub(crate) struct Diff {
    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// How differences are printed.
    #[command(flatten)]
    pub(crate) shown: Shown,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Where>,
}

/// Show what 'limits apply' would change.
///
/// Only reads. '+' marks levels to create, '~' levels to update, '-' levels to delete.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits plan --name my-app --file limits.yaml

  # With old and new limits
  zae-limiter limits plan --name my-app --file limits.yaml --verbose"
)]
pub(crate) struct Plan {
    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// How changes are printed.
    #[command(flatten)]
    pub(crate) shown: Shown,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Where>,
}

/// Print the JSON Schema of manifests.
///
/// Editors use it to check and complete YAML.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits schema > limits.schema.json"
)]
pub(crate) struct Schema {}

/// The manifest.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManifestFile {
    /// YAML file that declares the limits; '-' reads standard input
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().try_map(readable_or_standard_input)
    )]
    pub(crate) file: PathBuf,
}

/// How much is printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Quiet {
    /// Print only the summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How differences are printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shown {
    /// How much is printed.
    #[command(flatten)]
    pub(crate) quiet: Quiet,

    /// Print old and new limits below each line
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// End with 0 if there are no changes, 2 if there are changes, and 1 if the command line is wrong
    ///
    /// Other failures end with 1, 3 or 4, as without this option.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) detailed_exitcode: bool,
}

/// The stack, and how to connect to its table.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Where {
    /// Name of the stack, which is also the name of the table
    #[arg(short, long, env = "ZAEL_STACK", hide_env_values = true)]
    name: String,

    /// AWS region of the table [default: from the AWS configuration]
    #[arg(long)]
    region: Option<String>,

    /// Endpoint of the table instead of AWS: a URL, or `embedded:PATH`
    ///
    /// An http or https URL is a server that implements DynamoDB's protocol.
    /// `embedded:PATH` is a table in the local directory PATH, without server or account.
    #[arg(long, value_name = "URL", env = ENDPOINT_VARIABLE, hide_env_values = true, verbatim_doc_comment)]
    endpoint_url: Option<String>,

    /// Require that the file is for this namespace [default: the one that the file names]
    #[arg(short = 'N', long)]
    pub(crate) namespace: Option<String>,

    /// Read and write the table directly, not through the stack's limits provisioner
    #[arg(long)]
    pub(crate) direct: bool,
}

impl Where {
    /// The stack, as other commands name it.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            name: self.name.clone(),
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
        }
    }
}

pub(super) fn readable_or_standard_input(path: PathBuf) -> Result<PathBuf, String> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok(path);
    }
    readable(path)
}
