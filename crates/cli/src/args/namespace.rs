//! `namespace`.

use clap::{Args, Subcommand};

use super::{Common, Connection, Consent};

/// Manage namespaces, which isolate tenants in one table.
///
/// Entities, limits, buckets and usage of a namespace are invisible in other namespaces. A namespace has a name, which
/// can be deleted and registered again, and an id, which stays with its data.
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

/// Delete a namespace, but keep its data.
///
/// 'namespace recover' restores it, unless the name was registered again. 'namespace purge' deletes the data.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// List active namespaces with their ids.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace list --name my-app"
)]
pub(crate) struct List {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// List deleted namespaces whose data still exists.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter namespace orphans --name my-app"
)]
pub(crate) struct Orphans {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Delete the data of a deleted namespace permanently.
///
/// Deletes entities, limits, buckets, usage and audit events of the namespace. This cannot be undone.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Recover a deleted namespace under its old name.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Register namespaces.
///
/// A name that is already registered keeps its id and data.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

/// Show the id, state and creation time of a namespace.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}
