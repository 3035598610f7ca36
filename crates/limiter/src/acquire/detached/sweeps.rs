//! How far the sweeps of this process have read the records of detached leases.
//!
//! The record of an ended lease is kept for some minutes after its lease has expired. If very many leases expire, it would be read
//! by each sweep until then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use smol_str::SmolStr;
use zae_limiter_core::EpochMillis;
use zae_limiter_core::detached::record::{KEPT_MS, expiry_of};
use zae_limiter_core::table::Key;

/// How often a slot is read from its beginning, in milliseconds: records can be written late, and those that were kept long enough are
/// to be deleted.
const WHOLE_MS: i64 = KEPT_MS / 2;

/// Records of leases that have expired within this time are read by every sweep, in milliseconds: a record that a process with a slow
/// clock, or after some attempts, writes within it is settled as fast as others.
const RECENT_MS: i64 = 60_000;

/// The last complete passes, by slot.
#[derive(Debug, Default)]
pub(crate) struct Sweeps(Mutex<Vec<Option<Seen>>>);

/// What a pass has read.
#[derive(Debug, Clone)]
struct Seen {
    /// When the slot was last read from its beginning.
    whole_at: EpochMillis,
    /// The sort key up to which nothing is left to write.
    up_to: Option<SmolStr>,
}

/// A pass over a slot.
#[derive(Debug)]
pub(crate) struct Pass {
    now: EpochMillis,
    seen: Seen,
    after: Option<SmolStr>,
    /// Whether something is left to write of a record that was read.
    is_stopped: bool,
}

impl Pass {
    /// The sort key after which the pass reads; `None` is the beginning.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The next record in order.
    pub(crate) fn has_seen(&mut self, key: Option<&Key>, is_complete: bool) {
        let is_old = |key: &&Key| {
            let expired = expiry_of(key);
            expired.is_some_and(|at| self.now.since(at) > RECENT_MS)
        };
        match key.filter(is_old) {
            Some(key) if is_complete && !self.is_stopped => self.seen.up_to = Some(key.sk.clone()),
            _ => self.is_stopped = true,
        }
    }
}

impl Sweeps {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a pass over a slot, after what the last one has found complete, or from the beginning.
    pub(crate) fn begin(&self, slot: u32, now: EpochMillis) -> Pass {
        let last = self.lock().get(slot as usize).cloned().flatten();
        // Also if the clock was set back.
        let is_valid = |seen: &Seen| (0..WHOLE_MS).contains(&now.since(seen.whole_at));
        let seen = last.filter(is_valid).unwrap_or(Seen {
            whole_at: now,
            up_to: None,
        });
        Pass {
            now,
            after: seen.up_to.clone(),
            seen,
            is_stopped: false,
        }
    }

    /// Ends a pass that has read the slot to its end.
    pub(crate) fn end(&self, slot: u32, pass: Pass) {
        let mut slots = self.lock();
        let at = slot as usize;
        if slots.len() <= at {
            slots.resize(at + 1, None);
        }
        slots[at] = Some(pass.seen);
    }
}
