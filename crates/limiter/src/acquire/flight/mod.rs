//! Places in flight: what a call asks for, and how it gets them beside its tokens.
//!
//! `limits` reads and caches how many places there are, `places` takes those of a call, `held` keeps them and gives them back, and
//! `together` joins them with the tokens. `freed` tells calls that wait when this process gives a place back.

mod call;
mod freed;
mod held;
mod limits;
mod places;
mod together;

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use zae_limiter_core::InvalidInput;
use zae_limiter_core::concurrency::check_in_flight;
use zae_limiter_core::flight::{DEFAULT_TTL_MS, check_ttl};

use freed::Freed;
pub(super) use held::{Held, Returning, give_back_all};
use limits::Limits;
pub(super) use places::not_limited;
pub(super) use together::Waiting;

/// What all calls of a repository share about places.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) limits: Limits,
    freed: Freed,
    /// How many places leases of this process hold.
    pub(crate) held: AtomicUsize,
}

impl Flight {
    pub(crate) fn new(limits_ttl: Duration) -> Self {
        Self {
            limits: Limits::new(limits_ttl),
            freed: Freed::default(),
            held: AtomicUsize::new(0),
        }
    }
}

/// The places that a call asks for, as it says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    at_most: Option<u32>,
    ttl: Option<Duration>,
}

impl Asked {
    /// Checks what can be checked without the table.
    pub(super) fn check(self) -> Result<Wish, InvalidInput> {
        let at_most = self
            .at_most
            .map(|limit| check_in_flight("in_flight_at_most", limit));
        let ttl_ms = self.ttl.map(|ttl| {
            check_ttl(
                "in_flight_ttl",
                i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX),
            )
        });
        Ok(Wish {
            at_most: at_most.transpose()?,
            ttl_ms: ttl_ms.transpose()?.unwrap_or(DEFAULT_TTL_MS),
        })
    }
}

/// The places that a call asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// The entity's limit, if the call brings one.
    at_most: Option<u32>,
    /// How long a place is held after the last sign of life.
    ttl_ms: i64,
}
