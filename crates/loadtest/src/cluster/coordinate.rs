//! The master at work: it follows a schedule, gives users to workers, and hears what they have measured.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::launcher::Launcher;
use super::listener::{Event, Outs};
use super::master::{ClusterError, Ended, Options, Pulse, Test};
use super::message::{RunId, Start, ToMaster, ToWorker, WorkerId};
use super::roster::Roster;
use super::scaling::{Scaler, Scaling, Seen};
use super::spread::Spread;
use crate::progress::Last;
use crate::report::Report;
use crate::users::DRAIN_TIMEOUT;

/// How often the number of users is compared with the schedule.
const TICK: Duration = Duration::from_millis(100);

/// How often a number of users is repeated, and how often workers without a test hear of the master.
const REPEAT: Duration = Duration::from_secs(1);

/// The room that stays free in the queue of a worker, for messages that are not repeated.
const RESERVED: usize = 4;

/// How long workers may take to open the namespace of a test.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a test goes on without any worker.
const ALONE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long workers may take to end their users, and to send the rest.
const DONE_TIMEOUT: Duration = DRAIN_TIMEOUT.saturating_add(Duration::from_secs(20));

/// A master and its workers.
#[derive(Debug)]
pub struct Cluster<L> {
    /// Ends with this.
    _accepting: JoinSet<()>,
    events: mpsc::Receiver<Event>,
    outs: Outs,
    roster: Roster,
    launcher: L,
    scaler: Scaler,
    options: Options,
    opened: Instant,
    next_poll: Instant,
    last_run: RunId,
    run: Option<Run>,
    /// When workers without a test heard of the master.
    repeated: Instant,
}

/// The test that runs.
#[derive(Debug)]
struct Run {
    start: Start,
    /// When the first users were assigned.
    began: Option<Instant>,
    users: usize,
    spread: Spread,
    assigned: BTreeMap<WorkerId, Assigned>,
    rate: Option<f64>,
}

/// The last assignment of a worker.
#[derive(Debug)]
struct Assigned {
    users: Vec<usize>,
    rate: f64,
    at: Instant,
}

type Stop<'a, S> = Pin<&'a mut S>;

impl<L: Launcher> Cluster<L> {
    pub(super) fn new(
        accepting: JoinSet<()>,
        events: mpsc::Receiver<Event>,
        launcher: L,
        scaling: Scaling,
        options: Options,
    ) -> Self {
        let now = Instant::now();
        Self {
            _accepting: accepting,
            events,
            outs: Outs::new(),
            roster: Roster::default(),
            launcher,
            scaler: Scaler::new(scaling),
            options,
            opened: now,
            next_poll: now,
            last_run: 0,
            run: None,
            repeated: now,
        }
    }

    /// How many workers are connected.
    pub fn workers(&self) -> usize {
        self.roster.connected()
    }

    /// Closes all connections, so that workers end. Returns what has started them.
    pub fn close(self) -> L {
        self.launcher
    }

    /// How long no test has run.
    pub fn idle(&self) -> Duration {
        self.scaler.idle(self.opened.elapsed())
    }

    /// Keeps workers for a while, without a test.
    ///
    /// # Errors
    /// If workers cannot be started.
    pub async fn keep(&mut self, until: Instant) -> Result<(), ClusterError> {
        while Instant::now() < until {
            self.turn(until).await?;
        }
        Ok(())
    }

