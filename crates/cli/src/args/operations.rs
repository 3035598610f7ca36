//! Arguments of `entity reset` and `entity top-up`.

use clap::Args;

use super::values::{Amount, parse_amount};
use super::{Common, Namespaced};

/// The name of an operation.
#[derive(Debug, Clone, Args)]
pub(crate) struct Keyed {
    /// Name this operation (1 to 64 letters, digits, '.', '_', ':' and '-'), so that it happens once
    ///
    /// The same command with the same key, within three days, does nothing and prints what the first one did. Without a key,
    /// an error can leave the outcome unknown, and running the command again can repeat the operation.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// An entity whose limits are reset.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reset {
    /// Entity, such as user-123
    pub(crate) entity_id: String,

    /// Resource whose limits to reset
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Limit to reset; can be repeated [default: all limits]
    #[arg(short, long, value_name = "LIMIT")]
    pub(crate) limit: Vec<String>,

    /// Its name.
    #[command(flatten)]
    pub(crate) keyed: Keyed,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// An entity whose limits get more tokens.
#[derive(Debug, Clone, Args)]
pub(crate) struct TopUp {
    /// Entity, such as user-123
    pub(crate) entity_id: String,

    /// Resource of the limits
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Tokens to add to a limit, such as rpd:5000; can be repeated
    #[arg(short, long, required = true, value_name = "LIMIT:AMOUNT", value_parser = parse_amount)]
    pub(crate) add: Vec<Amount>,

    /// Its name.
    #[command(flatten)]
    pub(crate) keyed: Keyed,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
