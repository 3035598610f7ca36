//! A table in memory that keeps its own stream, and the function on it.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use zae_limiter::clock::{Clock, ManualClock};
use zae_limiter::table::{Table, TableFuture};
use zae_limiter::{Limit, RateLimiter, Repository, Stack, UsageSnapshot, Window};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::alert::Thresholds;
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::{Applied, FailureKind, Item, Key, Op, Part, TableError, Value};
use zae_limiter_lambda::aggregator::{Aggregator, Report};
use zae_limiter_lambda::log::{Level, Log};
use zae_limiter_lambda::settings::AggregatorSettings;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It is refused because of missing throughput.
    Throttled,
    /// It happens, but its answer is lost.
    Lost,
}

/// A table with a stream, and faults for the writes to come.
#[derive(Debug)]
pub(crate) struct Streaming {
    pub(crate) clock: ManualClock,
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) table: MemoryTable,
    pub(crate) stream: Vec<Json>,
    pub(crate) faults: Vec<Fault>,
}

pub(crate) fn keys(op: &Op) -> Vec<Key> {
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

pub(crate) fn image(item: &Item) -> Json {
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
pub(crate) const START: i64 = 1_796_083_160_000;

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) table: Arc<Streaming>,
    pub(crate) stack: Stack,
    pub(crate) repo: Repository,
    pub(crate) limiter: RateLimiter,
    /// How much of the stream has been delivered successfully.
    pub(crate) delivered: usize,
}

impl World {
    pub(crate) async fn new(limits: [Limit; 2]) -> Self {
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
    pub(crate) fn function(&self) -> Aggregator {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let settings = AggregatorSettings {
            table: "t".into(),
            windows: vec![Window::Hourly, Window::Daily, Window::Monthly],
            retention_days: 90,
            archive_bucket: None,
            alert_thresholds: Thresholds::default(),
        };
        let log = Log::new(Level::Error, Arc::clone(&clock));
        Aggregator::new(self.stack.clone(), settings, None, clock, log)
    }

    /// The records of buckets that have not been delivered.
    pub(crate) fn pending(&mut self) -> Vec<Json> {
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
    pub(crate) async fn deliver(&mut self) -> Vec<Report> {
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

    pub(crate) fn faults(&self, faults: Vec<Fault>) {
        self.table.state.lock().unwrap().faults = faults;
    }

    pub(crate) fn shards(&self, entity: &str) -> Vec<Item> {
        let state = self.table.state.lock().unwrap();
        let is_shard = |key: &Key| key.pk.contains(&format!("/BUCKET#{entity}#"));
        let items = state.table.items().filter(|(key, _)| is_shard(key));
        items.map(|(_, item)| item.clone()).collect()
    }

    pub(crate) fn sum(&self, entity: &str, attr: &str) -> i128 {
        self.shards(entity)
            .iter()
            .map(|item| item[attr].as_int().unwrap())
            .sum()
    }

    pub(crate) fn snapshots(&self) -> Vec<UsageSnapshot> {
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
pub(crate) async fn deliver_with_faults(
    world: &World,
    records: &[Json],
    sizes: &[usize],
    faults: &[Vec<Fault>],
) {
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
        if round % 4 == 0 && from < records.len() {
            // At least once: what was done comes again. Not after the end, which every fourth round could be.
            from = from.saturating_sub(size / 2);
        }
        assert!(round < 1000, "it gets nowhere");
    }
}

pub(crate) fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![2 => Just(Fault::None), 3 => Just(Fault::Throttled), 2 => Just(Fault::Lost)]
}
