//! Quotas and session limits, each on its own item: what a period admits.
//!
//! - A balance is whole again only by the refill of an acquire that moves `rf` past a reset, or that begins a session after
//!   the end of the last one; and then it is. Other refills cut what is above the amount in force, and nothing else.
//! - What an acquire takes after a reset, or after the end of a session, is not taken from the balance of the period before.
//! - A period admits no more than its amount, less what was charged and with what was given back. What is given back was
//!   taken in the same period, by the same action; and a refund inside its period is not dropped.
//! - By the true time, a bucket admits no more between two resets than the largest amount that was in force: see
//!   [`super::admitted`].
//! - An item does not expire before its period is over.

use std::collections::{BTreeMap, BTreeSet};

use super::admitted::Admitted;
use super::operations::Effect;
use crate::rows::change::Source;
use crate::rows::row::{Cell, Row};
use crate::rows::terms::Regain;
use crate::stats::Stats;

/// How one item changed, of which one limit is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) source: Source,
    pub(crate) old: &'a Row,
    pub(crate) new: &'a Row,
    pub(crate) was: &'a Cell,
    pub(crate) is: &'a Cell,
}

/// True time in milliseconds, and by how much clocks and requests may be off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: i64,
    pub(crate) behind: i64,
    pub(crate) ahead: i64,
}

impl Moment {
    /// The earliest instant by which a write of this moment may have been decided.
    pub(crate) fn earliest(&self) -> i64 {
        self.now - self.behind
    }
}

impl Step<'_> {
    pub(super) fn consumed(&self) -> i128 {
        self.is.tc - self.was.tc
    }

    fn gained(&self) -> i128 {
        self.is.tk - self.was.tk + self.consumed()
    }

    /// Whether it is a write that refills. One by a clock that is behind leaves the instant of the last refill as it is, and may cut
    /// a surplus.
    pub(crate) fn refills(&self) -> bool {
        let is_acquire = matches!(self.source, Source::Acquire(_));
        is_acquire && (self.new.rf != self.old.rf || self.new.vu != self.old.vu || self.gained() < 0)
    }

    /// Whether the balance begins another period.
    fn turns(&self) -> bool {
        match (self.was.terms.regain, self.is.terms.regain) {
            (Regain::Resets(minutes), _) => minutes.begins_in(self.old.rf, self.new.rf),
            (Regain::Session(_, before), Regain::Session(_, after)) => before != after,
            _ => false,
        }
    }

    /// Whether a refill of a client has made the balance whole.
    pub(super) fn is_reset(&self) -> bool {
        let whole = self.is.share(self.new.count, self.new.rf);
        self.refills() && self.turns() && self.was.tk + self.gained() == whole
    }

    /// A balance of the limit as a refill within its period leaves it.
    fn cut(&self, held: i128) -> i128 {
        self.was.part(self.new.rf).map_or(held, |part| held.min(part))
    }
}

/// Whether one write of a client may have done this to a quota or session limit. If `may_unname`, levels can cease to name a
/// limit, which refills then leave as it is.
pub(crate) fn turned(name: &str, step: &Step<'_>, may_unname: bool) -> Result<(), String> {
    let (was, is) = (step.was, step.is);
    let held = was.tk + step.gained();
    if !step.refills() {
        if step.gained() != 0 || was.terms.regain != is.terms.regain {
            return Err(format!("{name} changed from {was:?} to {is:?} without a refill"));
        }
        return Ok(());
    }
    if let (Regain::Session(millis, Some(before)), Regain::Session(_, Some(after))) =
        (was.terms.regain, is.terms.regain)
        && after != before
        && after < before + millis
    {
        let early = before + millis - after;
        return Err(format!(
            "a session of {name} began {early} ms before the end of the last one"
        ));
    }
    // Only a use begins a session. What else is written before leaves the balance as it is, and bars it.
    let is_due = match is.terms.regain {
        Regain::Session(millis, start) => start.is_none_or(|start| start + millis <= step.new.rf),
        _ => false,
    };
    let is_barred = is_due && step.new.vu == Some(0);
    let is_left = (may_unname || is_barred) && step.gained() == 0 && step.consumed() == 0;
    let expected = if step.turns() {
        is.share(step.new.count, step.new.rf)
    } else {
        step.cut(was.tk)
    };
    if step.turns() && is.extra != 0 && !is_left {
        return Err(format!(
            "{} of {name} were added to a period that is over",
            is.extra
        ));
    }
    if held != expected && !is_left {
        return Err(format!(
            "{name} holds {held} instead of {expected} after a refill from {} to {}",
            step.old.rf, step.new.rf
        ));
    }
    Ok(())
}

/// Whether a write of a client may have removed a quota or a session limit that levels do not name any more: only by a refill after
/// which it would be whole, so that one in its place holds no more.
pub(crate) fn removed(
    name: &str,
    source: Source,
    was: &Cell,
    (old, new): (&Row, &Row),
) -> Result<(), String> {
    let is_over = match was.terms.regain {
        Regain::Resets(minutes) => minutes.begins_in(old.rf, new.rf),
        Regain::Session(millis, start) => start.is_none_or(|start| start + millis <= new.rf),
        Regain::Rate | Regain::Never => false,
    };
    if is_over && matches!(source, Source::Acquire(_)) {
        return Ok(());
    }
    Err(format!("limit {name} disappeared: {was:?}"))
}

