//! An endpoint from its start to its end.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use zae_limiter::table::EmbeddedEngine;
use zae_limiter::table::embedded::OpenError;

use crate::lambda::Python;
use crate::server;
use crate::stacks;
use crate::state::reached;
use crate::store::{Store, StoreError};
use crate::tables::Tables;
use crate::wire::Refusal;
use crate::world::World;

/// How often items whose time has come are deleted.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a shutdown waits for operations on stacks, synchronous invocations, requests, and other work with the
/// tables, all together. Work that takes longer is aborted.
pub const FINISH: Duration = Duration::from_secs(15);

/// How long the end waits for requests and the tables even if the rest has taken all its time.
const LAST: Duration = Duration::from_secs(1);

/// How often the end looks whether something is under way.
const LOOK: Duration = Duration::from_millis(20);

/// How many ports are tried where any will do.
const PORTS: u32 = 10;

/// The file in the data directory with everything that is in no table.
const RECORDS: &str = "endpoint.sqlite";

/// How an endpoint is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on. On the loopback address of IPv4 that of IPv6 is listened on, too, if there is one.
    pub address: SocketAddr,
    /// Where the data is.
    pub data: Data,
    /// The interpreter of functions in Python.
    pub python: Python,
}

/// Where an endpoint keeps its data.
#[derive(Debug, Clone)]
pub enum Data {
    /// In memory. Objects and unpacked functions are files in this directory, which is emptied at the start and at the end.
    Ephemeral(PathBuf),
    /// In a directory, which is created if need be.
    Directory(PathBuf),
}

/// An endpoint could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Something else listens there.
    #[error("Port {0} is already in use")]
    PortInUse(u16),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The tables cannot be opened.
    #[error(transparent)]
    Tables(#[from] OpenError),
    /// The records of everything else cannot be opened.
    #[error("{} cannot be used: {source}. If it is damaged, move it away to start afresh", .path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: StoreError,
    },
    /// A directory cannot be made or emptied.
    #[error("the directory {} cannot be used: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A service cannot start from what is kept of it.
    #[error("what is kept cannot be used: {0}")]
    Services(Refusal),
}

/// An endpoint that listens, but does not answer yet.
#[derive(Debug)]
pub struct Endpoint {
    world: Arc<World>,
    listeners: Vec<TcpListener>,
    port: u16,
    /// The directory that is emptied at the end.
    scratch: Option<PathBuf>,
}

