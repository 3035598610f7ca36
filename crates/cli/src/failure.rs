//! What went wrong, in this program's words, and the exit code that goes with it.

use std::borrow::Cow;
use std::io;

use zae_limiter::table::config::proxy_variable;
use zae_limiter::{Error, InvalidInput};
use zae_limiter_core::document::{Position, Problem, Problems};
use zae_limiter_core::table::{Applied, FailureKind, TableError};
use zae_limiter_infra::without_layers;

use crate::args::{Connection, variable};
use crate::exit::Exit;
use crate::text::table::printable;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Print this on standard error.
    Message {
        /// What, with its prefix.
        text: String,
        /// How to end.
        exit: Exit,
    },
    /// The reader of the output closed it.
    NobodyReads,
}

impl Failure {
    /// `Error: {text}`, ending with code 1.
    pub(crate) fn error(text: impl AsRef<str>) -> Self {
        Self::with(text, Exit::Failure)
    }

    /// `Error: {text}`, ending with the code for a wrong command line: an argument, an option or a variable in place of one
    /// has a value that cannot be used.
    pub(crate) fn usage(text: impl AsRef<str>) -> Self {
        Self::with(text, Exit::Usage)
    }

    /// `Error: {text}`.
    pub(crate) fn with(text: impl AsRef<str>, exit: Exit) -> Self {
        Self::bare(format!("Error: {}", text.as_ref()), exit)
    }

    /// The text as it is, but for what could move a terminal's cursor.
    pub(crate) fn bare(text: impl AsRef<str>, exit: Exit) -> Self {
        Self::Message {
            text: text
                .as_ref()
                .split('\n')
                .map(printable)
                .collect::<Vec<_>>()
                .join("\n"),
            exit,
        }
    }

    /// The user turned away: end of input, or Ctrl-C.
    pub(crate) fn aborted() -> Self {
        Self::bare("Aborted!", Exit::Failure)
    }
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        if err.kind() == io::ErrorKind::BrokenPipe {
            Self::NobodyReads
        } else {
            Self::error(format!("Cannot write the output: {err}"))
        }
    }
}

/// The operation and its table, for messages about a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing<'a> {
    /// The table.
    pub(crate) at: &'a Connection,
    /// Completes "Failed to"; empty where the failure speaks for itself.
    pub(crate) what: &'static str,
}

impl Doing<'_> {
    /// The failure of a call of the library.
    pub(crate) fn failed(self, err: &Error) -> Failure {
        let text = match err {
            // These tell of the command line or of what is stored, whatever was being done.
            Error::InvalidInput(err) => return Failure::usage(invalid(err)),
            Error::InfrastructureNotFound { .. } => return no_stack(self.at),
            Error::NamespaceNotFound(name) => {
                let (options, name_quoted) = (options(self.at), quoted(name));
                let rest = if name.starts_with('-') {
                    format!("{options} -- {name_quoted}")
                } else {
                    format!(" {name_quoted}{options}")
                };
                return Failure::error(format!(
                    "Namespace '{name}'{} not found. Register it with 'zae-limiter namespace register{rest}'.",
                    variable("ZAEL_NAMESPACE", name),
                ));
            }
            Error::VersionMismatch(reason) => return Failure::error(reason),
            Error::EntityExists(id) => return Failure::error(format!("Entity already exists: {id}")),
            Error::NamespaceIdNotFound(id) => {
                return Failure::error(format!("Namespace ID '{id}' not found."));
            }
            Error::NamespaceState { namespace, state, .. } => {
                return Failure::error(wrong_state(namespace, state));
            }
            Error::NotConfigured { entity, resource } => format!(
                "no limits are configured for entity '{entity}' and resource '{resource}' at any level. Set some with \
                 'zae-limiter entity set-limits', 'resource set-defaults' or 'system set-defaults'."
            ),
            Error::PermissionDenied { source, .. } => permission(source) + doubt(err.in_doubt()),
            Error::Unavailable(_) => outage(err, self.at),
            other => with_causes(other),
        };
        let text = match self.what {
            "" => text,
            what => format!("Failed to {what}: {text}"),
        };
        Failure::with(text, exit_of(err))
    }
}

