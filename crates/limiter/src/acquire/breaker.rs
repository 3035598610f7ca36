//! A circuit breaker for the path of an acquire.
//!
//! While the table does not answer, each call would wait for a timeout of its own. The breaker counts failures in a
//! row; after [`FAILURES`] of them that span at least [`SPAN`] it opens. If that many failures came at the same
//! instant, it also opens when requests that were sent after them have had no answer for [`SILENCE`]. While it is open,
//! calls are decided at once by the policy for outages, except for one call per [`probe interval`](PROBE) that is sent
//! to the table. Any answer closes it. See ADR 17.
//!
//! [`State`] is the decision as a value, with time passed in. [`Breaker`] shares it between calls.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use zae_limiter_core::EpochMillis;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

/// How many failures in a row open the breaker.
pub(crate) const FAILURES: u32 = 5;

/// How long the failures must last. Connections that break at the same instant fail together although the table
/// works; a request that is sent after them succeeds within this time.
pub(crate) const SPAN: Duration = Duration::from_millis(500);

/// How long requests that were sent after [`FAILURES`] failures may stay without an answer until the breaker opens.
/// With all permits taken by requests that were sent together, the next failures come only with the next timeouts.
pub(crate) const SILENCE: Duration = SPAN.saturating_mul(2);

/// After this long without a failure, counting starts again.
const WINDOW: Duration = Duration::from_secs(10);

/// How long after a probe the next one is sent, with a fifth of jitter to either side so that processes do not
/// probe together.
pub(crate) const PROBE: Duration = Duration::from_millis(500);

/// Whether a call may use the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The breaker is closed.
    Free,
    /// The breaker is open, and this call is the probe.
    Probe,
    /// The breaker is open.
    Refused {
        /// When the first of the failures in a row was heard.
        since: Duration,
        /// When the next probe is due.
        next: Duration,
    },
}

/// The breaker's state. All instants are durations since an origin of the caller's choice.
#[derive(Debug, Default)]
struct State {
    /// Failures since the last answer.
    failures: u32,
    first: Duration,
    last: Duration,
    /// When the first request was sent after the first of these failures.
    sent: Option<Duration>,
    /// When the next probe is due, while open.
    next: Option<Duration>,
}

impl State {
    /// The table answered. Returns whether that closes the breaker.
    fn answered(&mut self) -> bool {
        let was_open = self.next.is_some();
        *self = Self::default();
        was_open
    }

    /// The table did not answer, or failed. Returns whether that opens the breaker.
    fn failed(&mut self, now: Duration, interval: Duration) -> bool {
        if self.next.is_none() && now.saturating_sub(self.last) > WINDOW {
            self.failures = 0;
        }
        if self.failures == 0 {
            self.first = now;
            self.sent = None;
        }
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        let opens =
            self.next.is_none() && self.failures >= FAILURES && now.saturating_sub(self.first) >= SPAN;
        if opens {
            self.next = Some(now + interval);
        }
        opens
    }

    /// A request is sent.
    fn sent(&mut self, now: Duration) {
        if self.failures > 0 && now.saturating_sub(self.last) <= WINDOW {
            self.sent.get_or_insert(now);
        }
    }

    /// Opens it if the table has been silent to what was sent after enough failures. Returns whether that opens it.
    fn is_silent(&mut self, now: Duration, interval: Duration) -> bool {
        let opens = self.next.is_none()
            && self.failures >= FAILURES
            && now.saturating_sub(self.last) <= WINDOW
            && self.sent.is_some_and(|sent| now.saturating_sub(sent) >= SILENCE);
        if opens {
            self.next = Some(now + interval);
        }
        opens
    }

    /// Whether a call that begins now may use the table. A probe is due again one `interval` later, whatever
    /// becomes of this one.
    fn pass(&mut self, now: Duration, interval: Duration) -> Pass {
        match self.next {
            None => Pass::Free,
            Some(next) if next <= now => {
                self.next = Some(now + interval);
                Pass::Probe
            }
            Some(next) => Pass::Refused {
                since: self.first,
                next,
            },
        }
    }
}

