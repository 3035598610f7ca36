//! The namespace of a load test.

use zae_limiter::{Error, RateLimiter, Stack};

use super::WHAT;
use crate::args::Connection;
use crate::commands::failed;
use crate::connect;
use crate::failure::{Failure, options};
use crate::signals::Signals;

/// A namespace that exists for a test.
pub(super) struct Ground<'a> {
    at: &'a Connection,
    stack: Stack,
    /// The limiter that all users share.
    pub(super) limiter: RateLimiter,
}

impl<'a> Ground<'a> {
    /// Registers a namespace, once `head` has been printed. Before that there is nothing to remove, in case that the
    /// output is closed.
    pub(super) async fn open(
        at: &'a Connection,
        head: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let stack = connect::measured_stack(at, WHAT).await?;
        stack.check_compatible().await.map_err(failed(at, WHAT))?;
        head()?;
        let name = format!("loadtest-{:08x}", fastrand::u32(..));
        let repo = stack.open(name.as_str()).await.map_err(failed(at, WHAT))?;
        connect::warn_of_clock();
        Ok(Self {
            at,
            stack,
            limiter: RateLimiter::new(repo),
        })
    }

    /// Removes the namespace and all that is in it, unless another signal ends that.
    pub(super) async fn clear(self, signals: &mut Signals) -> Result<(), Failure> {
        let name = self.limiter.repository().namespace_name().to_owned();
        let at = self.at;
        let removed = tokio::select! {
            biased;
            _ = signals.ending() => Err("interrupted".to_owned()),
            removed = self.remove() => removed.map_err(|err| err.to_string()),
        };
        removed.map_err(|why| left_over(&name, &why, at))
    }

    async fn remove(self) -> Result<(), Error> {
        let repo = self.limiter.repository();
        repo.drain().await;
        self.stack.delete_namespace(repo.namespace_name()).await?;
        self.stack.purge_namespace(repo.namespace_id(), &|_| ()).await?;
        Ok(())
    }
}

fn left_over(name: &str, why: &str, at: &Connection) -> Failure {
    let options = options(at);
    Failure::error(format!(
        "The namespace '{name}' was not removed: {why}. Remove it with 'zae-limiter namespace delete {name}{options}' \
         and 'zae-limiter namespace purge ID{options}', where ID is what 'zae-limiter namespace orphans{options}' shows."
    ))
}
