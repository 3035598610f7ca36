//! Tables that can be read through and through, tables that fail by a rule, and records written by hand.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use zae_limiter::clock::ManualClock;
use zae_limiter::table::{EmbeddedEngine, Table, TableExt as _, TableFuture};
use zae_limiter::{
    ALL_RESOURCES, EntityId, Limit, LimitBuilder, NewEntity, RateLimiter, Repository, RepositoryBuilder,
    ResourceName,
};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Item, Key, Op, Value};

use crate::support::{item, key, put, table_of};
use crate::world::{Fault, START, World, suffer};

/// Everything that a table or an index holds, by key.
pub(crate) type Dump = BTreeMap<(String, String), HashMap<String, AttributeValue>>;

/// A world whose table can be read through and through.
pub(crate) struct Admin {
    world: World,
    client: Client,
}

impl Deref for Admin {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Admin {
    pub(crate) async fn new() -> Self {
        let engine = EmbeddedEngine::memory().unwrap();
        table_of(&engine).await;
        let client = engine.sdk_client();
        let clock = ManualClock::at(EpochMillis(START).into());
        let builder = Repository::builder()
            .stack("limits")
            .dynamo_client(engine.client());
        let repo = builder.clock(clock.clone()).open().await.unwrap();
        let world = World {
            limiter: RateLimiter::new(repo.clone()),
            repo,
            clock,
        };
        Self { world, client }
    }

    /// All that the table holds, or one of its indexes.
    pub(crate) async fn dump(&self, index: Option<&str>) -> Dump {
        let mut dump = Dump::new();
        let mut start = None;
        loop {
            let scan = self.client.scan().table_name("limits");
            let scan = scan
                .set_index_name(index.map(str::to_owned))
                .set_exclusive_start_key(start);
            let page = scan.send().await.unwrap();
            for item in page.items.unwrap_or_default() {
                let part = |name: &str| item[name].as_s().unwrap().clone();
                dump.insert((part("PK"), part("SK")), item);
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return dump;
            }
        }
    }

    /// What the table and its indexes hold whose key is such.
    pub(crate) async fn traces(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let mut traces = Vec::new();
        for index in [None, Some("GSI1"), Some("GSI2"), Some("GSI3"), Some("GSI4")] {
            for (pk, sk) in self.dump(index).await.into_keys() {
                if wanted(&pk, &sk) {
                    traces.push(format!("{} {pk} {sk}", index.unwrap_or("table")));
                }
            }
        }
        traces
    }

    /// What is left of a namespace, its own two records included.
    pub(crate) async fn traces_of_namespace(&self, id: &str) -> Vec<String> {
        self.traces(|pk, sk| pk.contains(id) || sk.contains(id)).await
    }

    /// What is left of an entity, but for its audit events.
    pub(crate) async fn traces_of_entity(&self, id: &str) -> Vec<String> {
        let (own, buckets) = (format!("/ENTITY#{id}"), format!("/BUCKET#{id}#"));
        self.traces(|pk, _| pk.ends_with(&own) || pk.contains(&buckets))
            .await
    }

    /// The content of the table without these.
    pub(crate) async fn others(&self, not: &str) -> Dump {
        let mut dump = self.dump(None).await;
        dump.retain(|(pk, sk), _| !pk.contains(not) && !sk.contains(not));
        dump
    }

    /// A repository of its own over this table, which fails by a rule.
    pub(crate) async fn ruled(&self, rule: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Repository {
        self.over(Ruled::new(self.repo.table(), rule), |builder| builder)
            .await
    }

    /// A repository of its own over another table.
    pub(crate) async fn over(
        &self,
        table: impl Table,
        options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder,
    ) -> Repository {
        let builder = Repository::builder()
            .custom_table(Arc::new(table))
            .clock(self.clock.clone());
        options(builder).open().await.unwrap()
    }

    /// Writes an item by hand.
    pub(crate) async fn write<const N: usize>(&self, pk: &str, sk: &str, attrs: [(&str, Value); N]) {
        let put = put(item(&key(pk, sk), attrs));
        assert!(self.repo.table().put(put).await.unwrap().is_applied());
    }

    /// Reads an item.
    pub(crate) async fn item(&self, key: Key) -> Option<Item> {
        self.repo.table().get(key, true).await.unwrap()
    }
}

/// A table that fails by a rule.
pub(crate) struct Ruled {
    inner: Arc<dyn Table>,
    rule: Box<dyn Fn(&Op) -> Fault + Send + Sync>,
}

impl Ruled {
    pub(crate) fn new(inner: Arc<dyn Table>, rule: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Self {
        let rule = Box::new(rule);
        Self { inner, rule }
    }
}

impl fmt::Debug for Ruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ruled")
    }
}

impl Table for Ruled {
    fn call(&self, op: Op) -> TableFuture {
        let fault = (self.rule)(&op);
        suffer(&self.inner, fault, op)
    }
}

type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A table at which another client does something just before the first request of a kind.
pub(crate) struct Meanwhile {
    inner: Arc<dyn Table>,
    before: fn(&Op) -> bool,
    deed: Mutex<Option<Deed>>,
}

impl Meanwhile {
    pub(crate) fn new(
        admin: &Admin,
        before: fn(&Op) -> bool,
        deed: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            inner: admin.repo.table(),
            before,
            deed: Mutex::new(Some(Box::pin(deed))),
        }
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Table for Meanwhile {
    fn call(&self, op: Op) -> TableFuture {
        let deed = if (self.before)(&op) {
            self.deed.lock().unwrap().take()
        } else {
            None
        };
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            if let Some(deed) = deed {
                deed.await;
            }
            inner.call(op).await
        })
    }
}

