//! `local`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;
use crate::args::values::whole;

/// The port that local endpoints are at, unless it is said otherwise.
pub(crate) const PORT: u16 = 4566;

/// Names the interpreter of functions in Python.
/// Names the interpreter where no option does.
pub(crate) const PYTHON_VARIABLE: &str = "PYTHON";

/// Names another port for `up` and `env`.
const PORT_VARIABLE: &str = "ZAE_LIMITER_LOCAL_PORT";

/// Run a local AWS endpoint on this machine.
///
/// 'local up' starts an endpoint with the AWS services of a stack: DynamoDB with streams, CloudFormation, Lambda, S3,
/// SQS, STS and CloudWatch Logs. It needs no AWS account. Functions run as processes of this machine. Signatures
/// and policies are not checked.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter local up --name my-app
  zae-limiter local status
  zae-limiter local down"
)]
pub(crate) enum LocalCommand {
    Down(Down),
    Env(Env),
    Logs(Logs),
    Status(Status),
    Up(Box<Up>),
}

/// Start the local endpoint.
///
/// The endpoint runs in the background until 'local down'. Its data is kept in a directory, which the next start uses
/// again. A running endpoint is reused, and differences from the options are reported.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Start the endpoint
  zae-limiter local up

  # Start it, and deploy a stack to it
  zae-limiter local up --name my-app

  # On another port, with data in memory
  zae-limiter local up --port 4567 --ephemeral

  # LocalStack in Docker instead
  zae-limiter local up --image localstack/localstack:4.14"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Up {
    /// Deploy a stack of this name once the endpoint is ready; with LocalStack, only print the commands for it
    #[arg(short, long)]
    pub(crate) name: Option<String>,

    /// Port to listen on; 0 selects a free port [default: 4566]
    #[arg(long, env = PORT_VARIABLE, hide_env_values = true, value_parser = whole::<u16>(0..=65_535), allow_negative_numbers = true)]
    pub(crate) port: Option<u16>,

    /// Address to listen on; other than loopback, any client that reaches it has full access [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "docker")]
    pub(crate) host: Option<IpAddr>,

    /// Run in the foreground, with the log on standard error
    #[arg(long, conflicts_with_all = ["docker", "name"])]
    pub(crate) foreground: bool,

    /// Directory for the data [default: in the user's state directory]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["ephemeral", "docker"])]
    pub(crate) data_dir: Option<PathBuf>,

    /// Keep the data in memory only; it is lost when the endpoint ends
    #[arg(long, conflicts_with = "docker")]
    pub(crate) ephemeral: bool,

    /// Log every request
    #[arg(long, conflicts_with = "docker")]
    pub(crate) verbose: bool,

    /// Python interpreter that runs functions in Python; it must have boto3, as AWS's runtimes do [default: python3]
    #[arg(long, value_name = "PATH", env = PYTHON_VARIABLE, hide_env_values = true)]
    pub(crate) python: Option<PathBuf>,

    /// Print a line of JSON on standard output once it is ready, or why it is not.
    #[arg(long, hide = true, requires = "foreground")]
    pub(crate) announce: bool,

    /// LocalStack in its place.
    #[command(flatten)]
    pub(crate) docker: DockerUp,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,
}

impl Up {
    /// The port to listen on.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    /// The address to listen on.
    pub(crate) fn host(&self) -> IpAddr {
        self.host.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

/// `LocalStack` in Docker, to be started.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "LocalStack in Docker, instead of the own endpoint")]
#[group(id = "docker", multiple = true)]
pub(crate) struct DockerUp {
    /// LocalStack image to run; images of 2026.03 and later need an account [default: localstack/localstack:4.14]
    #[arg(long)]
    pub(crate) image: Option<String>,

    /// Docker daemon, such as `unix:///path/to/docker.sock` [default: `$DOCKER_HOST`]
    #[arg(long, value_name = "URL")]
    pub(crate) docker_host: Option<String>,
}

impl DockerUp {
    /// Whether it is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.image.is_some() || self.docker_host.is_some()
    }
}

/// Which of them is meant, where it does not follow from what runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "LocalStack in Docker, instead of the own endpoint")]
pub(crate) struct DockerHost {
    /// Docker daemon that LocalStack runs on, such as `unix:///path/to/docker.sock`
    #[arg(long, value_name = "URL")]
    pub(crate) docker_host: Option<String>,
}

/// Stop the local endpoint.
///
/// Waits up to 15 seconds for operations on stacks, synchronous invocations and requests. Data in a directory is kept.
/// Events of asynchronous invocations that have not been delivered are lost.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter local down"
)]
pub(crate) struct Down {
    /// LocalStack in its place.
    #[command(flatten)]
    pub(crate) docker: DockerHost,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Show the status and address of the local endpoint.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  zae-limiter local status")]
pub(crate) struct Status {
    /// LocalStack in its place.
    #[command(flatten)]
    pub(crate) docker: DockerHost,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Show the log of the local endpoint.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  # Show recent logs
  zae-limiter local logs

  # Follow logs
  zae-limiter local logs --follow

  # Show last 50 lines
  zae-limiter local logs --tail 50")]
pub(crate) struct Logs {
    /// Print new lines until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Number of lines to print from the end of the log
    #[arg(long, value_name = "LINES", default_value_t = 100, value_parser = whole::<u32>(0..=i64::from(u32::MAX)), allow_negative_numbers = true)]
    pub(crate) tail: u32,

    /// LocalStack in its place.
    #[command(flatten)]
    pub(crate) docker: DockerHost,
}

/// Print the environment variables that point AWS clients at the local endpoint.
///
/// The endpoint does not have to run.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # bash and zsh: eval \"$(zae-limiter local env)\"
  zae-limiter local env

  # Into the file .envrc
  zae-limiter local env --format direnv

  # PowerShell
  zae-limiter local env --format powershell"
)]
pub(crate) struct Env {
    /// Output format
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = EnvFormat::Eval)]
    pub(crate) format: EnvFormat,

    /// Port of the endpoint [default: that of the running endpoint, else 4566]
    #[arg(long, env = PORT_VARIABLE, hide_env_values = true, value_parser = whole::<u16>(0..=65_535), allow_negative_numbers = true)]
    pub(crate) port: Option<u16>,
}

/// A syntax for environment variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvFormat {
    /// bash, zsh and other POSIX shells
    Eval,
    /// An .envrc file of direnv
    Direnv,
    /// `PowerShell`
    #[value(name = "powershell")]
    PowerShell,
}
