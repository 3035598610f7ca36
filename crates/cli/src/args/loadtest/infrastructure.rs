//! `loadtest deploy`, `loadtest push`, `loadtest list` and `loadtest delete`.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use zae_limiter_infra::{CapacityProvider, DEFAULT_IMAGE};

use crate::args::stack::Code;
use crate::args::values::whole;
use crate::args::{Common, Consent, Named, Place};

/// Deploy load generators for a stack: a worker function, and a task definition for the master.
///
/// Creates the stack NAME-load, or brings it up to date. Without --name, --vpc-id or --subnet-ids, lists the choices on
/// a terminal and asks.
///
/// Idle, nothing runs: the master's service has no tasks. Endpoints of Systems Manager cost money while they exist.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Choose the stack, the VPC and its subnets on the terminal
  zae-limiter loadtest deploy

  # With scenarios of your own from a directory
  zae-limiter loadtest deploy --name my-app --vpc-id vpc-0a1b --subnet-ids subnet-0a1b,subnet-0c2d -C tests/load

  # Without any look-up in EC2
  zae-limiter loadtest deploy --name my-app --vpc-id vpc-0a1b --subnet-ids subnet-0a1b,subnet-0c2d --no-dynamodb-endpoint"
)]
pub(crate) struct LoadDeploy {
    /// Network.
    #[command(flatten)]
    pub(crate) network: Network,

    /// Workers.
    #[command(flatten)]
    pub(crate) workers: Workers,

    /// Master.
    #[command(flatten)]
    pub(crate) master: Master,

    /// Scenarios.
    #[command(flatten)]
    pub(crate) scenarios: Scenarios,

    /// Code.
    #[command(flatten)]
    pub(crate) code: Code,

    /// Name of the stack to put load on [default: asks on a terminal]
    #[arg(
        short,
        long,
        env = "ZAEL_STACK",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) name: Option<String>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Place>,
}

/// Where the generators run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Network {
    /// VPC of the generators [default: asks on a terminal]
    #[arg(long, value_name = "ID")]
    pub(crate) vpc_id: Option<String>,

    /// Private subnets of the generators, at least 2, separated by commas [default: asks on a terminal]
    #[arg(long, value_name = "IDS")]
    pub(crate) subnet_ids: Option<String>,

    /// Create VPC endpoints of Systems Manager; not needed if the subnets have a NAT gateway
    #[arg(long, overrides_with = "no_ssm_endpoint")]
    pub(crate) ssm_endpoint: bool,

    /// Create no VPC endpoints of Systems Manager (the default)
    #[arg(long, overrides_with = "ssm_endpoint")]
    no_ssm_endpoint: bool,

    /// Create a gateway endpoint of DynamoDB, unless the VPC has one (the default)
    #[arg(long, overrides_with = "no_dynamodb_endpoint")]
    dynamodb_endpoint: bool,

    /// Create no gateway endpoint of DynamoDB
    #[arg(long, overrides_with = "dynamodb_endpoint")]
    no_dynamodb_endpoint: bool,
}

impl Network {
    /// Whether DynamoDB gets an endpoint: what the last of the two options says.
    pub(crate) const fn has_dynamodb_endpoint(&self) -> bool {
        !self.no_dynamodb_endpoint
    }
}

/// The functions that generate load, and how many there are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
#[expect(clippy::struct_field_names, reason = "they are the names of the options")]
pub(crate) struct Workers {
    /// Most workers at a time, 1 to 1000; so much concurrency is reserved for them
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = whole::<u32>(1..=1000))]
    pub(crate) max_workers: u32,

    /// Users that a worker simulates, for automatic scaling, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = whole::<u32>(1..=1000))]
    pub(crate) users_per_worker: u32,

    /// Fewest workers while the master runs, 0 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = whole::<u32>(0..=1000))]
    pub(crate) min_workers: u32,

    /// Seconds ahead for which the number of users is predicted when workers are started, 0 to 120
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = whole::<u32>(0..=120))]
    pub(crate) startup_lead_time: u32,

    /// Minutes that a worker may run, 1 to 15
    #[arg(long, value_name = "MINUTES", default_value_t = 5, value_parser = whole::<u32>(1..=15))]
    pub(crate) lambda_timeout: u32,

    /// Memory of a worker in MB, 128 to 10240; 1769 MB come with one vCPU
    #[arg(long, value_name = "MB", default_value_t = 1769, value_parser = whole::<u32>(128..=10_240))]
    pub(crate) lambda_memory: u32,
}

/// The task that leads many workers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Master")]
pub(crate) struct Master {
    /// Capacity that the master runs on
    #[arg(long, value_enum, value_name = "PROVIDER", default_value_t = Capacity::Spot)]
    pub(crate) capacity_provider: Capacity,

    /// Image that the master's executable is started in, for a mirror; it needs a shell, curl and CA certificates
    #[arg(long, value_name = "IMAGE", default_value = DEFAULT_IMAGE)]
    pub(crate) image: String,
}

/// A capacity provider of ECS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Capacity {
    /// Spare capacity, which AWS may take back
    #[value(name = "FARGATE_SPOT")]
    Spot,
    /// Capacity that stays
    #[value(name = "FARGATE")]
    OnDemand,
}

impl Capacity {
    /// The stack's option.
    pub(crate) const fn provider(self) -> CapacityProvider {
        match self {
            Self::Spot => CapacityProvider::FargateSpot,
            Self::OnDemand => CapacityProvider::Fargate,
        }
    }
}

/// Scenarios that are packed beside the executable.
#[derive(Debug, Clone, Args)]
pub(crate) struct Scenarios {
    /// Directory with scenarios, which are YAML files
    #[arg(
        short = 'C',
        value_name = "DIRECTORY",
        default_value = ".",
        value_parser = PathBufValueParser::new().try_map(directory)
    )]
    pub(crate) directory: PathBuf,
}

fn directory(path: PathBuf) -> Result<PathBuf, String> {
    if path.is_dir() {
        return Ok(path);
    }
    let why = if path.exists() {
        "it is a file; name a directory"
    } else {
        "there is no such directory"
    };
    Err(why.to_owned())
}

/// Push new code and scenarios to the worker function.
///
/// Replaces the function's code, and leaves the stack as it is.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest push --name my-app
  zae-limiter loadtest push --name my-app -C tests/load"
)]
pub(crate) struct LoadPush {
    /// Scenarios.
    #[command(flatten)]
    pub(crate) scenarios: Scenarios,

    /// Code.
    #[command(flatten)]
    pub(crate) code: Code,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Named>,
}

/// List the stacks with load generators in a region.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest list --region us-east-1"
)]
pub(crate) struct LoadList {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Place>,
}

/// Delete the load generators of a stack.
///
/// Stops running tasks first, then deletes the stack NAME-load and waits. The stack that load was put on stays.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest delete --name my-app
  zae-limiter loadtest delete --name my-app --yes"
)]
pub(crate) struct LoadDelete {
    /// Consent.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Named>,
}
