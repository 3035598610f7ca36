//! The aggregator on a table in memory that keeps its own stream, which is delivered as Lambda would: in batches,
//! more than once, again from the first failure.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use zae_limiter::clock::{Clock, ManualClock};
use zae_limiter::table::{Table, TableExt as _, TableFuture};
use zae_limiter::{Error, Limit, NewEntity, RateLimiter, Repository, Stack, UsageSnapshot, Window};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::{Applied, FailureKind, Item, Key, Op, Part, TableError, Value};
use zae_limiter_lambda::aggregator::{Aggregator, Report};
use zae_limiter_lambda::log::{Level, Log};
use zae_limiter_lambda::settings::AggregatorSettings;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It is refused because of missing throughput.
    Throttled,
    /// It happens, but its answer is lost.
    Lost,
}

/// A table with a stream, and faults for the writes to come.
#[derive(Debug)]
struct Streaming {
    clock: ManualClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: MemoryTable,
    stream: Vec<Json>,
    faults: Vec<Fault>,
}

fn keys(op: &Op) -> Vec<Key> {
    let of_item = |item: &Item| zae_limiter_core::schema::key_of(item);
    match op {
        Op::Put(put) => of_item(&put.item).into_iter().collect(),
        Op::Update(update) => vec![update.key.clone()],
        Op::Delete(delete) => vec![delete.key.clone()],
        Op::BatchDelete(keys) => keys.clone(),
        Op::Transact(parts) => parts
            .iter()
            .filter_map(|part| match part {
                Part::Put(put) => of_item(&put.item),
                Part::Update(update) => Some(update.key.clone()),
                Part::Delete(delete) => Some(delete.key.clone()),
                Part::Check(..) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn image(item: &Item) -> Json {
    let typed = |value: &Value| match value {
        Value::S(text) => json!({ "S": text }),
        Value::N(digits) => json!({ "N": digits.as_str() }),
        Value::Bool(truth) => json!({ "BOOL": truth }),
        Value::Null => json!({ "NULL": true }),
        other => panic!("no bucket or snapshot has {other:?}"),
    };
    let facts: serde_json::Map<String, Json> = item
        .iter()
        .filter(|(_, value)| !matches!(value, Value::M(_) | Value::L(_) | Value::Ss(_)))
        .map(|(name, value)| (name.clone(), typed(value)))
        .collect();
    facts.into()
}

impl Table for Streaming {
    fn call(&self, op: Op) -> TableFuture {
        let mut state = self.state.lock().unwrap();
        let touched = keys(&op);
        let fault = match (touched.is_empty(), state.faults.pop()) {
            (false, Some(fault)) => fault,
            _ => Fault::None,
        };
        if fault == Fault::Throttled {
            let err = TableError::new(FailureKind::Throttled, Applied::No, "slow down");
            return Box::pin(std::future::ready(Err(err)));
        }
        let before: Vec<Option<Item>> = touched.iter().map(|key| state.table.get(key).cloned()).collect();
        let answer = state.table.call(&op);
        for (key, old) in touched.iter().zip(before) {
            let new = state.table.get(key).cloned();
            if old == new {
                continue;
            }
            let kind = match (&old, &new) {
                (None, _) => "INSERT",
                (Some(_), Some(_)) => "MODIFY",
                (Some(_), None) => "REMOVE",
            };
            let number = 111_000_000_000_u64 + 7 * state.stream.len() as u64;
            let mut body = json!({
                "ApproximateCreationDateTime": EpochMillis::from(self.clock.now()).secs(),
                "SequenceNumber": number.to_string(),
            });
            for (name, item) in [("OldImage", &old), ("NewImage", &new)] {
                if let Some(item) = item {
                    body[name] = image(item);
                }
            }
            state.stream.push(json!({ "eventName": kind, "dynamodb": body }));
        }
        if fault == Fault::Lost {
            let err = TableError::new(FailureKind::Timeout, Applied::Unknown, "no answer in time");
            return Box::pin(std::future::ready(Err(err)));
        }
        Box::pin(std::future::ready(answer))
    }
}

/// 2026-11-30, 40 s before a new hour, day and month.
const START: i64 = 1_796_083_160_000;

struct World {
    clock: ManualClock,
    table: Arc<Streaming>,
    stack: Stack,
    repo: Repository,
    limiter: RateLimiter,
    /// How much of the stream has been delivered successfully.
    delivered: usize,
}

impl World {
    async fn new(limits: [Limit; 2]) -> Self {
        let clock = ManualClock::at(EpochMillis(START).into());
        let table = Arc::new(Streaming {
            clock: clock.clone(),
            state: Mutex::default(),
        });
        let builder = || {
            Repository::builder()
                .custom_table(Arc::clone(&table) as Arc<dyn Table>)
                .clock(clock.clone())
        };
        let stack = builder().stack_handle().await.unwrap();
        let repo = builder().open().await.unwrap();
        repo.admin().set_system_defaults(limits, None).await.unwrap();
        Self {
            limiter: RateLimiter::new(repo.clone()),
            clock,
            table,
            stack,
            repo,
            delivered: 0,
        }
    }

    /// A function that has just started, without cached state.
    fn function(&self) -> Aggregator {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let settings = AggregatorSettings {
            table: "t".into(),
            windows: vec![Window::Hourly, Window::Daily, Window::Monthly],
            retention_days: 90,
            archive_bucket: None,
        };
        let log = Log::new(Level::Error, Arc::clone(&clock));
        Aggregator::new(self.stack.clone(), settings, None, clock, log)
    }

    /// The records of buckets that have not been delivered.
    fn pending(&mut self) -> Vec<Json> {
        let state = self.table.state.lock().unwrap();
        let is_bucket = |record: &&Json| {
            let body = &record["dynamodb"];
            let sk = |image: &str| body[image]["SK"]["S"] == "#STATE";
            record["eventName"] != "REMOVE" && sk("NewImage")
        };
        let pending = state.stream[self.delivered..]
            .iter()
            .filter(is_bucket)
            .cloned()
            .collect();
        self.delivered = state.stream.len();
        pending
    }

    /// Delivers all of the stream, also what the function itself adds to it.
    async fn deliver(&mut self) -> Vec<Report> {
        let function = self.function();
        let mut reports = Vec::new();
        loop {
            let batch = self.pending();
            if batch.is_empty() {
                return reports;
            }
            let report = function.process(&batch).await;
            assert_eq!(report.failed, [] as [String; 0]);
            reports.push(report);
        }
    }

    fn faults(&self, faults: Vec<Fault>) {
        self.table.state.lock().unwrap().faults = faults;
    }

    fn shards(&self, entity: &str) -> Vec<Item> {
        let state = self.table.state.lock().unwrap();
        let is_shard = |key: &Key| key.pk.contains(&format!("/BUCKET#{entity}#"));
        let items = state.table.items().filter(|(key, _)| is_shard(key));
        items.map(|(_, item)| item.clone()).collect()
    }

    fn sum(&self, entity: &str, attr: &str) -> i128 {
        self.shards(entity)
            .iter()
            .map(|item| item[attr].as_int().unwrap())
            .sum()
    }

    fn snapshots(&self) -> Vec<UsageSnapshot> {
        let state = self.table.state.lock().unwrap();
        let items = state
            .table
            .items()
            .filter(|(key, _)| key.sk.starts_with("#USAGE#"));
        items
            .filter_map(|(_, item)| UsageSnapshot::decode(item))
            .collect()
    }
}

/// Delivers records as Lambda does: a failed batch again from its first failure, now and then by another copy of
/// the function, until it is done.
async fn deliver_with_faults(world: &World, records: &[Json], sizes: &[usize], faults: &[Vec<Fault>]) {
    let mut function = world.function();
    let mut from = 0;
    let mut round = 0;
    while from < records.len() {
        let size = sizes[round % sizes.len()];
        let batch = &records[from..(from + size).min(records.len())];
        world.faults(faults.get(round).cloned().unwrap_or_default());
        let report = function.process(batch).await;
        round += 1;
        world.faults(Vec::new());
        match report.failed.first() {
            None => from += batch.len(),
            Some(name) => {
                let failed = |record: &Json| record["dynamodb"]["SequenceNumber"] == **name;
                from += batch.iter().position(failed).unwrap();
            }
        }
        if round % 3 == 0 {
            function = world.function();
        }
        if round % 4 == 0 {
            // At least once: what was done comes again.
            from = from.saturating_sub(size / 2);
        }
        assert!(round < 1000, "it gets nowhere");
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![2 => Just(Fault::None), 3 => Just(Fault::Throttled), 2 => Just(Fault::Lost)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn usage_comes_out_right_whatever_fails(
        amounts in prop::collection::vec((0_usize..3, 1_i64..50, 0_u8..4, 0_i64..9_000), 1..60),
        sizes in prop::collection::vec(2_usize..20, 1..6),
        faults in prop::collection::vec(prop::collection::vec(fault(), 0..60), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let limits = [("rpm", 1_000_000), ("tpm", 1_000_000)];
            let limits = limits.map(|(name, capacity)| Limit::per_minute(name, capacity).build().unwrap());
            let mut world = World::new(limits).await;
            world.repo.admin().create_entity(NewEntity::new("proj")).await.unwrap();
            world.repo.admin().create_entity(NewEntity::new("key-0").parent("proj").cascade(true)).await.unwrap();
            // By entity and start of the hour.
            let mut expected: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
            for (key, tokens, how, pause) in amounts {
                world.clock.advance(Duration::from_millis(pause.unsigned_abs()));
                let entity = format!("key-{key}");
                let request = world.limiter.acquire(&entity, "gpt-4").consume("rpm", 1).consume("tpm", tokens.unsigned_abs());
                let mut lease = request.await.unwrap();
                let kept = match how {
                    0 => {
                        lease.rollback().await.unwrap();
                        (0, 0)
                    }
                    1 => {
                        lease.adjust("tpm", 7).unwrap();
                        lease.commit().await.unwrap();
                        (1, tokens + 7)
                    }
                    _ => {
                        lease.commit().await.unwrap();
                        (1, tokens)
                    }
                };
                let start = Window::Hourly.start_millis(world.clock.now().into()).unwrap().to_text();
                let entities = if key == 0 { vec![entity, "proj".to_owned()] } else { vec![entity] };
                for entity in entities {
                    let sums = expected.entry((entity, start.clone())).or_default();
                    sums.0 += kept.0;
                    sums.1 += kept.1;
                }
            }
            let records = world.pending();
            deliver_with_faults(&world, &records, &sizes, &faults).await;
            let snapshots = world.snapshots();
            for window in [Window::Hourly, Window::Daily, Window::Monthly] {
                let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
                for ((entity, start), (rpm, tpm)) in &expected {
                    let at: jiff::Timestamp = start.parse().unwrap();
                    let at = EpochMillis(at.as_millisecond());
                    let start = window.start_millis(at).unwrap().to_text();
                    let sum = sums.entry((entity.clone(), start)).or_default();
                    *sum = (sum.0 + rpm, sum.1 + tpm);
                }
                let found: BTreeMap<(String, String), (i64, i64)> = snapshots
                    .iter()
                    .filter(|snapshot| snapshot.window == window.as_str())
                    .map(|snapshot| {
                        let counter = |name| *snapshot.counters.get(name).unwrap_or(&0) as i64;
                        let place = (snapshot.entity.clone(), EpochMillis::from(snapshot.window_start).to_text());
                        (place, (counter("rpm"), counter("tpm")))
                    })
                    .collect();
                assert_eq!(found, sums, "{window}");
            }
        });
    }
}

fn limits(tpm: u64) -> [Limit; 2] {
    [
        Limit::per_minute("rpm", 100_000).build().unwrap(),
        Limit::per_minute("tpm", tpm).build().unwrap(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_hot_bucket_is_refilled_before_its_clients_must() {
    let mut world = World::new(limits(6_000)).await;
    for _ in 0..5 {
        let request = world
            .limiter
            .acquire("key-1", "gpt-4")
            .consume("rpm", 1)
            .consume("tpm", 1_100);
        request.await.unwrap().commit().await.unwrap();
    }
    assert_eq!(world.sum("key-1", "b_tpm_tk"), 500_000);
    // Ten seconds earn a thousand tokens.
    world.clock.advance(Duration::from_secs(10));
    let reports = world.deliver().await;
    assert_eq!(reports[0].refills_written, 1);
    assert_eq!(world.sum("key-1", "b_tpm_tk"), 1_500_000);
    // Its own write comes by in the stream and calls for nothing.
    assert_eq!(reports[1].refills_written, 0);
    assert_eq!(world.sum("key-1", "b_tpm_tc"), 5_500_000);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_with_many_writes_is_split_and_nothing_is_minted() {
    let mut world = World::new(limits(100_000)).await;
    for _ in 0..850 {
        let request = world
            .limiter
            .acquire("key-1", "gpt-4")
            .consume("rpm", 1)
            .consume("tpm", 10);
        request.await.unwrap().commit().await.unwrap();
    }
    assert_eq!(world.shards("key-1").len(), 1);
    let reports = world.deliver().await;
    assert!(
        reports.iter().all(|report| report.errors.is_empty()),
        "{reports:?}"
    );
    let shards = world.shards("key-1");
    assert_eq!(shards.len(), 2);
    assert!(shards.iter().all(|shard| shard["shard_count"] == Value::int(2)));
    assert_eq!(world.sum("key-1", "b_tpm_tk"), 91_500_000);
    assert_eq!(world.sum("key-1", "b_tpm_tc"), 8_500_000);
    let hourly: Vec<_> = world
        .snapshots()
        .into_iter()
        .filter(|s| s.window == "hourly")
        .collect();
    assert_eq!(hourly[0].counters["tpm"], 8_500);
    assert_eq!(hourly[0].total_events, 1_700);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_admitted_than_without_the_function() {
    let mut world = World::new(limits(600)).await;
    let mut admitted = 0;
    // Ten tokens a second; a client that asks for more, and the function at its heels.
    for _ in 0..120 {
        world.clock.advance(Duration::from_millis(500));
        for _ in 0..4 {
            match world.limiter.acquire("key-1", "gpt-4").consume("tpm", 7).await {
                Ok(lease) => {
                    admitted += 7;
                    lease.commit().await.unwrap();
                }
                Err(Error::RateLimitExceeded(_)) => {}
                Err(err) => panic!("{err}"),
            }
        }
        world.deliver().await;
    }
    assert!(admitted <= 600 + 600, "{admitted}");
    assert!(admitted >= 1_190, "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_stop_the_rest() {
    let mut world = World::new(limits(6_000)).await;
    let request = world.limiter.acquire("key-1", "gpt-4").consume("rpm", 1);
    request.await.unwrap().commit().await.unwrap();
    let mut batch = world.pending();
    batch.insert(0, json!({"eventName": "MODIFY"}));
    batch.insert(0, json!("nothing"));
    let mut damaged = batch.last().unwrap().clone();
    damaged["dynamodb"]["NewImage"]["rf"] = json!({"S": "soon"});
    damaged["dynamodb"]["NewImage"]["PK"]["S"] = json!("dSkXlbmmfyU/BUCKET#key-2#gpt-4#0");
    batch.push(damaged);
    let report = world.function().process(&batch).await;
    assert_eq!(report.processed, 4);
    assert_eq!(report.errors.len(), 3, "{:?}", report.errors);
    // Nothing would come of another delivery.
    assert!(report.failed.is_empty());
    assert_eq!(report.snapshots_updated, 6);
    let answer = report.to_json();
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!(answer["body"]["processed"], 4);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_as_the_first_record_that_it_hit() {
    let mut world = World::new(limits(6_000)).await;
    for key in ["key-1", "key-2"] {
        let request = world.limiter.acquire(key, "gpt-4").consume("rpm", 1);
        request.await.unwrap().commit().await.unwrap();
    }
    let batch = world.pending();
    world.faults(vec![Fault::Throttled; 200]);
    let report = world.function().process(&batch).await;
    assert_eq!(
        report.failed,
        [batch[0]["dynamodb"]["SequenceNumber"].as_str().unwrap()]
    );
    world.faults(Vec::new());
    let report = world.function().process(&batch).await;
    assert!(report.failed.is_empty());
    assert_eq!(report.snapshots_updated, 6);
    let item = world
        .table
        .get(
            Key {
                pk: format!("{}/ENTITY#key-1", world.repo.namespace_id()),
                sk: "#USAGE#gpt-4#2026-11-30T23:00:00Z".into(),
            },
            true,
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(item["rpm"], Value::int(1));
}
