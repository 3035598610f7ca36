//! The command line: commands, options, and what counts as a well-formed value.
//!
//! Doc comments on commands and options are the help texts. Shared options are groups that commands flatten.
//! What only the table or the library can judge, such as names and limits, is not judged here.

pub(crate) mod access;
pub(crate) mod acquire;
pub(crate) mod audit;
pub(crate) mod concurrency;
pub(crate) mod entity;
pub(crate) mod limits;
pub(crate) mod loadtest;
pub(crate) mod local;
pub(crate) mod namespace;
pub(crate) mod operations;
pub(crate) mod replay;
pub(crate) mod resource;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod stack;
pub(crate) mod system;
pub(crate) mod table;
pub(crate) mod usage;
mod values;

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use values::{Amount, Assignment};

/// The program's name.
pub(crate) const PROGRAM: &str = "zae-limiter";

/// The resource under which an entity's limits for all resources are kept.
pub(crate) const DEFAULT_RESOURCE: &str = "_default_";

/// Manage rate limits in a DynamoDB table: set limits, show usage, take tokens.
///
/// Limits are token buckets. They are stored at four levels: entity and resource, entity, resource, and system.
/// Only the first level that defines limits applies.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    bin_name = PROGRAM,
    // What `--version` prints before the number.
    display_name = "zae-limiter, version",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    verbatim_doc_comment,
    after_help = "\
Examples:
  # A stack in AWS
  zae-limiter deploy --name my-app --region us-east-1

  # A table in a directory of this machine
  zae-limiter deploy --endpoint-url embedded:./limits

  # Default limits, and higher ones for one user
  zae-limiter system set-defaults -l rpm:100 -l tpm:10000
  zae-limiter entity set-limits user-premium -r gpt-4 -l rpm:1000

  # Take one request and 500 tokens
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 -c tpm:500

Exit codes:
  0   success, or nothing to do
  1   an unknown name, a bad file, an incompatible table
  2   a wrong command line, or a value in it that cannot be used
  3   AWS or the endpoint failed or refused: credentials, permissions, throttling
  4   the stack does not exist
  75  a limit refused 'acquire': try again later
  128 plus its number: a signal, such as 130 for Ctrl-C"
)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print the version of this program
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The commands. The documentation of each type is its help text.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Acquire(acquire::Acquire),
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    Available(acquire::Available),
    CfnTemplate(stack::CfnTemplate),
    Check(table::Check),
    Completions(shell::Completions),
    Delete(stack::Delete),
    Deploy(Box<stack::Deploy>),
    #[command(subcommand)]
    Entity(entity::EntityCommand),
    LambdaExport(stack::LambdaExport),
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    List(stack::List),
    #[command(subcommand)]
    Loadtest(loadtest::LoadtestCommand),
    #[command(subcommand)]
    Local(local::LocalCommand),
    Man(shell::Man),
    #[command(subcommand)]
    Namespace(namespace::NamespaceCommand),
    RefusalSchema(acquire::RefusalSchema),
    Replay(Box<replay::Replay>),
    #[command(subcommand)]
    Resource(resource::ResourceCommand),
    Serve(Box<serve::Serve>),
    Status(stack::Status),
    #[command(subcommand)]
    System(system::SystemCommand),
    Upgrade(stack::Upgrade),
    #[command(subcommand)]
    Usage(usage::UsageCommand),
    Version(table::Version),
}

