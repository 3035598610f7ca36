//! Tells calls that wait for a place when this process gives one back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use zae_limiter_core::schema::BucketId;

/// How many entities and resources may be listed before those for which no call waits are removed.
const LISTED: usize = 1024;

/// The entities and resources for whose places calls wait.
#[derive(Debug, Default)]
pub(super) struct Freed(Mutex<HashMap<BucketId, watch::Sender<u64>>>);

impl Freed {
    /// Sees each place of this entity and resource that is given back from now on.
    pub(super) fn watch(&self, id: &BucketId) -> watch::Receiver<u64> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= LISTED {
            waiting.retain(|_, sender| sender.receiver_count() > 0);
        }
        waiting
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// A place of this entity and resource was given back.
    pub(super) fn tell(&self, id: &BucketId) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = waiting.get(id) else { return };
        if sender.receiver_count() == 0 {
            waiting.remove(id);
        } else {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
