//! What the master knows of its workers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::WorkerId;
use crate::report::Report;

/// How far a worker is with a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It does not take part.
    None,
    /// It opens the namespace.
    Starting,
    /// It has users, or can have some.
    Ready,
    /// Its users end.
    Ending,
}

#[derive(Debug)]
struct Member {
    name: String,
    part: Part,
    is_leaving: bool,
    users: usize,
    /// When its first users were assigned, since the start of the test.
    began: Option<Duration>,
}

/// A worker whose last measurements are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// The workers that are connected, and what those of a test have measured together.
#[derive(Debug)]
pub struct Roster {
    members: BTreeMap<WorkerId, Member>,
    report: Report,
    /// How many workers were ready for the test.
    took_part: usize,
    lost: Vec<Lost>,
    /// Why workers could not take part.
    failures: Vec<String>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            members: BTreeMap::new(),
            report: Report {
                interrupted: false,
                ..Report::of_nothing()
            },
            took_part: 0,
            lost: Vec::new(),
            failures: Vec::new(),
        }
    }
}

impl Roster {
    /// A worker has connected.
    pub fn join(&mut self, worker: WorkerId, name: String) {
        let member = Member {
            name,
            part: Part::None,
            is_leaving: false,
            users: 0,
            began: None,
        };
        self.members.insert(worker, member);
    }

    /// A connection has ended. Returns whether measurements are missing.
    pub fn gone(&mut self, worker: WorkerId, why: String) -> bool {
        let Some(member) = self.members.remove(&worker) else {
            return false;
        };
        let is_lost = matches!(member.part, Part::Ready | Part::Ending);
        if is_lost {
            self.lost.push(Lost {
                name: member.name,
                why,
            });
        }
        is_lost
    }

    /// A test begins: nothing is measured.
    pub fn begin(&mut self) {
        let members = std::mem::take(&mut self.members);
        *self = Self {
            members,
            ..Self::default()
        };
        for member in self.members.values_mut() {
            (member.part, member.users, member.began) = (Part::None, 0, None);
        }
    }

    /// The test was described to a worker.
    pub fn starting(&mut self, worker: WorkerId) {
        self.set(worker, Part::Starting);
    }

    /// A worker can have users. Returns whether it was expected.
    pub fn ready(&mut self, worker: WorkerId) -> bool {
        let was_starting = self.part(worker) == Some(Part::Starting);
        if was_starting {
            self.set(worker, Part::Ready);
            self.took_part += 1;
        }
        was_starting
    }

    /// A worker cannot take part.
    pub fn failed(&mut self, worker: WorkerId, why: String) {
        self.set(worker, Part::None);
        self.failures.push(why);
    }

    /// A worker is about to end its life. Returns whether it takes part in the test.
    pub fn leaving(&mut self, worker: WorkerId) -> bool {
        let Some(member) = self.members.get_mut(&worker) else {
            return false;
        };
        member.is_leaving = true;
        matches!(member.part, Part::Ready | Part::Ending)
    }

