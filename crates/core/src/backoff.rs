//! How long to wait before a request is sent again: exponential, with full jitter.
//!
//! After <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. Only requests that
//! certainly did not happen are sent again; see [`crate::table::TableError::may_resend`].

use crate::random::Random;
use crate::table::{FailureKind, TableError};

/// Requests that met a transaction are re-sent this often, then the caller is told to come back.
pub(crate) const MAX_CONFLICTS: u32 = 3;

/// Requests that were throttled or refused by the network are re-sent this often.
pub(crate) const MAX_RESENDS: u32 = 8;

const BASE_MS: u64 = 25;
const CAP_MS: u64 = 1000;

/// Counts re-sendings of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    conflicts: u32,
    resends: u32,
}

/// What to do about a failed request.
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
        if self.resends == MAX_RESENDS {
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
