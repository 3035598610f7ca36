//! `entity`.

use clap::{Args, Subcommand};

use super::{Consent, DEFAULT_RESOURCE, Format, Namespaced, WrittenLimits};

/// Entities, who spend tokens, and limits of their own.
///
/// An entity is a user, an API key, a project: whoever is limited. Limits of its own come before those of
/// the resource and of the system.
#[derive(Debug, Clone, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity create user-123 --parent org-456 --cascade
  zae-limiter entity set-limits user-123 -r gpt-4 -l rpm:1000
  zae-limiter entity show user-123"
)]
pub(crate) enum EntityCommand {
    Children(Children),
    Create(Create),
    Delete(Delete),
    DeleteLimits(DeleteLimits),
    GetLimits(GetLimits),
    List(List),
    ListResources(ListResources),
    SetLimits(SetLimits),
    Show(Show),
}

/// List the entities that have a given parent.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity children org-456"
)]
pub(crate) struct Children {
    /// The parent
    pub(crate) entity_id: String,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// Create an entity.
///
/// An entity can be limited without having been created. Creating it gives it a name and a parent.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # On its own
  zae-limiter entity create user-123

  # With a name to show
  zae-limiter entity create api-key-abc --display-name \"Production API\"

  # What it takes, its parent pays too
  zae-limiter entity create user-123 --parent org-456 --cascade"
)]
pub(crate) struct Create {
    /// The new entity, such as user-123 or api-key-abc
    pub(crate) entity_id: String,

    /// Name to show people [default: the entity's id]
    #[arg(long, value_name = "NAME")]
    pub(crate) display_name: Option<String>,

    /// Entity this one belongs to
    #[arg(long, value_name = "ENTITY_ID")]
    pub(crate) parent: Option<String>,

    /// Take from the parent, too, whatever this entity takes
    #[arg(long, overrides_with = "no_cascade")]
    cascade: bool,

    /// Leave the parent's tokens alone (the default)
    #[arg(long, overrides_with = "cascade")]
    no_cascade: bool,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

impl Create {
    /// Whether the entity cascades: what the last of the two options says.
    pub(crate) fn cascades(&self) -> bool {
        self.cascade && !self.no_cascade
    }
}

/// Delete an entity with its limits, its buckets and its usage.
///
/// Events about it stay in the audit log. It cannot be undone.
///
/// Children of the entity stay unless --children is given. They go on debiting it if they cascade, but under the
/// limits of the resource or of the system.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Ask first
  zae-limiter entity delete user-123

  # In a script
  zae-limiter entity delete user-123 --yes

  # A project with its keys
  zae-limiter entity delete proj-1 --children"
)]
pub(crate) struct Delete {
    /// Entity to delete
    pub(crate) entity_id: String,

    /// Delete its children, their children and so on as well
    #[arg(long)]
    pub(crate) children: bool,

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

/// Delete an entity's own limits on a resource.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Ask first
  zae-limiter entity delete-limits user-premium --resource gpt-4

  # In a script
  zae-limiter entity delete-limits user-premium -r gpt-4 --yes"
)]
pub(crate) struct DeleteLimits {
    /// Entity whose limits to delete
    pub(crate) entity_id: String,

    /// On which resource.
    #[command(flatten)]
    pub(crate) on: OnResource,

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

/// Show an entity's own limits on a resource.
///
/// Shows what is stored for exactly this entity and resource, not what other levels add.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity get-limits user-premium --resource gpt-4
  zae-limiter entity get-limits api-key-123 -r claude-3"
)]
pub(crate) struct GetLimits {
    /// Entity whose limits to show
    pub(crate) entity_id: String,

    /// On which resource.
    #[command(flatten)]
    pub(crate) on: OnResource,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// List the entities that have limits of their own on a resource.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Everybody with limits of their own on gpt-4
  zae-limiter entity list --with-custom-limits gpt-4

  # The first 10
  zae-limiter entity list --with-custom-limits claude-3 --limit 10"
)]
pub(crate) struct List {
    /// Resource on which the entities have limits of their own
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) with_custom_limits: String,

    /// List this many entities at most [default: all]
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    pub(crate) limit: Option<u32>,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// List the resources on which any entity has limits of its own.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity list-resources
  zae-limiter entity list-resources --name prod"
)]
pub(crate) struct ListResources {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// Set an entity's own limits on a resource.
///
/// Replaces all limits of this entity on this resource: those that are not named are dropped.
/// Limits of other levels do not apply any more where an entity has its own.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests and tokens a minute on gpt-4
  zae-limiter entity set-limits user-premium -r gpt-4 -l tpm:100000 -l rpm:1000

  # Tokens an hour on claude-3
  zae-limiter entity set-limits api-key-123 -r claude-3 -l tph:50000/hour"
)]
pub(crate) struct SetLimits {
    /// Entity to limit, such as user-123 or api-key-abc
    pub(crate) entity_id: String,

    /// On which resource.
    #[command(flatten)]
    pub(crate) on: OnResource,

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

/// Show an entity: its name, its parent, and what else is known.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity show user-123
  zae-limiter entity show api-key-abc --name prod"
)]
pub(crate) struct Show {
    /// Entity to show
    pub(crate) entity_id: String,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// The resource that an entity's limits are for.
#[derive(Debug, Clone, Args)]
pub(crate) struct OnResource {
    /// Resource they are for; `_default_` is every one that the entity has no limits for
    #[arg(short, long, default_value = DEFAULT_RESOURCE)]
    pub(crate) resource: String,
}
