//! What the tower layer adds to an acquire: CPU time per request, and memory.
//!
//! Rounds of all cases alternate in one run. The table is one in memory, so that the layer is not lost in requests over a network.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::convert::Infallible;
use std::time::Duration;

use clap::Parser;
use comfy_table::Table;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use nix::sys::resource::{UsageWho, getrusage};
use tower::{Layer as _, Service, ServiceExt as _};
use zae_limiter::testing::TestTable;
use zae_limiter::{Limit, RateLimiter, Repository};
use zae_limiter_tower::{RateLimitLayer, Rules, key, usage};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
type Body = Full<bytes::Bytes>;

/// Measures what the tower layer adds to an acquire.
#[derive(Debug, Parser)]
struct Options {
    /// Requests of each case.
    #[arg(long, default_value_t = 250_000)]
    requests: usize,
    /// Rounds that they are divided into; medians are reported.
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// Requests in flight at the same time, to measure their memory.
    #[arg(long, default_value_t = 20_000)]
    in_flight: usize,
}

const BODY: &str = r#"{"choices":[{"message":{"role":"assistant","content":"a short answer of the model"}}],"usage":{"total_tokens":40}}"#;

fn answer() -> Response<Body> {
    let mut response = Response::new(Full::from(BODY));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

fn request() -> Request<Body> {
    let mut request = Request::new(Body::default());
    let token = http::HeaderValue::from_static("Bearer sk-0123456789abcdef");
    request.headers_mut().insert("authorization", token);
    request
}

/// The CPU time of this process so far.
fn cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

/// The memory that this process has in use, in bytes.
fn resident() -> Outcome<usize> {
    let stat = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = stat
        .split(' ')
        .nth(1)
        .ok_or("statm has no second number")?
        .parse()?;
    Ok(pages * 4096)
}

/// The library without the layer: acquire, the response, and the end of the lease.
async fn bare(limiter: &RateLimiter, corrects: bool, count: usize) -> Outcome<()> {
    for _ in 0..count {
        let acquire = limiter
            .acquire("key-1", "api")
            .consume("rpm", 1)
            .consume("tpm", 100);
        let mut lease = acquire.await?;
        let body = answer().into_body().collect().await?.to_bytes();
        if corrects && body.len() > 1 {
            lease.adjust_to("tpm", 40)?;
        }
        lease.commit_in_background();
    }
    Ok(())
}

async fn through<S, R>(mut service: S, count: usize) -> Outcome<()>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Error = Infallible>,
{
    for _ in 0..count {
        let response = service.ready().await?.call(request()).await?;
        if !response.status().is_success() {
            return Err(format!("a request was refused: {}", response.status()).into());
        }
        drop(response.into_body().collect().await?);
    }
    Ok(())
}

struct World {
    repo: Repository,
    limiter: RateLimiter,
}

impl World {
    async fn new() -> Outcome<Self> {
        let repo = TestTable::new().open().await?;
        let plenty = 1_000_000_000_000;
        let limits = [Limit::per_minute("rpm", plenty), Limit::per_minute("tpm", plenty)];
        repo.admin().set_system_defaults(limits, None).await?;
        let limiter = RateLimiter::new(repo.clone());
        Ok(Self { repo, limiter })
    }

    fn layer(&self, entity: impl key::Key) -> Outcome<RateLimitLayer> {
        let rules = Rules::new(entity, "api").consume("rpm", 1).consume("tpm", 100);
        Ok(RateLimitLayer::new(self.limiter.clone(), rules)?)
    }

    /// Runs a part of the requests of a case.
    async fn run(&self, case: usize, count: usize) -> Outcome<()> {
        let inner = tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(answer()));
        match case {
            0 => bare(&self.limiter, false, count).await?,
            1 => through(self.layer("key-1")?.fields([]).layer(inner), count).await?,
            2 => through(self.layer(key::bearer())?.layer(inner), count).await?,
            3 => bare(&self.limiter, true, count).await?,
            _ => {
                let layer = self.layer(key::bearer())?.correct("tpm", usage::openai())?;
                through(layer.layer(inner), count).await?;
            }
        }
        self.repo.drain().await;
        Ok(())
    }
}

const CASES: [(&str, usize); 5] = [
    ("acquire and commit, without the layer", 0),
    ("the layer, constant key, no fields", 0),
    ("the layer, bearer token, RateLimit fields", 0),
    ("acquire, adjust and commit, without the layer", 3),
    ("the layer, bearer token, fields, usage of the response", 3),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    let w = World::new().await?;
    let count = (options.requests / options.rounds.max(1)).max(1);
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); CASES.len()];
    let mut memory = Vec::new();
    for round in 0..=options.rounds {
        for (case, times) in times.iter_mut().enumerate() {
            let before = cpu()?;
            w.run(case, count).await?;
            let micros = cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / count as f64;
            // The first round warms up.
            if round > 0 {
                times.push(micros);
            }
        }
        memory.push(resident()?);
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let mut table = Table::new();
    table.set_header(["case", "us of CPU per request", "beside the library alone"]);
    for (index, (name, beside)) in CASES.iter().enumerate() {
        let difference = medians[index] - medians[*beside];
        let told = if index == *beside {
            String::new()
        } else {
            format!("{difference:+.2} us")
        };
        table.add_row([(*name).to_owned(), format!("{:.2}", medians[index]), told]);
    }
    println!("{table}");
    let (first, last) = (
        memory.get(1).copied().unwrap_or(0),
        memory.last().copied().unwrap_or(0),
    );
    let requests = count * options.rounds * CASES.len();
    println!(
        "memory after the first round {} KiB, after {requests} requests {} KiB",
        first / 1024,
        last / 1024
    );
    in_flight(&w, options.in_flight).await
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// The memory of requests whose service does not answer, with the layer and without.
async fn in_flight(w: &World, count: usize) -> Outcome<()> {
    let inner = tower::service_fn(async |_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>().await
    });
    let limited = w
        .layer(key::bearer())?
        .correct("tpm", usage::openai())?
        .layer(inner);
    let mut sizes = Vec::new();
    let before = resident()?;
    let mut plain = Vec::with_capacity(count);
    for _ in 0..count {
        plain.push(Box::pin(inner.oneshot(request())));
    }
    sizes.push(resident()?.saturating_sub(before));
    let before = resident()?;
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut call = Box::pin(limited.clone().oneshot(request()));
        // Until the service has it.
        for _ in 0..8 {
            if futures_util::poll!(&mut call).is_ready() {
                return Err("the service has answered".into());
            }
            tokio::task::yield_now().await;
        }
        held.push(call);
    }
    sizes.push(resident()?.saturating_sub(before));
    println!(
        "{count} requests in flight: {} bytes each, of which {} without the layer",
        sizes[1] / count.max(1),
        sizes[0] / count.max(1)
    );
    drop((plain, held));
    w.repo.drain().await;
    Ok(())
}
