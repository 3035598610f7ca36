//! `loadtest`.

mod infrastructure;
mod master;
mod run;
mod tune;
mod ui;
mod worker;

use clap::{Args, Subcommand};

use crate::args::values::whole;
pub(crate) use infrastructure::{LoadDelete, LoadDeploy, LoadList, LoadPush};
pub(crate) use master::Master;
pub(crate) use run::Run;
pub(crate) use tune::Tune;
pub(crate) use ui::Ui;
pub(crate) use worker::Worker;

/// Put load on a table, and measure it.
///
/// Simulated users call the limiter, each waiting for its answer before it goes on. They work in a namespace of their
/// own, which is removed at the end.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # From this machine
  zae-limiter loadtest run --local -n my-app -f max_rps --users 50 --duration 30

  # Functions in AWS that generate load
  zae-limiter loadtest deploy --name my-app"
)]
pub(crate) enum LoadtestCommand {
    Delete(LoadDelete),
    Deploy(Box<LoadDeploy>),
    List(LoadList),
    Master(Box<Master>),
    Push(LoadPush),
    Run(Run),
    Schema(Schema),
    Tune(Tune),
    Ui(Ui),
    Worker(Worker),
}

impl LoadtestCommand {
    /// Whether it runs users, or asks a function to. Such a command ends a test when a signal comes.
    pub(crate) const fn has_users(&self) -> bool {
        matches!(
            self,
            Self::Master(_) | Self::Run(_) | Self::Tune(_) | Self::Ui(_) | Self::Worker(_)
        )
    }
}

/// Print the JSON Schema of scenario files.
///
/// Editors use it to check and complete YAML.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest schema > loadtest.schema.json"
)]
pub(crate) struct Schema {}

/// What users do, and where they run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Classes of users, and for 'run' at most one shape [default: all classes of the scenario]
    pub(crate) user_classes: Vec<String>,

    /// Scenario: its name, the path of a YAML file, or of the file that has it in the Python tool, such as locustfiles/simple.py
    #[arg(short = 'f', long, value_name = "SCENARIO")]
    pub(crate) locustfile: String,

    /// Run the users on this machine, and not in a function
    #[arg(long)]
    pub(crate) local: bool,

    /// Users that start in a second
    #[arg(long, default_value_t = 10, value_parser = whole::<i64>(1..=1_000_000), allow_negative_numbers = true)]
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
