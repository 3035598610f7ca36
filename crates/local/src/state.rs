//! The endpoint that runs in the background: where it leaves its mark, and who finds it there.
//!
//! A running endpoint holds a lock on a file, which the system releases when the process ends. The record beside it has
//! details of the endpoint. A record of a killed process is removed before the lock is taken again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process;

/// Names another directory for the mark, the log and the data.
pub const STATE_DIR: &str = "ZAE_LIMITER_STATE_DIR";

/// How often to try for the lock while others are only looking.
const TRIES: u32 = 200;

/// How often an endpoint must be seen. A killed one holds the lock for a moment more if it was just starting a process.
const SEEN: u32 = 20;

/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(5);

/// The directory of one user's endpoint.
#[derive(Debug, Clone)]
pub struct State {
    directory: PathBuf,
}

/// The record of a running endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// The port that it listens on.
    pub port: u16,
    /// The address that it is bound to.
    pub host: String,
    /// The directory of its data; `None` if it keeps the data in memory.
    pub data: Option<PathBuf>,
    /// The version of the program.
    pub version: String,
    /// When it was started, in milliseconds since the epoch.
    pub started: i64,
    /// Whether its log is in the state's directory.
    pub logs: bool,
    /// Whether it writes every request into its log. Records of before do not say.
    #[serde(default)]
    pub verbose: Option<bool>,
    /// When the system started its process, as returned by [`process::born`].
    #[serde(default)]
    pub born: Option<u64>,
    /// The interpreter of functions in Python.
    #[serde(default)]
    pub python: Option<PathBuf>,
}

impl Running {
    /// Where clients reach it.
    pub fn url(&self) -> String {
        let address = self.address();
        if address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            format!("http://localhost:{}", address.port())
        } else {
            format!("http://{address}")
        }
    }

    /// The address at which this machine reaches it.
    pub fn address(&self) -> SocketAddr {
        let bound = self.bound().unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::new(reached(bound), self.port)
    }

    /// The address that it is bound to, if the record names one.
    pub fn bound(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether its process is the one that has its id now; `None` if the system cannot say.
    pub fn is_its_process(&self) -> Option<bool> {
        let born = self.born?;
        process::born(self.pid).ok().map(|found| found == Some(born))
    }
}