    /// Waits for so many workers. `told` is called as often as the options say. Returns whether they are there; not if `stop`
    /// ended the wait.
    ///
    /// # Errors
    /// [`ClusterError`]: too few workers in time, or none can be started.
    pub async fn wait_for(
        &mut self,
        wanted: usize,
        stop: impl Future<Output = ()>,
        mut told: impl FnMut(&Pulse<'_>),
    ) -> Result<bool, ClusterError> {
        let mut stop = pin!(stop);
        let began = Instant::now();
        let mut next = began + self.options.every;
        while self.workers() < wanted {
            if !self.turn_or_stop(&mut stop).await? {
                return Ok(false);
            }
            let now = Instant::now();
            if now >= began + self.options.wait && self.workers() < wanted {
                return Err(ClusterError::TooFew {
                    connected: self.workers(),
                    wanted,
                    within: self.options.wait,
                });
            }
            if now >= next {
                next = now + self.options.every;
                let nothing = Report::of_nothing();
                told(&Pulse {
                    progress: Last::at(began).progress(began, now, 0, &nothing.stats),
                    workers: self.workers(),
                    report: &nothing,
                });
            }
        }
        Ok(true)
    }

    /// Runs a test on the workers that are connected and on those that come, until the schedule's end or until `stop`. The
    /// namespace must be [prepared](crate::prepare).
    ///
    /// # Errors
    /// [`ClusterError`] if the test cannot begin. Once it has begun, there is a result.
    pub async fn run(
        &mut self,
        test: &Test,
        stop: impl Future<Output = ()>,
        mut told: impl FnMut(&Pulse<'_>),
    ) -> Result<Ended, ClusterError> {
        let mut stop = pin!(stop);
        self.begin(test);
        let is_ready = self.get_ready(&mut stop).await;
        let outcome = match is_ready {
            Ok(true) => Ok(self.keep_users(test, &mut stop, &mut told).await),
            Ok(false) => Ok((true, false)),
            Err(err) => Err(err),
        };
        self.end().await;
        self.run = None;
        let (is_interrupted, was_abandoned) = outcome?;
        let mut report = self.roster.report().clone();
        report.interrupted = is_interrupted || was_abandoned;
        Ok(Ended {
            report,
            workers: self.roster.took_part(),
            lost: self.roster.lost().to_vec(),
            was_abandoned,
        })
    }

    fn begin(&mut self, test: &Test) {
        self.last_run += 1;
        self.roster.begin();
        let weights = test.scenario.classes.iter().map(|class| class.weight);
        let start = Start {
            run: self.last_run,
            scenario: test.scenario.clone(),
            parents: test.parents.clone(),
            namespace: test.namespace.clone(),
            seed: test.seed,
            is_open_loop: test.rate.is_some(),
        };
        self.run = Some(Run {
            start,
            began: None,
            users: 0,
            spread: Spread::new(weights.collect()),
            assigned: BTreeMap::new(),
            rate: test.rate,
        });
        for worker in self.roster.all() {
            self.introduce(worker);
        }
    }

    /// Tells a worker of the test, if there is one.
    fn introduce(&mut self, worker: WorkerId) {
        if let Some(run) = &self.run
            && !self.roster.is_leaving(worker)
        {
            let start = ToWorker::Start(Box::new(run.start.clone()));
            self.roster.starting(worker);
            self.send(worker, start);
        }
    }

    /// Waits until all workers that are connected can have users, or until some can and the others take too long.
    async fn get_ready<S: Future<Output = ()>>(
        &mut self,
        stop: &mut Stop<'_, S>,
    ) -> Result<bool, ClusterError> {
        let end = Instant::now() + READY_TIMEOUT;
        loop {
            let starting = self.roster.starting_workers().len();
            let ready = self.roster.ready_workers().len();
            let is_late = Instant::now() >= end;
            if ready > 0 && (starting == 0 || is_late) {
                return Ok(true);
            }
            if let Some(why) = self.roster.failures().first()
                && starting == 0
            {
                return Err(ClusterError::Failed(why.clone()));
            }
            if is_late {
                let why = format!("none was ready within {} s", READY_TIMEOUT.as_secs());
                return Err(ClusterError::Failed(why));
            }
            if !self.turn_or_stop(stop).await? {
                return Ok(false);
            }
        }
    }

    /// Follows the schedule. Returns whether it was interrupted, and whether all workers were lost.
    async fn keep_users<S: Future<Output = ()>>(
        &mut self,
        test: &Test,
        stop: &mut Stop<'_, S>,
        told: &mut impl FnMut(&Pulse<'_>),
    ) -> (bool, bool) {
        let began = Instant::now();
        if let Some(run) = &mut self.run {
            run.began = Some(began);
        }
        let mut last = Last::at(began);
        let mut seen = began;
        loop {
            let now = Instant::now();
            let Some(users) = test.schedule.users_at(now - began) else {
                return (false, false);
            };
            self.assign(users, now);
            if self.roster.ready_workers().is_empty() {
                if now - seen >= ALONE_TIMEOUT {
                    return (false, true);
                }
            } else {
                seen = now;
            }
            if now - last.at >= self.options.every {
                let report = self.roster.report();
                told(&Pulse {
                    progress: last.progress(began, now, self.roster.users(), &report.stats),
                    workers: self.workers(),
                    report,
                });
            }
            match self.turn_or_stop(stop).await {
                Ok(true) => {}
                Ok(false) => return (true, false),
                // Others may still be there.
                Err(err) => tracing::warn!(error = %err, "a worker cannot be replaced"),
            }
        }
    }

    /// Spreads so many users, and tells the workers whose users change.
    fn assign(&mut self, users: usize, now: Instant) {
        let Some(run) = &mut self.run else {
            return;
        };
        run.spread.resize(users);
        run.users = run.users.max(run.spread.len());
        let began = run.began.unwrap_or(now);
        let mut unreachable = Vec::new();
        for worker in self.roster.ready_workers() {
            let (Some(users), Some(out)) = (run.spread.of(worker), self.outs.get(&worker)) else {
                continue;
            };
            // As large a part of the tasks as of the users.
            let part = users.iter().sum::<usize>() as f64 / run.spread.len().max(1) as f64;
            let rate = run.rate.unwrap_or(0.0) * part;
            let is_known = run.assigned.get(&worker).is_some_and(|known| {
                known.users == users && known.rate.to_bits() == rate.to_bits() && now - known.at < REPEAT
            });
            // Otherwise it is repeated when there is room.
            if is_known || out.capacity() <= RESERVED {
                continue;
            }
            let assign = ToWorker::Assign {
                run: run.start.run,
                users: users.to_vec(),
                rate,
            };
            if users.iter().any(|users| *users > 0) {
                self.roster.assigned(worker, now - began);
            }
            if out.try_send(assign).is_err() {
                unreachable.push(worker);
            }
            let users = users.to_vec();
            run.assigned.insert(worker, Assigned { users, rate, at: now });
        }
        for worker in unreachable {
            self.dismiss(worker, "it does not take messages");
        }
    }

    /// Ends the users of all workers, and waits for the rest of what they have measured.
    async fn end(&mut self) {
        for worker in self.roster.ready_workers() {
            self.stop(worker);
        }
        // Those that open the namespace have no users, and nothing to send.
        let run = self.last_run;
        for worker in self.roster.starting_workers() {
            self.send(worker, ToWorker::Stop { run });
        }
        let end = Instant::now() + DONE_TIMEOUT;
        while !self.roster.late_workers().is_empty() && Instant::now() < end {
            if let Err(err) = self.turn(end).await {
                tracing::debug!(error = %err, "at the end of a test");
            }
        }
        for worker in self.roster.late_workers() {
            self.dismiss(worker, "it did not send the rest of its measurements in time");
        }
        if let Some(run) = &self.run {
            self.roster.most_users(run.users);
        }
    }

    fn stop(&mut self, worker: WorkerId) {
        let Some(run) = &mut self.run else {
            return;
        };
        run.spread.leave(worker);
        run.assigned.remove(&worker);
        let stop = ToWorker::Stop { run: run.start.run };
        self.roster.ending(worker);
        self.send(worker, stop);
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        let out = self.outs.get(&worker);
        if out.is_some_and(|out| out.try_send(message).is_err()) {
            self.dismiss(worker, "it does not take messages");
        }
    }

    /// Closes the connection of a worker.
    fn dismiss(&mut self, worker: WorkerId, why: &str) {
        self.outs.remove(&worker);
        self.gone(worker, why);
    }

    fn gone(&mut self, worker: WorkerId, why: &str) {
        if let Some(run) = &mut self.run {
            run.spread.leave(worker);
            run.assigned.remove(&worker);
        }
        if self.roster.gone(worker, why.to_owned()) {
            tracing::warn!(worker, why, "a worker was lost");
        }
    }

    /// A tick, which `stop` can end. Returns whether it did not.
    async fn turn_or_stop<S: Future<Output = ()>>(
        &mut self,
        stop: &mut Stop<'_, S>,
    ) -> Result<bool, ClusterError> {
        let until = Instant::now() + TICK;
        tokio::select! {
            biased;
            () = stop.as_mut() => Ok(false),
            turned = self.turn(until) => turned.map(|()| true),
        }
    }

    /// Listens to workers until then, at most for a tick, and starts those that are missing.
    async fn turn(&mut self, until: Instant) -> Result<(), ClusterError> {
        let now = Instant::now();
        let until = until.min(now + TICK);
        if now - self.repeated >= REPEAT {
            self.repeated = now;
            for out in self.outs.values().filter(|out| out.capacity() > RESERVED) {
                let _ = out.try_send(ToWorker::Alive);
            }
        }
        if now >= self.next_poll {
            self.next_poll = now + Scaling::POLL;
            self.launch().await?;
        }
        self.launcher.check().map_err(ClusterError::Launch)?;
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => self.hear(event),
                    // The port is open as long as this.
                    None => sleep_until(until).await,
                },
                () = sleep_until(until) => return Ok(()),
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    async fn launch(&mut self) -> Result<(), ClusterError> {
        let seen = Seen {
            users: self.run.as_ref().map_or(0, |run| run.spread.wanted()),
            connected: self.roster.connected(),
            is_running: self.run.is_some(),
        };
        let count = self.scaler.poll(self.opened.elapsed(), seen);
        if count == 0 {
            return Ok(());
        }
        tracing::info!(count, "starting workers");
        self.launcher.launch(count).await.map_err(ClusterError::Launch)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Joined { worker, name, out } => {
                tracing::info!(worker, name, "a worker has connected");
                self.outs.insert(worker, out);
                self.scaler.joined(self.opened.elapsed());
                self.roster.join(worker, name);
                self.introduce(worker);
            }
            Event::Said { worker, message } => self.said(worker, message),
            Event::Gone { worker, why } => {
                self.outs.remove(&worker);
                self.gone(worker, &why);
            }
        }
    }

    fn said(&mut self, worker: WorkerId, message: ToMaster) {
        let current = self.run.as_ref().map(|run| run.start.run);
        match message {
            ToMaster::Ready { run } if Some(run) == current => {
                if self.roster.ready(worker)
                    && let Some(run) = &mut self.run
                {
                    run.spread.join(worker);
                }
            }
            ToMaster::Failed { run, why } if Some(run) == current => self.roster.failed(worker, why),
            ToMaster::Measured { run, users, part } if Some(run) == current => {
                self.roster.measured(worker, users, *part);
            }
            ToMaster::Leaving => {
                if self.roster.leaving(worker) {
                    self.stop(worker);
                } else {
                    self.dismiss(worker, "its life is over");
                }
            }
            ToMaster::Done { run } if Some(run) == current => {
                if self.roster.done(worker) {
                    self.dismiss(worker, "its life is over");
                }
            }
            // A sign of life, or of an earlier test.
            ToMaster::Alive
            | ToMaster::Ready { .. }
            | ToMaster::Failed { .. }
            | ToMaster::Measured { .. }
            | ToMaster::Done { .. } => {}
        }
    }
}
