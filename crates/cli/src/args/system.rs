//! `system`.

use clap::{Args, Subcommand};

use super::concurrency::{DeleteOfSystem, GetOfSystem, SetOfSystem};
use super::{Common, Consent, Namespaced, OnUnavailable, WrittenLimits};

/// Manage default limits of the system.
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
    /// Show the concurrency limit of the system.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter system get-concurrency"
    )]
    GetConcurrency(GetOfSystem),
    GetDefaults(GetDefaults),
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
