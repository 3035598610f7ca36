//! A bucket item, read plainly: the account's own reading, independent of the code under test.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::table::{Item, Key, Op, Part, Update, Value};

use super::terms::{PARTS, Params, Regain, Terms};

/// The reserved limit; its units are the table's, not a caller's.
pub const WCU: &str = "wcu";

/// One limit on an item, in millitokens and milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Balance.
    pub tk: i128,
    /// Net consumption.
    pub tc: i128,
    /// Capacity of the whole bucket.
    pub cp: i128,
    /// Refill of the whole bucket per period.
    pub ra: i128,
    /// The period.
    pub rp: i128,
    /// The schedule, and how the balance comes back.
    pub terms: Terms,
    /// Of a quota or a session limit: of how many shards this one was granted its part as one.
    pub granted: i128,
    /// What was added to that part.
    pub extra: i128,
}

impl Cell {
    /// The parameters as stored.
    pub fn base(&self) -> Params {
        Params {
            cp: self.cp,
            ra: self.ra,
            rp: self.rp,
        }
    }

    /// Whether it is a quota or a session limit.
    pub fn has_periods(&self) -> bool {
        self.terms.regain != Regain::Rate
    }

    /// What one of `count` shards may hold at an instant.
    pub fn share(&self, count: i128, at: i64) -> i128 {
        self.terms.in_force(self.base(), at).cp / count
    }

    /// The most that the shard may hold of a quota or a session limit at an instant, until it is whole again: its part as it was
    /// granted. `None` if that is not known, as the times of reset are gone: then nothing is cut.
    pub fn part(&self, at: i64) -> Option<i128> {
        (self.terms.regain != Regain::Never).then(|| self.share(self.granted, at) + self.extra)
    }

    /// What one of `count` shards earns from one instant to another, in millitokens, if nothing is cut.
    pub fn earned(&self, count: i128, from: i64, to: i64) -> i128 {
        if self.terms.is_scheduled() {
            self.terms.earned(self.base(), count, from, to)
        } else {
            i128::from((to - from).max(0)) * (self.ra / count) / self.rp
        }
    }

    /// What one of `count` shards holds at `to`, with this fraction in [`PARTS`], as earned since `from`.
    pub fn refilled(&self, count: i128, fraction: i128, times: (i64, i64)) -> i128 {
        let level = self.tk * PARTS + fraction;
        self.terms.refilled(self.base(), count, level, times)
    }
}

/// A bucket item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Refill instant.
    pub rf: i64,
    /// Shard count.
    pub count: i128,
    /// Until when it may be spent without a refill; 0 forces one.
    pub vu: Option<i64>,
    /// Expiry in epoch seconds.
    pub ttl: Option<i64>,
    /// Whether it is disabled.
    pub disabled: bool,
    /// Until when every request is admitted and counted.
    pub bypass: Option<i64>,
    /// The last credit's mark.
    pub receipt: Option<String>,
    /// The application's limits.
    pub limits: BTreeMap<String, Cell>,
    /// Balances without parameters.
    pub debris: BTreeSet<String>,
}

impl Row {
    /// Reads an item.
    ///
    /// # Errors
    /// Names the attribute that is missing or malformed.
    pub fn read(item: &Item) -> Result<Self, String> {
        let int = |name: &str| -> Result<Option<i128>, String> {
            match item.get(name) {
                None => Ok(None),
                Some(value) => value
                    .as_int()
                    .map(Some)
                    .ok_or_else(|| format!("'{name}' is not an integer: {value:?}")),
            }
        };
        let need = |name: &str| int(name)?.ok_or_else(|| format!("'{name}' is missing"));
        let mut row = Self {
            rf: need("rf")? as i64,
            count: int("shard_count")?.unwrap_or(1),
            vu: int("vu")?.map(|n| n as i64),
            ttl: int("ttl")?.map(|n| n as i64),
            disabled: item.get("disabled").and_then(Value::as_bool).unwrap_or(false),
            bypass: int("bypass")?.map(|n| n as i64),
            receipt: item.get("cr").and_then(Value::as_text).map(str::to_owned),
            limits: BTreeMap::new(),
            debris: BTreeSet::new(),
        };
        for attr in item.keys() {
            let Some(name) = attr.strip_prefix("b_").and_then(|rest| rest.strip_suffix("_tk")) else {
                continue;
            };
            let part = |part: &str| need(&format!("b_{name}_{part}"));
            if !item.contains_key(&format!("b_{name}_cp")) {
                row.debris.insert(name.to_owned());
            } else if name != WCU {
                let (tk, cp) = (part("tk")?, part("cp")?);
                let cell = Cell {
                    tk,
                    tc: part("tc")?,
                    cp,
                    ra: part("ra")?,
                    rp: part("rp")?,
                    terms: Terms::read(item, name, part("ra")?)?,
                    // Without it, the limit was a rate before, or is from before this was stored.
                    granted: int(&format!("b_{name}_gc"))?.unwrap_or(row.count.max(1)),
                    extra: int(&format!("b_{name}_tu"))?.unwrap_or(0),
                };
                row.limits.insert(name.to_owned(), cell);
            }
        }
        Ok(row)
    }

