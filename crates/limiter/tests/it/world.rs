//! A limiter on an embedded table with a clock in hand, and tables that fail on demand.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zae_limiter::clock::ManualClock;
use zae_limiter::table::{RequestCost, Table, TableExt as _, TableFuture};
use zae_limiter::{Limit, RateLimiter, Repository, RepositoryBuilder, ResourceName};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::schema::{BucketId, version_key};
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Update, Value};
use zae_limiter_core::{Bucket, EntityId};

/// When the tests' clock starts.
pub(crate) const START: i64 = 1_800_000_000_000;

/// A limiter over an in-memory engine, metered, under a clock that stands still.
pub(crate) struct World {
    pub(crate) repo: Repository,
    pub(crate) limiter: RateLimiter,
    pub(crate) clock: ManualClock,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder) -> Self {
        let clock = ManualClock::at(EpochMillis(START).into());
        let builder = Repository::builder().in_memory().measure().clock(clock.clone());
        let repo = options(builder).open().await.unwrap();
        Self {
            limiter: RateLimiter::new(repo.clone()),
            repo,
            clock,
        }
    }

    /// With `rpm` 10 and `tpm` 1000 a minute for every resource.
    pub(crate) async fn configured() -> Self {
        let world = Self::new().await;
        world.configure().await;
        world
    }

    pub(crate) async fn configure(&self) {
        let limits = [Limit::per_minute("rpm", 10), Limit::per_minute("tpm", 1000)];
        self.repo.admin().set_system_defaults(limits, None).await.unwrap();
    }

    /// Records the version of the table's functions.
    pub(crate) async fn functions_of(&self, version: &str) {
        let mut update = Update::new(version_key());
        update.set.push(("lambda_version".into(), Value::text(version)));
        assert!(self.repo.table().update(update).await.unwrap().is_applied());
    }

    /// Another process on the same table: nothing shared but the table and the clock.
    pub(crate) async fn another(&self) -> Self {
        let builder = Repository::builder()
            .custom_table(self.repo.table())
            .clock(self.clock.clone());
        let repo = builder.open().await.unwrap();
        Self {
            limiter: RateLimiter::new(repo.clone()),
            repo,
            clock: self.clock.clone(),
        }
    }

    pub(crate) fn id(&self, entity: &str, resource: &str) -> BucketId {
        BucketId {
            namespace: self.repo.namespace_id().clone(),
            entity: EntityId::new(entity).unwrap(),
            resource: ResourceName::new(resource).unwrap(),
        }
    }

    /// The stored first shard.
    pub(crate) async fn bucket(&self, entity: &str, resource: &str) -> Option<Bucket> {
        let key = self.id(entity, resource).key(0);
        let item = self.repo.table().get(key, true).await.unwrap();
        item.map(|item| Bucket::decode(&item).unwrap())
    }

    /// A stored balance in millitokens.
    pub(crate) async fn balance(&self, entity: &str, resource: &str, limit: &str) -> i128 {
        self.bucket(entity, resource)
            .await
            .unwrap()
            .limit(limit)
            .unwrap()
            .balance
            .0
    }

    /// A stored consumption counter in millitokens.
    pub(crate) async fn consumed(&self, entity: &str, resource: &str, limit: &str) -> i128 {
        self.bucket(entity, resource)
            .await
            .unwrap()
            .limit(limit)
            .unwrap()
            .consumed
            .unwrap()
            .0
    }

    /// Changes the stored first shard directly.
    pub(crate) async fn poke(&self, entity: &str, resource: &str, attrs: &[(&str, Option<Value>)]) {
        let mut update = zae_limiter_core::table::Update::new(self.id(entity, resource).key(0));
        for (name, value) in attrs {
            match value {
                Some(value) => update.set.push(((*name).into(), value.clone())),
                None => update.remove.push((*name).into()),
            }
        }
        assert!(self.repo.table().update(update).await.unwrap().is_applied());
    }

    /// What `work` cost.
    pub(crate) async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, RequestCost) {
        let before = self.repo.request_cost();
        let result = work.await;
        (result, self.repo.request_cost().since(&before))
    }
}

/// What a [`Faulty`] table does to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The table says that it is throttled.
    Throttled,
    /// The answer never comes, and the write did not happen.
    LostBefore,
    /// The answer never comes, though the write happened.
    LostAfter,
    /// The answer takes this many milliseconds; the write happens at once.
    Late(u64),
    /// Nothing is ever answered.
    Hangs,
    /// Access is denied.
    Denied,
}

/// A table that fails as planned: each entry of `plan` is for one update or transaction, then `after` holds.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn Table>,
    pub(crate) plan: Arc<Mutex<Vec<Fault>>>,
    pub(crate) after: Arc<Mutex<Fault>>,
    pub(crate) reads_fail: Arc<Mutex<bool>>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Faulty {
    pub(crate) fn over(world: &World) -> Self {
        Self {
            inner: world.repo.table(),
            plan: Arc::default(),
            after: Arc::new(Mutex::new(Fault::None)),
            reads_fail: Arc::default(),
        }
    }

    pub(crate) fn next(&self, faults: &[Fault]) {
        let mut faults = faults.to_vec();
        faults.reverse();
        *self.plan.lock().unwrap() = faults;
    }

    pub(crate) fn always(&self, fault: Fault) {
        *self.after.lock().unwrap() = fault;
        *self.reads_fail.lock().unwrap() = fault != Fault::None;
    }

    /// A limiter of its own on this table, warmed up for nothing.
    pub(crate) async fn limiter(
        &self,
        world: &World,
        options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder,
    ) -> RateLimiter {
        let builder = Repository::builder()
            .custom_table(Arc::new(self.clone()))
            .clock(world.clock.clone());
        RateLimiter::new(options(builder).open().await.unwrap())
    }
}

fn failure(kind: FailureKind, applied: Applied) -> Result<Answer, TableError> {
    Err(TableError::new(kind, applied, "as the test ordered"))
}

impl Table for Faulty {
    fn call(&self, op: Op) -> TableFuture {
        let write = matches!(op, Op::Update(_) | Op::Transact(_) | Op::Put(_) | Op::Delete(_));
        let fault = if write {
            self.plan
                .lock()
                .unwrap()
                .pop()
                .unwrap_or(*self.after.lock().unwrap())
        } else if *self.reads_fail.lock().unwrap() {
            *self.after.lock().unwrap()
        } else {
            Fault::None
        };
        suffer(&self.inner, fault, op)
    }
}

/// Sends a request to a table under a fault.
pub(crate) fn suffer(table: &Arc<dyn Table>, fault: Fault, op: Op) -> TableFuture {
    let inner = Arc::clone(table);
    Box::pin(async move {
        match fault {
            Fault::None => inner.call(op).await,
            Fault::Throttled => failure(FailureKind::Throttled, Applied::No),
            Fault::Denied => failure(FailureKind::AccessDenied, Applied::No),
            Fault::LostBefore => failure(FailureKind::Timeout, Applied::Unknown),
            Fault::LostAfter => {
                let _ = inner.call(op).await;
                failure(FailureKind::Timeout, Applied::Unknown)
            }
            Fault::Late(millis) => {
                let answer = inner.call(op).await;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                answer
            }
            Fault::Hangs => std::future::pending().await,
        }
    })
}
