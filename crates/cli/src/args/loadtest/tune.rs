//! `loadtest tune`.

use clap::Args;

use super::Load;
use crate::args::values::{parse_ratio, whole};
use crate::args::{Common, Connection};

/// Find how many users one function or process carries.
///
/// Measures the latency of one user, and then searches for the most users whose efficiency, the median latency of
/// one user divided by theirs, reaches the threshold. More users than that measure the generator, not the table.
///
/// Each step is a call of the function NAME-load-worker, or with --local a test on this machine. The help of
/// 'loadtest run' lists the scenarios.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter loadtest tune -n my-app -f max_rps MaxRpsUser
  zae-limiter loadtest tune --local -n my-app -f simple --max-users 500 --threshold 0.9"
)]
pub(crate) struct Tune {
    /// What users do.
    #[command(flatten)]
    pub(crate) load: Load,

    /// Upper bound of the search
    #[arg(long, value_name = "USERS", default_value_t = 40, value_parser = whole::<i64>(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) max_users: i64,

    /// Efficiency to reach, above 0 and up to 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.80, value_parser = parse_ratio, allow_negative_numbers = true)]
    pub(crate) threshold: f64,

    /// Length of each step in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = whole::<i64>(1..=86_400), allow_negative_numbers = true)]
    pub(crate) step_duration: i64,

    /// Length of the measurement with one user in seconds; it is lengthened if fewer than 100 requests come back
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = whole::<i64>(1..=86_400), allow_negative_numbers = true)]
    pub(crate) baseline_duration: i64,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}
