//! What a change of an item means for its bucket: the accounts of its limits.

use std::collections::BTreeMap;

use super::account::Account;
use super::check::Check;
use super::operations::Effect;
use super::periods::{Step, expires};
use super::rules::eaten;
use super::scheduled::Scheduled;
use crate::rows::change::Source;
use crate::rows::row::{Cell, Row};
use crate::rows::terms::PARTS;
use crate::stats::Stats;
use crate::time::true_ms;

/// A change of one item.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemChange<'a> {
    pub(super) now_us: u64,
    pub(super) source: Source,
    pub(super) bucket: &'a str,
    pub(super) shard: u32,
    pub(super) old: Option<&'a Row>,
    /// What an operator's operation has done.
    pub(super) effects: Option<&'a BTreeMap<(u32, String), Effect>>,
    /// Whether it only counts, under a bypass.
    pub(super) is_count: bool,
}

impl ItemChange<'_> {
    fn effect(&self, limit: &str) -> Option<Effect> {
        let effects = self.effects?;
        effects.get(&(self.shard, limit.to_owned())).copied()
    }
}

/// One limit in it, before and after.
#[derive(Debug, Clone, Copy)]
struct LimitChange<'a> {
    name: &'a str,
    new: &'a Row,
    was: Option<&'a Cell>,
    is: &'a Cell,
    consumed: i128,
}

impl LimitChange<'_> {
    /// Whether the reference bucket, which holds this after the change, allows it: it is overdrawn by no more than the debts of
    /// the shards.
    fn covered(
        &self,
        source: Source,
        level: i128,
        shards: &[Cell],
        account: impl Fn() -> String,
    ) -> Result<(), String> {
        let debt: i128 = shards.iter().map(|cell| (-cell.tk).max(0)).sum();
        if self.consumed <= 0 || !matches!(source, Source::Acquire(_)) || level >= -debt {
            return Ok(());
        }
        Err(format!(
            "limit {} is overdrawn by {} (debts {debt}): {}",
            self.name,
            -level,
            account()
        ))
    }
}

impl Check {
    /// Books what an item's change means for the bucket as a whole.
    pub(super) fn settle(
        &mut self,
        change: ItemChange<'_>,
        new: Option<Row>,
        stats: &mut Stats,
    ) -> Result<(), String> {
        let ItemChange { bucket, shard, .. } = change;
        let Some(new) = new else {
            return self.removed(change, stats);
        };
        for (name, cell) in change.old.iter().flat_map(|old| &old.limits) {
            if !new.limits.contains_key(name) {
                *self.buried.entry((bucket.to_owned(), name.clone())).or_default() += cell.tc;
                self.periods.leaves((bucket.to_owned(), shard, name.clone()));
            }
        }
        let rows = self.rows.entry(bucket.to_owned()).or_default();
        rows.insert(shard, new.clone());
        for (name, cell) in &new.limits {
            let id = (bucket.to_owned(), name.clone());
            let was = change.old.and_then(|old| old.limits.get(name));
            let consumed = cell.tc - was.map_or(0, |was| was.tc);
            if consumed != 0 {
                let sums = match change.source.job() {
                    Some(job) => self.nets.entry(job).or_default(),
                    None => &mut self.others,
                };
                *sums.entry(id.clone()).or_default() += consumed;
            }
            if change.is_count {
                continue;
            }
            let limit = LimitChange {
                name,
                new: &new,
                was,
                is: cell,
                consumed,
            };
            let is_scheduled = |cell: &Cell| cell.terms.is_scheduled() && !cell.has_periods();
            if cell.has_periods() {
                self.accounts.remove(&id);
                self.scheduled.remove(&id);
                self.settle_period(change, limit, stats)?;
                continue;
            }
            self.periods.forget(&(bucket.to_owned(), shard, name.clone()));
            if self.cells(bucket, name).iter().any(is_scheduled) {
                self.accounts.remove(&id);
                self.settle_schedule(change, limit, stats)?;
            } else {
                self.scheduled.remove(&id);
                self.settle_rate(change, limit, stats)?;
            }
        }
        Ok(())
    }

    /// A limit on all shards of a bucket.
    fn cells(&self, bucket: &str, name: &str) -> Vec<Cell> {
        let rows = self.rows.get(bucket).into_iter().flat_map(|rows| rows.values());
        rows.filter_map(|row| row.limits.get(name).copied()).collect()
    }

