//! One call that takes tokens: its span, what it needed, and its outcome, which is counted once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Span};
use zae_limiter_core::{EntityId, RateLimitExceeded, ResourceName};

use super::record::Timer;
use super::spans;
use crate::error::Error;
use crate::inner::Inner;

/// What a call that takes tokens came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Admitted,
    Degraded,
    Refused,
    Never,
    Concurrency,
    Disabled,
    Invalid,
    Unavailable,
    Failed,
    Cancelled,
}

impl Outcome {
    #[cfg(feature = "metrics")]
    pub(super) const ALL: [Self; 10] = [
        Self::Admitted,
        Self::Degraded,
        Self::Refused,
        Self::Never,
        Self::Concurrency,
        Self::Disabled,
        Self::Invalid,
        Self::Unavailable,
        Self::Failed,
        Self::Cancelled,
    ];

    /// By the error of a call, or why one that was admitted did not get its tokens from the table.
    fn of(is_admitted: bool, error: Option<&Error>) -> Self {
        match error {
            None => Self::Admitted,
            Some(_) if is_admitted => Self::Degraded,
            Some(Error::RateLimitExceeded(refused)) if refused.retry_after().is_none() => Self::Never,
            Some(Error::RateLimitExceeded(_)) => Self::Refused,
            Some(Error::ConcurrencyExceeded(_)) => Self::Concurrency,
            Some(Error::Disabled { .. }) => Self::Disabled,
            Some(Error::InvalidInput(_) | Error::NotConfigured { .. }) => Self::Invalid,
            Some(Error::Unavailable(_)) => Self::Unavailable,
            Some(_) => Self::Failed,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Degraded => "degraded",
            Self::Refused => "refused",
            Self::Never => "never",
            Self::Concurrency => "concurrency",
            Self::Disabled => "disabled",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many requests to the table something has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) requests: u32,
    /// The writes among them.
    pub(crate) writes: u32,
}

impl Sent {
    pub(crate) fn add(&mut self, is_write: bool) {
        self.requests += 1;
        self.writes += u32::from(is_write);
    }
}

/// What is known of a call when it ends.
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only metrics read it"))]
pub(super) struct Ended<'a> {
    pub(super) outcome: Outcome,
    pub(super) refused: Option<&'a RateLimitExceeded>,
    pub(super) in_doubt: bool,
    /// The first resource; `None` if its name is not valid.
    pub(super) resource: Option<&'a ResourceName>,
    pub(super) timer: Timer,
    pub(super) writes: u32,
    /// Of a call that may wait.
    pub(super) waited: Option<Duration>,
}

/// A call that takes tokens. If it is dropped before its end, it was cancelled.
pub(crate) struct Call {
    pub(crate) inner: Arc<Inner>,
    span: Span,
    resource: Option<ResourceName>,
    timer: Timer,
    requests: AtomicU32,
    writes: AtomicU32,
    /// Milliseconds, plus 1 if the call may wait.
    waited: AtomicU64,
    has_ended: bool,
}

impl Call {
    /// A call begins. Its names are not known if they are not valid.
    pub(crate) fn begin(inner: Arc<Inner>, names: Option<(&EntityId, &ResourceName)>) -> Self {
        Self {
            inner,
            span: spans::acquire(names),
            resource: names.map(|(_, resource)| resource.clone()),
            timer: Timer::start(),
            requests: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            waited: AtomicU64::new(0),
            has_ended: false,
        }
    }

    /// Does a part of it within its span.
    pub(crate) fn within<F: Future>(&self, part: F) -> Instrumented<F> {
        part.instrument(self.span.clone())
    }

    /// It has sent these requests.
    pub(crate) fn has_sent(&self, sent: Sent) {
        self.requests.fetch_add(sent.requests, Ordering::Relaxed);
        self.writes.fetch_add(sent.writes, Ordering::Relaxed);
    }

    /// It asks, or ends without asking again, so long after it began to wait for its turn and for tokens.
    pub(crate) fn has_waited(&self, so_long: Duration) {
        let millis = u64::try_from(so_long.as_millis()).unwrap_or(u64::MAX);
        self.waited.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// It has ended, and was admitted or not. `error` is its error, or why the table did not admit it.
    pub(crate) fn end(mut self, is_admitted: bool, error: Option<&Error>) {
        self.has_ended = true;
        self.report(Outcome::of(is_admitted, error), error);
    }

    fn report(&self, outcome: Outcome, error: Option<&Error>) {
        let refused = match error {
            Some(Error::RateLimitExceeded(refused)) => Some(refused),
            _ => None,
        };
        let (requests, writes) = (
            self.requests.load(Ordering::Relaxed),
            self.writes.load(Ordering::Relaxed),
        );
        let waited = self.waited.load(Ordering::Relaxed).checked_sub(1);
        if !self.span.is_disabled() {
            self.span.record("outcome", outcome.as_str());
            self.span.record("requests", requests);
            self.span.record("writes", writes);
            self.span.record("wait_ms", waited.unwrap_or(0));
            if let Some(worst) = refused.and_then(RateLimitExceeded::worst) {
                self.span.record("limit", worst.limit_name.as_str());
            }
        }
        self.inner.telemetry.call_ended(
            &self.inner,
            &Ended {
                outcome,
                refused,
                in_doubt: error.is_some_and(Error::in_doubt),
                resource: self.resource.as_ref(),
                timer: self.timer,
                writes,
                waited: waited.map(Duration::from_millis),
            },
        );
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.has_ended {
            self.report(Outcome::Cancelled, None);
        }
    }
}
