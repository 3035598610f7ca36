//! Counting usage from the stream: what a batch of records adds to which snapshots, each record once.
//!
//! A stream delivers its records at least once, in batches that may be cut differently each time. Therefore a
//! snapshot keeps, beside its counters, which records went into them: for each shard of the bucket the *runs*
//! of consecutive records that were counted. A write adds what is not in them yet, on the condition that they
//! are as they were read, so that neither a repeated batch nor two functions at once count anything twice, and
//! the order of batches does not matter.
//!
//! Two runs become one when the later record begins with the very counters that the earlier one ended with,
//! so that in the ordinary course of things there is one run. Of very many, the oldest are joined: then what
//! lies between them counts as counted. Rather a record too few than one twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use crate::bucket::limit_attr;
use crate::name::{LimitName, WCU};
use crate::schema::{BucketId, entity_pk, resource_pk};
use crate::stream::{Change, Sequence, StreamRecord};
use crate::table::{Attr, Condition, Item, Key, Update, Value};
use crate::units::EpochMillis;
use crate::usage::{OVERDRAWN, Window};

/// How many runs a shard may have in a snapshot.
const MAX_RUNS: usize = 16;

/// Attributes of a snapshot that are not limits, so that a limit of such a name cannot be counted.
const RESERVED: [&str; 12] = [
    "PK",
    "SK",
    "entity_id",
    "resource",
    "window",
    "window_start",
    "ttl",
    "total_events",
    "GSI2PK",
    "GSI2SK",
    "GSI4PK",
    "GSI4SK",
];

/// One window of usage: whose, of what, of which kind, from when on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The bucket, whose shards are counted together.
    pub bucket: BucketId,
    /// The kind of window.
    pub window: Window,
    /// Its first instant.
    pub start: EpochMillis,
}

impl SnapshotId {
    /// The snapshot's key. Windows that start together are items of their own: the original's readers go by
    /// the attributes, and by how the key begins.
    pub fn key(&self) -> Key {
        let BucketId {
            namespace,
            entity,
            resource,
        } = &self.bucket;
        let start = self.start.to_text();
        Key {
            pk: entity_pk(namespace, entity),
            sk: match self.window {
                Window::Hourly => format_smolstr!("#USAGE#{resource}#{start}"),
                other => format_smolstr!("#USAGE#{resource}#{start}#{other}"),
            },
        }
    }
}

/// The addition of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    sequence: Sequence,
    /// A digest of the shard's counters before, and after.
    before: u32,
    after: u32,
    /// Whole tokens by limit.
    tokens: Vec<(SmolStr, i128)>,
    /// The soft limits that it has left in debt.
    overdrawn: Vec<SmolStr>,
}

/// The additions of a batch of records to snapshots.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    found: BTreeMap<SnapshotId, BTreeMap<u32, Vec<Arc<Entry>>>>,
    changes: usize,
    unusable: Vec<String>,
}

impl Tally {
    /// Adds a record, if it is a bucket's, to the windows of these kinds that it falls in.
    pub fn add(&mut self, record: &StreamRecord, windows: &[Window]) {
        let Some((bucket, shard)) = record.key().and_then(|key| BucketId::parse(&key)) else {
            return;
        };
        let (Change::Insert | Change::Modify, Some(new)) = (record.change, &record.new) else {
            return;
        };
        let old = record.old.as_ref();
        let (before, after) = (old.map_or(0, digest), digest(new));
        if before == after {
            return;
        }
        let (mut tokens, mut overdrawn) = (Vec::new(), Vec::new());
        for (name, value) in consumption(new) {
            let was = old
                .and_then(|old| old.get(&format!("b_{name}_tc")))
                .and_then(Value::as_int);
            // Rounded each for itself, so that it adds up to the same however records are put together.
            let delta = value.div_euclid(1000) - was.unwrap_or(0).div_euclid(1000);
            if delta == 0 || name == WCU {
                continue;
            }
            if RESERVED.contains(&name) || LimitName::new(name).is_err() {
                self.unusable.push(format!(
                    "{bucket:?}: usage of a limit named '{name}' cannot be counted"
                ));
                continue;
            }
            tokens.push((SmolStr::new(name), delta));
            if delta > 0 && is_overdrawn(new, name) {
                overdrawn.push(SmolStr::new(name));
            }
        }
        self.changes += tokens.len();
        let entry = Arc::new(Entry {
            sequence: record.sequence.clone(),
            before,
            after,
            tokens,
            overdrawn,
        });
        for &window in windows {
            let Some(start) = window.start_millis(record.at) else {
                continue;
            };
            let id = SnapshotId {
                bucket: bucket.clone(),
                window,
                start,
            };
            let shards = self.found.entry(id).or_default();
            shards.entry(shard).or_default().push(Arc::clone(&entry));
        }
    }

