//! [`RateLimiter`] and the call that takes tokens.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::acquire::Request;
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::limit::check_limits;
use zae_limiter_core::units::check_amount;
use zae_limiter_core::{
    EntityId, IntoLimit, IntoName, InvalidInput, Limit, LimitName, Millitokens, RateLimitExceeded,
    ResourceName,
};

use crate::acquire::attempt::Attempt;
use crate::acquire::flight::Asked;
use crate::acquire::lease::Lease;
use crate::acquire::several::{self, Also, add_resource};
use crate::acquire::slices::Prefetch;
use crate::acquire::waiting::{OnWait, Patience};
use crate::error::Error;
use crate::inner::Inner;
use crate::repository::Repository;
use crate::telemetry::Call;

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
            overdraws: false,
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
    overdraws: bool,
    on_unavailable: Option<OnUnavailable>,
    timeout: Option<Duration>,
    patience: Option<Patience>,
    on_wait: Option<OnWait>,
    prefetch: Option<Prefetch>,
    pub(super) in_flight: Option<Asked>,
}

impl Acquire {
    /// Whose tokens it takes; `None` if the name is malformed, with which the call will fail.
    pub fn entity(&self) -> Option<&EntityId> {
        self.names.as_ref().ok().map(|(entity, _)| entity)
    }

    /// For which resource, of several the first; `None` if a name is malformed, with which the call will fail.
    pub fn resource(&self) -> Option<&ResourceName> {
        self.names.as_ref().ok().map(|(_, resource)| resource)
    }

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

    /// Takes the tokens even if a limit does not cover them, and even in debt: the limit goes into debt, and refuses other calls until it has
    /// refilled. For consumption that is known only afterwards, and of which no [`Lease`] is held: a proxy that reports tokens when a
    /// response has ended.
    ///
    /// Disabled entities and missing places in flight refuse nevertheless. If the limits do not cover the call, it costs a request more. The debt
    /// of a bucket that is split into shards is that of one shard, so that calls are admitted up to what the others still hold.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 1_000)], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// for used in [800, 700] {
    ///     limiter.acquire("key-1", "gpt-4").consume("tpd", used).overdraw().await?.commit().await?;
    /// }
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], -500);
    /// // A request asks before it begins whether the limit is in debt.
    /// let refused = limiter.acquire("key-1", "gpt-4").consume("tpd", 0).await;
    /// assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    /// # Ok(()) }
    /// ```
    pub fn overdraw(mut self) -> Self {
        self.overdraws = true;
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
        let names = self.names.as_ref().ok();
        let call = Call::begin(
            Arc::clone(&self.inner),
            names.map(|(entity, resource)| (entity, resource)),
        );
        let (patience, on_wait) = (self.patience, self.on_wait.clone());
        // What waits for the table needs much more memory than a refusal, and is apart from it.
        let taken = match (self.prepare(&call), patience) {
            (Err(err), _) => Err(err),
            (Ok((attempt, request)), None) => match attempt.refused_at_once(&request) {
                Some(refused) => Err(refused),
                None => call.within(Box::pin(attempt.take(&request, false))).await,
            },
            (Ok((attempt, request)), Some(patience)) => {
                let taking = attempt.take_in_turn(&request, patience, on_wait.as_ref());
                call.within(Box::pin(taking)).await
            }
        };
        if let Err(Error::RateLimitExceeded(refused)) = &taken {
            call.inner.alert_refusal(refused);
        }
        call.end(taken.is_ok(), taken.as_ref().map_or_else(Some, Lease::outage));
        taken
    }

    fn prepare(self, call: &Call) -> Result<(Attempt<'_>, Request), Error> {
        let attempt = Attempt {
            call,
            inner: &call.inner,
            on_unavailable: self.on_unavailable,
            timeout: self.timeout.unwrap_or(self.inner.options.acquire_timeout),
            prefetch: self.prefetch.map(Prefetch::check).transpose()?,
            wish: self.in_flight.map(Asked::check).transpose()?,
        };
        Ok((attempt, self.request()?))
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
            overdraws: self.overdraws,
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

impl IntoFuture for Acquire {
    type Output = Result<Lease, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
