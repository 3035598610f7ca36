//! `loadtest run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Load;
use crate::args::values::{parse_rate, whole};
use crate::args::{Common, Connection};

/// Run a load test, and print a report.
///
/// Users run in the function NAME-load-worker, which 'loadtest deploy' creates: in one call of it, or with --workers in
/// several that a task on Fargate leads. With --local they run on this machine.
///
/// Ctrl-C ends a test with --local or --workers; what was measured until then is printed, and the task is stopped. A
/// second Ctrl-C ends the command at once. A single function goes on without the command, and removes its namespace.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # 20 users without pauses, for a minute, in the function of the target my-app
  zae-limiter loadtest run -n my-app -f locustfiles/max_rps.py

  # The same from this machine
  zae-limiter loadtest run --local -n my-app -f max_rps

  # One class of users, on a table in a directory
  zae-limiter loadtest run --local --endpoint-url embedded:./limits -f simple SimpleCascadeUser

  # 1000 users in 20 functions, which a task on Fargate leads
  zae-limiter loadtest run -n my-app -f simple --users 1000 --workers 20

  # 200 users in 4 processes
  zae-limiter loadtest run --local --workers 4 -n my-app -f simple --users 200

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
    #[arg(long, default_value_t = 20, value_parser = whole::<i64>(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) users: i64,

    /// Tasks that are due in a second, also if answers are late (an open loop): all users start at once and take the tasks in
    /// turn, without pauses, and latencies count from when a task was due
    #[arg(long, value_name = "TASKS", value_parser = parse_rate, conflicts_with = "spawn_rate", allow_negative_numbers = true)]
    pub(crate) rate: Option<f64>,

    /// Length of the test in seconds [default: 60, or the length of the shape]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<i64>(1..=604_800), allow_negative_numbers = true)]
    pub(crate) duration: Option<i64>,

    /// Run the users in this many workers, from 1 to 1000: functions that a task on Fargate leads, or with --local processes
    /// that this one leads [default: one function, or with --local this process]
    #[arg(long, value_name = "N", value_parser = whole::<i64>(1..=1000), allow_negative_numbers = true)]
    workers: Option<i64>,

    /// The same as --workers, with --local only
    #[arg(long, value_name = "N", value_parser = whole::<i64>(1..=1000), allow_negative_numbers = true,
          requires = "local", conflicts_with = "workers")]
    processes: Option<i64>,

    /// Write a row for each kind of call to this file, as CSV
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Write a page with the report and charts to this file, as HTML that needs no other file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// CPU units of the task with --workers: 256, 512, 1024, 2048, 4096, 8192 or 16384 [default: 1024]
    #[arg(long, value_name = "UNITS", value_parser = whole::<i64>(256..=16_384), allow_negative_numbers = true)]
    pub(crate) cpu: Option<i64>,

    /// Memory of the task with --workers in MB [default: 2048, or the least for its CPU units]
    #[arg(long, value_name = "MB", value_parser = whole::<i64>(512..=122_880), allow_negative_numbers = true)]
    pub(crate) memory: Option<i64>,

    /// Port of this machine for the tunnel to the task with --workers [default: 8089]
    #[arg(long, value_parser = whole::<i64>(1..=65_535), allow_negative_numbers = true)]
    pub(crate) port: Option<i64>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

impl Run {
    /// The number of users.
    pub(crate) fn users(&self) -> usize {
        usize::try_from(self.users).unwrap_or(usize::MAX)
    }

    /// The number of workers.
    pub(crate) fn workers(&self) -> Option<usize> {
        let workers = self.workers.or(self.processes)?;
        Some(usize::try_from(workers).unwrap_or(usize::MAX))
    }

    /// The option that gave it.
    pub(crate) const fn workers_option(&self) -> &'static str {
        if self.workers.is_some() {
            "--workers"
        } else {
            "--processes"
        }
    }

    /// The length that was given.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.duration.map(i64::unsigned_abs).map(Duration::from_secs)
    }
}
