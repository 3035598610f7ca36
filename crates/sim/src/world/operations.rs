//! Operators who reset buckets and top them up, as the library does: the configuration, the record of the key, all shards, those that
//! are missing, then one transaction; and after a failure, all of it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zae_limiter_core::EpochMillis;
use zae_limiter_core::acquire::{Ask, Found, Hint, Reply, Settings, Spread, SpreadEnd};
use zae_limiter_core::operator::{
    Change, Operation, OperationKey, OperationRecord, OperationResult, Recorded, Replaces, missing,
    read_shards, shard_count,
};
use zae_limiter_core::resolve::resolve_items;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::sync::{Drift, reconcile};
use zae_limiter_core::table::{Answer, Item, Op, Part};

use super::World;
use super::works::{Asked, Next, Work};
use crate::judge::operations::{Key, Planned};
use crate::plan;
use crate::rng::Rng;
use crate::rows::change::Source;
use crate::rows::row::{Cell, Row};
use crate::state::job::Machine;
use crate::time::millis;

/// How often a plan that loses to other writers is made again.
const MAX_ATTEMPTS: u32 = 4;

/// How often shards are read until they are as configured.
const MAX_PREPARATIONS: u32 = 8;

/// A call of an operator.
#[derive(Debug)]
pub(super) struct Operate {
    clock: usize,
    id: BucketId,
    change: Change,
    key: OperationKey,
    attempt: u32,
    preparations: u32,
    has_created: bool,
    operation: Option<Operation>,
    /// What its record takes the place of, as it was read.
    replaces: Replaces,
    step: Step,
    items: BTreeMap<u32, Item>,
    /// The shards that were looked for.
    asked: BTreeSet<u32>,
}

#[derive(Debug)]
enum Step {
    Check,
    Record,
    /// These shards are still to be read.
    Read(Vec<u32>),
    Prepare,
    /// The transaction of this plan is to be sent; it was made at this instant, in microseconds from the start.
    Send(usize, Vec<Part>, u64),
}

