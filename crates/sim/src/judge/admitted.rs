//! What all shards of a bucket admit of a quota between two resets, by the true time. This does not look at balances.
//!
//! **The bound.** Between two resets, no more is admitted than the largest amount that was in force, with what was given back. A
//! request that is decided by a clock which is off by `X` may belong to the period on the other side of a reset, if it comes within
//! `X` of it. So what is admitted from `A` before a reset until `L + B` after it is not counted, with `A`, `L` and `B` as in
//! [`super::account`]. It may be given back later, which then makes room.
//!
//! After a change of the rule, or of the clocks of others, the account begins with the first reset of the only shard, or of all at the
//! next time of reset.

use std::collections::BTreeMap;

use super::periods::{Moment, Step};
use crate::rows::change::Source;
use crate::rows::row::Cell;
use crate::rows::terms::{Minutes, Regain};

/// The present period of a quota.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The times of reset, if all shards have the same.
    minutes: Option<Minutes>,
    /// The last of them, or one that a clock which is ahead has seen.
    edge: Option<i64>,
    /// Whether nothing is known of the period.
    is_unknown: bool,
    sum: i128,
    /// The largest amount that was in force.
    most: i128,
    /// What each action has taken, and not given back.
    taken: BTreeMap<usize, i128>,
    /// The same, of what was taken close to the reset.
    uncounted: BTreeMap<usize, i128>,
    /// What was given back of the latter.
    back: i128,
    /// What operators have given.
    extra: i128,
}

impl Admitted {
    /// Nothing is known of the present period.
    pub(super) fn forget(&mut self) {
        self.is_unknown = true;
    }

    /// An item that begins with a limit has this of it: after the acquire of this action, if one has made it, and with what was added
    /// to it, in the period that it begins in.
    pub(super) fn begins(
        &mut self,
        cell: &Cell,
        action: Option<usize>,
        moment: Moment,
    ) -> Result<(), String> {
        let is_quota = self.meets(cell, moment);
        let judged = match action.filter(|_| is_quota) {
            Some(action) => self.takes(action, cell.tc, moment),
            None => Ok(()),
        };
        self.grants(cell.extra);
        judged
    }

    /// Books a change of an item.
    pub(super) fn book(&mut self, action: usize, step: &Step<'_>, moment: Moment) -> Result<(), String> {
        if !self.meets(step.was, moment) || !self.meets(step.is, moment) {
            return Ok(());
        }
        if self.is_unknown && step.new.count == 1 && step.is_reset() {
            *self = Self {
                edge: self.edge,
                minutes: self.minutes,
                most: self.most,
                ..Self::default()
            };
        }
        let consumed = step.consumed();
        if consumed < 0 {
            self.gives(action, -consumed);
        } else if matches!(step.source, Source::Acquire(_) | Source::Foreign) {
            return self.takes(action, consumed, moment);
        }
        Ok(())
    }

    /// An operator has given this much.
    fn grants(&mut self, amount: i128) {
        self.extra += amount.max(0);
    }

    /// An operator has given this much of a quota.
    pub(super) fn operated(&mut self, step: &Step<'_>, amount: i128, moment: Moment) {
        if self.meets(step.was, moment) {
            self.grants(amount);
        }
    }

    /// Whether a time lies so close to the reset that clocks may differ about it.
    fn is_close(&self, moment: Moment) -> bool {
        self.edge.is_none_or(|edge| moment.now <= edge + moment.behind)
    }

    /// Looks at the rule of an item. Returns whether it is that of a quota.
    fn meets(&mut self, cell: &Cell, moment: Moment) -> bool {
        let Regain::Resets(minutes) = cell.terms.regain else {
            self.forget();
            return false;
        };
        let known = self.minutes.replace(minutes);
        let is_changed = known.is_some_and(|known| known != minutes);
        self.is_unknown |= is_changed;
        let latest = moment.now + moment.ahead;
        let edge = minutes.last_edge(latest);
        if self.edge < edge {
            *self = Self {
                edge,
                minutes: Some(minutes),
                // Its first time of reset may have been before it was looked at, or before it became one.
                is_unknown: is_changed || self.is_unknown && self.edge.is_none(),
                ..Self::default()
            };
        }
        let since = self.edge.unwrap_or(latest).min(latest);
        let (most, _) = cell.terms.most(cell.base(), since, latest);
        self.most = self.most.max(most);
        true
    }

    fn takes(&mut self, action: usize, amount: i128, moment: Moment) -> Result<(), String> {
        if self.is_close(moment) {
            *self.uncounted.entry(action).or_default() += amount;
            return Ok(());
        }
        *self.taken.entry(action).or_default() += amount;
        self.sum += amount;
        if self.sum > self.most + self.back + self.extra && !self.is_unknown {
            return Err(format!(
                "{} were admitted since the reset of {:?}, of at most {}",
                self.sum, self.edge, self.most
            ));
        }
        Ok(())
    }

    fn gives(&mut self, action: usize, amount: i128) {
        let mut left = amount;
        let mut back_of = |taken: &mut BTreeMap<usize, i128>| {
            let taken = taken.entry(action).or_default();
            let back = left.min(*taken).max(0);
            *taken -= back;
            left -= back;
            back
        };
        self.sum -= back_of(&mut self.taken);
        self.back += back_of(&mut self.uncounted);
    }
}
