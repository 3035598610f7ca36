//! [`RepositoryBuilder`]: everything that can be chosen when a repository is opened.

#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::{EntityId, InputKind, InvalidInput, NamespaceName, StackName};
#[cfg(feature = "provision")]
use zae_limiter_infra::StackOptions;

use crate::acquire::alerts::{Alert, Alerts};
#[cfg(feature = "test-util")]
use crate::acquire::draws::Draws;
use crate::acquire::outage::breaker::Breaker;
use crate::acquire::permits::{Permits, check_max_in_flight};
use crate::acquire::refunds::check_correction_delay;
use crate::acquire::slices::Prefetch;
use crate::admin::principal::Principal;
#[cfg(feature = "provision")]
use crate::admin::provision::Provision;
use crate::admin::stack::Stack;
use crate::clock::{Clock, SystemClock, TableClock, TableOffset, Time};
use crate::error::{Error, Place};
use crate::inner::{Options, Parts};
use crate::repository::{DEFAULT_NAMESPACE, DEFAULT_STACK, Repository};
use crate::table::{Connection, DynamoClient, DynamoTable, Meter, Table, Timeouts};
use crate::telemetry::{OfTable, observed};

/// Describes a [`Repository`].
///
/// Every option has a default. [`open`](Self::open) and [`connect`](Self::connect) create the repository.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `open` or `connect` is called"]
pub struct RepositoryBuilder {
    stack: Option<String>,
    namespace: Option<String>,
    connection: Connection,
    sdk_config: Option<SdkConfig>,
    backend: Backend,
    clock: Option<Arc<dyn Clock>>,
    options: Options,
    measure: bool,
    lean_index: bool,
    #[cfg(feature = "provision")]
    provision: Provision,
}

#[derive(Debug, Default)]
enum Backend {
    #[default]
    Aws,
    Client(DynamoClient),
    #[cfg(feature = "sdk")]
    Sdk(Box<aws_sdk_dynamodb::Client>),
    Table(Arc<dyn Table>),
    #[cfg(feature = "embedded")]
    Embedded(Option<PathBuf>),
}