impl World<'_> {
    pub(super) fn begin_operation(
        &mut self,
        clock: usize,
        entity: usize,
        operation: &plan::Operation,
        key: u32,
    ) -> Option<Operate> {
        let name = |limit: &usize| self.names.limits[*limit].clone();
        let change = match operation {
            plan::Operation::Reset(limits) => Change::Reset(limits.iter().map(name).collect()),
            plan::Operation::TopUp(amounts) => {
                let amount = |(limit, amount): &(usize, u64)| (name(limit), *amount);
                Change::TopUp(amounts.iter().map(amount).collect())
            }
        };
        Some(Operate {
            clock,
            id: self.names.bucket(entity),
            change,
            key: OperationKey::new(format!("key-{key}")).ok()?,
            attempt: 0,
            preparations: 0,
            has_created: false,
            operation: None,
            replaces: Replaces::Nothing,
            step: Step::Check,
            items: BTreeMap::new(),
            asked: BTreeSet::new(),
        })
    }

    /// One step of a call.
    pub(super) fn operate(&mut self, mut call: Operate, rng: &mut Rng) -> Next {
        let now = self.processes[call.clock].clock(self.now_us);
        match std::mem::replace(&mut call.step, Step::Check) {
            Step::Check => {
                let who = (&call.id.entity, &call.id.resource);
                let Ok(config) = resolve_items(&self.names.namespace, who, |key| self.table.get(key), now)
                else {
                    return Next::Ends;
                };
                let settings = Settings {
                    bucket_ttl_multiplier: self.plan.ttl_multiplier,
                    ..Settings::default()
                };
                let checked =
                    Operation::new(call.id.clone(), call.change.clone(), Arc::new(config), settings);
                let Ok(operation) = checked else {
                    self.stats.operations_refused += 1;
                    return Next::Ends;
                };
                call.operation = Some(operation);
                call.step = Step::Record;
                Next::Soon(Work::Operation(Box::new(call)))
            }
            Step::Record => match self.recorded(&call) {
                Some(Ok(replaces)) => {
                    call.replaces = replaces;
                    self.read_again(call)
                }
                Some(Err(err)) => {
                    self.fail(err);
                    Next::Ends
                }
                None => Next::Ends,
            },
            Step::Read(mut left) => {
                if let Some(shard) = left.pop() {
                    if let Some(item) = self.table.get(&call.id.key(shard)) {
                        call.items.insert(shard, item.clone());
                    }
                    if !left.is_empty() {
                        call.step = Step::Read(left);
                        return Next::Soon(Work::Operation(Box::new(call)));
                    }
                }
                let items: Vec<Item> = call.items.values().cloned().collect();
                let Ok(shards) = read_shards(&items) else {
                    return Next::Ends;
                };
                let asked = |shard: &u32| call.asked.contains(shard);
                let more: Vec<u32> = missing(&shards)
                    .into_iter()
                    .filter(|shard| !asked(shard))
                    .collect();
                call.step = if more.is_empty() {
                    Step::Prepare
                } else {
                    call.asked.extend(more.iter().copied());
                    Step::Read(more)
                };
                Next::Soon(Work::Operation(Box::new(call)))
            }
            Step::Prepare => self.prepare(call, now, rng),
            Step::Send(planned, parts, made_us) => {
                self.check.arrives_after(millis(self.now_us - made_us) + 1);
                match self.operator_asks(Source::Operator(planned), Op::Transact(parts), rng) {
                    Asked::Answered(Answer::Applied(_)) => {
                        self.stats.operations += 1;
                        let result = self.check.operations.planned[planned].result.clone();
                        if let Err(err) = self.reports(&call, &result) {
                            self.fail(err);
                        }
                        Next::Ends
                    }
                    // A request that the table refuses is an error of the call.
                    Asked::Failed => Next::Ends,
                    Asked::Answered(_) | Asked::Unknown => {
                        self.stats.operations_again += 1;
                        call.attempt += 1;
                        call.preparations = 0;
                        if call.attempt == MAX_ATTEMPTS {
                            return Next::Ends;
                        }
                        call.step = Step::Check;
                        let pause = rng.range(1, 50_000 << call.attempt).unsigned_abs();
                        Next::After(pause, Work::Operation(Box::new(call)))
                    }
                }
            }
        }
    }

    fn read_again(&mut self, mut call: Operate) -> Next {
        call.preparations += 1;
        if call.preparations > MAX_PREPARATIONS {
            return Next::Ends;
        }
        call.items.clear();
        // Those that the index shows, and the first one.
        let found = (0..32).filter(|shard| *shard == 0 || self.table.get(&call.id.key(*shard)).is_some());
        let wanted: Vec<u32> = found.collect();
        call.asked = wanted.iter().copied().collect();
        call.step = Step::Read(wanted);
        Next::Soon(Work::Operation(Box::new(call)))
    }

    /// Brings shards up to the configuration, creates those that are missing, and plans.
    fn prepare(&mut self, mut call: Operate, now: EpochMillis, rng: &mut Rng) -> Next {
        let items: Vec<Item> = call.items.values().cloned().collect();
        let (Some(operation), Ok(shards)) = (call.operation.clone(), read_shards(&items)) else {
            return Next::Ends;
        };
        let config = operation.config();
        let mut was_behind = false;
        for (shard, image) in &shards {
            if Drift::between(image, config, now).limits {
                was_behind = true;
                let update = reconcile(call.id.key(*shard), image, config, self.plan.ttl_multiplier, now);
                let _ = self.write(Source::Admin, &Op::Update(update));
            }
        }
        if was_behind {
            return self.read_again(call);
        }
        let (count, lost) = (shard_count(&shards), missing(&shards));
        let has_quota = call
            .items
            .values()
            .filter_map(|item| Row::read(item).ok())
            .any(|row| row.limits.values().any(Cell::has_periods));
        if !call.has_created && !lost.is_empty() && !has_quota && shards.contains_key(&0) {
            let created = lost
                .into_iter()
                .filter(|shard| self.spread(&call, *shard, count, rng))
                .count();
            if created > 0 {
                call.has_created = true;
                return self.read_again(call);
            }
        }
        let plan = if shards.is_empty() && matches!(call.change, Change::TopUp(_)) {
            let plan = operation.create(now, rng);
            if config.disabled().is_some() && !plan.parts.is_empty() {
                return Next::Ends;
            }
            plan
        } else {
            let Ok(plan) = operation.plan(&shards, now) else {
                self.stats.operations_refused += 1;
                return Next::Ends;
            };
            plan
        };
        let reads = call.items.iter();
        let reads = reads.filter_map(|(shard, item)| Some((*shard, Row::read(item).ok()?)));
        let planned = Planned {
            key: Self::key_of(&call, operation.incarnation()),
            change: call.change.clone(),
            configured: config
                .limits
                .iter()
                .map(|limit| limit.name().to_string())
                .collect(),
            reads: reads.collect(),
            result: plan.result.clone(),
        };
        let record = OperationRecord {
            key: call.key.clone(),
            kind: call.change.kind().to_owned(),
            writer: "sim".to_owned(),
            incarnation: operation.incarnation().to_owned(),
            result: plan.result,
        };
        let mut parts = plan.parts;
        parts.push(Part::Put(record.put(&call.id, &call.replaces, now)));
        self.check.operations.planned.push(planned);
        let index = self.check.operations.planned.len() - 1;
        call.step = Step::Send(index, parts, self.now_us);
        Next::Soon(Work::Operation(Box::new(call)))
    }

    fn key_of(call: &Operate, incarnation: &str) -> Key {
        let pk = call.id.key(0).pk;
        let bucket = pk.rsplit_once('#').map_or(pk.as_str(), |(bucket, _)| bucket);
        Key {
            bucket: bucket.to_owned(),
            name: call.key.as_str().to_owned(),
            life: incarnation.to_owned(),
        }
    }

    /// What the record of the call takes the place of, unless the call ends with what is recorded.
    fn recorded(&mut self, call: &Operate) -> Option<Result<Replaces, String>> {
        let operation = call.operation.as_ref()?;
        let item = self.table.get(&OperationRecord::table_key(&call.id, &call.key));
        match OperationRecord::read(item, call.change.kind(), operation.incarnation()) {
            Ok(Recorded::Done(result)) => {
                self.stats.operations_repeated += 1;
                self.reports(call, &result).err().map(Err)
            }
            Ok(Recorded::Other(_)) => {
                self.stats.operations_refused += 1;
                None
            }
            Ok(Recorded::Nothing(replaces)) => Some(Ok(replaces)),
            Err(err) => Some(Err(format!("the record of an operation cannot be read: {err}"))),
        }
    }

    /// The caller hears that the operation has had this effect.
    fn reports(&self, call: &Operate, result: &OperationResult) -> Result<(), String> {
        let incarnation = call.operation.as_ref().map_or("-", Operation::incarnation);
        let key = Self::key_of(call, incarnation);
        self.check.operations.reports(&key, call.change.kind(), result)
    }

    /// Creates a shard as a request would that takes nothing. Returns whether it was created.
    fn spread(&mut self, call: &Operate, shard: u32, count: u32, rng: &mut Rng) -> bool {
        let job = self.add_job(call.clock, usize::MAX, Machine::Ended, rng.clone());
        self.check.access.begins(job, self.now_us);
        let now = self.processes[call.clock].clock(self.now_us);
        let mut spread = Spread::new(call.id.clone(), shard, count, Settings::default());
        let mut next = Some(spread.start());
        while let Some(ask) = next {
            let reply = match ask {
                Ask::Table(Op::BatchGet { keys, .. }) => {
                    let items = keys.iter().filter_map(|key| self.table.get(key)).cloned();
                    Reply::Table(Ok(Answer::Items(items.collect())))
                }
                Ask::Table(op) => Reply::Table(self.write(Source::Acquire(job), &op)),
                Ask::Config { .. } => {
                    let who = (&call.id.entity, &call.id.resource);
                    let config = resolve_items(&self.names.namespace, who, |key| self.table.get(key), now);
                    Reply::Config(config.map_err(Into::into).map(|config| Found {
                        config: Arc::new(config),
                        hint: Hint::default(),
                    }))
                }
                Ask::Debit(_) | Ask::Wait => Reply::Waited,
                Ask::GiveBack(_) => Reply::GivenBack,
            };
            next = spread.answer(reply, now, rng).pop().map(|(_, ask)| ask);
        }
        matches!(spread.end(), Some(SpreadEnd::Created))
    }
}
