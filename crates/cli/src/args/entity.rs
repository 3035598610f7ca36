//! `entity`.

use clap::{Args, Subcommand};

use super::access::{EntityCascade, OnEntity, SetParent};
use super::concurrency::{DeleteOfEntity, InFlight, SetOfEntity};
use super::operations::{Reset, TopUp};
use super::{Common, Consent, DEFAULT_RESOURCE, Namespaced, WrittenLimits};
use crate::args::values::whole;

/// Manage entities (users, API keys, projects) and their limits.
///
/// Limits of an entity take precedence over those of the resource and of the system.
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
    /// Admit every request of an entity, and count it without taking tokens.
    ///
    /// Its parent enforces its own limits. 'entity clear-disabled' ends it. Needs functions of 0.17.0 or later, or a
    /// table in a directory.
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
    Children(Children),
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
    Create(Create),
    Delete(Delete),
    /// Delete the concurrency limit of an entity.
    ///
    /// That of the resource or of the system applies then. Requests that are in flight stay so.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity delete-concurrency user-123 --resource gpt-4 --yes"
    )]
    DeleteConcurrency(DeleteOfEntity),
    DeleteLimits(DeleteLimits),
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
    /// Show the concurrency limit of an entity.
    ///
    /// Shows only what is stored for this entity and resource. 'entity in-flight' shows the limit that applies.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity get-concurrency user-123 --resource gpt-4"
    )]
    GetConcurrency(OnEntity),
    GetLimits(GetLimits),
    /// Show the requests of an entity that hold a place in flight.
    ///
    /// Lists each holder, and when its place expires. A request renews its place while it lives. That of a crashed process can be
    /// taken by others 5 seconds after its expiry.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity in-flight user-123 --resource gpt-4"
    )]
    InFlight(InFlight),
    List(List),
    ListResources(ListResources),
    /// Make the limits of an entity on a resource whole again, at once.
    ///
    /// A limit that is refilled by its rate is full, and a debt is forgiven. A quota has all of its amount for the rest of its
    /// period. Of a session limit the session ends, and the next request begins another one. What was counted as used stays,
    /// and so do the buckets of the parent. A bucket that does not exist is left so: its first request finds it full.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  # All limits on gpt-4
  zae-limiter entity reset user-123 --resource gpt-4

  # The daily quota alone, once for this ticket however often the command runs
  zae-limiter entity reset user-123 -r gpt-4 --limit rpd --idempotency-key ticket-4711"
    )]
    Reset(Reset),
    /// Set whether requests of an entity take tokens from its parent, too.
    ///
    /// Needs functions of 0.16.0 or later, or a table in a directory.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity set-cascade user-123 on --resource gpt-4
  zae-limiter entity set-cascade user-123 off"
    )]
    SetCascade(EntityCascade),
    /// Set how many requests of an entity may be in flight at the same time.
    ///
    /// Limits requests that ask for a place, as 'acquire --in-flight' does. Other processes go by the new limit once their cached
    /// configuration has expired. Requests that are in flight stay so.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  # 5 at a time on gpt-4
  zae-limiter entity set-concurrency user-123 5 --resource gpt-4

  # 20 on each resource for which nothing else is set
  zae-limiter entity set-concurrency user-123 20"
    )]
    SetConcurrency(SetOfEntity),
    SetLimits(SetLimits),
    /// Move an entity to another parent, or to none.
    ///
    /// Each process takes tokens from the new parent from its next request on. What was taken from the old parent stays there.
    /// Needs functions of 0.17.0 or later, or a table in a directory.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  zae-limiter entity set-parent user-123 --parent org-b
  zae-limiter entity set-parent user-123 --none"
    )]
    SetParent(SetParent),
    Show(Show),
    /// Add tokens to limits of an entity on a resource, at once.
    ///
    /// A quota or a session limit gets exactly the amount, on top of what it is, until its period ends. A session begins with it
    /// if none has begun. A limit that is refilled by its rate is filled up to its capacity at most. If there is no bucket, it is
    /// created. For quotas it needs functions of 0.17.0 or later, or a table in a directory.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  # 5,000 more of today's quota, once for this order however often the command runs
  zae-limiter entity top-up user-123 -r gpt-4 --add tokens:5000 --idempotency-key order-17

  # Several limits
  zae-limiter entity top-up user-123 -r gpt-4 -a rpd:100 -a tpd:50000"
    )]
    TopUp(TopUp),
}

