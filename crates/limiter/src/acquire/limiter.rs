//! [`RateLimiter`] and the call that takes tokens.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zae_limiter_core::acquire::{AcquireError, Decision, Request};
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::limit::check_limits;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::Applied;
use zae_limiter_core::units::check_amount;
use zae_limiter_core::{
    EntityId, IntoLimit, IntoName, InvalidInput, Limit, LimitName, Millitokens, RateLimitExceeded,
    ResourceName,
};

use crate::acquire::degrade::without_table;
use crate::acquire::driver::Drive;
use crate::acquire::flight::{Asked, Waiting, Wish};
use crate::acquire::lease::Lease;
use crate::acquire::several::{self, Also, add_resource};
use crate::acquire::slices::{Filling, Prefetch, Source};
use crate::acquire::waiting::{OnWait, Patience, with_jitter};
use crate::error::{Error, level_name};
use crate::inner::Inner;
use crate::repository::Repository;

/// Stands for a deadline beyond what the clock can represent: 30 years.
const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// How long at most to wait before an acquire that failed without having taken anything begins again; jitter takes up to
/// half of it.
const PAUSE: Duration = Duration::from_millis(250);

/// Takes tokens from the buckets of a [`Repository`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
/// use zae_limiter::{Error, Limit, RateLimiter, Repository};
///
/// let repo = Repository::in_memory().await?;
/// repo.admin().set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 2), Limit::per_minute("tpm", 10_000)]).await?;
/// let limiter = RateLimiter::new(repo);
///
/// // Take one request and an estimate of its tokens: both, or none.
/// let mut lease = limiter.acquire("key-1", "gpt-4").consume("rpm", 1).consume("tpm", 500).await?;
/// // ... call the model, then correct the estimate ...
/// lease.adjust_to("tpm", 320)?;
/// lease.commit().await?;
///
/// // Or pass a closure: if it returns an error, the tokens are given back.
/// limiter.acquire("key-1", "gpt-4").consume("rpm", 1).run(async |_lease| Ok::<_, Error>(())).await?;
///
/// // The third request of the minute is refused. The refusal has the time until it can succeed.
/// match limiter.acquire("key-1", "gpt-4").consume("rpm", 1).await {
///     Err(Error::RateLimitExceeded(refused)) => {
///         assert_eq!(refused.worst().unwrap().limit_name, "rpm");
///         assert!(refused.retry_after().unwrap().as_secs() <= 30);
///     }
///     other => panic!("expected a refusal, got {other:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RateLimiter {
    repository: Repository,
}