    /// An item has expired, or an operator has deleted it.
    fn removed(&mut self, change: ItemChange<'_>, stats: &mut Stats) -> Result<(), String> {
        let ItemChange { bucket, shard, .. } = change;
        let now = true_ms(change.now_us);
        let Some(old) = change.old else { return Ok(()) };
        for (name, cell) in &old.limits {
            let id = (bucket.to_owned(), name.clone());
            let earned = cell.earned(old.count, old.rf, now);
            let is_deleted = change.source == Source::Admin;
            let charged = |job: &usize| self.nets.get(job).is_some_and(|sums| sums.contains_key(&id));
            let is_doubtful = self.doubtful.iter().any(charged);
            if cell.has_periods() {
                if !is_deleted {
                    expires(name, old, cell, now)?;
                }
            } else if cell.tk + earned < 0 && !self.may_forget && !is_doubtful && !is_deleted {
                let debt = -cell.tk - earned;
                return Err(format!("{name} expired {debt} in debt"));
            }
            if let (Some(account), true) = (self.accounts.get_mut(&id), cell.tk < 0) {
                account.forgive(-cell.tk);
                stats.debts_expired += u64::from(!is_deleted);
            }
            if let (Some(account), true) = (self.scheduled.get_mut(&id), cell.tk < 0) {
                account.mint(-cell.tk);
            }
            // What comes in the place of a bucket that has expired is as full as the window of that time allows. The one that was
            // kept would only be if its capacity did not rise meanwhile, so that this is allowed to one that was full.
            let is_last = self.rows.get(bucket).is_some_and(|rows| rows.len() == 1);
            let full = cell.share(old.count, now) * PARTS;
            if is_last && cell.refilled(old.count, 0, (old.rf, now)) >= full {
                self.scheduled.remove(&id);
            }
            *self.buried.entry(id).or_default() += cell.tc;
        }
        if let Some(rows) = self.rows.get_mut(bucket) {
            rows.remove(&shard);
        }
        self.fractions
            .retain(|(of, at, _), _| of != bucket || *at != shard);
        self.periods.ends(bucket, Some(shard));
        Ok(())
    }

    fn settle_period(
        &mut self,
        change: ItemChange<'_>,
        limit: LimitChange<'_>,
        stats: &mut Stats,
    ) -> Result<(), String> {
        let moment = self.moment(change.now_us);
        let id = (change.bucket.to_owned(), change.shard, limit.name.to_owned());
        let Some((old, was)) = change.old.zip(limit.was) else {
            let by = (change.source, moment);
            return self.periods.begins(id, limit.is, change.old.is_none(), by);
        };
        let step = Step {
            source: change.source,
            old,
            new: limit.new,
            was,
            is: limit.is,
        };
        match change.effect(limit.name) {
            Some(effect) => {
                self.periods.operated(id, &step, effect, moment);
                Ok(())
            }
            None => self.periods.settle(id, &step, moment, stats),
        }
    }

    fn settle_schedule(
        &mut self,
        change: ItemChange<'_>,
        limit: LimitChange<'_>,
        stats: &mut Stats,
    ) -> Result<(), String> {
        let moment = self.moment(change.now_us);
        let (old, was, consumed) = (change.old, limit.was, limit.consumed);
        let cells = self.cells(change.bucket, limit.name);
        let id = (change.bucket.to_owned(), limit.name.to_owned());
        let held = cells.iter().map(|cell| cell.tk).sum::<i128>() + consumed;
        let has_more = !self.scheduled.contains_key(&id) && self.minted_unseen.remove(&id);
        let account = self
            .scheduled
            .entry(id)
            .or_insert_with(|| Scheduled::new(self.clocks, self.lags, moment.now));
        account.lag(self.lags, moment.now);
        account.advance(&cells, moment.now);
        if has_more {
            account.mint((held - account.level()).max(0));
        }
        let eaten = match (change.source, old.zip(was)) {
            (Source::Credit(_) | Source::Foreign, Some((old, was))) => {
                eaten(old, was, consumed, moment.now + moment.ahead - old.rf, 0)
            }
            _ => 0,
        };
        if old.is_some() && was.is_none() {
            // An item that lacks a limit gains its share of it.
            account.mint(limit.is.tk + limit.is.tc);
        }
        account.pay(consumed - eaten);
        if let Some(effect) = change.effect(limit.name) {
            account.mint(effect.gained + 1);
        }
        let changes = old
            .zip(was)
            .map_or(0, |(old, was)| was.terms.changes(old.rf, limit.new.rf));
        stats.windows_changed += u64::from(changes > 0 && change.source.job().is_some());
        let level = account.level();
        limit.covered(change.source, level, &cells, || format!("{account:?}"))
    }

    fn settle_rate(
        &mut self,
        change: ItemChange<'_>,
        limit: LimitChange<'_>,
        stats: &mut Stats,
    ) -> Result<(), String> {
        let (now_us, old, is, consumed) = (change.now_us, change.old, limit.is, limit.consumed);
        let cells = self.cells(change.bucket, limit.name);
        let account = self
            .accounts
            .entry((change.bucket.to_owned(), limit.name.to_owned()))
            .or_insert_with(|| Account::new(is, self.clocks, self.lags, is.cp, now_us));
        account.lag(self.lags);
        account.advance(now_us);
        if old.is_some_and(|old| limit.new.rf < old.rf) {
            account.dated_back();
        }
        let most = |part: fn(&Cell) -> i128| cells.iter().map(part).max().unwrap_or(0);
        account.change(most(|c| c.cp), most(|c| c.ra), is.rp);
        let eaten = match (change.source, old.zip(limit.was)) {
            // Others spend an idle bucket without refilling it first.
            (Source::Credit(_) | Source::Foreign, Some((old, was))) => {
                let earned_ms = true_ms(now_us) + self.clocks.ahead_ms - old.rf;
                eaten(old, was, consumed, earned_ms, account.slack() / old.count)
            }
            _ => 0,
        };
        if let Some(effect) = change.effect(limit.name) {
            account.mint(effect.gained + 1);
        }
        stats.lazy_bursts += u64::from(account.pay(consumed - eaten));
        let level = account.level();
        limit.covered(change.source, level, &cells, || format!("{account:?}"))
    }
}
