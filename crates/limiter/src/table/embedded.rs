//! A DynamoDB engine inside the process, in memory or in a directory.
//!
//! The engine is `dynoxide`, on SQLite. A client made here hands each request to the engine rather than to a socket, so the
//! embedded table and the one on AWS run the same code, from expressions to error codes. There is no signing, and there are
//! no timeouts.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dynoxide::{Database, DynoxideError};

use super::DynamoClient;
use super::{Applied, FailureKind, TableError};

mod streams;
mod tokens;

pub use streams::{StreamKeeper, StreamReader, TrimError, Trimmed};
pub use tokens::{Earlier, TokenKeeper, Tokened};

/// The file in an engine's directory that holds its data.
pub const DATA_FILE: &str = "zae-limiter.sqlite";

/// The file in an engine's directory that the process using it holds locked.
const LOCK_FILE: &str = "zae-limiter.lock";

/// Additions to the engine's database for a table with frequent writes.
///
/// Every write to a table with a stream looks up the stream's last sequence number, and without an index
/// reads the whole stream to find it. And the engine keeps stream records permanently; DynamoDB keeps them for a
/// day. Here the last [`STREAM_KEEPS`] stay, so a table in memory stays small; a caller that needs another rule takes
/// the trimming over, see [`EmbeddedEngine::keep_streams`]. The names are ours, and
/// the engine's own migrations do not change unknown objects.
const TUNING: &str = "
    CREATE INDEX IF NOT EXISTS zae_limiter_stream_order
        ON _stream_records (table_name, CAST(sequence_number AS INTEGER), shard_id);
    DROP TRIGGER IF EXISTS zae_limiter_stream_trim;
    CREATE TRIGGER zae_limiter_stream_trim AFTER INSERT ON _stream_records WHEN NEW.id % 256 = 0
        BEGIN DELETE FROM _stream_records WHERE id <= NEW.id - 50000; END;";

/// How many stream records the engine keeps, over all its tables.
pub const STREAM_KEEPS: u32 = 50_000;

/// An engine could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another engine in this one, uses the directory.
    #[error(
        "the embedded table in {} is in use by another process; only one at a time can use a directory: try again when \
         that process has ended, or let all of them use one endpoint ('zae-limiter local up --data-dir')",
        .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory or a file in it cannot be created, read or written.
    #[error("the embedded table in {} cannot be used: check that it is a directory that may be written", .path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The data file is damaged, is something else, or was written by a newer version.
    #[error("{} cannot be read as an embedded table; move it away to start afresh", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The engine's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine failed for another reason.
    #[error("the embedded table could not be opened")]
    Engine {
        /// The engine's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A DynamoDB engine inside the process. Clones share it; it closes with the last clone and client.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use zae_limiter::table::{DynamoTable, EmbeddedEngine, definition};
///
/// let client = EmbeddedEngine::memory()?.client();
/// definition::create_table(&client, "limits").await?;
/// let table = DynamoTable::new(client, "limits");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EmbeddedEngine {
    database: Database,
    storage: Storage,
    gate: Gate,
}

/// Lets requests pass, any number at once, unless other code works on the database beside the engine.
///
/// A second connection to a database in memory shares the engine's locks on tables, for which the engine does not wait:
/// a request that met one would fail.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<RwLock<()>>);

impl Gate {
    fn pass(&self) -> RwLockReadGuard<'_, ()> {
        // It guards no value that a panic could have left half changed.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an engine keeps its data.
#[derive(Clone)]
enum Storage {
    /// A name that is this engine's alone.
    Memory(Arc<str>),
    /// The open file holds the lock on the directory.
    Directory(Arc<(PathBuf, File)>),
}

/// The engine's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, as JSON.
    pub body: String,
}

/// How files are opened: a new one is accessible to its user only, as SQLite's files beside it then are, too.
fn private_file() -> fs::OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a directory, if there is none: for its user only, as limits and usage of customers are in it.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

impl EmbeddedEngine {
    /// An empty engine in memory, whose content is lost when it is dropped.
    pub fn memory() -> Result<Self, OpenError> {
        // A database of this kind has a name, under which it can be opened twice: once to tune it. The name is
        // random, for a process may hold two versions of this library.
        let name = format!(
            "file:zae-limiter-{:032x}?mode=memory&cache=shared",
            fastrand::u128(..)
        );
        let database = tuned(&name).map_err(|err| OpenError::Engine { source: err.into() })?;
        Ok(Self {
            database,
            storage: Storage::Memory(name.into()),
            gate: Gate::default(),
        })
    }