    /// How many changes of a limit were found.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// Failures, as text.
    pub fn take_unusable(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unusable)
    }

    /// The additions to each snapshot, without empty ones.
    pub fn finish(self) -> Vec<Addition> {
        let mut additions = Vec::new();
        for (id, mut shards) in self.found {
            for entries in shards.values_mut() {
                entries.sort_by(|a, b| a.sequence.cmp(&b.sequence));
                entries.dedup_by(|a, b| a.sequence == b.sequence);
            }
            let counts = |entry: &Arc<Entry>| !entry.tokens.is_empty();
            if shards.values().flatten().any(counts) {
                additions.push(Addition { id, shards });
            }
        }
        additions
    }
}

/// The consumption counters of a bucket's image in thousandths of a token, by limit, the reserved one included.
pub fn consumption(image: &Item) -> impl Iterator<Item = (&str, i128)> {
    image.iter().filter_map(|(attr, value)| {
        let name = attr.strip_prefix("b_")?.strip_suffix("_tc")?;
        Some((name, value.as_int()?))
    })
}

/// Whether a bucket's image shows a soft limit in debt.
fn is_overdrawn(image: &Item, limit: &str) -> bool {
    let part = |part: &str| image.get(limit_attr(limit, part).as_str());
    part("soft").is_some()
        && part("tk")
            .and_then(Value::as_int)
            .is_some_and(|tokens| tokens < 0)
}

/// A digest (FNV-1a) of a bucket's consumption counters; 0 for none.
fn digest(image: &Item) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    for (name, value) in consumption(image) {
        eat(name.as_bytes());
        eat(&value.to_be_bytes());
    }
    hash
}

/// The additions of a batch to one snapshot.
#[derive(Debug, Clone)]
pub struct Addition {
    /// The snapshot.
    pub id: SnapshotId,
    shards: BTreeMap<u32, Vec<Arc<Entry>>>,
}

impl Addition {
    /// The first record that it comes from.
    pub fn first_record(&self) -> Option<&Sequence> {
        self.shards.values().flatten().map(|entry| &entry.sequence).min()
    }

    /// The write that adds what is not counted yet, going by what is stored; `None` if all of it is.
    ///
    /// Guards that what was counted is as `stored` says; refused, try again with the image that comes back.
    /// `retention_days` is counted from the window's end.
    pub fn write(&self, stored: Option<&Item>, retention_days: i64) -> Option<Update> {
        let mut update = Update::new(self.id.key());
        let mut guards = Vec::new();
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        let mut overdrawn: BTreeMap<&str, i128> = BTreeMap::new();
        let mut events = 0;
        for (shard, entries) in &self.shards {
            let attr: Attr = format_smolstr!("applied#{shard}");
            let known = stored.and_then(|item| item.get(attr.as_str()));
            let mut runs = known
                .and_then(Value::as_text)
                .map(Runs::parse)
                .unwrap_or_default();
            let fresh: Vec<_> = entries
                .iter()
                .filter(|entry| !runs.cover(&entry.sequence))
                .collect();
            if fresh.is_empty() {
                continue;
            }
            for entry in fresh {
                runs.add(entry);
                for (name, tokens) in &entry.tokens {
                    *sums.entry(name).or_default() += tokens;
                    events += 1;
                }
                for name in &entry.overdrawn {
                    *overdrawn.entry(name).or_default() += 1;
                }
            }
            guards.push(Condition::same(attr.clone(), known.cloned()));
            update.set.push((attr, Value::S(runs.to_text())));
        }
        if guards.is_empty() {
            return None;
        }
        update.condition = Condition::All(guards);
        for (name, tokens) in sums {
            update.add.push((name.into(), tokens));
        }
        for (name, times) in overdrawn {
            update.add.push((format_smolstr!("{name}{OVERDRAWN}"), times));
        }
        update.add.push(("total_events".into(), events));
        update.set.extend(self.facts(retention_days));
        Some(update)
    }

