//! What must hold after every write that the table applied.
//!
//! 1. No bucket admits more than its reference allows ([`super::account`]).
//! 2. Every millitoken is explained: on each item, balance plus net consumption changes only by time earned
//!    under the shard's share, by cutting a surplus, or by moving to a shard that is being created; and that
//!    one starts with what was moved and what its part has earned since it was earned last. No surplus is cut
//!    from a shard while one that descends from it has never existed: splitting loses nothing.
//! 3. A spender never leaves a balance below zero, spends nothing on a disabled item, and spends nothing past a
//!    forced pass.
//! 4. A credit's mark is written once. No bucket expires in debt, unless a process crashed, does not know the outcome of
//!    a charge, or repeats a request of it that has failed.
//! 5. `rf` and `shard_count` never fall, `rf` is never ahead of every clock, parameters are changed only
//!    by clients that may do so, and there is never a balance without parameters.
//! 6. No two shards earn the same part of the rate, and a new shard earns nothing that a sibling has earned.
//! 7. What each acquire and each credit did to the table is what its end says ([`Check::expect`]).

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::bucket::MAX_AHEAD_MS;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Item, Key};

use super::access::{Access, is_count};
use super::account::{Account, Lags};
use super::operated::{raised, read_changes};
use super::operations::Operations;
use super::periods::{Moment, Periods, Step, removed, spent_in_time, turned};
use super::rules::{
    Fraction, count, descends, explained, explained_by_schedule, inherited, is_dated, item_changed, narrowed,
    seeded, spent,
};
use super::scheduled::Scheduled;
use super::settle::ItemChange;
use crate::plan::Clocks;
use crate::rows::change::{Change, Source, Sums};
use crate::rows::row::{Cell, Row, bucket_of};
use crate::stats::Stats;
use crate::time::{EPOCH_MS, true_ms};

/// The independent account of a run.
#[derive(Debug, Default)]
pub struct Check {
    pub(super) clocks: Clocks,
    pub(super) lags: Lags,
    pub(super) rows: BTreeMap<String, BTreeMap<u32, Row>>,
    pub(super) accounts: BTreeMap<(String, String), Account>,
    pub(super) scheduled: BTreeMap<(String, String), Scheduled>,
    /// Limits with a schedule that another client has added tokens to before they have an account.
    pub(super) minted_unseen: BTreeSet<(String, String)>,
    /// Quotas and session limits.
    pub(crate) periods: Periods,
    /// What operators say about access, and what requests make of it.
    pub(crate) access: Access,
    /// What operators do to buckets.
    pub(crate) operations: Operations,
    /// Whether levels can cease to name a limit.
    pub(crate) may_unname: bool,
    pub(super) nets: BTreeMap<usize, Sums>,
    pub(super) buried: Sums,
    pub(super) others: Sums,
    receipts: BTreeMap<String, usize>,
    /// Whether processes crash, so that the expiry of a bucket in debt may not be moved.
    pub(super) may_forget: bool,
    /// Charges and refunds of which a request has failed, and that have not ended with a known outcome since. The expiry of their
    /// debts may not be moved.
    pub(super) doubtful: BTreeSet<usize>,
    /// Jobs whose call brought limits of its own.
    own_limits: BTreeSet<usize>,
    /// Parts of a millitoken that each limit of each shard may still claim.
    pub(super) fractions: BTreeMap<(String, u32, String), Fraction>,
    /// The shards of each bucket that have ever existed.
    pub(super) born: BTreeMap<String, BTreeSet<u32>>,
}

