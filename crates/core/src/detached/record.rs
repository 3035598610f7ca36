//! The records of detached leases.
//!
//! A namespace has [`SLOTS`] partitions of them. In each, they are ordered by when their leases expire, so that a sweep reads what
//! is due and nothing else.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use smol_str::{SmolStr, format_smolstr};

use super::{DetachedLease, MAX_TTL, OnExpiry};
use crate::error::RecordError;
use crate::name::NamespaceId;
use crate::records::reader::Reader;
use crate::schema::{add_namespace_index, key_item};
use crate::table::{Condition, Delete, Index, Item, Key, Put, Query, Update, Value};
use crate::units::EpochMillis;

/// How many partitions a namespace's leases are spread over.
pub const SLOTS: u32 = 32;

/// How long the record of an ended lease is kept after its lease has expired, in milliseconds. By then, every process refuses the
/// lease, also one whose clock is some minutes behind.
pub const KEPT_MS: i64 = 600_000;

/// The prefix of the sort key.
const LEASE: &str = "#LEASE#";

/// The value of `state` of a lease that can be ended.
const OPEN: &str = "open";

/// The value of `state` of a lease that has ended.
const ENDED: &str = "ended";

/// Whether a text can be the name of a lease.
pub(super) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The partition of a slot.
fn slot_pk(namespace: &NamespaceId, slot: u32) -> String {
    format!("{namespace}/LEASES#{slot:02}")
}

/// Reads a page of the records of a slot whose leases expired up to `until`, from `after` on: the sort key of a record that was
/// read before.
pub fn due(namespace: &NamespaceId, slot: u32, after: Option<&str>, until: EpochMillis) -> Query {
    let first = after.map_or_else(|| LEASE.to_owned(), |after| format!("{after}!"));
    Query::new(Index::Primary, slot_pk(namespace, slot))
        .between(first, format!("{LEASE}{:013}~", until.0))
        .consistent()
}

/// When the lease of a record has first expired, by the record's key.
pub fn expiry_of(key: &Key) -> Option<EpochMillis> {
    let expiry = key.sk.strip_prefix(LEASE)?.split('#').next()?;
    expiry.parse().ok().map(EpochMillis)
}

impl DetachedLease {
    /// The key of its record.
    pub fn key(&self) -> Key {
        let bits = self
            .id
            .bytes()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Key {
            pk: slot_pk(&self.namespace, bits % SLOTS),
            sk: format_smolstr!("{LEASE}{:013}#{}", self.expires_at.0, self.id),
        }
    }

    fn attributes(&self, state: &'static str, until: EpochMillis) -> Item {
        let key = self.key();
        let mut item = key_item(&key);
        add_namespace_index(&mut item, self.namespace.as_str(), &key.pk);
        item.insert("state".into(), Value::text(state));
        item.insert("until".into(), Value::int(until.0));
        // The sweep deletes it before. This is for records that no process sweeps any more.
        let longest = i64::try_from(MAX_TTL.as_millis()).unwrap_or(i64::MAX);
        let ttl = self.expires_at.plus(longest).plus(KEPT_MS);
        item.insert("ttl".into(), Value::int(ttl.secs()));
        item
    }

    /// Records a lease that gives its tokens back when it expires. `None` for others.
    pub fn record(&self) -> Option<Put> {
        (self.on_expiry == OnExpiry::GiveBack).then(|| {
            let mut item = self.attributes(OPEN, self.expires_at);
            item.insert("lease".into(), Value::S(self.encode()));
            Put {
                item,
                condition: Condition::Absent("PK".into()),
            }
        })
    }

    /// The lease can be ended at `now`: it is recorded as open, or has no record because it needs none yet, or because its record
    /// was not written.
    pub(super) fn is_open(&self, now: EpochMillis, may_be_unrecorded: bool) -> Condition {
        let is_recorded = Condition::All(vec![
            Condition::Is("state".into(), Value::text(OPEN)),
            Condition::AtLeast("until".into(), i128::from(now.0) + 1),
        ]);
        let needs_none = self.on_expiry == OnExpiry::Keep && now < self.expires_at;
        if needs_none || may_be_unrecorded {
            Condition::Any(vec![Condition::Absent("state".into()), is_recorded])
        } else {
            is_recorded
        }
    }

