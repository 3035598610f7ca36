//! What can go wrong, from a caller's point of view.

use std::sync::Arc;

use zae_limiter_core::acquire::{AcquireError, DisabledAt};
use zae_limiter_core::table::{Applied, FailureKind, TableError};
use zae_limiter_core::{
    ConcurrencyExceeded, CorruptRecord, InvalidInput, RateLimitExceeded, RecordError, UnsupportedFeature,
};

/// The hint of [`Error::InfrastructureNotFound`] in a build that cannot deploy a stack.
const WITHOUT_PROVISION: &str = if cfg!(feature = "provision") {
    ""
} else {
    ", or build with the feature `provision` of the crate zae-limiter, with which `Repository::open` deploys it"
};

/// The error of every call of this crate.
///
/// Act on [`RateLimitExceeded`](Self::RateLimitExceeded) (come back later) and
/// [`Unavailable`](Self::Unavailable) (the table cannot be used); the rest are faults of the call, of the
/// configuration or of the table's contents.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A limit refused the request; nothing was taken. Says which limits, and when to retry.
    #[error(transparent)]
    RateLimitExceeded(#[from] RateLimitExceeded),
    /// All places in flight of the entity, or of its parent, are taken ([`Acquire::in_flight`](crate::Acquire::in_flight)); nothing
    /// was taken.
    #[error(transparent)]
    ConcurrencyExceeded(#[from] ConcurrencyExceeded),
    /// The table could not be used, and the policy for outages is to refuse.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Bad input, refused before anything was written. Names the field and the value.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
    /// The entity or the resource is switched off. No wait will help.
    #[error("{resource} is disabled for entity '{entity}' (by the {level})")]
    Disabled {
        /// The entity, or its parent.
        entity: String,
        /// The resource.
        resource: String,
        /// Where the flag is: `entity`, `entity_default`, `resource` or `bucket`.
        level: &'static str,
    },
    /// No level configures limits for the entity and resource, and the call brought none. Also of a key that the service
    /// has never seen, if there are no defaults: see [the guide](crate::guide#unknown-keys).
    #[error(
        "no limits are configured for entity '{entity}' and resource '{resource}' at any level; set some, or pass limits with the call"
    )]
    NotConfigured {
        /// The entity, or its parent.
        entity: String,
        /// The resource.
        resource: String,
    },
    /// A stored record contradicts the format.
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
    /// A stored record uses a feature that this version cannot evaluate; it is refused, not half-enforced.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedFeature),
    /// The table does not exist: no stack of this name has been deployed here.
    #[error(
        "no table '{stack}' in {place}; deploy the stack first: zae-limiter deploy --name {stack}{hint}",
        hint = WITHOUT_PROVISION
    )]
    InfrastructureNotFound {
        /// The stack's name, which is the table's.
        stack: String,
        /// The region or endpoint that was asked.
        place: String,
    },
    /// The credentials may not do this. Refused under every outage policy, since it never heals by itself.
    #[error("access to table '{stack}' was denied: {reason}{hint}", hint = doubt(.source.applied == Applied::Unknown))]
    PermissionDenied {
        /// The stack's name.
        stack: String,
        /// The missing or refused permission, in the service's words.
        reason: String,
        /// The service's error.
        #[source]
        source: TableError,
    },
    /// The table's format or its demands on clients do not fit this version.
    #[error("{0}")]
    VersionMismatch(String),
    /// There is no active namespace of this name.
    #[error("namespace '{0}' does not exist; register it first")]
    NamespaceNotFound(String),
    /// There is no namespace of this id.
    #[error("there is no namespace of the id '{0}'")]
    NamespaceIdNotFound(String),
    /// The namespace is not in the state that the call needs.
    #[error("namespace '{namespace}' ({id}) is {state}")]
    NamespaceState {
        /// Its name.
        namespace: String,
        /// Its id.
        id: String,
        /// `active`, `deleted`, `purging`, `re-registered` (its name belongs to another now) or `gone`.
        state: &'static str,
    },
    /// The entity exists already.
    #[error("entity '{0}' exists already")]
    EntityExists(String),
    /// There is no such entity.
    #[error("entity '{0}' does not exist")]
    EntityNotFound(String),
    /// A detached lease has ended already, in another way than is asked for: `commit`, `rollback` or `expired`, if it is known. Its
    /// first end holds.
    #[error("the lease has ended already{how}; its first end holds", how = ended(.0.as_deref()))]
    LeaseEnded(Option<String>),
    /// The time to live of a detached lease is over. Its tokens are kept or given back, as it says.
    #[error("the lease has expired: its tokens are kept or given back, as its `on_expiry` says")]
    LeaseExpired,
    /// The configuration was changed, but not every live bucket could be updated. Repeating the call finishes it.
    #[error("the change is stored, but only {done} of {total} live buckets were updated; repeat the call")]
    FanoutIncomplete {
        /// Buckets that were updated.
        done: usize,
        /// Buckets found.
        total: usize,
        /// The error that stopped it.
        #[source]
        source: TableError,
    },
    /// The stack could not be deployed or deleted. Says which resource failed first, and why.
    #[cfg(feature = "provision")]
    #[error(transparent)]
    Deployment(Arc<zae_limiter_infra::Error>),
    /// How to reach CloudFormation is not known: the table is embedded or custom, or its client came without the
    /// configuration that it was made from ([`RepositoryBuilder::sdk_config`](crate::RepositoryBuilder::sdk_config)).
    #[error("the table in {0} is not in a stack of CloudFormation, or its client came without `sdk_config`")]
    NotAStack(String),
    /// The threads of a blocking repository could not be started.
    #[error("the limiter's runtime cannot be started: {0}")]
    Runtime(Arc<std::io::Error>),
    /// A blocking call was made on a thread that is running an async task, which it would hold up with all others on
    /// that thread. Nothing was done; a commit or rollback was started and continues in the background.
    #[error(
        "a blocking call was made on a thread that runs async tasks; call the async API, or make the call in `spawn_blocking`"
    )]
    AsyncContext,
    /// The embedded table could not be opened.
    #[error(transparent)]
    Embedded(Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether a write may have happened: its answer was lost, or something other than DynamoDB answered.
    ///
    /// A debit in doubt counts as consumed. The same call, sent again, may take the tokens twice.
    pub fn in_doubt(&self) -> bool {
        match self {
            Self::Unavailable(down) => down.in_doubt,
            Self::PermissionDenied { source, .. } | Self::FanoutIncomplete { source, .. } => {
                source.applied == Applied::Unknown
            }
            _ => false,
        }
    }
}