impl Check {
    /// Starts from a table as it is.
    ///
    /// # Errors
    /// An item cannot be read.
    pub fn new<'a>(clocks: Clocks, items: impl Iterator<Item = (&'a Key, &'a Item)>) -> Result<Self, String> {
        let mut check = Self {
            clocks,
            ..Self::default()
        };
        let items: Vec<_> = items
            .filter_map(|(key, item)| Some((bucket_of(key)?, item)))
            .collect();
        for ((bucket, shard), item) in &items {
            let (bucket, shard) = (*bucket, *shard);
            let row = Row::read(item)?;
            // What is due for shards that do not exist yet is counted with those that do.
            let parts = items.iter().filter(|((of, _), _)| *of == bucket).count() as i128;
            check.born.entry(bucket.to_owned()).or_default().insert(shard);
            for (name, cell) in &row.limits {
                let id = (bucket.to_owned(), name.clone());
                *check.others.entry(id.clone()).or_default() += cell.tc;
                if cell.has_periods() {
                    check.periods.is_there((id.0, shard, id.1), cell);
                    continue;
                }
                if cell.terms.is_scheduled() {
                    let account = Scheduled::new(clocks, Lags::default(), EPOCH_MS);
                    check.scheduled.insert(id, account);
                    continue;
                }
                let due = cell.earned(parts, row.rf, EPOCH_MS);
                let spendable = cell.tk.max(0) + (due + cell.tk.min(0)).min(cell.cp / parts);
                match check.accounts.get_mut(&id) {
                    Some(account) => drop(account.pay(-spendable)),
                    None => drop(
                        check
                            .accounts
                            .insert(id, Account::new(cell, clocks, Lags::default(), spendable, 0)),
                    ),
                }
            }
            check
                .rows
                .entry(bucket.to_owned())
                .or_default()
                .insert(shard, row);
        }
        Ok(check)
    }

    /// A client heard an answer after this many milliseconds.
    pub fn answered_after(&mut self, millis: i64) {
        self.lags.answer_ms = self.lags.answer_ms.max(millis);
    }

    /// A write arrives at the table this many milliseconds after the clock was read for it.
    pub fn arrives_after(&mut self, millis: i64) {
        self.lags.arrival_ms = self.lags.arrival_ms.max(millis);
    }

    /// A process crashes in the course of the run: what it had still to do is not done.
    pub fn expects_crashes(&mut self) {
        self.may_forget = true;
    }

    /// A request of this charge or refund has failed.
    pub fn doubts(&mut self, job: usize) {
        self.doubtful.insert(job);
    }

    /// It has ended, and the client knows how.
    pub fn knows(&mut self, job: usize) {
        self.doubtful.remove(&job);
    }

    /// This acquire may change the parameters of a bucket.
    pub fn brings_limits(&mut self, job: usize) {
        self.own_limits.insert(job);
    }

    /// A client with a clock that is ahead adds what has not been earned yet.
    pub fn minted(&mut self, bucket: &BucketId, limit: &str, tokens: i128, now_us: u64) {
        let pk = bucket.key(0).pk;
        let Some((pk, _)) = pk.rsplit_once('#') else {
            return;
        };
        if let Some(account) = self.accounts.get_mut(&(pk.to_owned(), limit.to_owned())) {
            account.advance(now_us);
            account.mint(tokens);
        }
        let id = (pk.to_owned(), limit.to_owned());
        match self.scheduled.get_mut(&id) {
            Some(account) => account.mint(tokens),
            None => drop(self.minted_unseen.insert(id)),
        }
        if tokens == 0 {
            self.periods.minted(pk, limit);
        }
    }

    /// The action that a write is made for.
    pub(super) fn action(&self, source: Source) -> usize {
        let action = source.job().and_then(|job| self.periods.actions.get(&job));
        action.copied().unwrap_or(usize::MAX)
    }

    pub(super) fn moment(&self, now_us: u64) -> Moment {
        Moment {
            now: true_ms(now_us),
            behind: self.lags.arrival_ms + self.clocks.behind_ms,
            ahead: self.clocks.ahead_ms,
        }
    }

    /// The first shard of a bucket was deleted by an operator: its life has ended. What is created from now on belongs
    /// to the next one, to which the limit applies anew.
    fn ends_life(&mut self, bucket: &str) -> Result<(), String> {
        let left = self.rows.get(bucket).and_then(|rows| rows.keys().next());
        if let Some(shard) = left {
            return Err(format!("{bucket} was deleted, and shard {shard} was left"));
        }
        self.accounts.retain(|(of, _), _| of != bucket);
        self.scheduled.retain(|(of, _), _| of != bucket);
        self.periods.ends(bucket, None);
        self.born.remove(bucket);
        Ok(())
    }

    /// Judges one write, which may have changed several items at once.
    ///
    /// # Errors
    /// Says what was violated.
    pub fn wrote(
        &mut self,
        now_us: u64,
        source: Source,
        changes: &[Change],
        stats: &mut Stats,
    ) -> Result<(), String> {
        let read = read_changes(changes)?;
        self.stamps(now_us, source, &read)?;
        if let Source::Operator(plan) = source {
            return self.operated(now_us, plan, read, stats);
        }
        let creates = read.iter().any(|(_, shard, old, _)| old.is_none() && *shard > 0);
        let mut moved: BTreeMap<String, i128> = BTreeMap::new();
        let births = |(bucket, shard, old, new): &(String, u32, Option<Row>, Option<Row>)| {
            let new = new.as_ref().filter(|_| old.is_none() && *shard > 0)?;
            Some((bucket.clone(), *shard, new.rf))
        };
        let newborn: Vec<_> = read.iter().filter_map(births).collect();
        let born_at = newborn.iter().map(|(_, _, rf)| *rf).max().unwrap_or(i64::MIN);
        let rows = read.iter().filter_map(|(_, _, old, _)| old.as_ref());
        let narrowed = narrowed(rows, born_at);
        let ends = |(bucket, shard, _, new): &(String, u32, Option<Row>, Option<Row>)| {
            (source == Source::Admin && *shard == 0 && new.is_none()).then(|| bucket.clone())
        };
        let ended: Vec<String> = read.iter().filter_map(ends).collect();
        let raised = raised(&read);
        let mut earned: BTreeMap<String, i128> = BTreeMap::new();
        for (bucket, shard, old, new) in &read {
            if let (None, Some(new)) = (old, new) {
                inherited(*shard, new, &raised, &mut earned);
                self.born.entry(bucket.clone()).or_default().insert(*shard);
            }
        }
        for (bucket, shard, old, new) in read {
            let at = format!("{bucket}#{shard}");
            let told = |err: String| format!("{at}: {err}");
            let is_count = source.job().is_some()
                && old
                    .as_ref()
                    .zip(new.as_ref())
                    .is_some_and(|(old, new)| is_count(old, new));
            match (&old, &new) {
                (Some(old), Some(new)) if is_count => {
                    self.counts(now_us, source, (&bucket, shard), (old, new))
                        .map_err(told)?;
                    stats.counted += u64::from(matches!(source, Source::Acquire(_)));
                }
                (Some(old), Some(new)) => {
                    self.changed(
                        now_us,
                        source,
                        (&bucket, shard),
                        old,
                        new,
                        creates.then_some(&mut moved),
                    )
                    .map_err(told)?;
                    count(old, new, source, stats);
                    let doubled = shard == 0 && new.count > old.count && !creates;
                    stats.doublings += u64::from(doubled && source.job().is_some());
                }
                (None, Some(new)) => {
                    self.creates(source, (&bucket, shard), new, &mut moved)
                        .map_err(told)?;
                    stats.created += u64::from(shard == 0);
                    stats.shards_created += u64::from(shard > 0);
                    let given = new.limits.values().any(|cell| cell.tk + cell.tc > 0);
                    stats.shards_with_tokens += u64::from(shard > 0 && given);
                }
                _ => {}
            }
            if let Some(new) = &new {
                stats.max_shards = stats.max_shards.max(new.count as u64);
                let is_dated = is_dated(old.as_ref(), new) && source.job().is_some();
                if is_dated && !creates && new.rf > true_ms(now_us) + self.clocks.ahead_ms {
                    return Err(format!("{at}: rf {} is ahead of every clock", new.rf));
                }
            }
            let change = ItemChange {
                now_us,
                source,
                bucket: &bucket,
                shard,
                old: old.as_ref(),
                effects: None,
                is_count,
            };
            self.settle(change, new, stats)
                .map_err(|err| format!("{at}: {err}"))?;
        }
        for bucket in ended {
            self.ends_life(&bucket)?;
        }
        for (bucket, shard, starts_at) in newborn {
            self.disjoint((&bucket, shard), starts_at, &raised)?;
        }
        let most = |limit: &String| earned.get(limit).copied().unwrap_or(0);
        let is_wrong =
            |(limit, sum): &(&String, &i128)| **sum < 0 && !narrowed.contains(*limit) || **sum > most(limit);
        match moved.iter().find(is_wrong) {
            Some((limit, sum)) if creates => Err(format!(
                "creating a shard changed the sum of {limit} by {sum}, with {} earned",
                most(limit)
            )),
            _ => Ok(()),
        }
    }

    /// Whether one item's change is allowed. `moved` sums what goes out of and into items in a transaction
    /// that creates a shard.
    fn changed(
        &mut self,
        now_us: u64,
        source: Source,
        (bucket, shard): (&str, u32),
        old: &Row,
        new: &Row,
        mut moved: Option<&mut BTreeMap<String, i128>>,
    ) -> Result<(), String> {
        let is_ahead = old.rf > true_ms(now_us) - self.lags.arrival_ms - self.clocks.behind_ms + MAX_AHEAD_MS;
        if new.rf < old.rf && !is_ahead {
            return Err(format!("rf fell from {} to {}", old.rf, new.rf));
        }
        item_changed(source, old, new)?;
        if let Some(mark) = new
            .receipt
            .as_ref()
            .filter(|mark| old.receipt.as_ref() != Some(mark))
        {
            let job = source.job().unwrap_or(usize::MAX);
            if let Some(first) = self.receipts.insert(mark.clone(), job) {
                return Err(format!("credit {mark} of job {first} happened twice"));
            }
        }
        for (name, was) in &old.limits {
            let Some(is) = new.limits.get(name) else {
                removed(name, source, was, (old, new))?;
                continue;
            };
            if source.job().is_none() {
                continue;
            }
            let is_changed = was.base() != is.base() || !was.terms.is_same_rule(&is.terms);
            if is_changed && !self.own_limits.contains(&source.job().unwrap_or(usize::MAX)) {
                return Err(format!("the parameters of {name} changed: {was:?} to {is:?}"));
            }
            let gained = (is.tk + is.tc) - (was.tk + was.tc);
            let by = (source, self.action(source));
            self.access.debits(by, bucket, name, is.tc - was.tc)?;
            let step = Step {
                source,
                old,
                new,
                was,
                is,
            };
            let key = (bucket.to_owned(), shard, name.clone());
            if was.has_periods() {
                turned(name, &step, self.may_unname)?;
            } else if let Some(moved) = &mut moved {
                *moved.entry(name.clone()).or_default() += gained;
                if gained > 0 {
                    return Err(format!("{name} gained {gained} while a shard was created"));
                }
            } else {
                let born = self.born.get(bucket);
                let unborn = (0..old.count as u32)
                    .filter(|other| descends(*other, shard, old.count as u32))
                    .find(|other| born.is_none_or(|born| !born.contains(other)));
                // The count of a doubling that arrives in the bucket's next life: shards of that count that do not exist
                // lose their part. See ADR 7.
                let first = self.rows.get(bucket).and_then(|rows| rows.get(&0));
                let is_foreseen = first.is_some_and(|first| old.count > first.count);
                // A bucket that is given a quota before its shards exist does without them: see ADR 26.
                let is_whole = old.limits.values().any(Cell::has_periods);
                // Limits of a call that are lower may cut what is left of the others, and so may a window.
                let is_kept = !is_changed && !is_foreseen && !is_whole && !was.terms.is_scheduled();
                if let (true, Some(unborn)) = (gained < 0 && is_kept, unborn) {
                    return Err(format!(
                        "{name} lost {} that belong to shard {unborn}, which has never existed",
                        -gained
                    ));
                }
                let elapsed = i128::from((new.rf - old.rf).max(0));
                let fraction = self.fractions.entry(key).or_default();
                if was.terms.is_scheduled() {
                    explained_by_schedule(name, &step, gained, fraction)?;
                    continue;
                }
                let ceiling = old.ceiling(was).min(new.ceiling(is));
                explained(
                    name,
                    was,
                    ceiling,
                    gained,
                    (was.ra / old.count) * elapsed,
                    fraction,
                )?;
                if is_changed || new.rf < old.rf {
                    *fraction = Fraction::default();
                }
            }
            if matches!(source, Source::Acquire(_)) && is.tc > was.tc {
                spent(name, is, old, new)?;
                spent_in_time(name, &step, self.moment(now_us))?;
            }
        }
        if source.job().is_some() {
            seeded(old, new)?;
        }
        Ok(())
    }

    /// With `n` shards, shard `s` earns part `s` of `n`; one that still counts `m` earns all parts that are
    /// `s` modulo `m`.
    fn disjoint(
        &self,
        (bucket, new): (&str, u32),
        starts_at: i64,
        raised: &[(u32, Row)],
    ) -> Result<(), String> {
        let held = |(by, old): &&(u32, Row)| i128::from(new) % old.count == i128::from(*by);
        // One that is dated far ahead has earned nothing since.
        let is_late = |(_, old): &&(u32, Row)| old.rf > starts_at && old.rf <= starts_at + MAX_AHEAD_MS;
        let late = raised.iter().filter(held).find(is_late);
        if let Some((shard, Row { rf, .. })) = late {
            return Err(format!(
                "a new shard of {bucket} earns from {starts_at}, what shard {shard} has earned until {rf}"
            ));
        }
        let rows: Vec<_> = self.rows.get(bucket).into_iter().flatten().collect();
        for (i, (one, row)) in rows.iter().enumerate() {
            for (other, sibling) in &rows[i + 1..] {
                let parts = row.count.min(sibling.count);
                if i128::from(**one) % parts == i128::from(**other) % parts {
                    return Err(format!("shards {one} and {other} of {bucket} earn the same part"));
                }
            }
        }
        Ok(())
    }
}
