//! From options to a table. Nothing here creates one.

use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use zae_limiter::clock::ClockOffset;
use zae_limiter::table::config::check_endpoint;
use zae_limiter::table::embedded::{DATA_FILE, OpenError};
use zae_limiter::table::{DynamoClient, Timeouts};
use zae_limiter::{EntityId, Error, Repository, RepositoryBuilder, Stack};
use zae_limiter_infra::StackManager;

use crate::args::{Connection, ENDPOINT_VARIABLE, Namespaced, variable};
use crate::failure::{Doing, Failure, invalid, no_stack};
use crate::names;
use crate::text::table::printable;

/// The access of a command to a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads; a namespace that is not registered is not found.
    Read,
    /// It writes; a namespace that is not registered is.
    Write,
}

/// The prefix of an endpoint that is a local directory.
const EMBEDDED: &str = "embedded:";

/// How long to wait for another process that uses the same directory.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a command waits for an answer to a request. It has no other way out than to fail, and after a write it could not
/// say whether the write happened; a service that decides within milliseconds waits for less.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    attempt: Duration::from_secs(10),
    operation: Duration::from_secs(10),
};

/// The directory that an endpoint names, if it is one.
pub(crate) fn embedded(at: &Connection) -> Option<PathBuf> {
    at.endpoint_url
        .as_deref()?
        .strip_prefix(EMBEDDED)
        .map(PathBuf::from)
}

/// Refuses what was not meant as a directory.
pub(crate) fn check_directory(path: &Path) -> Result<(), Failure> {
    let why = if path.as_os_str().is_empty() {
        "must be followed by a directory"
    } else if path.starts_with("~") {
        "must be followed by a directory, and '~' is one only at the start of a word of the shell; write it in full"
    } else if path.as_os_str().as_encoded_bytes().starts_with(b"//") {
        "is followed by the path itself, and not by '//' as in a URL"
    } else if path.exists() && !path.is_dir() {
        "must be followed by a directory, and this is a file"
    } else {
        return Ok(());
    };
    Err(Failure::usage(format!(
        "Invalid endpoint '{EMBEDDED}{}': {EMBEDDED} {why}, as in {EMBEDDED}./limits",
        path.display()
    )))
}

/// The builder of whatever the options lead to.
pub(crate) fn builder(at: &Connection) -> Result<RepositoryBuilder, Failure> {
    names::stack(&at.name)?;
    let mut builder = Repository::builder().stack(&at.name);
    if let Some(path) = embedded(at) {
        check_directory(&path)?;
        // Requests to a directory are not signed, so the principal is the system's user.
        let user = user();
        if EntityId::new(&user).is_ok() {
            builder = builder.principal(user);
        }
        return Ok(builder.embedded(path));
    }
    check_place(at)?;
    if let Some(url) = &at.endpoint_url {
        builder = builder.endpoint_url(url);
    }
    if let Some(region) = &at.region {
        builder = builder.region(region);
    }
    Ok(builder)
}

/// The name of the user that this process runs as.
#[cfg(unix)]
fn user() -> String {
    use nix::unistd::{User, geteuid};
    // The environment is not asked: a job of cron has no `USER`, and a caller could claim to be another.
    let found = User::from_uid(geteuid()).ok().flatten();
    found.map_or_else(|| format!("uid-{}", geteuid()), |user| user.name)
}

/// The name of the user that this process runs as.
#[cfg(not(unix))]
fn user() -> String {
    std::env::var("USERNAME").unwrap_or_default()
}

/// Refuses an invalid address of a server, or an invalid region.
fn check_place(at: &Connection) -> Result<(), Failure> {
    if let Some(url) = &at.endpoint_url {
        check_endpoint(url).map_err(|err| {
            Failure::usage(format!(
                "Invalid --endpoint-url '{}'{}: {}. Give a URL such as http://localhost:4566, or {EMBEDDED}PATH.",
                printable(err.value()),
                variable(ENDPOINT_VARIABLE, url),
                err.reason()
            ))
        })?;
    }
    let is_bad =
        |region: &str| region.is_empty() || !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match &at.region {
        Some(region) if is_bad(region) => Err(Failure::usage(format!(
            "Invalid region: '{}'. Regions look like us-east-1.",
            printable(region)
        ))),
        _ => Ok(()),
    }
}

/// How to reach AWS, or the server in its place.
pub(crate) fn connection(at: &Connection) -> Result<zae_limiter::table::Connection, Failure> {
    check_place(at)?;
    Ok(zae_limiter::table::Connection {
        region: at.region.clone(),
        endpoint_url: at.endpoint_url.clone(),
        timeouts: TIMEOUTS,
        ..zae_limiter::table::Connection::default()
    })
}

/// The manager of stacks there.
pub(crate) async fn manager(at: &Connection) -> Result<StackManager, Failure> {
    let config = connection(at)?.checked_config().await;
    let config = config.map_err(|err| Failure::usage(invalid(&err)))?;
    Ok(zae_limiter::stack_manager(&config))
}

/// The endpoint that an option or a variable names.
pub(crate) fn endpoint(at: &Connection) -> Option<String> {
    let variables = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"];
    let of_variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    at.endpoint_url
        .clone()
        .or_else(|| variables.into_iter().find_map(of_variable))
}

/// A client of DynamoDB there.
pub(crate) async fn client(at: &Connection) -> Result<DynamoClient, Failure> {
    let connection = connection(at)?;
    let config = connection.checked_config().await;
    let config = config.map_err(|err| Failure::usage(invalid(&err)))?;
    Ok(connection.client_of(&config))
}

