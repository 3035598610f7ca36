//! What master and workers say to each other.

use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::scenario::Scenario;

/// The number of a worker: another one for each connection.
pub type WorkerId = u32;

/// The number of a test of a master.
pub type RunId = u64;

/// To a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// It takes part. Sent once.
    Welcome {
        /// Its number, from which the names of its users' entities differ.
        worker: WorkerId,
    },
    /// It does not take part.
    Refused {
        /// Why.
        why: String,
    },
    /// A test begins. The worker opens the namespace.
    Start(Box<Start>),
    /// How many users it has. Repeated every second, so that a worker notices the end of its master.
    Assign {
        /// The test.
        run: RunId,
        /// The users of each class.
        users: Vec<usize>,
        /// In an open loop, the tasks that are due on this worker in a second.
        rate: f64,
    },
    /// Its part in the test ends.
    Stop {
        /// The test.
        run: RunId,
    },
    /// There is no test.
    Alive,
}

/// What a worker needs to know of a test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Start {
    /// Its number.
    pub run: RunId,
    /// What users do, the classes that take part.
    pub scenario: Scenario,
    /// The parents that users of each class share.
    pub parents: Vec<Option<String>>,
    /// The namespace, which the master has made.
    pub namespace: String,
    /// The seed of all random choices.
    pub seed: u64,
    /// Whether tasks are due at a rate, which comes with the users.
    pub is_open_loop: bool,
}

/// To the master.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum ToMaster {
    /// There is no test; or there is nothing to report.
    Alive,
    /// It can start users.
    Ready {
        /// The test.
        run: RunId,
    },
    /// It cannot take part in a test.
    Failed {
        /// The test.
        run: RunId,
        /// Why.
        why: String,
    },
    /// What was measured since the last one.
    Measured {
        /// The test.
        run: RunId,
        /// The users at this time.
        users: usize,
        /// Sums since the last one; only `elapsed` is since the start.
        part: Box<Report>,
    },
    /// Its life is about to end: others take its users, and then it is stopped.
    Leaving,
    /// Its users have ended, and everything was sent.
    Done {
        /// The test.
        run: RunId,
    },
}