impl RepositoryBuilder {
    /// The stack, which is the table's name. Default: `ZAEL_STACK`, else `zae-limiter`.
    pub fn stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = Some(stack.into());
        self
    }

    /// The namespace. Default: `ZAEL_NAMESPACE`, else `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The AWS region. Default: AWS's own chain.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.connection.region = Some(region.into());
        self
    }

    /// Another DynamoDB endpoint, such as `http://127.0.0.1:4566`. Against a loopback address missing
    /// credentials are replaced by dummies. An invalid URL is refused when the repository is opened, also if it
    /// comes from the environment or a profile.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.connection.endpoint_url = Some(url.into());
        self
    }

    /// The profile in the shared AWS files. Default: AWS's own chain. One that does not exist is refused.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.connection.profile = Some(profile.into());
        self
    }

    /// How long a single request may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.connection.timeouts = timeouts;
        self
    }

    /// Where credentials come from. Default: AWS's own chain.
    pub fn credentials(
        mut self,
        provider: impl aws_credential_types::provider::ProvideCredentials + 'static,
    ) -> Self {
        self.connection.credentials = Some(aws_credential_types::provider::SharedCredentialsProvider::new(
            provider,
        ));
        self
    }

    /// Region, endpoint, credentials and HTTP client of an application's own configuration, instead of AWS's chain and
    /// of [`region`](Self::region), [`endpoint_url`](Self::endpoint_url), [`profile`](Self::profile) and
    /// [`credentials`](Self::credentials). All services are called with it: DynamoDB, STS for the audit log's principal,
    /// and those that deploy and delete a stack.
    ///
    /// Retries and timeouts of DynamoDB requests are this crate's own ([`timeouts`](Self::timeouts)), since a debit or
    /// refund must not be repeated blindly.
    ///
    /// ```
    /// use zae_limiter::{Repository, SdkConfig};
    ///
    /// # let config = SdkConfig::builder().build();
    /// // let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    /// let builder = Repository::builder().stack("my-app").sdk_config(config);
    /// ```
    pub fn sdk_config(mut self, config: SdkConfig) -> Self {
        self.sdk_config = Some(config);
        self
    }

    /// A ready client of the AWS SDK; its region, endpoint and credentials are kept, its retries are switched off, since a
    /// debit or refund must not be repeated blindly.
    ///
    /// Requests cost several times the CPU of this crate's own client. Use it for what only the SDK's client has, such as
    /// interceptors; for everything else, pass the configuration to [`sdk_config`](Self::sdk_config).
    ///
    /// A client does not tell its credentials. For the principal of the audit log, and to delete the stack, pass the
    /// configuration that the client was made from to [`sdk_config`](Self::sdk_config) as well.
    #[cfg(feature = "sdk")]
    pub fn client(mut self, client: aws_sdk_dynamodb::Client) -> Self {
        self.backend = Backend::Sdk(Box::new(client));
        self
    }

    /// A client that exists: several repositories share its connections and credentials. The principal of the audit log and
    /// the deletion of the stack need [`sdk_config`](Self::sdk_config) as well.
    pub fn dynamo_client(mut self, client: DynamoClient) -> Self {
        self.backend = Backend::Client(client);
        self
    }

    /// Another implementation of [`Table`], for tests that need faults.
    pub fn custom_table(mut self, table: Arc<dyn Table>) -> Self {
        self.backend = Backend::Table(table);
        self
    }

    /// A table kept in a directory of this machine, created if needed.
    #[cfg(feature = "embedded")]
    pub fn embedded(mut self, path: impl Into<PathBuf>) -> Self {
        self.backend = Backend::Embedded(Some(path.into()));
        self
    }

    /// A table in this process's memory.
    #[cfg(feature = "embedded")]
    pub fn in_memory(mut self) -> Self {
        self.backend = Backend::Embedded(None);
        self
    }

    /// How long configuration is cached. Default 60 s; zero reads it for every acquire.
    ///
    /// A changed limit reaches a live bucket within this time.
    pub fn config_cache_ttl(mut self, ttl: Duration) -> Self {
        self.options.config_cache_ttl = ttl;
        self
    }

    /// How long a bucket's last image may refuse requests without a call. Default 1 s; zero switches it off.
    ///
    /// Bounds how long a request can be refused although another process has given tokens back.
    pub fn reject_cache_ttl(mut self, ttl: Duration) -> Self {
        self.options.reject_cache_ttl = ttl;
        self
    }

    /// The number of buckets whose images are cached. Default 10,000.
    pub fn reject_cache_size(mut self, buckets: usize) -> Self {
        self.options.reject_cache_size = buckets;
        self
    }

    /// How long an idle bucket under shared limits is kept, as a multiple of the time it takes to fill.
    /// Default 7; with 0 it never expires. Buckets of entities with limits of their own never expire.
    pub fn bucket_ttl_multiplier(mut self, multiplier: u32) -> Self {
        self.options.settings.bucket_ttl_multiplier = multiplier;
        self
    }

    /// For how long at most a process goes by a [bypass](crate::Admin::set_entity_access) without reading the configuration again.
    /// Default 60 s. Below 10 s it is 10 s, above 1 h it is 1 h.
    ///
    /// A bypass that ends is over at once. This bounds what is left of it if the call that ends it stops half-way.
    pub fn stamp_ttl(mut self, ttl: Duration) -> Self {
        let ttl = ttl.clamp(Duration::from_secs(10), Duration::from_hours(1));
        self.options.settings.stamp_ttl_ms = ttl.as_millis() as u32;
        self
    }

    /// The decision while the table cannot be used, unless the call sets one. Default: the stored policy of the system,
    /// else refuse.
    pub fn on_unavailable(mut self, policy: OnUnavailable) -> Self {
        self.options.on_unavailable = Some(policy);
        self
    }

    /// The longest an acquire may take before the policy for outages applies. Default 5 s.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.options.acquire_timeout = timeout;
        self
    }

    /// How many requests may be on their way to the table at a time, so also how many connections are open during an
    /// outage. Default 1,024; 0 is refused.
    ///
    /// Counts the requests of acquires and the reads of configuration, of this repository and the namespaces opened
    /// from it. Other requests wait in order of arrival, within the deadline of their call. A request that waits has
    /// not been sent, so a call that is cancelled or reaches its deadline meanwhile is not in doubt. When the circuit
    /// breaker opens, waiting calls are decided at once. Corrections of leases are not counted:
    /// 128 of them are sent at a time.
    ///
    /// A table that answers after `t` seconds serves `max / t` requests a second; an acquire is mostly one request.
    /// Raise it if more are needed, and lower it if the process may open fewer files.
    pub fn max_in_flight(mut self, max: usize) -> Self {
        self.options.max_in_flight = max;
        self
    }

    /// Whether acquires of one bucket at the same time share writes (group commit). Default: they do.
    ///
    /// While a debit of a bucket is on its way, further ones of this process wait for it, and then go out together, in one
    /// conditional write for all that fit. An acquire that is alone never waits. A busy bucket needs far fewer writes, and
    /// carries far more acquires a second; each of them takes up to one round trip longer. Nothing is admitted that
    /// would not be admitted without it. A write that fails, or of which the outcome is unknown, fails for all that it carries.
    ///
    /// Acquires with limits of their own do not share writes.
    pub fn group_commit(mut self, joins: bool) -> Self {
        self.options.group_commit = joins;
        self
    }

    /// How long corrections of leases wait for a debit that carries them: 0 to 60 s. Default: 0, which sends each at once.
    ///
    /// When a lease ends with adjustments, or is rolled back or dropped, its correction is a write of its own. With a delay, it
    /// waits for the next acquire of the same bucket in this process, and one write does both; after the delay it is sent alone.
    /// A request of which the estimate is corrected then costs one write for each bucket in place of two, as long as the bucket
    /// gets the next request within the delay.
    ///
    /// Until then the tokens of the correction are as the acquire left them: what is to be given back is not available yet, and
    /// what is to be charged is. [`Lease::commit`](crate::Lease::commit) and [`Lease::rollback`](crate::Lease::rollback) return
    /// when the correction is written; drop their future, or run it in a task, if nothing waits for the outcome. Calls of the
    /// blocking facade block for as long.
    /// [`drain`](Repository::drain) ends all delays. A process that is killed loses the corrections that wait, as it loses those of
    /// leases that it holds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::time::Duration;
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// let delay = Duration::from_secs(5);
    /// let repo = Repository::builder().in_memory().correction_delay(delay).measure().open().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("tpd", 100_000)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?.commit().await?;
    ///
    /// let before = repo.request_cost();
    /// for used in [320, 480, 290] {
    ///     let mut lease = limiter.acquire("key-1", "gpt-4").consume("tpd", 500).await?;
    ///     lease.adjust_to("tpd", used)?;
    ///     tokio::spawn(lease.commit());
    ///     # tokio::task::yield_now().await;
    /// }
    /// repo.drain().await;
    /// // Three debits, two of which carry the correction of the lease before, and the last correction.
    /// assert_eq!(repo.request_cost().since(&before).updates, 4);
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["tpd"], 100_000 - 500 - 320 - 480 - 290);
    /// # Ok(()) }
    /// ```
    pub fn correction_delay(mut self, delay: Duration) -> Self {
        self.options.correction_delay = delay;
        self
    }

    /// Takes tokens ahead for calls to come: one write takes them for up to so many calls of a bucket, and those calls are served
    /// from memory. Off by default. [`Acquire::prefetch`](crate::Acquire::prefetch) turns it on for a call, and
    /// [`Acquire::exact`](crate::Acquire::exact) off.
    ///
    /// The number of calls follows the rate: it begins with one, and doubles while tokens are used up before they are too old. It
    /// shrinks as the bucket empties: a write takes no more ahead than leaves three quarters of each balance. Keys of one project
    /// share what is taken ahead of the project's bucket. What is not spent returns to the table when no call has spent of it for
    /// [`Prefetch::max_age`], when the configuration changes, when a call is refused that it would be enough for, and with
    /// [`drain`](Repository::drain). Corrections of leases are settled with what is held, where that is possible. Calls that name an
    /// amount of 0, or bring limits of their own, are served by the table alone.
    ///
    /// **The bound**: tokens are debited before they are spent, so no more is admitted than the table allows. But tokens that a
    /// process holds can be spent up to [`max_age`](Prefetch::max_age) after the bucket has refilled: in any window, `N` processes
    /// admit at most what the limits allow plus `N` times what they hold, which is at most the given number of calls, each
    /// with the moving average of amounts, in which the last call weighs an eighth ([`Repository::prefetched`] has it at a moment).
    /// Meanwhile other processes see fewer tokens, and a call of this process can be refused while tokens are on their way from or
    /// to the table. A process that is killed, and a write whose answer is lost, leave what they have taken ahead consumed. A key that is
    /// disabled, moved or deleted spends what is held.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, Prefetch, RateLimiter, Repository};
    ///
    /// let repo = Repository::builder().in_memory().prefetch(Prefetch::calls(50)).measure().open().await?;
    /// repo.admin().set_system_defaults([Limit::per_day("rpd", 100_000)], None).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// for _ in 0..1_000 {
    ///     limiter.acquire("key-1", "gpt-4").consume("rpd", 1).await?.commit().await?;
    /// }
    /// // The first calls are alone; later a write takes tokens for 50 of them.
    /// assert!(repo.request_cost().updates < 40);
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rpd"], 99_000);
    /// assert!(repo.prefetched().tokens["rpd"] < 50);
    /// repo.drain().await;
    /// assert!(repo.prefetched().tokens.is_empty());
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rpd"], 99_000);
    /// # Ok(()) }
    /// ```
    pub fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.options.prefetch = Some(prefetch);
        self
    }

    /// Whether a table that is created has a lean index: the index by resource holds keys only, so that an acquire costs one write
    /// unit in place of two. Default: no. It has no effect on a table that exists, and both kinds are read alike.
    ///
    /// Clients of the Python library cannot list the buckets and usage of a resource on such a table.
    pub fn lean_index(mut self, lean: bool) -> Self {
        self.lean_index = lean;
        #[cfg(feature = "provision")]
        {
            self.provision.options.lean_index = lean;
        }
        self
    }

    /// The principal of changes in the audit log: an identifier, or an ARN. Default: the caller identity of the
    /// credentials, which AWS's identity service returns once, at the first change; for an embedded table and a
    /// [`client`](Self::client) of the caller, none.
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.options.principal = Some(principal.into());
        self
    }

    /// Calls `tell` when the use of a limit reaches one of these percentages (1 to 100, at most 10), and when a limit refuses a
    /// call: once for each entity, resource, limit and percentage in a period, in this process. By default nothing is called.
    ///
    /// The period of a quota ends with its next reset, and that of a session limit with its session. For a limit that is refilled,
    /// it begins with the report, and lasts for the time in which the limit fills, but at least an hour. The last 10,000 reports
    /// are remembered; beyond that, one can be repeated.
    ///
    /// Use is what is taken of the capacity, reservations of leases and tokens [taken ahead](Self::prefetch) included. It is known
    /// from the answer to each acquire that the table admits, so corrections of leases show with the next acquire. Each shard of a
    /// bucket that was split counts for itself, by its part of the capacity. A call that is refused because its amount is above the
    /// capacity is not reported, nor is one that [waits](crate::Acquire::wait) and is then admitted.
    ///
    /// `tell` is called by the acquire itself, before that returns: it must be quick and must not block, so let it send to a
    /// channel or increment a metric. If it panics, that is logged, and the acquire goes on.
    ///
    /// The stack's aggregator reports use once for all processes (`docs/alerts.md`), but does not see refusals, which write nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use std::sync::mpsc;
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// let (send, alerts) = mpsc::channel();
    /// let builder = Repository::builder().in_memory();
    /// let repo = builder.on_alert([80, 95], move |alert| drop(send.send(alert.to_string()))).open().await?;
    /// let quota = Limit::quota("tpd", 1_000).resets("0 0 * * *", "Europe/Berlin");
    /// repo.admin().set_system_defaults([quota], None).await?;
    /// let limiter = RateLimiter::new(repo);
    /// for tokens in [700, 150, 50, 200] {
    ///     if let Ok(lease) = limiter.acquire("proj-1", "gpt-4").consume("tpd", tokens).await {
    ///         lease.commit().await?;
    ///     }
    /// }
    /// let alerts: Vec<String> = alerts.try_iter().collect();
    /// assert_eq!(alerts[0], "proj-1/gpt-4: tpd has used 80 %, 150 of 1000 left");
    /// assert_eq!(alerts[1], "proj-1/gpt-4: tpd refuses calls, 100 of 1000 left");
    /// assert_eq!(alerts.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn on_alert(
        mut self,
        percents: impl IntoIterator<Item = u8>,
        tell: impl Fn(&Alert) + Send + Sync + 'static,
    ) -> Self {
        self.options.alerts = Some(Alerts::new(percents, tell));
        self
    }

    /// Gives metrics of calls a label `resource`: the name of each of these resources, and `other` for all others. By default,
    /// metrics have no such label.
    ///
    /// Only resources that are named here get a value of their own, because callers may name resources freely, and each value
    /// is a series that stays. A call for [several resources](crate::Acquire::also) counts for its first one, and a refusal for
    /// that of the limit. See [`telemetry`](crate::telemetry).
    #[cfg(feature = "metrics")]
    pub fn metric_resources<R: zae_limiter_core::IntoName<zae_limiter_core::ResourceName>>(
        mut self,
        resources: impl IntoIterator<Item = R>,
    ) -> Self {
        self.options.labels = crate::telemetry::Labels::of(resources);
        self
    }

    /// Counts requests and capacity units; see [`Repository::request_cost`]. Off by default.
    pub fn measure(mut self) -> Self {
        self.measure = true;
        self
    }

    /// Another clock, for tests. It is used without correction.
    ///
    /// Default: the machine's clock, corrected to the table's by the `Date` of its answers
    /// ([`Repository::clock_offset`]). Opening a namespace reads two records before it writes anything, so the
    /// first acquire already uses the table's time. An embedded table and a [`custom_table`](Self::custom_table) have
    /// no time but the machine's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Other choices than random ones, for tests: which shard an acquire takes from, and how long it waits before it tries
    /// again. The function is given the number of choices, and its answer counts modulo that number.
    #[cfg(feature = "test-util")]
    pub fn draws(mut self, choose: impl Fn(u32) -> u32 + Send + Sync + 'static) -> Self {
        self.options.draws = Draws::by(choose);
        self
    }

    /// Whether [`open`](Self::open) deploys the stack if there is none. On by default.
    #[cfg(feature = "provision")]
    pub fn auto_provision(mut self, enabled: bool) -> Self {
        self.provision.enabled = enabled;
        self
    }

    /// Options for the deployment of a missing stack. An existing stack is not changed.
    ///
    /// ```
    /// use zae_limiter::{Repository, StackOptions};
    ///
    /// let options = StackOptions { usage_retention_days: 30, enable_deletion_protection: true, ..StackOptions::default() };
    /// options.check("my-app")?; // `open` checks it, too
    /// let builder = Repository::builder().stack("my-app").region("eu-west-1").stack_options(options);
    /// // let repo = builder.open().await?;
    /// # let _ = builder;
    /// # Ok::<(), zae_limiter::InvalidInput>(())
    /// ```
    #[cfg(feature = "provision")]
    pub fn stack_options(mut self, options: StackOptions) -> Self {
        self.provision.options = options;
        self
    }

    /// The file that the functions of a new stack run: the `zae-limiter` executable, or a zip made by
    /// `zae-limiter lambda-export`. Default: `ZAE_LIMITER_LAMBDA_PACKAGE`; without either, a stack is deployed without
    /// functions, and the log says so.
    #[cfg(feature = "provision")]
    pub fn lambda_package(mut self, file: impl Into<std::path::PathBuf>) -> Self {
        self.provision.package = Some(file.into());
        self
    }

    /// Searches `PATH` for a `zae-limiter` executable that the functions of a new stack can run, if no file is named.
    /// The executable is uploaded to the account. Off by default.
    #[cfg(feature = "provision")]
    pub fn lambda_package_from_path(mut self) -> Self {
        self.provision.searches_path = true;
        self
    }

    /// The S3 bucket that the functions' code is put in. Default: one of the account's own, made on first use.
    #[cfg(feature = "provision")]
    pub fn code_bucket(mut self, name: impl Into<String>) -> Self {
        self.provision.code_bucket = Some(name.into());
        self
    }

    /// Opens the namespace, registers it if it is new, and deploys the stack if there is none.
    ///
    /// An embedded table is created if there is none. On AWS, the feature `provision` deploys a missing stack: a
    /// CloudFormation stack with the table, functions and roles, as [`stack_options`](Self::stack_options) says. This
    /// takes about two minutes and needs the permissions for it; what is about to be created is logged first, at the
    /// level `info`. [`auto_provision`](Self::auto_provision) switches it off, and [`connect`](Self::connect) never
    /// deploys anything. A stack that exists is not changed.
    ///
    /// # Errors
    /// [`Error::InfrastructureNotFound`] if the table does not exist and is not deployed: without the feature `provision`,
    /// or with `auto_provision(false)`. [`Error::Deployment`] if the deployment fails. [`Error::VersionMismatch`] if the
    /// table's format does not fit; [`Error::InvalidInput`] for a bad name or option.
    pub async fn open(self) -> Result<Repository, Error> {
        #[cfg(feature = "provision")]
        let provision = self.provision.clone();
        let (parts, name) = self.parts(true).await?;
        let stack = Stack { parts };
        let opened = stack.open(name.as_str()).await;
        #[cfg(feature = "provision")]
        if let (Err(Error::InfrastructureNotFound { .. }), true, Some(config)) =
            (&opened, provision.enabled, stack.parts.config.clone())
        {
            stack.provision(&config, &provision).await?;
            return stack.open(name.as_str()).await;
        }
        opened
    }

    /// Connects to the namespace of a stack that exists: deploys nothing, registers nothing, writes nothing.
    ///
    /// # Errors
    /// [`Error::InfrastructureNotFound`] if the table does not exist, [`Error::NamespaceNotFound`] if the namespace is not
    /// registered, and otherwise as [`open`](Self::open).
    pub async fn connect(self) -> Result<Repository, Error> {
        let (parts, name) = self.parts(false).await?;
        Stack { parts }.connect(name.as_str()).await
    }

    /// The table as a whole, of which the builder's namespace is only one. Sends nothing, and does not ask
    /// whether the table exists.
    pub async fn stack_handle(self) -> Result<Stack, Error> {
        let (parts, _) = self.parts(false).await?;
        Ok(Stack { parts })
    }

    async fn parts(self, create: bool) -> Result<(Parts, NamespaceName), Error> {
        let stack = given(self.stack, &["ZAEL_STACK", "ZAE_LIMITER_STACK"], DEFAULT_STACK);
        let name = given(self.namespace, &["ZAEL_NAMESPACE"], DEFAULT_NAMESPACE);
        let configured = |err: InvalidInput| err.with_kind(InputKind::Configuration);
        let stack = StackName::new(stack)?;
        let name = NamespaceName::new(name).map_err(configured)?;
        if let Some(principal) = self
            .options
            .principal
            .as_deref()
            .filter(|p| !p.starts_with("arn:"))
        {
            EntityId::new(principal).map_err(|err| configured(err.in_field("principal")))?;
        }
        check_max_in_flight(self.options.max_in_flight)?;
        check_correction_delay(&self.options)?;
        self.options.prefetch.map(Prefetch::check).transpose()?;
        self.options.alerts.as_ref().map(Alerts::check).transpose()?;
        self.options.labels.check()?;
        let meter = Arc::new(Meter::new());
        let choice = Choice {
            connection: self.connection,
            sdk_config: self.sdk_config,
            stack: &stack,
            meter: self.measure.then_some(&meter),
            create,
            lean_index: self.lean_index,
        };
        let Reached {
            table,
            place,
            caller,
            offset,
            has_functions,
        } = choice.reach(self.backend).await?;
        let config = caller.clone();
        let principal = match (&self.options.principal, caller) {
            (Some(name), _) => Principal::named(name.clone()),
            (None, Some(config)) => Principal::caller(config),
            (None, None) => Principal::default(),
        };
        let breaker = Arc::new(Breaker::new());
        let of_table = OfTable::new(stack.as_str());
        let parts = Parts {
            place: Place {
                stack: stack.to_string(),
                place,
            },
            table: observed(table, &of_table),
            meter,
            clock: Time(self.clock.unwrap_or_else(|| match &offset {
                Some(offset) => Arc::new(TableClock(Arc::clone(offset))),
                None => Arc::new(SystemClock),
            })),
            offset,
            permits: Arc::new(Permits::new(self.options.max_in_flight, Arc::clone(&breaker))),
            options: self.options,
            principal: Arc::new(principal),
            breaker,
            of_table,
            config,
            has_functions,
        };
        Ok((parts, name))
    }
}

