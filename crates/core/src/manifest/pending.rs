//! Live buckets that must still be updated after a change of their level: one record for each level.
//!
//! A record is written with the change that makes it necessary, and deleted when the buckets have been updated. Each
//! apply that owes the work has its share in it, with a lease: the instant after which the apply certainly does not run
//! any more. Shares are only ever taken back by their owner or, once the lease has expired, by the apply that has done
//! the work.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::target::Target;
use crate::name::NamespaceId;
use crate::schema::{add_namespace_index, key_item, key_of, system_pk};
use crate::table::{Condition, Delete, Index, Item, Key, Part, Put, Query, Value};
use crate::units::EpochMillis;

/// The prefix of the sort keys of these records.
const PREFIX: &str = "#PROVISIONER#PENDING#";

/// What live buckets must take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Changed limits of an entity.
    Sync,
    /// Whether requests are refused or let through.
    Disabled,
    /// Whether the parent is debited.
    Cascade,
    /// Limits of a resource or the system that are not soft any more.
    Soft,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sync, Self::Disabled, Self::Cascade, Self::Soft];

    /// The word for it in records: `sync`, `disabled`, `cascade` or `soft`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Disabled => "disabled",
            Self::Cascade => "cascade",
            Self::Soft => "soft",
        }
    }

    fn is_of(self, target: &Target) -> bool {
        match target {
            Target::System => self == Self::Soft,
            Target::Resource(_) => self != Self::Sync,
            Target::Entity(..) => self != Self::Soft,
        }
    }
}

/// How long an apply may run that does not know how long it may, in milliseconds: as long as any function.
pub const LONGEST_RUN_MS: i64 = 900_000;

/// The time that is added to a lease for clocks that differ, in milliseconds.
pub const LEASE_MARGIN_MS: i64 = 60_000;

/// The attributes that say who owes the work, and what it is beyond the limits in force.
const OWNED: [&str; 5] = ["owners", "token", "lease_until_ms", "full", "stale"];

/// Reads all records of a namespace.
pub fn query(namespace: &NamespaceId) -> Query {
    Query::new(Index::Primary, system_pk(namespace))
        .prefix(PREFIX)
        .consistent()
}

/// The share of one apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Names the apply.
    pub token: String,
    /// When it is certainly gone; `None` reads as long ago.
    pub lease: Option<i64>,
    /// Whether it is of an apply that rewrites every level and had noted all buckets beforehand, as other clients'
    /// do: what it left behind is then all that is left. An apply of this release begins again instead.
    pub full: bool,
}

impl Share {
    fn expired(&self, now: EpochMillis) -> bool {
        self.lease.is_none_or(|lease| lease < now.0)
    }

    fn value(&self) -> Value {
        let mut share = Item::from([("full".to_owned(), Value::Bool(self.full))]);
        if let Some(lease) = self.lease {
            share.insert("lease".into(), Value::int(lease));
        }
        Value::M(share)
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    item: Item,
    /// The shares in the map.
    shares: Vec<Share>,
    /// The only share of a record in the form before there were several.
    single: Option<Share>,
}

impl Pending {
    /// Reads a record; `None` if the item is not one.
    pub fn decode(item: Item) -> Option<Self> {
        let key = key_of(&item)?;
        if !key.sk.starts_with(PREFIX) {
            return None;
        }
        let lease = |value: Option<&Value>| value.and_then(Value::as_int).and_then(|n| i64::try_from(n).ok());
        let truth = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        let shares = match item.get("owners") {
            Some(Value::M(owners)) => owners
                .iter()
                .map(|(token, share)| {
                    let share = match share {
                        Value::M(share) => share.clone(),
                        _ => Item::new(),
                    };
                    Share {
                        token: token.clone(),
                        lease: lease(share.get("lease")),
                        full: truth(share.get("full")),
                    }
                })
                .collect(),
            _ => Vec::new(),
        };
        let single = item.get("token").and_then(Value::as_text).map(|token| Share {
            token: token.to_owned(),
            lease: lease(item.get("lease_until_ms")),
            full: truth(item.get("full")),
        });
        Some(Self { item, shares, single })
    }

    /// What must be updated, and the level whose buckets they are; `None` for work that this release does not support.
    pub fn work(&self) -> Option<(Kind, Target)> {
        let text = |name| self.item.get(name).and_then(Value::as_text);
        let target = Target::parse(text("level")?, text("target")?)?;
        let word = text("kind")?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        kind.is_of(&target).then_some((kind, target))
    }

