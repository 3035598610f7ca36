//! The running functions: kept warm, reused, and ended when they are not needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::finished::Finished;
use super::instance::Instance;
use super::machine::{NotStarted, Notes};
use super::process::Launch;
use crate::lambda::services::Services;

/// How many invocations may run at once, over all functions.
const CONCURRENCY: usize = 32;

/// Why a function was not run, which may pass.
#[derive(Debug)]
pub(crate) enum NotRun {
    /// There are as many invocations as there may be.
    Busy,
    /// The machine is out of something.
    Lacking(String),
}

/// The running functions.
#[derive(Debug)]
pub(crate) struct Pool {
    services: Arc<dyn Services>,
    notes: Notes,
    idle_for: Duration,
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    counter: u64,
    functions: HashMap<String, Warm>,
}

/// The warm instances of a function.
#[derive(Debug, Default)]
struct Warm {
    /// Counts the function's changes: an instance of an earlier one is not taken again.
    generation: u64,
    /// The one used last is taken first, so that those not needed grow old.
    idle: Vec<(u64, Instance)>,
}

impl Pool {
    pub(crate) fn new(services: Arc<dyn Services>, notes: Notes, idle_for: Duration) -> Arc<Self> {
        Arc::new(Self {
            services,
            notes,
            idle_for,
            permits: Semaphore::new(CONCURRENCY),
            state: Mutex::default(),
        })
    }

    /// Runs an invocation to its end.
    pub(crate) async fn run(
        self: &Arc<Self>,
        launch: Launch,
        request_id: String,
        payload: Bytes,
    ) -> Result<Finished, NotRun> {
        let _permit = self.permits.try_acquire().map_err(|_| NotRun::Busy)?;
        let key = launch.id.key();
        let (generation, warm) = {
            let mut state = self.state();
            if state.stopped {
                return Err(NotRun::Busy);
            }
            let warm = state.functions.entry(key.clone()).or_default();
            let mut found = None;
            // Some may have ended by themselves.
            while let Some((_, instance)) = warm.idle.pop() {
                if instance.is_alive() {
                    found = Some(instance);
                    break;
                }
            }
            (warm.generation, found)
        };
        let mut instance = match warm {
            Some(instance) => instance,
            None => match Instance::start(Arc::new(launch), Arc::clone(&self.services), &self.notes).await {
                Ok(instance) => instance,
                Err(NotStarted::Lacking(what)) => {
                    tracing::warn!(
                        function = key,
                        error = what,
                        "a function could not be started now"
                    );
                    return Err(NotRun::Lacking(what));
                }
                Err(NotStarted::Unfit(unfit)) => {
                    tracing::warn!(
                        function = key,
                        error = unfit.message,
                        "a function could not be started"
                    );
                    return Ok(unfit.finished(request_id));
                }
            },
        };
        let finished = instance.invoke(request_id, payload).await;
        self.put_back(key, generation, instance).await;
        Ok(finished)
    }

    async fn put_back(self: &Arc<Self>, key: String, generation: u64, instance: Instance) {
        let unwanted = {
            let mut state = self.state();
            state.counter += 1;
            let (stopped, number) = (state.stopped, state.counter);
            let warm = state.functions.entry(key.clone()).or_default();
            if stopped || warm.generation != generation || !instance.is_alive() {
                Some(instance)
            } else {
                warm.idle.push((number, instance));
                tokio::spawn(expire(Arc::downgrade(self), key, number, self.idle_for));
                None
            }
        };
        if let Some(instance) = unwanted {
            instance.end().await;
        }
    }

    /// Sees to it that no instance of a function as it was is used again.
    pub(crate) async fn retire(&self, key: &str) {
        let idle = match self.state().functions.get_mut(key) {
            Some(warm) => {
                warm.generation += 1;
                std::mem::take(&mut warm.idle)
            }
            None => Vec::new(),
        };
        end(idle).await;
    }

    /// Ends all that is idle, and lets nothing begin any more. What still works ends when it is done or the
    /// process goes.
    pub(crate) async fn stop(&self) {
        let functions = {
            let mut state = self.state();
            state.stopped = true;
            std::mem::take(&mut state.functions)
        };
        end(functions.into_values().flat_map(|warm| warm.idle)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends instances, all at once: each may take a while to be gone.
async fn end(instances: impl IntoIterator<Item = (u64, Instance)>) {
    join_all(instances.into_iter().map(|(_, instance)| instance.end())).await;
}

/// Ends an instance that has not been used for a while.
async fn expire(pool: Weak<Pool>, key: String, number: u64, idle_for: Duration) {
    tokio::time::sleep(idle_for).await;
    let Some(pool) = pool.upgrade() else {
        return;
    };
    let expired = {
        let mut state = pool.state();
        state.functions.get_mut(&key).and_then(|warm| {
            let place = warm.idle.iter().position(|(idle, _)| *idle == number)?;
            Some(warm.idle.remove(place).1)
        })
    };
    if let Some(instance) = expired {
        instance.end().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lambda::functions::package::Packages;
    use crate::lambda::functions::record::Code;
    use crate::lambda::names::FunctionId;
    use crate::lambda::program::Program;
    use crate::logs::LogLine;
    use crate::wire::Refusal;

    #[derive(Debug)]
    struct Nobody;

    impl Services for Nobody {
        fn object(&self, _: &str, _: &str) -> Result<Bytes, Refusal> {
            Err(Refusal::internal(&"nothing is there"))
        }

        fn send(&self, _: &str, _: &str) -> Result<(), Refusal> {
            Ok(())
        }

        fn log(&self, _: &str, _: &str, _: &str, _: &[LogLine]) -> Result<(), Refusal> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn instances_end_all_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let code = Code {
            sha256: "00".to_owned(),
            size: 0,
        };
        let packages = Packages::open(directory.path().to_owned()).unwrap();
        let launch = Arc::new(Launch {
            id: FunctionId::read("eu-west-1", "f").unwrap(),
            package: packages.hold(&code),
            program: Program::Bootstrap,
            runtime: String::new(),
            handler: String::new(),
            architecture: String::new(),
            memory_mb: 128,
            timeout: Duration::from_secs(1),
            endpoint: String::new(),
            environment: Vec::new(),
        });
        let puppet = || Instance::puppet(Arc::clone(&launch), Arc::new(Nobody));
        let ((one, one_told, one_ends), (other, other_told, other_ends)) = (puppet(), puppet());
        // Neither ends before both were asked to.
        let ending = async {
            one_told.notified().await;
            other_told.notified().await;
            one_ends();
            other_ends();
        };
        let ended = async { tokio::join!(end([(1, one), (2, other)]), ending) };
        let hour = Duration::from_hours(1);
        assert!(tokio::time::timeout(hour, ended).await.is_ok());
    }
}