impl RateLimiter {
    /// A limiter on a repository. Cheap; clones share everything.
    pub fn new(repository: Repository) -> Self {
        Self { repository }
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Prepares to take tokens for `entity` on `resource`. Name amounts with
    /// [`consume`](Acquire::consume), then `.await` it for a [`Lease`].
    ///
    /// If the entity cascades, the same amounts are taken from its parent's bucket too. Either both succeed or nothing
    /// is taken.
    pub fn acquire(&self, entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Acquire {
        Acquire {
            inner: Arc::clone(&self.repository.inner),
            names: both(entity, resource),
            consume: Ok(Vec::with_capacity(2)),
            also: Ok(Vec::new()),
            limits: None,
            on_unavailable: None,
            timeout: None,
            patience: None,
            on_wait: None,
            prefetch: self.repository.inner.options.prefetch,
            in_flight: None,
        }
    }
}

/// Amounts by limit.
pub(crate) type Amounts = Vec<(LimitName, Millitokens)>;

/// Checks the names of a call.
pub(crate) fn both(
    entity: impl IntoName<EntityId>,
    resource: impl IntoName<ResourceName>,
) -> Result<(EntityId, ResourceName), InvalidInput> {
    Ok((entity.into_name()?, resource.into_name()?))
}

/// Adds an amount, unless one before it was refused.
pub(crate) fn add(
    amounts: &mut Result<Amounts, InvalidInput>,
    field: &str,
    limit: impl IntoName<LimitName>,
    tokens: u64,
) {
    let Ok(list) = amounts else { return };
    let checked = limit
        .into_name()
        .map_err(|err| err.in_field(field))
        .and_then(|name| {
            if list.iter().any(|(named, _)| *named == name) {
                let reason = "is given twice; name each limit once";
                return Err(InvalidInput::of_request(field, name, reason));
            }
            let amount = check_amount(field, tokens);
            let amount = amount.map_err(|err| err.in_field(format!("{field}.{name}")))?;
            Ok((name, amount))
        });
    match checked {
        Ok(amount) => list.push(amount),
        Err(err) => *amounts = Err(err),
    }
}

/// Tokens about to be taken. Does nothing until it is awaited or [`run`](Self::run).
#[derive(Debug)]
#[must_use = "an acquire does nothing until it is awaited"]
pub struct Acquire {
    inner: Arc<Inner>,
    names: Result<(EntityId, ResourceName), InvalidInput>,
    consume: Result<Amounts, InvalidInput>,
    also: Result<Also, InvalidInput>,
    limits: Option<Result<Vec<Limit>, InvalidInput>>,
    on_unavailable: Option<OnUnavailable>,
    timeout: Option<Duration>,
    patience: Option<Patience>,
    on_wait: Option<OnWait>,
    prefetch: Option<Prefetch>,
    pub(super) in_flight: Option<Asked>,
}

impl Acquire {
    /// Takes `tokens` of `limit`: 0 to 10^15. An amount of 0 takes nothing, but is refused while the limit is
    /// in debt, and lets the lease adjust the limit later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_hour("rph", 10), Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    ///
    /// // Too many tokens: the request is not taken either.
    /// let refused = limiter.acquire("key-1", "gpt-4").consume("rph", 1).consume("tpd", 5_000).await;
    /// assert!(matches!(refused, Err(Error::RateLimitExceeded(no)) if no.worst().unwrap().limit_name == "tpd"));
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rph"], 10);
    ///
    /// // The number of tokens is known only afterwards: take none now.
    /// let mut lease = limiter.acquire("key-1", "gpt-4").consume("rph", 1).consume("tpd", 0).await?;
    /// lease.adjust_to("tpd", 300)?;
    /// lease.commit().await?;
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 700);
    /// # Ok(()) }
    /// ```
    pub fn consume(mut self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        add(&mut self.consume, "consume", limit, tokens);
        self
    }

    /// Takes tokens of a further resource as well: all amounts of all resources, or nothing. Up to 16 resources can be named,
    /// each once; their limits, flags and parents are those that are stored for each. Their requests are sent at the same time.
    ///
    /// A refusal has the limits of all resources, so that its wait is the time until all of them can be admitted. If one resource
    /// is disabled, that is the error, even if another one refuses. Tokens that were taken of other resources are given back.
    ///
    /// The methods of the [`Lease`] are about the first resource; [`Lease::on`] leads to the others. Such a call does not use
    /// tokens that were [taken ahead](crate::RepositoryBuilder::prefetch), and takes none. If it [waits](Self::wait), it is in
    /// the queues of all its resources.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
    /// admin.set_resource_defaults("budget", [Limit::per_day("cents", 12)]).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let call = || limiter.acquire("key-1", "gpt-4").consume("rpm", 1).also("budget", [("cents", 10)]);
    /// call().await?.commit().await?;
    ///
    /// // The budget does not cover a second call, so its request is not taken either.
    /// match call().await {
    ///     Err(Error::RateLimitExceeded(refused)) => assert_eq!(refused.worst().unwrap().resource, "budget"),
    ///     other => panic!("expected a refusal, got {other:?}"),
    /// }
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rpm"], 99);
    /// # Ok(()) }
    /// ```
    pub fn also<L: IntoName<LimitName>>(
        mut self,
        resource: impl IntoName<ResourceName>,
        amounts: impl IntoIterator<Item = (L, u64)>,
    ) -> Self {
        add_resource(&mut self.also, resource, amounts);
        self
    }

    /// Enforces these limits instead of the stored ones, for the entity and its parent alike. Not in a call of
    /// [several resources](Self::also).
    ///
    /// A bucket with other parameters switches to these, and its balances are cut at the new capacity.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// let limiter = RateLimiter::new(Repository::in_memory().await?);
    /// // Nothing is stored for this entity or its resource.
    /// let call = || limiter.acquire("visitor-7", "search").consume("rph", 1);
    /// assert!(matches!(call().await, Err(Error::NotConfigured { .. })));
    /// call().limits([Limit::per_hour("rph", 1)]).await?.commit().await?;
    /// assert!(matches!(call().limits([Limit::per_hour("rph", 1)]).await, Err(Error::RateLimitExceeded(_))));
    /// # Ok(()) }
    /// ```
    pub fn limits<L: IntoLimit>(mut self, limits: impl IntoIterator<Item = L>) -> Self {
        self.limits = Some(check_limits(limits));
        self
    }

    /// The outage policy of this call.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{OnUnavailable, RateLimiter, Repository};
    /// # use zae_limiter::Limit;
    /// # use zae_limiter::testing::{Fault, TestTable};
    /// # let table = TestTable::new();
    /// # let repo = table.open().await?;
    /// # repo.admin().set_system_defaults([Limit::per_minute("rpm", 2)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// # table.fail(Fault::Unreachable);
    /// // The table is down. Health checks are admitted without limits; other calls of this repository are refused.
    /// let call = limiter.acquire("monitor", "status").consume("rpm", 1).timeout(Duration::from_millis(100));
    /// let lease = call.on_unavailable(OnUnavailable::Allow).await?;
    /// assert!(lease.is_degraded());
    /// println!("admitted without the table: {}", lease.outage().unwrap());
    /// lease.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn on_unavailable(mut self, policy: OnUnavailable) -> Self {
        self.on_unavailable = Some(policy);
        self
    }

