//! The command line: commands, options, and what counts as a well-formed value.
//!
//! Doc comments on commands and options are the help texts. Shared options are groups that commands flatten.
//! What only the table or the library can judge, such as names and limits, is not judged here.

pub(crate) mod acquire;
pub(crate) mod audit;
pub(crate) mod entity;
pub(crate) mod limits;
pub(crate) mod local;
pub(crate) mod namespace;
pub(crate) mod resource;
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

/// Rate limits in a DynamoDB table: set them, look at them, take tokens.
///
/// Limits are token buckets, kept at four levels: for an entity on one resource, for an entity on all
/// resources, for a resource, and for everything. The first level that defines any answers as a whole.
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

  # Limits for everybody, and more for one user
  zae-limiter system set-defaults -l rpm:100 -l tpm:10000
  zae-limiter entity set-limits user-premium -r gpt-4 -l rpm:1000

  # Take one request and 500 tokens
  zae-limiter acquire user-123 -r gpt-4 -c rpm:1 -c tpm:500

Exit codes:
  0   done, or nothing to do
  1   failed: a bad value, something that is not there, a table that does not fit
  2   the command line is wrong
  3   AWS, or the server in its place, failed or refused: credentials, permissions, throttling
  4   there is no such stack
  75  'acquire' was refused by a limit: try again later"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print the version of this program
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The commands. What help says of each is the documentation of its type.
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
    Local(local::LocalCommand),
    Man(shell::Man),
    #[command(subcommand)]
    Namespace(namespace::NamespaceCommand),
    #[command(subcommand)]
    Resource(resource::ResourceCommand),
    Status(stack::Status),
    #[command(subcommand)]
    System(system::SystemCommand),
    Upgrade(stack::Upgrade),
    #[command(subcommand)]
    Usage(usage::UsageCommand),
    Version(table::Version),
}

impl Cli {
    /// Reads a command line, the program's name first. An environment variable that is empty is none.
    ///
    /// # Errors
    /// What to print instead, and its exit code: the help or version that was asked for, or what is wrong.
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
        let mut matches = parser.try_get_matches_from_mut(args)?;
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
    /// Stack to work on; its table has the same name
    #[arg(short, long, env = "ZAEL_STACK", hide_env_values = true, default_value = PROGRAM)]
    pub(crate) name: String,

    /// AWS region of the table [default: what AWS's own settings say]
    #[arg(long)]
    pub(crate) region: Option<String>,

    /// Where the table is served, if not by AWS: a URL, or `embedded:PATH`
    ///
    /// An http or https URL is any server that speaks DynamoDB's protocol.
    /// `embedded:PATH` is a table kept in the directory PATH of this machine, without server or account.
    #[arg(long, value_name = "URL", verbatim_doc_comment)]
    pub(crate) endpoint_url: Option<String>,
}

/// Which stack, where none is meant unless it is named.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Named {
    /// Stack to work on
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

/// Where stacks are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Place {
    /// AWS region [default: what AWS's own settings say]
    #[arg(long)]
    pub(crate) region: Option<String>,

    /// Where AWS's services are served, if not by AWS: a URL
    #[arg(long, value_name = "URL")]
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

/// Which table, and which tenant's part of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Namespaced {
    /// Which table.
    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Namespace to work in: one tenant's part of the table
    #[arg(
        short = 'N',
        long,
        env = "ZAEL_NAMESPACE",
        hide_env_values = true,
        default_value = "default"
    )]
    pub(crate) namespace: String,
}

/// How results are printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Format {
    /// Form in which results are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// A form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Lines and tables to be read by people
    Text,
    /// JSON to be read by programs
    Json,
}

/// Consent given in advance.
#[derive(Debug, Clone, Args)]
pub(crate) struct Consent {
    /// Do it without asking first
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Limits as they were written.
#[derive(Debug, Clone, Args)]
pub(crate) struct WrittenLimits {
    /// A limit, such as rpm:100, tph:50000/hour or tpm:10000/min:50000; repeat it for more
    ///
    /// NAME is your own word for what is counted. RATE tokens are gained in every PERIOD: sec, min
    /// (if you name none), hour or day, or several of them, such as 5min. BURST is the most that can be
    /// saved up, if that is not one RATE.
    #[arg(
        short,
        long = "limit",
        value_name = "NAME:RATE[/PERIOD][:BURST]",
        required = true,
        verbatim_doc_comment
    )]
    pub(crate) limits: Vec<String>,
}

/// What becomes of requests while the table cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnUnavailable {
    /// Let them pass without any limit
    Allow,
    /// Refuse them
    Block,
}

#[cfg(test)]
mod tests;