impl Cli {
    /// Reads a command line, the program's name first. An empty environment variable counts as not set.
    ///
    /// # Errors
    /// The text to print and its exit code: the requested help or version, or the error.
    pub(crate) fn read<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        Self::read_without(args, |variable| {
            std::env::var_os(variable).is_some_and(|value| value.is_empty())
        })
    }

    /// The commands as completions and manual pages show them.
    pub(crate) fn documented() -> clap::Command {
        Self::command().display_name(PROGRAM)
    }

    /// Reads a command line, leaving out the environment variables that `ignored` names.
    fn read_without<I, T>(args: I, ignored: fn(&OsStr) -> bool) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let mut parser = ignore_variables(Self::command(), ignored);
        let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        // As other programs have it: `help deploy` is `deploy --help`.
        if args.get(1).is_some_and(|word| word == "help") {
            args.remove(1);
            args.push("--help".into());
        }
        let mut matches = parser
            .try_get_matches_from_mut(args)
            .map_err(|err| with_variable(err, &parser))?;
        let cli = Self::from_arg_matches_mut(&mut matches).map_err(|err| err.format(&mut parser))?;
        let (name, amounts) = match &cli.command {
            Command::Acquire(acquire) => ("acquire", &acquire.consume),
            Command::Available(available) => ("available", &available.consume),
            _ => return Ok(cli),
        };
        let Some(amount) = repeated(amounts) else {
            return Ok(cli);
        };
        let message = format!(
            "invalid value '{amount}' for '--consume <LIMIT:AMOUNT>': the limit '{}' is given twice; \
             name each limit once",
            amount.limit
        );
        let command = match parser.find_subcommand_mut(name) {
            Some(command) => command,
            None => &mut parser,
        };
        Err(command.error(ErrorKind::ValueValidation, message))
    }
}

fn ignore_variables(command: clap::Command, ignored: fn(&OsStr) -> bool) -> clap::Command {
    command
        .mut_args(|arg| {
            if arg.get_env().is_some_and(ignored) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(|command| ignore_variables(command, ignored))
}

/// The first amount whose limit an earlier one named.
fn repeated(amounts: &[Amount]) -> Option<&Amount> {
    let named =
        |(index, amount): &(usize, &Amount)| amounts[..*index].iter().any(|a| a.limit == amount.limit);
    amounts.iter().enumerate().find(named).map(|(_, amount)| amount)
}

/// Which table.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Name of the stack, which is also the name of the table
    #[arg(short, long, env = "ZAEL_STACK", hide_env_values = true, default_value = PROGRAM)]
    pub(crate) name: String,

    /// AWS region of the table [default: from the AWS configuration]
    #[arg(long)]
    pub(crate) region: Option<String>,

    /// Endpoint of the table instead of AWS: a URL, or `embedded:PATH`
    ///
    /// An http or https URL is a server that implements DynamoDB's protocol.
    /// `embedded:PATH` is a table in the local directory PATH, without server or account.
    #[arg(long, value_name = "URL", env = ENDPOINT_VARIABLE, hide_env_values = true, verbatim_doc_comment)]
    pub(crate) endpoint_url: Option<String>,
}

/// Names the endpoint for all commands.
pub(crate) const ENDPOINT_VARIABLE: &str = "ZAEL_ENDPOINT";

/// Names the variable in an error about a value that does not come from the command line.
fn with_variable(mut err: clap::Error, command: &clap::Command) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let text = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let (Some(arg), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue))
        && let Some(name) = variable_of(&arg, command)
    {
        let source = variable(&name, &value);
        err.insert(ContextKind::InvalidArg, ContextValue::String(arg + &source));
    }
    err
}

/// The variable of the option that is shown so.
fn variable_of(shown: &str, command: &clap::Command) -> Option<String> {
    let option = shown
        .split(' ')
        .next()
        .and_then(|option| option.strip_prefix("--"))?;
    let own = command
        .get_arguments()
        .filter(|arg| arg.get_long() == Some(option));
    let own = own.filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()));
    let mut below = command
        .get_subcommands()
        .filter_map(|command| variable_of(shown, command));
    own.chain(&mut below)
        .find(|name| std::env::var_os(name).is_some())
}

/// Names the variable that a value comes from, unless the command line has the value.
pub(crate) fn variable(variable: &str, value: &str) -> String {
    let is_its = std::env::var(variable).is_ok_and(|found| found == value);
    if !is_its
        || std::env::args_os()
            .skip(1)
            .any(|arg| arg.to_string_lossy().contains(value))
    {
        return String::new();
    }
    format!(" in {variable}")
}

/// The stack, for commands without a default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Named {
    /// Name of the stack
    #[arg(short, long)]
    name: String,

    /// Where it is.
    #[command(flatten)]
    place: Place,
}