    /// The lease is recorded as open, and has expired at `now`.
    pub(super) fn is_over(now: EpochMillis) -> Condition {
        Condition::All(vec![
            Condition::Is("state".into(), Value::text(OPEN)),
            Condition::AtMost("until".into(), now.0.into()),
        ])
    }

    /// Lets the lease expire at `until`, unless it expires later already.
    pub fn extend(&self, until: EpochMillis, now: EpochMillis) -> Update {
        let mut update = self.write(self.attributes(OPEN, until));
        update.set.push(("lease".into(), Value::S(self.encode())));
        // A request that arrives late must not shorten it.
        update.condition = Condition::All(vec![
            self.is_open(now, false),
            Condition::Any(vec![
                Condition::Absent("until".into()),
                Condition::AtMost("until".into(), until.0.into()),
            ]),
        ]);
        update
    }

    /// Removes the record of a lease that was extended, kept its tokens, and has expired.
    pub fn forget(&self, now: EpochMillis) -> Delete {
        Delete {
            key: self.key(),
            condition: Self::is_over(now),
        }
    }

    /// Records how the lease was ended, by which process, and what is left to write.
    pub(super) fn end(&self, text: &str, by: &str, left: &Left, condition: Condition) -> Update {
        let mut update = self.write(self.attributes(ENDED, self.expires_at));
        update.set.push(("end".into(), Value::text(text)));
        update.set.push(("by".into(), Value::text(by)));
        if left.is_empty() {
            update.remove = vec!["left".into(), "lease".into()];
        } else {
            update.set.push(("left".into(), Value::S(left.encode())));
            update.set.push(("lease".into(), Value::S(self.encode())));
        }
        update.condition = condition;
        update
    }

    fn write(&self, mut attributes: Item) -> Update {
        for key in ["PK", "SK"] {
            attributes.remove(key);
        }
        let mut update = Update::new(self.key());
        let attributes = attributes.into_iter();
        update.set = attributes.map(|(name, value)| (name.into(), value)).collect();
        update
    }
}

/// Corrections that are left to write, in millitokens by limit, for each grant: positive ones give back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Left(Vec<BTreeMap<SmolStr, i128>>);

impl Left {
    pub(crate) fn new(parts: impl IntoIterator<Item = BTreeMap<SmolStr, i128>>) -> Self {
        let mut left = Self(parts.into_iter().collect());
        for part in &mut left.0 {
            part.retain(|_, delta| *delta != 0);
        }
        left
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeMap::is_empty)
    }

    /// The first grant of which something is left, and what.
    pub(crate) fn first(&self) -> Option<(usize, &BTreeMap<SmolStr, i128>)> {
        self.0.iter().enumerate().find(|(_, part)| !part.is_empty())
    }

    /// Takes off what a write does.
    pub(crate) fn less<'a>(&self, at: usize, done: impl IntoIterator<Item = (&'a str, i128)>) -> Self {
        let mut left = self.clone();
        if let Some(part) = left.0.get_mut(at) {
            for (name, delta) in done {
                if let Some(rest) = part.get_mut(name) {
                    *rest -= delta;
                }
            }
            part.retain(|_, delta| *delta != 0);
        }
        left
    }

    /// Takes off all that is left of a grant.
    pub(crate) fn without(&self, at: usize) -> Self {
        let mut left = self.clone();
        if let Some(part) = left.0.get_mut(at) {
            part.clear();
        }
        left
    }

    fn encode(&self) -> String {
        let part = |part: &BTreeMap<SmolStr, i128>| {
            let deltas = part.iter();
            deltas
                .map(|(name, delta)| json!([name.as_str(), delta.to_string()]))
                .collect::<Vec<_>>()
        };
        Json::from(self.0.iter().map(part).collect::<Vec<_>>()).to_string()
    }

    fn decode(text: &str, grants: usize) -> Option<Self> {
        let json: Json = serde_json::from_str(text).ok()?;
        let delta = |json: &Json| {
            let delta: i128 = json.get(1)?.as_str()?.parse().ok()?;
            Some((SmolStr::new(json.get(0)?.as_str()?), delta))
        };
        let part = |json: &Json| {
            json.as_array()?
                .iter()
                .map(delta)
                .collect::<Option<BTreeMap<_, _>>>()
        };
        let parts = json.as_array()?.iter().map(part).collect::<Option<Vec<_>>>()?;
        (parts.len() == grants).then(|| Self::new(parts))
    }
}