/// What was chosen about the table.
struct Choice<'a> {
    connection: Connection,
    sdk_config: Option<SdkConfig>,
    stack: &'a StackName,
    meter: Option<&'a Arc<Meter>>,
    /// Whether an embedded table is created if there is none.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(dead_code, reason = "only an embedded table is created")
    )]
    create: bool,
    /// Whether it is created with a lean index.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(dead_code, reason = "only an embedded table is created")
    )]
    lean_index: bool,
}

/// A table, and what is known about it.
struct Reached {
    table: Arc<dyn Table>,
    /// Where it is, for messages.
    place: String,
    /// The configuration that other services are called with.
    caller: Option<SdkConfig>,
    offset: Option<Arc<TableOffset>>,
    /// Whether functions can work on it.
    has_functions: bool,
}

impl Choice<'_> {
    async fn reach(self, backend: Backend) -> Result<Reached, Error> {
        match backend {
            Backend::Table(table) => Ok(Reached {
                table,
                place: "a custom table".to_owned(),
                caller: None,
                offset: None,
                has_functions: true,
            }),
            Backend::Client(client) => {
                let place = self.place(client.region());
                Ok(self.dynamo(client, place, self.sdk_config.clone()))
            }
            #[cfg(feature = "sdk")]
            Backend::Sdk(client) => Ok(self.sdk(&client)),
            Backend::Aws => {
                // Boxed, as below: the SDK's futures are tens of kilobytes large.
                let config = match self.sdk_config.clone() {
                    Some(config) => checked(config)?,
                    None => Box::pin(self.connection.checked_config()).await?,
                };
                let client = self.connection.client_of(&config);
                let place = self.place(client.region());
                Ok(self.dynamo(client, place, Some(config)))
            }
            #[cfg(feature = "embedded")]
            Backend::Embedded(path) => {
                let engine = match &path {
                    Some(path) => crate::table::EmbeddedEngine::open(path),
                    None => crate::table::EmbeddedEngine::memory(),
                };
                let client = engine.map_err(|err| Error::Embedded(Arc::new(err)))?.client();
                let place = path.map_or("memory".to_owned(), |path| path.display().to_string());
                if self.create {
                    let at = Place {
                        stack: self.stack.to_string(),
                        place: place.clone(),
                    };
                    let created =
                        crate::table::definition::create(&client, self.stack.as_str(), self.lean_index);
                    Box::pin(created).await.map_err(|err| at.table_error(err))?;
                }
                Ok(Reached {
                    has_functions: false,
                    ..self.dynamo(client, place, None)
                })
            }
        }
    }

    fn dynamo(&self, client: DynamoClient, place: String, caller: Option<SdkConfig>) -> Reached {
        let offset = client.offset().cloned();
        let table = DynamoTable::new(client, self.stack.as_str());
        let table = match self.meter {
            Some(meter) => table.with_meter(Arc::clone(meter)),
            None => table,
        };
        Reached {
            table: Arc::new(table),
            place,
            caller,
            offset,
            has_functions: true,
        }
    }

    #[cfg(feature = "sdk")]
    fn sdk(&self, client: &aws_sdk_dynamodb::Client) -> Reached {
        let client = crate::table::sdk::config::prepared(client, self.connection.timeouts);
        let place = self.place(client.config().region().map(AsRef::as_ref));
        let offset = Arc::new(TableOffset::of_this_machine());
        let table = crate::table::SdkTable::new(client, self.stack.as_str()).with_offset(Arc::clone(&offset));
        let table = match self.meter {
            Some(meter) => table.with_meter(Arc::clone(meter)),
            None => table,
        };
        Reached {
            table: Arc::new(table),
            place,
            caller: self.sdk_config.clone(),
            offset: Some(offset),
            has_functions: true,
        }
    }

    fn place(&self, region: Option<&str>) -> String {
        let region = || region.map(|region| format!("region {region}"));
        let place = self.connection.endpoint_url.clone().or_else(region);
        place.unwrap_or_else(|| "the configured region".to_owned())
    }
}

