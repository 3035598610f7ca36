//! [`Lease`]: tokens that were taken, and may be corrected, kept or given back.

mod corrections;
mod detach;
mod part;
mod place;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::acquire::{Grant, Request, statuses_after};
use zae_limiter_core::outage::local_buckets::Claim;
use zae_limiter_core::{EntityId, InvalidInput, LimitStatus, ResourceName};

use crate::acquire::flight::{Held as HeldPlace, Returning, give_back_all};
use crate::error::Error;
use crate::inner::Inner;
use part::Delta;
pub use part::LeasePart;

/// Tokens taken from an entity's bucket, and its parent's if it cascades: of one resource, or of several
/// ([`Acquire::also`](crate::Acquire::also)). Then its methods are about the first resource, [`on`](Self::on) leads to the others,
/// and [`commit`](Self::commit) and [`rollback`](Self::rollback) end all of them.
///
/// The acquire has already taken the tokens from the table. Finish a lease with [`commit`](Self::commit), which writes
/// the adjustments, or with [`rollback`](Self::rollback), which gives all tokens back.
///
/// # Drop
/// A lease that is dropped unfinished is rolled back in the background, and the log says so.
/// [`Repository::drain`](crate::Repository::drain) waits for such refunds; a process that ends before them
/// leaves the tokens consumed.
#[must_use = "dropping a lease gives its tokens back; finish it with `commit` or `rollback`"]
pub struct Lease {
    inner: Arc<Inner>,
    request: Request,
    held: Held,
    /// Corrections that are not written yet.
    deltas: Vec<Delta>,
    /// How long a commit or rollback waits for its writes.
    timeout: Duration,
    /// Why the table did not grant it.
    outage: Option<Box<Error>>,
    /// Places in flight, which go back when this is dropped.
    places: Vec<HeldPlace>,
}

/// The source of a lease's tokens.
enum Held {
    /// Debited in the table.
    Table(Vec<Grant>),
    /// Debited in this process's memory, during an outage.
    Local(Vec<Claim>),
    /// Admitted without limits, during an outage.
    Nothing,
    /// Nothing any more.
    Finished,
}

impl Lease {
    pub(crate) fn granted(inner: &Arc<Inner>, request: &Request, grants: Vec<Grant>) -> Self {
        Self::new(inner, request, Held::Table(grants))
    }

    pub(crate) fn local(inner: &Arc<Inner>, request: &Request, claims: Vec<Claim>, outage: Error) -> Self {
        let mut lease = Self::new(inner, request, Held::Local(claims));
        lease.outage = Some(Box::new(outage));
        lease
    }

    pub(crate) fn unlimited(inner: &Arc<Inner>, request: &Request, outage: Error) -> Self {
        let mut lease = Self::new(inner, request, Held::Nothing);
        lease.outage = Some(Box::new(outage));
        lease
    }

    fn new(inner: &Arc<Inner>, request: &Request, held: Held) -> Self {
        Self {
            inner: Arc::clone(inner),
            request: request.clone(),
            held,
            deltas: Vec::new(),
            timeout: inner.options.acquire_timeout,
            outage: None,
            places: Vec::new(),
        }
    }

    /// Sets how long [`commit`](Self::commit) and [`rollback`](Self::rollback) wait for their writes, in addition to the
    /// repository's [`correction_delay`](crate::RepositoryBuilder::correction_delay). Default: the repository's
    /// [`acquire_timeout`](crate::RepositoryBuilder::acquire_timeout).
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The entity.
    pub fn entity(&self) -> &EntityId {
        &self.request.id.entity
    }

    /// The resource, of several the first.
    pub fn resource(&self) -> &ResourceName {
        &self.request.id.resource
    }

    /// All resources, in the order of the call.
    pub fn resources(&self) -> Vec<&ResourceName> {
        self.request.parts().map(|(resource, _)| resource).collect()
    }

