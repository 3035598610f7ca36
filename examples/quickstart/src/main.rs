//! The limiter end to end, in one command and without an account: stores limits in an embedded table, creates a
//! project and its API keys, replays recorded requests to a language model, and prints usage, refusals and debts.
//!
//! ```text
//! cargo run -p quickstart
//! cargo run -p quickstart -- --help
//! ```
//!
//! To see how the library is used, read `setup.rs` (limits and entities) and `replay.rs` (acquire, adjust,
//! commit, rollback, refusals). `trace.rs` and `plan.rs` create the traffic, `books.rs` checks that all
//! numbers agree, `report.rs` prints them.

mod books;
mod plan;
mod progress;
mod replay;
mod report;
mod setup;
mod speed;
mod trace;
mod zipf;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use zae_limiter::clock::{Clock as _, ManualClock, SystemClock};
use zae_limiter::{RateLimiter, Repository};
use zae_limiter_core::table::TableError;

use crate::books::Books;
use crate::progress::Progress;
use crate::replay::Replay;
use crate::report::Opening;
use crate::speed::Speed;
use crate::trace::TraceError;
use crate::zipf::Zipf;

/// Replays requests to a language model against rate limits in an embedded table.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Args {
    /// Replay this CSV file, for instance a public Azure LLM inference trace (see examples/data/README.md)
    /// [default: a small sample]
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Replay this many times faster than recorded, or 'max'; limits follow the recorded time at any speed
    #[arg(long, value_name = "X", default_value = "max", allow_negative_numbers = true)]
    speed: Speed,

    /// Divide the traffic over this many API keys, by Zipf's law
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    keys: u16,

    /// Seed of the random choices: keys, estimates and failures
    #[arg(long, value_name = "SEED", default_value_t = 3)]
    seed: u64,

    /// Keep the table in this directory; the next run continues with it [default: in memory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Create the table with a lean index, for half the write units
    #[arg(long)]
    lean_index: bool,

    /// Let corrections wait so many seconds of the recorded time, from 0 to 60, for a request of the same key that carries them
    #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with = "speed",
          value_parser = clap::value_parser!(u64).range(0..=60))]
    correction_delay: u64,
}

/// Why the example stopped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Limiter(#[from] zae_limiter::Error),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the report cannot be written: {0}")]
    Output(io::Error),
    #[error("the books do not agree, which is a bug of the limiter or of this example:\n  {}", .0.join("\n  "))]
    Books(Vec<String>),
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "errors go there")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the report closed the pipe, which is not an error.
        Err(Failure::Output(err)) if err.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            let mut cause = std::error::Error::source(&failure);
            while let Some(err) = cause {
                eprintln!("  because: {err}");
                cause = err.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let began = Instant::now();
    let (name, trace) = match &args.trace {
        Some(path) => (path.display().to_string(), trace::read(path)?),
        None => ("the sample trace".to_owned(), trace::sample()?),
    };
    let keys = usize::from(args.keys);
    let traffic = Zipf::new(keys);
    let calls = plan::plan(&trace, &traffic, args.seed);

    let clock = ManualClock::at(SystemClock.now());
    let builder = Repository::builder().clock(clock.clone()).measure();
    // Buckets never expire, so that the books can be checked. Applications do not need this.
    let builder = builder.bucket_ttl_multiplier(0).lean_index(args.lean_index);
    let delay = Duration::from_secs(args.correction_delay);
    let builder = builder.correction_delay(delay);
    if !delay.is_zero() {
        // The delay is measured by tokio's clock, which the replay moves with the repository's.
        tokio::time::pause();
    }
    let (builder, place) = match &args.data_dir {
        Some(dir) => (builder.embedded(dir), format!("kept in {}", dir.display())),
        None => (builder.in_memory(), "in memory".to_owned()),
    };
    let repo = builder.open().await?;
    // An earlier run may have replayed an hour in a second. The clock continues from there, since it must not go back.
    if let Some(last) = books::last_refill(&repo, keys).await? {
        clock.set(clock.now().max(last.into()));
    }

    let setup = setup::prepare(&repo, keys).await?;
    let limiter = RateLimiter::new(repo);
    let mut books = Books::open(&limiter, keys, clock.now().into()).await?;
    let opening = Opening {
        trace: &name,
        calls: &calls,
        place: &place,
        setup: &setup,
        traffic: &traffic,
        books: &books,
    };
    print(&opening.text())?;

    let replay = Replay::new(&limiter, clock.clone(), &mut books, &calls, delay);
    let (totals, lasted) = replay.run(args.speed, Progress::new(calls.len())).await?;

    let mut faults = books.close(&limiter, clock.now().into()).await?;
    faults.extend(totals.faults());
    print(&report::accounts(&books))?;
    if !faults.is_empty() {
        return Err(Failure::Books(faults));
    }
    print(&report::closing(&totals, &books, lasted, began.elapsed()))?;
    print(report::next(args.data_dir.is_some(), args.trace.is_some()))
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)
}
