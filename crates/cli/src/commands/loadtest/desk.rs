//! A master with a page: it runs the tests that the page asks for, one after the other.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use zae_limiter_loadtest::cluster::{Cluster, Ended, Launcher, Options, Test};
use zae_limiter_loadtest::page::{Defaults, Page, Request, View, Wish};
use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::{Schedule, Stage, prepare};

use super::interrupts::Interrupts;
use super::test_namespace::TestNamespace;
use super::worker::SILENCE;
use super::{DURATION, WHAT, distributed, spawn_rate};
use crate::args::Connection;
use crate::commands::failed;
use crate::failure::Failure;
use crate::say;

/// The length of a test that runs until it is stopped: as long as the longest one.
const UNLIMITED: Duration = Duration::from_hours(168);

/// How often figures are shown.
const EVERY: Duration = Duration::from_secs(1);

/// How a master with a page treats its workers, of which there are at most so many.
pub(super) fn options(max_workers: Option<usize>) -> Options {
    Options {
        // While one is replaced, there are two.
        most_workers: max_workers.unwrap_or(1000).saturating_mul(2),
        silence: SILENCE,
        every: EVERY,
        ..Options::default()
    }
}

/// Serves the page on a port of this machine.
pub(super) async fn page(
    at: &Connection,
    scenario: &Scenario,
    port: u16,
) -> Result<(Page, mpsc::Receiver<Request>), Failure> {
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
    Page::serve(port, view).await.map_err(|err| {
        Failure::error(format!(
            "Cannot serve the page on port {port}: {err}. Choose another one with --port, or 0 for any."
        ))
    })
}

/// What is needed to do what the page asks for.
pub(super) struct Desk<'a, L> {
    pub(super) at: &'a Connection,
    pub(super) scenario: Scenario,
    pub(super) page: Page,
    pub(super) asked: mpsc::Receiver<Request>,
    pub(super) cluster: Cluster<L>,
    /// How many workers a test waits for.
    pub(super) least: usize,
    pub(super) interrupts: Interrupts,
    /// Without a test for this long, the work ends.
    pub(super) idle: Option<Duration>,
}

impl<L: Launcher> Desk<'_, L> {
    /// Runs tests until a signal, or until nothing is asked for. Returns whether nothing is left of them.
    pub(super) async fn work(&mut self) -> bool {
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
            if self.idle.is_some_and(|longest| self.cluster.idle() >= longest) && asked.is_none() {
                return is_clean;
            }
            // A request to stop came too late.
            if let Some(Request::Start(wish)) = asked {
                is_clean &= self.test(&wish).await;
                self.page.view().ready();
            }
        }
    }

    /// Runs a test in a namespace of its own. Returns whether the namespace is removed.
    async fn test(&mut self, wish: &Wish) -> bool {
        let at = self.at;
        let opened = TestNamespace::open(at, &self.interrupts, || Ok(())).await;
        let namespace = match opened {
            Ok(namespace) => namespace,
            Err(failure) => {
                self.note(&failure);
                return true;
            }
        };
        self.page.view().namespace(Some(namespace.name().to_owned()));
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
            Ok(()) => {
                self.page.view().namespace(None);
                true
            }
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
        let seed = wish.seed.unwrap_or_else(|| fastrand::u64(..1 << 53));
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
        let test = Test {
            scenario,
            schedule: Schedule::new(stages(wish), spawn_rate(wish.rate, wish.spawn_rate)),
            namespace: namespace.name().to_owned(),
            parents,
            seed,
            rate: wish.rate,
        };
        let ran = self.cluster.run(&test, stop, |pulse| page.view().pulse(pulse));
        ran.await.map(Some).map_err(begun)
    }
}

/// The users over time.
fn stages(wish: &Wish) -> Vec<Stage> {
    let users = |users: u64| usize::try_from(users).unwrap_or(usize::MAX);
    if wish.stages.is_empty() {
        return vec![Stage {
            users: users(wish.users),
            length: wish.seconds.map_or(UNLIMITED, Duration::from_secs),
        }];
    }
    let stages = wish.stages.iter().map(|stage| Stage {
        users: users(stage.users),
        length: Duration::from_millis(stage.millis),
    });
    stages.collect()
}
