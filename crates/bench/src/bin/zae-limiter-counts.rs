//! Executes one part of an acquire many times, for `scripts/instruction-counts` to count its instructions with callgrind.
//!
//! ```sh
//! zae-limiter-counts          # the names of the parts
//! zae-limiter-counts sign 100 # one of them, 100 times
//! ```
//!
//! Nothing here depends on time, randomness or the environment, so every run executes the same instructions.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::hint::black_box;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use zae_limiter::table::client::measured::{Signatures, decode, encode};
use zae_limiter_core::acquire::{
    Acquire, Ask, Call, Debit, Decision, Found, Group, Hint, Observation, Outcome, Reply, Request, Settings,
};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::limit_attributes;
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::random::Random;
use zae_limiter_core::resolve::resolve_items;
use zae_limiter_core::schema::{BucketId, key_item, resource_config_key};
use zae_limiter_core::table::{Answer, Item, Op, Update, Value};
use zae_limiter_core::{EpochMillis, Limit, Millitokens};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// The parts, in the order of an acquire.
const PARTS: [&str; 7] = [
    "decide",
    "refill",
    "encode",
    "sign",
    "decode-json",
    "decode-bucket",
    "merge",
];

/// The debits of a joined write.
const MEMBERS: usize = 64;

/// The length of a session token of an IAM role.
const TOKEN: usize = 800;

const NOW: EpochMillis = EpochMillis(1_795_932_000_000);

/// When the answer to the write arrives.
const LATER: EpochMillis = EpochMillis(NOW.0 + 5);

fn main() -> Fallible<()> {
    let mut args = std::env::args().skip(1);
    let Some(part) = args.next() else {
        println!("{}", PARTS.join("\n"));
        return Ok(());
    };
    let times = args.next().ok_or("how many times?")?.parse()?;
    let warm = Warm::new()?;
    match part.as_str() {
        "decide" => warm.decide(times),
        "refill" => warm.refill(times),
        "encode" => warm.encode(times),
        "sign" => warm.sign(times),
        "decode-json" => warm.decode_json(times),
        "decode-bucket" => warm.decode_bucket(times),
        "merge" => warm.merge(times),
        _ => Err(format!("there is no part '{part}'").into()),
    }
}

/// Does the work once without counting, to check its result and to initialise what is initialised once, and then `times`
/// times.
fn repeat<I, O>(
    times: usize,
    input: impl Fn() -> I,
    mut work: impl FnMut(I) -> O,
    is_right: impl Fn(&O) -> bool,
) -> Fallible<()> {
    if !is_right(&work(input())) {
        return Err("the work has another result than expected".into());
    }
    for _ in 0..times {
        // What it takes to make the input and to drop the result does not count.
        let input = input();
        drop(instructions_are_counted_here(&mut work, input));
    }
    Ok(())
}

/// `scripts/instruction-counts` counts between its call and its return, and finds it by its name.
#[inline(never)]
fn instructions_are_counted_here<I, O>(work: &mut impl FnMut(I) -> O, input: I) -> O {
    black_box(work(black_box(input)))
}

/// A process that has acquired before: it knows the configuration and has seen the bucket.
struct Warm {
    request: Request,
    found: Found,
    /// The write of the next acquire.
    debit: Debit,
    update: Update,
    /// The bucket after it.
    item: Item,
}

impl Warm {
    fn new() -> Fallible<Self> {
        let id = BucketId {
            namespace: "dSkXlbmmfyU".parse()?,
            entity: "key-5f3a9c41".parse()?,
            resource: "gpt-4".parse()?,
        };
        let request = Request {
            consume: vec![
                ("rpm".parse()?, Millitokens::from_tokens(1)),
                ("tpm".parse()?, Millitokens::from_tokens(500)),
            ],
            id,
            also: Vec::new(),
            limits: None,
            overdraws: false,
            settings: Settings::default(),
            slices: None,
        };
        let mut table = MemoryTable::new();
        let limits = [
            Limit::per_minute("rpm", 10_000).build()?,
            Limit::per_minute("tpm", 2_000_000).build()?,
        ];
        let mut config = key_item(&resource_config_key(&request.id.namespace, &request.id.resource));
        let attributes = limit_attributes(&limits).into_iter();
        config.extend(attributes.map(|(name, value)| (name.to_string(), value)));
        table.insert(config)?;

        let mut found = found(&request, &table)?;
        let image = first(&request, &found, &mut table)?;
        found.hint.images = vec![(0, image)];

        let mut acquire = Acquire::new(request.clone());
        let debit = debit(acquire.start(&|_, _| Some(found.clone()), NOW, &mut Constant))?;
        let update = debit.update(NOW);
        let Answer::Applied(Some(item)) = table.call(&Op::Update(update.clone()))? else {
            return Err("the debit was refused".into());
        };
        Ok(Self {
            request,
            found,
            debit,
            update,
            item,
        })
    }

    fn bucket(&self) -> Fallible<Arc<Bucket>> {
        Ok(Arc::new(Bucket::decode(&self.item)?))
    }

    /// The machine of an acquire, from the request to the decision, with the write that it asks for.
    fn decide(&self, times: usize) -> Fallible<()> {
        repeat(
            times,
            || (self.request.clone(), self.item.clone()),
            |(request, item)| {
                let mut acquire = Acquire::new(request);
                let calls = acquire.start(&|_, _| Some(self.found.clone()), NOW, &mut Constant);
                let update = debit(calls).map(|debit| debit.update(NOW)).ok();
                let reply = Reply::Table(Ok(Answer::Applied(Some(item))));
                let calls = acquire.answer(0, reply, LATER, &mut Constant);
                (update, calls, acquire.take_observations(), acquire.finish())
            },
            |(update, calls, seen, decision)| {
                update.as_ref() == Some(&self.update)
                    && calls.is_empty()
                    && seen.len() == 1
                    && matches!(decision, Some(Decision::Admitted(grants)) if grants.len() == 1)
            },
        )
    }