impl Named {
    /// The stack, as other commands name it.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            name: self.name.clone(),
            ..self.place.connection()
        }
    }
}

/// The region or endpoint of stacks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Place {
    /// AWS region [default: from the AWS configuration]
    #[arg(long)]
    pub(crate) region: Option<String>,

    /// URL of an endpoint for all AWS services, instead of AWS
    #[arg(long, value_name = "URL", env = ENDPOINT_VARIABLE, hide_env_values = true)]
    pub(crate) endpoint_url: Option<String>,
}

impl Place {
    /// The place, with the name that stands for none.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            name: PROGRAM.to_owned(),
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
        }
    }
}

/// The table and the namespace.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Namespaced {
    /// Which table.
    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Namespace in the table, for instance of a tenant
    #[arg(
        short = 'N',
        long,
        env = "ZAEL_NAMESPACE",
        hide_env_values = true,
        default_value = "default"
    )]
    pub(crate) namespace: String,
}

/// What almost every command takes: how results are printed, and where the command works.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common<At: Args> {
    /// How results are printed.
    #[command(flatten)]
    pub(crate) format: Format,

    /// Where.
    #[command(flatten)]
    pub(crate) at: At,
}

/// How results are printed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = None::<&str>)]
pub(crate) struct Format {
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Text and tables
    Text,
    /// One JSON document
    Json,
}

/// Which events of an operation on a stack are printed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Events {
    /// Do not print what happens to the resources
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Print every event, in place of one line for each resource
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Consent given in advance.
#[derive(Debug, Clone, Args)]
pub(crate) struct Consent {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Limits as they were written.
#[derive(Debug, Clone, Args)]
pub(crate) struct WrittenLimits {
    /// Set a limit, such as rpm:100, tph:50000/hour or tpm:10000/min:50000; can be repeated
    ///
    /// NAME is any name for the counted unit. The bucket gains RATE tokens in every PERIOD: sec, min (default),
    /// hour or day, or a multiple such as 5min. BURST is the capacity of the bucket [default: RATE].
    #[arg(
        short,
        long = "limit",
        value_name = "NAME:RATE[/PERIOD][:BURST]",
        required_unless_present_any = ["quotas", "sessions"],
        verbatim_doc_comment
    )]
    pub(crate) limits: Vec<String>,

    /// Set a quota, such as rpd:10000/day or 'rpd:10000@0 6 * * *'; can be repeated
    ///
    /// A quota is whole again at the begin of each PERIOD of the calendar: hour, day, week (Monday) or month. CRON stands
    /// for other times: minute, hour, day of month, month, day of week. Several expressions are separated by ';'.
    #[arg(long = "quota", value_name = "NAME:AMOUNT/PERIOD|@CRON", verbatim_doc_comment)]
    pub(crate) quotas: Vec<String>,

    /// Set a session limit, such as messages:50/5hour; can be repeated
    ///
    /// A session begins with the first use and ends LENGTH later: sec, min, hour or day, or a multiple such as 5hour. Then
    /// the limit is whole again.
    #[arg(long = "session", value_name = "NAME:AMOUNT/LENGTH", verbatim_doc_comment)]
    pub(crate) sessions: Vec<String>,

    /// Change a given limit by local time, such as 'rpm@* 0-6 * * *:x0.5'; can be repeated
    ///
    /// EFFECT holds in each minute that CRON matches: a factor such as x0.5 for capacity and rate, or one or more of
    /// 'capacity N', 'refill N' and 'every PERIOD'. Of several entries of a limit, the first that matches holds.
    #[arg(long = "schedule", value_name = "NAME@CRON:EFFECT", verbatim_doc_comment)]
    pub(crate) schedules: Vec<String>,

    /// Time zone of quotas and schedules, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,

    /// Let a given limit count and never refuse; can be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) soft: Vec<String>,
}

/// The decision about requests while the table cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnUnavailable {
    /// Admit them without any limit
    Allow,
    /// Refuse them
    Block,
}

#[cfg(test)]
mod tests;
