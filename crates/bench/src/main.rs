//! What an acquire costs beside a bare conditional `UpdateItem` through the AWS SDK.
//!
//! Rounds of both alternate in one run, so that a machine whose speed drifts does not decide the ratio. A table
//! for people goes to stdout; with `--json`, a line per case for machines. With `--endpoint-url`, requests go over HTTP, and are
//! signed, to an endpoint in another process.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod bare;
mod by_hand;
mod canned;
mod http;
mod many;
mod measure;
mod original;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use clap::Parser;
use zae_limiter::clock::{Clock as _, ManualClock, SystemClock};
use zae_limiter::table::{Connection, DynamoClient, EmbeddedEngine, RequestCost, TableExt as _, Timeouts};
use zae_limiter::{Error, Limit, NewEntity, Prefetch, RateLimiter, Repository, RepositoryBuilder, SdkConfig};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Op, Value};

use crate::measure::{Round, round};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures what an acquire costs.
#[derive(Debug, Parser)]
struct Options {
    /// Operations per round.
    #[arg(long, default_value_t = 2000)]
    ops: usize,
    /// Rounds per case; medians are reported.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// A short run, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Print JSON lines instead of a table.
    #[arg(long)]
    json: bool,
    /// An endpoint for the cases over HTTP, such as that of `zae-limiter local up --ephemeral`. The table
    /// `zae-limiter-bench` is created there.
    #[arg(long)]
    endpoint_url: Option<String>,
    /// With `--endpoint-url`: also the same request, written by hand to a socket, as the lower bound.
    #[arg(long, requires = "endpoint_url")]
    floor: bool,
    /// With `--endpoint-url`: also the Python library, of a virtual environment in this directory.
    #[arg(long, value_name = "VENV", requires = "endpoint_url")]
    python: Option<PathBuf>,
    /// Only this: one acquire of each of so many entities, and how much larger the process is afterwards.
    #[arg(long, conflicts_with = "endpoint_url")]
    entities: Option<usize>,
}

impl Options {
    /// Whether a case of one of these names is to be measured.
    fn wants(&self, names: &[&str]) -> bool {
        names.iter().any(|name| name.contains(&self.only))
    }
}

/// One measured case.
struct Case {
    name: &'static str,
    concurrency: usize,
    round: Round,
    usage: RequestCost,
    /// CPU and median latency as ratios of the yardstick measured in the same rounds.
    ratios: Option<(f64, f64)>,
}

/// Buckets that the load is spread over, so that none runs out of write units.
const KEYS: usize = 64;

/// The table of the cases over HTTP.
const TABLE: &str = "zae-limiter-bench";

struct World {
    limiter: RateLimiter,
    client: Client,
    clock: ManualClock,
    table: &'static str,
}

impl World {
    async fn new(options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder) -> Outcome<Self> {
        let engine = EmbeddedEngine::memory()?;
        let client = engine.client();
        zae_limiter::table::definition::create_table(&client, zae_limiter::DEFAULT_STACK).await?;
        let clock = ManualClock::at(SystemClock.now());
        let builder = Repository::builder().dynamo_client(client).clock(clock.clone());
        let repo = options(builder).open().await?;
        Self::in_repository(repo, engine.sdk_client(), clock, zae_limiter::DEFAULT_STACK).await
    }

    /// A namespace of its own in a table behind HTTP.
    async fn over_http(
        url: &str,
        options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder,
    ) -> Outcome<Self> {
        let connection = Connection {
            endpoint_url: Some(url.to_owned()),
            ..Connection::default()
        };
        let config = connection.checked_config().await?;
        zae_limiter::table::definition::create_table(&connection.client_of(&config), TABLE).await?;
        let client = aws_sdk_dynamodb::config::Builder::from(&config).retry_config(RetryConfig::disabled());
        let clock = ManualClock::at(SystemClock.now());
        let builder = Repository::builder()
            .stack(TABLE)
            .namespace(format!("bench-{:08x}", fastrand::u32(..)))
            .sdk_config(config.clone())
            .clock(clock.clone());
        let repo = options(builder).open().await?;
        Self::in_repository(repo, Client::from_conf(client.build()), clock, TABLE).await
    }

