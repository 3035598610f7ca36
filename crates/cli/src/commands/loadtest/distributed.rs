//! `loadtest run --local --workers`: a master in this process, and workers in others.

use std::net::Ipv4Addr;
use std::time::Duration;

use zae_limiter_loadtest::cluster::{Cluster, Ended, Lost, Master, Options, Pulse, Scaling, Test};
use zae_limiter_loadtest::{Plan, Report, Timeline, prepare};

use super::interrupts::Interrupts;
use super::report::Shown;
use super::test_namespace::TestNamespace;
use super::worker::{Processes, SILENCE};
use super::{WHAT, ended};
use crate::args::Connection;
use crate::args::loadtest::Run;
use crate::commands::{Outcome, failed};
use crate::connect;
use crate::failure::Failure;
use crate::say;

/// How often a line tells how far the test is.
const EVERY: Duration = Duration::from_secs(5);

/// What is said of a test without workers.
pub(super) const ABANDONED: &str =
    "The test ended early: all workers were lost, and no other one connected within a minute.";

/// Refuses a table that only one process can use.
/// `what` cannot be done with it, and `instead` says what else can be.
pub(super) fn check_shared(at: &Connection, what: &str, instead: &str) -> Result<(), Failure> {
    match connect::embedded(at) {
        None => Ok(()),
        Some(path) => Err(Failure::error(format!(
            "{what} does not work with 'embedded:{}', which only one process can use at a time. Use a table that all \
             processes reach, such as that of 'zae-limiter local up', or {instead}.",
            path.display()
        ))),
    }
}

/// A master that starts workers as processes.
pub(super) async fn open(
    at: &Connection,
    scaling: Scaling,
    options: Options,
) -> Result<Cluster<Processes>, Failure> {
    let cannot = |err: std::io::Error| Failure::error(format!("Cannot listen for workers: {err}"));
    let master = Master::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .map_err(cannot)?;
    let address = master.address().map_err(cannot)?;
    let processes = Processes::new(at, address, master.secret());
    Ok(master.open(processes, scaling, options))
}

/// Runs the test, and shows the report.
pub(super) async fn run(args: &Run, workers: usize, plan: &Plan, mut shown: Shown<'_>) -> Outcome {
    let at = &args.common.at;
    let interrupts = Interrupts::catch()?;
    let options = Options {
        most_workers: workers.saturating_mul(2),
        silence: SILENCE,
        every: EVERY,
        ..Options::default()
    };
    shown.workers(workers, 0);
    let mut timeline = Timeline::new(plan.schedule.length());
    let mut cluster = open(at, Scaling::fixed(workers), options).await?;
    let namespace = TestNamespace::open(at, &interrupts, || shown.head()).await?;
    let ran = measure(
        &mut cluster,
        &namespace,
        workers,
        plan,
        &shown,
        &interrupts,
        &mut timeline,
    )
    .await;
    let printed = ran.and_then(|ran| {
        shown.workers(ran.workers, ran.lost.len());
        shown.report(&ran.report, timeline.points())?;
        warn(&ran.lost, ran.workers);
        if ran.was_abandoned {
            return Err(Failure::error(ABANDONED));
        }
        Ok(())
    });
    // Before the namespace is removed, so that nothing uses it.
    cluster.close().end().await;
    let cleared = namespace.clear(&interrupts).await;
    ended(printed, cleared, interrupts.heard())
}

async fn measure(
    cluster: &mut Cluster<Processes>,
    namespace: &TestNamespace<'_>,
    workers: usize,
    plan: &Plan,
    shown: &Shown<'_>,
    interrupts: &Interrupts,
    timeline: &mut Timeline,
) -> Result<Ended, Failure> {
    let begun = |err: zae_limiter_loadtest::cluster::ClusterError| {
        Failure::error(format!("The test did not begin: {err}"))
    };
    let nothing = || Ended {
        report: Report::of_nothing(),
        workers: 0,
        lost: Vec::new(),
        was_abandoned: false,
    };
    shown.line(&format!("  Waiting for {workers} worker(s)..."))?;
    let waiting = |pulse: &Pulse<'_>| {
        // If the output is closed, the next line that matters says so.
        let _ = shown.line(&format!(
            "  [{}s] workers={}/{workers}",
            pulse.progress.elapsed.as_secs(),
            pulse.workers
        ));
    };
    let are_there = cluster.wait_for(workers, interrupts.first(), waiting).await;
    if !are_there.map_err(begun)? {
        return Ok(nothing());
    }
    shown.line(&format!("  {workers} worker(s) connected."))?;
    let prepared = prepare(namespace.limiter(), &plan.scenario, plan.seed);
    let parents = tokio::select! {
        biased;
        () = interrupts.first() => return Ok(nothing()),
        prepared = prepared => prepared.map_err(failed(namespace.at, WHAT))?,
    };
    let test = Test {
        scenario: plan.scenario.clone(),
        schedule: plan.schedule.clone(),
        namespace: namespace.name().to_owned(),
        parents,
        seed: plan.seed,
        rate: plan.rate,
    };
    shown.start()?;
    let most = plan.schedule.most();
    let running = |pulse: &Pulse<'_>| {
        let progress = &pulse.progress;
        timeline.add(progress);
        let state = if progress.users < most {
            "spawning"
        } else {
            "running"
        };
        let _ = shown.line(&format!(
            "  [{}s] state={state}, users={}, workers={}, rps={:.1}",
            progress.elapsed.as_secs(),
            progress.users,
            pulse.workers,
            progress.per_second
        ));
    };
    let ran = cluster
        .run(&test, interrupts.first(), running)
        .await
        .map_err(begun)?;
    if !ran.report.interrupted {
        shown.line("  Test completed.")?;
    }
    Ok(ran)
}

/// Names the workers whose last measurements are missing.
pub(super) fn warn(lost: &[Lost], of: usize) {
    if lost.is_empty() {
        return;
    }
    let each: Vec<_> = lost
        .iter()
        .map(|lost| format!("{} ({})", lost.name, lost.why))
        .collect();
    let were = if lost.len() == 1 { "was" } else { "were" };
    say(&format!(
        "Warning: {} of {of} worker(s) {were} lost; the report lacks what they did after their last message: {}",
        lost.len(),
        each.join(", ")
    ));
}