    /// The engine whose data is in this directory, which is created if need be. One process at a time may
    /// use it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_path_buf();
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { path, source }
        };
        make_directory(&path).map_err(io(&path))?;
        let lock = path.join(LOCK_FILE);
        let lock_file = private_file()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(io(&lock))?;
        match lock_file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
            // Some network file systems have no locks; SQLite will make do in its own way.
            Err(TryLockError::Error(err)) if err.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(path = %path.display(), "the file system has no locks: keep other processes away");
            }
            Err(TryLockError::Error(err)) => return Err(io(&lock)(err)),
        }
        let data = path.join(DATA_FILE);
        // Says what is wrong with the file in the words of the operating system, which SQLite hides.
        private_file()
            .create(true)
            .append(true)
            .read(true)
            .open(&data)
            .map_err(io(&data))?;
        let name = data.to_str().ok_or_else(|| {
            io(&data)(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path is not valid UTF-8",
            ))
        })?;
        let opened = tuned(name).and_then(|database| {
            // Leaves SQLite's "normal" synchronisation behind, which does not wait for the disk at each write: a
            // crash of the process loses nothing, a power cut perhaps the last moments. Limits need no more.
            database.enable_bulk_loading()?;
            database.disable_bulk_loading()?;
            Ok(database)
        });
        let database = opened.map_err(|err| match probe(&path) {
            Ok(()) => OpenError::Corrupt {
                path: data.clone(),
                source: cause(err),
            },
            // A disk that is full, most likely, which SQLite's message does not distinguish from damage.
            Err(source) => io(&path)(source),
        })?;
        Ok(Self {
            database,
            storage: Storage::Directory(Arc::new((path, lock_file))),
            gate: Gate::default(),
        })
    }

    /// The directory that holds the data, if it is not in memory.
    pub fn path(&self) -> Option<&Path> {
        match &self.storage {
            Storage::Memory(_) => None,
            Storage::Directory(held) => Some(&held.0),
        }
    }

    /// A client of this engine.
    pub fn client(&self) -> DynamoClient {
        DynamoClient::embedded(self.clone())
    }

    /// Deletes items whose expiry has passed, which the engine does not do by itself. Returns their number.
    pub fn sweep_expired(&self) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let _pass = self.gate.pass();
        Ok(self.database.sweep_ttl()?)
    }

    /// Answers one request, without blocking the caller's thread for a write to the disk.
    ///
    /// The request is executed to its end even if its caller has gone.
    pub(super) async fn ask(&self, operation: &str, body: Vec<u8>) -> Result<Reply, TableError> {
        match &self.storage {
            // Some microseconds of work: passing it to another thread would cost more.
            Storage::Memory(_) => Ok(self.answer(operation, &body)),
            Storage::Directory(_) => {
                let (engine, operation) = (self.clone(), operation.to_owned());
                let answered = tokio::task::spawn_blocking(move || engine.answer(&operation, &body)).await;
                answered.map_err(|err| {
                    let message = format!("the embedded engine was stopped: {err}");
                    TableError::new(FailureKind::Internal, Applied::Unknown, message)
                })
            }
        }
    }

    /// Answers one request: its `x-amz-target` header and its body.
    ///
    /// Blocks while it works, for the time of a disk write where the data is on disk.
    pub fn answer(&self, target: &str, body: &[u8]) -> Reply {
        let operation = target.rsplit_once('.').map_or(target, |(_, operation)| operation);
        let _pass = self.gate.pass();
        match dispatch(&self.database, operation, body) {
            Ok(body) => Reply { status: 200, body },
            Err(Refused::Unknown) => Reply {
                status: 400,
                body: serde_json::json!({
                    "__type": "com.amazon.coral.service#UnknownOperationException",
                    "message": format!("the embedded engine has no operation {operation}"),
                })
                .to_string(),
            },
            Err(Refused::Engine(err)) if is_damage(&err) => Reply {
                status: 400,
                body: serde_json::json!({
                    "__type": "com.amazon.coral.service#EmbeddedTableDamaged",
                    "message": format!(
                        "the data in {} cannot be read: {err}; restore it from a copy, or move it away to begin \
                         with an empty table",
                        self.path().map_or(Path::new("memory"), |path| path).display()
                    ),
                })
                .to_string(),
            },
            Err(Refused::Engine(err)) => Reply {
                status: err.status_code(),
                body: err.to_json(),
            },
        }
    }
}