    async fn in_repository(
        repo: Repository,
        client: Client,
        clock: ManualClock,
        table: &'static str,
    ) -> Outcome<Self> {
        let limits = [
            Limit::per_day("rpm", 1_000_000_000),
            Limit::per_day("tpm", 1_000_000_000_000),
        ];
        repo.admin().set_system_defaults(limits, None).await?;
        let world = Self {
            limiter: RateLimiter::new(repo),
            client,
            clock,
            table,
        };
        for key in 0..KEYS {
            world.take(key, 10).await?.commit().await?;
        }
        Ok(world)
    }

    fn repo(&self) -> &Repository {
        self.limiter.repository()
    }

    async fn take(&self, key: usize, tokens: u64) -> Result<zae_limiter::Lease, Error> {
        self.limiter
            .acquire(entity(key), "gpt-4")
            .consume("rpm", 1)
            .consume("tpm", tokens)
            .await
    }

    fn id(&self, key: usize) -> Outcome<BucketId> {
        self.id_of(&entity(key))
    }

    fn id_of(&self, entity: &str) -> Outcome<BucketId> {
        Ok(BucketId {
            namespace: self.repo().namespace_id().clone(),
            entity: entity.parse()?,
            resource: "gpt-4".parse()?,
        })
    }

    /// Sets attributes of all buckets, as another process might.
    async fn poke(&self, attributes: &[(&str, i128)]) -> Outcome<()> {
        self.poke_those((0..KEYS).map(entity), attributes).await
    }

    /// Sets attributes of the buckets of these entities.
    async fn poke_those(
        &self,
        entities: impl Iterator<Item = String>,
        attributes: &[(&str, i128)],
    ) -> Outcome<()> {
        for entity in entities {
            let mut update = zae_limiter_core::table::Update::new(self.id_of(&entity)?.key(0));
            let set = attributes
                .iter()
                .map(|(name, n)| ((*name).into(), Value::int(*n)));
            update.set.extend(set);
            let _ = self.repo().table().update(update).await?;
        }
        Ok(())
    }

    /// Fills the write units again, as time would.
    async fn refresh(&self) -> Outcome<()> {
        self.poke(&[("b_wcu_tk", 1_000_000)]).await
    }

    /// Those of the parents of [`make_children`], too.
    async fn refresh_family(&self) -> Outcome<()> {
        self.refresh().await?;
        let parents = (0..PARENTS).map(parent);
        self.poke_those(parents, &[("b_wcu_tk", 1_000_000)]).await
    }
}

/// Parents of the children, so that none runs out of write units.
const PARENTS: usize = 16;

fn parent(number: usize) -> String {
    format!("proj-{number}")
}

fn entity(key: usize) -> String {
    format!("key-{key}")
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.ops, options.rounds) = (200, 3);
    }
    if let Some(entities) = options.entities {
        let many = many::many(entities.max(1)).await?;
        print(&options, &many.cases);
        if options.json {
            println!(
                "{}",
                serde_json::json!({"case": "memory", "entities": entities, "grown_mib": many.grown_mib})
            );
        } else {
            println!(
                "{entities} entities: the process is {} MiB larger",
                many.grown_mib
            );
        }
        return Ok(());
    }
    if let Some(url) = &options.endpoint_url {
        let cases = http::cases(&options, url).await?;
        print(&options, &cases);
        return Ok(());
    }
    let wanted = |names: &[&str]| options.wants(names);
    let mut cases = Vec::new();
    for concurrency in [1, 8] {
        if wanted(&["bare update", "acquire"]) {
            cases.extend(against_bare(&options, concurrency).await?);
        }
    }
    if wanted(&["bare update, client side", "acquire, client side"]) {
        cases.extend(client_side(&options).await?);
    }
    if wanted(&["acquire, cascade"]) {
        cases.push(cascade(&options).await?);
    }
    if wanted(&["acquire, refill due"]) {
        cases.push(refill_due(&options).await?);
    }
    if wanted(&["refused by the table", "refused from memory"]) {
        cases.extend(rejected(&options).await?);
    }
    if wanted(&["nothing"]) {
        cases.push(nothing(&options).await);
    }
    if wanted(&["one bucket, tokens taken ahead"]) {
        cases.push(ahead(&options).await?);
    }
    if wanted(&["acquire, adjust, commit"]) {
        cases.push(adjusted(&options).await?);
    }
    print(&options, &cases);
    Ok(())
}

