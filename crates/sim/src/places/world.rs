//! Plays a plan: the table, true time, processes with clocks, and the machines of their callers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::{self, Write as _};

use zae_limiter_core::flight::{
    GiveBack, GiveBackEnd, Hold, MARGIN_MS, MAX_TTL_MS, Next, Take, TakeEnd, flight_key,
};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Item, Op, TableError};
use zae_limiter_core::{EntityId, EpochMillis, NamespaceId, ResourceName};

use super::judge::Judge;
use super::plan::{Incident, Plan};
use crate::rng::Rng;
use crate::time::EPOCH_MS;

/// How long a caller waits for an answer.
const TIMEOUT_MS: i64 = 2_000;

/// How many events a run may have: far more than any needs.
const MOST_EVENTS: usize = 2_000_000;

/// How a run went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was wrong, and when.
    pub violation: Option<String>,
    /// A line for each event.
    pub log: Vec<String>,
    /// What happened how often.
    pub counts: Counts,
}

/// What happened how often.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Places that were held.
    pub held: u64,
    /// Places that were given back.
    pub given: u64,
    /// Refusals.
    pub full: u64,
    /// Renewals that were executed.
    pub renewed: u64,
    /// Places of others that were removed after their time.
    pub removed: u64,
    /// Callers that have lost their place.
    pub lost: u64,
    /// Callers that crashed.
    pub crashed: u64,
    /// Callers that ended without a place.
    pub refused: u64,
    /// Requests whose outcome the caller did not hear.
    pub unheard: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.held += other.held;
        self.given += other.given;
        self.full += other.full;
        self.renewed += other.renewed;
        self.removed += other.removed;
        self.lost += other.lost;
        self.crashed += other.crashed;
        self.refused += other.refused;
        self.unheard += other.unheard;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events: {} places held, {} given back, {} renewals, {} removed after their time, {} lost, {} callers crashed, \
             {} refusals, {} callers without a place, {} outcomes not heard",
            self.events,
            self.held,
            self.given,
            self.renewed,
            self.removed,
            self.lost,
            self.crashed,
            self.full,
            self.refused,
            self.unheard
        )
    }
}

#[derive(Debug)]
enum Event {
    /// A caller begins to ask, or asks again.
    Ask(usize),
    /// A caller does not wait any longer.
    GivesUp(usize),
    /// A caller has done its work.
    Done(usize),
    /// A machine goes on.
    Step(u64),
    /// A request reaches the table.
    Arrives {
        machine: u64,
        op: Box<Op>,
        is_heard: bool,
    },
    /// A machine hears an answer.
    Hears {
        machine: u64,
        answer: Box<Result<Answer, TableError>>,
    },
    Happens(Incident),
}

#[derive(Debug)]
enum Kind {
    Take(Box<Take>),
    Hold(Box<Hold>),
    GiveBack(Box<GiveBack>),
}

#[derive(Debug)]
struct Machine {
    caller: usize,
    kind: Kind,
    /// Set when its caller has given up.
    is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Asks(u64),
    Holds(u64),
    Ended,
}

#[derive(Debug)]
struct Process {
    clock_ms: i64,
    frozen_until: i64,
}

struct World<'a> {
    plan: &'a Plan,
    rng: Rng,
    table: MemoryTable,
    judge: Judge,
    now: i64,
    order: u64,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    processes: Vec<Process>,
    limits: Vec<u32>,
    callers: Vec<State>,
    machines: BTreeMap<u64, Machine>,
    /// The machines that have ended, with what their late requests are judged by.
    past: BTreeMap<u64, (String, usize, u32)>,
    silent_until: i64,
    outcome: Outcome,
    keeps_log: bool,
}

