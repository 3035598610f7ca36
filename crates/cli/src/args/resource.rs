//! `resource`.

use clap::{Args, Subcommand};

use super::{Consent, Format, Namespaced, WrittenLimits};

/// Resources, on which tokens are spent, and their default limits.
///
/// A resource is a model, an endpoint: whatever is used. Its defaults hold for entities without limits of
/// their own, and come before those of the system.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter resource set-defaults gpt-4 -l rpm:500 -l tpm:50000
  zae-limiter resource list"
)]
pub(crate) enum ResourceCommand {
    DeleteDefaults(DeleteDefaults),
    GetDefaults(GetDefaults),
    List(List),
    SetDefaults(SetDefaults),
}

/// Delete a resource's default limits.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Ask first
  zae-limiter resource delete-defaults gpt-4

  # In a script
  zae-limiter resource delete-defaults gpt-4 --yes"
)]
pub(crate) struct DeleteDefaults {
    /// Resource whose defaults to delete
    pub(crate) resource_name: String,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// Show a resource's default limits.
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

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
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
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// Set a resource's default limits.
///
/// Replaces all its defaults: those that are not named are dropped.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests and tokens a minute
  zae-limiter resource set-defaults gpt-4 -l tpm:100000 -l rpm:1000

  # Periods written out
  zae-limiter resource set-defaults gpt-4 -l rpm:1000/min -l tph:50000/hour"
)]
pub(crate) struct SetDefaults {
    /// Resource to limit, such as gpt-4
    pub(crate) resource_name: String,

    /// The limits.
    #[command(flatten)]
    pub(crate) limits: WrittenLimits,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}