/// The record of a lease, as it was read.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseRecord {
    /// It can be ended until this instant.
    Open(EpochMillis),
    /// It has ended.
    Ended(Ended),
}

/// How a lease was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How, as a text that only the same end has.
    pub(super) end: String,
    /// By which settlement.
    pub(super) by: String,
    /// What is left to write.
    pub(super) left: Left,
}

impl Ended {
    /// Whether all its corrections are written.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }

    /// `commit`, `rollback` or `expired`.
    pub fn kind(&self) -> &str {
        self.end.split(' ').next().unwrap_or_default()
    }
}

impl LeaseRecord {
    /// Reads a record of a lease with so many grants.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] for an attribute that no client writes so.
    pub fn read(item: &Item, grants: usize) -> Result<Self, RecordError> {
        let reader = Reader::new("lease", item);
        match reader.text("state")? {
            OPEN => {
                let until = reader.int64("until")?;
                let until = until.ok_or_else(|| reader.corrupt("until", "is missing"))?;
                Ok(Self::Open(EpochMillis(until)))
            }
            ENDED => {
                let left = match reader.text_opt("left")? {
                    Some(text) => Left::decode(text, grants)
                        .ok_or_else(|| reader.corrupt("left", "is not a list of corrections"))?,
                    None => Left::default(),
                };
                Ok(Self::Ended(Ended {
                    end: reader.text("end")?.to_owned(),
                    by: reader.text("by")?.to_owned(),
                    left,
                }))
            }
            other => Err(reader.corrupt("state", format!("is {other}, neither open nor ended"))),
        }
    }
}

/// A record that a sweep has found.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    /// The lease has ended, with nothing left to write: its record can be deleted once it was [kept](KEPT_MS).
    Complete,
    /// The lease was extended until this instant.
    Extended(EpochMillis),
    /// The lease has expired, or what its end has left is to be written.
    Unsettled(Box<(DetachedLease, LeaseRecord)>),
}

/// Reads what a sweep has found at `now`.
///
/// # Errors
/// [`RecordError::Corrupt`] for an attribute that no client writes so.
pub fn found(item: &Item, now: EpochMillis) -> Result<Due, RecordError> {
    let reader = Reader::new("lease", item);
    if reader.text("state")? == ENDED && reader.get("left").is_none() {
        return Ok(Due::Complete);
    }
    let lease = DetachedLease::decode(reader.text("lease")?)
        .map_err(|err| reader.corrupt("lease", err.to_string()))?;
    Ok(match LeaseRecord::read(item, lease.grants.len())? {
        LeaseRecord::Open(until) if until > now => Due::Extended(until),
        record => Due::Unsettled(Box::new((lease, record))),
    })
}

impl Left {
    /// The record says that this is left, in the words of the settlement that recorded it.
    pub(super) fn is_still(&self, by: &str) -> Condition {
        let left = (!self.is_empty()).then(|| Value::S(self.encode()));
        Condition::All(vec![
            Condition::Is("state".into(), Value::text(ENDED)),
            Condition::Is("by".into(), Value::text(by)),
            Condition::same("left".into(), left),
        ])
    }
}
