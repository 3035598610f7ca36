//! Arguments of the commands about concurrency limits and places in flight.

use clap::Args;

use super::values::whole;
use super::{Common, Consent, DEFAULT_RESOURCE, Namespaced};

/// How many requests may be in flight.
#[derive(Debug, Clone, Args)]
pub(crate) struct Most {
    /// How many requests may be in flight at the same time, from 1 to 1000
    #[arg(value_parser = whole::<u32>(1..=1000), allow_negative_numbers = true)]
    pub(crate) limit: u32,
}

/// Set how many requests of an entity may be in flight.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetOfEntity {
    /// Entity to limit, such as user-123
    pub(crate) entity_id: String,

    /// How many.
    #[command(flatten)]
    pub(crate) most: Most,

    /// Resource; `_default_` stands for every resource for which the entity has no concurrency limit
    #[arg(short, long, default_value = DEFAULT_RESOURCE)]
    pub(crate) resource: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Delete the concurrency limit of an entity.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteOfEntity {
    /// Entity whose concurrency limit to delete
    pub(crate) entity_id: String,

    /// Resource; `_default_` stands for every resource for which the entity has no concurrency limit
    #[arg(short, long, default_value = DEFAULT_RESOURCE)]
    pub(crate) resource: String,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Set how many requests of each entity may be in flight on a resource.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetOfResource {
    /// Resource to limit, such as gpt-4
    pub(crate) resource_name: String,

    /// How many.
    #[command(flatten)]
    pub(crate) most: Most,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Delete the concurrency limit of a resource.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteOfResource {
    /// Resource whose concurrency limit to delete
    pub(crate) resource_name: String,

    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Set how many requests of each entity may be in flight on each resource.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetOfSystem {
    /// How many.
    #[command(flatten)]
    pub(crate) most: Most,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Delete the concurrency limit of the system.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteOfSystem {
    /// Whether to ask.
    #[command(flatten)]
    pub(crate) consent: Consent,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Show the requests of an entity that are in flight on a resource.
#[derive(Debug, Clone, Args)]
pub(crate) struct InFlight {
    /// Entity to show
    pub(crate) entity_id: String,

    /// Resource to show
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
