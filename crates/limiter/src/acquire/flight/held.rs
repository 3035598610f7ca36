//! A place that this process holds: renewed while it lives, and given back when it is dropped.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use zae_limiter_core::flight::{GiveBack, GiveBackEnd, Hold, Next};
use zae_limiter_core::table::{Answer, Op, TableError};

use crate::acquire::draws::FastRandom;
use crate::inner::Inner;
use crate::telemetry::PlaceEvent;

/// A place in flight. Dropping it gives it back in the background.
pub(in crate::acquire) struct Held {
    inner: Arc<Inner>,
    hold: Arc<Mutex<Hold>>,
    /// The task that renews it.
    beats: Option<AbortHandle>,
    /// Whether it is on its way back.
    is_returned: bool,
}

/// A place on its way back. The outcome is lost only if the runtime ends.
pub(in crate::acquire) type Returning = oneshot::Receiver<GiveBackEnd>;

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&*lock(&self.hold)).finish()
    }
}

fn lock(hold: &Mutex<Hold>) -> MutexGuard<'_, Hold> {
    hold.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Keeps a place that was taken.
    pub(super) fn new(inner: Arc<Inner>, hold: Hold) -> Self {
        inner.flight.held.fetch_add(1, Ordering::Relaxed);
        inner.telemetry.place(PlaceEvent::Taken);
        let hold = Arc::new(Mutex::new(hold));
        let renewing = renew(Arc::clone(&inner), Arc::clone(&hold));
        let beats = inner.background.spawn_beside(renewing);
        Self {
            inner,
            hold,
            beats,
            is_returned: false,
        }
    }

    /// Whether it is certainly held.
    pub(in crate::acquire) fn is_held(&self) -> bool {
        lock(&self.hold).is_held(self.inner.clock.now())
    }

    /// Gives it back in the background, at once.
    fn give_back(mut self) -> Returning {
        self.start_return()
    }

    fn start_return(&mut self) -> Returning {
        self.is_returned = true;
        self.inner.flight.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(beats) = self.beats.take() {
            // A renewal that is on its way finds no place to renew, or is followed by the write that gives it back.
            beats.abort();
        }
        let give_back = lock(&self.hold).give_back();
        self.inner.give_place_back(give_back)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_returned {
            drop(self.start_return());
        }
    }
}

/// Gives places back in the background, at once.
pub(in crate::acquire) fn give_back_all(places: Vec<Held>) -> Vec<Returning> {
    places.into_iter().map(Held::give_back).collect()
}

/// Renews a place until it is lost, or the task is aborted.
async fn renew(inner: Arc<Inner>, hold: Arc<Mutex<Hold>>) {
    loop {
        // The lock is not held while anything is awaited.
        let next = lock(&hold).next(inner.clock.now());
        match next {
            Next::Ended => {
                inner.telemetry.place(PlaceEvent::Lost);
                let (entity, resource) = {
                    let hold = lock(&hold);
                    (hold.id().entity.clone(), hold.id().resource.clone())
                };
                tracing::warn!(
                    %entity,
                    resource = resource.as_str(),
                    "a lease has lost its place in flight: it was not renewed in time, or the entity was deleted"
                );
                return;
            }
            Next::Pause(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Next::Send(op) => {
                let answer = inner.ask_for_place(*op).await;
                lock(&hold).answer(answer, &mut FastRandom);
            }
        }
    }
}

impl Inner {
    /// Sends a write of a place, with a bound on its answer.
    pub(super) async fn ask_for_place(&self, op: Op) -> Result<Answer, TableError> {
        let permit = self.permits.take().await;
        let answer = self.answer_to_credit(op).await;
        drop(permit);
        answer
    }

    /// Gives a place back in the background, as often as it takes until the table has answered or the place has expired.
    pub(super) fn give_place_back(self: &Arc<Self>, mut give_back: GiveBack) -> Returning {
        let (done, end) = oneshot::channel();
        let inner = Arc::clone(self);
        self.background.spawn("places in flight", async move {
            loop {
                match give_back.next(inner.clock.now()) {
                    Next::Ended => break,
                    Next::Pause(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                    Next::Send(op) => {
                        let answer = inner.ask_for_place(*op).await;
                        give_back.answer(answer, &mut FastRandom);
                    }
                }
            }
            inner.flight.freed.tell(give_back.id());
            let Some(end) = give_back.end().cloned() else {
                return;
            };
            if let GiveBackEnd::Failed(error) = &end {
                inner.telemetry.place(PlaceEvent::NotReturned);
                let id = give_back.id();
                tracing::warn!(
                    entity = %id.entity,
                    resource = id.resource.as_str(),
                    %error,
                    "a place in flight was not given back; it is free when it has expired"
                );
            }
            // The caller may have gone.
            let _ = done.send(end);
        });
        end
    }
}