/// List the children of an entity.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity children org-456"
)]
pub(crate) struct Children {
    /// Parent entity
    pub(crate) entity_id: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Create an entity.
///
/// Tokens can be taken without creating an entity. A created entity has a name and can have a parent.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Without a parent
  zae-limiter entity create user-123

  # With a display name
  zae-limiter entity create api-key-abc --display-name \"Production API\"

  # Its requests take tokens from its parent, too
  zae-limiter entity create user-123 --parent org-456 --cascade"
)]
pub(crate) struct Create {
    /// Id of the new entity, such as user-123 or api-key-abc
    pub(crate) entity_id: String,

    /// Display name [default: the entity's id]
    #[arg(long, value_name = "NAME")]
    pub(crate) display_name: Option<String>,

    /// Parent entity
    #[arg(long, value_name = "ENTITY_ID")]
    pub(crate) parent: Option<String>,

    /// Take the tokens of each request from the parent, too
    #[arg(long, overrides_with = "no_cascade")]
    cascade: bool,

    /// Do not take tokens from the parent (the default)
    #[arg(long, overrides_with = "cascade")]
    no_cascade: bool,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

impl Create {
    /// Whether the entity cascades: what the last of the two options says.
    pub(crate) fn cascades(&self) -> bool {
        self.cascade && !self.no_cascade
    }
}

/// Delete an entity with its limits, buckets and usage.
///
/// Events of the entity stay in the audit log. The deletion cannot be undone.
///
/// Children of the entity are kept, unless --children is given. Children that cascade continue to debit the deleted
/// entity's id, under the limits of the resource or of the system.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # With confirmation
  zae-limiter entity delete user-123

  # Without confirmation, for scripts
  zae-limiter entity delete user-123 --yes

  # A project with its keys
  zae-limiter entity delete proj-1 --children"
)]
pub(crate) struct Delete {
    /// Entity to delete
    pub(crate) entity_id: String,

    /// Delete all descendants as well
    #[arg(long)]
    pub(crate) children: bool,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Delete the limits of an entity on a resource.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # With confirmation
  zae-limiter entity delete-limits user-premium --resource gpt-4

  # Without confirmation, for scripts
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Show the limits of an entity on a resource.
///
/// Shows only the limits that are stored for this entity and resource, not those of other levels.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// List the entities that have limits on a resource.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Entities with limits on gpt-4
  zae-limiter entity list --with-custom-limits gpt-4

  # The first 10
  zae-limiter entity list --with-custom-limits claude-3 --limit 10"
)]
pub(crate) struct List {
    /// Resource on which the entities have limits
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) with_custom_limits: String,

    /// Maximum number of entities [default: all]
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = whole::<u32>(1..=i64::from(u32::MAX)),
        allow_negative_numbers = true
    )]
    pub(crate) limit: Option<u32>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// List the resources on which entities have limits.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter entity list-resources
  zae-limiter entity list-resources --name prod"
)]
pub(crate) struct ListResources {
    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Set the limits of an entity on a resource.
///
/// Replaces all limits of the entity on the resource. Limits that are not given are deleted. If an entity has
/// limits, those of other levels do not apply to it.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests and tokens a minute on gpt-4
  zae-limiter entity set-limits user-premium -r gpt-4 -l tpm:100000 -l rpm:1000

  # Tokens an hour on claude-3
  zae-limiter entity set-limits api-key-123 -r claude-3 -l tph:50000/hour

  # 10,000 a day, whole again at midnight in Berlin, and 50 in five hours from the first
  zae-limiter entity set-limits user-premium -r gpt-4 --quota rpd:10000/day --tz Europe/Berlin --session messages:50/5hour"
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Show an entity with its name, parent and metadata.
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

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// The resource that an entity's limits are for.
#[derive(Debug, Clone, Args)]
pub(crate) struct OnResource {
    /// Resource of the limits; `_default_` stands for every resource for which the entity has no limits
    #[arg(short, long, default_value = DEFAULT_RESOURCE)]
    pub(crate) resource: String,
}
