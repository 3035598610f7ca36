//! `loadtest ui --local`: a master with a page in this process, and workers in others.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use zae_limiter_loadtest::cluster::{Cluster, Ended, Options, Scaling, Test};
use zae_limiter_loadtest::page::{Defaults, Page, Request, View, Wish};
use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::{Schedule, Stage, prepare};

use super::interrupts::Interrupts;
use super::test_namespace::TestNamespace;
use super::worker::{Processes, SILENCE};
use super::{DURATION, WHAT, distributed, found};
use crate::args::loadtest::Ui;
use crate::commands::{Outcome, failed};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{names, say};

/// The length of a test that runs until it is stopped: as long as the longest one.
const UNLIMITED: Duration = Duration::from_hours(168);

/// How often figures are shown.
const EVERY: Duration = Duration::from_secs(1);

pub(super) async fn ui(args: Ui) -> Outcome {
    let scaling = checked(&args)?;
    let scenario = found(&args.locustfile)?.scenario;
    let at = &args.at;
    // A table that cannot be reached is reported before anything is started.
    let stack = connect::measured_stack(at, WHAT).await?;
    stack.check_compatible().await.map_err(failed(at, WHAT))?;
    let interrupts = Interrupts::catch()?;
    let options = Options {
        most_workers: scaling.max_workers.unwrap_or(1000).saturating_mul(2),
        silence: SILENCE,
        every: EVERY,
        ..Options::default()
    };
    let least = scaling.min_workers.max(1);
    let view = View::new(
        at.name.clone(),
        scenario.name.clone(),
        scenario.classes.iter().map(|class| class.name.clone()).collect(),
        Defaults {
            users: 20,
            spawn_rate: 10,
            seconds: Some(DURATION.as_secs()),
        },
    );
    let served = Page::serve(args.port, view).await;
    let (page, asked) = served.map_err(|err| {
        Failure::error(format!(
            "Cannot serve the page on port {}: {err}. Choose another one with --port, or 0 for any.",
            args.port
        ))
    })?;
    let cluster = distributed::open(at, scaling, options).await?;
    say(&format!(
        "Load test of '{}' at http://localhost:{}/ - Ctrl-C ends it.",
        at.name,
        page.address().port()
    ));
    let mut desk = Desk {
        args: &args,
        scenario,
        page,
        asked,
        cluster,
        least,
        interrupts,
    };
    let is_clean = desk.work().await;
    desk.cluster.close().end().await;
    match desk.interrupts.heard() {
        Some(ending) if !ending.is_interrupt() => Err(ending.into_failure()),
        _ => {
            say("Interrupted");
            Ok(if is_clean { Exit::Success } else { Exit::Failure })
        }
    }
}

/// Refuses what has no effect, and returns how many workers there are.
fn checked(args: &Ui) -> Result<Scaling, Failure> {
    names::stack(&args.at.name)?;
    if !args.local {
        return Err(Failure::error(
            "The page of a Fargate task is not available yet. Add --local to run master and workers on this machine.",
        ));
    }
    let others = [
        ("--destroy", args.destroy),
        ("--force", args.force),
        ("--cpu", args.cpu.is_some()),
        ("--memory", args.memory.is_some()),
        ("--pool-connections", args.pool_connections.is_some()),
    ];
    if let Some((option, _)) = others.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::error(format!(
            "{option} is for a Fargate task and has no effect with --local. Leave it out."
        )));
    }
    distributed::check_shared(&args.at)?;
    let number = |given: Option<i64>| given.map(|given| usize::try_from(given).unwrap_or(usize::MAX));
    let scales = [
        args.max_workers,
        args.min_workers,
        args.users_per_worker,
        args.startup_lead_time,
    ];
    if scales.iter().all(Option::is_none) {
        return Ok(Scaling::fixed(number(args.workers).unwrap_or(1)));
    }
    let default = Scaling::default();
    let scaling = Scaling {
        min_workers: number(args.min_workers).unwrap_or(default.min_workers),
        max_workers: number(args.max_workers),
        users_per_worker: number(args.users_per_worker).unwrap_or(default.users_per_worker),
        startup_lead_time: args.startup_lead_time.map_or(default.startup_lead_time, |secs| {
            Duration::from_secs(secs.unsigned_abs())
        }),
        ..default
    };
    match scaling.max_workers {
        Some(most) if most < scaling.min_workers => Err(Failure::error(format!(
            "--max-workers {most} is less than --min-workers {}.",
            scaling.min_workers
        ))),
        _ => Ok(scaling),
    }
}

