//! Sending administrative requests again.
//!
//! Taking tokens never comes through here: its requests carry a deadline and are decided by the machines of
//! the core. Operations of an operator may take longer, and are retried while throttled or in conflict.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zae_limiter_core::table::{Cancelled, FailureKind, Item, Key, Part, TableError};

use crate::error::{Error, Last, Place};
use crate::table::{Table, TableExt as _, Transacted};

/// How often a request is sent again, and how long it pauses before: exponentially longer, with full jitter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    attempts: u32,
    first: Duration,
    longest: Duration,
    /// No repetition begins after this time.
    total: Duration,
}

/// For a single request of a caller that waits: at most about three seconds of pauses, beside the time that the
/// requests take. If each of them times out, that is some twenty seconds.
pub(crate) const BRIEF: Patience = Patience {
    attempts: 8,
    first: Duration::from_millis(25),
    longest: Duration::from_secs(1),
    total: Duration::from_secs(20),
};

/// For one of many requests of a long work, which a short drought must not end.
pub(crate) const LONG: Patience = Patience {
    attempts: 14,
    first: Duration::from_millis(50),
    longest: Duration::from_secs(5),
    total: Duration::from_mins(3),
};

impl Patience {
    /// Sends again while the failure is one that `again` says may pass.
    pub(crate) async fn repeat<T, E, F>(
        self,
        again: impl Fn(&E) -> bool,
        mut send: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut attempt = 0;
        let begin = tokio::time::Instant::now();
        loop {
            match send().await {
                Err(err) if again(&err) && begin.elapsed() < self.total && self.pause(attempt).await => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Sleeps before repetition number `attempt`, counted from zero; returns whether there is one.
    async fn pause(self, attempt: u32) -> bool {
        if attempt >= self.attempts {
            return false;
        }
        let ceiling = self
            .first
            .saturating_mul(2_u32.saturating_pow(attempt))
            .min(self.longest);
        tokio::time::sleep(ceiling.mul_f64(fastrand::f64())).await;
        true
    }
}

/// Whether a request that may be applied twice without harm is worth sending again.
pub(crate) fn is_passing(err: &TableError) -> bool {
    !matches!(
        err.kind,
        FailureKind::AccessDenied | FailureKind::TableMissing | FailureKind::BadRequest
    )
}

tokio::task_local! {
    /// The last failure of a request, while a call with a deadline waits for what follows from it.
    static HEARD: Arc<Mutex<Option<TableError>>>;
}

/// Takes note of a failure that may be hidden by sending the request again.
fn note<T>(outcome: Result<T, TableError>) -> Result<T, TableError> {
    if let Err(err) = &outcome {
        // There is nothing to note it in without a deadline.
        let _ = HEARD.try_with(|heard| {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(err.clone());
        });
    }
    outcome
}

impl Place {
    /// Does what only reads, but no longer than `timeout`. The error says which failure was met last.
    pub(crate) async fn within<T>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let heard = Arc::default();
        let work = HEARD.scope(Arc::clone(&heard), work);
        if let Ok(outcome) = tokio::time::timeout(timeout, work).await {
            return outcome;
        }
        let last = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(match last {
            Some(err) => self.gave_up(timeout, false, Last::Cause(err)),
            // What is left of a short deadline can be less than a millisecond.
            None => self.unavailable(format!("no answer within {} ms", timeout.as_millis().max(1))),
        })
    }

    /// Sends a write again while the table says that it did not happen and that it may later.
    pub(crate) async fn retrying<T, F>(&self, mut send: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, TableError>>,
    {
        let send = || {
            let request = send();
            async { note(request.await) }
        };
        let outcome = BRIEF.repeat(TableError::may_resend, send).await;
        outcome.map_err(|err| self.table_error(err))
    }

    /// Sends a read, or a write that may be applied twice without harm, again while it may help.
    pub(crate) async fn insisting<T, F>(
        &self,
        patience: Patience,
        mut send: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, TableError>>,
    {
        let send = || {
            let request = send();
            async { note(request.await) }
        };
        let outcome = patience.repeat(is_passing, send).await;
        outcome.map_err(|err| self.table_error(err))
    }

    /// Reads the latest state of an item.
    pub(crate) async fn read(&self, table: &dyn Table, key: &Key) -> Result<Option<Item>, Error> {
        self.insisting(BRIEF, || table.get(key.clone(), true)).await
    }

    /// Executes all parts or none; retries after conflicts with other transactions.
    ///
    /// A cancellation that is returned has a condition that did not hold.
    pub(crate) async fn transact(&self, table: &dyn Table, parts: Vec<Part>) -> Result<Transacted, Error> {
        let mut attempt = 0;
        loop {
            let done = self.retrying(|| table.transact(parts.clone())).await?;
            let Transacted::Cancelled(reasons) = &done else {
                return Ok(done);
            };
            if reasons
                .iter()
                .any(|reason| matches!(reason, Cancelled::Refused(_)))
            {
                return Ok(done);
            }
            if !BRIEF.pause(attempt).await {
                return Err(self.unavailable(format!("a transaction kept being cancelled: {reasons:?}")));
            }
            attempt += 1;
        }
    }
}