/// How a lease has ended, in the text of an error.
fn ended(how: Option<&str>) -> String {
    how.map_or_else(String::new, |how| format!(" ({how})"))
}

/// The end of the text of an error in doubt.
fn doubt(is_in_doubt: bool) -> &'static str {
    if is_in_doubt {
        "; the write may have happened"
    } else {
        ""
    }
}

/// The table could not be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the table '{stack}' cannot be used: {what}{hint}", hint = doubt(*.in_doubt))]
pub struct Unavailable {
    pub(crate) stack: String,
    pub(crate) what: String,
    pub(crate) in_doubt: bool,
    pub(crate) retryable: bool,
    #[source]
    pub(crate) source: Option<TableError>,
}

impl Unavailable {
    /// The stack's name, which is the table's.
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// Whether a write may have happened. A debit in doubt counts as consumed.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

/// The last failure of a call before its deadline.
#[derive(Debug, Clone, Default)]
pub(crate) enum Last {
    /// Nothing, or nothing but answers.
    #[default]
    Nothing,
    /// Nothing, while as many requests as are allowed were on their way.
    Queue(usize),
    /// This, which is why it is not decided.
    Cause(TableError),
    /// This, but an answer came after it, or a write is still on its way.
    Before(TableError),
}

impl Last {
    /// Takes note that an answer came after it.
    pub(crate) fn before(self) -> Self {
        match self {
            Self::Cause(err) => Self::Before(err),
            other => other,
        }
    }
}

/// Where a table is, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) stack: String,
    pub(crate) place: String,
}

