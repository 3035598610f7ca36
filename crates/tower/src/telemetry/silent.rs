//! The functions of [`record`](super::record) in a build without the feature `metrics`: they do nothing.

use zae_limiter::RateLimiter;

use super::{BodyOutcome, Outcome};
use crate::settle::Settle;

/// What a layer reports.
#[derive(Debug, Clone)]
pub(crate) struct Reports;

#[expect(clippy::unused_self, reason = "as with the feature")]
impl Reports {
    pub(crate) fn new(_: &RateLimiter) -> Self {
        Self
    }

    pub(crate) fn request(&self) -> RequestCall {
        RequestCall
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        InFlight
    }

    pub(crate) fn looks_for(&self, _: &str) {}

    #[inline]
    pub(crate) fn used(&self, _: &str, _: u64, _: u64) {}

    #[inline]
    pub(crate) fn usage_missing(&self, _: &str) {}

    #[inline]
    pub(crate) fn broken_off(&self, _: Settle) {}
}

/// A request until it is decided.
pub(crate) struct RequestCall;

#[expect(clippy::unused_self, reason = "as with the feature")]
impl RequestCall {
    #[inline]
    pub(crate) fn end(self, _: Outcome) {}
}

/// A request that holds a lease.
pub(crate) struct InFlight;

/// The body of a request while it is read.
pub(crate) struct BodyCall;

#[expect(clippy::unused_self, reason = "as with the feature")]
impl BodyCall {
    pub(crate) fn start_counters() {}

    pub(crate) fn begin() -> Self {
        Self
    }

    #[inline]
    pub(crate) fn end(self, _: BodyOutcome) {}
}
