//! A table in memory that fails on demand.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};

use super::TokioClock;
use crate::RepositoryBuilder;
use crate::error::Error;
use crate::repository::{DEFAULT_NAMESPACE, DEFAULT_STACK, Repository};
use crate::table::{RequestCost, Table, TableFuture};

/// When the clock of a new table starts: on 2027-01-15, at 08:00 UTC.
const START: Duration = Duration::from_hours(500_000);

/// How a request to a [`TestTable`] fails.
///
/// ```
/// use zae_limiter::testing::{Fault, TestTable};
/// use zae_limiter::{Error, Limit, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
/// let table = TestTable::new();
/// let repo = table.open().await?;
/// repo.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
/// let limiter = RateLimiter::new(repo);
/// let call = || limiter.acquire("key-1", "gpt-4").consume("rph", 1);
/// call().await?.commit().await?;
///
/// // Throttled requests are sent again.
/// table.fail_next(2, Fault::Throttled);
/// call().await?.commit().await?;
/// // A debit whose answer is lost is not sent again. It counts as consumed.
/// table.fail_next(1, Fault::AnswerLost);
/// assert!(call().await.is_err_and(|err| err.in_doubt()));
/// assert_eq!(limiter.available("key-1", "gpt-4").await?["rph"], 7);
/// // No policy admits requests because of missing permissions.
/// table.fail_next(1, Fault::AccessDenied);
/// assert!(matches!(call().await, Err(Error::PermissionDenied { .. })));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The table is over its throughput. The request is not executed, and the limiter sends it again.
    Throttled,
    /// There is no connection. The request is not executed, and the limiter sends it again.
    Unreachable,
    /// The service reports an internal error. The request is not executed, but the answer does not say so: a debit is in
    /// doubt.
    Internal,
    /// The credentials lack a permission. The request is not executed. It is not an outage: every policy refuses.
    AccessDenied,
    /// The request is lost before it is executed: no answer in time. A debit is in doubt.
    RequestLost,
    /// The request is executed, and its answer is lost: no answer in time. A debit is in doubt.
    AnswerLost,
}

impl Fault {
    /// Whether the table executes the request nevertheless.
    fn executes(self) -> bool {
        self == Self::AnswerLost
    }

    /// The error of a request that only reads or that may write.
    fn error(self, reads: bool) -> TableError {
        let (kind, applied) = match self {
            Self::Throttled => (FailureKind::Throttled, Applied::No),
            Self::Unreachable => (FailureKind::Unreachable, Applied::No),
            Self::Internal => (FailureKind::Internal, Applied::Unknown),
            Self::AccessDenied => (FailureKind::AccessDenied, Applied::No),
            Self::RequestLost | Self::AnswerLost => (FailureKind::Timeout, Applied::Unknown),
        };
        let applied = if reads { Applied::No } else { applied };
        TableError::new(kind, applied, "a fault that the test has set")
    }
}

/// A table in memory that fails on demand, for tests.
///
/// Clones are the same table: keep one to control the faults after a repository was opened on another. Several
/// repositories on one table are several processes: they share the table and its clock, and have caches of their own.
///
/// It executes requests with the conditions and errors of DynamoDB. Items do not expire, and indexes are never out of date.
///
/// ```
/// use std::time::Duration;
/// use zae_limiter::testing::TestTable;
/// use zae_limiter::{Limit, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), zae_limiter::Error> {
/// let repo = TestTable::new().open().await?;
/// repo.admin().set_system_defaults([Limit::per_minute("rpm", 1)], None).await?;
/// let limiter = RateLimiter::new(repo);
/// let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 1);
/// call().await?.commit().await?;
///
/// // The call waits for a minute of tokio's time, which is paused here. The test does not.
/// call().wait(Duration::from_mins(2)).await?.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TestTable {
    state: Arc<Mutex<State>>,
    clock: TokioClock,
}

