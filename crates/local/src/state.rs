//! The endpoint that runs in the background: where it leaves its mark, and who finds it there.
//!
//! A running endpoint holds a file locked, which the system undoes however the process ends. The record beside it only
//! says more about whoever holds the lock, so a stale one misleads nobody.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Names another directory for the mark, the log and the data.
pub const STATE_DIR: &str = "ZAE_LIMITER_STATE_DIR";

/// How often to try for the lock, since somebody may only be looking.
const TRIES: u32 = 20;

/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(5);

/// The directory of one user's endpoint.
#[derive(Debug, Clone)]
pub struct State {
    directory: PathBuf,
}

/// What is known of an endpoint that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// The port that it listens on.
    pub port: u16,
    /// The address that it is bound to.
    pub host: String,
    /// The directory of its data; `None` if it forgets everything when it ends.
    pub data: Option<PathBuf>,
    /// The version of the program.
    pub version: String,
    /// When it was started, in milliseconds since the epoch.
    pub started: i64,
    /// Whether its log is in the state's directory.
    pub logs: bool,
}

impl Running {
    /// Where clients reach it.
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
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
        // Whole or not at all, for whoever looks meanwhile.
        let beside = path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(beside, path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A stale one misleads nobody.
        let _ = fs::remove_file(self.state.record());
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

    fn lock(&self) -> PathBuf {
        self.directory.join("endpoint.lock")
    }

    /// Takes the place of the one endpoint; `None` if another has it.
    ///
    /// # Errors
    /// The system's, if the directory cannot be used.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        fs::create_dir_all(&self.directory)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.lock())?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Some(Held {
                        state: self.clone(),
                        _lock: lock,
                    }));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(err)) => return Err(err),
            }
        }
        Ok(None)
    }

    /// Whether an endpoint has this place.
    ///
    /// # Errors
    /// The system's.
    pub fn is_held(&self) -> io::Result<bool> {
        let lock = match File::options().write(true).open(self.lock()) {
            Ok(lock) => lock,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(err),
        };
        match lock.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(err)) => Err(err),
        }
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
}