/// The address for clients of this machine: an address that stands for all interfaces cannot be connected to.
pub fn reached(bound: IpAddr) -> IpAddr {
    match bound {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// The lock, for as long as the process lives.
#[derive(Debug)]
pub struct Held {
    state: State,
    _lock: File,
}

impl Held {
    /// Leaves word of the endpoint.
    ///
    /// # Errors
    /// The system's.
    pub fn announce(&self, running: &Running) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(running).map_err(io::Error::other)?;
        let path = self.state.record();
        // Replaced in one step, for processes that read it at the same time.
        let beside = path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(beside, path)
    }

    /// Leaves word that the endpoint is about to end, so that no process joins it.
    ///
    /// # Errors
    /// The system's.
    pub fn end(&self) -> io::Result<()> {
        fs::write(self.state.ending(), b"")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // If this fails, the next process that takes the lock removes it.
        let _ = self.state.forget();
    }
}

impl State {
    /// The state in a directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The user's own: `$ZAE_LIMITER_STATE_DIR`, else `zae-limiter` in `$XDG_STATE_HOME` or `~/.local/state`.
    /// `None` if there is no home.
    pub fn of_user() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(directory) = variable(STATE_DIR) {
            return Some(Self::at(directory));
        }
        let home = match variable("XDG_STATE_HOME") {
            Some(directory) if Path::new(&directory).is_absolute() => PathBuf::from(directory),
            _ => std::env::home_dir()?.join(".local").join("state"),
        };
        Some(Self::at(home.join("zae-limiter")))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where data is kept unless another directory is named.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The log of an endpoint in the background.
    pub fn log(&self) -> PathBuf {
        self.directory.join("endpoint.log")
    }

    fn record(&self) -> PathBuf {
        self.directory.join("endpoint.json")
    }

    /// There while more than the process that started the endpoint uses it.
    fn shared(&self) -> PathBuf {
        self.directory.join("endpoint.shared")
    }

    /// There once the endpoint has been asked to end.
    fn ending(&self) -> PathBuf {
        self.directory.join("endpoint.ending")
    }

    /// Held exclusively by a process that is about to stop the endpoint unless it is shared.
    fn share_lock(&self) -> io::Result<File> {
        let path = self.directory.join("endpoint.shared.lock");
        let mut options = process::private_file();
        options.create(true).truncate(false).write(true).open(path)
    }

    fn lock(&self) -> PathBuf {
        self.directory.join("endpoint.lock")
    }

    /// Makes the directory, for its user only: it has the functions' environment and all data.
    ///
    /// # Errors
    /// The system's; if the directory belongs to another user.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        self.check_owner()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let found = fs::metadata(&self.directory)?;
            if found.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o700))?;
            }
        }
        Ok(())
    }

    /// Refuses a directory of another user, who could write the records in it.
    #[cfg(unix)]
    fn check_owner(&self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        match fs::metadata(&self.directory) {
            Ok(found) if found.uid() != nix::unistd::geteuid().as_raw() => {
                let why = format!(
                    "it belongs to the user with the id {}; name another one with {STATE_DIR}",
                    found.uid()
                );
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Refuses a directory of another user, where the system can tell.
    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "elsewhere it can fail"
    )]
    fn check_owner(&self) -> io::Result<()> {
        Ok(())
    }

    /// Takes the place of the one endpoint; `None` if another has it.
    ///
    /// # Errors
    /// The system's, if the directory cannot be used.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        self.make()?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.lock())?;
        let mut seen = 0;
        for _ in 0..TRIES {
            match lock.try_lock_shared() {
                Ok(()) => {}
                // Those who look do not hinder each other: this is an endpoint.
                Err(TryLockError::WouldBlock) => {
                    seen += 1;
                    if seen == SEEN {
                        return Ok(None);
                    }
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::Error(err)) => return Err(err),
            }
            // No endpoint runs now, so the record is that of a dead one. It is removed before the lock is seen as
            // taken.
            self.forget()?;
            lock.unlock()?;
            match lock.try_lock() {
                Ok(()) => {
                    let held = Held {
                        state: self.clone(),
                        _lock: lock,
                    };
                    // Another endpoint may have started and ended in between.
                    self.forget()?;
                    return Ok(Some(held));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(err)) => return Err(err),
            }
        }
        Ok(None)
    }

    fn forget(&self) -> io::Result<()> {
        for path in [self.shared(), self.record(), self.ending()] {
            match fs::remove_file(path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(())
    }

    /// The endpoint that runs, which from now on its starter does not stop by itself. Waits while a process
    /// is about to stop it.
    ///
    /// # Errors
    /// The system's.
    pub fn join(&self) -> io::Result<Option<Running>> {
        if !self.is_held()? {
            return Ok(None);
        }
        let lock = self.share_lock()?;
        lock.lock_shared()?;
        let running = self.running()?;
        if running.is_some() {
            fs::write(self.shared(), b"")?;
        }
        Ok(running)
    }

    /// A guard under which no other process [joins](Self::join) the endpoint; `None` if one has joined it.
    ///
    /// # Errors
    /// The system's.
    pub fn alone(&self) -> io::Result<Option<File>> {
        let lock = self.share_lock()?;
        lock.lock()?;
        Ok((!self.shared().try_exists()?).then_some(lock))
    }

    /// Whether an endpoint has this place.
    ///
    /// # Errors
    /// The system's; if the directory belongs to another user.
    pub fn is_held(&self) -> io::Result<bool> {
        self.check_owner()?;
        let lock = match File::options().write(true).open(self.lock()) {
            Ok(lock) => lock,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(err),
        };
        // Shared, or two who look at the same time would take each other for an endpoint.
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(err)) => Err(err),
        }
    }

    /// Whether an endpoint has this place that has been asked to end.
    ///
    /// # Errors
    /// The system's.
    pub fn is_ending(&self) -> io::Result<bool> {
        Ok(self.is_held()? && self.ending().try_exists()?)
    }

    /// The endpoint that runs; `None` if none does, or one is only just starting.
    ///
    /// # Errors
    /// The system's.
    pub fn running(&self) -> io::Result<Option<Running>> {
        if !self.is_held()? {
            return Ok(None);
        }
        match fs::read(self.record()) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Running {
        Running {
            pid: 1,
            port: 4566,
            host: "127.0.0.1".into(),
            data: None,
            version: "0".into(),
            started: 0,
            logs: true,
            verbose: Some(false),
            born: None,
            python: None,
        }
    }

    #[test]
    fn one_has_the_place_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path().join("state"));
        assert_eq!(state.running().unwrap(), None);
        let held = state.hold().unwrap().unwrap();
        assert!(state.is_held().unwrap());
        assert_eq!(state.running().unwrap(), None, "it has not said who it is");
        held.announce(&running()).unwrap();
        assert_eq!(state.running().unwrap(), Some(running()));
        assert!(state.hold().unwrap().is_none());
        drop(held);
        assert_eq!(state.running().unwrap(), None);
        assert!(state.hold().unwrap().is_some());
    }

    #[test]
    fn a_stale_record_misleads_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        fs::write(state.record(), serde_json::to_vec(&running()).unwrap()).unwrap();
        assert_eq!(state.running().unwrap(), None);
        let _held = state.hold().unwrap().unwrap();
        fs::write(state.record(), b"half a rec").unwrap();
        assert_eq!(state.running().unwrap(), None);
    }

    #[test]
    fn a_record_that_was_left_is_gone_once_the_place_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        fs::write(state.record(), serde_json::to_vec(&running()).unwrap()).unwrap();
        let _held = state.hold().unwrap().unwrap();
        assert!(state.is_held().unwrap());
        assert_eq!(state.running().unwrap(), None);
    }

    #[test]
    fn an_endpoint_that_others_have_joined_is_shared_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        assert_eq!(state.join().unwrap(), None);
        let held = state.hold().unwrap().unwrap();
        assert_eq!(state.join().unwrap(), None, "it has not said who it is");
        held.announce(&running()).unwrap();
        assert!(state.alone().unwrap().is_some());
        assert_eq!(state.join().unwrap(), Some(running()));
        assert!(state.alone().unwrap().is_none());
        drop(held);
        let held = state.hold().unwrap().unwrap();
        held.announce(&running()).unwrap();
        let alone = state.alone().unwrap();
        assert!(alone.is_some());
        // One that comes while it is being stopped waits, and then finds none.
        std::thread::scope(|scope| {
            let joined = scope.spawn(|| state.join().unwrap());
            std::thread::sleep(PAUSE);
            drop(held);
            drop(alone);
            assert_eq!(joined.join().unwrap(), None);
        });
    }

    #[test]
    fn those_who_look_are_not_taken_for_an_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        drop(state.hold().unwrap().unwrap());
        let looking = File::options().write(true).open(state.lock()).unwrap();
        looking.try_lock_shared().unwrap();
        assert!(!state.is_held().unwrap());
    }

    #[test]
    fn the_place_is_taken_while_others_look() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        drop(state.hold().unwrap().unwrap());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = state.is_held().unwrap();
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
            }
            for _ in 0..20 {
                assert!(state.hold().unwrap().is_some());
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn it_is_reached_at_the_address_that_it_is_bound_to() {
        for (host, url) in [
            ("127.0.0.1", "http://localhost:4566"),
            ("0.0.0.0", "http://localhost:4566"),
            ("127.0.0.2", "http://127.0.0.2:4566"),
            ("::1", "http://[::1]:4566"),
            ("::", "http://[::1]:4566"),
            ("192.168.1.5", "http://192.168.1.5:4566"),
        ] {
            let running = Running {
                host: host.into(),
                ..running()
            };
            assert_eq!(running.url(), url, "{host}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_directory_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let other = nix::unistd::Uid::from_raw(65_534);
        if nix::unistd::chown(directory.path(), Some(other), None).is_err() {
            eprintln!("skipped: only root can give a directory away");
            return;
        }
        let state = State::at(directory.path());
        for err in [state.hold().unwrap_err(), state.running().unwrap_err()] {
            assert!(err.to_string().contains("the user with the id 65534"), "{err}");
        }
    }

    #[test]
    fn records_of_before_are_read() {
        let text = r#"{"pid":1,"port":2,"host":"::1","data":null,"version":"0","started":0,"logs":true}"#;
        let read: Running = serde_json::from_str(text).unwrap();
        assert_eq!(
            (read.verbose, read.born, read.is_its_process()),
            (None, None, None)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn another_process_of_the_same_id_is_another() {
        let own = Running {
            pid: std::process::id(),
            born: process::born(std::process::id()).unwrap(),
            python: None,
            ..running()
        };
        assert_eq!(own.is_its_process(), Some(true));
        let other = Running {
            born: own.born.map(|born| born + 1),
            ..own
        };
        assert_eq!(other.is_its_process(), Some(false));
    }
}
