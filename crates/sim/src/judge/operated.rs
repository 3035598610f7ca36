//! Writes of operators, and what holds for stamps, counts and new items: see [`super::operations`] and [`super::access`].

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::table::Item;

use super::check::Check;
use super::rules::{Fraction, created, item_changed};
use super::settle::ItemChange;
use crate::rows::change::{Change, Source};
use crate::rows::row::{Row, bucket_of};
use crate::stats::Stats;

/// One item before and after a write.
pub(super) type ReadChange = (String, u32, Option<Row>, Option<Row>);

impl Check {
    /// Judges and books the transaction of an operator's plan.
    pub(super) fn operated(
        &mut self,
        now_us: u64,
        plan: usize,
        read: Vec<ReadChange>,
        stats: &mut Stats,
    ) -> Result<(), String> {
        let shards: BTreeSet<u32> = read.iter().map(|(_, shard, _, _)| *shard).collect();
        self.operations.happens(plan, &shards)?;
        let moment = self.moment(now_us);
        let mut changes = BTreeMap::new();
        for (bucket, shard, old, new) in &read {
            let at = |err: String| format!("{bucket}#{shard}: {err}");
            match (old, new) {
                (Some(old), Some(new)) => {
                    item_changed(Source::Operator(plan), old, new).map_err(at)?;
                    let fraction = |name: &String| {
                        let key = (bucket.clone(), *shard, name.clone());
                        (
                            name.clone(),
                            self.fractions.get(&key).copied().unwrap_or_default(),
                        )
                    };
                    let fractions: BTreeMap<String, Fraction> = old.limits.keys().map(fraction).collect();
                    changes.insert(*shard, (old, new, fractions));
                }
                (None, Some(new)) => {
                    self.operations.created(plan, *shard, new).map_err(at)?;
                    self.born.entry(bucket.clone()).or_default().insert(*shard);
                }
                _ => return Err(at("an operation has deleted an item".to_owned())),
            }
        }
        let effects = self.operations.judge(plan, &changes, moment)?;
        for ((bucket, shard), name) in read.iter().flat_map(|(bucket, shard, _, new)| {
            let names = new.iter().flat_map(|new| new.limits.keys());
            names.map(move |name| ((bucket, shard), name))
        }) {
            let key = (bucket.clone(), *shard, name.clone());
            self.fractions.insert(key, Fraction::less_than_one());
        }
        for (bucket, shard, old, new) in read {
            let change = ItemChange {
                now_us,
                source: Source::Operator(plan),
                bucket: &bucket,
                shard,
                old: old.as_ref(),
                effects: Some(&effects),
                is_count: false,
            };
            self.settle(change, new, stats)
                .map_err(|err| format!("{bucket}#{shard}: {err}"))?;
        }
        Ok(())
    }
}

/// The items of buckets in a write.
pub(super) fn read_changes(changes: &[Change]) -> Result<Vec<ReadChange>, String> {
    let mut read = Vec::new();
    for change in changes {
        if let Some((bucket, shard)) = bucket_of(&change.key) {
            let row = |item: &Option<Item>| item.as_ref().map(Row::read).transpose();
            let (old, new) = (row(&change.old)?, row(&change.new)?);
            read.push((bucket.to_owned(), shard, old, new));
        }
    }
    Ok(read)
}

impl Check {
    /// Judges what a write did to the stamps of its items.
    pub(super) fn stamps(&mut self, now_us: u64, source: Source, read: &[ReadChange]) -> Result<(), String> {
        let moment = self.moment(now_us);
        for (bucket, shard, old, new) in read {
            let rows = (old.as_ref(), new.as_ref());
            self.access
                .stamped((now_us, source), (bucket, *shard), rows, moment)
                .map_err(|err| format!("{bucket}#{shard}: {err}"))?;
        }
        Ok(())
    }

    /// Judges a write that only counts.
    pub(super) fn counts(
        &mut self,
        now_us: u64,
        source: Source,
        shard: (&str, u32),
        (old, new): (&Row, &Row),
    ) -> Result<(), String> {
        item_changed(source, old, new)?;
        let (by, moment) = ((source, self.action(source)), self.moment(now_us));
        self.access.counted(by, shard, (old, new), moment)
    }

    /// Judges a new item.
    pub(super) fn creates(
        &mut self,
        source: Source,
        (bucket, shard): (&str, u32),
        new: &Row,
        moved: &mut BTreeMap<String, i128>,
    ) -> Result<(), String> {
        let family = self.rows.get(bucket);
        // The first shard has the count, if it is there.
        let known = family.and_then(|rows| {
            let first = rows.get(&0).map(|first| first.count);
            first.or_else(|| rows.values().map(|row| row.count).max())
        });
        created(shard, new, known, moved)?;
        let by = (source, self.action(source));
        for (name, cell) in &new.limits {
            self.access.debits(by, bucket, name, cell.tc)?;
        }
        Ok(())
    }
}

/// The shards whose count a write raises, as they were before.
pub(super) fn raised(read: &[ReadChange]) -> Vec<(u32, Row)> {
    let raise = |(_, shard, old, new): &ReadChange| {
        let (old, new) = (old.as_ref()?, new.as_ref()?);
        (old.count < new.count).then(|| (*shard, old.clone()))
    };
    read.iter().filter_map(raise).collect()
}
