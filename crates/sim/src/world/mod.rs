//! The event queue, the table and true time.
//!
//! Events are played in the order of their virtual time, and at one instant in the order they were made. All
//! randomness comes from the plan's seed, so a plan always plays the same.

mod access;
mod configs;
mod counts;
mod decisions;
mod groups;
mod jobs;
mod leases;
mod lives;
mod operations;
mod operators;
mod outages;
mod shown;
mod slices;
mod works;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use shown::shown;
use zae_limiter_core::acquire::Reply;
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::{Answer, Item, Key, Op, TableError};

use crate::judge::check::Check;
use crate::judge::lives::Lives;
use crate::judge::outages::Outages;
use crate::plan::{Action, Plan};
use crate::rng::Rng;
use crate::rows::change::{Change, Source};
use crate::rows::row;
use crate::state::job::Job;
use crate::state::lease::Lease;
use crate::state::process::Process;
use crate::state::setup::{self, Names};
use crate::stats::Stats;
use crate::time::millis;

/// True time at the start of every run, in milliseconds since the Unix epoch.
pub const EPOCH_MS: i64 = 1_795_290_000_000;

/// True time in milliseconds since the Unix epoch.
pub fn true_ms(now_us: u64) -> i64 {
    EPOCH_MS.saturating_add_unsigned(now_us / 1000)
}

/// More events than any plan needs: a run that reaches it is in a loop.
const MAX_STEPS: u64 = 2_000_000;

/// Something that must not happen, and did.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The seed of the plan.
    pub seed: u64,
    /// The event at which it showed.
    pub step: u64,
    /// True time, in microseconds from the start.
    pub at_us: u64,
    /// The violated rule.
    pub message: String,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Counts of events.
    pub stats: Stats,
    /// The violated rule, if any.
    pub violation: Option<Violation>,
    /// Every event in a line, if that was wanted.
    pub log: Vec<String>,
    /// The table as the run left it.
    pub table: MemoryTable,
    /// When it ended, in microseconds from the start.
    pub ended_us: u64,
}

/// A deletion under way, and what comes after it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The bucket is deleted.
    Buckets,
    /// The limits and the entity's own record are deleted.
    Record,
    /// What was created meanwhile is deleted.
    Rest,
    /// Buckets that carry the stamp of the deleted entity are deleted, until there are none.
    Orphans,
    /// The entity is created anew.
    Birth,
}

/// The kind of an event.
#[derive(Debug)]
pub(crate) enum Event {
    /// An action of the plan begins.
    Act(usize),
    /// A machine's request leaves the process.
    Send { job: usize, call: usize, op: Op },
    /// The table sees a write. With an instant, the client hears the answer then.
    Write {
        job: usize,
        call: usize,
        op: Op,
        heard_at: Option<u64>,
    },
    /// The table sees one key of a read.
    Read {
        job: usize,
        call: usize,
        index: usize,
        key: Key,
        /// Shows the item as it was before its last change by an operator.
        is_stale: bool,
    },
    /// The client hears the outcome of a read.
    ReadDone { job: usize, call: usize, keys: usize },
    /// The configuration that a machine asked for has been read.
    ConfigDone { job: usize, call: usize, asked_us: u64 },
    /// The client hears.
    Hear {
        job: usize,
        call: usize,
        reply: Box<Reply>,
    },
    /// A caller stops waiting.
    GiveUp(usize),
    /// A lease ends.
    EndLease(usize),
    /// A process returns what it holds too long.
    ReturnOld { process: usize, incarnation: u32 },
    /// A credit has waited long enough for a write that carries it.
    GoAlone(usize),
    /// A deletion continues.
    Recreate { action: usize, step: Step },
    /// An operator goes on with the work of an action.
    Work(usize),
    /// Another client writes.
    Other { source: Source, op: Op },
}

#[derive(Debug)]
struct Queued {
    at_us: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// A run in progress.
pub struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) names: Names,
    pub(crate) now_us: u64,
    pub(crate) table: MemoryTable,
    pub(crate) check: Check,
    pub(crate) processes: Vec<Process>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) leases: Vec<Lease>,
    pub(crate) lives: Lives,
    pub(crate) outages: Outages,
    /// The parent to which each entity has cascaded, and since when, in microseconds from the start; before that, as
    /// planned.
    pub(crate) owners: BTreeMap<usize, Vec<(u64, Option<usize>)>>,
    pub(crate) stats: Stats,
    /// What operators have begun, by action.
    works: BTreeMap<usize, (works::Work, Rng)>,
    /// Records as they were before their last change by an operator.
    before: BTreeMap<Key, Option<Item>>,
    /// What multi-key reads have seen so far.
    reads: BTreeMap<(usize, usize), Vec<Item>>,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    step: u64,
    /// Every event, if that is wanted: telling them takes longer than playing them.
    log: Option<Vec<String>>,
    failure: Option<String>,
}