/// Whether an acquire may have taken from this balance at this moment.
pub(crate) fn spent_in_time(name: &str, step: &Step<'_>, moment: Moment) -> Result<(), String> {
    let (from, earliest) = (step.new.rf, moment.earliest());
    if !step.refills() && step.old.vu.is_some_and(|vu| vu <= earliest) {
        return Err(format!(
            "an acquire spent {name} at {earliest}, valid until {:?}",
            step.old.vu
        ));
    }
    if step.is.terms.changes_in(from, earliest) {
        return Err(format!(
            "an acquire spent {name} of {from} under other parameters at {earliest}"
        ));
    }
    match step.is.terms.regain {
        Regain::Resets(minutes) if minutes.begins_in(from, earliest) => Err(format!(
            "an acquire spent {name} of {from} after a reset, at {earliest}"
        )),
        Regain::Session(millis, Some(start)) if start + millis <= earliest => Err(format!(
            "an acquire spent {name} of the session of {start} after its end, at {earliest}"
        )),
        _ => Ok(()),
    }
}

/// Whether a session that a write of a client begins does so at this moment, as far as clocks agree about it: it lasts for its
/// length from then on. An item that was refilled by a clock which is ahead stays ahead.
fn began_now(step: &Step<'_>, moment: Moment) -> Result<(), String> {
    let Regain::Session(_, Some(start)) = step.is.terms.regain else {
        return Ok(());
    };
    let latest = (moment.now + moment.ahead).max(step.old.rf);
    if step.source.job().is_none() || !step.turns() || (moment.earliest()..=latest).contains(&start) {
        return Ok(());
    }
    Err(format!("a session began at {start}, at {}", moment.now))
}

/// Whether an item may expire at this moment with this of a quota or a session limit.
pub(crate) fn expires(name: &str, row: &Row, cell: &Cell, now: i64) -> Result<(), String> {
    let is_over = match cell.terms.regain {
        Regain::Resets(minutes) => minutes.begins_in(row.rf, now),
        Regain::Session(millis, start) => start.is_none_or(|start| start + millis <= now),
        Regain::Rate | Regain::Never => true,
    };
    if is_over || cell.extra == 0 && cell.tk >= cell.share(row.count, now) {
        return Ok(());
    }
    Err(format!("{name} expired within its period: {cell:?}"))
}

/// The present period of a limit on an item.
#[derive(Debug, Default)]
struct Ledger {
    left: i128,
    /// What each action has taken in it and not given back.
    taken: BTreeMap<usize, i128>,
    /// The actions that have taken of it under the present rule.
    known: BTreeSet<usize>,
}

impl Ledger {
    fn new(left: i128) -> Self {
        Self {
            left,
            ..Self::default()
        }
    }
}

/// The shard of a bucket, and a limit.
type Id = (String, u32, String);

/// The independent account of quotas and session limits.
#[derive(Debug, Default)]
pub(crate) struct Periods {
    ledgers: BTreeMap<Id, Ledger>,
    /// What all shards of a bucket have admitted of a quota, by the true time.
    admitted: BTreeMap<(String, String), Admitted>,
    /// Limits that were removed from items when they were to be whole again.
    removed: BTreeSet<Id>,
    /// Actions that have taken from a bucket that has ended. They may take from its successor as well, if they find it above the
    /// entity once more.
    ended: BTreeSet<(String, usize)>,
    /// The action that each job works for.
    pub(crate) actions: BTreeMap<usize, usize>,
}

impl Periods {
    /// An item begins with this of a limit, before the run.
    pub(crate) fn is_there(&mut self, id: Id, cell: &Cell) {
        self.ledgers.insert(id, Ledger::new(cell.tk));
    }

    /// An item begins with this of a limit; a new one, or one that was there without it.
    pub(crate) fn begins(
        &mut self,
        id: Id,
        cell: &Cell,
        is_new: bool,
        (source, moment): (Source, Moment),
    ) -> Result<(), String> {
        let mut ledger = Ledger::new(cell.tk);
        let admitted = self.admitted.entry((id.0.clone(), id.2.clone())).or_default();
        let action = source.job().and_then(|job| self.actions.get(&job)).copied();
        if let Some(action) = action {
            ledger.taken.insert(action, cell.tc);
            ledger.known.insert(action);
        }
        let judged = admitted.begins(cell, action, moment);
        if !is_new && !self.removed.remove(&id) {
            // It may have been there before, in the same period.
            admitted.forget();
        }
        let name = &id.2;
        let judged = judged.map_err(|err| format!("of {name}, {err}"));
        self.ledgers.insert(id, ledger);
        judged
    }

