//! `loadtest tune`: the most users that one generator carries.

use std::time::Duration;

use serde_json::{Value, json};
use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::tune::{ENOUGH, Sample, Step, lengthened};
use zae_limiter_loadtest::{Plan, Report, Schedule, Stage};

use super::interrupts::Interrupts;
use super::report::{latency, millis, rounded};
use super::test_namespace::TestNamespace;
use super::{WHAT, check_local, chosen, ended};
use crate::args::loadtest::Tune;
use crate::commands::{Outcome, failed};
use crate::failure::Failure;
use crate::out::Out;
use crate::say;
use crate::text::number::grouped;
use crate::text::table::printable;

/// The longest that the floor is measured.
const LONGEST: Duration = Duration::from_secs(270);

/// Numbers of users that generators are recommended for.
const RECOMMENDED: [u32; 3] = [100, 500, 1000];

/// The search, and whether a signal ended it; none if a signal came before the floor was measured.
type Measured = Result<Option<(zae_limiter_loadtest::tune::Tune, bool)>, Failure>;

pub(super) async fn tune(args: Tune) -> Outcome {
    check_local(&args.load)?;
    let (scenario, stages) = chosen(&args.load)?;
    if stages.is_some() {
        return Err(Failure::error(
            "A shape cannot be tuned, as it sets the number of users. Name classes of users.",
        ));
    }
    let interrupts = Interrupts::catch()?;
    let mut steps = Steps {
        args: &args,
        scenario,
        seed: args.load.seed(),
        interrupts: &interrupts,
    };
    let namespace = TestNamespace::open(&args.common.at, &interrupts, || head(&args)).await?;
    let printed = match steps.measure(&namespace).await {
        Ok(Some((tuned, is_interrupted))) => result(&args, &tuned, is_interrupted),
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    let cleared = namespace.clear(&interrupts).await;
    ended(printed, cleared, interrupts.heard())
}

/// The steps of a search.
struct Steps<'a> {
    args: &'a Tune,
    scenario: Scenario,
    seed: u64,
    interrupts: &'a Interrupts,
}

impl Steps<'_> {
    /// Measures until the end, or a signal.
    async fn measure(&mut self, namespace: &TestNamespace<'_>) -> Measured {
        let mut length = Duration::from_secs(self.args.baseline_duration.unsigned_abs());
        let floor = loop {
            self.say(&format!(
                "  [baseline] Running 1 user(s) for {}s...",
                length.as_secs()
            ));
            let Some(report) = self.step(namespace, 1, length).await? else {
                return Ok(None);
            };
            let requests = report.stats.total().calls();
            let Some(longer) = lengthened(requests, length, LONGEST) else {
                if requests < ENOUGH {
                    self.say(&format!(
                        "  Baseline only {requests} requests in {}s (cannot extend further).",
                        length.as_secs()
                    ));
                }
                break Sample::of(1, &report);
            };
            length = longer;
            self.say(&format!(
                "  Baseline too few requests ({requests} < {ENOUGH}), retrying with {}s...",
                length.as_secs()
            ));
        };
        self.say(&format!(
            "  Baseline: {}, duration={}s, requests={}",
            figures(&floor),
            length.as_secs(),
            floor.requests
        ));
        let most = u32::try_from(self.args.max_users).unwrap_or(u32::MAX);
        let Some(mut tuned) = zae_limiter_loadtest::tune::Tune::new(floor, most, self.args.threshold) else {
            return Err(Failure::error(
                "Baseline p50 is zero — cannot compute efficiency.",
            ));
        };
        let length = Duration::from_secs(self.args.step_duration.unsigned_abs());
        while let Some(step) = tuned.next_step() {
            let (marker, name) = match step {
                Step::Upper(_) => ("upper", "Upper"),
                Step::Search(_) => ("search", "Search"),
            };
            let users = step.users();
            self.say(&format!(
                "  [{marker}] Running {users} user(s) for {}s...",
                length.as_secs()
            ));
            let Some(report) = self.step(namespace, users, length).await? else {
                return Ok(Some((tuned, true)));
            };
            let sample = Sample::of(users, &report);
            let shown = figures(&sample);
            let requests = sample.requests;
            let efficiency = tuned.add(sample);
            self.say(&format!(
                "  {name} ({users} users): {shown}, efficiency={:.0}%, requests={requests}",
                efficiency * 100.0
            ));
        }
        Ok(Some((tuned, false)))
    }

    /// Measures this many users; `None` if a signal came.
    async fn step(
        &mut self,
        namespace: &TestNamespace<'_>,
        users: u32,
        length: Duration,
    ) -> Result<Option<Report>, Failure> {
        // The time until all users have started is not part of the step.
        let rate = self.args.load.spawn_rate as f64;
        let warm_up = Duration::from_secs_f64(f64::from(users.saturating_sub(1)) / rate);
        let stage = Stage {
            users: users as usize,
            length: warm_up + length,
        };
        let plan = Plan {
            scenario: self.scenario.clone(),
            schedule: Schedule::new(vec![stage], rate),
            rate: None,
            warm_up,
            // The users of each step are other entities.
            seed: self.seed,
            // A step shows nothing before its end.
            every: length,
        };
        self.seed = self.seed.wrapping_add(1);
        let stop = self.interrupts.first();
        let ran = zae_limiter_loadtest::run(&namespace.limiter, &plan, stop, |_| ()).await;
        let report = ran.map_err(failed(&self.args.common.at, WHAT))?;
        if report.interrupted {
            return Ok(None);
        }
        let failures = report.stats.total().failures();
        if failures > 0 && failures == report.stats.total().calls() {
            let why = report.stats.errors().next().map_or("", |(why, _)| why);
            return Err(Failure::error(format!(
                "All {} requests failed: {why}",
                grouped(failures.into())
            )));
        }
        Ok(Some(report))
    }

    fn say(&self, line: &str) {
        if !Out::new(&self.args.common.format).is_json() {
            say(line);
        }
    }
}

