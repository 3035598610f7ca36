//! `loadtest tune`: the most users that one generator carries.

mod told;

use std::time::Duration;

use zae_limiter_loadtest::selection::Selection;
use zae_limiter_loadtest::tune::{ENOUGH, Sample, Step, Tune as Search, lengthened};
use zae_limiter_loadtest::{Plan, Report, Schedule, Stage};

use super::interrupts::Interrupts;
use super::test_namespace::TestNamespace;
use super::{WHAT, chosen, ended, lambda};
use crate::args::loadtest::{Load, Tune};
use crate::commands::{Outcome, failed};
use crate::failure::Failure;
use crate::out::Out;
use crate::text::number::grouped;
use crate::text::table::printable;

pub(super) use told::Told;

/// The longest that the floor is measured on this machine.
const LONGEST: Duration = Duration::from_secs(270);

pub(super) async fn tune(args: Tune) -> Outcome {
    if args.load.local {
        here(args).await
    } else {
        lambda::tune(args).await
    }
}

/// Searches with users on this machine.
async fn here(args: Tune) -> Outcome {
    let selection = chosen(&args.load)?;
    refuse_shape(&selection)?;
    let interrupts = Interrupts::catch()?;
    let namespace = TestNamespace::open(&args.common.at, &interrupts, || head(&args)).await?;
    let mut seed = args.load.seed();
    let measure = async |users: u32, length: Duration| {
        let spawning = warm_up(&args.load, users);
        let stage = Stage {
            users: users as usize,
            length: spawning + length,
        };
        let plan = Plan {
            scenario: selection.scenario.clone(),
            schedule: Schedule::new(vec![stage], args.load.spawn_rate as f64),
            rate: None,
            warm_up: spawning,
            // The users of each step are other entities.
            seed,
            // A step shows nothing before its end.
            every: length,
        };
        seed = seed.wrapping_add(1);
        let ran = zae_limiter_loadtest::run(namespace.limiter(), &plan, interrupts.first(), |_| ()).await;
        let report = ran.map_err(failed(&args.common.at, WHAT))?;
        Ok((!report.interrupted).then_some(report))
    };
    let told = Told::here(&args);
    let printed = match search(&told, LONGEST, measure).await {
        Ok(Some((tuned, is_interrupted))) => told.result(&tuned, is_interrupted),
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    let cleared = namespace.clear(&interrupts).await;
    ended(printed, cleared, interrupts.heard())
}

/// Refuses a shape, which sets the number of users itself.
pub(super) fn refuse_shape(selection: &Selection) -> Result<(), Failure> {
    match &selection.shape {
        Some(_) => Err(Failure::error(
            "A shape cannot be tuned, as it sets the number of users. Name classes of users.",
        )),
        None => Ok(()),
    }
}

/// The time until all users of a step have started, which is not part of the step.
pub(super) fn warm_up(load: &Load, users: u32) -> Duration {
    Duration::from_secs_f64(f64::from(users.saturating_sub(1)) / load.spawn_rate as f64)
}

/// The upper bound of the search.
pub(super) fn most(args: &Tune) -> u32 {
    u32::try_from(args.max_users).unwrap_or(u32::MAX)
}

/// The length of the measurement with one user.
pub(super) fn baseline(args: &Tune) -> Duration {
    Duration::from_secs(args.baseline_duration.unsigned_abs())
}

/// The length of each later step.
pub(super) fn step(args: &Tune) -> Duration {
    Duration::from_secs(args.step_duration.unsigned_abs())
}

/// Searches until the end, or a signal. Returns the search, and whether a signal ended it; nothing if a signal came before the
/// floor was measured. `measure` returns nothing after a signal; the floor is measured for at most `longest`.
pub(super) async fn search(
    told: &Told<'_>,
    longest: Duration,
    mut measure: impl AsyncFnMut(u32, Duration) -> Result<Option<Report>, Failure>,
) -> Result<Option<(Search, bool)>, Failure> {
    let args = told.args;
    let mut length = baseline(args);
    let floor = loop {
        told.begin("baseline", 1, length)?;
        let Some(report) = measure(1, length).await? else {
            return Ok(None);
        };
        check(&report)?;
        let requests = report.stats.total().calls();
        let Some(longer) = lengthened(requests, length, longest) else {
            if requests < ENOUGH {
                told.say(&format!(
                    "  Baseline only {requests} requests in {}s (cannot extend further).",
                    length.as_secs()
                ))?;
            }
            break Sample::of(1, &report);
        };
        length = longer;
        told.say(&format!(
            "  Baseline too few requests ({requests} < {ENOUGH}), retrying with {}s...",
            length.as_secs()
        ))?;
    };
    told.say(&format!(
        "  Baseline: {}, duration={}s, requests={}",
        told.figures(&floor),
        length.as_secs(),
        floor.requests
    ))?;
    let Some(mut tuned) = Search::new(floor, most(args), args.threshold) else {
        return Err(Failure::error(
            "Baseline p50 is zero — cannot compute efficiency.",
        ));
    };
    while let Some(next) = tuned.next_step() {
        let (marker, name) = match next {
            Step::Upper(_) => ("upper", "Upper"),
            Step::Search(_) => ("search", "Search"),
        };
        let users = next.users();
        told.begin(marker, users, step(args))?;
        let Some(report) = measure(users, step(args)).await? else {
            return Ok(Some((tuned, true)));
        };
        check(&report)?;
        let sample = Sample::of(users, &report);
        let (shown, requests) = (told.figures(&sample), sample.requests);
        let efficiency = tuned.add(sample);
        told.say(&format!(
            "  {name} ({users} users): {shown}, efficiency={:.0}%, requests={requests}",
            efficiency * 100.0
        ))?;
    }
    Ok(Some((tuned, false)))
}

/// Ends a search in which no call succeeds.
fn check(report: &Report) -> Result<(), Failure> {
    let failures = report.stats.total().failures();
    if failures == 0 || failures < report.stats.total().calls() {
        return Ok(());
    }
    let why = report.stats.errors().next().map_or("", |(why, _)| why);
    Err(Failure::error(format!(
        "All {} requests failed: {why}",
        grouped(failures.into())
    )))
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