/// Plays a plan.
pub fn run(plan: &Plan, keeps_log: bool) -> Outcome {
    let mut world = World {
        plan,
        rng: Rng::of(plan.seed, 0x0091_ace6),
        table: MemoryTable::new(),
        judge: Judge::default(),
        now: 0,
        order: 0,
        queue: BinaryHeap::new(),
        events: BTreeMap::new(),
        processes: plan
            .clocks
            .iter()
            .map(|clock_ms| Process {
                clock_ms: *clock_ms,
                frozen_until: 0,
            })
            .collect(),
        limits: plan.limits.clone(),
        callers: vec![State::Waits; plan.callers.len()],
        machines: BTreeMap::new(),
        past: BTreeMap::new(),
        silent_until: 0,
        outcome: Outcome::default(),
        keeps_log,
    };
    if let Err(violation) = world.play().and_then(|()| world.check_the_end()) {
        let at = world.now;
        world.outcome.violation = Some(format!("at {at} ms: {violation}"));
    }
    world.outcome
}

fn id(entity: usize) -> Option<BucketId> {
    Some(BucketId {
        namespace: NamespaceId::new("AAAAAAAAAAA").ok()?,
        entity: EntityId::new(format!("e{entity}")).ok()?,
        resource: ResourceName::new("r").ok()?,
    })
}

