//! `namespace`.

use clap::{Args, Subcommand};

use super::{Connection, Consent, Format};

/// Namespaces, which keep tenants apart in one table.
///
/// Entities, limits, buckets and usage of one namespace are invisible in the others. A namespace has a
/// name, which can be given up and taken again, and an id, which stays with its data.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace register tenant-alpha tenant-beta
  zae-limiter namespace list
  zae-limiter namespace show tenant-alpha"
)]
pub(crate) enum NamespaceCommand {
    Delete(Delete),
    List(List),
    Orphans(Orphans),
    Purge(Purge),
    Recover(Recover),
    Register(Register),
    Show(Show),
}

/// Give up a namespace's name, keeping its data.
///
/// 'namespace recover' brings it back, as long as nobody took the name. 'namespace purge' removes the data.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace delete tenant-alpha --name my-app --yes"
)]
pub(crate) struct Delete {
    /// Name of the namespace, such as tenant-alpha
    pub(crate) namespace_name: String,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// List the namespaces in use, with their ids.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace list --name my-app"
)]
pub(crate) struct List {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// List deleted namespaces, whose data is still there.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace orphans --name my-app"
)]
pub(crate) struct Orphans {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// Remove a deleted namespace's data for good.
///
/// Entities, limits, buckets, usage and audit events of the namespace are gone then. It cannot be undone.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace purge aB3x_9Qw --name my-app --yes"
)]
pub(crate) struct Purge {
    /// Id of the namespace; 'namespace orphans' lists them
    pub(crate) namespace_id: String,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// Bring a deleted namespace back under its old name.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace recover aB3x_9Qw --name my-app"
)]
pub(crate) struct Recover {
    /// Id of the namespace; 'namespace orphans' lists them
    pub(crate) namespace_id: String,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// Register namespaces, so that they can be used.
///
/// A name that is registered already keeps its id and its data.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace register tenant-alpha --name my-app
  zae-limiter namespace register tenant-alpha tenant-beta --name my-app"
)]
pub(crate) struct Register {
    /// Names to register, such as tenant-alpha
    #[arg(required = true)]
    pub(crate) namespaces: Vec<String>,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

/// Show a namespace: its id, its state, its age.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace show tenant-alpha --name my-app"
)]
pub(crate) struct Show {
    /// Name of the namespace, such as tenant-alpha
    pub(crate) namespace_name: String,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}
