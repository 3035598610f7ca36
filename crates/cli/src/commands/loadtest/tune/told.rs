//! What a search says on the way, and its result.

use std::time::Duration;

use serde_json::{Value, json};
use zae_limiter_loadtest::tune::{Sample, Tune as Search};

use super::super::lambda::Worker;
use super::super::report::{latency, millis, rounded, whole};
use crate::args::loadtest::Tune;
use crate::failure::Failure;
use crate::out::Out;
use crate::say;
use crate::text::number::grouped;

/// Numbers of users that generators are recommended for.
const RECOMMENDED: [u32; 3] = [100, 500, 1000];

/// Prints a search.
pub(in super::super) struct Told<'a> {
    /// The command line.
    pub(super) args: &'a Tune,
    /// The function that runs the steps; none if this process does.
    worker: Option<&'a Worker>,
}

impl<'a> Told<'a> {
    /// A search on this machine.
    pub(super) fn here(args: &'a Tune) -> Self {
        Self { args, worker: None }
    }

    /// A search with calls of a function.
    pub(in super::super) fn of_function(args: &'a Tune, worker: &'a Worker) -> Self {
        Self {
            args,
            worker: Some(worker),
        }
    }

    /// A step begins.
    pub(super) fn begin(&self, marker: &str, users: u32, length: Duration) -> Result<(), Failure> {
        let doing = match self.worker {
            Some(_) => "Invoking with",
            None => "Running",
        };
        self.say(&format!(
            "  [{marker}] {doing} {users} user(s) for {}s...",
            length.as_secs()
        ))
    }

    /// A line on the way. Those of a function are on standard output, as the Python tool's.
    pub(super) fn say(&self, line: &str) -> Result<(), Failure> {
        let mut out = Out::new(&self.args.common.format);
        match self.worker {
            _ if out.is_json() => Ok(()),
            Some(_) => {
                out.line(line)?;
                out.flush()
            }
            None => {
                say(line);
                Ok(())
            }
        }
    }

    fn latency(&self, value: Duration) -> String {
        match self.worker {
            Some(_) => whole(value),
            None => latency(value),
        }
    }

    fn percentiles(&self, sample: &Sample) -> String {
        format!(
            "p50={}, p95={}, p99={}",
            self.latency(sample.p50),
            self.latency(sample.p95),
            self.latency(sample.p99)
        )
    }

    /// The figures of a step.
    pub(super) fn figures(&self, sample: &Sample) -> String {
        format!("{}, RPS={:.1}", self.percentiles(sample), sample.per_second)
    }

    /// The result, or what was measured until a signal.
    pub(in super::super) fn result(&self, tuned: &Search, interrupted: bool) -> Result<(), Failure> {
        let args = self.args;
        let mut out = Out::new(&args.common.format);
        if out.is_json() {
            out.json(&self.document(tuned, interrupted))?;
            return out.flush();
        }
        let percent = args.threshold * 100.0;
        if interrupted {
            out.line("Interrupted\nPartial results:")?;
        }
        if tuned.is_unbounded() {
            out.line(format_args!(
                "\n  Efficiency >= {percent:.0}% even at max_users={}.",
                args.max_users
            ))?;
        }
        out.line(format_args!("\nCalibration Results (threshold: {percent:.0}%):"))?;
        out.line("  Users      RPS      p50      p95      p99     Reqs  Efficiency")?;
        for (place, (sample, efficiency)) in tuned.samples().iter().enumerate() {
            let note = if place == 0 {
                " (baseline)".to_owned()
            } else if sample.users == tuned.optimal() && *efficiency >= args.threshold {
                format!(" <- optimal (>= {percent:.0}%)")
            } else {
                String::new()
            };
            out.line(format_args!(
                "  {:>5} {:>8.1} {:>8} {:>8} {:>8} {:>8} {:>9.0}%{note}",
                sample.users,
                sample.per_second,
                self.latency(sample.p50),
                self.latency(sample.p95),
                self.latency(sample.p99),
                grouped(sample.requests.into()),
                efficiency * 100.0
            ))?;
        }
        if !interrupted {
            // A search that has not ended has no result.
            self.optimum(tuned, &mut out)?;
        }
        out.flush()
    }

    fn optimum(&self, tuned: &Search, out: &mut Out) -> Result<(), Failure> {
        let carrier = match self.worker {
            Some(_) => "worker",
            None => "process",
        };
        let optimal = tuned.optimal();
        let best = tuned.samples().iter().rev();
        let best = best
            .map(|(sample, _)| sample)
            .find(|sample| sample.users == optimal);
        if let Some(floor) = tuned.floor() {
            out.line(format_args!("\nOptimal: {optimal} users per {carrier}"))?;
            out.line(format_args!("  Floor latency: {}", self.percentiles(floor)))?;
            if let Some(best) = best {
                out.line(format_args!(
                    "  Throughput per {carrier}: {:.1} RPS",
                    best.per_second
                ))?;
            }
        }
        out.line(match self.worker {
            Some(_) => "\nDistributed recommendations:",
            None => "\nProcesses on machines like this one:",
        })?;
        for users in RECOMMENDED {
            let generators = tuned.generators(users);
            match self.worker {
                Some(_) => out.line(format_args!(
                    "  {users} users:  loadtest run --workers {generators} --users {users}"
                ))?,
                None => out.line(format_args!("  {users} users: {generators}"))?,
            }
        }
        Ok(())
    }

    fn document(&self, tuned: &Search, interrupted: bool) -> Value {
        let step = |(sample, efficiency): &(Sample, f64)| {
            json!({
                "users": sample.users,
                "total_requests": sample.requests,
                "requests_per_second": rounded(sample.per_second),
                "p50": millis(sample.p50),
                "p95": millis(sample.p95),
                "p99": millis(sample.p99),
                "efficiency": rounded(*efficiency),
            })
        };
        let mut document = json!({
            "threshold": self.args.threshold,
            "interrupted": interrupted,
            "optimal_users": (!interrupted).then(|| tuned.optimal()),
            "steps": tuned.samples().iter().map(step).collect::<Value>(),
        });
        if let Some(worker) = self.worker {
            document["function"] = json!(worker.name);
            document["memory_mb"] = json!(worker.memory_mb);
            document["timeout_seconds"] = json!(worker.timeout.as_secs());
        }
        document
    }
}