    /// The most that the shard may hold of a limit at its refill instant.
    pub fn ceiling(&self, cell: &Cell) -> i128 {
        cell.share(self.count, self.rf)
    }
}

/// The bucket and shard of a key, if it is a bucket's.
pub fn bucket_of(key: &Key) -> Option<(&str, u32)> {
    if key.sk != "#STATE" || !key.pk.contains("/BUCKET#") {
        return None;
    }
    let (bucket, shard) = key.pk.rsplit_once('#')?;
    Some((bucket, shard.parse().ok()?))
}

/// The keys that an operation would write.
pub fn written(op: &Op) -> Vec<Key> {
    let of_item = |item: &Item| Key {
        pk: item
            .get("PK")
            .and_then(Value::as_text)
            .unwrap_or_default()
            .to_owned(),
        sk: item.get("SK").and_then(Value::as_text).unwrap_or_default().into(),
    };
    match op {
        Op::Put(put) => vec![of_item(&put.item)],
        Op::Update(update) => vec![update.key.clone()],
        Op::Delete(delete) => vec![delete.key.clone()],
        Op::BatchDelete(keys) => keys.clone(),
        Op::Transact(parts) => parts
            .iter()
            .filter_map(|part| match part {
                Part::Put(put) => Some(of_item(&put.item)),
                Part::Update(update) => Some(update.key.clone()),
                Part::Delete(delete) => Some(delete.key.clone()),
                Part::Check(..) => None,
            })
            .collect(),
        Op::Get { .. } | Op::BatchGet { .. } | Op::Query(_) => Vec::new(),
    }
}

/// What an operation would add to each limit's net consumption: bucket, limit, millitokens.
pub fn costs(op: &Op) -> Vec<(String, String, i128)> {
    match op {
        Op::Update(update) => update_costs(update).collect(),
        Op::Transact(parts) => parts.iter().flat_map(part_costs).collect(),
        _ => Vec::new(),
    }
}

fn part_costs(part: &Part) -> Vec<(String, String, i128)> {
    match part {
        Part::Update(update) => update_costs(update).collect(),
        Part::Put(put) => {
            let pk = put.item.get("PK").and_then(Value::as_text).unwrap_or_default();
            let cost = |(attr, value): (&String, &Value)| cost(pk, attr, value.as_int()?);
            put.item.iter().filter_map(cost).collect()
        }
        Part::Delete(_) | Part::Check(..) => Vec::new(),
    }
}

fn update_costs(update: &Update) -> impl Iterator<Item = (String, String, i128)> {
    let added = update.add.iter().map(|(attr, amount)| (attr, Some(*amount)));
    let set = update.set.iter().map(|(attr, value)| (attr, value.as_int()));
    added
        .chain(set)
        .filter_map(|(attr, amount)| cost(&update.key.pk, attr, amount?))
}

fn cost(pk: &str, attr: &str, amount: i128) -> Option<(String, String, i128)> {
    let name = attr.strip_prefix("b_")?.strip_suffix("_tc")?;
    let (bucket, _) = pk.rsplit_once('#')?;
    (name != WCU && amount != 0).then(|| (bucket.to_owned(), name.to_owned(), amount))
}
