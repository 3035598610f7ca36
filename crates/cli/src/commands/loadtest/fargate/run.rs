//! `loadtest run --workers` without `--local`.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use zae_limiter_infra::{MasterOptions, MasterSize, MasterTask, StackManager, names};
use zae_limiter_loadtest::cluster::Ended;
use zae_limiter_loadtest::page::{Client, ClientError, Sample, State, Wish, WishedStage};
use zae_limiter_loadtest::{Plan, Schedule, Stage, Timeline};

use super::super::infrastructure::failure;
use super::super::interrupts::Interrupts;
use super::super::lambda::Worker;
use super::super::report::Shown;
use super::super::test_namespace::if_found;
use super::super::{
    DURATION, check_files, distributed, ended, found, refuse_shape_at_rate, selected, spawn_rate,
};
use super::tunnel::{self, Tunnel};
use super::{environment, task};
use crate::args::Connection;
use crate::args::loadtest::Run;
use crate::commands::Outcome;
use crate::failure::{Failure, invalid, options};
use crate::say;

/// The port of the tunnel on this machine.
const PORT: u16 = 8089;

/// The pause between two attempts to reach the master, and how many there are.
const TRY_AGAIN: Duration = Duration::from_secs(2);
const TRIES: u32 = 30;

/// How often the master is asked for figures, and how often it may not answer.
const EVERY: Duration = Duration::from_secs(5);
const SILENT: u32 = 3;

/// How long workers may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(5);

/// How much longer than planned a test may take, for the start and the end of its users and the removal of its namespace.
const MARGIN: Duration = Duration::from_mins(4);

/// A test that runs in AWS, and what is needed to follow it.
struct Distributed<'a> {
    at: &'a Connection,
    workers: usize,
    port: u16,
    plan: &'a Plan,
    manager: StackManager,
    region: String,
    interrupts: Interrupts,
}

pub(in super::super) async fn run(args: Run, workers: usize) -> Outcome {
    let at = &args.common.at;
    let found = found(&args.load.locustfile)?;
    let variables = environment::of_scenario(&args.load.locustfile, &found);
    let selection = selected(found, &args.load)?;
    refuse_shape_at_rate(&args, &selection)?;
    let stages = selection.stages(args.users(), args.duration(), DURATION);
    let size = size(args.cpu, args.memory)?;
    let port = args
        .port
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(PORT);
    check_files(&args)?;
    let plan = Plan {
        scenario: selection.scenario,
        schedule: Schedule::new(
            stages.clone(),
            spawn_rate(args.rate, args.load.spawn_rate.unsigned_abs()),
        ),
        rate: args.rate,
        warm_up: Duration::ZERO,
        seed: args.load.seed(),
        // Charts have more points than there are lines.
        every: args.html.as_ref().map_or(EVERY, |_| Timeline::EVERY),
    };
    tunnel::check(port)?;
    let interrupts = Interrupts::catch()?;
    let function = Worker::find(at, &interrupts).await?;
    let manager = function.manager.clone();
    check_workers(&manager, at, workers, &interrupts).await?;
    let region = manager.region().map_err(|err| failure(&err, at))?.to_owned();
    let mut shown = Shown::of_workers(&args, &plan, selection.shape, &function, workers);
    shown.head_of_master(size)?;
    let number = workers.to_string();
    let mut environment = variables;
    environment.extend([("MIN_WORKERS", number.clone()), ("MAX_WORKERS", number)]);
    let wanted = MasterOptions { size, environment };
    let wish = wish(&args, &plan, &stages);
    let test = Distributed {
        at,
        workers,
        port,
        plan: &plan,
        manager,
        region,
        interrupts,
    };
    test.interrupts.leaves(Some(task::may_run(at)));
    shown.line("Starting Fargate task...")?;
    let started = task::start(&test.manager, at, &wanted).await?;
    let left = task::still_runs(at, &started, "interrupted");
    test.interrupts.leaves(Some(format!("Error: {left}")));
    let printed = test.drive(&started, &wish, &mut shown).await;
    let stopped = task::stop_at_end(&test.manager, at, &started, &|line| shown.line(line)).await;
    test.interrupts.leaves(None);
    ended(printed, stopped, test.interrupts.heard())
}

/// The size of the master's task.
pub(super) fn size(cpu: Option<i64>, memory: Option<i64>) -> Result<MasterSize, Failure> {
    let number = |given: Option<i64>| given.map(|given| u32::try_from(given).unwrap_or(u32::MAX));
    MasterSize::new(number(cpu), number(memory)).map_err(|err| Failure::error(invalid(&err)))
}

