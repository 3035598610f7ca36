//! What may go wrong between a client and the table.
//!
//! Every request draws its fate once: when the table sees it (if ever), when the client hears of it, and
//! whether what it hears is the truth. The rule that real networks obey is kept: a client that did not get
//! an answer cannot know whether its write happened, and the write may yet happen *after* it stopped waiting.

use zae_limiter_core::table::{Applied, FailureKind, Op, TableError};

use crate::rng::Rng;

/// How often what goes wrong, in thousandths of all requests, and how slow the network is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Refused because the table is over its throughput.
    pub throttled: u32,
    /// Never sent.
    pub unreachable: u32,
    /// Lost on the way to the table.
    pub lost_before: u32,
    /// Applied, but the answer was lost.
    pub lost_after: u32,
    /// Applied only after the client gave up waiting for the answer.
    pub applied_late: u32,
    /// The service failed, before or after applying.
    pub internal: u32,
    /// A transaction held an item.
    pub conflict: u32,
    /// Answered truly, but after a long time.
    pub slow: u32,
    /// Refused as malformed, by the table or by something in between.
    pub permanent: u32,
    /// Not forwarded, and answered with success and no item.
    pub empty: u32,
    /// Typical time to the table and back, in microseconds.
    pub latency_us: i64,
    /// How long a client waits for one answer, in microseconds.
    pub timeout_us: i64,
    /// From when until when the table stands still, in microseconds: what reaches it then is done at the end.
    pub stall_us: Option<(u64, u64)>,
}

impl Faults {
    /// A perfect network.
    pub const NONE: Self = Self {
        throttled: 0,
        unreachable: 0,
        lost_before: 0,
        lost_after: 0,
        applied_late: 0,
        internal: 0,
        conflict: 0,
        slow: 0,
        permanent: 0,
        empty: 0,
        latency_us: 2000,
        timeout_us: 500_000,
        stall_us: None,
    };
}

/// The way in which all requests fail during an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageKind {
    /// Nothing is sent.
    Unreachable,
    /// Nothing arrives, and nothing is answered.
    Silent,
    /// Requests are executed, and no answer arrives.
    Deaf,
    /// The service fails, and has sometimes executed the request.
    Failing,
    /// Everything is throttled.
    Throttled,
}

/// A time in which the table cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Its first microsecond.
    pub from_us: u64,
    /// The first microsecond after it.
    pub until_us: u64,
    /// The process that cannot use the table; `None` if none can.
    pub process: Option<usize>,
    /// How its requests fail.
    pub kind: OutageKind,
}

impl Outage {
    /// Whether it fails what this process sends at this instant.
    pub fn meets(&self, process: usize, now_us: u64) -> bool {
        (self.from_us..self.until_us).contains(&now_us) && self.process.is_none_or(|only| only == process)
    }
}

/// The fate of one request.
#[derive(Debug, Clone)]
pub struct Fate {
    /// Microseconds until the table sees it; `None` if it never does.
    pub seen_after: Option<u64>,
    /// Microseconds until the client hears.
    pub heard_after: u64,
    /// The answer that the client gets instead of the true one.
    pub error: Option<TableError>,
    /// The client hears that it happened, and is shown an item without attributes.
    pub is_empty: bool,
    /// A word for the log.
    pub word: &'static str,
}

impl Fate {
    /// Draws the fate of a request that leaves at `now_us`.
    pub fn draw(op: &Op, faults: &Faults, now_us: u64, rng: &mut Rng) -> Self {
        let fate = Self::draw_without_stall(op, faults, rng);
        match (faults.stall_us, fate.seen_after) {
            (Some((from, until)), Some(after)) if (from..until).contains(&(now_us + after)) => {
                fate.held_until(until - now_us, faults.timeout_us.unsigned_abs())
            }
            _ => fate,
        }
    }