    /// The balances of an image at a hundred instants: each limit's, and that of the write units.
    fn refill(&self, times: usize) -> Fallible<()> {
        let image = self.bucket()?;
        repeat(
            times,
            || Arc::clone(&image),
            |image| {
                let mut last = Vec::with_capacity(3);
                for step in 0..100 {
                    let now = EpochMillis(NOW.0 + step * 7);
                    last.clear();
                    for limit in image.limits.iter().chain(&image.wcu) {
                        last.push(image.refilled(limit, now));
                    }
                    black_box(&last);
                }
                last
            },
            |last| last.len() == 3 && last.iter().all(|balance| balance.at.0 == NOW.0 + 693),
        )
    }

    /// The body of the request, from the write.
    fn encode(&self, times: usize) -> Fallible<()> {
        repeat(
            times,
            || self.update.clone(),
            |update| encode("zae-limiter", update),
            Result::is_ok,
        )
    }

    /// The signature of the request. The signing key of the day is there already.
    fn sign(&self, times: usize) -> Fallible<()> {
        let body = encode("zae-limiter", self.update.clone())?;
        let signatures = Signatures::new(TOKEN);
        repeat(
            times,
            || body.as_slice(),
            |body| signatures.sign(body, NOW.0 / 1000),
            |authorization| authorization.starts_with("AWS4-HMAC-SHA256"),
        )
    }

    /// The item, from the body of the answer.
    fn decode_json(&self, times: usize) -> Fallible<()> {
        let body = json!({ "Attributes": written(&self.item)? }).to_string();
        repeat(
            times,
            || body.as_bytes(),
            decode,
            |item| matches!(item, Ok(Some(item)) if *item == self.item),
        )
    }

    /// The bucket, from the item.
    fn decode_bucket(&self, times: usize) -> Fallible<()> {
        repeat(
            times,
            || &self.item,
            Bucket::decode,
            |bucket| matches!(bucket, Ok(bucket) if bucket.limits.len() == 2),
        )
    }

    /// One write for many debits, and what its answer says to each of them.
    fn merge(&self, times: usize) -> Fallible<()> {
        let latest = self.bucket()?;
        let answer = Ok(Answer::Applied(Some(self.item.clone())));
        repeat(
            times,
            || vec![self.debit.clone(); MEMBERS],
            |debits| {
                let mut group = Group::default();
                for (number, debit) in debits.into_iter().enumerate() {
                    group.push(debit, number);
                }
                let batch = group.next(Some(&latest), NOW);
                let replies = batch.map(|batch| group.answer(batch, &answer));
                (group, replies.unwrap_or_default())
            },
            |(group, replies)| {
                let taken = |reply: &Reply| matches!(reply, Reply::Debited(Outcome::Taken, _));
                group.is_empty()
                    && replies.len() == MEMBERS
                    && replies.iter().all(|(_, _, reply)| taken(reply))
            },
        )
    }
}

/// The configuration, as a process reads it.
fn found(request: &Request, table: &MemoryTable) -> Fallible<Found> {
    let id = &request.id;
    let who = (&id.entity, &id.resource);
    let config = resolve_items(&id.namespace, who, |key| table.get(key), NOW)?;
    Ok(Found {
        config: Arc::new(config),
        hint: Hint {
            shard_count: 1,
            round_trip_ms: 5,
            ..Hint::default()
        },
    })
}

/// The first acquire of the bucket, which creates it. Returns its image.
fn first(request: &Request, found: &Found, table: &mut MemoryTable) -> Fallible<Arc<Bucket>> {
    let mut acquire = Acquire::new(request.clone());
    let mut calls = acquire.start(&|_, _| Some(found.clone()), NOW, &mut Constant);
    while let Some(Call { id, ask, .. }) = calls.pop() {
        let op = match ask {
            Ask::Debit(debit) => Op::Update(debit.update(NOW)),
            Ask::Table(op) => op,
            other => return Err(format!("{other:?} was not expected").into()),
        };
        calls.extend(acquire.answer(id, Reply::Table(table.call(&op)), NOW, &mut Constant));
    }
    let seen = acquire.take_observations().pop();
    let is_admitted = matches!(acquire.decision(), Some(Decision::Admitted(_)));
    let seen: Option<Observation> = seen.filter(|_| is_admitted);
    Ok(seen.ok_or("the first acquire was not admitted")?.image)
}

/// The debit that is asked for first.
fn debit(calls: Vec<Call>) -> Fallible<Debit> {
    match calls.into_iter().next().map(|call| call.ask) {
        Some(Ask::Debit(debit)) => Ok(*debit),
        other => Err(format!("{other:?} is not a debit").into()),
    }
}

/// An item as DynamoDB writes it.
fn written(item: &Item) -> Fallible<Json> {
    let mut members = Map::new();
    for (name, value) in item {
        let value = match value {
            Value::S(text) => json!({ "S": text }),
            Value::N(digits) => json!({ "N": digits.as_str() }),
            Value::Bool(truth) => json!({ "BOOL": truth }),
            other => return Err(format!("a bucket has no attribute such as {other:?}").into()),
        };
        members.insert(name.clone(), value);
    }
    Ok(members.into())
}

/// Randomness that is the same in every run.
struct Constant;

impl Random for Constant {
    fn bits(&mut self) -> u64 {
        0x9e37_79b9_7f4a_7c15
    }
}
