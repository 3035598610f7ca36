//! `loadtest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::parse_ratio;
use super::{Common, Connection};

/// Put load on a table, and measure it.
///
/// Simulated users call the limiter in this process, each waiting for its answer before it goes on. They work in a
/// namespace of their own, which is removed at the end.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest run --local -n my-app -f max_rps --users 50 --duration 30"
)]
pub(crate) enum LoadtestCommand {
    Run(Run),
    Tune(Tune),
}

/// What users do, and where they run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Classes of users, and for 'run' at most one shape [default: all classes of the scenario]
    pub(crate) user_classes: Vec<String>,

    /// Scenario: its name, the path of a YAML file, or of the file that has it in the Python tool, such as locustfiles/simple.py
    #[arg(short = 'f', long, value_name = "SCENARIO")]
    pub(crate) locustfile: String,

    /// Run the users on this machine
    #[arg(long)]
    pub(crate) local: bool,

    /// Users that start in a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) spawn_rate: i64,

    /// Seed of the random choices [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
}

impl Load {
    /// The seed that was given, or another one.
    pub(crate) fn seed(&self) -> u64 {
        // Below 2^53, so that every reader of JSON reads it exactly.
        self.seed.unwrap_or_else(|| fastrand::u64(..1 << 53))
    }
}

/// Run a load test, and print a report.
///
/// Needs --local: users run on this machine. Functions and Fargate tasks as generators are not supported yet.
///
/// Ctrl-C ends the test; what was measured until then is printed. A second Ctrl-C ends the command at once.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # 20 users without pauses, for a minute
  zae-limiter loadtest run --local -n my-app -f locustfiles/max_rps.py

  # One class of users, on a table in a directory
  zae-limiter loadtest run --local --endpoint-url embedded:./limits -f simple SimpleCascadeUser

Scenarios, with their classes of users:
  simple          SimpleUser, SimpleCascadeUser: a request every 0.1 to 1 s
  max_rps         MaxRpsUser, MaxRpsCascadeUser: requests without a pause
  llm_gateway     LLMGatewayUser: 8 models, estimates that are corrected
  llm_production  LLMGatewayUser, LLMGatewayUserReal: the same with human pauses;
                  ProductionDailyLoad, MorningSpike: users over a day, or an hour
  stress          LoadTestUser: few entities get most requests, with spikes
  FILE.yaml       a scenario of your own, see docs/loadtest.md"
)]
pub(crate) struct Run {
    /// What users do.
    #[command(flatten)]
    pub(crate) load: Load,

    /// Number of simulated users
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) users: i64,

    /// Length of the test in seconds; with a shape, its length is the default
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=604_800), allow_negative_numbers = true)]
    pub(crate) duration: Option<i64>,

    /// Write a row for each kind of call to this file, as CSV
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Find how many users one process carries.
///
/// Measures the latency of one user, and then searches for the most users whose efficiency, the median latency of
/// one user divided by theirs, reaches the threshold. More users than that measure the generator, not the table.
///
/// Needs --local, as 'loadtest run' does, which also lists the scenarios.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest tune --local -n my-app -f max_rps MaxRpsUser
  zae-limiter loadtest tune --local -n my-app -f simple --max-users 500 --threshold 0.9"
)]
pub(crate) struct Tune {
    /// What users do.
    #[command(flatten)]
    pub(crate) load: Load,

    /// Upper bound of the search
    #[arg(long, value_name = "USERS", default_value_t = 40, value_parser = clap::value_parser!(i64).range(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) max_users: i64,

    /// Efficiency to reach, above 0 and up to 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.80, value_parser = parse_ratio, allow_negative_numbers = true)]
    pub(crate) threshold: f64,

    /// Length of each step in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=86_400), allow_negative_numbers = true)]
    pub(crate) step_duration: i64,

    /// Length of the measurement with one user in seconds; it is lengthened if fewer than 100 requests come back
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=86_400), allow_negative_numbers = true)]
    pub(crate) baseline_duration: i64,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}
