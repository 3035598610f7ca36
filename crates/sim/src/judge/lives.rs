//! Lives of items: what must not be carried from one into the next.
//!
//! A refund, a charge or a compensation changes only an item that its acquire has debited: never one that was created
//! under the same key later. A refund may be divided over the other shards of that item's bucket.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::table::Op;

use crate::rows::change::{Change, Source};
use crate::rows::row::{Row, bucket_of};

/// Which item of a shard an acquire has debited.
type Debited = (String, u32, u64);

/// Lives of items by key, and which of them each acquire has debited, by action.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    count: BTreeMap<(String, u32), u64>,
    debited: BTreeMap<usize, BTreeSet<Debited>>,
    /// The generation that each entity had when it was deleted.
    pub(crate) generations: BTreeMap<usize, i64>,
    /// The action that deletes each entity at present.
    pub(crate) deleting: BTreeMap<usize, usize>,
    /// What each deletion does next to a bucket, as it was when it was read.
    pub(crate) pending: BTreeMap<usize, Op>,
}

impl Lives {
    /// Tokens that other actions have debited are this action's, too, from now on.
    pub(crate) fn stands_in(&mut self, action: usize, fillers: impl Iterator<Item = usize>) {
        for filler in fillers {
            let debited = self.debited.get(&filler).cloned().unwrap_or_default();
            self.debited.entry(action).or_default().extend(debited);
        }
    }

    /// Judges what one write changed, by the action on whose behalf it was made.
    ///
    /// # Errors
    /// Says what was corrected that had not been debited.
    pub(crate) fn wrote(&mut self, source: Source, action: usize, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            let Some((bucket, shard)) = bucket_of(&change.key) else {
                continue;
            };
            let life = self.count.entry((bucket.to_owned(), shard)).or_default();
            *life += u64::from(change.old.is_none() && change.new.is_some());
            let id = (bucket.to_owned(), shard, *life);
            let row = |item: &Option<_>| item.as_ref().map(Row::read).transpose();
            let (old, Some(new)) = (row(&change.old)?, row(&change.new)?) else {
                continue;
            };
            let consumed = |name: &String| {
                let of = |row: &Row| row.limits.get(name).map_or(0, |cell| cell.tc);
                of(&new) - old.as_ref().map_or(0, of)
            };
            let takes = new.limits.keys().any(|name| consumed(name) > 0);
            let gives = new.limits.keys().any(|name| consumed(name) < 0);
            let debited = self.debited.entry(action).or_default();
            // A refund may go to the other shards of a bucket of which one was debited that is still the same item.
            let may_share = debited.iter().any(|(of, shard, life)| {
                let now = self.count.get(&(of.clone(), *shard));
                *of == bucket && now == Some(life)
            });
            match source {
                Source::Acquire(_) if gives && !debited.contains(&id) && !may_share => {
                    return Err(format!(
                        "{bucket}#{shard}: a compensation gave tokens to an item that its acquire has not debited"
                    ));
                }
                // A request for no tokens of a limit is a debit as well, and may be charged later.
                Source::Acquire(_) => drop(debited.insert(id)),
                Source::Credit(job) if (takes || gives && !may_share) && !debited.contains(&id) => {
                    return Err(format!(
                        "{bucket}#{shard}: credit {job} corrected an item that its acquire has not debited"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
