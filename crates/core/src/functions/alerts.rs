//! Alerts from the stream: which limits a change of a bucket has brought over a threshold of use, and the mark that
//! lets each be reported once in its period.
//!
//! A record of the stream has the item before and after the change. A threshold is crossed if the use before was below it and
//! the use after is not, both at the instant of the change, so that what was earned or reset in between counts in both. A refund
//! and another debit can cross it again, and records are delivered more than once. So there is a mark in the table: a report is
//! made only after a write that marks the period as reported, on the condition that it was not.

use smol_str::format_smolstr;

use crate::alert::{Period, Thresholds, Use};
use crate::bucket::Bucket;
use crate::name::LimitName;
use crate::schema::{BucketId, entity_pk};
use crate::stream::{Change, Sequence, StreamRecord};
use crate::table::{Attr, Condition, Item, Key, Update, Value};
use crate::units::EpochMillis;

/// How long a mark is kept after its period, in seconds: records of the stream are a day old at most.
const KEPT_SECS: i64 = 86_400;

/// The limit that a mark is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkId {
    /// The bucket, whose shards are reported together.
    pub bucket: BucketId,
    /// The limit.
    pub limit: LimitName,
}

impl MarkId {
    /// The mark's key.
    pub fn key(&self) -> Key {
        let BucketId {
            namespace,
            entity,
            resource,
        } = &self.bucket;
        Key {
            pk: entity_pk(namespace, entity),
            sk: format_smolstr!("#ALERT#{resource}#{}", self.limit),
        }
    }
}

/// A change that has brought the use of a limit over a threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// Whose limit, of what.
    pub id: MarkId,
    /// The threshold in percent.
    pub percent: u8,
    /// The shard on which it was crossed.
    pub shard: u32,
    /// How many shards the bucket has.
    pub shards: u32,
    /// What is left on the shard.
    pub used: Use,
    /// Whether the limit gains nothing over time: a quota or a session limit.
    pub is_quota: bool,
    /// When a quota or a session limit is whole again.
    pub resets_at: Option<EpochMillis>,
    /// When it was crossed.
    pub at: EpochMillis,
    /// The record that shows it.
    pub sequence: Sequence,
    /// The period in which it is reported once.
    pub period: Period,
}

/// The thresholds that a record shows as crossed, by limit and ascending. A bucket with attributes of newer clients has none.
pub fn crossings(record: &StreamRecord, thresholds: &Thresholds) -> Vec<Crossing> {
    let Some((bucket, shard)) = record.key().and_then(|key| BucketId::parse(&key)) else {
        return Vec::new();
    };
    let (Change::Insert | Change::Modify, Some(new)) = (record.change, &record.new) else {
        return Vec::new();
    };
    if thresholds.is_empty() || (record.old.is_none() && shard > 0) {
        // A shard begins with what the others have beyond their shares, which can be nothing: that is not a use.
        return Vec::new();
    }
    // The use of what cannot be read is not known.
    let readable = |item: &Item| {
        Bucket::decode(item)
            .ok()
            .filter(|image| image.unsupported.is_none())
    };
    let Some(new) = readable(new) else {
        return Vec::new();
    };
    let old = match &record.old {
        None => None,
        Some(old) => match readable(old) {
            None => return Vec::new(),
            old => old,
        },
    };
    // The stream has whole seconds. The writer's own time is exact, where it has written it.
    let at = if new.is_ahead(record.at) {
        record.at
    } else {
        record.at.max(new.refilled_at)
    };
    let mut found = Vec::new();
    for limit in &new.limits {
        let (Some(used), Ok(name)) = (Use::of(&new, limit, at), LimitName::new(&limit.name)) else {
            continue;
        };
        let before = old.as_ref().and_then(|old| {
            let limit = old.limit(&limit.name)?;
            Use::of(old, limit, at)
        });
        let is_new = |percent: &u8| before.is_none_or(|before| !before.reaches(*percent));
        for percent in thresholds.reached(used).filter(is_new) {
            found.push(Crossing {
                id: MarkId {
                    bucket: bucket.clone(),
                    limit: name.clone(),
                },
                percent,
                shard,
                shards: new.shard_count,
                used,
                is_quota: limit.is_quota(),
                resets_at: new.terms(limit).resets_at(at),
                at,
                sequence: record.sequence.clone(),
                period: Period::of(&new, limit, at),
            });
        }
    }
    found
}

impl Crossing {
    /// An attribute of the mark for this threshold.
    fn attr(&self, part: &str) -> Attr {
        format_smolstr!("{part}{}", self.percent)
    }

    /// The write that marks the threshold as reported, on the condition that it was not reported in this period.
    ///
    /// `token` names the attempt: if the write is refused, [`is_marked_by`](Self::is_marked_by) shows whether it had happened
    /// before, and only its answer was lost.
    pub fn mark(&self, token: &str) -> Update {
        let (until, resets, by) = (self.attr("until"), self.attr("resets"), self.attr("by"));
        let BucketId {
            namespace,
            entity,
            resource,
        } = &self.id.bucket;
        let Period {
            until: end,
            after,
            resets: count,
        } = self.period;
        let key = self.id.key();
        let text = |text: &str| Value::text(text);
        let set = [
            ("entity_id".into(), text(entity.as_str())),
            ("resource".into(), text(resource.as_str())),
            ("limit_name".into(), text(self.id.limit.as_str())),
            ("GSI4PK".into(), text(namespace.as_str())),
            ("GSI4SK".into(), text(&key.pk)),
            ("ttl".into(), Value::int(end.secs().saturating_add(KEPT_SECS))),
            (until.clone(), Value::int(end.0)),
            (resets.clone(), Value::int(count)),
            (by, text(token)),
        ];
        let mut update = Update::new(key);
        update.set.extend(set);
        update.condition = Condition::Any(vec![
            Condition::Absent(until.clone()),
            Condition::AtMost(until, after.0.into()),
            Condition::AtMost(resets, i128::from(count) - 1),
        ]);
        update
    }

    /// The period in which the threshold was reported last, according to the mark.
    pub fn reported(&self, mark: &Item) -> Option<Period> {
        let number = |part| {
            let value = mark.get(self.attr(part).as_str())?.as_int()?;
            i64::try_from(value).ok()
        };
        let until = EpochMillis(number("until")?);
        Some(Period {
            until,
            after: until,
            resets: number("resets").unwrap_or(0),
        })
    }

    /// Whether the mark was written by the attempt of this token.
    pub fn is_marked_by(&self, mark: &Item, token: &str) -> bool {
        mark.get(self.attr("by").as_str()).and_then(Value::as_text) == Some(token)
    }
}

#[cfg(test)]
mod tests;
