//! Lambda: functions as processes of this machine, and event source mappings on the tables' streams.
//!
//! A function's package is unpacked, and its `bootstrap` run with a Runtime API of its own, so what is deployed is
//! what runs. A function in Python is run by the machine's interpreter; `program` finds it. `functions` are functions as they
//! are kept, `running` their processes, `mappings` what feeds them from streams, and `api` is what callers see.

mod api;
mod fields;
mod functions;
mod mappings;
mod names;
mod program;
mod running;
mod services;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::functions::package::{Held, Packages};
use self::functions::record::{self as function, Function};
use self::mappings::poller::Poller;
use self::mappings::record::{self as mapping, Mapping};
use self::mappings::trim;
use self::names::FunctionId;
use self::program::Program;
use self::running::{Finished, LARGEST, Launch, NotRun, Notes, Pool};
use crate::store::Store;
use crate::tables::Tables;
use crate::wire::{Refusal, uuid};

pub use self::program::{NoSuchPython, Python};
pub use self::services::Services;

/// The largest event of an invocation that is waited for.
const LARGEST_EVENT: usize = LARGEST;

/// The largest event of one that is not.
const LARGEST_QUEUED: usize = 1024 * 1024;

/// How many events may wait.
const MOST_QUEUED: usize = 10_000;

/// The settings of Lambda.
#[derive(Debug)]
pub struct Setup {
    /// The tables whose streams are followed.
    pub tables: Tables,
    /// The endpoint's records.
    pub store: Store,
    /// The endpoint's directory.
    pub files: PathBuf,
    /// The endpoint's address, which functions get.
    pub url: String,
    /// The other services.
    pub services: Arc<dyn Services>,
    /// The interpreter of functions in Python.
    pub python: Python,
    /// How long things take.
    pub pace: Pace,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long an instance stays without work.
    pub idle: Duration,
    /// The waits before a queued event that failed is tried again.
    pub queued: [Duration; 2],
    /// The wait before a failed batch is tried again. It doubles each time.
    pub retry: Duration,
    /// The longest such wait.
    pub longest_retry: Duration,
    /// How long to wait for more records after a write to a table.
    pub gather: Duration,
    /// How often a stream is looked at though nothing was written, and trimmed.
    pub tick: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(5),
            queued: [Duration::from_mins(1), Duration::from_mins(2)],
            retry: Duration::from_millis(200),
            longest_retry: Duration::from_secs(30),
            gather: Duration::from_millis(50),
            tick: Duration::from_secs(5),
        }
    }
}

/// The result of an invocation.
#[derive(Debug, Clone)]
pub struct Invoked {
    /// The answer of the function, or the error as JSON.
    pub payload: Bytes,
    /// Whether it is an error.
    pub error: bool,
    /// The last 4 KB of the log.
    pub tail: String,
    /// The invocation's id, which its lines in the log have.
    pub request_id: String,
}

/// Lambda. Clones share it; with the last one, everything that runs is ended.
#[derive(Debug, Clone)]
pub struct Lambda {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tables: Tables,
    store: Store,
    url: String,
    services: Arc<dyn Services>,
    python: Python,
    pace: Pace,
    packages: Packages,
    pool: Arc<Pool>,
    queued: AtomicUsize,
    /// Held while documents are read to be changed.
    changes: Mutex<()>,
    /// Held from before a package is unpacked until a function names it, and while unused ones are deleted.
    code: tokio::sync::Mutex<()>,
    pollers: Mutex<HashMap<String, Poller>>,
    trimmer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for poller in self
            .pollers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            poller.abort();
        }
        if let Some(trimmer) = self.trimmer.get_mut().unwrap_or_else(PoisonError::into_inner) {
            trimmer.abort();
        }
    }
}