fn print(options: &Options, cases: &[Case]) {
    if options.json {
        print_json(cases);
    } else {
        print_table(cases);
    }
}

/// An admitted acquire, committed without adjustment, beside the bare update, on the embedded engine.
async fn against_bare(options: &Options, concurrency: usize) -> Outcome<[Case; 2]> {
    let world = Arc::new(World::new(|builder| builder).await?);
    let (mut bare, mut acquire) = (Vec::new(), Vec::new());
    for _ in 0..=options.rounds {
        world.refresh().await?;
        bare.push(bare_round(&world, options.ops, concurrency).await?);
        world.refresh().await?;
        acquire.push(acquire_round(&world, KEYS, options.ops, concurrency).await);
    }
    let mut usage = measured_usage(World::new(RepositoryBuilder::measure).await?, false, options.ops).await?;
    scale(&mut usage, options.rounds as f64);
    Ok(compared(
        ["bare update", "acquire"],
        concurrency,
        &bare,
        &acquire,
        usage,
    ))
}

/// The first round warms up and is dropped.
fn compared(
    names: [&'static str; 2],
    concurrency: usize,
    a: &[Round],
    b: &[Round],
    usage: RequestCost,
) -> [Case; 2] {
    let (a, b) = (&a[1..], &b[1..]);
    let ratio = |figure: &dyn Fn(&Round) -> f64| {
        median(a.iter().zip(b).map(|(a, b)| figure(b) / figure(a)).collect())
    };
    let ratios = (
        ratio(&|round| round.cpu_us_per_op()),
        ratio(&|round| round.quantile_us(0.5)),
    );
    let ops = Round::joined(a).ops() as u64;
    let bare = one_update_each(ops);
    [
        Case {
            name: names[0],
            concurrency,
            round: Round::joined(a),
            usage: bare,
            ratios: None,
        },
        Case {
            name: names[1],
            concurrency,
            round: Round::joined(b),
            usage,
            ratios: Some(ratios),
        },
    ]
}

/// The cost of so many updates of a bucket and its index.
fn one_update_each(ops: u64) -> RequestCost {
    RequestCost {
        updates: ops,
        write_units: 2.0 * ops as f64,
        ..RequestCost::default()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn bare_round(world: &World, ops: usize, concurrency: usize) -> Outcome<Round> {
    let keys: Vec<String> = (0..KEYS)
        .map(|key| Ok(world.id(key)?.key(0).pk))
        .collect::<Outcome<_>>()?;
    let (client, now) = (world.client.clone(), EpochMillis::from(world.clock.now()).0);
    Ok(round(ops, concurrency, |i| {
        bare::debit(
            client.clone(),
            world.table.to_owned(),
            keys[i % KEYS].clone(),
            10,
            now,
        )
    })
    .await)
}

/// Acquires of the first so many keys, in turn.
async fn acquire_round(world: &Arc<World>, keys: usize, ops: usize, concurrency: usize) -> Round {
    round(ops, concurrency, |i| {
        let world = Arc::clone(world);
        async move {
            match world.take(i % keys, 10).await {
                Ok(lease) => lease.commit().await.is_ok(),
                Err(_) => false,
            }
        }
    })
    .await
}

/// Counting capacity costs time, so it is done apart from measuring it.
async fn measured_usage(world: World, cascade: bool, ops: usize) -> Outcome<RequestCost> {
    let world = Arc::new(world);
    if cascade {
        make_children(&world).await?;
        acquire_round(&world, KEYS, KEYS, 1).await;
        world.refresh_family().await?;
    }
    world.refresh().await?;
    let before = world.repo().request_cost();
    acquire_round(&world, KEYS, ops, 1).await;
    Ok(world.repo().request_cost().since(&before))
}

/// The same against a connector that answers at once: what the client side costs, signing and parsing included.
async fn client_side(options: &Options) -> Outcome<[Case; 2]> {
    let mut world = World::new(|builder| builder).await?;
    let key = world.id(0)?.key(0);
    let Some(item) = world.repo().table().get(key.clone(), true).await? else {
        return Err("no bucket".into());
    };
    let body = answer(&item);
    let begin = format!(r#""PK":{{"S":"{}"}}"#, key.pk);
    let Some((before, after)) = body.split_once(&begin) else {
        return Err("no key".into());
    };
    let body = Arc::new((format!(r#"{before}"PK":{{"S":""#), format!(r#""}}{after}"#)));
    // The repository's own table is replaced by one with the canned connector; its configuration cache is warm.
    let config = SdkConfig::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .region(aws_sdk_dynamodb::config::Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "id", "secret", None, None, "bench",
        )))
        .http_client(canned::Canned { body })
        .build();
    let sdk = aws_sdk_dynamodb::config::Builder::from(&config).retry_config(RetryConfig::disabled());
    world.client = Client::from_conf(sdk.build());
    let canned = DynamoClient::new(&config, Timeouts::default());
    let switch = Arc::new(Switch::new(world.repo().table(), canned));
    let builder = Repository::builder()
        .custom_table(switch.clone())
        .clock(world.clock.clone());
    let limiter = RateLimiter::new(builder.open().await?);
    world.limiter = limiter;
    for key in 0..KEYS {
        world.take(key, 10).await?.commit().await?;
    }
    switch.switch();
    let world = Arc::new(world);
    let (mut bare, mut acquire) = (Vec::new(), Vec::new());
    for _ in 0..=options.rounds {
        bare.push(bare_round(&world, options.ops, 1).await?);
        acquire.push(acquire_round(&world, KEYS, options.ops, 1).await);
    }
    let ops = (options.ops * options.rounds) as u64;
    let usage = one_update_each(ops);
    Ok(compared(
        ["bare update, client side", "acquire, client side"],
        1,
        &bare,
        &acquire,
        usage,
    ))
}

/// The real table until it is switched, then the canned one.
#[derive(Debug)]
struct Switch {
    real: Arc<dyn zae_limiter::table::Table>,
    canned: zae_limiter::table::DynamoTable,
    switched: std::sync::atomic::AtomicBool,
}

impl Switch {
    fn new(real: Arc<dyn zae_limiter::table::Table>, canned: DynamoClient) -> Self {
        let canned = zae_limiter::table::DynamoTable::new(canned, zae_limiter::DEFAULT_STACK);
        Self {
            real,
            canned,
            switched: false.into(),
        }
    }

    fn switch(&self) {
        self.switched.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl zae_limiter::table::Table for Switch {
    fn call(&self, op: Op) -> zae_limiter::table::TableFuture {
        if self.switched.load(std::sync::atomic::Ordering::Relaxed) {
            self.canned.call(op)
        } else {
            self.real.call(op)
        }
    }
}

/// An update's answer that shows this item.
fn answer(item: &zae_limiter_core::table::Item) -> String {
    let attributes: serde_json::Map<String, serde_json::Value> = item
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::S(text) => serde_json::json!({"S": text}),
                Value::N(digits) => serde_json::json!({"N": digits.as_str()}),
                Value::Bool(flag) => serde_json::json!({"BOOL": flag}),
                _ => serde_json::json!({"NULL": true}),
            };
            (name.clone(), value)
        })
        .collect();
    serde_json::json!({ "Attributes": attributes }).to_string()
}

async fn make_children(world: &World) -> Outcome<()> {
    for key in 0..KEYS {
        let parent = parent(key % PARENTS);
        world
            .repo()
            .admin()
            .create_entity(NewEntity::new(entity(key)).parent(parent).cascade(true))
            .await?;
    }
    Ok(())
}

async fn cascade(options: &Options) -> Outcome<Case> {
    let world = Arc::new(World::new(|builder| builder).await?);
    make_children(&world).await?;
    let mut rounds = vec![acquire_round(&world, KEYS, KEYS, 1).await];
    for _ in 0..options.rounds {
        world.refresh_family().await?;
        rounds.push(acquire_round(&world, KEYS, options.ops.min(2000), 1).await);
    }
    let round = Round::joined(&rounds[1..]);
    let mut usage = measured_usage(World::new(RepositoryBuilder::measure).await?, true, options.ops).await?;
    scale(&mut usage, round.ops() as f64 / options.ops as f64);
    Ok(Case {
        name: "acquire, cascade",
        concurrency: 1,
        round,
        usage,
        ratios: None,
    })
}

/// One caller of one bucket, with tokens for 50 calls taken ahead.
async fn ahead(options: &Options) -> Outcome<Case> {
    let prefetch = Prefetch::calls(50).max_age(Duration::from_mins(1));
    let world = Arc::new(World::new(|builder| builder.measure().prefetch(prefetch)).await?);
    // Until so many calls are taken ahead for.
    acquire_round(&world, 1, 200, 1).await;
    let mut rounds = Vec::new();
    let mut usage = RequestCost::default();
    for _ in 0..options.rounds {
        world.refresh().await?;
        let before = world.repo().request_cost();
        rounds.push(acquire_round(&world, 1, options.ops, 1).await);
        usage = world.repo().request_cost().since(&before);
    }
    scale(&mut usage, options.rounds as f64);
    Ok(Case {
        name: "one bucket, tokens taken ahead",
        concurrency: 1,
        round: Round::joined(&rounds),
        usage,
        ratios: None,
    })
}

fn scale(usage: &mut RequestCost, by: f64) {
    for count in [
        &mut usage.updates,
        &mut usage.gets,
        &mut usage.batch_gets,
        &mut usage.queries,
    ] {
        *count = (*count as f64 * by) as u64;
    }
    usage.write_units *= by;
    usage.read_units *= by;
}

/// Each acquire finds a bucket that another process has emptied, and a refill due.
async fn refill_due(options: &Options) -> Outcome<Case> {
    let world = Arc::new(World::new(RepositoryBuilder::measure).await?);
    let mut rounds = Vec::new();
    let mut usage = RequestCost::default();
    for _ in 0..=options.rounds {
        let (round, cost) = refill_round(&world).await?;
        rounds.push(round);
        usage = cost;
    }
    scale(&mut usage, options.rounds as f64);
    Ok(Case {
        name: "acquire, refill due",
        concurrency: 1,
        round: Round::joined(&rounds[1..]),
        usage,
        ratios: None,
    })
}

/// An acquire of each bucket, after another process has changed it, and what it costs.
async fn refill_round(world: &Arc<World>) -> Outcome<(Round, RequestCost)> {
    world.poke(&[("b_tpm_tk", 0), ("b_wcu_tk", 1_000_000)]).await?;
    world.clock.advance(Duration::from_secs(1));
    let before = world.repo().request_cost();
    let round = acquire_round(world, KEYS, KEYS, 1).await;
    Ok((round, world.repo().request_cost().since(&before)))
}

/// A refusal that asks the table, and one that memory gives.
async fn rejected(options: &Options) -> Outcome<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, ttl) in [("refused by the table", 0), ("refused from memory", 1000)] {
        if !options.wants(&[name]) {
            continue;
        }
        let configured =
            |builder: RepositoryBuilder| builder.measure().reject_cache_ttl(Duration::from_millis(ttl));
        let world = Arc::new(World::new(configured).await?);
        world
            .poke(&[("b_tpm_tk", 0), ("b_wcu_tk", 1_000_000_000)])
            .await?;
        world.repo().invalidate_images();
        acquire_round(&world, KEYS, KEYS, 1).await;
        let before = world.repo().request_cost();
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            rounds.push(acquire_round(&world, KEYS, options.ops, 1).await);
        }
        let usage = world.repo().request_cost().since(&before);
        cases.push(Case {
            name,
            concurrency: 1,
            round: Round::joined(&rounds),
            usage,
            ratios: None,
        });
    }
    Ok(cases)
}

/// What the benchmark itself takes, which is in all other cases.
async fn nothing(options: &Options) -> Case {
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(round(options.ops, 1, async |_| true).await);
    }
    Case {
        name: "nothing",
        concurrency: 1,
        round: Round::joined(&rounds),
        usage: RequestCost::default(),
        ratios: None,
    }
}

