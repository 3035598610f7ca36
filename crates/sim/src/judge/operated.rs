//! An operation's transaction as a whole: see [`super::operations`].

use std::collections::{BTreeMap, BTreeSet};

use super::check::Check;
use super::rules::{Fraction, item_changed};
use super::settle::ItemChange;
use crate::rows::change::Source;
use crate::rows::row::Row;
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
