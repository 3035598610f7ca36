//! Commands about the stack in AWS: `deploy`, `delete`, `status`, `list`, `upgrade`, `cfn-template` and
//! `lambda-export`.

mod deploy;

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use zae_limiter_infra::PackageSource;

pub(crate) use deploy::{Chosen, Deploy};

use super::values::{Assignment, readable};
use super::{Common, Connection, Consent, Events, Named, Place};

/// The package of the functions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Functions")]
pub(crate) struct PackageFile {
    /// Package of the functions: a Linux executable, or a zip that contains one as 'bootstrap' [default: this
    /// program]
    #[arg(
        long,
        value_name = "FILE",
        env = "ZAE_LIMITER_LAMBDA_PACKAGE",
        hide_env_values = true,
        value_parser = PathBufValueParser::new().try_map(readable)
    )]
    pub(crate) lambda_package: Option<PathBuf>,
}

impl PackageFile {
    /// Where it comes from.
    pub(crate) fn source(&self) -> PackageSource {
        match &self.lambda_package {
            Some(path) => PackageSource::File(path.clone()),
            None => PackageSource::ThisProgram,
        }
    }
}

/// The package of the functions, and its bucket.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Functions")]
pub(crate) struct Code {
    /// The package.
    #[command(flatten)]
    pub(crate) package: PackageFile,

    /// S3 bucket for the package [default: zae-limiter-code-ACCOUNT-REGION, created at first use]
    #[arg(long, value_name = "NAME")]
    pub(crate) code_bucket: Option<String>,
}

/// Delete the stack with all its resources and data.
///
/// Deletes the table with all its data: limits, buckets, usage and the audit log. This cannot be undone. A stack
/// that does not exist is not an error.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # With confirmation
  zae-limiter delete --name my-app --region us-east-1

  # Without confirmation, for scripts
  zae-limiter delete --name my-app --yes

  # Without waiting
  zae-limiter delete --name my-app --yes --no-wait"
)]
pub(crate) struct Delete {
    /// Wait until the stack is deleted (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,

    /// Start the deletion, and do not wait
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,

    /// Consent.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// What is printed meanwhile.
    #[command(flatten)]
    pub(crate) events: Events,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Named>,
}

impl Delete {
    /// Whether to wait: what the last of the two options says.
    pub(crate) const fn waits(&self) -> bool {
        !self.no_wait
    }
}

/// Show the stack's status: availability, state, versions, size and roles.
///
/// Only reads. The exit code is 1 if the table does not answer or the last change of the stack failed, and 4 if the
/// stack does not exist.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter status --name my-app --region us-east-1
  zae-limiter status --name dev --endpoint-url http://localhost:4566"
)]
pub(crate) struct Status {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Named>,
}

/// List the limiter stacks in a region.
///
/// Finds stacks by their tags, including those that the Python tool deployed.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter list --region us-east-1
  zae-limiter list --endpoint-url http://localhost:4566"
)]
pub(crate) struct List {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Place>,
}

/// Upgrade the stack to this version's template and functions.
///
/// Shows the changes, and makes them in one operation that AWS rolls back if it fails. Parameters keep their values,
/// except those given with --parameter. A template that would remove or replace a resource is refused. Functions in
/// Python are replaced only after confirmation, or with --yes.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # To this version
  zae-limiter upgrade --name my-app --region us-east-1

  # Update the functions even if their code seems current
  zae-limiter upgrade --name my-app --force

  # Change a setting of the stack
  zae-limiter upgrade --name my-app --parameter LambdaMemorySize=512"
)]
pub(crate) struct Upgrade {
    /// Update only the code of the functions, not template and parameters
    #[arg(long)]
    pub(crate) lambda_only: bool,

    /// Upgrade even if nothing seems to have changed
    #[arg(long)]
    pub(crate) force: bool,

    /// Change a parameter of the stack; can be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<Assignment>,

    /// Let the new template or parameters remove or replace resources other than the table, such as alarms
    #[arg(long)]
    pub(crate) allow_removal: bool,

    /// Consent.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Code.
    #[command(flatten)]
    pub(crate) code: Code,

    /// What is printed meanwhile.
    #[command(flatten)]
    pub(crate) events: Events,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Print the CloudFormation template.
///
/// For deployment by hand, or with CDK or Terraform. The stack has functions only if its parameters name a package;
/// 'lambda-export' writes one.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # To a file
  zae-limiter cfn-template --output template.yaml

  # To another program
  zae-limiter cfn-template | less"
)]
pub(crate) struct CfnTemplate {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Write the package of the functions as a zip.
///
/// For deployment by hand, with the template of 'cfn-template'. The zip contains this program, or the file given with
/// --lambda-package, as 'bootstrap'. An executable that cannot run on AWS Lambda is refused.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # To a file
  zae-limiter lambda-export --output lambda.zip

  # Show the content only
  zae-limiter lambda-export --info

  # Overwrite an existing file
  zae-limiter lambda-export --force"
)]
pub(crate) struct LambdaExport {
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "lambda.zip")]
    pub(crate) output: PathBuf,

    /// Show the content of the package, and write nothing
    #[arg(long)]
    pub(crate) info: bool,

    /// Overwrite an existing file
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Code.
    #[command(flatten)]
    pub(crate) package: PackageFile,
}
