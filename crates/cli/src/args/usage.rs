//! `usage`.

use clap::{Args, Subcommand, ValueEnum};

use super::{Common, Namespaced};
use crate::args::values::whole;

/// Show the usage of entities and resources.
///
/// The stack's aggregator counts consumed tokens per entity, resource and time window in snapshots. A table without
/// an aggregator has no snapshots.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter usage list --entity-id user-123
  zae-limiter usage summary --resource gpt-4 --window daily"
)]
pub(crate) enum UsageCommand {
    List(List),
    Summary(Summary),
}

/// List usage snapshots, newest first.
///
/// Without --entity-id and --resource it lists the usage of all entities, and reads the keys of all their records for
/// that.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter usage list
  zae-limiter usage list --entity-id user-123
  zae-limiter usage list --resource gpt-4 --window hourly
  zae-limiter usage list --entity-id user-123 --plot"
)]
pub(crate) struct List {
    /// Of which snapshots.
    #[command(flatten)]
    pub(crate) selection: Selection,

    /// Maximum number of snapshots
    #[arg(
        short,
        long,
        value_name = "COUNT",
        default_value_t = 100,
        value_parser = whole::<u32>(1..=i64::from(u32::MAX)),
        allow_negative_numbers = true
    )]
    pub(crate) limit: u32,

    /// Draw a chart for each limit instead of a table
    #[arg(short, long)]
    pub(crate) plot: bool,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Show totals and averages of usage.
///
/// Requires --entity-id, --resource, or both.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter usage summary --entity-id user-123
  zae-limiter usage summary --resource gpt-4 --window daily"
)]
pub(crate) struct Summary {
    /// Of which snapshots.
    #[command(flatten)]
    pub(crate) selection: Selection,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// The selected snapshots.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    /// Show only usage of this entity
    #[arg(short, long)]
    pub(crate) entity_id: Option<String>,

    /// Show only usage of this resource
    #[arg(short, long)]
    pub(crate) resource: Option<String>,

    /// Show only snapshots of this kind
    #[arg(short, long, value_enum)]
    pub(crate) window: Option<Window>,

    /// Show only snapshots that begin at this time or later, such as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,

    /// Show only snapshots that begin at this time or earlier, such as 2026-01-31T23:59:59Z
    #[arg(long, value_name = "TIME")]
    pub(crate) end: Option<String>,
}

/// How long a snapshot's window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Window {
    /// One hour each
    Hourly,
    /// One day each
    Daily,
    /// One month each
    Monthly,
}
