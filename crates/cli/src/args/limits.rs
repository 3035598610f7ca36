//! `limits`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::{Connection, Format};

/// The file name that stands for standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Limits declared in a YAML file.
///
/// A file, the manifest, says which limits a namespace has. Applying it creates and updates what the file declares,
/// and deletes what an earlier apply made and the file no longer declares. Limits set by hand are left alone.
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

/// Make the table's limits what a file declares.
///
/// Does not ask; 'limits plan' shows what it would do. Registers the namespace if it is new. It may be interrupted and
/// run again: what is left is done then. The exit code is 1 if a level could not be changed.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits apply --name my-app --file limits.yaml

  # Write every declared level again, and tell all live buckets of entities' levels
  zae-limiter limits apply --name my-app --file limits.yaml --full

  # A file made on the way
  envsubst < limits.yaml.in | zae-limiter limits apply --name my-app --file -"
)]
pub(crate) struct Apply {
    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// Write every declared level, whether it differs or not, and tell all live buckets of entities' levels
    #[arg(long)]
    pub(crate) full: bool,

    /// How much is printed.
    #[command(flatten)]
    pub(crate) quiet: Quiet,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Where,
}

/// Print a CloudFormation template that applies a file.
///
/// For a stack of its own, beside the stack of the table, whose limits provisioner it calls; the namespace must be
/// registered before that stack is created. Reads the file, and calls nobody. What a provisioner would refuse is
/// refused.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits cfn-template --name my-app --file limits.yaml > limits-stack.yaml
  aws cloudformation deploy --template-file limits-stack.yaml --stack-name my-app-limits"
)]
pub(crate) struct CfnTemplate {
    /// Stack that has the limits provisioner
    #[arg(short, long, env = "ZAEL_STACK", hide_env_values = true)]
    pub(crate) name: String,

    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// Have every declared level written at each update, whether it differs or not
    #[arg(long)]
    pub(crate) full: bool,
}

/// Show where the table's limits differ from a file.
///
/// Only reads. Compares values: limits that were changed by hand are differences. Limits that were set by hand and
/// are in no file are listed apart, with '?'; they are no differences.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter limits diff --name my-app --file limits.yaml

  # Has anybody changed something?
  zae-limiter limits diff --name my-app --file limits.yaml --quiet --detailed-exitcode"
)]
pub(crate) struct Diff {
    /// The manifest.
    #[command(flatten)]
    pub(crate) manifest: ManifestFile,

    /// What is shown of the differences.
    #[command(flatten)]
    pub(crate) shown: Shown,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Where,
}

/// Show what 'limits apply' would change.
///
/// Only reads. '+' stands for what would be created, '~' for what would be updated, '-' for what would be deleted.
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

    /// What is shown of the changes.
    #[command(flatten)]
    pub(crate) shown: Shown,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Where,
}

/// Print the JSON Schema of manifests.
///
/// For editors that check and complete YAML with it.
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
    /// YAML file that declares the limits; '-' is standard input
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().try_map(readable)
    )]
    pub(crate) file: PathBuf,
}

/// How much is printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Quiet {
    /// Only print the summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What is shown of differences.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shown {
    /// How much is printed.
    #[command(flatten)]
    pub(crate) quiet: Quiet,

    /// Print old and new limits below each line
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// End with 0 if there is nothing to do, 2 if there is, and 1 if the command line is wrong
    ///
    /// Other failures end as ever: with 1, 3 or 4.
    #[arg(long, verbatim_doc_comment)]
    pub(crate) detailed_exitcode: bool,
}

/// Which stack's table, and how to get at it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Where {
    /// Stack to work on; its table has the same name
    #[arg(short, long, env = "ZAEL_STACK", hide_env_values = true)]
    name: String,

    /// AWS region of the table [default: what AWS's own settings say]
    #[arg(long)]
    region: Option<String>,

    /// Where the table is served, if not by AWS: a URL, or `embedded:PATH`
    ///
    /// An http or https URL is any server that speaks DynamoDB's protocol.
    /// `embedded:PATH` is a table kept in the directory PATH of this machine, without server or account.
    #[arg(long, value_name = "URL", verbatim_doc_comment)]
    endpoint_url: Option<String>,

    /// Namespace that the file must be for [default: the one it names]
    #[arg(short = 'N', long)]
    pub(crate) namespace: Option<String>,

    /// Read and write the table from here, past the stack's limits provisioner
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

/// Refuses a file that cannot be read. What is no plain file is opened once only, when it is read.
fn readable(path: PathBuf) -> Result<PathBuf, String> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok(path);
    }
    let metadata = fs::metadata(&path).map_err(|err| err.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if metadata.is_file() {
        File::open(&path).map_err(|err| err.to_string())?;
    }
    Ok(path)
}