impl fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedEngine")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// Tries to write into a directory.
fn probe(directory: &Path) -> io::Result<()> {
    let file = directory.join("zae-limiter.probe");
    let written = fs::write(&file, vec![0; 64 * 1024]);
    // What could not be written whole is there in part.
    let _ = fs::remove_file(file);
    written
}

/// Opens a database and adds to it what [`TUNING`] says.
fn tuned(name: &str) -> Result<Database, DynoxideError> {
    let storage = dynoxide::storage::Storage::new(name)?;
    storage.conn().execute_batch(TUNING)?;
    Database::new(name)
}

/// The engine's error. If the file is not a database, its advice names features that this crate does not have.
fn cause(err: DynoxideError) -> Box<dyn std::error::Error + Send + Sync> {
    if err.to_string().contains("encryption") {
        return "it is not an SQLite database, or its beginning is damaged".into();
    }
    err.into()
}

/// Why a request has no response.
#[derive(Debug)]
enum Refused {
    /// There is no such operation.
    Unknown,
    /// The engine said no.
    Engine(DynoxideError),
}

impl From<DynoxideError> for Refused {
    fn from(err: DynoxideError) -> Self {
        Self::Engine(err)
    }
}

/// Whether an error of the engine stays, as that of damaged data does: as an outage, it would admit requests without
/// limit indefinitely if the policy is to allow. The engine does not tell its failures apart but in words; these are
/// the words of those that pass.
fn is_damage(err: &DynoxideError) -> bool {
    const PASSING: [&str; 7] = [
        "lock",
        "busy",
        "i/o error",
        "full",
        "memory",
        "interrupt",
        "unable to open",
    ];
    let text = match err {
        DynoxideError::InternalServerError(text) => text.to_lowercase(),
        DynoxideError::SqliteError(cause) => cause.to_string().to_lowercase(),
        _ => return false,
    };
    !PASSING.iter().any(|word| text.contains(word))
}

/// Reads a request, runs it and writes down the response.
fn dispatch(database: &Database, operation: &str, body: &[u8]) -> Result<String, Refused> {
    macro_rules! run {
        ($method:ident) => {{
            let request = serde_json::from_slice(body).map_err(|err| malformed(&err))?;
            let response = database.$method(request)?;
            serde_json::to_string(&response)
                .map_err(|err| DynoxideError::InternalServerError(err.to_string()).into())
        }};
    }
    match operation {
        "UpdateItem" => run!(update_item),
        "GetItem" => run!(get_item),
        "BatchGetItem" => run!(batch_get_item),
        "Query" => run!(query),
        "Scan" => run!(scan),
        "PutItem" => run!(put_item),
        "DeleteItem" => run!(delete_item),
        "BatchWriteItem" => run!(batch_write_item),
        "TransactWriteItems" => run!(transact_write_items),
        "TransactGetItems" => run!(transact_get_items),
        "CreateTable" => run!(create_table),
        "DescribeTable" => run!(describe_table),
        "UpdateTable" => run!(update_table),
        "DeleteTable" => run!(delete_table),
        "ListTables" => run!(list_tables),
        "UpdateTimeToLive" => run!(update_time_to_live),
        "DescribeTimeToLive" => run!(describe_time_to_live),
        "ListStreams" => run!(list_streams),
        "DescribeStream" => run!(describe_stream),
        "GetShardIterator" => run!(get_shard_iterator),
        "GetRecords" => run!(get_records),
        "TagResource" => run!(tag_resource),
        "UntagResource" => run!(untag_resource),
        "ListTagsOfResource" => run!(list_tags_of_resource),
        _ => Err(Refused::Unknown),
    }
}

/// The engine marks in a parser's error what DynamoDB would say; anything else is a request that is not JSON
/// of the right form.
fn malformed(err: &serde_json::Error) -> DynoxideError {
    let text = err.to_string();
    let marked = ["VALIDATION:", "VALIDATION_REQUEST:", "VALIDATION_AS_READ:"];
    match marked.iter().find_map(|mark| text.strip_prefix(mark)) {
        // The parser adds where it stopped, which means nothing to the caller.
        Some(said) => {
            let said = said.rsplit_once(" at line ").map_or(said, |(said, _)| said);
            DynoxideError::ValidationException(said.to_owned())
        }
        None => DynoxideError::SerializationException(text),
    }
}
