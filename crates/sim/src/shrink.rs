//! The shortest plan that still fails, found by leaving actions out.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) in its plainest form: leave out runs of actions, long ones
//! first, as long as what remains fails in any way. Every actor's luck hangs on its own number, so what is
//! left in behaves as before. Then faults are switched off one kind at a time.

use crate::plan::{Action, Plan};
use crate::world::Outcome;

/// How many runs a search may take.
const MAX_RUNS: usize = 3000;

/// Shrinks a plan that fails. Returns the shortest that was found and how it fails.
pub fn shrink(plan: &Plan) -> (Plan, Outcome) {
    let mut best = plan.clone();
    let mut outcome = crate::run(&best);
    let mut runs = 0;
    let mut attempt = |candidate: Plan, best: &mut Plan, outcome: &mut Outcome| {
        runs += 1;
        if runs > MAX_RUNS {
            return false;
        }
        let tried = crate::run(&candidate);
        let fails = tried.violation.is_some();
        if fails {
            (*best, *outcome) = (candidate, tried);
        }
        fails
    };
    let mut chunk = best.actions.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < best.actions.len() {
            let mut candidate = best.clone();
            let end = (at + chunk).min(candidate.actions.len());
            for (_, action) in &mut candidate.actions[at..end] {
                *action = Action::Nothing;
            }
            if best.actions[at..end]
                .iter()
                .all(|(_, action)| *action == Action::Nothing)
                || !attempt(candidate, &mut best, &mut outcome)
            {
                at = end;
            }
        }
        chunk /= 2;
    }
    for outage in (0..best.outages.len()).rev() {
        let mut candidate = best.clone();
        candidate.outages.remove(outage);
        attempt(candidate, &mut best, &mut outcome);
    }
    for fault in 0..8 {
        let mut candidate = best.clone();
        let faults = &mut candidate.faults;
        let rates = [
            &mut faults.throttled,
            &mut faults.unreachable,
            &mut faults.lost_before,
            &mut faults.lost_after,
            &mut faults.applied_late,
            &mut faults.internal,
            &mut faults.conflict,
            &mut faults.slow,
        ];
        if let Some(rate) = rates.into_iter().nth(fault) {
            *rate = 0;
        }
        attempt(candidate, &mut best, &mut outcome);
    }
    (best, outcome)
}