    /// The attributes of the snapshot that do not depend on the writer and the time.
    fn facts(&self, retention_days: i64) -> [(Attr, Value); 9] {
        let BucketId {
            namespace,
            entity,
            resource,
        } = &self.id.bucket;
        let start = self.id.start.to_text();
        let end = self.id.window.next_millis(self.id.start).unwrap_or(self.id.start);
        let ttl = end.secs().saturating_add(retention_days.saturating_mul(86_400));
        let text = |text: &str| Value::text(text);
        [
            ("entity_id".into(), text(entity.as_str())),
            ("resource".into(), text(resource.as_str())),
            ("window".into(), text(self.id.window.as_str())),
            ("window_start".into(), text(&start)),
            ("GSI2PK".into(), Value::S(resource_pk(namespace, resource))),
            ("GSI2SK".into(), Value::S(format!("USAGE#{start}#{entity}"))),
            ("GSI4PK".into(), text(namespace.as_str())),
            ("GSI4SK".into(), Value::S(entity_pk(namespace, entity))),
            ("ttl".into(), Value::int(ttl)),
        ]
    }
}

/// Consecutive records of a shard that were counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    first: Sequence,
    last: Sequence,
    before: u32,
    after: u32,
}

/// Runs in the order of the stream. As text: `first-last:before:after`, separated by blanks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Runs(Vec<Run>);

impl Runs {
    /// Reads stored runs. One that cannot be read is left out: the guard still pins it as it is.
    fn parse(text: &str) -> Self {
        let run = |text: &str| {
            let mut parts = text.split(':');
            let (first, last) = parts.next()?.split_once('-')?;
            let mut hash = || u32::from_str_radix(parts.next()?, 16).ok();
            let run = Run {
                first: Sequence::parse(first)?,
                last: Sequence::parse(last)?,
                before: hash()?,
                after: hash()?,
            };
            (run.first <= run.last).then_some(run)
        };
        let mut runs: Vec<Run> = text.split(' ').filter_map(run).collect();
        runs.sort_by(|a, b| a.first.cmp(&b.first));
        Self(runs)
    }

    fn to_text(&self) -> String {
        let run = |run: &Run| format!("{}-{}:{:x}:{:x}", run.first, run.last, run.before, run.after);
        self.0.iter().map(run).collect::<Vec<_>>().join(" ")
    }

    fn cover(&self, sequence: &Sequence) -> bool {
        self.0
            .iter()
            .any(|run| run.first <= *sequence && *sequence <= run.last)
    }

    /// Adds a record that is not covered.
    fn add(&mut self, entry: &Entry) {
        let at = self.0.partition_point(|run| run.first < entry.sequence);
        self.0.insert(
            at,
            Run {
                first: entry.sequence.clone(),
                last: entry.sequence.clone(),
                before: entry.before,
                after: entry.after,
            },
        );
        self.join_if_consecutive(at);
        if at > 0 {
            self.join_if_consecutive(at - 1);
        }
        while self.0.len() > MAX_RUNS {
            self.join(0);
        }
    }

    fn join_if_consecutive(&mut self, at: usize) {
        if let [run, next, ..] = &self.0[at..]
            && run.after == next.before
        {
            self.join(at);
        }
    }

    /// Makes one of a run and the next.
    fn join(&mut self, at: usize) {
        let next = self.0.remove(at + 1);
        let run = &mut self.0[at];
        run.last = next.last;
        run.after = next.after;
    }
}

#[cfg(test)]
mod tests;
