//! `acquire` and `available`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::values::{
    Further, parse_amount, parse_duration, parse_further, parse_place_ttl, parse_positive_duration, whole,
};
use super::{Amount, Common, Namespaced, OnUnavailable};

/// Take tokens of an entity, and optionally run a command.
///
/// Takes all amounts or none, of all resources. If the entity cascades, the same amounts are taken from its parent, and from
/// entities above that up to the cascade depth.
///
/// If there are too few tokens, nothing is taken, the wait until there are enough is printed, and the exit code
/// is 75. With --wait, the command waits for the tokens, unless that would take longer than the given time.
///
/// If a command follows '--', it runs once the tokens are taken. If it fails, the tokens are given back. The exit
/// code is that of the command.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # One request of 500 tokens
  zae-limiter acquire user-123 --resource gpt-4 --consume rpm:1 --consume tpm:500

  # The same, and 5 of another resource: all of it or nothing
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 -c tpm:500 --also budget=cents:5

  # Wait up to 30 seconds for the tokens, then run a command
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 --wait 30s -- ./ask-model \"Why?\"

  # At most three exports of a tenant at the same time, without tokens
  zae-limiter acquire tenant-1 -r export --in-flight-at-most 3 --wait 10m -- ./export

  # Admit requests during an outage of the table
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 --on-unavailable allow --timeout 500ms"
)]
pub(crate) struct Acquire {
    /// Entity whose tokens to take
    pub(crate) entity_id: String,

    /// Command to run, and its arguments
    #[arg(last = true)]
    pub(crate) command: Vec<OsString>,

    /// Resource that is used
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Take tokens of a limit, such as rpm:1; can be repeated
    ///
    /// An amount of 0 takes nothing, but is refused while the limit is in debt.
    #[arg(
        short,
        long,
        required_unless_present_any = ["in_flight", "in_flight_at_most"],
        value_name = "LIMIT:AMOUNT",
        value_parser = parse_amount
    )]
    pub(crate) consume: Vec<Amount>,

    /// Hold a place in flight while the command runs: at most as many as the concurrency limit of the entity says
    ///
    /// If this process crashes, the place is free after its time to live and 5 seconds. Needs a command.
    #[arg(long, group = "place", requires = "command")]
    pub(crate) in_flight: bool,

    /// The same with a concurrency limit of the call, from 1 to 1000, instead of the stored one
    #[arg(
        long,
        group = "place",
        requires = "command",
        value_name = "COUNT",
        value_parser = whole::<u32>(1..=1000),
        allow_negative_numbers = true
    )]
    pub(crate) in_flight_at_most: Option<u32>,

    /// Time to live of the place, from 5s to 1h [default: 60s]
    #[arg(long, requires = "place", value_name = "DURATION", value_parser = parse_place_ttl)]
    pub(crate) in_flight_ttl: Option<Duration>,

    /// Take tokens of a limit of another resource as well, such as budget=usd:5; can be repeated
    ///
    /// Up to 16 resources. If one of them refuses, nothing is taken of any.
    #[arg(long, value_name = "RESOURCE=LIMIT:AMOUNT", value_parser = parse_further)]
    pub(crate) also: Vec<Further>,

    /// Wait for tokens up to this time, such as 30s or 500ms [default: do not wait]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,

    /// Policy if the table cannot be used [default: the stored policy of the system]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) on_unavailable: Option<OnUnavailable>,

    /// Fail the call if the table has not answered within this time, such as 500ms or 2s
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}

/// Print the JSON Schema of refusals.
///
/// It describes what a refused 'acquire --output json' prints, which is also the body of the library's HTTP answers.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter refusal-schema > refusal.schema.json"
)]
pub(crate) struct RefusalSchema {}

/// Show the available tokens of an entity.
///
/// Takes no tokens. With --consume, also shows the time until these amounts are available.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter available user-123 --resource gpt-4
  zae-limiter available user-123 -r gpt-4 -c rpm:1 -c tpm:20_000"
)]
pub(crate) struct Available {
    /// Entity to show
    pub(crate) entity_id: String,

    /// Resource to show
    #[arg(short, long)]
    pub(crate) resource: String,

    /// Show the wait for tokens of a limit, such as rpm:1; can be repeated
    #[arg(short, long, value_name = "LIMIT:AMOUNT", value_parser = parse_amount)]
    pub(crate) consume: Vec<Amount>,

    /// Show the places in flight, too
    #[arg(long)]
    pub(crate) in_flight: bool,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Namespaced>,
}
