//! The namespace of a load test.

use std::time::Duration;

use tokio::time::timeout;
use zae_limiter::{Error, NamespaceId, RateLimiter, Stack};

use super::WHAT;
use super::interrupts::Interrupts;
use crate::args::Connection;
use crate::commands::failed;
use crate::connect;
use crate::failure::{Failure, options};
use crate::signals::Ending;

/// How long removing the namespace may take. It removes a few hundred records a second.
const REMOVE_TIMEOUT: Duration = Duration::from_mins(2);

/// A namespace that exists for a test.
pub(super) struct TestNamespace<'a> {
    at: &'a Connection,
    stack: Stack,
    /// The limiter that all users share.
    pub(super) limiter: RateLimiter,
}

impl<'a> TestNamespace<'a> {
    /// Registers a namespace, once `head` has been printed. Before that there is nothing to remove, in case that the
    /// output is closed.
    pub(super) async fn open(
        at: &'a Connection,
        interrupts: &Interrupts,
        head: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let found = async {
            let stack = connect::measured_stack(at, WHAT).await?;
            stack.check_compatible().await.map_err(failed(at, WHAT))?;
            Ok::<_, Failure>(stack)
        };
        let stack = tokio::select! {
            biased;
            () = interrupts.first() => return Err(interrupts.heard().map_or_else(Failure::aborted, Ending::into_failure)),
            found = found => found?,
        };
        head()?;
        let name = format!("loadtest-{:08x}", fastrand::u32(..));
        let options = options(at);
        interrupts.leaves(Some(format!(
            "Error: The namespace '{name}' may have been registered. If 'zae-limiter namespace show {name}{options}' finds it, remove \
             it with 'zae-limiter namespace delete {name}{options}' and 'zae-limiter namespace purge ID{options}'."
        )));
        // To its end, so that it is known whether there is something to remove.
        let repo = stack.open(name.as_str()).await.map_err(failed(at, WHAT))?;
        connect::warn_of_clock();
        let namespace = Self {
            at,
            stack,
            limiter: RateLimiter::new(repo),
        };
        interrupts.leaves(Some(format!("Error: {}", namespace.left_over("interrupted"))));
        Ok(namespace)
    }

    fn id(&self) -> &NamespaceId {
        self.limiter.repository().namespace_id()
    }

    fn left_over(&self, why: &str) -> String {
        let (name, id, options) = (
            self.limiter.repository().namespace_name(),
            self.id(),
            options(self.at),
        );
        format!(
            "The namespace '{name}' was not removed: {why}. Remove it with 'zae-limiter namespace delete {name}{options}' \
             and 'zae-limiter namespace purge {id}{options}'."
        )
    }

    /// Removes the namespace and all that is in it.
    pub(super) async fn clear(self, interrupts: &Interrupts) -> Result<(), Failure> {
        let removed = match timeout(REMOVE_TIMEOUT, self.remove()).await {
            Ok(removed) => removed.map_err(|err| err.to_string()),
            Err(_) => Err(format!("it took more than {} s", REMOVE_TIMEOUT.as_secs())),
        };
        interrupts.leaves(None);
        removed.map_err(|why| Failure::error(self.left_over(&why)))
    }

    async fn remove(&self) -> Result<(), Error> {
        let repo = self.limiter.repository();
        repo.drain().await;
        self.stack.delete_namespace(repo.namespace_name()).await?;
        self.stack.purge_namespace(self.id(), &|_| ()).await?;
        Ok(())
    }
}
