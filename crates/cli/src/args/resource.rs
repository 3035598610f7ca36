//! `resource`.

use clap::{Args, Subcommand};

use super::access::{Resource, ResourceCascade};
use super::concurrency::{DeleteOfResource, SetOfResource};
use super::{Common, Consent, Namespaced, WrittenLimits};

/// Manage default limits of resources (models, endpoints).
///
/// Defaults of a resource apply to entities without limits. They take precedence over those of the system.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter resource set-defaults gpt-4 -l rpm:500 -l tpm:50000
  zae-limiter resource list"
)]
pub(crate) enum ResourceCommand {
    /// Admit every request for a resource, and count it without taking tokens.
    ///
    /// For incidents and load tests. Entities with a word of their own (disable, enable) keep it. 'resource clear-disabled' ends it.
    /// Needs functions of 0.17.0 or later, or a table in a directory.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource bypass gpt-4"
    )]
    Bypass(Resource),
    /// Take the cascade policy of a resource back.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource clear-cascade gpt-4"
    )]
    ClearCascade(Resource),
    /// Take 'disable', 'enable' or 'bypass' of a resource back.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource clear-disabled gpt-4"
    )]
    ClearDisabled(Resource),
    /// Delete the concurrency limit of a resource.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource delete-concurrency gpt-4 --yes"
    )]
    DeleteConcurrency(DeleteOfResource),
    DeleteDefaults(DeleteDefaults),
    /// Refuse every request for a resource.
    ///
    /// Takes effect at the next request of each process. Entities that are enabled explicitly keep their access.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource disable gpt-4"
    )]
    Disable(Resource),
    /// Enable a resource explicitly.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource enable gpt-4"
    )]
    Enable(Resource),
    /// Show the concurrency limit of a resource.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource get-concurrency gpt-4"
    )]
    GetConcurrency(Resource),
    GetDefaults(GetDefaults),
    List(List),
    /// Set whether requests for a resource take tokens from the parents of entities, too.
    ///
    /// Needs functions of 0.16.0 or later, or a table in a directory.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource set-cascade gpt-4 on
  zae-limiter resource set-cascade embeddings off"
    )]
    SetCascade(ResourceCascade),
    /// Set how many requests of each entity may be in flight on a resource.
    ///
    /// Each entity has its own places. 'entity set-concurrency' takes precedence.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource set-concurrency gpt-4 10"
    )]
    SetConcurrency(SetOfResource),
    SetDefaults(SetDefaults),
}

/// Delete the default limits of a resource.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # With confirmation
  zae-limiter resource delete-defaults gpt-4

  # Without confirmation, for scripts
  zae-limiter resource delete-defaults gpt-4 --yes"
)]
pub(crate) struct DeleteDefaults {
    /// Resource whose defaults to delete
    pub(crate) resource_name: String,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Show the default limits of a resource.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter resource get-defaults gpt-4
  zae-limiter resource get-defaults claude-3 --name prod"
)]
pub(crate) struct GetDefaults {
    /// Resource whose defaults to show
    pub(crate) resource_name: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// List the resources that have default limits.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter resource list
  zae-limiter resource list --name prod"
)]
pub(crate) struct List {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Set the default limits of a resource.
///
/// Replaces all default limits of the resource. Limits that are not given are deleted.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests and tokens a minute
  zae-limiter resource set-defaults gpt-4 -l tpm:100000 -l rpm:1000

  # Periods written out
  zae-limiter resource set-defaults gpt-4 -l rpm:1000/min -l tph:50000/hour

  # Half the rate at night
  zae-limiter resource set-defaults gpt-4 -l rpm:1000 --schedule 'rpm@* 0-6 * * *:x0.5' --tz Europe/Berlin

  # Count tokens, and refuse no request because of them
  zae-limiter resource set-defaults gpt-4 -l rpm:1000 -l tpm:50000 --soft tpm"
)]
pub(crate) struct SetDefaults {
    /// Resource to limit, such as gpt-4
    pub(crate) resource_name: String,

    /// The limits.
    #[command(flatten)]
    pub(crate) limits: WrittenLimits,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
