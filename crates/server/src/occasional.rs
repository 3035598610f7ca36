//! Log lines that many requests have reason to write: one a second at most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The state of one kind of log line.
#[derive(Debug, Default)]
pub(crate) struct Occasional(Mutex<(Option<Instant>, u64)>);

impl Occasional {
    /// Whether to write a line now, and how many were left out since the last one.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.0.is_some_and(|next| now < next) {
            state.1 += 1;
            return None;
        }
        let left_out = std::mem::take(&mut state.1);
        state.0 = Some(now + Duration::from_secs(1));
        Some(left_out)
    }
}