    /// One resource of a lease of several.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_minute("tpm", 10_000)]).await?;
    /// admin.set_resource_defaults("budget", [Limit::per_day("cents", 500)]).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let call = limiter.acquire("key-1", "gpt-4").consume("tpm", 800).also("budget", [("cents", 5)]);
    /// let mut lease = call.await?;
    /// lease.adjust_to("tpm", 620)?;
    /// lease.on("budget")?.adjust_to("cents", 4)?;
    /// lease.commit().await?;
    /// assert_eq!(limiter.available("key-1", "budget").await?["cents"], 496);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a resource that the call did not name.
    pub fn on(&mut self, resource: impl AsRef<str>) -> Result<LeasePart<'_>, Error> {
        let resource = resource.as_ref();
        let part = self
            .request
            .parts()
            .position(|(named, _)| named.as_str() == resource);
        if let Some(part) = part {
            return Ok(LeasePart { lease: self, part });
        }
        let names: Vec<&str> = self.request.parts().map(|(named, _)| named.as_str()).collect();
        let reason = format!("is not a resource of this lease; it has: {}", names.join(", "));
        Err(InvalidInput::of_request("resource", resource, reason).into())
    }

    /// Whole tokens of a limit that this lease holds, including adjustments; 0 for a limit that it did not name.
    pub fn consumed(&self, limit: impl AsRef<str>) -> u64 {
        self.consumed_of(0, limit.as_ref())
    }

    /// The soft limits that this lease has left in debt, its entity's and its parent's, without repetitions.
    pub fn overdrawn(&self) -> Vec<&str> {
        self.overdrawn_of(0)
    }

    /// How the limits that the call named stood when it had been admitted: for each resource, the entity's before those of the
    /// entities above it. For header fields of a response; no request is made.
    ///
    /// Adjustments are not in them, and other processes may have taken tokens since. The numbers of a bucket of several shards are
    /// those of the shard that was debited ([`LimitStatus::shards`]). Empty under a bypass, and for a lease that was granted
    /// [without the table](Self::is_degraded).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 300).await?;
    /// let status = &lease.statuses()[0];
    /// assert_eq!((status.requested, status.available, status.capacity), (300, 700, 1_000));
    /// # Ok(()) }
    /// ```
    pub fn statuses(&self) -> Vec<LimitStatus> {
        match &self.held {
            Held::Table(grants) => statuses_after(grants, self.inner.clock.now()),
            _ => Vec::new(),
        }
    }

    /// Whether the bucket of the entity is under a bypass, so that the tokens are only counted: see
    /// [`Admin::set_entity_access`](crate::Admin::set_entity_access). Commit and rollback correct the count. That of its parent can be under
    /// one of its own.
    pub fn is_bypassed(&self) -> bool {
        self.is_bypassed_of(0)
    }

    /// Whether the lease was granted during an outage, without the table: see
    /// [`OnUnavailable`](crate::OnUnavailable).
    pub fn is_degraded(&self) -> bool {
        matches!(self.held, Held::Local(_) | Held::Nothing)
    }

    /// Why the table could not be used, if the lease was granted without it ([`is_degraded`](Self::is_degraded)): the
    /// error of the call if its policy had been to refuse.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Lease};
    ///
    /// /// The label of a metric that counts admitted requests.
    /// fn admitted_by(lease: &Lease) -> &'static str {
    ///     match lease.outage() {
    ///         None => "table",
    ///         Some(Error::Unavailable(down)) if down.in_doubt() => "policy, and perhaps the table",
    ///         Some(_) => "policy",
    ///     }
    /// }
    /// # use zae_limiter::{Limit, RateLimiter, Repository};
    /// # let repo = Repository::in_memory().await?;
    /// # repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// # let limiter = RateLimiter::new(repo);
    /// assert_eq!(admitted_by(&limiter.acquire("key-1", "gpt-4").consume("tpd", 1).await?), "table");
    /// # Ok(()) }
    /// ```
    pub fn outage(&self) -> Option<&Error> {
        self.outage.as_deref()
    }

    /// Takes more tokens of a limit that the lease named, at once, if the table has enough. A lease that was granted
    /// from limits in memory takes them from there.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 600).await?;
    /// // A part that is refused leaves the lease as it was.
    /// assert!(matches!(lease.consume("tpd", 600).await, Err(Error::RateLimitExceeded(_))));
    /// assert_eq!(lease.consumed("tpd"), 600);
    /// // Only limits that the acquire has named.
    /// assert!(matches!(lease.consume("rph", 1).await, Err(Error::InvalidInput(_))));
    /// lease.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::RateLimitExceeded`] and nothing changes; [`Error::InvalidInput`] for an unknown limit or a bad
    /// amount; otherwise as [`Acquire::send`](crate::Acquire::send). An outage is an error
    /// for a lease from the table under every policy; the lease keeps its tokens.
    ///
    /// # Cancellation
    /// As for an acquire: no additional tokens are held.
    pub async fn consume(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.take_more(0, limit.as_ref(), tokens).await
    }

    /// Corrects the consumption of a limit; [`commit`](Self::commit) writes it. A positive delta consumes more tokens,
    /// and may put the bucket into debt instead of failing. A negative delta gives tokens back.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    /// lease.adjust("tpd", 700)?;
    /// assert_eq!(lease.consumed("tpd"), 1_200);
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 500, "nothing is written before the commit");
    /// lease.commit().await?;
    /// // In debt: requests are refused until the bucket has earned it.
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], -200);
    /// assert!(limiter.acquire("key-1", "gpt-4").consume("tpd", 0).await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the lease did not name the limit, or if it would give back more than it holds.
    pub fn adjust(&mut self, limit: impl AsRef<str>, delta: i64) -> Result<(), Error> {
        self.adjust_of(0, limit.as_ref(), delta)
    }

    /// Corrects the consumption of a limit to `tokens`, such as what a model reports; [`commit`](Self::commit) writes the
    /// difference. It may put the bucket into debt instead of failing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    /// // Totals, such as a stream reports them: each replaces the one before.
    /// for used_so_far in [120, 340] {
    ///     lease.adjust_to("tpd", used_so_far)?;
    /// }
    /// lease.commit().await?;
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 1_000 - 340);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the lease did not name the limit, or for more than 10^15 tokens.
    pub fn adjust_to(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.adjust_to_of(0, limit.as_ref(), tokens)
    }

    /// Gives tokens of a limit back; [`commit`](Self::commit) writes it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    /// lease.release("tpd", 400)?;
    /// assert!(matches!(lease.release("tpd", 101), Err(Error::InvalidInput(_))), "it holds only 100");
    /// lease.commit().await?;
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 900);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`adjust`](Self::adjust).
    pub fn release(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.release_of(0, limit.as_ref(), tokens)
    }

    /// Keeps the tokens, and writes the adjustments: one write for each bucket that changes, none if there are
    /// no adjustments. Gives the place in flight back, if it holds one, with a write of its own.
    ///
    /// # Errors
    /// An adjustment that could not be written, or is in doubt, or a place that was not given back. The others are still written, and
    /// nothing is rolled back. If the writes take longer than [`set_timeout`](Self::set_timeout) allows:
    /// [`Error::Unavailable`], in doubt, and the adjustments are still being sent in the background.
    ///
    /// # Cancellation
    /// The adjustments are written in the background.
    pub async fn commit(mut self) -> Result<(), Error> {
        let returning = give_back_all(std::mem::take(&mut self.places));
        let written = self.write_adjustments().await;
        written.and(self.returned(returning).await)
    }

    /// Keeps the tokens, and writes the adjustments in the background: what [`commit`](Self::commit) does where the caller cannot
    /// wait, such as in a destructor or at the end of a response that is streamed.
    ///
    /// [`Repository::drain`](crate::Repository::drain) waits for the writes. An adjustment that cannot be written is logged.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    /// lease.adjust_to("tpd", 300)?;
    /// lease.commit_in_background();
    ///
    /// assert!(repo.drain().await.is_complete());
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 700);
    /// # Ok(()) }
    /// ```
    pub fn commit_in_background(mut self) {
        drop(give_back_all(std::mem::take(&mut self.places)));
        for correction in self.adjustments() {
            self.send_later(correction, "finished lease");
        }
    }

    /// Gives all tokens back in the background, as dropping the lease does, but without a line in the log.
    pub fn rollback_in_background(mut self) {
        drop(give_back_all(std::mem::take(&mut self.places)));
        self.give_tokens_back_later("finished lease");
    }

    /// Gives all tokens back, and the place in flight, if it holds one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    /// lease.adjust("tpd", 300)?;
    /// // Adjustments that were not committed are dropped, too.
    /// lease.rollback().await?;
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 1_000);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A refund that could not be written, or is in doubt; those tokens stay consumed. If the writes take longer
    /// than [`set_timeout`](Self::set_timeout) allows: [`Error::Unavailable`], in doubt, and the refunds are still
    /// being sent in the background.
    ///
    /// # Cancellation
    /// The refunds are written in the background.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let returning = give_back_all(std::mem::take(&mut self.places));
        let written = self.give_tokens_back().await;
        written.and(self.returned(returning).await)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("entity", self.entity())
            .field("resource", self.resource())
            .field("consume", &self.request.consume)
            .field("also", &self.request.also)
            .field("adjustments", &self.deltas)
            .field("degraded", &self.is_degraded())
            .finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if matches!(self.held, Held::Table(_))
            && let Some(left_out) = self.inner.log.dropped.due(self.inner.clock.now())
        {
            tracing::warn!(
                resource = self.request.id.resource.as_str(),
                left_out,
                "lease dropped without commit or rollback, giving its tokens back"
            );
        }
        self.give_tokens_back_later("dropped lease");
    }
}