/// `✗ {what}: {why}`, in place of `Error: {why}`.
pub(crate) fn marked(failure: Failure, what: &str) -> Failure {
    match failure {
        Failure::Message { text, exit } => {
            let why = text.strip_prefix("Error: ").unwrap_or(&text);
            Failure::bare(format!("✗ {what}: {why}"), exit)
        }
        Failure::NobodyReads => Failure::NobodyReads,
    }
}

/// How many problems of a file are printed; more would hide the first.
const MOST_PROBLEMS: usize = 100;

/// All that is wrong with a file.
pub(crate) fn of_file(file: &str, problems: &Problems) -> Failure {
    let told = problems.iter().take(MOST_PROBLEMS);
    let mut lines: Vec<String> = told.map(|problem| line_of(file, problem)).collect();
    if problems.len() > MOST_PROBLEMS {
        lines.push(format!(
            "Error: {file}: and {} more",
            problems.len() - MOST_PROBLEMS
        ));
    }
    Failure::bare(lines.join("\n"), Exit::Failure)
}

/// A problem in the format of compilers, so that editors can jump to it.
fn line_of(file: &str, problem: &Problem) -> String {
    let place = match problem.at {
        Some(Position { line, column }) => format!("{file}:{line}:{column}"),
        None => file.to_owned(),
    };
    let what = Problem {
        at: None,
        ..problem.clone()
    };
    format!("Error: {place}: {what}")
}

/// The failure of something done to a stack.
pub(crate) fn of_stack(err: &zae_limiter_infra::Error, at: &Connection) -> Failure {
    use zae_limiter_infra::{AwsFailure, Error as Infra};
    let text = match (err, &at.endpoint_url) {
        (Infra::InvalidInput(err), _) => invalid(err),
        (Infra::NotFound { .. }, _) => return no_stack(at),
        (
            Infra::Aws {
                kind: AwsFailure::Unreachable,
                message,
                ..
            },
            Some(url),
        ) => {
            format!(
                "Could not connect to the endpoint URL: \"{url}\" ({message}){}",
                proxy()
            )
        }
        _ => err.to_string(),
    };
    let exit = match err {
        Infra::Aws { .. } | Infra::Operation { .. } => Exit::Aws,
        Infra::InvalidInput(_) => Exit::Usage,
        _ => Exit::Failure,
    };
    Failure::with(text, exit)
}

/// The exit code of a failed call.
fn exit_of(err: &Error) -> Exit {
    match err {
        Error::PermissionDenied { .. } | Error::Unavailable(_) | Error::FanoutIncomplete { .. } => Exit::Aws,
        Error::InfrastructureNotFound { .. } => Exit::NoStack,
        _ => Exit::Failure,
    }
}

/// Input that was refused.
pub(crate) fn invalid(err: &InvalidInput) -> String {
    format!(
        "Invalid {} '{}': {}",
        err.field(),
        printable(err.value()),
        err.reason()
    )
}

/// There is no table: says how to get one.
pub(crate) fn no_stack(at: &Connection) -> Failure {
    let place = match (&at.endpoint_url, &at.region) {
        (Some(url), _) => url,
        (None, Some(region)) => region,
        (None, None) => "the configured region",
    };
    Failure::with(
        format!(
            "Stack '{0}' not found in {place}. Deploy it with 'zae-limiter deploy -n {0}{1}'.",
            at.name,
            place_options(at)
        ),
        Exit::NoStack,
    )
}

/// The options that lead to the same table, as they follow a command.
pub(crate) fn options(at: &Connection) -> String {
    let name = match &*at.name {
        crate::args::PROGRAM => String::new(),
        name => format!(" -n {name}"),
    };
    name + &place_options(at)
}

/// A word as it is written in a shell.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@,+=%".contains(&b);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

/// The options that lead to the same place, as they follow a command.
pub(crate) fn place_options(at: &Connection) -> String {
    let option = |name, value: &Option<String>| {
        value
            .as_ref()
            .map(|value| format!(" {name} {}", quoted(value)))
            .unwrap_or_default()
    };
    option("--region", &at.region) + &option("--endpoint-url", &at.endpoint_url)
}