    /// The first users of a worker were assigned, so long after the start of the test.
    pub fn assigned(&mut self, worker: WorkerId, at: Duration) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.began.get_or_insert(at);
        }
    }

    /// The users of a worker are to end.
    pub fn ending(&mut self, worker: WorkerId) {
        self.set(worker, Part::Ending);
    }

    /// A worker has sent everything. Returns whether it is leaving.
    pub fn done(&mut self, worker: WorkerId) -> bool {
        let member = self.members.get_mut(&worker);
        member.is_some_and(|member| {
            (member.part, member.users) = (Part::None, 0);
            member.is_leaving
        })
    }

    /// Adds what a worker has measured since the last time.
    pub fn measured(&mut self, worker: WorkerId, users: usize, mut part: Report) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        if !matches!(member.part, Part::Ready | Part::Ending) {
            return;
        }
        member.users = users;
        part.elapsed = part.elapsed.saturating_add(member.began.unwrap_or_default());
        part.users = 0;
        if self.report.stats.series().next().is_none() && self.report.cpu.is_none() {
            self.report.cpu = Some(Duration::ZERO);
        }
        self.report.merge(&part);
    }

    /// The largest number of users at a time.
    pub fn most_users(&mut self, users: usize) {
        self.report.users = users;
    }

    /// What all workers have measured so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The users that workers have reported.
    pub fn users(&self) -> usize {
        self.members.values().map(|member| member.users).sum()
    }

    /// How many workers are connected and do not leave.
    pub fn connected(&self) -> usize {
        self.members.values().filter(|member| !member.is_leaving).count()
    }

    /// The workers that are connected.
    pub fn all(&self) -> Vec<WorkerId> {
        self.members.keys().copied().collect()
    }

    /// Whether a worker is about to end its life.
    pub fn is_leaving(&self, worker: WorkerId) -> bool {
        self.members.get(&worker).is_some_and(|member| member.is_leaving)
    }

    /// The workers that open the namespace.
    pub fn starting_workers(&self) -> Vec<WorkerId> {
        self.with(Part::Starting)
    }

    /// The workers that have users, or can have some.
    pub fn ready_workers(&self) -> Vec<WorkerId> {
        self.with(Part::Ready)
    }

    /// The workers whose users end.
    pub fn late_workers(&self) -> Vec<WorkerId> {
        self.with(Part::Ending)
    }

    /// How many workers were ready for the test, those included that were lost.
    pub fn took_part(&self) -> usize {
        self.took_part
    }

    /// The workers that were lost.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Why workers could not take part.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    fn part(&self, worker: WorkerId) -> Option<Part> {
        self.members.get(&worker).map(|member| member.part)
    }

    fn set(&mut self, worker: WorkerId, part: Part) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.part = part;
        }
    }

    fn with(&self, part: Part) -> Vec<WorkerId> {
        let has = |(id, member): (&WorkerId, &Member)| (member.part == part).then_some(*id);
        self.members.iter().filter_map(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Event;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn part(elapsed: Duration, calls: u64) -> Report {
        let mut report = Report {
            interrupted: false,
            elapsed,
            cpu: Some(secs(1)),
            user_time: secs(calls),
            ..Report::of_nothing()
        };
        for _ in 0..calls {
            report.stats.add(Event::Acquire, "api", secs(1), None);
        }
        report
    }

    #[test]
    fn parts_are_added_and_a_lost_worker_is_named() {
        let mut roster = Roster::default();
        for (id, name) in [(1, "one"), (2, "two"), (3, "three")] {
            roster.join(id, name.to_owned());
        }
        roster.begin();
        for id in [1, 2, 3] {
            roster.starting(id);
        }
        assert_eq!(
            (roster.starting_workers().len(), roster.ready_workers().len()),
            (3, 0)
        );
        assert!(roster.ready(1) && roster.ready(2));
        assert!(!roster.ready(2), "it was ready");
        roster.failed(3, "no table".to_owned());
        assert!(!roster.gone(3, "closed".to_owned()), "it had no part");
        roster.assigned(1, secs(0));
        roster.assigned(2, secs(5));
        roster.measured(1, 4, part(secs(2), 3));
        roster.measured(2, 2, part(secs(1), 2));
        roster.measured(1, 5, part(secs(3), 1));
        roster.measured(9, 5, part(secs(99), 1));
        assert_eq!(roster.users(), 7);
        let report = roster.report();
        assert_eq!((report.acquires(), report.elapsed), (6, secs(6)));
        assert_eq!((report.cpu, report.user_time), (Some(secs(3)), secs(6)));
        roster.ending(1);
        assert!(roster.gone(2, "killed".to_owned()));
        assert!(!roster.done(1));
        assert!(!roster.gone(1, "closed".to_owned()), "it has sent everything");
        assert_eq!((roster.took_part(), roster.connected()), (2, 0));
        let (name, why) = ("two".to_owned(), "killed".to_owned());
        assert_eq!(roster.lost(), [Lost { name, why }]);
        assert_eq!(roster.failures(), ["no table"]);
    }

    #[test]
    fn one_that_leaves_is_not_counted_and_not_lost() {
        let mut roster = Roster::default();
        roster.join(1, "one".to_owned());
        assert!(!roster.leaving(1), "there is no test");
        roster.join(2, "two".to_owned());
        roster.begin();
        roster.starting(2);
        roster.ready(2);
        assert!(roster.leaving(2));
        assert_eq!((roster.connected(), roster.all().len()), (0, 2));
        roster.ending(2);
        assert_eq!(roster.late_workers(), [2]);
        assert!(roster.done(2));
        assert!(!roster.gone(2, "closed".to_owned()));
        roster.begin();
        assert_eq!((roster.took_part(), roster.lost().len()), (0, 0));
    }
}
