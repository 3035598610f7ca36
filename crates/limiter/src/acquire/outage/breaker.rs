//! The circuit breaker of a table, shared by the calls of a process. When it opens and closes is decided by
//! [`State`], in the core.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use zae_limiter_core::EpochMillis;
use zae_limiter_core::outage::breaker::{PROBE, Pass, State, is_silence};
use zae_limiter_core::table::{Applied, FailureKind, TableError};

/// The cause of the error of a call that the breaker refused.
#[derive(Debug)]
struct Refusal;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the circuit breaker is open")
    }
}

impl std::error::Error for Refusal {}

/// Whether an error is the breaker's and not the table's.
pub(crate) fn is_refusal(err: &TableError) -> bool {
    err.source.as_ref().is_some_and(|source| source.is::<Refusal>())
}

/// The circuit breaker of one table, shared by its namespaces.
#[derive(Debug)]
pub(crate) struct Breaker {
    origin: Instant,
    state: Mutex<State>,
    /// Whether anything has failed since the last answer, so that answers usually take no lock.
    failing: AtomicBool,
    /// Notifies waiting calls that it has opened.
    opened: Notify,
    /// How often it has opened.
    openings: AtomicU64,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::default(),
            failing: AtomicBool::new(false),
            opened: Notify::new(),
            openings: AtomicU64::new(0),
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes note of the outcome of a request.
    pub(crate) fn hear<T>(&self, outcome: &Result<T, TableError>) {
        match outcome {
            Err(err) if is_silence(err) => {
                let mut state = self.state();
                self.failing.store(true, Ordering::Release);
                if state.failed(self.now(), interval()) {
                    tracing::warn!(error = %err, "the table does not answer; calls are decided without it, but for probes");
                    self.has_opened();
                }
            }
            _ => {
                if self.failing.load(Ordering::Acquire) {
                    let mut state = self.state();
                    self.failing.store(false, Ordering::Release);
                    if state.answered() {
                        tracing::info!("the table answers again");
                    }
                }
            }
        }
    }

    fn has_opened(&self) {
        self.openings.fetch_add(1, Ordering::Relaxed);
        self.opened.notify_waiters();
    }

    /// How often it has opened.
    #[cfg(feature = "metrics")]
    pub(crate) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// Whether a call that begins now may use the table.
    pub(crate) fn pass(&self) -> Pass {
        if !self.failing.load(Ordering::Acquire) {
            return Pass::Free;
        }
        let mut state = self.state();
        if state.is_silent(self.now(), interval()) {
            tracing::warn!("the table does not answer; calls are decided without it, but for probes");
            self.has_opened();
        }
        state.pass(self.now(), interval())
    }

    /// Whether nothing has failed since the last answer.
    pub(crate) fn is_unharmed(&self) -> bool {
        !self.failing.load(Ordering::Acquire)
    }

    /// Takes note that a request is sent.
    pub(crate) fn sending(&self) {
        if self.failing.load(Ordering::Acquire) {
            self.state().sent(self.now());
        }
    }

    /// Ends when the breaker opens, from when it is first polled or enabled.
    pub(crate) fn opens(&self) -> Notified<'_> {
        self.opened.notified()
    }

    /// Whether it is open.
    pub(crate) fn is_open(&self) -> bool {
        self.failing.load(Ordering::Acquire) && self.state().refusing().is_some()
    }

    /// Waits until the breaker is closed, or until a probe is due that this caller may send.
    pub(crate) async fn turn(&self) {
        while let Pass::Refused { next, .. } = self.pass() {
            // Spread over an interval, so that waiting calls do not arrive together once the table answers.
            let spread = PROBE.mul_f64(fastrand::f64());
            tokio::time::sleep(next.saturating_sub(self.now()) + spread).await;
        }
    }

    /// The error of a request that is not sent because the breaker is open, at the time `now` of the injected clock;
    /// `None` if it is closed.
    pub(crate) fn refused(&self, now: EpochMillis) -> Option<TableError> {
        if !self.failing.load(Ordering::Acquire) {
            return None;
        }
        let (since, next) = self.state().refusing()?;
        Some(self.refusal(since, next, now))
    }

    /// The error of a call that was refused, at the time `now` of the injected clock.
    pub(crate) fn refusal(&self, since: Duration, next: Duration, now: EpochMillis) -> TableError {
        let elapsed = self.now();
        let silent = i64::try_from(elapsed.saturating_sub(since).as_millis()).unwrap_or(i64::MAX);
        let left = next.saturating_sub(elapsed);
        let since = jiff::Timestamp::from_millisecond(now.0.saturating_sub(silent)).map_or_else(
            |_| format!("{silent} ms"),
            |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        );
        let message = format!(
            "it has not answered since {since}; next probe in {:.1} s",
            left.as_secs_f64()
        );
        TableError {
            source: Some(Arc::new(Refusal)),
            ..TableError::new(FailureKind::Unreachable, Applied::No, message)
        }
    }
}

fn interval() -> Duration {
    PROBE.mul_f64(0.8 + 0.4 * fastrand::f64())
}