/// Ends a command that needs a stack, where there is only a table in a directory.
pub(crate) fn needs_stack(at: &Connection, instead: &str) -> Result<(), Failure> {
    let Some(path) = embedded(at) else {
        return Ok(());
    };
    check_directory(&path)?;
    Err(Failure::error(format!(
        "The table in the directory '{}' has no stack. {instead}",
        path.display()
    )))
}

/// The table as a whole. Whether it exists shows at its first use.
pub(crate) async fn stack(at: &Connection, what: &'static str) -> Result<Stack, Failure> {
    let opened = open_stack(at, Instant::now() + PATIENCE, patient).await;
    opened.map_err(|err| err.into_failure(at, what))
}

/// [`stack`], whose requests are counted.
pub(crate) async fn measured_stack(at: &Connection, what: &'static str) -> Result<Stack, Failure> {
    let opened = open_stack(at, Instant::now() + PATIENCE, RepositoryBuilder::measure).await;
    opened.map_err(|err| err.into_failure(at, what))
}

/// The table behind HTTP that was opened, for its clock, and whether a wrong clock was reported.
static OPENED: OnceLock<(Stack, Once)> = OnceLock::new();

/// Warns once if the table's answers have told that this machine's clock is wrong.
pub(crate) fn warn_of_clock() {
    let Some((stack, once)) = OPENED.get() else {
        return;
    };
    if let Some(offset) = stack.clock_offset().filter(ClockOffset::is_wrong) {
        once.call_once(|| crate::say(&format!("Warning: {offset}; times are corrected")));
    }
}

fn patient(builder: RepositoryBuilder) -> RepositoryBuilder {
    builder.timeouts(TIMEOUTS)
}

async fn open_stack(
    at: &Connection,
    until: Instant,
    options: impl Fn(RepositoryBuilder) -> RepositoryBuilder,
) -> Result<Stack, Opening> {
    names::stack(&at.name)?;
    if let Some(path) = embedded(at) {
        check_directory(&path)?;
        if !exists(&path) {
            return Err(no_stack(at).into());
        }
    }
    let stack = unlocked_until(until, || async {
        let handle = options(builder(at)?).stack_handle();
        handle.await.map_err(Opening::Failed)
    })
    .await?;
    // An embedded table has no clock, and is closed only when nothing holds it.
    if embedded(at).is_none() {
        // A command opens one table.
        let _ = OPENED.set((stack.clone(), Once::new()));
    }
    Ok(stack)
}

/// A namespace of the table.
pub(crate) async fn namespace(
    at: &Namespaced,
    access: Access,
    what: &'static str,
) -> Result<Repository, Failure> {
    open_namespace(at, access, None)
        .await
        .map_err(|err| err.into_failure(&at.connection, what))
}

/// A namespace of the table for a process that decides on requests: with the library's own timeouts, and not with the patience
/// of a command.
pub(crate) async fn service(at: &Namespaced) -> Result<Repository, Failure> {
    let opened = open_namespace(at, Access::Read, Some(Instant::now() + PATIENCE)).await;
    opened.map_err(|err| err.into_failure(&at.connection, "open the table"))
}

/// A namespace of the table; the library's own error if that fails. With `until`, one that is read is opened until then
/// or not at all.
pub(crate) async fn open_namespace(
    at: &Namespaced,
    access: Access,
    until: Option<Instant>,
) -> Result<Repository, Opening> {
    names::namespace(&at.namespace)?;
    let patience = Instant::now() + PATIENCE;
    let stack = open_stack(
        &at.connection,
        until.map_or(patience, |until| until.min(patience)),
        |builder| {
            if until.is_some() {
                builder
            } else {
                patient(builder)
            }
        },
    )
    .await?;
    let opened = match (access, until) {
        (Access::Read, None) => stack.connect(&at.namespace).await,
        (Access::Read, Some(until)) => {
            let left = until.saturating_duration_since(Instant::now());
            stack.connect_within(&at.namespace, left).await
        }
        (Access::Write, _) => stack.open(&at.namespace).await,
    };
    // Before a command that is limited runs, which may take long.
    warn_of_clock();
    opened.map_err(Opening::Failed)
}

/// Whether a directory holds a table's data.
pub(crate) fn exists(directory: &Path) -> bool {
    directory.join(DATA_FILE).exists()
}

/// Why a table was not opened.
pub(crate) enum Opening {
    /// The options do not lead to one.
    Refused(Failure),
    /// It failed.
    Failed(Error),
}

impl Opening {
    /// The message about it.
    pub(crate) fn into_failure(self, at: &Connection, what: &'static str) -> Failure {
        match self {
            Self::Refused(failure) => failure,
            Self::Failed(err) => Doing { at, what }.failed(&err),
        }
    }
}

impl From<Failure> for Opening {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// Opens a table; while another process uses its directory, tries again for a while.
pub(crate) async fn unlocked<T, F>(open: impl FnMut() -> F) -> Result<T, Opening>
where
    F: Future<Output = Result<T, Opening>>,
{
    unlocked_until(Instant::now() + PATIENCE, open).await
}

/// Opens a table; while another process uses its directory, tries again until then. It does not wait longer, so that a
/// caller with a deadline learns that the directory is in use.
async fn unlocked_until<T, F>(until: Instant, mut open: impl FnMut() -> F) -> Result<T, Opening>
where
    F: Future<Output = Result<T, Opening>>,
{
    const PAUSE: Duration = Duration::from_millis(20);
    loop {
        match open().await {
            Err(Opening::Failed(err)) if is_in_use(&err) && Instant::now() + PAUSE < until => {
                tokio::time::sleep(PAUSE).await;
            }
            opened => return opened,
        }
    }
}

fn is_in_use(err: &Error) -> bool {
    let Error::Embedded(err) = err else {
        return false;
    };
    matches!(err.downcast_ref(), Some(OpenError::InUse { .. }))
}
