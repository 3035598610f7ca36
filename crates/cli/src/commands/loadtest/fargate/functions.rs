//! Starts workers as calls of the worker's function.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zae_limiter_infra::StackManager;
use zae_limiter_loadtest::cluster::Launcher;
use zae_limiter_loadtest::function::Join;

/// How many calls are made at a time.
const AT_ONCE: usize = 20;

/// Calls a function for each worker.
pub(super) struct Functions {
    manager: StackManager,
    function: String,
    event: Vec<u8>,
    at_once: Arc<Semaphore>,
    /// Calls under way. The master does not wait for them, as its workers must hear of it.
    calls: JoinSet<Result<(), String>>,
}

impl Functions {
    pub(super) fn new(manager: StackManager, function: &str, join: &Join) -> Self {
        Self {
            manager,
            function: function.to_owned(),
            event: join.to_event().to_string().into_bytes(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            calls: JoinSet::new(),
        }
    }
}

impl Launcher for Functions {
    async fn launch(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let (manager, at_once) = (self.manager.clone(), Arc::clone(&self.at_once));
            let (function, event) = (self.function.clone(), self.event.clone());
            self.calls.spawn(async move {
                let _place = at_once.acquire_owned().await;
                let called = manager.invoke_and_forget(&function, event).await;
                called.map_err(|err| format!("the function {function}: {err}"))
            });
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        while let Some(called) = self.calls.try_join_next() {
            called.unwrap_or_else(|err| Err(err.to_string()))?;
        }
        Ok(())
    }
}
