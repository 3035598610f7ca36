//! `system`.

use clap::{Args, Subcommand};

use super::{Consent, Format, Namespaced, OnUnavailable, WrittenLimits};

/// Default limits for every entity on every resource.
///
/// They hold where neither the entity nor the resource has limits of its own.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter system set-defaults -l tpm:10000 -l rpm:100
  zae-limiter system get-defaults"
)]
#[expect(clippy::enum_variant_names, reason = "the commands have these names")]
pub(crate) enum SystemCommand {
    DeleteDefaults(DeleteDefaults),
    GetDefaults(GetDefaults),
    SetDefaults(SetDefaults),
}

/// Delete the system's default limits, and its policy for outages.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Ask first
  zae-limiter system delete-defaults

  # In a script
  zae-limiter system delete-defaults --yes"
)]
pub(crate) struct DeleteDefaults {
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

/// Show the system's default limits, and its policy for outages.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter system get-defaults
  zae-limiter system get-defaults --name prod"
)]
pub(crate) struct GetDefaults {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// Set the system's default limits.
///
/// Replaces all of them, and the policy for outages too: what is not named is dropped.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests and tokens a minute
  zae-limiter system set-defaults -l tpm:10000 -l rpm:100

  # And let requests pass while the table is down
  zae-limiter system set-defaults -l tpm:10000 --on-unavailable allow"
)]
pub(crate) struct SetDefaults {
    /// The limits.
    #[command(flatten)]
    pub(crate) limits: WrittenLimits,

    /// What to do with requests while the table cannot be used
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) on_unavailable: Option<OnUnavailable>,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}
