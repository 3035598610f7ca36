//! `system`.

use clap::{Args, Subcommand};

use super::concurrency::{DeleteOfSystem, SetOfSystem};
use super::{Common, Consent, Namespaced, OnUnavailable, WrittenLimits};

/// Manage default limits and the cascade depth of the system.
///
/// They apply if neither the entity nor the resource has limits.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter system set-defaults -l tpm:10000 -l rpm:100
  zae-limiter system get-defaults"
)]
pub(crate) enum SystemCommand {
    /// Delete the concurrency limit of the system.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter system delete-concurrency --yes"
    )]
    DeleteConcurrency(DeleteOfSystem),
    DeleteDefaults(DeleteDefaults),
    /// Show how many entities above each other a request debits.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter system get-cascade-depth"
    )]
    GetCascadeDepth(OfSystem),
    /// Show the concurrency limit of the system.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter system get-concurrency"
    )]
    GetConcurrency(OfSystem),
    GetDefaults(GetDefaults),
    SetCascadeDepth(SetCascadeDepth),
    /// Set how many requests of each entity may be in flight on each resource.
    ///
    /// Each entity has its own places on each resource. Limits of resources and entities take precedence.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter system set-concurrency 20"
    )]
    SetConcurrency(SetOfSystem),
    SetDefaults(SetDefaults),
}

/// What a command about the whole system takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfSystem {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Set how many entities above each other a request debits.
///
/// A request debits its entity; if that cascades, its parent; if that cascades, the parent's parent; and so on. Processes go
/// by the new depth within the time of their configuration cache, one minute by default. Entities above a parent that have
/// no limits of their own have those of the resource or the system, for the requests of all entities below together:
/// before the depth is raised, give them limits. Clients of the Python library debit the entity and its parent alone.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Organisation, team, project and key
  zae-limiter system set-cascade-depth 4

  # The entity and its parent
  zae-limiter system set-cascade-depth 2"
)]
pub(crate) struct SetCascadeDepth {
    /// The depth: 2, the entity and its parent, to 8
    #[arg(value_name = "DEPTH", value_parser = clap::value_parser!(u32).range(2..=8))]
    pub(crate) depth: u32,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Delete the system's default limits and outage policy.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # With confirmation
  zae-limiter system delete-defaults

  # Without confirmation, for scripts
  zae-limiter system delete-defaults --yes"
)]
pub(crate) struct DeleteDefaults {
    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Show the system's default limits and outage policy.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter system get-defaults
  zae-limiter system get-defaults --name prod"
)]
pub(crate) struct GetDefaults {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Set the system's default limits.
///
/// Replaces all default limits and the outage policy. Limits and a policy that are not given are deleted.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests and tokens a minute
  zae-limiter system set-defaults -l tpm:10000 -l rpm:100

  # Admit requests during an outage of the table
  zae-limiter system set-defaults -l tpm:10000 --on-unavailable allow"
)]
pub(crate) struct SetDefaults {
    /// The limits.
    #[command(flatten)]
    pub(crate) limits: WrittenLimits,

    /// Outage policy: decision about requests while the table cannot be used [default: block]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) on_unavailable: Option<OnUnavailable>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