impl Endpoint {
    /// Opens the data and listens.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        // The port first: it is the cheapest to be refused.
        let (address, listeners) = listen(options.address).await?;
        let (engine, store, files, scratch) = match &options.data {
            Data::Ephemeral(directory) => {
                empty(directory)?;
                let records = Store::memory().map_err(records(Path::new(":memory:")))?;
                (
                    EmbeddedEngine::memory()?,
                    records,
                    directory.clone(),
                    Some(directory.clone()),
                )
            }
            Data::Directory(directory) => {
                // Functions start in another directory than this process.
                let directory = &std::path::absolute(directory).map_err(|source| StartError::Directory {
                    path: directory.clone(),
                    source,
                })?;
                // The engine's lock guards the records, too.
                let engine = EmbeddedEngine::open(directory)?;
                let path = directory.join(RECORDS);
                let store = Store::open(&path).map_err(records(&path))?;
                (engine, store, directory.clone(), None)
            }
        };
        let url = format!(
            "http://{}",
            SocketAddr::new(reached(address.ip()), address.port())
        );
        let world = World::new(Tables::new(engine)?, store, files, url, options.python)
            .map_err(StartError::Services)?;
        let world = Arc::new(world);
        stacks::resume(&world.stacks).map_err(|err| StartError::Services(err.into()))?;
        Ok(Self {
            world,
            listeners,
            port: address.port(),
            scratch,
        })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers until `stop` ends, finishes what is under way if [`FINISH`] is enough for it, and ends the functions.
    ///
    /// It continues answering while an operation on a stack or an invocation is under way, since functions call it.
    ///
    /// # Errors
    /// If the port cannot be listened on any longer.
    pub async fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let world = self.world;
        let sweeper = tokio::spawn(sweep(world.services.tables.clone()));
        let (stopped, _) = tokio::sync::watch::channel(false);
        let servers: Vec<_> = self
            .listeners
            .into_iter()
            .map(|listener| {
                let mut heard = stopped.subscribe();
                let stop = async move {
                    // The sender outlives the servers.
                    let _ = heard.wait_for(|stopped| *stopped).await;
                };
                tokio::spawn(server::serve(Arc::clone(&world), listener, stop))
            })
            .collect();
        stop.await;
        let deadline = Instant::now() + FINISH;
        // The servers have it, and this function; requests that only pass through do not.
        let own = servers.len() + 1;
        let works = async {
            while Arc::strong_count(&world) > own || world.stacks.are_at_work() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if timeout_at(deadline, works).await.is_err() {
            tracing::warn!("what is still under way is cut off");
        }
        stopped.send_replace(true);
        let last = deadline.max(Instant::now() + LAST);
        for mut server in servers {
            match timeout_at(last, &mut server).await {
                Ok(served) => served.map_err(io::Error::other)??,
                Err(_) => server.abort(),
            }
        }
        sweeper.abort();
        world.close().await;
        // Tasks that were asked to end may not have ended yet. Until the last one drops the data, no other process can
        // open it.
        let mut tables = world.services.tables.watch();
        drop(world);
        let last = deadline.max(Instant::now() + LAST);
        let _ = timeout_at(last, async { while tables.changed().await.is_ok() {} }).await;
        if let Some(directory) = self.scratch {
            // Whatever is left is emptied at the next start.
            let _ = fs::remove_dir_all(directory);
        }
        Ok(())
    }
}

/// Listens on an address, and on the other loopback address if it is one: the address with its port, and the listeners.
async fn listen(wanted: SocketAddr) -> Result<(SocketAddr, Vec<TcpListener>), StartError> {
    let mut left = if wanted.port() == 0 { PORTS } else { 1 };
    loop {
        left -= 1;
        let listener = bound(wanted).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: wanted,
            source,
        })?;
        let mut listeners = vec![listener];
        if address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return Ok((address, listeners));
        }
        // `localhost` is this one for some clients. Without IPv6 they find the other.
        match bound(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())).await {
            Ok(six) => listeners.push(six),
            Err(StartError::PortInUse(_)) if left > 0 => continue,
            Err(StartError::Listen { source, .. }) if is_absent(&source) => {}
            Err(err) => return Err(err),
        }
        return Ok((address, listeners));
    }
}

async fn bound(address: SocketAddr) -> Result<TcpListener, StartError> {
    server::listen(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse(address.port()),
            _ => StartError::Listen { address, source },
        })
}

/// Whether the system has no such address, or none of that kind.
fn is_absent(err: &io::Error) -> bool {
    #[cfg(unix)]
    let unknown = Some(nix::errno::Errno::EAFNOSUPPORT as i32);
    #[cfg(not(unix))]
    let unknown = Some(10_047);
    matches!(
        err.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || err.raw_os_error() == unknown
}

fn records(path: &Path) -> impl FnOnce(StoreError) -> StartError {
    let path = path.to_path_buf();
    move |source| StartError::Records { path, source }
}

fn empty(directory: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Directory {
        path: directory.to_path_buf(),
        source,
    };
    match fs::remove_dir_all(directory) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed(err)),
        _ => {}
    }
    fs::create_dir_all(directory).map_err(failed)
}

/// Deletes items whose time has come, as `DynamoDB` does within days, and this within a second.
async fn sweep(tables: Tables) {
    let mut failing = false;
    loop {
        tokio::time::sleep(SWEEP).await;
        match tables.sweep().await {
            Ok(_) => failing = false,
            Err(err) if !failing => {
                failing = true;
                tracing::warn!(error = %err, "expired items could not be deleted");
            }
            Err(_) => {}
        }
    }
}
