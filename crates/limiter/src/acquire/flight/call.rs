//! What a call says of its place in flight.

use std::time::Duration;

use super::Asked;
use crate::acquire::limiter::Acquire;

impl Acquire {
    /// Takes a place in flight as well: the lease holds it until it ends. At most as many leases hold one for the entity and
    /// resource at the same time as its concurrency limit says
    /// ([`Admin::set_entity_concurrency`](crate::Admin::set_entity_concurrency) and its like). If the entity cascades and a
    /// concurrency limit is set for its parent itself, the lease holds one of the parent's places, too, and so on up to the
    /// [cascade depth](crate::Admin::set_cascade_depth). Limits of a resource or of the system are for each entity's own requests.
    ///
    /// The place and the tokens are taken at the same time: both, or none. A call that takes a place need not
    /// [consume](Self::consume) any tokens; without any, it reads the configuration at the same time, since no bucket tells it whether
    /// the entity is disabled or under a bypass. Of [several resources](Self::also) the place is the first one's.
    ///
    /// A place is given back by [`Lease::commit`](crate::Lease::commit), [`Lease::rollback`](crate::Lease::rollback) and dropping the
    /// lease. If the process crashes, the place is free after its time to live ([`in_flight_ttl`](Self::in_flight_ttl)), 60 s unless
    /// the call names another, and 5 s more for differences between clocks. The lease renews it after each third of this
    /// time, on the runtime of the call. A runtime that is held up for so long loses the place:
    /// [`Lease::holds_place`](crate::Lease::holds_place).
    ///
    /// With [`wait`](Self::wait), a call that finds no place asks again, after at most 2 s and at once when this process gives a place
    /// of the entity and resource back. [`on_wait`](Self::on_wait) is not called for such waits.
    ///
    /// Under a bypass of the entity, a lease holds the places of the entities above it alone, and none if it was granted during an
    /// outage without the table. A call that waits takes its places first, and can be refused, until cached configuration has
    /// expired, although another process has set a bypass.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
    /// admin.set_resource_concurrency("gpt-4", 1).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 1).in_flight();
    ///
    /// let lease = call().await?;
    /// match call().await {
    ///     Err(Error::ConcurrencyExceeded(full)) => assert_eq!((full.in_flight, full.limit), (1, 1)),
    ///     other => panic!("expected a refusal, got {other:?}"),
    /// }
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rpm"], 99, "the refused call has given its token back");
    /// lease.commit().await?;
    /// call().await?.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`send`](Self::send) fails with [`Error::ConcurrencyExceeded`](crate::Error::ConcurrencyExceeded) if all places are taken, and
    /// with [`Error::InvalidInput`](crate::Error::InvalidInput) if no level has a concurrency limit for the entity.
    pub fn in_flight(mut self) -> Self {
        self.in_flight.get_or_insert_with(Asked::default);
        self
    }

    /// As [`in_flight`](Self::in_flight), with a limit of the call: at most so many, from 1 to 1000, instead of what is stored for the
    /// entity. What is stored for its parent applies.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, RateLimiter, Repository};
    ///
    /// let limiter = RateLimiter::new(Repository::in_memory().await?);
    /// // One export at a time, and no tokens.
    /// let export = || limiter.acquire("tenant-1", "export").in_flight_at_most(1);
    /// let lease = export().await?;
    /// assert!(matches!(export().await, Err(Error::ConcurrencyExceeded(_))));
    /// drop(lease);
    /// # Ok(()) }
    /// ```
    pub fn in_flight_at_most(mut self, limit: u32) -> Self {
        self.in_flight.get_or_insert_with(Asked::default).at_most = Some(limit);
        self
    }

    /// As [`in_flight`](Self::in_flight), with another time to live, from 5 s to 1 h: how long the place is held if the process
    /// crashes. Shorter ones are renewed more often, with a write each.
    pub fn in_flight_ttl(mut self, ttl: Duration) -> Self {
        self.in_flight.get_or_insert_with(Asked::default).ttl = Some(ttl);
        self
    }
}
