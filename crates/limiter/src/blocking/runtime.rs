//! The threads behind the blocking types: how they are waited for, and how they end.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::task::coop;

use crate::Error;
use crate::acquire::background::Background;

/// How long dropping the last handle waits for background work.
const DROP: Duration = Duration::from_secs(5);

/// How long the work may continue behind, if it takes longer.
const BEHIND: Duration = Duration::from_secs(30);

/// How long to wait for a worker thread that has nothing to do any more.
const WORKER: Duration = Duration::from_secs(1);

/// A runtime, shared by all handles that were opened from one another.
#[derive(Debug)]
pub(super) struct Engine {
    handle: Handle,
    /// `None` once it is being dropped.
    runtime: Option<Runtime>,
    /// The background work of its repositories.
    background: Mutex<Vec<Background>>,
}

impl Engine {
    /// Starts a runtime.
    pub(super) fn start() -> Result<Arc<Self>, Error> {
        if is_async() {
            return Err(Error::AsyncContext);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("zae-limiter")
            .enable_all()
            .build()
            .map_err(|err| Error::Runtime(Arc::new(err)))?;
        Ok(Arc::new(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            background: Mutex::default(),
        }))
    }

    /// Runs what a repository does in the background on this runtime, and waits for it when it is dropped.
    pub(super) fn adopt(&self, background: &Background) {
        background.stay_at_home(true);
        let mut all = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(Background::is_shared);
        all.push(background.clone());
    }

    /// Waits for a future on this thread.
    ///
    /// # Errors
    /// The future's own, and [`Error::AsyncContext`] if the thread is running an async task.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if is_async() {
            return Err(Error::AsyncContext);
        }
        block_on(&self.handle, work)
    }

    /// Waits for a future on this thread; if the thread is running an async task, polls it once instead, which starts
    /// whatever the future does in the background.
    pub(super) fn finish(&self, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        if !is_async() {
            return block_on(&self.handle, work);
        }
        let _entered = self.handle.enter();
        match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Error::AsyncContext),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let all = self.background.get_mut().unwrap_or_else(PoisonError::into_inner);
        let work: Vec<Background> = std::mem::take(all);
        for background in &work {
            // An async repository that outlives this one must not use its runtime.
            background.stay_at_home(false);
        }
        let work: Vec<Background> = work.into_iter().filter(|work| !work.is_idle()).collect();
        if work.is_empty() {
            return end(runtime);
        }
        let (handle, runtime) = (self.handle.clone(), Arc::new(Mutex::new(Some(runtime))));
        let take =
            |runtime: &Mutex<Option<Runtime>>| runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (done, is_done) = mpsc::channel::<()>();
        let behind = Arc::clone(&runtime);
        let thread = thread::Builder::new()
            .name("zae-limiter-end".to_owned())
            .spawn(move || {
                block_on(&handle, drain(&work));
                if let Some(runtime) = take(&behind) {
                    end(runtime);
                }
                drop(done);
            });
        match thread {
            Ok(_) if is_async() => {}
            Ok(_) => {
                // Ends with an error in any case: nothing is ever sent.
                if is_done.recv_timeout(DROP) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tracing::warn!("refunds are still being sent in the background");
                }
            }
            Err(error) => {
                tracing::error!(%error, "no thread to finish background work; tokens may stay consumed");
                if let Some(runtime) = take(&runtime) {
                    runtime.shutdown_background();
                }
            }
        }
    }
}

async fn drain(work: &[Background]) {
    let all = async {
        for background in work {
            background.drain(BEHIND).await;
        }
    };
    // What is left then says in the log that it could not end.
    let _ = tokio::time::timeout(BEHIND, all).await;
}

/// Ends a runtime without background work. A thread of another runtime must not wait.
fn end(runtime: Runtime) {
    match Handle::try_current() {
        Err(err) if err.is_missing_context() => runtime.shutdown_timeout(WORKER),
        _ => runtime.shutdown_background(),
    }
}

/// Whether this thread is running an async task, which a blocking call would hold up with all others on the thread.
///
/// A task has a budget of operations, after which it must yield to others. Threads for blocking work have none, although
/// they belong to a runtime, too.
fn is_async() -> bool {
    /// More than the budget of a task.
    const MANY: usize = 1024;
    if Handle::try_current().is_err() {
        return false;
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut spent = Vec::new();
    let mut has_budget = false;
    while spent.len() < MANY && !has_budget {
        match coop::poll_proceed(&mut context) {
            Poll::Ready(one) => spent.push(one),
            Poll::Pending => has_budget = true,
        }
    }
    // Each gives back the budget that it found, so that in the end all of it is back.
    while spent.pop().is_some() {}
    has_budget
}

struct Unpark {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Polls a future on this thread; its timers and its I/O are the runtime's. Unlike [`Runtime::block_on`] it can be
/// called anywhere.
fn block_on<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    let _entered = runtime.enter();
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        is_woken: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        while !unpark.is_woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_thread_may_wait_and_an_entered_one_too() {
        assert!(!is_async());
        let engine = Engine::start().unwrap();
        let _entered = engine.handle.enter();
        assert!(!is_async());
        assert_eq!(engine.block_on(async { Ok(1) }).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_task_is_told_and_keeps_its_budget() {
        for _ in 0..3 {
            assert!(is_async());
            assert!(coop::has_budget_remaining());
        }
        assert!(tokio::spawn(async { is_async() }).await.unwrap());
        assert!(!tokio::task::spawn_blocking(is_async).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_has_said_that_it_blocks_may_wait() {
        assert!(tokio::spawn(async { is_async() }).await.unwrap());
        let inside = tokio::spawn(async { tokio::task::block_in_place(is_async) });
        assert!(!inside.await.unwrap());
    }
}
