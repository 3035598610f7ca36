//! Operators at work, step by step: between two steps, others write, and an operator may be killed.

use zae_limiter_core::table::{Answer, Op};

use super::access::SetAccess;
use super::operations::Operate;
use super::shown::shown;
use super::{Event, World};
use crate::plan::Action;
use crate::plan::faults::{Fate, Faults};
use crate::rng::Rng;
use crate::rows::change::Source;

/// How often a step is the last one of an operator that is killed, in thousandths.
const KILLED: u32 = 12;

/// What an operator has begun.
#[derive(Debug)]
pub(super) enum Work {
    Access(SetAccess),
    /// The same, when the shards are to be listed.
    Listing(SetAccess),
    Operation(Box<Operate>),
}

/// What comes after a step.
#[derive(Debug)]
pub(super) enum Next {
    /// Another step, after about the time of a request.
    Soon(Work),
    /// Another step, after so many microseconds.
    After(u64, Work),
    /// Nothing.
    Ends,
}

impl Next {
    pub(super) fn soon(work: Work) -> Self {
        Self::Soon(work)
    }
}

impl World<'_> {
    /// An operator begins.
    pub(crate) fn begin_work(&mut self, index: usize, action: &Action) {
        let work = match action {
            Action::SetAccess {
                clock,
                entity,
                access,
            } => Work::Access(SetAccess::new(*clock, *entity, *access)),
            Action::Operate {
                clock,
                entity,
                operation,
                key,
            } => {
                let Some(operate) = self.begin_operation(*clock, *entity, operation, *key) else {
                    return;
                };
                Work::Operation(Box::new(operate))
            }
            _ => return,
        };
        let rng = Rng::of(self.plan.seed, (index as u64) << 8 | 0xfd);
        self.works.insert(index, (work, rng));
        self.work(index);
    }

    /// The next step of an operator.
    pub(crate) fn work(&mut self, index: usize) {
        let Some((work, mut rng)) = self.works.remove(&index) else {
            return;
        };
        if rng.chance(KILLED) {
            self.stats.operators_killed += 1;
            self.note(|| format!("the operator of action {index} is killed"));
            return;
        }
        let next = match work {
            Work::Access(call) => self.set_access(call, &mut rng),
            Work::Listing(call) => self.list_shards(call),
            Work::Operation(call) => self.operate(*call, &mut rng),
        };
        let latency = self.plan.faults.latency_us.max(2);
        let (after, work) = match next {
            Next::Soon(work) => (rng.range(1, latency).unsigned_abs(), work),
            Next::After(after, work) => (after, work),
            Next::Ends => {
                self.note(|| format!("the operator of action {index} is done"));
                return;
            }
        };
        self.works.insert(index, (work, rng));
        self.schedule(self.now_us + after, Event::Work(index));
    }

    /// An operator's write, whose fate is drawn. Returns whether the operator hears that the table has answered.
    pub(super) fn operator_writes(&mut self, source: Source, op: Op, rng: &mut Rng) -> bool {
        matches!(self.operator_asks(source, op, rng), Asked::Answered(_))
    }

    pub(super) fn operator_asks(&mut self, source: Source, op: Op, rng: &mut Rng) -> Asked {
        // What an operator sends late arrives before the next look at all shards.
        let faults = Faults {
            timeout_us: self.plan.faults.timeout_us.min(50_000),
            permanent: 0,
            ..self.plan.faults
        };
        let fate = Fate::draw(&op, &faults, self.now_us, rng);
        if fate.is_empty {
            return Asked::Unknown;
        }
        match (fate.error, fate.seen_after) {
            (None, _) => {
                let reply = self.write(source, &op);
                self.note(|| format!("{source:?}: {}", shown(&op, &reply)));
                reply.map_or(Asked::Unknown, Asked::Answered)
            }
            (Some(_), Some(after)) => {
                let at = self.now_us + after;
                self.schedule(at, Event::Other { source, op });
                Asked::Unknown
            }
            (Some(err), None) if err.applied == zae_limiter_core::table::Applied::No => Asked::Failed,
            (Some(_), None) => Asked::Unknown,
        }
    }
}

/// What an operator hears of a request.
#[derive(Debug)]
pub(super) enum Asked {
    Answered(Answer),
    /// It has not happened.
    Failed,
    /// It may have happened, or may yet.
    Unknown,
}