/// Acquire, then commit with a correction.
async fn adjusted(options: &Options) -> Outcome<Case> {
    let world = Arc::new(World::new(RepositoryBuilder::measure).await?);
    let before = world.repo().request_cost();
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let done = round(options.ops, 1, |i| {
            let world = Arc::clone(&world);
            async move {
                let Ok(mut lease) = world.take(i % KEYS, 10).await else {
                    return false;
                };
                lease.adjust("tpm", -5).is_ok() && lease.commit().await.is_ok()
            }
        })
        .await;
        rounds.push(done);
    }
    let usage = world.repo().request_cost().since(&before);
    Ok(Case {
        name: "acquire, adjust, commit",
        concurrency: 1,
        round: Round::joined(&rounds),
        usage,
        ratios: None,
    })
}

fn print_json(cases: &[Case]) {
    for case in cases {
        let Case {
            name,
            concurrency,
            round,
            usage,
            ratios,
        } = case;
        let ops = round.ops() as f64;
        println!(
            "{}",
            serde_json::json!({
                "case": name,
                "n": round.ops(),
                "concurrency": concurrency,
                "rate_per_s": round.rate(),
                "cpu_us_per_op": round.cpu_us_per_op(),
                "p50_us": round.quantile_us(0.5),
                "p99_us": round.quantile_us(0.99),
                "writes_per_acquire": usage.updates as f64 / ops,
                "reads_per_acquire": usage.reads() as f64 / ops,
                "write_units_per_acquire": usage.write_units / ops,
                "admitted": round.admitted,
                "rejected": round.rejected,
                "cpu_ratio": ratios.map(|(cpu, _)| cpu),
                "latency_ratio": ratios.map(|(_, latency)| latency),
            })
        );
    }
}