/// What is needed to do what the page asks for.
struct Desk<'a> {
    args: &'a Ui,
    scenario: Scenario,
    page: Page,
    asked: mpsc::Receiver<Request>,
    cluster: Cluster<Processes>,
    /// How many workers a test waits for.
    least: usize,
    interrupts: Interrupts,
}

impl Desk<'_> {
    /// Runs tests until a signal. Returns whether nothing is left of them.
    async fn work(&mut self) -> bool {
        let mut is_clean = true;
        loop {
            let until = Instant::now() + EVERY;
            let asked = tokio::select! {
                biased;
                () = self.interrupts.first() => return is_clean,
                asked = self.asked.recv() => asked,
                kept = self.cluster.keep(until) => {
                    // The master tries again; a test that needs workers waits for them.
                    if let Err(err) = kept {
                        say(&format!("Warning: {err}"));
                    }
                    None
                }
            };
            self.page.view().workers(self.cluster.workers());
            // A request to stop came too late.
            if let Some(Request::Start(wish)) = asked {
                is_clean &= self.test(&wish).await;
                self.page.view().ready();
            }
        }
    }

    /// Runs a test in a namespace of its own. Returns whether the namespace is removed.
    async fn test(&mut self, wish: &Wish) -> bool {
        let at = &self.args.at;
        let opened = TestNamespace::open(at, &self.interrupts, || Ok(())).await;
        let namespace = match opened {
            Ok(namespace) => namespace,
            Err(failure) => {
                self.note(&failure);
                return true;
            }
        };
        match self.measure(wish, &namespace).await {
            Ok(Some(ended)) => {
                self.page.view().ended(&ended);
                distributed::warn(&ended.lost, ended.workers);
            }
            Ok(None) => self.page.view().note("The test was stopped before it began."),
            Err(failure) => self.note(&failure),
        }
        self.page.view().stopping();
        match namespace.clear(&self.interrupts).await {
            Ok(()) => true,
            Err(failure) => {
                self.note(&failure);
                false
            }
        }
    }

    /// Shows a failure, on the page too.
    fn note(&self, failure: &Failure) {
        if let Failure::Message { text, .. } = failure {
            say(text);
            self.page.view().note(text);
        }
    }

    async fn measure(
        &mut self,
        wish: &Wish,
        namespace: &TestNamespace<'_>,
    ) -> Result<Option<Ended>, Failure> {
        let seed = fastrand::u64(..1 << 53);
        let mut scenario = self.scenario.clone();
        if !wish.classes.is_empty() {
            scenario
                .classes
                .retain(|class| wish.classes.contains(&class.name));
        }
        let (page, asked, interrupts) = (&self.page, &mut self.asked, &self.interrupts);
        // The page asks for nothing else while a test runs.
        let mut stop = std::pin::pin!(async {
            tokio::select! {
                () = interrupts.first() => {}
                _ = asked.recv() => {}
            }
        });
        let begun = |err: zae_limiter_loadtest::cluster::ClusterError| {
            Failure::error(format!("The test did not begin: {err}"))
        };
        let waited = self.cluster.wait_for(self.least, stop.as_mut(), |pulse| {
            page.view().workers(pulse.workers);
        });
        if !waited.await.map_err(begun)? {
            return Ok(None);
        }
        let parents = tokio::select! {
            biased;
            () = stop.as_mut() => return Ok(None),
            prepared = prepare(namespace.limiter(), &scenario, seed) => prepared.map_err(failed(namespace.at, WHAT))?,
        };
        let stage = Stage {
            users: usize::try_from(wish.users).unwrap_or(usize::MAX),
            length: wish.seconds.map_or(UNLIMITED, Duration::from_secs),
        };
        let test = Test {
            scenario,
            schedule: Schedule::new(vec![stage], wish.spawn_rate as f64),
            namespace: namespace.name().to_owned(),
            parents,
            seed,
        };
        let ran = self.cluster.run(&test, stop, |pulse| page.view().pulse(pulse));
        ran.await.map(Some).map_err(begun)
    }
}