#[derive(Default)]
struct State {
    items: MemoryTable,
    /// Faults of the next requests, with the number of requests that each is for.
    planned: VecDeque<(usize, Fault)>,
    /// The fault of all requests after these.
    lasting: Option<Fault>,
    delay: Duration,
    requests: RequestCost,
}

impl State {
    fn next_fault(&mut self) -> Option<Fault> {
        let Some((left, fault)) = self.planned.front_mut() else {
            return self.lasting;
        };
        let fault = *fault;
        *left -= 1;
        if *left == 0 {
            self.planned.pop_front();
        }
        Some(fault)
    }

    fn count(&mut self, op: &Op) {
        let requests = &mut self.requests;
        let kind = match op {
            Op::Get { .. } => &mut requests.gets,
            Op::BatchGet { .. } => &mut requests.batch_gets,
            Op::Query(_) => &mut requests.queries,
            Op::Put(_) => &mut requests.puts,
            Op::Update(_) => &mut requests.updates,
            Op::Delete(_) => &mut requests.deletes,
            Op::BatchDelete(_) => &mut requests.batch_deletes,
            Op::Transact(_) => &mut requests.transactions,
        };
        *kind += 1;
    }

    fn execute(&mut self, op: &Op) -> Result<Answer, TableError> {
        self.count(op);
        let fault = self.next_fault();
        if let Some(fault) = fault.filter(|fault| !fault.executes()) {
            return Err(fault.error(reads(op)));
        }
        let answer = self.items.call(op);
        if matches!(answer, Ok(Answer::Refused(_) | Answer::Cancelled(_))) {
            self.requests.refused += 1;
        }
        match fault {
            Some(fault) => Err(fault.error(reads(op))),
            None => answer,
        }
    }
}

fn reads(op: &Op) -> bool {
    matches!(op, Op::Get { .. } | Op::BatchGet { .. } | Op::Query(_))
}

impl TestTable {
    /// An empty table that works.
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            clock: TokioClock::at(SystemTime::UNIX_EPOCH + START),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the namespace `default` of the table; registers it if it is new.
    ///
    /// # Errors
    /// Those of [`RepositoryBuilder::open`], if requests fail.
    pub async fn open(&self) -> Result<Repository, Error> {
        self.builder().open().await
    }

    /// Describes a repository on the table, with its [`clock`](Self::clock), for tests that need options or the
    /// blocking API. Stack and namespace do not depend on the environment.
    ///
    /// ```
    /// use zae_limiter::testing::TestTable;
    /// use zae_limiter::{Error, OnUnavailable, blocking};
    ///
    /// # fn main() -> Result<(), Error> {
    /// let table = TestTable::new();
    /// let builder = table.builder().on_unavailable(OnUnavailable::Allow);
    /// let repo = blocking::Repository::from_builder(builder)?;
    /// # Ok(()) }
    /// ```
    pub fn builder(&self) -> RepositoryBuilder {
        Repository::builder()
            .stack(DEFAULT_STACK)
            .namespace(DEFAULT_NAMESPACE)
            .custom_table(Arc::new(self.clone()))
            .clock(self.clock())
    }

    /// The clock of the repositories on the table, unless [`RepositoryBuilder::clock`] sets another. It starts at the same
    /// time for every new table, 2027-01-15T08:00:00Z, and follows the time of tokio.
    pub fn clock(&self) -> TokioClock {
        self.clock.clone()
    }

    /// Fails the next `requests` requests, reads included, that come after those for which faults are set already.
    ///
    /// An acquire for a known entity is mostly one request, and so is a refund. The first acquire for an entity reads its
    /// configuration before. See [`Fault`] for an example.
    pub fn fail_next(&self, requests: usize, fault: Fault) {
        if requests > 0 {
            self.state().planned.push_back((requests, fault));
        }
    }