/// Refuses more workers than Lambda runs at a time.
async fn check_workers(
    manager: &StackManager,
    at: &Connection,
    workers: usize,
    interrupts: &Interrupts,
) -> Result<(), Failure> {
    let stack = names::load::stack(&at.name);
    let look = async { manager.existing(&stack).await.map_err(|err| failure(&err, at)) };
    let found = interrupts.unless(look).await?.ok_or_else(|| task::no_stack(at))?;
    let most = found
        .parameters
        .get("MaxWorkers")
        .and_then(|most| most.parse().ok());
    match most {
        Some(most) if workers > most => Err(Failure::error(format!(
            "--workers {workers} is more than the {most} that the stack '{stack}' reserves. Deploy it with --max-workers {workers}, \
             or use fewer."
        ))),
        _ => Ok(()),
    }
}

fn wish(args: &Run, plan: &Plan, stages: &[Stage]) -> Wish {
    let wished = |stage: &Stage| WishedStage {
        users: stage.users as u64,
        millis: u64::try_from(stage.length.as_millis()).unwrap_or(u64::MAX),
    };
    Wish {
        users: args.users.unsigned_abs(),
        spawn_rate: args.load.spawn_rate.unsigned_abs(),
        seconds: None,
        classes: plan
            .scenario
            .classes
            .iter()
            .map(|class| class.name.clone())
            .collect(),
        stages: stages.iter().map(wished).collect(),
        seed: Some(plan.seed),
        rate: plan.rate,
    }
}

