//! `audit`.

use clap::{Args, Subcommand};

use super::{Common, Namespaced};
use crate::args::values::whole;

/// Show the audit log of limits and entities.
///
/// Changes of limits, and creations and deletions of entities, are logged as events.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter audit list
  zae-limiter audit list --entity-id user-123"
)]
pub(crate) enum AuditCommand {
    List(List),
}

/// List events, newest first.
///
/// Without --entity-id it lists the events of all entities, resources and the system, and reads the keys of all events
/// of the namespace for that.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter audit list
  zae-limiter audit list --entity-id user-123
  zae-limiter audit list --entity-id user-123 --limit 10

  # Changes of system and resource defaults
  zae-limiter audit list -e '$SYSTEM'
  zae-limiter audit list -e '$RESOURCE:gpt-4'"
)]
pub(crate) struct List {
    /// Show only events of this entity, or of '$SYSTEM', or of '$RESOURCE:name'
    ///
    /// Changes of the system's defaults are logged under '$SYSTEM', those of a resource's defaults under
    /// '$RESOURCE:' and the resource's name. Quote these names in a shell.
    #[arg(short, long, verbatim_doc_comment)]
    pub(crate) entity_id: Option<String>,

    /// Maximum number of events
    #[arg(
        short,
        long,
        value_name = "COUNT",
        default_value_t = 100,
        value_parser = whole::<u32>(1..=i64::from(u32::MAX)),
        allow_negative_numbers = true
    )]
    pub(crate) limit: u32,

    /// Start after this event, the last one of the previous page
    #[arg(long, value_name = "EVENT_ID")]
    pub(crate) start_event_id: Option<String>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
