//! The commands of `resource` and `entity` that say who is refused, who is let through, and whose parent is debited.

use clap::{Args, Subcommand, ValueEnum};

use super::{Common, DEFAULT_RESOURCE, Namespaced};

/// Commands of `resource`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum OfResource {
    /// Admit every request for a resource, and count it without taking tokens.
    ///
    /// For incidents and load tests. Entities with a word of their own (disable, enable) keep it. 'resource clear-disabled' ends it.
    /// Needs functions of 0.17.0 or later, if the stack has any.
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

    /// Set whether requests for a resource take tokens from the parents of entities, too.
    ///
    /// Needs functions of 0.16.0 or later, if the stack has any.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter resource set-cascade gpt-4 on
  zae-limiter resource set-cascade embeddings off"
    )]
    SetCascade(ResourceCascade),
}

/// Commands of `entity`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum OfEntity {
    /// Admit every request of an entity, and count it without taking tokens.
    ///
    /// Its parent enforces its own limits. 'entity clear-disabled' ends it. Needs functions of 0.17.0 or later, if the stack has
    /// any.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  # For all resources
  zae-limiter entity bypass load-test

  # For one
  zae-limiter entity bypass load-test --resource gpt-4"
    )]
    Bypass(OnEntity),

    /// Take the cascade policy of an entity back.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity clear-cascade user-123 --resource gpt-4"
    )]
    ClearCascade(OnEntity),

    /// Take 'disable', 'enable' or 'bypass' of an entity back.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity clear-disabled user-123"
    )]
    ClearDisabled(OnEntity),

    /// Refuse every request of an entity.
    ///
    /// Takes effect at the next request of each process.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  # For all resources
  zae-limiter entity disable user-123

  # For one
  zae-limiter entity disable user-123 --resource gpt-4"
    )]
    Disable(OnEntity),

    /// Enable an entity explicitly, also on a resource that is disabled.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity enable user-123 --resource gpt-4"
    )]
    Enable(OnEntity),

    /// Set whether requests of an entity take tokens from its parent, too.
    ///
    /// Needs functions of 0.16.0 or later, if the stack has any.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity set-cascade user-123 on --resource gpt-4
  zae-limiter entity set-cascade user-123 off"
    )]
    SetCascade(EntityCascade),

    /// Move an entity to another parent, or to none.
    ///
    /// Each process takes tokens from the new parent from its next request on. What was taken from the old parent stays there.
    /// Needs functions of 0.17.0 or later, if the stack has any.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity set-parent user-123 --parent org-b
  zae-limiter entity set-parent user-123 --none"
    )]
    SetParent(SetParent),
}

/// A resource.
#[derive(Debug, Clone, Args)]
pub(crate) struct Resource {
    /// Resource, such as gpt-4
    pub(crate) resource_name: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// An entity, and the resource that it is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct OnEntity {
    /// Entity, such as user-123
    pub(crate) entity_id: String,

    /// Resource; `_default_` stands for every resource for which nothing more particular is set
    #[arg(short, long, default_value = DEFAULT_RESOURCE)]
    pub(crate) resource: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Whether parents are debited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// A resource, and its cascade policy.
#[derive(Debug, Clone, Args)]
pub(crate) struct ResourceCascade {
    /// Resource, such as gpt-4
    pub(crate) resource_name: String,

    /// Whether parents are debited
    pub(crate) value: Switch,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// An entity, and its cascade policy.
#[derive(Debug, Clone, Args)]
pub(crate) struct EntityCascade {
    /// Entity, such as user-123
    pub(crate) entity_id: String,

    /// Whether its parent is debited
    pub(crate) value: Switch,

    /// Resource; `_default_` stands for every resource for which nothing more particular is set
    #[arg(short, long, default_value = DEFAULT_RESOURCE)]
    pub(crate) resource: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// An entity, and its new parent.
#[derive(Debug, Clone, Args)]
#[group(id = "new-parent", required = true, multiple = false, args = ["parent", "none"])]
pub(crate) struct SetParent {
    /// Entity to move, such as user-123
    pub(crate) entity_id: String,

    /// The new parent, which must exist
    #[arg(long, value_name = "ENTITY_ID")]
    pub(crate) parent: Option<String>,

    /// Give it no parent
    #[arg(long)]
    none: bool,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
