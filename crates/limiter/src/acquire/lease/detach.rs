//! A lease that another process may end.

use std::time::Duration;

use smol_str::format_smolstr;
use zae_limiter_core::InvalidInput;
use zae_limiter_core::detached::{DetachedLease, OnExpiry, Settlement};
use zae_limiter_core::table::{Applied, Op};

use super::{Held, Lease};
use crate::acquire::detached::settle;
use crate::acquire::draws::FastRandom;
use crate::admin::retry::{BRIEF, is_passing};
use crate::error::Error;

impl Lease {
    /// Makes the lease a value that any process can end, once, with [`Repository::end_lease`](crate::Repository::end_lease): one that
    /// has read it from a [text](DetachedLease::encode), or one that takes over after this one was killed.
    ///
    /// It has to be ended within `ttl`, from 1 s to 24 h. If it is not, `on_expiry` says what becomes of its tokens. With
    /// [`OnExpiry::Keep`] they stay consumed, and nothing is written now. With [`OnExpiry::GiveBack`] the lease is recorded in the
    /// table, with one write, and a process that calls [`Repository::sweep_leases`](crate::Repository::sweep_leases) gives them back.
    ///
    /// A lease that was granted [without the table](Self::is_degraded) has nothing to correct: it stays as it is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{DetachedLease, Limit, OnExpiry, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// let lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    /// let text = lease.detach(Duration::from_mins(5), OnExpiry::GiveBack).await?.encode();
    ///
    /// // In another process of the same namespace.
    /// let lease = DetachedLease::decode(&text).expect("it is the text of a lease");
    /// let end = lease.commit([(None, "tpd", 420)])?;
    /// assert!(!repo.end_lease(&lease, end).await?.is_repeated);
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 580);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a time to live out of range, for a lease that holds a place in flight, which only its own process
    /// can renew, and for one with adjustments that are not committed; [`Error::Unavailable`] and its like if the record could not
    /// be written. Then the tokens go back in the background.
    ///
    /// # Cancellation
    /// The tokens go back in the background, unless the lease was recorded: then they do when it expires.
    pub async fn detach(mut self, ttl: Duration, on_expiry: OnExpiry) -> Result<DetachedLease, Error> {
        self.check_detachable()?;
        let grants = match &self.held {
            Held::Table(grants) => grants.clone(),
            _ => Vec::new(),
        };
        let taken = self.request.parts().map(|(resource, amounts)| {
            let whole = amounts
                .iter()
                .map(|(name, amount)| (name.clone(), amount.floor_amount()));
            (resource.clone(), whole.collect())
        });
        let id = format_smolstr!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let owner = (self.inner.namespace.clone(), self.request.id.entity.clone());
        let now = self.inner.clock.now();
        // Without grants there is nothing to give back.
        let on_expiry = if grants.is_empty() {
            OnExpiry::Keep
        } else {
            on_expiry
        };
        let lease = DetachedLease::new(id, owner, taken.collect(), grants, on_expiry, (ttl, now))?;
        if let Some(put) = lease.record() {
            // Its name is new, so that one which is there already is its own.
            let put = || self.inner.table.call(Op::Put(put.clone()));
            let sent = BRIEF.repeat(is_passing, put);
            let deadline = self.timeout;
            let written = tokio::time::timeout(deadline, sent).await;
            let err = match written {
                Ok(Ok(_)) => None,
                Ok(Err(err)) if err.applied == Applied::No => {
                    // Nothing was written by this request. An earlier one may have been.
                    Some(self.inner.place.table_error(err))
                }
                Ok(Err(err)) => Some(self.inner.place.table_error(err)),
                Err(_) => {
                    let last = crate::error::Last::Nothing;
                    Some(self.inner.place.gave_up(deadline, true, last))
                }
            };
            if let Some(err) = err {
                self.held = Held::Finished;
                let inner = std::sync::Arc::clone(&self.inner);
                inner.background.clone().spawn("a lease without a record", async move {
                    let settlement = Settlement::withdraw(lease, &mut FastRandom);
                    if let Err(error) = settle(&inner, settlement).await {
                        tracing::warn!(%error, "tokens of a lease that could not be recorded stay consumed");
                    }
                });
                return Err(err);
            }
        }
        self.held = Held::Finished;
        Ok(lease)
    }

    fn check_detachable(&self) -> Result<(), InvalidInput> {
        if !self.places.is_empty() {
            let reason = "cannot be held by a detached lease: only its process renews it; end the lease here";
            return Err(InvalidInput::of_request("in_flight", "a place", reason));
        }
        if !self.deltas.is_empty() {
            let reason = "must be committed with the detached lease, not before it is detached";
            return Err(InvalidInput::of_request("adjustments", self.deltas.len(), reason));
        }
        Ok(())
    }
}