impl Distributed<'_> {
    /// Follows the test from the start of the task to the report.
    async fn drive(&self, started: &MasterTask, wish: &Wish, shown: &mut Shown<'_>) -> Result<(), Failure> {
        let tell = |line: &str| shown.line(line);
        tell(&format!(
            "  Task started: {}\n  Waiting for task to start...",
            started.id()
        ))?;
        let session = task::reachable(&self.manager, self.at, started, &self.interrupts, &tell).await?;
        tell(&format!("  Opening SSM tunnel to localhost:{}...", self.port))?;
        let mut tunnel = self.open(&session)?;
        tell("  Waiting for tunnel + master...")?;
        let client = Client::new(self.port);
        self.connect(&client, &mut tunnel, &session).await?;
        tell("  Connected.")?;
        self.wait_for_workers(&client, &tell).await?;
        shown.start()?;
        let begun = self.interrupts.during(client.start(wish)).await?;
        begun.map_err(|err| Failure::error(format!("Failed to start the test: {err}")))?;
        let mut timeline = Timeline::new(self.plan.schedule.length());
        let (ended, lost) = self
            .follow(&client, &mut tunnel, &session, &mut timeline, shown)
            .await?;
        shown.workers(self.workers, ended.lost.len());
        shown.report(&ended.report, timeline.points())?;
        distributed::warn(&ended.lost, ended.workers);
        match lost {
            Some(why) => Err(Failure::error(format!(
                "The report ends with the last figures. {why}"
            ))),
            None if ended.was_abandoned => Err(Failure::error(distributed::ABANDONED)),
            None => Ok(()),
        }
    }

    fn open(&self, session: &str) -> Result<Tunnel, Failure> {
        Tunnel::open(session, &self.region, self.port, false)
    }

    /// Opens the tunnel again if it has ended.
    fn mend(&self, tunnel: &mut Tunnel, session: &str) -> Result<(), Failure> {
        if tunnel.ended().is_some() {
            *tunnel = self.open(session)?;
        }
        Ok(())
    }

    /// Waits until the master answers.
    async fn connect(&self, client: &Client, tunnel: &mut Tunnel, session: &str) -> Result<(), Failure> {
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.interrupts.during(client.sample()).await? {
                Ok(_) => return Ok(()),
                Err(err) => why = err.to_string(),
            }
            self.interrupts.during(sleep(TRY_AGAIN)).await?;
            self.mend(tunnel, session)?;
        }
        Err(Failure::error(format!(
            "Could not connect to the master via SSM tunnel: {why}"
        )))
    }

    async fn wait_for_workers(&self, client: &Client, tell: &task::Tell<'_>) -> Result<(), Failure> {
        let workers = self.workers;
        tell(&format!("  Waiting for {workers} worker(s)..."))?;
        let began = Instant::now();
        let mut told = began;
        let mut connected = 0;
        while began.elapsed() < CONNECT_TIMEOUT {
            let sample = self.interrupts.during(client.sample()).await?;
            if let Ok(sample) = sample {
                connected = sample.workers;
                if connected >= workers {
                    return tell(&format!("  {connected} worker(s) connected."));
                }
            }
            if told.elapsed() >= EVERY {
                told = Instant::now();
                tell(&format!(
                    "  [{}s] workers={connected}/{workers}",
                    began.elapsed().as_secs()
                ))?;
            }
            self.interrupts.during(sleep(Duration::from_secs(1))).await?;
        }
        Err(Failure::error(format!(
            "Workers failed to connect within 5 minutes: {connected} of {workers} did. The log of the master is in /aws/ecs/{}, that \
             of the workers in /aws/lambda/{}.",
            names::load::master(&self.at.name),
            names::load::worker(&self.at.name)
        )))
    }

    /// Asks for figures until the test has ended, and its namespace is removed. Returns the last ones, and why they are not
    /// those of the whole test.
    async fn follow(
        &self,
        client: &Client,
        tunnel: &mut Tunnel,
        session: &str,
        timeline: &mut Timeline,
        shown: &Shown<'_>,
    ) -> Result<(Ended, Option<String>), Failure> {
        let limit = self.plan.schedule.length() + MARGIN;
        let began = Instant::now();
        let (mut last, mut silent, mut is_stopped) = (None::<Sample>, 0, false);
        let (mut told, mut most_users) = (began, 0);
        let why_lost = loop {
            // Its end is noticed sooner than figures are of interest.
            let pause = if last.as_ref().is_some_and(|last| last.is_complete) {
                Duration::from_secs(1)
            } else if silent > 0 {
                EVERY
            } else {
                self.plan.every
            };
            tokio::select! {
                biased;
                () = self.interrupts.first(), if !is_stopped => {
                    is_stopped = true;
                    // If this fails, the test ends with its task.
                    let _ = client.stop().await;
                }
                () = sleep(pause) => {}
            }
            match client.sample().await {
                Ok(sample) => {
                    silent = 0;
                    let is_new = last.as_ref().is_none_or(|last| !last.is_complete);
                    if let Some(result) = sample.result.as_ref().filter(|_| is_new) {
                        timeline.add_report(&result.report, sample.users);
                    }
                    if is_new && (sample.is_complete || told.elapsed() >= EVERY) {
                        told = Instant::now();
                        self.tell(&sample, shown, began);
                    }
                    let is_ready = sample.state == State::Ready;
                    most_users = most_users.max(sample.users);
                    last = Some(sample);
                    if is_ready {
                        break None;
                    }
                }
                Err(err) => {
                    silent += 1;
                    let seconds = began.elapsed().as_secs();
                    let _ = shown.line(&format!("  [{seconds}s] connection lost, retrying..."));
                    self.mend(tunnel, session)?;
                    // One that refuses is there.
                    if silent >= SILENT || matches!(err, ClientError::Refused(_)) {
                        break Some(format!("The master does not answer any longer: {err}"));
                    }
                }
            }
            if began.elapsed() > limit {
                break Some("The test did not end in time".to_owned());
            }
        };
        // A master that was lost could not remove it.
        let left = || {
            let namespace = last.as_ref().and_then(|last| last.namespace.as_ref());
            namespace.map_or_else(
                || format!("If it had begun, 'zae-limiter namespace list{}' shows a namespace that begins with loadtest-.", options(self.at)),
                |name| if_found(name, self.at),
            )
        };
        let why_lost = why_lost.map(|why| format!("{why}. {}", left()));
        let nothing = || {
            why_lost
                .clone()
                .unwrap_or_else(|| "No stats collected.".to_owned())
        };
        let Some(last) = &last else {
            return Err(Failure::error(nothing()));
        };
        if last.state == State::Ready && !last.is_complete {
            return Err(Failure::error(format!(
                "The test did not begin: {}",
                last.message
            )));
        }
        let Some(mut result) = last.result.clone() else {
            return Err(Failure::error(nothing()));
        };
        result.report.interrupted |= !last.is_complete;
        result.report.users = result.report.users.max(most_users);
        // What remains of the test stands after how it ended.
        if let Some((_, rest)) = last.message.split_once("Error: ") {
            say(&format!("Warning: {rest}"));
        }
        Ok((result, why_lost))
    }

    /// Shows how far the test is.
    fn tell(&self, sample: &Sample, shown: &Shown<'_>, began: Instant) {
        // If the output is closed, the report says so.
        let _ = match (&sample.result, sample.is_complete) {
            (Some(result), true) if result.report.interrupted => Ok(()),
            (_, true) => shown.line("  Test completed."),
            (_, false) => {
                let state = match sample.state {
                    State::Ready => "ready",
                    State::Starting => "starting",
                    State::Running if sample.users < self.plan.schedule.most() => "spawning",
                    State::Running => "running",
                    State::Stopping => "stopping",
                };
                shown.line(&format!(
                    "  [{}s] state={state}, users={}, workers={}, rps={:.1}",
                    began.elapsed().as_secs(),
                    sample.users,
                    sample.workers,
                    sample.rate
                ))
            }
        };
    }
}
