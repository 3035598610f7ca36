//! Measuring: wall time and CPU time of rounds of operations.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// The cost of a round of operations.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) latencies: Vec<Duration>,
    pub(crate) admitted: u64,
    pub(crate) rejected: u64,
}

impl Round {
    pub(crate) fn ops(&self) -> usize {
        self.latencies.len()
    }

    pub(crate) fn rate(&self) -> f64 {
        self.ops() as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn cpu_us_per_op(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.ops() as f64
    }

    /// The latency that this share of operations stayed within, in microseconds.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }

    /// Several rounds as one.
    pub(crate) fn joined(rounds: &[Self]) -> Self {
        let mut all = Self {
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            latencies: Vec::new(),
            admitted: 0,
            rejected: 0,
        };
        for round in rounds {
            all.wall += round.wall;
            all.cpu += round.cpu;
            all.latencies.extend(&round.latencies);
            all.admitted += round.admitted;
            all.rejected += round.rejected;
        }
        all
    }
}

/// CPU time that this process has used so far, over all threads.
fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let time = |t: nix::sys::time::TimeVal| {
        Duration::from_secs(t.tv_sec().unsigned_abs()) + Duration::from_micros(t.tv_usec().unsigned_abs())
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

/// Runs `ops` operations, `concurrency` at a time. `operation` is given the operation's number and tells
/// whether it was admitted.
pub(crate) async fn round<F>(ops: usize, concurrency: usize, operation: impl Fn(usize) -> F) -> Round
where
    F: Future<Output = bool> + Send + 'static,
{
    let (wall, busy) = (now(), cpu());
    let mut latencies = Vec::with_capacity(ops);
    let mut admitted = 0;
    let mut take = |(latency, ok): (Duration, bool)| {
        latencies.push(latency);
        admitted += u64::from(ok);
    };
    if concurrency == 1 {
        for i in 0..ops {
            let begun = now();
            let ok = operation(i).await;
            take((begun.elapsed(), ok));
        }
    } else {
        let mut running = tokio::task::JoinSet::new();
        for i in 0..ops {
            if running.len() == concurrency
                && let Some(Ok(done)) = running.join_next().await
            {
                take(done);
            }
            let operation = operation(i);
            running.spawn(async move {
                let begun = now();
                let ok = operation.await;
                (begun.elapsed(), ok)
            });
        }
        while let Some(Ok(done)) = running.join_next().await {
            take(done);
        }
    }
    let ops = latencies.len() as u64;
    Round {
        wall: wall.elapsed(),
        cpu: cpu().saturating_sub(busy),
        latencies,
        admitted,
        rejected: ops - admitted,
    }
}
