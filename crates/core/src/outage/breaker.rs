//! A circuit breaker for the path of an acquire.
//!
//! While the table does not answer, each call would wait for a timeout of its own. The breaker counts failures in a
//! row; after [`FAILURES`] of them that span at least [`SPAN`] it opens. If that many failures came at the same
//! instant, it also opens when requests that were sent after them have had no answer for [`SILENCE`]. While it is open,
//! calls are decided at once by the policy for outages, except for one call per [`probe interval`](PROBE) that is sent
//! to the table. Any answer closes it. See ADR 17.

use std::time::Duration;

use crate::table::{FailureKind, TableError};

/// How many failures in a row open the breaker.
pub const FAILURES: u32 = 5;

/// How long the failures must last. Connections that break at the same instant fail together although the table
/// works; a request that is sent after them succeeds within this time.
pub const SPAN: Duration = Duration::from_millis(500);

/// How long requests that were sent after [`FAILURES`] failures may stay without an answer until the breaker opens.
/// With all permits taken by requests that were sent together, the next failures come only with the next timeouts.
pub const SILENCE: Duration = SPAN.saturating_mul(2);

/// After this long without a failure, counting starts again.
const WINDOW: Duration = Duration::from_secs(10);

/// How long after a probe the next one is sent, with a fifth of jitter to either side so that processes do not
/// probe together.
pub const PROBE: Duration = Duration::from_millis(500);

/// Whether a call may use the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
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
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Failures since the last answer.
    failures: u32,
    first: Duration,
    last: Duration,
    /// When the first request was sent after the last of these failures.
    sent: Option<Duration>,
    /// When the next probe is due, while open.
    next: Option<Duration>,
}

impl State {
    /// The table answered. Returns whether that closes the breaker.
    pub fn answered(&mut self) -> bool {
        let was_open = self.next.is_some();
        *self = Self::default();
        was_open
    }

    /// The table did not answer, or failed. Returns whether that opens the breaker.
    pub fn failed(&mut self, now: Duration, interval: Duration) -> bool {
        if self.next.is_none() && now.saturating_sub(self.last) > WINDOW {
            self.failures = 0;
        }
        if self.failures == 0 {
            self.first = now;
        }
        // The failure answers the requests that were sent before it. Silence is counted from the next request.
        self.sent = None;
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        let opens =
            self.next.is_none() && self.failures >= FAILURES && now.saturating_sub(self.first) >= SPAN;
        if opens {
            self.next = Some(now + interval);
        }
        opens
    }

    /// While it is open: when the first of the failures was heard, and when the next probe is due.
    pub fn refusing(&self) -> Option<(Duration, Duration)> {
        self.next.map(|next| (self.first, next))
    }

    /// A request is sent.
    pub fn sent(&mut self, now: Duration) {
        if self.failures > 0 && now.saturating_sub(self.last) <= WINDOW {
            self.sent.get_or_insert(now);
        }
    }

    /// Opens it if the table has been silent to what was sent after enough failures. Returns whether that opens it.
    pub fn is_silent(&mut self, now: Duration, interval: Duration) -> bool {
        let opens = self.next.is_none()
            && self.failures >= FAILURES
            && now.saturating_sub(self.last) <= WINDOW
            && self.sent.is_some_and(|sent| now.saturating_sub(sent) >= SILENCE);
        if opens {
            self.next = Some(now + interval);
        }
        opens
    }

    /// Whether a call that begins now may use the table. The next probe is due one `interval` later, with or without an
    /// answer to this one.
    pub fn pass(&mut self, now: Duration, interval: Duration) -> Pass {
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
pub fn is_silence(err: &TableError) -> bool {
    matches!(
        err.kind,
        FailureKind::Timeout | FailureKind::Unreachable | FailureKind::Internal
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Applied;

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

        // Failures that come together, each to a request that was sent after the one before.
        let mut state = State::default();
        for i in 0..9 {
            state.sent(ms(2000 + i));
            state.failed(ms(2000 + i), PROBE);
        }
        assert!(!state.is_silent(ms(3100), PROBE), "all of them were answered");
        state.sent(ms(3100));
        assert!(!state.is_silent(ms(4099), PROBE));
        assert!(state.is_silent(ms(4100), PROBE));

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