fn wrong_state(name: &str, state: &str) -> String {
    match state {
        "purging" => format!("Cannot recover namespace '{name}' — purge is in progress and is terminal"),
        "re-registered" => {
            format!("Cannot recover namespace '{name}' — the name has been re-registered by another caller")
        }
        "active" => format!("Namespace '{name}' is already active (not deleted)"),
        other => format!("Namespace '{name}' is {other}"),
    }
}

fn table_error(err: &Error) -> Option<&TableError> {
    std::error::Error::source(err)?.downcast_ref()
}

/// Why the table cannot be used.
pub(crate) fn outage(err: &Error, at: &Connection) -> String {
    match table_error(err) {
        // What was heard last may be a failure before the write that is in doubt.
        Some(source) if !err.in_doubt() || source.applied == Applied::Unknown => {
            unavailable(source, at) + doubt(err.in_doubt())
        }
        _ => err.to_string(),
    }
}

/// The failure of a request to the table.
pub(crate) fn table_failure(err: &TableError, at: &Connection) -> Failure {
    let text = match err.kind {
        FailureKind::AccessDenied => permission(err),
        _ => unavailable(err, at),
    };
    Failure::with(text + doubt(err.applied == Applied::Unknown), Exit::Aws)
}

/// Missing credentials are reported as a denial, although no request was sent.
fn permission(err: &TableError) -> String {
    if err.message.contains("no credentials found in chain") {
        return "Unable to locate credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                or log in."
            .to_owned();
    }
    if err.message.contains("credential") {
        return format!("Unable to load credentials: {}", without_layers(&err.message));
    }
    err.message.clone()
}

fn unavailable(err: &TableError, at: &Connection) -> String {
    match err.kind {
        FailureKind::BadRequest if err.message.contains("the region is missing") => {
            "You must specify a region. Use --region, AWS_REGION, or a profile that has one.".to_owned()
        }
        FailureKind::Unreachable if err.message.starts_with("credentials") => {
            format!("Unable to load credentials: {}", err.message)
        }
        FailureKind::Unreachable => {
            let cause = without_layers(&err.message);
            match &at.endpoint_url {
                _ if broke(err) => {
                    format!(
                        "The connection to {} ended before the answer came ({cause})",
                        place(at)
                    )
                }
                Some(url) => format!(
                    "Could not connect to the endpoint URL: \"{url}\" ({cause}){}",
                    proxy()
                ),
                None => format!("Could not connect to {} ({cause}){}", place(at), proxy()),
            }
        }
        _ => err.to_string(),
    }
}

/// Names the variable of a proxy, through which requests to other machines go.
fn proxy() -> String {
    match proxy_variable() {
        Some(name) => {
            format!(". {name} names a proxy, which is used for other machines unless NO_PROXY lists them")
        }
        None => String::new(),
    }
}

/// Where requests go.
fn place(at: &Connection) -> String {
    if let Some(url) = &at.endpoint_url {
        return format!("the endpoint URL \"{url}\"");
    }
    let variables = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let of_variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let region = at
        .region
        .clone()
        .or_else(|| variables.into_iter().find_map(of_variable));
    match (crate::connect::endpoint(at), region) {
        (Some(url), _) => format!("the endpoint \"{url}\" of AWS_ENDPOINT_URL"),
        (None, Some(region)) => format!("DynamoDB in the region '{region}'"),
        (None, None) => "DynamoDB".to_owned(),
    }
}

/// Whether a connection that was there ended before an answer came. For a read, only the message of the HTTP client
/// shows this.
fn broke(err: &TableError) -> bool {
    err.applied == Applied::Unknown
        || err.message.contains("(SendRequest)")
        || err.message.starts_with("the connection ended")
}

/// The end of a message about an outcome in doubt.
fn doubt(is_in_doubt: bool) -> &'static str {
    if is_in_doubt {
        "; the write may have happened"
    } else {
        ""
    }
}

/// An error with its causes, each once, on one line.
fn with_causes(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let more = err.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = err.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_command_can_be_pasted() {
        for (word, shown) in [
            ("limits", "limits"),
            ("embedded:./limits", "embedded:./limits"),
            ("http://localhost:4566", "http://localhost:4566"),
            ("a b", "'a b'"),
            ("$HOME", "'$HOME'"),
            ("*", "'*'"),
            ("", "''"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }
}
