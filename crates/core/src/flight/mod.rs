//! Places in flight: at most so many requests of an entity and resource at the same time.
//!
//! All places of an entity and resource are in one item: a counter, and for each holder the time at which its place expires.
//! [`Take`] takes a place with one write, [`GiveBack`] gives it back with one, and [`Hold`] is a place that is held: it moves the
//! expiry ahead from time to time. A holder that has crashed does not, and the next call that needs its place takes it.
//!
//! The machines perform no I/O: a driver asks for the [`Next`] thing to do, and tells the answers. The reasons are in
//! [ADR 32](https://github.com/zeroae/zae-limiter-rs/blob/main/docs/adr/0032-places-in-flight-expire.md).

mod give_back;
mod hold;
mod holders;
mod refused;
mod take;

use smol_str::{SmolStr, format_smolstr};

pub use give_back::{GiveBack, GiveBackEnd};
pub use hold::Hold;
pub use holders::{Holders, flight_key};
pub use refused::ConcurrencyExceeded;
pub use take::{Take, TakeEnd};

use crate::acquire::{Found, known_owner};
use crate::error::InvalidInput;
use crate::name::EntityId;
use crate::random::Random;
use crate::table::{Applied, FailureKind, Op, TableError};

/// How long a place is held after the last sign of life of its holder, unless the call says otherwise, in milliseconds.
pub const DEFAULT_TTL_MS: i64 = 60_000;

/// The shortest such time that a call can name.
pub const MIN_TTL_MS: i64 = 5_000;

/// The longest such time that a call can name.
pub const MAX_TTL_MS: i64 = 3_600_000;

/// How long after its expiry a place can be taken by others, in milliseconds: more than the clocks of two processes that follow the
/// table's are apart ([ADR 16](https://github.com/zeroae/zae-limiter-rs/blob/main/docs/adr/0016-time-comes-from-the-table.md)).
pub const MARGIN_MS: i64 = 5_000;

/// The entity above the last one of a chain whose place a request holds as well, if it has a concurrency limit of its own.
/// `found` is what is known of the last entity, and `chain` all entities so far.
pub fn above<'a>(found: &'a Found, chain: &[EntityId]) -> Option<&'a EntityId> {
    let level = chain.len().saturating_sub(1);
    found
        .config
        .depth
        .next_above(known_owner(found), level, chain.iter())
}

/// Checks a time to live of a place.
pub fn check_ttl(field: &str, ttl_ms: i64) -> Result<i64, InvalidInput> {
    if !(MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
        let reason = format!("must be from {} to {} s", MIN_TTL_MS / 1000, MAX_TTL_MS / 1000);
        return Err(InvalidInput::new(field, format!("{ttl_ms} ms"), reason));
    }
    Ok(ttl_ms)
}

/// The name of a holder: of one call, and of no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(SmolStr);

impl Holder {
    /// A new name.
    pub fn draw(random: &mut dyn Random) -> Self {
        Self(format_smolstr!("{:016x}", random.bits()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The attribute that holds the expiry of its place.
    fn attribute(&self) -> SmolStr {
        format_smolstr!("{}{}", holders::HOLDER, self.0)
    }
}

/// What a driver does next for a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Send this to the table, and tell the answer.
    Send(Box<Op>),
    /// Wait for so many milliseconds, and ask again.
    Pause(u64),
    /// Nothing: it has ended.
    Ended,
}

/// Whether a request that failed is worth sending again. Each of these writes may happen twice without harm.
fn is_passing(err: &TableError) -> bool {
    !matches!(
        err.kind,
        FailureKind::AccessDenied | FailureKind::TableMissing | FailureKind::BadRequest
    )
}

/// An answer that no update has.
fn wrong_answer() -> TableError {
    let message = "the table answered an update with something else";
    TableError::new(FailureKind::Internal, Applied::Unknown, message)
}

#[cfg(test)]
mod tests;