impl Lambda {
    /// Opens what is stored, and begins to serve the enabled mappings.
    ///
    /// # Errors
    /// If the directory or the records cannot be used.
    pub fn open(setup: Setup) -> Result<Self, Refusal> {
        let directory = setup.files.join("functions");
        let internal = |err: std::io::Error| {
            Refusal::internal(&format!("{} cannot be used: {err}", directory.display()))
        };
        let notes = Notes::open(directory.join("running")).map_err(internal)?;
        let packages = Packages::open(directory.join("code")).map_err(internal)?;
        let keeper = setup.tables.keep_streams()?;
        let lambda = Self {
            inner: Arc::new(Inner {
                pool: Pool::new(Arc::clone(&setup.services), notes, setup.pace.idle),
                tables: setup.tables,
                store: setup.store,
                url: setup.url,
                services: setup.services,
                python: setup.python,
                pace: setup.pace,
                packages,
                queued: AtomicUsize::new(0),
                changes: Mutex::default(),
                code: tokio::sync::Mutex::default(),
                pollers: Mutex::default(),
                trimmer: Mutex::default(),
            }),
        };
        lambda.sweep_packages()?;
        for (uuid, mapping) in lambda.inner.store.list::<Mapping>(mapping::KIND)? {
            if mapping.enabled {
                lambda
                    .pollers()
                    .insert(uuid, Poller::start(&lambda, mapping, None));
            }
        }
        let trimmer = tokio::spawn(trim::run(Arc::downgrade(&lambda.inner), keeper));
        *lambda
            .inner
            .trimmer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(trimmer);
        Ok(lambda)
    }

    /// Ends the mappings' work and every function.
    pub async fn stop(&self) {
        let pollers = std::mem::take(&mut *self.pollers());
        for poller in pollers.into_values() {
            poller.abort();
        }
        self.inner.pool.stop().await;
    }

    /// Invokes a function, and waits for its answer.
    ///
    /// # Errors
    /// If the function was not run; an error of the function itself is an answer.
    pub async fn invoke(&self, region: &str, name: &str, payload: Bytes) -> Result<Invoked, Refusal> {
        let id = FunctionId::read(region, name)?;
        let payload = event(payload, LARGEST_EVENT, "RequestResponse")?;
        let finished = self.run(&id, uuid(), payload).await?;
        Ok(Invoked {
            payload: finished.payload,
            error: finished.failed,
            tail: finished.tail,
            request_id: finished.request_id,
        })
    }

    /// Queues an event for a function, in memory. If the function fails, it is tried twice more. Returns the
    /// invocation's id.
    ///
    /// # Errors
    /// If it cannot be queued.
    pub fn invoke_event(&self, region: &str, name: &str, payload: Bytes) -> Result<String, Refusal> {
        let id = FunctionId::read(region, name)?;
        let payload = event(payload, LARGEST_QUEUED, "Event")?;
        self.load(&id)?;
        let waiting = self.inner.queued.fetch_add(1, Ordering::Relaxed);
        if waiting >= MOST_QUEUED {
            self.inner.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(busy());
        }
        let request_id = uuid();
        tokio::spawn(queued(
            Arc::downgrade(&self.inner),
            id,
            request_id.clone(),
            payload,
        ));
        Ok(request_id)
    }

    /// Runs a function. What was begun continues to its end if the caller goes.
    async fn run(&self, id: &FunctionId, request_id: String, payload: Bytes) -> Result<Finished, Refusal> {
        let (function, package) = self.hold(id)?;
        let program = match function.program(&self.inner.python) {
            Ok(program) => program,
            Err(why) => {
                tracing::warn!(
                    function = function.name,
                    runtime = function.runtime,
                    "called, but cannot run here"
                );
                let error = serde_json::json!({"errorType": "Runtime.Unsupported", "errorMessage": why});
                return Ok(Finished {
                    request_id,
                    failed: true,
                    payload: error.to_string().into(),
                    tail: String::new(),
                });
            }
        };
        let launch = self.launch(function, program, package);
        let pool = Arc::clone(&self.inner.pool);
        let run = tokio::spawn(async move { pool.run(launch, request_id, payload).await }).await;
        if self.inner.packages.has_leftovers() {
            // Perhaps it was this that still needed them.
            self.sweep().await;
        }
        match run {
            Ok(Ok(finished)) => Ok(finished),
            Ok(Err(NotRun::Busy)) => Err(busy()),
            Ok(Err(NotRun::Lacking(what))) => Err(lacking(&id.name, &what)),
            Err(err) => Err(Refusal::internal(&err)),
        }
    }