impl<'a> World<'a> {
    /// The world before anything has happened.
    pub fn new(plan: &'a Plan, keeps_log: bool) -> Self {
        let names = Names::of(plan);
        let table = setup::table(plan, &names);
        let (check, failure) = match Check::new(plan.clocks(), table.items()) {
            Ok(check) => (check, None),
            Err(err) => (Check::default(), Some(err)),
        };
        let mut world = Self {
            plan,
            names,
            now_us: 0,
            table,
            check,
            processes: plan
                .processes
                .iter()
                .map(|process| Process::new(*process, plan.local_limits))
                .collect(),
            jobs: Vec::new(),
            leases: Vec::new(),
            lives: Lives::default(),
            outages: Outages::default(),
            owners: BTreeMap::new(),
            stats: Stats {
                runs: 1,
                ..Stats::default()
            },
            works: BTreeMap::new(),
            before: BTreeMap::new(),
            reads: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            step: 0,
            log: keeps_log.then(Vec::new),
            failure,
        };
        if plan
            .actions
            .iter()
            .any(|(_, action)| matches!(action, Action::Crash(_)))
        {
            world.check.expects_crashes();
        }
        let is_recreated = |(_, action): &(u64, Action)| matches!(action, Action::Recreate { .. });
        let says = |(_, action): &(u64, Action)| matches!(action, Action::SetAccess { .. });
        world.check.access.is_played = plan.actions.iter().any(says);
        world.check.access.has_stale_reads = plan.stale_reads > 0;
        world.check.may_unname = plan.actions.iter().any(is_recreated);
        for (index, (at, _)) in plan.actions.iter().enumerate() {
            world.schedule(*at, Event::Act(index));
        }
        world
    }

    /// Plays to the end, or to the first violation.
    pub fn play(self) -> Outcome {
        self.play_and_count(&mut [])
    }

    /// Plays as [`play`](Self::play) does, and counts acquires by the second in which they began: all, and the
    /// admitted ones.
    pub fn play_and_count(mut self, by_second: &mut [(u64, u64)]) -> Outcome {
        while self.failure.is_none() {
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.now_us = next.at_us;
            self.step += 1;
            if self.step > MAX_STEPS {
                self.fail("the run does not end");
                break;
            }
            self.handle(next.event);
        }
        if self.failure.is_none()
            && let Err(err) = self.judge_end()
        {
            self.fail(err);
        }
        for job in self.jobs.iter().filter(|job| !job.is_credit) {
            let began = self
                .plan
                .actions
                .get(job.action)
                .map_or(0, |(at, _)| at / 1_000_000);
            if let Some((begun, admitted)) = by_second.get_mut(began as usize) {
                *begun += 1;
                *admitted += u64::from(job.is_admitted);
            }
        }
        self.stats.steps = self.step;
        let violation = self.failure.map(|message| Violation {
            seed: self.plan.seed,
            step: self.step,
            at_us: self.now_us,
            message,
        });
        Outcome {
            stats: self.stats,
            violation,
            log: self.log.unwrap_or_default(),
            table: self.table,
            ended_us: self.now_us,
        }
    }

