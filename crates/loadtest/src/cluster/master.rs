//! The master's port, and what a test is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::coordinate::Cluster;
use super::handshake::Secret;
use super::launcher::Launcher;
use super::listener;
use super::roster::Lost;
use super::scaling::Scaling;
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::schedule::Schedule;

/// How the master treats its workers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most workers that are connected at a time.
    pub most_workers: usize,
    /// How long a worker may be silent.
    pub silence: Duration,
    /// How long to wait for the workers that a test needs.
    pub wait: Duration,
    /// How often the progress is reported.
    pub every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            most_workers: 1000,
            silence: Duration::from_secs(30),
            wait: Duration::from_mins(5),
            every: Duration::from_secs(5),
        }
    }
}

/// The port that workers connect to.
#[derive(Debug)]
pub struct Master {
    listener: TcpListener,
    secret: Secret,
}

impl Master {
    /// Listens on an address, with a secret of its own.
    ///
    /// # Errors
    /// The system's, such as a port in use.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            secret: Secret::random().map_err(io::Error::other)?,
        })
    }

    /// Where workers connect to.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What workers need to be accepted.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Accepts workers from now on. `launcher` starts as many as `scaling` says, while [`Cluster`] is asked to do something.
    pub fn open<L: Launcher>(self, launcher: L, scaling: Scaling, options: Options) -> Cluster<L> {
        let (accepting, events) =
            listener::listen(self.listener, self.secret, options.most_workers, options.silence);
        Cluster::new(accepting, events, launcher, scaling, options)
    }
}

/// A test for workers.
#[derive(Debug, Clone)]
pub struct Test {
    /// What users do, the classes that take part.
    pub scenario: Scenario,
    /// How many users there are at a time.
    pub schedule: Schedule,
    /// The namespace that was made for it.
    pub namespace: String,
    /// What [`prepare`](crate::prepare) has returned for the namespace.
    pub parents: Vec<Option<String>>,
    /// The seed of all random choices.
    pub seed: u64,
    /// For an open loop: how many tasks are due in a second, above zero, on all workers together.
    pub rate: Option<f64>,
}

/// The state of a test, or of the wait for it.
#[derive(Debug, Clone)]
pub struct Pulse<'r> {
    /// How far it is. The master does not know the processor time of its workers.
    pub progress: Progress,
    /// The workers that are connected.
    pub workers: usize,
    /// What workers have measured since the start.
    pub report: &'r Report,
}

/// What came of a test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// What all workers have measured together.
    pub report: Report,
    /// How many workers took part.
    pub workers: usize,
    /// Those whose last measurements are missing.
    pub lost: Vec<Lost>,
    /// Whether it ended because there was no worker any longer.
    pub was_abandoned: bool,
}

/// Why a test did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Too few workers connected in time.
    #[error("{connected} of {wanted} workers connected within {} s", .within.as_secs())]
    TooFew {
        /// How many have connected.
        connected: usize,
        /// How many are needed.
        wanted: usize,
        /// How long the master has waited.
        within: Duration,
    },
    /// Workers cannot be started.
    #[error("workers cannot be started: {0}")]
    Launch(String),
    /// No worker can take part.
    #[error("no worker can take part: {0}")]
    Failed(String),
}