    /// The longest this call may take before the policy for outages applies. Default: the repository's.
    ///
    /// It does not hold for the end of the lease, which has a time of its own: [`Lease::set_timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// If there are too few tokens, waits for them up to `max`, instead of being refused at once.
    ///
    /// The call retries after the wait of the refusal, never earlier, plus a random jitter of up to a tenth of the wait (at
    /// least up to 10 ms, at most up to 250 ms). Calls of one process that wait for the same entity and resource form a
    /// queue in order of arrival: while a refused call waits, no call behind it asks the table, so a large request is not
    /// overtaken by smaller ones. After admissions up to 64 calls ask at the same time; among these the order is not kept.
    /// Calls that do not wait, and other processes, are not in this order.
    ///
    /// The refusal is returned at once if the tokens cannot be available in time, and otherwise after `max`. A call whose
    /// turn does not come within `max` is refused from what the process last knew, without a request.
    ///
    /// `max` bounds the time of waiting for tokens and for the turn. [`timeout`](Self::timeout) bounds the time for answers
    /// of the table in each attempt, so a call can take up to `max` and one `timeout`. While the table is throttled, each
    /// call in the queue can use up its `timeout` before the next one asks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// repo.admin().set_resource_defaults("gpt-4", [Limit::per_second("rps", 10)]).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let call = || limiter.acquire("key-1", "gpt-4").consume("rps", 10);
    /// call().await?.commit().await?;
    ///
    /// // The bucket is full again in one second. The call is refused at once, since that is too late.
    /// let refused = call().wait(Duration::from_millis(100)).await;
    /// assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    /// call().wait(Duration::from_secs(10)).await?.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn wait(mut self, max: Duration) -> Self {
        self.patience = Some(Patience::UpTo(max));
        self
    }

    /// Takes the tokens, and waits for them without a limit; otherwise as [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`send`](Self::send). [`Error::RateLimitExceeded`] only if an amount is above the capacity of its limit.
    pub async fn until_ready(mut self) -> Result<Lease, Error> {
        self.patience = Some(Patience::Forever);
        self.send().await
    }

    /// Takes tokens ahead for calls to come, as [`RepositoryBuilder::prefetch`](crate::RepositoryBuilder::prefetch) does for all
    /// calls, or spends some that another call has taken ahead.
    pub fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.prefetch = Some(prefetch);
        self
    }

    /// Takes exactly these tokens, and from the table: the call neither spends tokens that were
    /// [taken ahead](crate::RepositoryBuilder::prefetch), nor takes any.
    pub fn exact(mut self) -> Self {
        self.prefetch = None;
        self
    }

    /// Calls `tell` each time the call was refused and waits ([`wait`](Self::wait)), with the refusal and its wait, jitter not
    /// included: for logs and metrics. Time behind other calls of the queue is not reported.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// # use zae_limiter::clock::ManualClock;
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// # let clock = ManualClock::at(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000));
    /// # let repo = Repository::builder().in_memory().clock(clock.clone()).open().await?;
    /// repo.admin().set_system_defaults([Limit::per_second("rps", 20).burst(1)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// let waits = Arc::new(AtomicU64::new(0));
    /// for _ in 0..2 {
    ///     let waits = Arc::clone(&waits);
    ///     # let clock = clock.clone();
    ///     let call = limiter.acquire("batch", "gpt-4").consume("rps", 1).on_wait(move |refused, wait| {
    ///         println!("{refused}: waits {wait:?}");
    ///         waits.fetch_add(1, Ordering::Relaxed);
    ///         # clock.advance(wait);
    ///     });
    ///     call.until_ready().await?.commit().await?;
    /// }
    /// // The first call took the only token, the second waited for the next one.
    /// assert_eq!(waits.load(Ordering::Relaxed), 1);
    /// # Ok(()) }
    /// ```
    pub fn on_wait(mut self, tell: impl Fn(&RateLimitExceeded, Duration) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(OnWait::new(tell));
        self
    }

    /// Takes the tokens, runs `work`, then commits its lease if it returned `Ok`, or rolls it back if it
    /// returned `Err`. A panic or a cancellation rolls back in the background.
    ///
    /// The result of `work` is returned in any case. If the commit or rollback fails afterwards, the error is logged
    /// with its cause. To handle such an error, use [`send`](Self::send) with [`Lease::commit`] or [`Lease::rollback`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// # repo.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
    /// # let limiter = RateLimiter::new(repo);
    /// // The work's own error type, made from `Error` for calls that are not admitted.
    /// #[derive(Debug)]
    /// enum Failure {
    ///     Limits(Error),
    ///     Model(&'static str),
    /// }
    ///
    /// impl From<Error> for Failure {
    ///     fn from(err: Error) -> Self {
    ///         Self::Limits(err)
    ///     }
    /// }
    ///
    /// let failed = limiter
    ///     .acquire("key-1", "gpt-4")
    ///     .consume("rph", 1)
    ///     .run(async |_lease| Err::<(), _>(Failure::Model("overloaded")))
    ///     .await;
    /// assert!(matches!(failed, Err(Failure::Model("overloaded"))));
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rph"], 10, "the request was given back");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Any error of acquiring; otherwise the work's own.
    pub async fn run<T, E, W>(self, work: W) -> Result<T, E>
    where
        W: AsyncFnOnce(&mut Lease) -> Result<T, E>,
        E: From<Error>,
    {
        let mut lease = self.send().await?;
        match work(&mut lease).await {
            Ok(done) => {
                if let Err(error) = lease.commit().await {
                    tracing::error!(%error, "commit failed after the work succeeded");
                }
                Ok(done)
            }
            Err(err) => {
                if let Err(refund) = lease.rollback().await {
                    tracing::error!(error = %refund, "rollback failed after the work did");
                }
                Err(err)
            }
        }
    }

    /// Takes the tokens; the same as awaiting the call itself.
    ///
    /// # Errors
    /// [`Error::RateLimitExceeded`], [`Error::Unavailable`], [`Error::Disabled`], [`Error::InvalidInput`] (bad
    /// names and amounts, limits that are not configured) and the errors of stored records.
    ///
    /// # Cancellation
    /// If the future is dropped, no tokens are kept: tokens that a request in flight has taken are given back in the
    /// background.
    pub async fn send(self) -> Result<Lease, Error> {
        let attempt = Attempt {
            inner: Arc::clone(&self.inner),
            on_unavailable: self.on_unavailable,
            timeout: self.timeout.unwrap_or(self.inner.options.acquire_timeout),
            prefetch: self.prefetch.map(Prefetch::check).transpose()?,
            wish: self.in_flight.map(Asked::check).transpose()?,
        };
        let (patience, on_wait) = (self.patience, self.on_wait.clone());
        let request = self.request()?;
        // What waits for the table needs much more memory than a refusal, and is apart from it.
        let taken = match patience {
            None => match attempt.refused_at_once(&request) {
                Some(refused) => Err(refused),
                None => Box::pin(attempt.take(&request, false)).await,
            },
            Some(patience) => Box::pin(attempt.take_in_turn(&request, patience, on_wait.as_ref())).await,
        };
        if let Err(Error::RateLimitExceeded(refused)) = &taken {
            attempt.inner.alert_refusal(refused);
        }
        taken
    }

    /// Checks everything that can be checked without the table.
    fn request(self) -> Result<Request, Error> {
        let (entity, resource) = self.names?;
        let limits = self.limits.transpose()?;
        let consume = self.consume?;
        if consume.is_empty() && self.in_flight.is_none() {
            return Err(
                InvalidInput::of_request("consume", "nothing", "must name at least one limit").into(),
            );
        }
        let also = self.also?;
        several::check(&also, &resource, limits.is_some())?;
        check_without_tokens(&consume, limits.is_some(), also.first())?;
        Ok(Request {
            id: self.inner.bucket_id(&entity, &resource),
            consume,
            also,
            limits,
            settings: self.inner.options.settings,
            slices: None,
        })
    }
}