    pub(crate) fn schedule(&mut self, at_us: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued {
            at_us,
            order: self.order,
            event,
        }));
    }

    pub(crate) fn fail(&mut self, message: impl Into<String>) {
        self.failure.get_or_insert(message.into());
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(log) = &mut self.log else { return };
        log.push(format!("{:>12.3} ms  {}", self.now_us as f64 / 1000.0, line()));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Act(action) => self.act(action),
            Event::Work(action) => self.work(action),
            Event::GoAlone(job) => self.go_alone(job),
            Event::ReturnOld { process, incarnation } => self.return_old(process, incarnation),
            Event::Send { job, call, op } => self.send_in_turn(job, call, op),
            Event::Write {
                job,
                call,
                op,
                heard_at,
            } => {
                let lag_us = self.now_us - self.jobs[job].made_us[call];
                self.check.arrives_after(millis(lag_us) + 1);
                let reply = if self.jobs[job].parts.is_empty() {
                    self.write(self.jobs[job].source(job), &op)
                } else {
                    self.write_batch(job, &op)
                };
                self.note(|| format!("job {job} call {call}: {}", shown(&op, &reply)));
                if let Some(at) = heard_at {
                    let reply = Box::new(Reply::Table(reply));
                    self.schedule(at, Event::Hear { job, call, reply });
                }
            }
            Event::Read {
                job,
                call,
                index,
                key,
                is_stale,
            } => {
                let before = self.before.get(&key).filter(|_| is_stale);
                self.stats.stale_reads += u64::from(before.is_some());
                let seen = match before {
                    Some(before) => before.clone(),
                    None => self.table.get(&key).cloned(),
                };
                let items = self.reads.entry((job, call)).or_default();
                // Answers come in no particular order.
                match seen {
                    Some(item) if index % 2 == 0 => items.push(item),
                    Some(item) => items.insert(0, item),
                    None => {}
                }
            }
            Event::ReadDone { job, call, keys } => {
                let items = self.reads.remove(&(job, call)).unwrap_or_default();
                self.note(|| format!("job {job} call {call}: read {} of {keys} items", items.len()));
                self.hear(job, call, Reply::Table(Ok(Answer::Items(items))));
            }
            Event::ConfigDone { job, call, asked_us } => {
                let items = self.reads.remove(&(job, call)).unwrap_or_default();
                self.config_read(job, call, asked_us, &items);
            }
            Event::Hear { job, call, reply } => self.hear(job, call, *reply),
            Event::GiveUp(job) => self.give_up(job),
            Event::Recreate { action, step } => self.recreate(action, step),
            Event::EndLease(lease) => self.end_lease(lease),
            Event::Other { source, op } => {
                let reply = self.write(source, &op);
                if !matches!(reply, Ok(Answer::Refused(None))) {
                    self.note(|| format!("{source:?}: {}", shown(&op, &reply)));
                }
            }
        }
    }

    /// Does a request on the table now, and judges what it did.
    pub(crate) fn write(&mut self, source: Source, op: &Op) -> Result<Answer, TableError> {
        self.stats.table_calls += 1;
        let keys = row::written(op);
        let before: Vec<_> = keys.iter().map(|key| self.table.get(key).cloned()).collect();
        let answer = self.table.call(op);
        match &answer {
            Err(err) => self.fail(format!("the table calls a request malformed: {err} in {op:?}")),
            Ok(Answer::Applied(_)) => {
                self.stats.writes += 1;
                if source == Source::Admin {
                    let records = keys
                        .iter()
                        .zip(&before)
                        .filter(|(key, _)| row::bucket_of(key).is_none());
                    self.before
                        .extend(records.map(|(key, old)| (key.clone(), old.clone())));
                }
                let changes: Vec<Change> = keys
                    .into_iter()
                    .zip(before)
                    .map(|(key, old)| {
                        let new = self.table.get(&key).cloned();
                        Change { key, old, new }
                    })
                    .collect();
                self.judge(source, &changes, op);
                if source == Source::Admin
                    && changes.iter().any(|change| row::bucket_of(&change.key).is_none())
                {
                    self.note_access();
                }
            }
            Ok(Answer::Refused(_) | Answer::Cancelled(_)) if matches!(source, Source::Acquire(_)) => {
                self.stats.lost_races += u64::from(!is_plain_debit(op));
            }
            Ok(_) => {}
        }
        answer
    }
}

impl World<'_> {
    /// Judges what a write did.
    fn judge(&mut self, source: Source, changes: &[Change], op: &Op) {
        let action = source.job().map_or(usize::MAX, |job| self.jobs[job].action);
        let judged = self.check.wrote(self.now_us, source, changes, &mut self.stats);
        // What only counts may meet the item's next life, too: no balance depends on it.
        let corrections = &self.check.access.corrections;
        let is_correction = source.job().is_some_and(|job| corrections.contains(&job));
        let judged = judged
            .and_then(|()| {
                if is_correction {
                    return Ok(());
                }
                self.lives.wrote(source, action, changes)
            })
            .and_then(|()| {
                // What the acquire took before the policy admitted it goes back.
                let gives_back = source
                    .job()
                    .is_some_and(|job| self.jobs[job].awaited_by.is_some());
                if gives_back {
                    Ok(())
                } else {
                    self.outages.wrote(source, action)
                }
            });
        if let Err(err) = judged {
            let reply = Ok(Answer::Applied(None));
            self.note(|| format!("{source:?}: {}", shown(op, &reply)));
            self.fail(err);
        }
    }
}

/// Whether a write only takes from balances as they are.
fn is_plain_debit(op: &Op) -> bool {
    matches!(op, Op::Update(update) if update.set.is_empty() && update.remove.is_empty())
}
