//! Arguments of the commands of `resource` and `entity` that say who is refused, who is let through, and whose parent is debited.

use clap::{Args, ValueEnum};

use super::{Common, DEFAULT_RESOURCE, Namespaced};

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
