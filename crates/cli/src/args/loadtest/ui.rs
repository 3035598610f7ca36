//! `loadtest ui`.

use clap::Args;

use crate::args::Connection;
use crate::args::values::whole;

/// Show a load test in the browser, and start and stop it there.
///
/// The master is a task on Fargate, which this command starts or finds, and workers are functions that it calls. The page
/// is reached through a tunnel of Systems Manager, until Ctrl-C. A task that this command has started is stopped then.
/// The AWS CLI and its Session Manager plugin must be installed.
///
/// With --local, the master runs in this process and its workers in others on this machine. The page shows users,
/// workers, requests per second and latencies.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest ui -n my-app -f simple --max-workers 20

  # Without AWS
  zae-limiter loadtest ui --local -n my-app -f simple --workers 2

  # As many workers as the users need, up to 4
  zae-limiter loadtest ui --local -n my-app -f simple --users-per-worker 100 --max-workers 4"
)]
pub(crate) struct Ui {
    /// Scenario: its name, the path of a YAML file, or of the file that has it in the Python tool, such as locustfiles/simple.py
    #[arg(short = 'f', long, value_name = "SCENARIO")]
    pub(crate) locustfile: String,

    /// Run master and workers on this machine
    #[arg(long)]
    pub(crate) local: bool,

    /// Port of the page on this machine; with --local, 0 for any free one
    #[arg(long, default_value_t = 8089, value_parser = whole::<u16>(0..=65_535))]
    pub(crate) port: u16,

    /// Number of worker processes with --local, from 1 to 1000 [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<i64>(1..=1000), allow_negative_numbers = true,
          conflicts_with_all = ["max_workers", "min_workers", "users_per_worker", "startup_lead_time"])]
    pub(crate) workers: Option<i64>,

    /// Stop the Fargate task at the end, also if it ran before
    #[arg(long)]
    pub(crate) destroy: bool,

    /// Stop a running Fargate task and start another one
    #[arg(long)]
    pub(crate) force: bool,

    /// Most workers, from 1 to 1000 [default: that of the load stack; with --local, any number]
    #[arg(long, value_name = "N", value_parser = whole::<i64>(1..=1000), allow_negative_numbers = true)]
    pub(crate) max_workers: Option<i64>,

    /// Fewest workers, from 0 to 1000 [default: that of the load stack; with --local, 1]
    #[arg(long, value_name = "N", value_parser = whole::<i64>(0..=1000), allow_negative_numbers = true)]
    pub(crate) min_workers: Option<i64>,

    /// Users that a worker carries, from 1 to 1000000
    #[arg(long, value_name = "USERS", value_parser = whole::<i64>(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) users_per_worker: Option<i64>,

    /// Time in which a worker starts: users of this time ahead are provided for; from 0 to 120
    #[arg(long, value_name = "SECONDS", value_parser = whole::<i64>(0..=120), allow_negative_numbers = true)]
    pub(crate) startup_lead_time: Option<i64>,

    /// CPU units of the Fargate task: 256, 512, 1024, 2048, 4096, 8192 or 16384 [default: 1024]
    #[arg(long, value_name = "UNITS")]
    pub(crate) cpu: Option<u32>,

    /// Memory of the Fargate task in MB [default: 2048, or the least for its CPU units]
    #[arg(long, value_name = "MB")]
    pub(crate) memory: Option<u32>,

    /// Connections of a worker to the table: has no effect here, as workers open those that their users need
    #[arg(long, value_name = "N")]
    pub(crate) pool_connections: Option<u32>,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}