    /// Draws the fate of a request that leaves during an outage.
    pub fn in_outage(kind: OutageKind, faults: &Faults, rng: &mut Rng) -> Self {
        let (there, back) = (latency(faults, rng), latency(faults, rng));
        let timeout = faults.timeout_us.unsigned_abs();
        let seen = there.min(timeout);
        let (seen_after, heard_after, kind, applied) = match kind {
            OutageKind::Unreachable => (None, back, FailureKind::Unreachable, Applied::No),
            OutageKind::Silent => (None, timeout, FailureKind::Timeout, Applied::Unknown),
            OutageKind::Deaf => (Some(seen), timeout, FailureKind::Timeout, Applied::Unknown),
            OutageKind::Failing => {
                let seen = rng.chance(200).then_some(there);
                (seen, there + back, FailureKind::Internal, Applied::Unknown)
            }
            OutageKind::Throttled => (None, there + back, FailureKind::Throttled, Applied::No),
        };
        Self {
            seen_after,
            heard_after,
            error: Some(TableError::new(kind, applied, "outage")),
            is_empty: false,
            word: "outage",
        }
    }

    /// The table sees it only after this time.
    fn held_until(self, seen_after: u64, timeout: u64) -> Self {
        let heard_after = seen_after + self.heard_after.saturating_sub(self.seen_after.unwrap_or(0));
        let lost = || TableError::new(FailureKind::Timeout, Applied::Unknown, "held");
        let error = if heard_after > timeout {
            Some(lost())
        } else {
            self.error
        };
        Self {
            seen_after: Some(seen_after),
            heard_after: heard_after.min(timeout),
            error,
            is_empty: false,
            word: "held",
        }
    }

    fn draw_without_stall(op: &Op, faults: &Faults, rng: &mut Rng) -> Self {
        let there = latency(faults, rng);
        let back = latency(faults, rng);
        let timeout = faults.timeout_us.unsigned_abs();
        let refused = |kind, word| Self {
            seen_after: None,
            heard_after: there + back,
            error: Some(TableError::new(kind, Applied::No, word)),
            is_empty: false,
            word,
        };
        let lost = |seen_after, heard_after, kind, word| Self {
            seen_after,
            heard_after,
            error: Some(TableError::new(kind, Applied::Unknown, word)),
            is_empty: false,
            word,
        };
        let is_write = !matches!(op, Op::Get { .. } | Op::BatchGet { .. } | Op::Query(_));
        // Each fate takes its band of the thousand.
        let (roll, mut edge) = (rng.range(0, 999) as u32, 0);
        let mut hit = |per_mille: u32| {
            edge += per_mille;
            roll < edge
        };
        if hit(faults.throttled) {
            refused(FailureKind::Throttled, "throttled")
        } else if hit(faults.unreachable) {
            refused(FailureKind::Unreachable, "unreachable")
        } else if hit(faults.lost_before) {
            lost(None, timeout, FailureKind::Timeout, "lost before")
        } else if hit(faults.lost_after) {
            lost(
                Some(there.min(timeout)),
                timeout,
                FailureKind::Timeout,
                "lost after",
            )
        } else if hit(faults.applied_late) {
            let late = timeout + rng.range(0, faults.timeout_us * 3).unsigned_abs();
            lost(Some(late), timeout, FailureKind::Timeout, "applied late")
        } else if hit(faults.internal) {
            let seen = rng.chance(500).then_some(there);
            lost(seen, there + back, FailureKind::Internal, "internal")
        } else if is_write && hit(faults.conflict) {
            refused(FailureKind::Conflict, "conflict")
        } else if hit(faults.permanent) {
            refused(FailureKind::BadRequest, "permanent")
        } else if matches!(op, Op::Update(_)) && hit(faults.empty) {
            Self {
                seen_after: None,
                heard_after: there + back,
                error: None,
                is_empty: true,
                word: "empty",
            }
        } else if hit(faults.slow) {
            let slow = rng
                .range(faults.timeout_us / 2, faults.timeout_us * 2)
                .unsigned_abs();
            if slow > timeout {
                lost(Some(there), timeout, FailureKind::Timeout, "too slow")
            } else {
                Self {
                    seen_after: Some(there),
                    heard_after: slow.max(there),
                    error: None,
                    is_empty: false,
                    word: "slow",
                }
            }
        } else {
            Self {
                seen_after: Some(there),
                heard_after: there + back,
                error: None,
                is_empty: false,
                word: "",
            }
        }
    }
}

/// One way's time: most near the typical one, some a few times as long.
fn latency(faults: &Faults, rng: &mut Rng) -> u64 {
    let typical = faults.latency_us / 2;
    let spread = if rng.chance(100) { typical * 5 } else { typical };
    (typical / 2 + rng.range(0, spread.max(1))).unsigned_abs()
}
