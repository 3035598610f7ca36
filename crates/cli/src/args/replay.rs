//! `replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use zae_limiter_replay::trace::{Format as TraceFormat, StatusRange};

use super::limits::readable_or_standard_input;
use super::values::{parse_duration, parse_positive_duration, whole};
use super::{Assignment, Format};

/// Replay recorded traffic against the limits of a manifest.
///
/// Shows which requests the limits would have refused, when, and by which limit. The requests are made on a table in memory, at
/// the times of the recording. No table in AWS is read or written, and no credentials are needed.
///
/// TRACE is a CSV file with a column for the time and columns named after limits, an access log in the Common or Combined Log
/// Format, a log that --pattern describes, or what 'usage list --output json' prints. '-' reads standard input.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Requests with the columns timestamp, entity, resource, rpm and tpm
  zae-limiter replay --manifest limits.yaml requests.csv

  # A public Azure LLM trace, as one key
  zae-limiter replay --manifest limits.yaml --entity key-1 --resource gpt-4 AzureLLMInferenceTrace_code.csv

  # What other limits would change
  zae-limiter replay --manifest limits.yaml --compare new-limits.yaml requests.csv --html replay.html

  # An access log, without the requests that were refused at the time
  zae-limiter replay --manifest limits.yaml --resource api --skip-status 429 access.log

  # An export of usage, made with 'usage list --window hourly --limit 10000 --output json'
  zae-limiter replay --manifest limits.yaml usage.json"
)]
pub(crate) struct Replay {
    /// The trace; '-' reads standard input
    #[arg(value_parser = PathBufValueParser::new().try_map(readable_or_standard_input))]
    pub(crate) trace: PathBuf,

    /// YAML file that declares the limits; '-' reads standard input
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().try_map(readable_or_standard_input)
    )]
    pub(crate) manifest: PathBuf,

    /// Replay against the limits of this file as well, and show the difference
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().try_map(readable_or_standard_input)
    )]
    pub(crate) compare: Option<PathBuf>,

    /// What callers do when they are refused
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = OnRefusal::Drop)]
    pub(crate) on_refusal: OnRefusal,

    /// With '--on-refusal retry', how often a request tries again at most [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = whole::<u32>(1..=1000), allow_negative_numbers = true)]
    pub(crate) retries: Option<u32>,

    /// Seed of the random choices; two replays with one seed print the same
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Length of the parts of charts, such as 1m [default: as the trace is long]
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub(crate) every: Option<Duration>,

    /// Rows of each table, the largest first; JSON has all
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = whole::<u32>(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) top: u32,

    /// Write the report to this file as well, as a page that needs no other file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// What the trace has.
    #[command(flatten)]
    pub(crate) mapping: Mapping,
}

/// What the trace has, and what it lacks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Trace")]
pub(crate) struct Mapping {
    /// Format of the trace [default: as its content says]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,

    /// Regular expression for each line of a log, with named groups
    ///
    /// The names of groups are those of columns: time, entity, resource, method, status, limits.
    #[arg(long, value_name = "REGEX", verbatim_doc_comment)]
    pub(crate) pattern: Option<String>,

    /// Name the column or group of ROLE; can be repeated
    ///
    /// ROLE is time, entity, resource, parent, `duration_ms`, failed, status, method, tokens, or the name of a limit. With the
    /// ending `_estimate`, it is what a request takes on arrival, which is corrected at its end.
    #[arg(long = "column", value_name = "ROLE=NAME", verbatim_doc_comment)]
    pub(crate) columns: Vec<Assignment>,

    /// Entity of requests that have none in the trace
    #[arg(short, long, value_name = "ENTITY")]
    pub(crate) entity: Option<String>,

    /// Resource of requests that have none in the trace [default: the one that the manifests name, if it is only one]
    #[arg(short, long, value_name = "RESOURCE")]
    pub(crate) resource: Option<String>,

    /// Entity above the entities of requests that have none in the trace
    #[arg(long, value_name = "ENTITY")]
    pub(crate) parent: Option<String>,

    /// Limit of which each request takes one [default: rpm, if it is declared]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) requests_limit: Option<String>,

    /// Limit of which requests take their tokens [default: tpm, if it is declared]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) tokens_limit: Option<String>,

    /// In an Azure trace, take so many tokens for an answer on arrival, and correct them at its end [default: as it has]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<u64>(0..=1_000_000_000), allow_negative_numbers = true)]
    pub(crate) answer_estimate: Option<u64>,

    /// In an Azure trace, how long an answer lasts for each of its tokens
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = whole::<u64>(0..=60_000), allow_negative_numbers = true)]
    pub(crate) ms_per_token: u64,

    /// Time zone of times without an offset, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(crate) tz: String,

    /// How much earlier than a row before it a row can be, such as 10m
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    pub(crate) disorder: Duration,

    /// Leave out rows that cannot be used, and count them
    #[arg(long)]
    pub(crate) skip_bad: bool,

    /// Leave out rows with this status, such as 429 or 5xx; can be repeated
    #[arg(long = "skip-status", value_name = "STATUS", value_parser = |text: &str| text.parse::<StatusRange>())]
    pub(crate) skip_statuses: Vec<StatusRange>,

    /// Leave out rows with another method; can be repeated
    #[arg(long = "method", value_name = "METHOD")]
    pub(crate) methods: Vec<String>,
}

/// The format of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// CSV with the names of its columns
    Csv,
    /// Common or Combined Log Format
    Log,
    /// What 'usage list --output json' prints
    Usage,
}

impl From<FormatName> for TraceFormat {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Csv => Self::Csv,
            FormatName::Log => Self::Log,
            FormatName::Usage => Self::Usage,
        }
    }
}

/// What a caller does when it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnRefusal {
    /// Give up
    Drop,
    /// Try again after the wait of the refusal
    Retry,
}