    /// A function, and its package, which stays for as long as it is held.
    fn hold(&self, id: &FunctionId) -> Result<(Function, Held), Refusal> {
        let mut function = self.load(id)?;
        loop {
            let package = self.inner.packages.hold(&function.code);
            // The code may have been changed, and the old one deleted, before it was held.
            let now = self.load(id)?;
            if now.code == function.code {
                return Ok((now, package));
            }
            function = now;
        }
    }

    fn launch(&self, function: Function, program: Program, package: Held) -> Launch {
        Launch {
            id: function.id(),
            program,
            package,
            runtime: function.runtime,
            handler: function.handler,
            architecture: function.architecture,
            memory_mb: function.memory_mb,
            timeout: Duration::from_secs(u64::from(function.timeout_seconds)),
            endpoint: self.inner.url.clone(),
            environment: function.environment.into_iter().collect(),
        }
    }

    fn load(&self, id: &FunctionId) -> Result<Function, Refusal> {
        let found = self.inner.store.get(function::KIND, &id.key())?;
        found.ok_or_else(|| id.missing())
    }

    fn changes(&self) -> MutexGuard<'_, ()> {
        // It guards documents, which are whole whatever panicked.
        self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pollers(&self) -> MutexGuard<'_, HashMap<String, Poller>> {
        self.inner.pollers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works an event off.
async fn queued(inner: std::sync::Weak<Inner>, id: FunctionId, request_id: String, payload: Bytes) {
    let mut failures = 0;
    loop {
        let Some(lambda) = inner.upgrade().map(|inner| Lambda { inner }) else {
            return;
        };
        let pace = lambda.inner.pace;
        let wait = match lambda.run(&id, request_id.clone(), payload.clone()).await {
            Ok(finished) if !finished.failed => None,
            Ok(_) => {
                failures += 1;
                pace.queued.get(failures - 1).copied()
            }
            // Too much at once: its turn will come.
            Err(err) if err.status == 429 => Some(pace.retry),
            Err(err) => {
                tracing::warn!(function = id.name, error = %err, "a queued event could not be delivered");
                None
            }
        };
        let Some(wait) = wait else {
            lambda.inner.queued.fetch_sub(1, Ordering::Relaxed);
            if failures > pace.queued.len() {
                tracing::warn!(
                    function = id.name,
                    request_id,
                    "a queued event failed and is given up"
                );
            }
            return;
        };
        drop(lambda);
        tokio::time::sleep(wait).await;
    }
}

/// Checks an event.
fn event(payload: Bytes, largest: usize, kind: &str) -> Result<Bytes, Refusal> {
    if payload.len() > largest {
        return Err(Refusal::new(
            "RequestTooLargeException",
            format!(
                "{} byte payload is too large for the {kind} invocation type (limit {largest} bytes)",
                payload.len()
            ),
        )
        .status(413));
    }
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
        Ok(_) => Ok(payload),
        Err(err) => Err(Refusal::new(
            "InvalidRequestContentException",
            format!("Could not parse request body into json: {err}"),
        )),
    }
}

/// Waits until a watched value is so; returns whether it can still change.
async fn becomes<T>(watched: &mut watch::Receiver<T>, so: impl FnMut(&T) -> bool) -> bool {
    watched.wait_for(so).await.is_ok()
}

fn busy() -> Refusal {
    Refusal::new("TooManyRequestsException", "Rate Exceeded.").status(429)
}

/// The machine cannot start a function just now. The caller gets the same error as for too many calls at once.
fn lacking(function: &str, what: &str) -> Refusal {
    Refusal::new(
        "TooManyRequestsException",
        format!("the function {function} could not be started now: {what}"),
    )
    .status(429)
}

/// A caller's mistake, as Lambda calls most of them.
fn refusal(message: String) -> Refusal {
    Refusal::new("InvalidParameterValueException", message)
}