    /// Fails all requests until [`recover`](Self::recover), after those for which [`fail_next`](Self::fail_next) has set
    /// faults. Replaces the fault of an earlier call.
    ///
    /// Under `Block`, a call retries until its deadline, 5 s by default
    /// ([`RepositoryBuilder::acquire_timeout`]), unless the circuit breaker is open. In a test with paused time this takes
    /// no time.
    ///
    /// ```
    /// use zae_limiter::testing::{Fault, TestTable};
    /// use zae_limiter::{Error, Limit, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
    /// let table = TestTable::new();
    /// let repo = table.open().await?;
    /// repo.admin().set_system_defaults([Limit::per_minute("rpm", 10)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    ///
    /// table.fail(Fault::Unreachable);
    /// let refused = limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await;
    /// assert!(matches!(refused, Err(Error::Unavailable(_))));
    /// # Ok(()) }
    /// ```
    pub fn fail(&self, fault: Fault) {
        self.state().lasting = Some(fault);
    }

    /// Ends all faults and the delay.
    ///
    /// If the circuit breaker of a repository has opened, its calls are decided without the table until a probe succeeds.
    /// A probe is due at most 0.6 s after the one before, by tokio's time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zae_limiter::testing::{Fault, TestTable};
    /// use zae_limiter::{Error, Limit, OnUnavailable, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
    /// let table = TestTable::new();
    /// let repo = table.builder().on_unavailable(OnUnavailable::Allow).open().await?;
    /// repo.admin().set_system_defaults([Limit::per_minute("rpm", 10)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 1);
    ///
    /// table.fail(Fault::Unreachable);
    /// assert!(call().await?.is_degraded());
    /// table.recover();
    /// tokio::time::sleep(Duration::from_secs(1)).await;
    /// assert!(!call().await?.is_degraded());
    /// # Ok(()) }
    /// ```
    pub fn recover(&self) {
        let mut state = self.state();
        state.planned.clear();
        state.lasting = None;
        state.delay = Duration::ZERO;
    }

    /// Delays the answers to all further requests, failures included, until [`recover`](Self::recover). Requests are
    /// executed at once. With zero, answers are not delayed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zae_limiter::testing::TestTable;
    /// use zae_limiter::{Error, Limit, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Error> {
    /// let table = TestTable::new();
    /// let repo = table.open().await?;
    /// repo.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// let call = || limiter.acquire("key-1", "gpt-4").consume("rph", 1);
    /// call().await?.commit().await?;
    ///
    /// table.delay(Duration::from_secs(2));
    /// let late = call().timeout(Duration::from_secs(1)).await;
    /// assert!(late.is_err_and(|err| err.in_doubt()));
    /// // When the answer arrives, the tokens are given back.
    /// assert!(repo.drain().await.is_complete());
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rph"], 9);
    /// # Ok(()) }
    /// ```
    pub fn delay(&self, answers: Duration) {
        self.state().delay = answers;
    }

    /// The requests so far, of all repositories on the table, failed ones included. Capacity units are not counted: they
    /// need an embedded table with [`RepositoryBuilder::measure`].
    ///
    /// ```
    /// use zae_limiter::table::RequestCost;
    /// use zae_limiter::testing::TestTable;
    /// use zae_limiter::{Limit, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), zae_limiter::Error> {
    /// let table = TestTable::new();
    /// let repo = table.open().await?;
    /// repo.admin().set_system_defaults([Limit::per_minute("rpm", 10)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 1);
    /// call().await?.commit().await?;
    ///
    /// // An acquire that is committed as estimated is one write.
    /// let before = table.requests();
    /// call().await?.commit().await?;
    /// assert_eq!(table.requests().since(&before), RequestCost { updates: 1, ..RequestCost::default() });
    /// # Ok(()) }
    /// ```
    pub fn requests(&self) -> RequestCost {
        self.state().requests
    }
}

impl Default for TestTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("TestTable")
            .field("planned", &state.planned)
            .field("lasting", &state.lasting)
            .field("delay", &state.delay)
            .field("requests", &state.requests)
            .finish_non_exhaustive()
    }
}

impl Table for TestTable {
    fn call(&self, op: Op) -> TableFuture {
        let table = self.clone();
        Box::pin(async move {
            let (answer, delay) = {
                let mut state = table.state();
                (state.execute(&op), state.delay)
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            answer
        })
    }
}