pub(crate) fn rpm(rate: u64) -> [LimitBuilder; 1] {
    [Limit::per_minute("rpm", rate)]
}

/// A bucket shard as other clients write it: `rpm` with this capacity, this balance, refilled at the start of
/// the tests' clock.
pub(crate) fn bucket(id: &BucketId, shard: u32, shards: u32, capacity: i64, tokens: i64) -> Item {
    let mut bucket = id.key_attributes(shard);
    let full = Value::int(1_000_000);
    bucket.extend(
        [
            ("rf", Value::int(START)),
            ("shard_count", Value::int(shards)),
            ("cascade", Value::Bool(false)),
            ("b_rpm_tk", Value::int(tokens * 1000)),
            ("b_rpm_cp", Value::int(capacity * 1000)),
            ("b_rpm_ra", Value::int(capacity * 1000)),
            ("b_rpm_rp", Value::int(60_000)),
            ("b_rpm_tc", Value::int(0)),
            ("b_wcu_tk", full.clone()),
            ("b_wcu_cp", full.clone()),
            ("b_wcu_ra", full),
            ("b_wcu_rp", Value::int(1000)),
            ("b_wcu_tc", Value::int(0)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    bucket
}

/// A usage snapshot as the table's functions write it. `suffix` follows the instant in its sort keys.
pub(crate) fn snapshot(
    (ns, entity, resource): (&str, &str, &str),
    (window, start, suffix): (&str, &str, &str),
    counters: &[(&str, i64)],
) -> Item {
    let pk = format!("{ns}/ENTITY#{entity}");
    let sk = format!("#USAGE#{resource}#{start}{suffix}");
    let mut snapshot = item(
        &key(&pk, &sk),
        [
            ("entity_id", Value::text(entity)),
            ("resource", Value::text(resource)),
            ("window", Value::text(window)),
            ("window_start", Value::text(start)),
            ("total_events", Value::int(1)),
            ("ttl", Value::int(START / 1000 + 86_400)),
            ("GSI2PK", Value::S(format!("{ns}/RESOURCE#{resource}"))),
            ("GSI2SK", Value::S(format!("USAGE#{start}{suffix}#{entity}"))),
            ("GSI4PK", Value::text(ns)),
            ("GSI4SK", Value::text(&pk)),
        ],
    );
    let counters = counters.iter();
    snapshot.extend(counters.map(|(name, tokens)| ((*name).to_owned(), Value::int(*tokens))));
    snapshot
}

pub(crate) async fn put_all(table: &dyn Table, items: impl IntoIterator<Item = Item>) {
    for item in items {
        assert!(table.put(put(item)).await.unwrap().is_applied());
    }
}

/// How many records [`furnish`] gives an entity.
pub(crate) const FURNISHED: u64 = 15;

/// Gives an entity everything that an entity can have: META with a parent, limits of three scopes, usage,
/// buckets of two resources in three shards each, and records of operations on them.
pub(crate) async fn furnish(repo: &Repository, entity: &str) {
    let ns = repo.namespace_id().clone();
    let new = NewEntity::new(entity).parent("proj").metadata("tier", "gold");
    repo.admin().create_entity(new).await.unwrap();
    for scope in ["gpt-4", "a/b:c", ALL_RESOURCES] {
        repo.admin()
            .set_entity_limits(entity, scope, rpm(9))
            .await
            .unwrap();
    }
    let mut items = Vec::new();
    for start in ["2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z"] {
        let of = (ns.as_str(), entity, "gpt-4");
        items.push(snapshot(of, ("hourly", start, ""), &[("rpm", 3)]));
    }
    for resource in ["gpt-4", "a/b:c"] {
        let id = BucketId {
            namespace: ns.clone(),
            entity: EntityId::new(entity).unwrap(),
            resource: ResourceName::new(resource).unwrap(),
        };
        items.extend((0..3).map(|shard| bucket(&id, shard, 3, 9, 3)));
        if resource == "gpt-4" {
            for operation in ["r1", "r2", "r3"] {
                let at = key(&id.key(0).pk, &format!("#OP#{operation}"));
                let index = [
                    ("GSI4PK", Value::text(ns.as_str())),
                    ("GSI4SK", Value::text(&at.pk)),
                ];
                items.push(item(&at, index));
            }
        }
    }
    put_all(&*repo.table(), items).await;
}
