//! Commands about the stack in AWS: `deploy`, `delete`, `status`, `list`, `upgrade`, `cfn-template` and
//! `lambda-export`.

mod deploy;

use std::path::PathBuf;

use clap::Args;
use zae_limiter_infra::PackageSource;

pub(crate) use deploy::{Chosen, Deploy};

use super::values::Assignment;
use super::{Connection, Consent, Format, Named, Place};

/// What the functions run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Functions")]
pub(crate) struct PackageFile {
    /// What the functions run: a Linux executable, or a zip that holds one named 'bootstrap' [default: this
    /// program]
    #[arg(
        long,
        value_name = "FILE",
        env = "ZAE_LIMITER_LAMBDA_PACKAGE",
        hide_env_values = true
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

/// What the functions run, and where it is kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Functions")]
pub(crate) struct Code {
    /// What they run.
    #[command(flatten)]
    pub(crate) package: PackageFile,

    /// S3 bucket for what the functions run [default: zae-limiter-code-ACCOUNT-REGION, made at its first use]
    #[arg(long, value_name = "NAME")]
    pub(crate) code_bucket: Option<String>,
}

/// Delete the stack with everything in it.
///
/// The table goes, and all its data: limits, buckets, usage, the audit log. It cannot be undone. A stack that
/// does not exist is no error.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Asks first
  zae-limiter delete --name my-app --region us-east-1

  # For scripts
  zae-limiter delete --name my-app --yes

  # Without waiting for the end
  zae-limiter delete --name my-app --yes --no-wait"
)]
pub(crate) struct Delete {
    /// Wait until it is gone (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,

    /// Only begin
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,

    /// Consent.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Which.
    #[command(flatten)]
    pub(crate) at: Named,
}

impl Delete {
    /// Whether to wait: what the last of the two options says.
    pub(crate) const fn waits(&self) -> bool {
        !self.no_wait
    }
}

/// Show how the stack is: whether it answers, its state, versions, size and roles.
///
/// Only reads. The exit code is 1 if it does not answer or its last change failed, and 4 if there is none.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter status --name my-app --region us-east-1
  zae-limiter status --name dev --endpoint-url http://localhost:4566"
)]
pub(crate) struct Status {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Which.
    #[command(flatten)]
    pub(crate) at: Named,
}

/// List the stacks of rate limits in a region.
///
/// Finds them by their tags, those that the Python tool deployed too.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter list --region us-east-1
  zae-limiter list --endpoint-url http://localhost:4566"
)]
pub(crate) struct List {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Place,
}

/// Bring the stack to this program's template and functions.
///
/// Says what will change and changes it in one step that AWS undoes if it fails. Parameters keep their values,
/// but for those given with --parameter. A template that would remove or replace a resource is refused. Functions
/// in Python are replaced only after asking, or with --yes.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # What this program brings
  zae-limiter upgrade --name my-app --region us-east-1

  # Put the code into the functions even if they seem to have it
  zae-limiter upgrade --name my-app --force

  # Change a setting of the stack
  zae-limiter upgrade --name my-app --parameter LambdaMemorySize=512"
)]
pub(crate) struct Upgrade {
    /// Only update what the functions run; leave template and parameters alone
    #[arg(long)]
    pub(crate) lambda_only: bool,

    /// Do it even if everything seems to be current
    #[arg(long)]
    pub(crate) force: bool,

    /// Change a parameter of the stack; repeat it for more
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<Assignment>,

    /// Consent.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Code.
    #[command(flatten)]
    pub(crate) code: Code,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// Print the CloudFormation template.
///
/// For deploying by hand, or from CDK or Terraform. The stack has functions only if its parameters name their code;
/// 'lambda-export' makes the file.
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
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Write the zip that the functions run.
///
/// For deploying by hand, with the template of 'cfn-template'. It holds this program, or the file given with
/// --lambda-package, as 'bootstrap'; one that could not run on AWS Lambda is refused.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # To a file
  zae-limiter lambda-export --output lambda.zip

  # Only tell what it would hold
  zae-limiter lambda-export --info

  # Over a file that exists
  zae-limiter lambda-export --force"
)]
pub(crate) struct LambdaExport {
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "lambda.zip")]
    pub(crate) output: PathBuf,

    /// Only tell what it would hold
    #[arg(long)]
    pub(crate) info: bool,

    /// Write over a file that exists
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Code.
    #[command(flatten)]
    pub(crate) package: PackageFile,
}