impl Repository {
    /// Opens a namespace of the stack that the environment names, registers it if it is new, and deploys the stack if
    /// there is none (feature `provision`). See [`RepositoryBuilder::open`].
    ///
    /// The stack is `ZAEL_STACK`, else `zae-limiter`; region and credentials are AWS's own. An empty
    /// `namespace` means `ZAEL_NAMESPACE`, else `default`.
    pub async fn open(namespace: impl Into<String>) -> Result<Self, Error> {
        Self::builder().namespace(namespace).open().await
    }

    /// Connects to a namespace of the stack that the environment names: deploys nothing, registers nothing, writes
    /// nothing. See [`RepositoryBuilder::connect`], and [`open`](Self::open) for the names.
    pub async fn connect(namespace: impl Into<String>) -> Result<Self, Error> {
        Self::builder().namespace(namespace).connect().await
    }

    /// Opens a table kept in a directory of this machine: no server, no network, no credentials.
    ///
    /// One process at a time can use a directory.
    #[cfg(feature = "embedded")]
    pub async fn embedded(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::builder().embedded(path).open().await
    }

    /// Opens a table in this process's memory, for trying things out and for tests.
    #[cfg(feature = "embedded")]
    pub async fn in_memory() -> Result<Self, Error> {
        Self::builder().in_memory().open().await
    }

    /// Starts to describe a repository with options.
    pub fn builder() -> RepositoryBuilder {
        RepositoryBuilder::default()
    }
}

/// An application's own configuration, if its endpoint is one.
fn checked(config: SdkConfig) -> Result<SdkConfig, InvalidInput> {
    if let Some(url) = crate::table::config::endpoint(&config) {
        crate::table::config::check_endpoint(&url).map_err(|err| err.in_field("sdk_config.endpoint_url"))?;
    }
    Ok(config)
}

/// A setting: as given, else from the environment, else the default. Empty counts as not given.
fn given(value: Option<String>, variables: &[&str], default: &str) -> String {
    let set = |text: &String| !text.is_empty();
    value
        .filter(set)
        .or_else(|| {
            variables
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(set))
        })
        .unwrap_or_else(|| default.to_owned())
}