    /// Limits that the level no longer has, and that its buckets must lose.
    pub fn stale(&self) -> Vec<SmolStr> {
        match self.item.get("stale") {
            Some(Value::Ss(names)) => names.iter().map(SmolStr::new).collect(),
            _ => Vec::new(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Share> {
        self.shares.iter().chain(&self.single)
    }

    /// Whether it is left to others: to an apply that may still run, or to a release that knows the kind of work.
    pub fn is_of_others(&self, now: EpochMillis) -> bool {
        self.work().is_none() || !self.is_releasable("", now)
    }

    /// Whether an apply has a share in it.
    pub fn is_owned_by(&self, token: &str) -> bool {
        self.all().any(|share| share.token == token)
    }

    /// Whether a share may be removed after the work: an expired one, or this apply's; or there is none.
    pub fn is_releasable(&self, token: &str, now: EpochMillis) -> bool {
        self.all().next().is_none() || self.all().any(|share| share.token == token || share.expired(now))
    }

    /// The write after the work was done: takes back the apply's own share and those that have run out, and deletes
    /// the record with the last one.
    ///
    /// Guards that the shares are as they were read; if it is refused, another apply took one and will delete the
    /// record.
    pub fn release(&self, token: &str, now: EpochMillis) -> Option<Part> {
        let gone = |share: &Share| share.token == token || share.expired(now);
        let left: Vec<&Share> = self.shares.iter().filter(|share| !gone(share)).collect();
        let single_left = self.single.as_ref().is_some_and(|share| !gone(share));
        if left.is_empty() && !single_left {
            return Some(Part::Delete(Delete {
                key: key_of(&self.item)?,
                condition: self.unchanged(),
            }));
        }
        let mut item = self.item.clone();
        if !self.shares.is_empty() {
            item.insert("owners".into(), owners(left.into_iter()));
        }
        if !single_left {
            for name in ["token", "lease_until_ms", "full"] {
                item.remove(name);
            }
        }
        Some(Part::Put(Put {
            item,
            condition: self.unchanged(),
        }))
    }

    /// The write that ends an apply's lease over work that it could not do, so that the next one does it at once.
    ///
    /// Guards as [`release`](Self::release) does.
    pub fn expire(&self, token: &str, now: EpochMillis) -> Put {
        let ended = self.shares.iter().map(|share| {
            let mut share = share.clone();
            if share.token == token {
                share.lease = Some(now.0.saturating_sub(1));
                share.full = false;
            }
            share
        });
        let ended: Vec<Share> = ended.collect();
        let mut item = self.item.clone();
        item.insert("owners".into(), owners(ended.iter()));
        Put {
            item,
            condition: self.unchanged(),
        }
    }

    fn unchanged(&self) -> Condition {
        let same = |name: &&str| Condition::same(SmolStr::new(name), self.item.get(*name).cloned());
        let mut parts = vec![Condition::Exists("PK".into())];
        parts.extend(OWNED.iter().map(same));
        Condition::All(parts)
    }
}

fn owners<'a>(shares: impl Iterator<Item = &'a Share>) -> Value {
    let owners = shares.map(|share| (share.token.clone(), share.value()));
    Value::M(owners.collect::<BTreeMap<_, _>>())
}

/// The key of the record of a level whose live buckets must be updated.
pub fn key(namespace: &NamespaceId, kind: Kind, target: &Target) -> Key {
    let name = target.name().unwrap_or_default();
    Key {
        pk: system_pk(namespace),
        sk: format!("{PREFIX}{}#{}#{name}", kind.as_str(), target.level()).into(),
    }
}

/// The write that adds a share in the work of telling a level's live buckets, beside those of a record that is there.
///
/// Guards that the record is absent, or as it was read; refused, it must be read again.
pub fn owe(
    namespace: &NamespaceId,
    (kind, target): (Kind, &Target),
    share: &Share,
    stale: &[SmolStr],
    found: Option<&Pending>,
    now: EpochMillis,
) -> Put {
    let key = key(namespace, kind, target);
    let mut item = found.map_or_else(|| key_item(&key), |found| found.item.clone());
    add_namespace_index(&mut item, namespace.as_str(), &key.pk);
    item.insert("kind".into(), Value::text(kind.as_str()));
    item.insert("level".into(), Value::text(target.level()));
    item.insert("target".into(), Value::text(target.name().unwrap_or_default()));
    item.insert("written_ms".into(), Value::int(now.0));
    let known = found.map(|found| found.shares.clone()).unwrap_or_default();
    item.insert("owners".into(), owners(known.iter().chain([share])));
    let mut names: BTreeSet<String> = stale.iter().map(ToString::to_string).collect();
    names.extend(found.iter().flat_map(|found| found.stale()).map(String::from));
    if !names.is_empty() {
        item.insert("stale".into(), Value::Ss(names));
    }
    Put {
        item,
        condition: found.map_or_else(|| Condition::Absent("PK".into()), Pending::unchanged),
    }
}