/// A call that takes only a place in flight names nothing about tokens.
fn check_without_tokens(
    consume: &Amounts,
    brings_limits: bool,
    also: Option<&(ResourceName, Amounts)>,
) -> Result<(), InvalidInput> {
    let reason = "needs an amount of the first resource: name one with `consume`";
    match also {
        _ if !consume.is_empty() => Ok(()),
        Some((resource, _)) => Err(InvalidInput::of_request("also", resource, reason)),
        None if brings_limits => Err(InvalidInput::of_request("limits", "given", reason)),
        None => Ok(()),
    }
}

/// How tokens are to be taken.
pub(super) struct Attempt {
    pub(super) inner: Arc<Inner>,
    pub(super) on_unavailable: Option<OnUnavailable>,
    pub(super) timeout: Duration,
    prefetch: Option<Prefetch>,
    /// The places in flight to be taken as well.
    wish: Option<Wish>,
}

impl Attempt {
    /// The time to wait is over, and the call's turn has not come.
    fn out_of_time(&self, request: &Request, last: Option<Error>) -> Result<Lease, Error> {
        let inner = &self.inner;
        let err = match inner.breaker.refused(inner.clock.now()) {
            Some(outage) => inner.table_error(outage),
            None => last.unwrap_or_else(|| inner.refused_in_queue(request)),
        };
        match err {
            Error::Unavailable(_) => without_table(inner, request, self.on_unavailable, err),
            refused => Err(refused),
        }
    }