    /// A bucket or one of its shards has ended.
    pub(crate) fn ends(&mut self, bucket: &str, shard: Option<u32>) {
        let ended = &mut self.ended;
        self.ledgers.retain(|(of, at, _), ledger| {
            let stays = of != bucket || shard.is_some_and(|shard| *at != shard);
            if !stays {
                ended.extend(ledger.taken.keys().map(|action| (bucket.to_owned(), *action)));
            }
            stays
        });
        if shard.is_none() {
            self.admitted.retain(|(of, _), _| of != bucket);
        }
    }

    /// A limit was removed from an item when it was to be whole again.
    pub(crate) fn leaves(&mut self, id: Id) {
        self.ledgers.remove(&id);
        self.removed.insert(id);
    }

    /// A limit has no periods any more.
    pub(crate) fn forget(&mut self, id: &Id) {
        self.ledgers.remove(id);
        self.admitted.remove(&(id.0.clone(), id.2.clone()));
    }

    /// Another client, whose clock is off, has reset a limit.
    pub(crate) fn minted(&mut self, bucket: &str, limit: &str) {
        for ((of, _, name), ledger) in &mut self.ledgers {
            if of == bucket && name == limit {
                ledger.known.clear();
            }
        }
        if let Some(admitted) = self.admitted.get_mut(&(bucket.to_owned(), limit.to_owned())) {
            admitted.forget();
        }
    }

    /// Whether a refund of this action has its tokens in the present period of an item, and not in one of an item before.
    pub(crate) fn is_due(&self, job: usize, id: &Id, amount: i128) -> bool {
        let is_of_this_life = |action: &&usize| !self.ended.contains(&(id.0.clone(), **action));
        let action = self.actions.get(&job).filter(is_of_this_life);
        let taken = self
            .ledgers
            .get(id)
            .zip(action)
            .and_then(|(ledger, action)| ledger.taken.get(action));
        taken.is_some_and(|taken| *taken >= amount)
    }

    /// Books what an operator has done to a limit.
    pub(crate) fn operated(&mut self, id: Id, step: &Step<'_>, effect: Effect, moment: Moment) {
        let admitted = self.admitted.entry((id.0.clone(), id.2.clone())).or_default();
        admitted.operated(step, effect.gained, moment);
        let ledger = self.ledgers.entry(id).or_default();
        ledger.left = step.is.tk;
        if effect.is_other_period {
            ledger.taken.clear();
        }
        if step.new.rf < step.old.rf {
            ledger.known.clear();
            admitted.forget();
        }
    }

    /// Books a change of an item.
    pub(crate) fn settle(
        &mut self,
        id: Id,
        step: &Step<'_>,
        moment: Moment,
        stats: &mut Stats,
    ) -> Result<(), String> {
        let name = id.2.clone();
        let (was, is) = (step.was, step.is);
        let action = step.source.job().and_then(|job| self.actions.get(&job));
        let action = action.copied().unwrap_or(usize::MAX);
        let admitted = self.admitted.entry((id.0.clone(), id.2.clone())).or_default();
        let ledger = self
            .ledgers
            .entry(id)
            .or_insert_with(|| Ledger::new(is.tk + step.consumed()));
        let consumed = step.consumed();
        if !was.terms.is_same_rule(&is.terms) {
            // What the balance of one rule means under another is not judged.
            *ledger = Ledger::new(is.tk);
            admitted.forget();
            return Ok(());
        }
        if step.new.rf < step.old.rf {
            // What a clock has reset that was far ahead will be reset once more.
            ledger.known.clear();
            admitted.forget();
        }
        began_now(step, moment).map_err(|err| format!("{name}: {err}"))?;
        admitted
            .book(action, step, moment)
            .map_err(|err| format!("of {name}, {err}"))?;
        if step.source.job().is_none() {
            // A foreign client's reset can lower the balance, if a schedule gives the new period less.
            if step.gained() > 0 || step.turns() {
                ledger.left = is.tk;
                ledger.taken.clear();
            } else {
                ledger.left -= consumed;
            }
            return Ok(());
        }
        if step.refills() && step.turns() {
            // One that is left as it is belongs to no period any more.
            ledger.taken.clear();
            if step.is_reset() {
                ledger.left = is.share(step.new.count, step.new.rf);
                stats.resets += u64::from(matches!(is.terms.regain, Regain::Resets(_)));
                stats.sessions += u64::from(matches!(is.terms.regain, Regain::Session(..)));
            }
        } else if step.refills() {
            ledger.left = step.cut(ledger.left);
        }
        ledger.left -= consumed;
        if consumed < 0 {
            let taken = ledger.taken.entry(action).or_default();
            *taken += consumed;
            stats.period_refunds += 1;
            if *taken < 0 && ledger.known.contains(&action) {
                return Err(format!(
                    "{} of {name} were given back beyond what action {action} took in the period",
                    -*taken
                ));
            }
        }
        if matches!(step.source, Source::Acquire(_)) && consumed > 0 {
            *ledger.taken.entry(action).or_default() += consumed;
            ledger.known.insert(action);
            if ledger.left < 0 {
                return Err(format!("a period of {name} admitted {} too much", -ledger.left));
            }
        }
        Ok(())
    }
}
