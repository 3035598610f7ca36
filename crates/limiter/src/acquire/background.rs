//! Work that outlives its caller: finishing requests in flight, refunds, bringing buckets up to date.
//!
//! Tokens must not be lost because a caller stopped waiting. Work that cannot be awaited is spawned here, and
//! [`Background::drain`] waits for it before a process ends.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// How many abandoned acquires may be finished in the background at a time. Each holds one or two requests that were
/// sent and not answered.
pub(crate) const MAX_ABANDONED: usize = 4096;

/// A count of background tasks, and the runtime they run on.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    handle: Option<Handle>,
    running: Arc<Running>,
    abandoned: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Running {
    tasks: AtomicUsize,
    /// Whether tasks run on the runtime that was current at the start, rather than on the caller's.
    stays_at_home: AtomicBool,
    idle: Notify,
    /// How many drains are under way, and told when one begins.
    drains: AtomicUsize,
    drained: Notify,
}

impl Background {
    /// Spawns on the runtime that is current now.
    pub(crate) fn new() -> Self {
        Self {
            handle: Handle::try_current().ok(),
            running: Arc::default(),
            abandoned: Arc::new(Semaphore::new(MAX_ABANDONED)),
        }
    }

    /// Room for one more abandoned acquire, held until the permit is dropped.
    pub(crate) fn admit_abandoned(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.abandoned).try_acquire_owned().ok()
    }

    /// Starts a task, or logs that it cannot run because there is no runtime any more.
    pub(crate) fn spawn(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let Some(handle) = self.runtime() else {
            tracing::error!(
                what,
                "no runtime to finish background work on; tokens stay consumed"
            );
            return;
        };
        self.running.tasks.fetch_add(1, Ordering::AcqRel);
        let done = Done(Arc::clone(&self.running));
        handle.spawn(async move {
            let _done = done;
            task.await;
        });
    }

    /// Starts a task that no drain waits for. It has to be aborted.
    pub(crate) fn spawn_beside(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortHandle> {
        Some(self.runtime()?.spawn(task).abort_handle())
    }

    fn runtime(&self) -> Option<Handle> {
        let current = || Handle::try_current().ok();
        if self.running.stays_at_home.load(Ordering::Acquire) {
            self.handle.clone().or_else(current)
        } else {
            current().or_else(|| self.handle.clone())
        }
    }

    #[cfg(feature = "blocking")]
    /// Sets whether tasks run on the runtime that was current when this was made, whichever is current later. A caller's
    /// runtime may end, or be held up, before the task does.
    pub(crate) fn stay_at_home(&self, stay: bool) {
        self.running.stays_at_home.store(stay, Ordering::Release);
    }

    /// How many tasks are running.
    #[cfg(feature = "metrics")]
    pub(crate) fn tasks(&self) -> usize {
        self.running.tasks.load(Ordering::Acquire)
    }

    #[cfg(feature = "blocking")]
    /// Whether no task is running.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.tasks.load(Ordering::Acquire) == 0
    }

    #[cfg(feature = "blocking")]
    /// Whether anything else uses it: a repository, or a task.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.running) > 1
    }

    /// Whether a drain is under way: nothing waits for something better then.
    pub(crate) fn is_draining(&self) -> bool {
        self.running.drains.load(Ordering::Acquire) > 0
    }

    /// Waits until a drain is under way.
    pub(crate) async fn draining(&self) {
        let begins = self.running.drained.notified();
        tokio::pin!(begins);
        begins.as_mut().enable();
        if !self.is_draining() {
            begins.await;
        }
    }

    /// Waits until no task is running, but no longer than `within`. Returns how many still are.
    pub(crate) async fn drain(&self, within: Duration) -> usize {
        let _draining = Draining::begin(&self.running);
        // Either it is idle, or the time is up; the count says which.
        let _ = tokio::time::timeout(within, self.idle()).await;
        self.running.tasks.load(Ordering::Acquire)
    }

    async fn idle(&self) {
        loop {
            let idle = self.running.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.running.tasks.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// A drain that is under way.
struct Draining(Arc<Running>);

impl Draining {
    fn begin(running: &Arc<Running>) -> Self {
        running.drains.fetch_add(1, Ordering::AcqRel);
        running.drained.notify_waiters();
        Self(Arc::clone(running))
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.drains.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a task as done however it ends, a panic or a dying runtime included.
struct Done(Arc<Running>);

impl Drop for Done {
    fn drop(&mut self) {
        if self.0.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abandoned_acquires_are_bounded() {
        let background = Background::new();
        let mut permits: Vec<_> = (0..MAX_ABANDONED).map(|_| background.admit_abandoned()).collect();
        assert!(permits.iter().all(Option::is_some));
        assert!(background.admit_abandoned().is_none());
        permits.pop();
        assert!(background.admit_abandoned().is_some());
    }
}