/// Whether a failure says that the table does not answer. Throttling and refusals are answers.
fn is_silence(err: &TableError) -> bool {
    matches!(
        err.kind,
        FailureKind::Timeout | FailureKind::Unreachable | FailureKind::Internal
    )
}

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
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::default(),
            failing: AtomicBool::new(false),
            opened: Notify::new(),
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
                    self.opened.notify_waiters();
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

    /// Whether a call that begins now may use the table.
    pub(crate) fn pass(&self) -> Pass {
        if !self.failing.load(Ordering::Acquire) {
            return Pass::Free;
        }
        let mut state = self.state();
        if state.is_silent(self.now(), interval()) {
            tracing::warn!("the table does not answer; calls are decided without it, but for probes");
            self.opened.notify_waiters();
        }
        state.pass(self.now(), interval())
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
        self.failing.load(Ordering::Acquire) && self.state().next.is_some()
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
        let (since, next) = {
            let state = self.state();
            (state.first, state.next?)
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A breaker that opens with the last of five failures at 0, 150 ... 600 ms.
    fn open() -> State {
        let mut state = State::default();
        let opened: Vec<bool> = (0..5).map(|i| state.failed(ms(i * 150), PROBE)).collect();
        assert_eq!(opened, [false, false, false, false, true]);
        state
    }

    #[test]
    fn it_opens_after_failures_in_a_row_that_last() {
        let mut state = open();
        let refused = Pass::Refused {
            since: ms(0),
            next: ms(1100),
        };
        assert_eq!(state.pass(ms(700), PROBE), refused);
    }

    #[test]
    fn failures_that_come_together_do_not_open_it() {
        let mut state = State::default();
        assert!(!(0..100).any(|_| state.failed(ms(2000), PROBE)));
        assert_eq!(state.pass(ms(2100), PROBE), Pass::Free);
        assert!(state.failed(ms(2500), PROBE), "the table still does not answer");
    }

    #[test]
    fn silence_to_what_was_sent_after_failures_that_came_together_opens_it() {
        let together = || {
            let mut state = State::default();
            assert!(!(0..100).any(|_| state.failed(ms(2000), PROBE)));
            state
        };
        let mut state = together();
        assert!(!state.is_silent(ms(9000), PROBE), "nothing was sent after them");
        state.sent(ms(2100));
        state.sent(ms(2900));
        assert!(!state.is_silent(ms(3099), PROBE));
        assert!(state.is_silent(ms(3100), PROBE));
        let refused = Pass::Refused {
            since: ms(2000),
            next: ms(3600),
        };
        assert_eq!(state.pass(ms(3100), PROBE), refused);

        let mut state = together();
        state.sent(ms(2100));
        state.answered();
        assert!(!state.is_silent(ms(3100), PROBE), "it was answered");

        let mut state = together();
        state.sent(ms(12_001));
        assert!(!state.is_silent(ms(13_100), PROBE), "the failures are too old");
    }

    #[test]
    fn one_answer_in_between_starts_the_count_again() {
        let mut state = State::default();
        for round in 0..1000 {
            for i in 0..4 {
                assert!(!state.failed(ms(round * 1000 + i * 200), PROBE));
            }
            assert!(!state.answered());
        }
    }

    #[test]
    fn failures_far_apart_do_not_open_it() {
        let mut state = State::default();
        assert!(!(0..100).any(|i| state.failed(Duration::from_secs(i * 11), PROBE)));
    }

    #[test]
    fn one_probe_per_interval_passes_and_an_answer_closes_it() {
        let mut state = open();
        let mut probes = 0;
        for now in 600..5600 {
            match state.pass(ms(now), PROBE) {
                Pass::Probe => {
                    probes += 1;
                    assert!(!state.failed(ms(now), PROBE));
                }
                Pass::Refused { next, .. } => assert!(next > ms(now) && next <= ms(now) + PROBE),
                Pass::Free => panic!("open at {now}"),
            }
        }
        assert_eq!(probes, 9);
        assert!(state.answered());
        assert_eq!(state.pass(ms(5600), PROBE), Pass::Free);
        assert!(
            !state.failed(ms(5700), PROBE),
            "it takes as many failures to open again"
        );
    }

    #[test]
    fn a_lost_answer_in_a_hundred_never_opens_it() {
        let mut random = fastrand::Rng::with_seed(17);
        let mut state = State::default();
        for now in 0..1_000_000 {
            if random.u32(0..100) == 0 {
                assert!(!state.failed(ms(now * 20), PROBE));
            } else {
                state.answered();
            }
        }
    }

    #[test]
    fn throttling_and_refusals_are_answers() {
        for (kind, silence) in [
            (FailureKind::Timeout, true),
            (FailureKind::Unreachable, true),
            (FailureKind::Internal, true),
            (FailureKind::Throttled, false),
            (FailureKind::Conflict, false),
            (FailureKind::AccessDenied, false),
            (FailureKind::TableMissing, false),
            (FailureKind::BadRequest, false),
        ] {
            let err = TableError::new(kind, Applied::No, "as the test ordered");
            assert_eq!(is_silence(&err), silence, "{kind:?}");
        }
    }
}
