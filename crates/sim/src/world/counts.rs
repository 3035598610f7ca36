//! Corrections of what was counted under a bypass: one write, which is not sent again if it may have been applied, as the library does.

use zae_limiter_core::access::correct_count;
use zae_limiter_core::acquire::Grant;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};
use zae_limiter_core::{LimitName, Millitokens};

use super::{Event, World};
use crate::rng::Rng;
use crate::rows::change::Sums;
use crate::state::job::Machine;

/// How often a correction is sent.
const MAX_TRIES: usize = 6;

/// Microseconds between two tries.
const PAUSE_US: u64 = 100_000;

impl World<'_> {
    /// Begins to correct a count, unless there is nothing to correct.
    pub(crate) fn correct_count(
        &mut self,
        (process, action): (usize, usize),
        grant: &Grant,
        deltas: &[(LimitName, Millitokens)],
        rng: Rng,
        why: &str,
    ) -> Option<usize> {
        if deltas.iter().all(|(_, delta)| *delta == Millitokens::ZERO) {
            return None;
        }
        let named: Vec<_> = deltas
            .iter()
            .map(|(name, delta)| (name.to_smol(), *delta))
            .collect();
        let op = Op::Update(correct_count(grant.id.key(grant.shard), &named));
        let job = self.add_job(process, action, Machine::Count, rng);
        self.check.access.corrections.insert(job);
        self.note(|| format!("{why}, job {job}: corrects the count by {deltas:?}"));
        self.stats.count_corrections += 1;
        self.jobs[job].may_give_back(&grant.id, deltas);
        self.send_count(job, op, 0);
        Some(job)
    }

    fn send_count(&mut self, job: usize, op: Op, after_us: u64) {
        let slot = &mut self.jobs[job];
        let call = slot.calls.len();
        slot.calls.push(Some(op.clone()));
        slot.made_us.push(self.now_us);
        self.schedule(self.now_us + after_us, Event::Send { job, call, op });
    }

    /// A correction hears of its write.
    pub(crate) fn count_heard(&mut self, job: usize, answer: Result<Answer, TableError>) {
        let slot = &mut self.jobs[job];
        let sent = slot.calls.len();
        let happened = match answer {
            // Another may have answered in the table's place.
            Ok(Answer::Applied(Some(item))) if item.is_empty() => None,
            Ok(Answer::Applied(_)) => Some(true),
            Err(err) if err.applied == Applied::Unknown => None,
            Err(err) if err.kind != FailureKind::BadRequest && sent < MAX_TRIES => {
                let Some(Some(op)) = slot.calls.last().cloned() else {
                    return;
                };
                return self.send_count(job, op, PAUSE_US);
            }
            Ok(_) | Err(_) => Some(false),
        };
        slot.machine = Machine::Ended;
        if let Some(happened) = happened {
            let mut known = Sums::new();
            for (id, amount) in slot.low.iter().chain(&slot.high).filter(|_| happened) {
                *known.entry(id.clone()).or_default() += amount;
            }
            (slot.low, slot.high) = (known.clone(), known);
        }
        self.expect(job);
        if let Some((acquire, call)) = self.jobs[job].awaited_by {
            self.given_back(acquire, call);
        }
    }
}