fn print_table(cases: &[Case]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "case",
        "n",
        "conc.",
        "rate/s",
        "CPU µs",
        "p50 µs",
        "p99 µs",
        "writes",
        "reads",
        "WCU",
        "admitted",
        "rejected",
        "CPU ratio",
        "latency ratio",
    ]);
    for case in cases {
        let Case {
            name,
            concurrency,
            round,
            usage,
            ratios,
        } = case;
        let ops = round.ops() as f64;
        let ratio =
            |pick: &dyn Fn((f64, f64)) -> f64| ratios.map_or(String::new(), |r| format!("{:.2}", pick(r)));
        table.add_row([
            (*name).to_owned(),
            round.ops().to_string(),
            concurrency.to_string(),
            format!("{:.0}", round.rate()),
            format!("{:.1}", round.cpu_us_per_op()),
            format!("{:.1}", round.quantile_us(0.5)),
            format!("{:.1}", round.quantile_us(0.99)),
            format!("{:.2}", usage.updates as f64 / ops),
            format!("{:.2}", usage.reads() as f64 / ops),
            format!("{:.2}", usage.write_units / ops),
            round.admitted.to_string(),
            round.rejected.to_string(),
            ratio(&|(cpu, _)| cpu),
            ratio(&|(_, latency)| latency),
        ]);
    }
    println!("{table}");
}