impl Place {
    pub(crate) fn table_error(&self, err: TableError) -> Error {
        match err.kind {
            FailureKind::TableMissing => Error::InfrastructureNotFound {
                stack: self.stack.clone(),
                place: self.place.clone(),
            },
            FailureKind::AccessDenied => Error::PermissionDenied {
                stack: self.stack.clone(),
                reason: err.message.clone(),
                source: err,
            },
            kind => Error::Unavailable(Unavailable {
                stack: self.stack.clone(),
                what: err.to_string(),
                in_doubt: err.applied == Applied::Unknown,
                retryable: kind != FailureKind::BadRequest,
                source: Some(err),
            }),
        }
    }

    /// A correction was not answered in time. It is neither lost nor known to have happened, and repeating it would
    /// correct twice.
    pub(crate) fn still_sending(&self, after: std::time::Duration) -> Error {
        Error::Unavailable(Unavailable {
            stack: self.stack.clone(),
            what: format!(
                "a correction of a lease was not answered within {} ms and is still being sent in the background",
                after.as_millis()
            ),
            in_doubt: true,
            retryable: false,
            source: None,
        })
    }

    /// A place in flight was not given back in time. It is repeated in the background, and expires in any case.
    pub(crate) fn place_not_returned(&self, why: &str, source: Option<TableError>) -> Error {
        Error::Unavailable(Unavailable {
            stack: self.stack.clone(),
            what: format!("a place in flight was not given back: {why}; it is free when it has expired"),
            in_doubt: true,
            retryable: false,
            source,
        })
    }

    /// The task that sent a correction was dropped.
    pub(crate) fn runtime_ended(&self) -> Error {
        Error::Unavailable(Unavailable {
            stack: self.stack.clone(),
            what: "the async runtime ended before a correction of a lease was answered".to_owned(),
            in_doubt: true,
            retryable: false,
            source: None,
        })
    }

    /// The deadline struck.
    pub(crate) fn gave_up(&self, after: std::time::Duration, in_doubt: bool, last: Last) -> Error {
        let when = format!("no decision within {} ms", after.as_millis());
        let what = match &last {
            Last::Cause(err) => format!("{err} ({when})"),
            Last::Before(err) => format!("{when}; the last failure before was: {err}"),
            Last::Queue(max) => format!(
                "{when}; as many requests as `max_in_flight` allows ({max}) were on their way to the table"
            ),
            Last::Nothing => when,
        };
        Error::Unavailable(Unavailable {
            stack: self.stack.clone(),
            what,
            in_doubt,
            retryable: true,
            source: match last {
                Last::Cause(err) | Last::Before(err) => Some(err),
                Last::Queue(_) | Last::Nothing => None,
            },
        })
    }

    /// Other clients kept changing the same record.
    pub(crate) fn contended(&self, key: &impl std::fmt::Display) -> Error {
        self.unavailable(format!("others kept changing {key} at the same time"))
    }

    pub(crate) fn unavailable(&self, what: String) -> Error {
        let stack = self.stack.clone();
        Error::Unavailable(Unavailable {
            stack,
            what,
            in_doubt: false,
            retryable: true,
            source: None,
        })
    }

    pub(crate) fn acquire_error(&self, err: AcquireError) -> Error {
        match err {
            AcquireError::Input(err) => err.into(),
            AcquireError::NotConfigured { entity, resource } => Error::NotConfigured { entity, resource },
            AcquireError::Record(err) => err.into(),
            AcquireError::Table(err) => self.table_error(err),
            AcquireError::Abandoned => self.gave_up(std::time::Duration::ZERO, true, Last::Nothing),
        }
    }
}

impl From<RecordError> for Error {
    fn from(err: RecordError) -> Self {
        match err {
            RecordError::Corrupt(err) => err.into(),
            RecordError::Unsupported(err) => err.into(),
            other => CorruptRecord {
                record: "record",
                key: String::new(),
                attribute: String::new(),
                problem: other.to_string(),
            }
            .into(),
        }
    }
}

/// The name of the place where a disabled flag was met.
pub(crate) fn level_name(at: DisabledAt) -> &'static str {
    match at {
        DisabledAt::Config(level) => level.as_str(),
        DisabledAt::Bucket => "bucket",
    }
}
