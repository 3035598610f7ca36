//! `acquire` and `available`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::values::{parse_amount, parse_duration, parse_positive_duration};
use super::{Amount, Format, Namespaced, OnUnavailable};

/// Take an entity's tokens, and run a command with them.
///
/// Takes all the amounts or none. If the entity cascades, its parent pays the same amounts.
///
/// If there are too few tokens, nothing is taken, the time until there will be enough is told, and the
/// exit code is 75. With --wait they are waited for, unless it would take longer than that.
///
/// With a command after '--', the command runs once the tokens are taken. If it fails, they are given
/// back. The exit code is then the command's own.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # One request of 500 tokens
  zae-limiter acquire user-123 --resource gpt-4 --consume rpm:1 --consume tpm:500

  # Wait up to half a minute for them, then run a command
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 --wait 30s -- ./ask-model \"Why?\"

  # Do not let an outage of the table get in the way
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 --on-unavailable allow --timeout 500ms"
)]
pub(crate) struct Acquire {
    /// Entity that pays
    pub(crate) entity_id: String,

    /// Command to run with the tokens, and its arguments
    #[arg(last = true)]
    pub(crate) command: Vec<OsString>,

    /// Resource the tokens are for
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Tokens to take of one limit, such as rpm:1; repeat it for more limits
    ///
    /// 0 takes nothing, but is refused while the limit is in debt.
    #[arg(short, long, required = true, value_name = "LIMIT:AMOUNT", value_parser = parse_amount)]
    pub(crate) consume: Vec<Amount>,

    /// Wait this long at most for tokens, such as 30s or 500ms, before being refused
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,

    /// What to do if the table cannot be used [default: what is stored for the limits]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) on_unavailable: Option<OnUnavailable>,

    /// Take the table for unusable if it has not answered after this long, such as 500ms or 2s
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
    pub(crate) timeout: Option<Duration>,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// Show how many tokens an entity has now, taking none.
///
/// With --consume also tells how long it will be until these amounts can be taken.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter available user-123 --resource gpt-4
  zae-limiter available user-123 -r gpt-4 -c rpm:1 -c tpm:20_000"
)]
pub(crate) struct Available {
    /// Entity to look at
    pub(crate) entity_id: String,

    /// Resource to look at
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Tokens of one limit that are wanted, such as rpm:1; repeat it for more limits
    #[arg(short, long, value_name = "LIMIT:AMOUNT", value_parser = parse_amount)]
    pub(crate) consume: Vec<Amount>,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}