impl World<'_> {
    fn at(&mut self, delay_ms: i64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + delay_ms.max(0), self.order)));
        self.events.insert(self.order, event);
    }

    fn log(&mut self, line: impl FnOnce() -> String) {
        if self.keeps_log {
            let line = format!("{:>8} {}", self.now, line());
            self.outcome.log.push(line);
        }
    }

    /// The time that a process shows.
    fn clock(&self, process: usize) -> EpochMillis {
        EpochMillis(EPOCH_MS + self.now + self.processes[process].clock_ms)
    }

    fn item(&self, entity: usize) -> Option<&Item> {
        self.table.get(&flight_key(&id(entity)?))
    }

    fn play(&mut self) -> Result<(), String> {
        let plan = self.plan;
        for (number, caller) in plan.callers.iter().enumerate() {
            self.at(caller.at_ms, Event::Ask(number));
            if let Some(patience) = caller.patience_ms {
                self.at(caller.at_ms + patience, Event::GivesUp(number));
            }
        }
        for (at, incident) in &plan.incidents {
            self.at(*at, Event::Happens(incident.clone()));
        }
        for _ in 0..MOST_EVENTS {
            let Some(Reverse((at, order))) = self.queue.pop() else {
                return Ok(());
            };
            self.now = at;
            let Some(event) = self.events.remove(&order) else {
                continue;
            };
            if let Some(frozen) = self.frozen(&event) {
                self.at(frozen - self.now, event);
                continue;
            }
            self.outcome.counts.events += 1;
            if self.keeps_log {
                let mut text = String::new();
                // Writing to a text cannot fail.
                let _ = write!(text, "{event:?}");
                self.log(|| text);
            }
            self.happens(event)?;
        }
        let waiting = self
            .callers
            .iter()
            .filter(|state| **state != State::Ended)
            .count();
        Err(format!("the run does not end: {waiting} callers have not ended"))
    }

    /// Until when the process of an event does nothing, if it is frozen.
    fn frozen(&self, event: &Event) -> Option<i64> {
        let caller = match event {
            Event::Ask(caller) | Event::GivesUp(caller) | Event::Done(caller) => *caller,
            Event::Step(machine) | Event::Hears { machine, .. } => self.machines.get(machine)?.caller,
            Event::Arrives { .. } | Event::Happens(_) => return None,
        };
        let until = self.processes[self.plan.callers[caller].process].frozen_until;
        (until > self.now).then_some(until)
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Ask(caller) => self.ask(caller),
            Event::GivesUp(caller) => self.give_up(caller),
            Event::Done(caller) => self.done(caller),
            Event::Step(machine) => return self.step(machine),
            Event::Arrives {
                machine,
                op,
                is_heard,
            } => return self.arrives(machine, &op, is_heard),
            Event::Hears { machine, answer } => return self.hears(machine, *answer),
            Event::Happens(incident) => self.incident(&incident),
        }
        Ok(())
    }

    fn incident(&mut self, incident: &Incident) {
        match *incident {
            Incident::Crash(process) => self.crash(process),
            Incident::Freeze(process, millis) => {
                let until = &mut self.processes[process].frozen_until;
                *until = (*until).max(self.now + millis);
            }
            Incident::Clock(process, clock_ms) => self.processes[process].clock_ms = clock_ms,
            Incident::Limit(entity, limit) => self.limits[entity] = limit,
            Incident::Outage(millis) => self.silent_until = self.silent_until.max(self.now + millis),
        }
    }

    fn crash(&mut self, process: usize) {
        let plan = self.plan;
        let is_here = |caller: usize| plan.callers[caller].process == process;
        for number in 0..self.callers.len() {
            let has_begun = !matches!(self.callers[number], State::Waits | State::Ended);
            if is_here(number) && has_begun {
                self.callers[number] = State::Ended;
                self.outcome.counts.crashed += 1;
            }
        }
        let machines: Vec<u64> = self.machines.keys().copied().collect();
        for machine in machines {
            if is_here(self.machines[&machine].caller) {
                self.end(machine);
            }
        }
    }

    /// Adds a machine, which begins at once.
    fn begin(&mut self, caller: usize, kind: Kind) -> u64 {
        self.order += 1;
        let machine = self.order;
        let is_abandoned = false;
        self.machines.insert(
            machine,
            Machine {
                caller,
                kind,
                is_abandoned,
            },
        );
        self.at(0, Event::Step(machine));
        machine
    }

    /// A machine has ended, and its place with it, unless another machine goes on with it.
    fn end(&mut self, machine: u64) {
        if let Some(Machine { caller, kind, .. }) = self.machines.remove(&machine) {
            let (holder, most) = match &kind {
                Kind::Take(take) => (take.holder(), take.most()),
                Kind::Hold(hold) => (hold.holder(), u32::MAX),
                Kind::GiveBack(back) => (back.holder(), u32::MAX),
            };
            let holder = holder.as_str().to_owned();
            self.judge.lets_go(&holder);
            self.past
                .insert(machine, (holder, self.plan.callers[caller].entity, most));
        }
    }

    fn ask(&mut self, caller: usize) {
        if self.callers[caller] != State::Waits {
            return;
        }
        let asked = &self.plan.callers[caller];
        let Some(id) = id(asked.entity) else { return };
        let most = self.limits[asked.entity];
        let take = Take::new(id, most, asked.ttl_ms, &mut self.rng);
        self.judge
            .asks(take.holder().as_str(), asked.entity, asked.process);
        let machine = self.begin(caller, Kind::Take(Box::new(take)));
        self.callers[caller] = State::Asks(machine);
    }

    fn give_up(&mut self, caller: usize) {
        match self.callers[caller] {
            State::Waits => {}
            State::Asks(machine) => {
                if let Some(machine) = self.machines.get_mut(&machine) {
                    machine.is_abandoned = true;
                    if let Kind::Take(take) = &machine.kind {
                        self.judge.lets_go(take.holder().as_str());
                    }
                }
            }
            State::Holds(_) | State::Ended => return,
        }
        self.callers[caller] = State::Ended;
        self.outcome.counts.refused += 1;
    }

    fn done(&mut self, caller: usize) {
        let State::Holds(machine) = self.callers[caller] else {
            return;
        };
        self.callers[caller] = State::Ended;
        let Some(Machine {
            kind: Kind::Hold(hold),
            ..
        }) = self.machines.get(&machine)
        else {
            return;
        };
        let give_back = hold.give_back();
        self.end(machine);
        self.begin(caller, Kind::GiveBack(Box::new(give_back)));
    }

    fn step(&mut self, number: u64) -> Result<(), String> {
        let Some(machine) = self.machines.get(&number) else {
            return Ok(());
        };
        let caller = machine.caller;
        let now = self.clock(self.plan.callers[caller].process);
        let is_abandoned = machine.is_abandoned;
        let Some(machine) = self.machines.get_mut(&number) else {
            return Ok(());
        };
        let next = match &mut machine.kind {
            Kind::Take(take) if is_abandoned && take.end().is_none() => Next::Ended,
            Kind::Take(take) => take.next(now),
            Kind::Hold(hold) => hold.next(now),
            Kind::GiveBack(back) => back.next(now),
        };
        match next {
            Next::Pause(millis) => self.at(i64::try_from(millis).unwrap_or(i64::MAX), Event::Step(number)),
            Next::Send(op) => self.send(number, *op),
            Next::Ended => return self.ended(number),
        }
        Ok(())
    }

    /// A request leaves.
    fn send(&mut self, machine: u64, op: Op) {
        let network = self.plan.network;
        let on_its_way = self.rng.range(1, 40);
        let lost = |kind, applied| Box::new(Err(TableError::new(kind, applied, "as the plan has it")));
        if self.rng.chance(network.throttled) {
            let answer = lost(FailureKind::Throttled, Applied::No);
            return self.at(on_its_way, Event::Hears { machine, answer });
        }
        let is_late = self.rng.chance(network.late);
        let is_lost = self.rng.chance(network.lost) || self.silent_until > self.now;
        let is_heard = !is_late && !is_lost && !self.rng.chance(network.unheard);
        if !is_heard {
            self.outcome.counts.unheard += 1;
            let answer = lost(FailureKind::Timeout, Applied::Unknown);
            self.at(TIMEOUT_MS, Event::Hears { machine, answer });
        }
        if !is_lost {
            let delay = if is_late {
                self.rng.range(1_000, 40_000)
            } else {
                on_its_way
            };
            let op = Box::new(op);
            self.at(
                delay,
                Event::Arrives {
                    machine,
                    op,
                    is_heard,
                },
            );
        }
    }

    fn arrives(&mut self, number: u64, op: &Op, is_heard: bool) -> Result<(), String> {
        let (holder, entity, most) = match self.machines.get(&number) {
            Some(machine) => {
                let (holder, most) = match &machine.kind {
                    Kind::Take(take) => (take.holder(), take.most()),
                    Kind::Hold(hold) => (hold.holder(), u32::MAX),
                    Kind::GiveBack(back) => (back.holder(), u32::MAX),
                };
                let entity = self.plan.callers[machine.caller].entity;
                (holder.as_str().to_owned(), entity, most)
            }
            // Its machine has ended. It is executed nevertheless.
            None => match self.past.get(&number) {
                Some(past) => past.clone(),
                None => return Err("a request of an unknown machine".to_owned()),
            },
        };
        let answer = self.table.call(op);
        if let (Op::Update(update), Ok(Answer::Applied(_))) = (op, &answer) {
            let count = update.add.iter().find(|(name, _)| name == "n").map(|(_, by)| *by);
            let own = format!("h_{holder}");
            let others = update.remove.iter().filter(|name| **name != own).count();
            self.outcome.counts.removed += others as u64;
            self.outcome.counts.renewed += u64::from(count.is_none());
            let clocks: Vec<i64> = (0..self.processes.len()).map(|p| self.clock(p).0).collect();
            let item = id(entity).and_then(|id| self.table.get(&flight_key(&id)));
            let takes = (most != u32::MAX).then_some(most);
            self.judge
                .executed(update, &holder, takes, item, |process| clocks[process])?;
        }
        if is_heard {
            let back = self.rng.range(1, 40);
            let answer = Box::new(answer);
            self.at(
                back,
                Event::Hears {
                    machine: number,
                    answer,
                },
            );
        }
        Ok(())
    }

    fn hears(&mut self, number: u64, answer: Result<Answer, TableError>) -> Result<(), String> {
        let Some(machine) = self.machines.get(&number) else {
            return Ok(());
        };
        let caller = &self.plan.callers[machine.caller];
        let now = self.clock(caller.process);
        let refused = match &answer {
            Ok(Answer::Refused(item)) => Some(item.clone()),
            _ => None,
        };
        let true_ms = EPOCH_MS + self.now;
        let rng = &mut self.rng;
        let Some(machine) = self.machines.get_mut(&number) else {
            return Ok(());
        };
        match &mut machine.kind {
            Kind::Take(take) => {
                take.answer(answer, now, rng);
                if let (Some(TakeEnd::Full(_)), Some(item)) = (take.end(), refused) {
                    self.judge.refused(take.most(), item.as_ref(), true_ms)?;
                }
            }
            Kind::Hold(hold) => {
                hold.answer(answer, rng);
                if hold.is_held(now) {
                    self.judge.believes(hold.holder().as_str(), hold.until().0)?;
                }
            }
            Kind::GiveBack(back) => back.answer(answer, rng),
        }
        self.step(number)
    }

    fn ended(&mut self, number: u64) -> Result<(), String> {
        let Some(machine) = self.machines.get(&number) else {
            return Ok(());
        };
        let (caller, is_abandoned) = (machine.caller, machine.is_abandoned);
        match &machine.kind {
            Kind::GiveBack(back) => {
                self.outcome.counts.given += u64::from(matches!(back.end(), Some(GiveBackEnd::Given)));
                self.end(number);
            }
            // The work goes on. Its end finds the machine.
            Kind::Hold(_) => self.outcome.counts.lost += 1,
            Kind::Take(take) => {
                let (undo, most) = (take.undo(), take.most());
                let place = match take.end() {
                    Some(TakeEnd::Held(hold)) => Some(hold.clone()),
                    Some(TakeEnd::Record(err)) => return Err(err.to_string()),
                    Some(TakeEnd::Full(_)) => {
                        self.outcome.counts.full += 1;
                        None
                    }
                    Some(TakeEnd::Failed(_)) | None => None,
                };
                match (place, is_abandoned) {
                    (Some(hold), false) => {
                        self.judge.believes(hold.holder().as_str(), hold.until().0)?;
                        self.outcome.counts.held += 1;
                        self.machines.remove(&number);
                        let entity = self.plan.callers[caller].entity;
                        let past = (hold.holder().as_str().to_owned(), entity, most);
                        self.past.insert(number, past);
                        let machine = self.begin(caller, Kind::Hold(Box::new(hold)));
                        self.callers[caller] = State::Holds(machine);
                        self.at(self.plan.callers[caller].work_ms, Event::Done(caller));
                    }
                    (place, _) => {
                        self.end(number);
                        let back = undo.or_else(|| place.map(|hold| hold.give_back()));
                        if let Some(back) = back {
                            self.begin(caller, Kind::GiveBack(Box::new(back)));
                        }
                        if !is_abandoned {
                            self.callers[caller] = State::Waits;
                            let pause = self.rng.range(50, 2_000);
                            self.at(pause, Event::Ask(caller));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Each caller has ended, and all places are free once the longest time to live is over.
    fn check_the_end(&mut self) -> Result<(), String> {
        if let Some(caller) = self.callers.iter().position(|state| *state != State::Ended) {
            return Err(format!("caller {caller} never ends: {:?}", self.callers[caller]));
        }
        self.now += MAX_TTL_MS + 2 * MARGIN_MS;
        let now = EpochMillis(EPOCH_MS + self.now);
        for entity in 0..self.limits.len() {
            let Some(id) = id(entity) else { continue };
            let most = self.limits[entity];
            for place in 0..most {
                let mut take = Take::new(id.clone(), most, MAX_TTL_MS, &mut self.rng);
                while let Next::Send(op) = take.next(now) {
                    let answer = self.table.call(&op);
                    take.answer(answer, now, &mut self.rng);
                }
                if !matches!(take.end(), Some(TakeEnd::Held(_))) {
                    return Err(format!(
                        "place {place} of {most} is not free in the end: {:?}",
                        take.end()
                    ));
                }
            }
            self.judge.check_item(entity, self.item(entity), |_| now.0)?;
        }
        Ok(())
    }
}