    /// The refusal of a call by what is cached. There is none if tokens may be held for calls to come: they may be what is missing.
    fn refused_at_once(&self, request: &Request) -> Option<Error> {
        if self.prefetch.is_some() || self.inner.slices.are_held() || request.consume.is_empty() {
            return None;
        }
        let refused = self.inner.refused_from_memory(request)?;
        Some(self.refused(refused))
    }

    /// The error of a call that limits have refused, whose corrections need not wait any longer.
    fn refused(&self, refused: RateLimitExceeded) -> Error {
        let inner = &self.inner;
        if !inner.options.correction_delay.is_zero() {
            for status in refused.violations() {
                inner.release_corrections(&inner.bucket_id(&status.entity, &status.resource));
            }
        }
        refused.into()
    }

    /// Takes the tokens, and the places if the call asks for some, or is refused. `one_by_one`: first the places, so that no
    /// tokens are taken in vain.
    async fn take(&self, request: &Request, one_by_one: bool) -> Result<Lease, Error> {
        let now = Instant::now();
        let until = now.checked_add(self.timeout).unwrap_or(now + LONGEST);
        match self.wish {
            None => self.take_tokens(request, until).await,
            Some(wish) => {
                let taking = self.take_with_places(request, wish, one_by_one, until);
                Box::pin(taking).await
            }
        }
    }

    /// Takes the tokens, or is refused.
    pub(super) async fn take_tokens(&self, request: &Request, until: Instant) -> Result<Lease, Error> {
        let inner = &self.inner;
        let is_plain = request.limits.is_none() && request.also.is_empty();
        let prefetch = self.prefetch.filter(|_| is_plain);
        let taken = match prefetch.map(|prefetch| inner.source_of(request, prefetch)) {
            None => self.take_from_table(request, request, None, until).await,
            Some(Source::Memory(grants)) => return Ok(Lease::granted(inner, request, grants)),
            Some(Source::Table(asked)) => {
                let (asked, filling) = *asked;
                self.take_from_table(request, &asked, Some(filling), until).await
            }
        };
        match taken {
            // What this process holds may be what is missing.
            Err(Error::RateLimitExceeded(refused)) if request.limits.is_none() => {
                let returned = tokio::time::timeout_at(until, inner.return_slices(&refused)).await;
                if returned.is_ok_and(|any| any) {
                    self.take_from_table(request, request, None, until).await
                } else {
                    Err(refused.into())
                }
            }
            taken => taken,
        }
    }

