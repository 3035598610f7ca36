//! The expiry of very many detached leases, under a manual clock: each is settled once, and time and memory per lease do not grow with
//! their number.
//!
//! Fails if a lease is not settled, if one is settled twice, or if the tokens of an entity are not back.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs;
use std::time::{Duration, SystemTime};

use clap::{Parser, ValueEnum};
use comfy_table::Table;
use futures_util::{StreamExt as _, stream};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use zae_limiter::clock::ManualClock;
use zae_limiter::table::EmbeddedEngine;
use zae_limiter::testing::TestTable;
use zae_limiter::{Limit, OnExpiry, RateLimiter, Repository, RepositoryBuilder, Swept};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures the expiry of detached leases that give their tokens back.
#[derive(Debug, Parser)]
struct Options {
    /// How many leases expire, in a table of their own for each number.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    leases: Vec<usize>,
    /// How many entities have them, in turn, one each in a second. The leases expire at the same pace; what has expired for ten
    /// minutes is deleted.
    #[arg(long, default_value_t = 2500)]
    entities: usize,
    /// Where the table is.
    #[arg(long, value_enum, default_value_t = Where::Embedded)]
    table: Where,
    /// A short run, to see that it works.
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Where {
    /// The embedded engine, in memory.
    Embedded,
    /// The table for tests, which is a map.
    Map,
}

/// The tokens of an entity, which earns none before the day is over.
const CAPACITY: u64 = 1_000_000;

const TTL: Duration = Duration::from_hours(1);

/// Records of settled leases are kept so long.
const KEPT: Duration = Duration::from_mins(10);

/// Requests at the same time.
const AT_A_TIME: usize = 16;

/// What a number of leases has cost, in microseconds of processor time and bytes for each of them.
struct Cost {
    leases: usize,
    detach: f64,
    settle: f64,
    again: f64,
    delete: f64,
    stored: f64,
    /// By how many MiB the process was larger at most while the leases were settled.
    sweep_mib: f64,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.leases, options.entities) = (vec![500, 2000], 100);
    }
    let mut costs = Vec::new();
    for leases in &options.leases {
        costs.push(expiry(&options, *leases).await?);
    }
    print(&costs);
    Ok(())
}

/// Two repositories of one table, as of two servers.
async fn open(table: Where, clock: &ManualClock) -> Outcome<[Repository; 2]> {
    let builder: Box<dyn Fn() -> RepositoryBuilder> = match table {
        Where::Map => {
            let table = TestTable::new();
            Box::new(move || table.builder())
        }
        Where::Embedded => {
            let client = EmbeddedEngine::memory()?.client();
            zae_limiter::table::definition::create_table(&client, zae_limiter::DEFAULT_STACK).await?;
            Box::new(move || Repository::builder().dynamo_client(client.clone()))
        }
    };
    Ok([
        builder().clock(clock.clone()).open().await?,
        builder().clock(clock.clone()).open().await?,
    ])
}

async fn expiry(options: &Options, leases: usize) -> Outcome<Cost> {
    // Midnight, so that a day is long enough.
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 20_000));
    let [repo, other] = open(options.table, &clock).await?;
    let limits = [Limit::quota("tpd", CAPACITY).resets("0 0 * * *", "UTC")];
    repo.admin().set_system_defaults(limits, None).await?;
    let limiter = RateLimiter::new(repo.clone());
    let since = |began: i64| -> Outcome<f64> { Ok((cpu()? - began) as f64 / leases.max(1) as f64) };

    let (began, before) = (cpu()?, memory("VmRSS")?);
    let mut taken = vec![0_u64; options.entities];
    let mut left = leases;
    while left > 0 {
        let now = left.min(options.entities);
        let mut detached = stream::iter(0..now)
            .map(|entity| {
                let call = limiter.acquire(name(entity), "gpt-4").consume("tpd", 1);
                async move { call.await?.detach(TTL, OnExpiry::GiveBack).await }
            })
            .buffer_unordered(AT_A_TIME);
        while let Some(lease) = detached.next().await {
            lease?;
        }
        drop(detached);
        taken[..now].iter_mut().for_each(|taken| *taken += 1);
        left -= now;
        // A bucket takes a number of writes a second.
        clock.advance(Duration::from_secs(1));
    }
    let detach = since(began)?;
    let stored = memory("VmRSS")?.saturating_sub(before) as f64 / leases.max(1) as f64;
    check_tokens(&limiter, &taken).await?;
    if repo.sweep_leases().await? != Swept::default() {
        return Err("a lease was settled before it has expired".into());
    }

    clock.advance(TTL);
    reset_peak()?;
    let (began, before) = (cpu()?, memory("VmRSS")?);
    let (one, two) = tokio::join!(repo.sweep_leases(), other.sweep_leases());
    let (one, two) = (one?, two?);
    let settle = since(began)?;
    let sweep_mib = memory("VmHWM")?.saturating_sub(before) as f64 / f64::from(1 << 20);
    if one.given_back + two.given_back != leases || one.failed + two.failed > 0 {
        return Err(format!("{leases} leases have expired, and the sweeps say {one:?}, {two:?}").into());
    }
    repo.invalidate_images();
    check_tokens(&limiter, &vec![0; options.entities]).await?;

    // What has ended is read again until it is deleted.
    let began = cpu()?;
    if repo.sweep_leases().await? != Swept::default() {
        return Err("a lease was settled again".into());
    }
    let again = since(began)?;
    clock.advance(TTL + KEPT);
    let began = cpu()?;
    let deleted = repo.sweep_leases().await?.deleted;
    let delete = since(began)?;
    if deleted != leases || repo.sweep_leases().await? != Swept::default() {
        return Err(format!("of {leases} records, {deleted} were deleted").into());
    }
    check_tokens(&limiter, &vec![0; options.entities]).await?;
    Ok(Cost {
        leases,
        detach,
        settle,
        again,
        delete,
        stored,
        sweep_mib,
    })
}

/// Processor time of this process so far, in microseconds.
fn cpu() -> Outcome<i64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

fn name(entity: usize) -> String {
    format!("key-{entity}")
}

/// Every entity has so many tokens less than at first.
async fn check_tokens(limiter: &RateLimiter, taken: &[u64]) -> Outcome<()> {
    for (entity, taken) in taken.iter().enumerate() {
        let available = limiter.available(name(entity), "gpt-4").await?["tpd"];
        let expected = i64::try_from(CAPACITY - taken)?;
        if available != expected {
            return Err(format!("entity {entity} has {available} tokens and not {expected}").into());
        }
    }
    Ok(())
}

/// Bytes of this process, as of `/proc/self/status`.
fn memory(field: &str) -> Outcome<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .ok_or("no such field")?;
    Ok(kib.parse::<usize>()? << 10)
}

/// Lets the peak of the memory begin at what is used now.
fn reset_peak() -> Outcome<()> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

fn print(costs: &[Cost]) {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "leases",
        "acquire and detach, CPU µs each",
        "settle",
        "sweep again",
        "delete",
        "table, bytes each",
        "larger while settling, MiB",
    ]);
    for cost in costs {
        table.add_row([
            cost.leases.to_string(),
            format!("{:.1}", cost.detach),
            format!("{:.1}", cost.settle),
            format!("{:.2}", cost.again),
            format!("{:.1}", cost.delete),
            format!("{:.0}", cost.stored),
            format!("{:.1}", cost.sweep_mib),
        ]);
    }
    println!("{table}");
}