fn figures(sample: &Sample) -> String {
    format!(
        "p50={}, p95={}, p99={}, RPS={:.1}",
        latency(sample.p50),
        latency(sample.p95),
        latency(sample.p99),
        sample.per_second
    )
}

fn head(args: &Tune) -> Result<(), Failure> {
    let mut out = Out::new(&args.common.format);
    if !out.is_json() {
        out.line(format_args!("\nLocal Tune: {}", printable(&args.common.at.name)))?;
        out.line(format_args!("  Locustfile: {}", printable(&args.load.locustfile)))?;
        out.line(format_args!("  Threshold: {:.0}%", args.threshold * 100.0))?;
        out.line(format_args!("  Search range: [1, {}]\n", args.max_users))?;
    }
    out.flush()
}

fn result(args: &Tune, tuned: &zae_limiter_loadtest::tune::Tune, interrupted: bool) -> Result<(), Failure> {
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&document(args, tuned, interrupted))?;
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
            "  {:>5} {:>8.1} {:>8} {:>8} {:>8} {:>8} {:>10.0}%{note}",
            sample.users,
            sample.per_second,
            latency(sample.p50),
            latency(sample.p95),
            latency(sample.p99),
            grouped(sample.requests.into()),
            efficiency * 100.0
        ))?;
    }
    if interrupted {
        // The search has not ended, so that there is no result.
        return out.flush();
    }
    if let Some(floor) = tuned.floor() {
        let best = tuned
            .samples()
            .iter()
            .rev()
            .find(|(sample, _)| sample.users == tuned.optimal());
        out.line(format_args!("\nOptimal: {} users per process", tuned.optimal()))?;
        out.line(format_args!(
            "  Floor latency: p50={}, p95={}, p99={}",
            latency(floor.p50),
            latency(floor.p95),
            latency(floor.p99)
        ))?;
        if let Some((best, _)) = best {
            out.line(format_args!(
                "  Throughput per process: {:.1} RPS",
                best.per_second
            ))?;
        }
    }
    out.line("\nProcesses on machines like this one:")?;
    for users in RECOMMENDED {
        out.line(format_args!("  {users} users: {}", tuned.generators(users)))?;
    }
    out.flush()
}

fn document(args: &Tune, tuned: &zae_limiter_loadtest::tune::Tune, interrupted: bool) -> Value {
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
    json!({
        "threshold": args.threshold,
        "interrupted": interrupted,
        "optimal_users": (!interrupted).then(|| tuned.optimal()),
        "steps": tuned.samples().iter().map(step).collect::<Value>(),
    })
}