    /// Asks the table for the tokens of a request, and for those that `asked` has in addition.
    async fn take_from_table(
        &self,
        request: &Request,
        asked: &Request,
        mut filling: Option<Filling>,
        until: Instant,
    ) -> Result<Lease, Error> {
        let (inner, on_unavailable, timeout) = (&self.inner, self.on_unavailable, self.timeout);
        let mut drive = Drive::new(inner, asked.clone()).under_policy(on_unavailable);
        let mut is_retry = false;
        let err = loop {
            match tokio::time::timeout_at(until, drive.run()).await {
                Ok(Decision::Admitted(grants)) => {
                    inner.alert_use(&grants);
                    let grants = match filling.take() {
                        Some(filling) => filling.admitted(request, grants, drive.is_paid()),
                        None => grants,
                    };
                    return Ok(Lease::granted(inner, request, grants));
                }
                Ok(Decision::Rejected(refused)) => return Err(self.refused(refused)),
                Ok(Decision::Disabled { bucket, at }) => {
                    return Err(Error::Disabled {
                        entity: bucket.entity.to_string(),
                        resource: bucket.resource.to_string(),
                        level: level_name(at),
                    });
                }
                Ok(Decision::Failed(AcquireError::Table(err))) if err.is_outage() => {
                    let id = &request.id;
                    let pause = PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0);
                    // A call that is to be refused during an outage retries until its deadline, unless it began while
                    // the table was known not to answer.
                    let again = err.applied == Applied::No
                        && (is_retry || !drive.met_open_breaker())
                        && inner.policy(on_unavailable, &id.entity, &id.resource) == OnUnavailable::Block
                        && Instant::now() + pause < until;
                    if !again {
                        break inner.table_error(err);
                    }
                    // What the last attempt has still on its way is finished in the background.
                    drive = Drive::new(inner, asked.clone())
                        .under_policy(on_unavailable)
                        .after(err);
                    tokio::time::sleep(pause).await;
                    is_retry = true;
                }
                Ok(Decision::Failed(err)) => return Err(inner.place.acquire_error(err)),
                Err(_) => break drive.gave_up(timeout),
            }
        };
        // What it has sent is finished in the background.
        drop(drive);
        without_table(inner, request, on_unavailable, err)
    }

    /// Takes the tokens, as often as it takes until they are there, in turn with others that wait for the same bucket.
    async fn take_in_turn(
        &self,
        request: &Request,
        patience: Patience,
        on_wait: Option<&OnWait>,
    ) -> Result<Lease, Error> {
        let inner = &self.inner;
        let until = patience.until(Instant::now());
        let place = inner.queues.enter(request.parts().map(|(resource, _)| BucketId {
            resource: resource.clone(),
            ..request.id.clone()
        }));
        let mut last = None;
        let mut for_place = Waiting::default();
        loop {
            let turn = place.turn();
            match until {
                None => turn.await,
                Some(until) => {
                    if tokio::time::timeout_at(until, turn).await.is_err() {
                        drop(place);
                        return self.out_of_time(request, last);
                    }
                }
            }
            let refused = match self.take(request, for_place.was_refused()).await {
                Ok(lease) => {
                    place.admitted();
                    return Ok(lease);
                }
                Err(Error::RateLimitExceeded(refused)) => refused,
                Err(Error::ConcurrencyExceeded(full)) => {
                    place.must_wait();
                    let pause = for_place.pause(inner, &full);
                    let is_over = match until {
                        None => {
                            pause.await;
                            false
                        }
                        Some(until) => tokio::time::timeout_at(until, pause).await.is_err(),
                    };
                    if is_over {
                        return Err(full.into());
                    }
                    last = Some(full.into());
                    continue;
                }
                Err(other) => return Err(other),
            };
            let Some(wait) = refused.retry_after() else {
                return Err(refused.into());
            };
            let sleep = with_jitter(wait);
            let now = Instant::now();
            if until.is_some_and(|until| now + wait > until) {
                return Err(refused.into());
            }
            place.refused(&refused);
            if let Some(tell) = on_wait {
                tell.tell(&refused, wait);
            }
            last = Some(refused.into());
            tokio::time::sleep(until.map_or(sleep, |until| sleep.min(until - now).max(wait))).await;
        }
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Lease, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
