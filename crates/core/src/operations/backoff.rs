//! How long to wait before a request is sent again: exponential, with full jitter.
//!
//! After <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. Only requests that
//! certainly did not happen are sent again; see [`crate::table::TableError::may_resend`].

use crate::random::Random;
use crate::table::{FailureKind, TableError};

/// Requests that met a transaction are re-sent this often, then refused with a short wait.
pub(crate) const MAX_CONFLICTS: u32 = 3;

/// Requests of an acquire that were throttled or refused by the network are re-sent until the driver's deadline. This
/// only ends the machine of a driver that has none.
const MAX_RESENDS: u32 = 10_000;

/// Corrections, which may continue in the background after their caller has gone, are re-sent this often: for some 13 s
/// if each is answered at once, and for little more than a minute if each ends in a timeout of 2 s.
const MAX_CREDIT_RESENDS: u32 = 30;

const BASE_MS: u64 = 25;
const CAP_MS: u64 = 1000;

/// Counts re-sendings of one request.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    conflicts: u32,
    resends: u32,
    max_resends: u32,
}

/// The reaction to a failed request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Send it again after this many milliseconds.
    After(u64),
    /// Transactions keep holding the item.
    Contended,
    /// Sending it again is unsafe or without hope.
    No,
}

impl Backoff {
    /// For a request of an acquire.
    pub(crate) const fn until_deadline() -> Self {
        Self::new(MAX_RESENDS)
    }

    /// For a correction.
    pub(crate) const fn of_credit() -> Self {
        Self::new(MAX_CREDIT_RESENDS)
    }

    const fn new(max_resends: u32) -> Self {
        Self {
            conflicts: 0,
            resends: 0,
            max_resends,
        }
    }

    pub(crate) fn next(&mut self, error: &TableError, random: &mut dyn Random) -> Again {
        if !error.may_resend() {
            return Again::No;
        }
        if error.kind == FailureKind::Conflict {
            self.conflict(random)
        } else {
            self.resend(random)
        }
    }

    pub(crate) fn conflict(&mut self, random: &mut dyn Random) -> Again {
        if self.conflicts == MAX_CONFLICTS {
            return Again::Contended;
        }
        self.conflicts += 1;
        Again::After(jitter(self.conflicts, random))
    }

    pub(crate) fn resend(&mut self, random: &mut dyn Random) -> Again {
        if self.resends == self.max_resends {
            return Again::No;
        }
        self.resends += 1;
        Again::After(jitter(self.resends, random))
    }
}

/// A random wait up to 25 ms, 50 ms, 100 ms ... 1 s.
fn jitter(attempt: u32, random: &mut dyn Random) -> u64 {
    let ceiling = (BASE_MS << (attempt - 1).min(10)).min(CAP_MS);
    u64::from(random.below(ceiling as u32 + 1))
}
