//! A table in memory: the plainest reading of what [`Op`] means.
//!
//! Deterministic, single-threaded and stricter than it needs to be: what DynamoDB refuses as malformed is
//! refused here too, so tests catch it without a database. It has no time, no failures, no limits on
//! size or throughput, and its indexes are never stale; the simulator puts those around it.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{
    Answer, Applied, Attr, Cancelled, Condition, Delete, FailureKind, Index, Item, Key, Op, Part, Put, Query,
    TableError, Update, Value,
};

/// The attributes that are keys of the table or of an index, which hold texts only.
const KEY_ATTRIBUTES: [&str; 10] = [
    "PK", "SK", "GSI1PK", "GSI1SK", "GSI2PK", "GSI2SK", "GSI3PK", "GSI3SK", "GSI4PK", "GSI4SK",
];

/// The largest number of 38 digits, which is as many as a number may have.
const LARGEST: u128 = 10_u128.pow(38) - 1;

/// How many parts a transaction may have, and keys a batch read.
const MOST_PARTS: usize = 100;

/// How many keys a batch delete may have.
const MOST_DELETES: usize = 25;

/// A table in memory.
///
/// ```
/// use zae_limiter_core::memory::MemoryTable;
/// use zae_limiter_core::table::{Answer, Key, Op, Update, Value};
///
/// let mut table = MemoryTable::new();
/// let mut update = Update::new(Key { pk: "p".into(), sk: "s".into() });
/// update.add.push(("n".into(), 3));
/// table.call(&Op::Update(update.clone()))?;
/// let Answer::Applied(Some(item)) = table.call(&Op::Update(update))? else { panic!("not applied") };
/// assert_eq!(item["n"], Value::int(6));
/// # Ok::<(), zae_limiter_core::table::TableError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryTable {
    items: BTreeMap<Key, Item>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The item with this key.
    pub fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// All items, in the order of their keys.
    pub fn items(&self) -> impl Iterator<Item = (&Key, &Item)> {
        self.items.iter()
    }

    /// Writes an item past all conditions, and returns the one it replaces.
    ///
    /// # Errors
    /// An item that lacks a key or has a malformed one is refused.
    pub fn insert(&mut self, item: Item) -> Result<Option<Item>, TableError> {
        let key = key_of(&item)?;
        check_item(&item)?;
        Ok(self.items.insert(key, item))
    }

    /// Takes an item out past all conditions.
    pub fn remove(&mut self, key: &Key) -> Option<Item> {
        self.items.remove(key)
    }

    /// Answers one request.
    ///
    /// # Errors
    /// Only [`FailureKind::BadRequest`], for what DynamoDB would refuse as malformed; nothing is written then.
    pub fn call(&mut self, op: &Op) -> Result<Answer, TableError> {
        match op {
            Op::Get { key, .. } => {
                check_key(key)?;
                Ok(Answer::Item(self.items.get(key).cloned()))
            }
            Op::BatchGet { keys, .. } => {
                check_batch(keys, MOST_PARTS)?;
                Ok(Answer::Items(
                    keys.iter()
                        .filter_map(|key| self.items.get(key))
                        .cloned()
                        .collect(),
                ))
            }
            Op::Query(query) => self.query(query),
            Op::Put(put) => self.write(Write::Put(put)),
            Op::Update(update) => self.write(Write::Update(update)),
            Op::Delete(delete) => self.write(Write::Delete(delete)),
            Op::BatchDelete(keys) => {
                check_batch(keys, MOST_DELETES)?;
                for key in keys {
                    self.items.remove(key);
                }
                Ok(Answer::Applied(None))
            }
            Op::Transact(parts) => self.transact(parts),
        }
    }

    /// Where the items of a query are: those of the table itself lie together, from the start of the page on.
    fn candidates(&self, query: &Query) -> Box<dyn Iterator<Item = &Item> + '_> {
        if query.index != Index::Primary {
            return Box::new(self.items.values());
        }
        let start = query.start.as_ref().filter(|_| !query.descending);
        let first = Key {
            pk: query.hash.clone(),
            sk: start
                .and_then(|start| text(start, "SK"))
                .unwrap_or_default()
                .into(),
        };
        let pk = query.hash.clone();
        let of_partition = self.items.range(first..).take_while(move |(key, _)| key.pk == pk);
        Box::new(of_partition.map(|(_, item)| item))
    }

    /// How many items a page is made of, with the one at which it starts; all of them if they are not in the order of the query.
    fn most_of_page(&self, query: &Query) -> usize {
        match query.limit {
            Some(limit) if query.index == Index::Primary && !query.descending => limit as usize + 1,
            _ => self.items.len(),
        }
    }

    fn query(&self, query: &Query) -> Result<Answer, TableError> {
        if query.limit == Some(0) {
            return Err(malformed("a page of no items was asked for"));
        }
        if query.consistent && query.index != Index::Primary {
            return Err(malformed("only the primary index can be read consistently"));
        }
        let (hash, range) = index_keys(query.index);
        let mut found: Vec<(Position<'_>, &Item)> = self
            .candidates(query)
            .filter_map(|item| Some((position(item, range)?, item)))
            .filter(|(at, item)| text(item, hash) == Some(&query.hash) && query.sort.contains(at.0))
            .take(self.most_of_page(query))
            .collect();
        found.sort_by_key(|(at, _)| *at);
        if query.descending {
            found.reverse();
        }
        if let Some(start) = &query.start {
            let start = position(start, range).ok_or_else(|| malformed("the start of a page lacks a key"))?;
            found.retain(|(at, _)| {
                if query.descending {
                    *at < start
                } else {
                    *at > start
                }
            });
        }
        // As in DynamoDB, a page that is full has a next one, which can be empty.
        let limit = query.limit.map_or(usize::MAX, |limit| limit as usize);
        let full = found.len() >= limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| full)
            .map(|(_, item)| only(item, &["PK", "SK", hash, range]));
        let keys_only = matches!(query.index, Index::Gsi3 | Index::Gsi4);
        let project = |item: &Item| {
            if keys_only {
                only(item, &["PK", "SK", hash, range])
            } else {
                item.clone()
            }
        };
        Ok(Answer::Page {
            items: found.into_iter().map(|(_, item)| project(item)).collect(),
            next,
        })
    }

    fn write(&mut self, write: Write<'_>) -> Result<Answer, TableError> {
        write.check()?;
        match self.prepare(write) {
            Outcome::Refused(item) => Ok(Answer::Refused(item)),
            Outcome::Impossible(err) => Err(err),
            Outcome::Fine(change) => {
                let image = match (write, &change) {
                    (Write::Update(_), Change::Store(item)) => Some(item.clone()),
                    _ => None,
                };
                self.commit(write.key()?, change);
                Ok(Answer::Applied(image))
            }
        }
    }

    /// The parts are about different items, so each can be judged by the table as it was before.
    fn transact(&mut self, parts: &[Part]) -> Result<Answer, TableError> {
        if parts.is_empty() || parts.len() > MOST_PARTS {
            return Err(malformed("a transaction has between 1 and 100 parts"));
        }
        let mut keys = BTreeSet::new();
        for part in parts {
            let write = Write::from(part);
            write.check()?;
            write.check_in_transaction()?;
            if !keys.insert(write.key()?) {
                return Err(malformed("two parts of a transaction are about one item"));
            }
        }
        let outcomes: Vec<_> = parts.iter().map(|part| self.prepare(part.into())).collect();
        if outcomes
            .iter()
            .any(|outcome| !matches!(outcome, Outcome::Fine(_)))
        {
            let reason = |outcome| match outcome {
                Outcome::Fine(_) => Cancelled::Fine,
                Outcome::Refused(item) => Cancelled::Refused(item),
                Outcome::Impossible(_) => Cancelled::Other("ValidationError".to_owned()),
            };
            return Ok(Answer::Cancelled(outcomes.into_iter().map(reason).collect()));
        }
        for (part, outcome) in parts.iter().zip(outcomes) {
            if let Outcome::Fine(change) = outcome {
                self.commit(Write::from(part).key()?, change);
            }
        }
        Ok(Answer::Applied(None))
    }

    /// The effect that a well-formed write would have now. Changes nothing.
    fn prepare(&self, write: Write<'_>) -> Outcome {
        let key = match write.key() {
            Ok(key) => key,
            Err(err) => return Outcome::Impossible(err),
        };
        let stored = self.items.get(&key);
        if !write.condition().holds(stored) {
            return Outcome::Refused(stored.cloned());
        }
        Outcome::Fine(match write {
            Write::Put(put) => Change::Store(put.item.clone()),
            Write::Delete(_) => Change::Remove,
            Write::Check(..) => Change::Nothing,
            Write::Update(update) => {
                let mut item = stored.cloned().unwrap_or_else(|| {
                    Item::from([
                        ("PK".to_owned(), Value::text(&*key.pk)),
                        ("SK".to_owned(), Value::text(key.sk.as_str())),
                    ])
                });
                match change(update, &mut item) {
                    Ok(()) => Change::Store(item),
                    Err(err) => return Outcome::Impossible(err),
                }
            }
        })
    }

    fn commit(&mut self, key: Key, change: Change) {
        match change {
            Change::Store(item) => drop(self.items.insert(key, item)),
            Change::Remove => drop(self.items.remove(&key)),
            Change::Nothing => {}
        }
    }
}

/// One write, alone or as a part of a transaction.
#[derive(Clone, Copy)]
enum Write<'a> {
    Put(&'a Put),
    Update(&'a Update),
    Delete(&'a Delete),
    Check(&'a Key, &'a Condition),
}

impl<'a> From<&'a Part> for Write<'a> {
    fn from(part: &'a Part) -> Self {
        match part {
            Part::Put(put) => Self::Put(put),
            Part::Update(update) => Self::Update(update),
            Part::Delete(delete) => Self::Delete(delete),
            Part::Check(key, condition) => Self::Check(key, condition),
        }
    }
}

impl<'a> Write<'a> {
    fn key(self) -> Result<Key, TableError> {
        let key = match self {
            Self::Put(put) => return key_of(&put.item),
            Self::Update(update) => &update.key,
            Self::Delete(delete) => &delete.key,
            Self::Check(key, _) => key,
        };
        check_key(key)?;
        Ok(key.clone())
    }

    const fn condition(self) -> &'a Condition {
        match self {
            Self::Put(put) => &put.condition,
            Self::Update(update) => &update.condition,
            Self::Delete(delete) => &delete.condition,
            Self::Check(_, condition) => condition,
        }
    }

    /// Whether it is well formed, whatever is stored.
    fn check(self) -> Result<(), TableError> {
        self.key()?;
        match self {
            Self::Put(put) => check_item(&put.item)?,
            Self::Update(update) => check_update(update)?,
            Self::Delete(_) | Self::Check(..) => {}
        }
        if verdict(self.condition()) == Some(false) {
            return Err(malformed(
                "the condition can never hold: it asks for any of no alternatives",
            ));
        }
        Ok(())
    }

    fn check_in_transaction(self) -> Result<(), TableError> {
        match self {
            Self::Update(update) if names(update).next().is_none() => {
                Err(malformed("an update in a transaction must change something"))
            }
            Self::Check(_, condition) if verdict(condition) == Some(true) => {
                Err(malformed("a check in a transaction must have a condition"))
            }
            _ => Ok(()),
        }
    }
}

/// The outcome of a write.
enum Outcome {
    /// It may happen.
    Fine(Change),
    /// Its condition does not hold. The stored item.
    Refused(Option<Item>),
    /// The stored item cannot be changed so.
    Impossible(TableError),
}

/// The effect of a write on the table.
enum Change {
    Store(Item),
    Remove,
    Nothing,
}

/// Where an item is in an index: its sort key there, then its primary key.
type Position<'a> = (&'a str, &'a str, &'a str);

fn position<'a>(item: &'a Item, range: &str) -> Option<Position<'a>> {
    Some((text(item, range)?, text(item, "PK")?, text(item, "SK")?))
}

fn text<'a>(item: &'a Item, attr: &str) -> Option<&'a str> {
    item.get(attr).and_then(Value::as_text)
}

const fn index_keys(index: Index) -> (&'static str, &'static str) {
    match index {
        Index::Primary => ("PK", "SK"),
        Index::Gsi1 => ("GSI1PK", "GSI1SK"),
        Index::Gsi2 => ("GSI2PK", "GSI2SK"),
        Index::Gsi3 => ("GSI3PK", "GSI3SK"),
        Index::Gsi4 => ("GSI4PK", "GSI4SK"),
    }
}

fn only(item: &Item, attrs: &[&str]) -> Item {
    item.iter()
        .filter(|(name, _)| attrs.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// Applies an update, or says why DynamoDB would not.
fn change(update: &Update, item: &mut Item) -> Result<(), TableError> {
    for (attr, delta) in &update.add {
        let old = match item.get(attr.as_str()) {
            None => 0,
            Some(value) => {
                let old = value.as_int();
                old.ok_or_else(|| malformed(&format!("cannot add to '{attr}', which is not a whole number")))?
            }
        };
        if old
            .checked_add(*delta)
            .is_none_or(|sum| sum.unsigned_abs() > LARGEST)
        {
            return Err(malformed(&format!("'{attr}' would have more than 38 digits")));
        }
    }
    for (attr, _) in update.add_to_set.iter().chain(&update.delete_from_set) {
        if item
            .get(attr.as_str())
            .is_some_and(|value| !matches!(value, Value::Ss(_)))
        {
            return Err(malformed(&format!("'{attr}' is not a set of strings")));
        }
    }
    update.apply(item);
    Ok(())
}

fn names(update: &Update) -> impl Iterator<Item = &str> {
    let of_set = update.set.iter().map(|(attr, _)| attr.as_str());
    let of_copy = update.copy.iter().map(|(attr, _)| attr.as_str());
    let of_add = update.add.iter().map(|(attr, _)| attr.as_str());
    let of_remove = update.remove.iter().map(Attr::as_str);
    of_set
        .chain(of_copy)
        .chain(of_add)
        .chain(of_remove)
        .chain(texts(&update.add_to_set))
        .chain(texts(&update.delete_from_set))
}

/// The attributes of a change of sets; one that takes several texts counts once.
fn texts(parts: &[(Attr, String)]) -> impl Iterator<Item = &str> {
    parts
        .iter()
        .map(|(attr, _)| attr.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
}

fn key_of(item: &Item) -> Result<Key, TableError> {
    let part = |attr| text(item, attr).ok_or_else(|| malformed(&format!("an item lacks its key {attr}")));
    let key = Key {
        pk: part("PK")?.to_owned(),
        sk: part("SK")?.into(),
    };
    check_key(&key)?;
    Ok(key)
}

fn check_key(key: &Key) -> Result<(), TableError> {
    if key.pk.is_empty() || key.sk.is_empty() {
        return Err(malformed("a key must not be empty"));
    }
    Ok(())
}

fn check_batch(keys: &[Key], most: usize) -> Result<(), TableError> {
    keys.iter().try_for_each(check_key)?;
    if keys.len() > most {
        return Err(malformed(&format!("a batch has at most {most} keys")));
    }
    if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
        return Err(malformed("a key comes twice in a batch"));
    }
    Ok(())
}

fn check_item(item: &Item) -> Result<(), TableError> {
    item.iter().try_for_each(|(attr, value)| check_value(attr, value))
}

fn check_value(attr: &str, value: &Value) -> Result<(), TableError> {
    if KEY_ATTRIBUTES.contains(&attr) && value.as_text().is_none_or(str::is_empty) {
        return Err(malformed(&format!(
            "'{attr}' is a key, which must be a text that is not empty"
        )));
    }
    match value {
        Value::Ss(set) if set.is_empty() => Err(malformed(&format!("'{attr}' is an empty set"))),
        Value::Other => Err(malformed(&format!(
            "'{attr}' is of a type that cannot be written"
        ))),
        Value::N(digits) if !is_number(digits) => {
            Err(malformed(&format!("'{attr}' is not a number: {digits}")))
        }
        Value::M(map) => map.values().try_for_each(|value| check_value("", value)),
        Value::L(list) => list.iter().try_for_each(|value| check_value("", value)),
        _ => Ok(()),
    }
}

/// A decimal number of at most 38 digits, zeros at either end not counted.
fn is_number(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    text.parse::<f64>().is_ok_and(f64::is_finite) && digits.trim_matches('0').len() <= 38
}

fn check_update(update: &Update) -> Result<(), TableError> {
    let mut seen = BTreeSet::new();
    for attr in names(update) {
        if attr == "PK" || attr == "SK" {
            return Err(malformed("an update must not name the primary key"));
        }
        if !seen.insert(attr) {
            return Err(malformed(&format!("an update names '{attr}' twice")));
        }
    }
    update
        .set
        .iter()
        .try_for_each(|(attr, value)| check_value(attr, value))
}

/// The result of a condition that does not depend on the item, if there is one.
fn verdict(condition: &Condition) -> Option<bool> {
    let (parts, decisive) = match condition {
        Condition::All(parts) => (parts, false),
        Condition::Any(parts) => (parts, true),
        _ => return None,
    };
    let verdicts = parts.iter().map(verdict);
    let undecided = verdicts.clone().any(|verdict| verdict.is_none());
    if verdicts.flatten().any(|verdict| verdict == decisive) {
        return Some(decisive);
    }
    (!undecided).then_some(!decisive)
}

fn malformed(message: &str) -> TableError {
    TableError::new(FailureKind::BadRequest, Applied::No, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sk: &str) -> Key {
        Key {
            pk: "p".into(),
            sk: sk.into(),
        }
    }

    #[track_caller]
    fn check_refused(op: &Op, reason: &str) {
        let mut table = MemoryTable::new();
        table
            .insert(Item::from([
                ("PK".into(), Value::text("p")),
                ("SK".into(), Value::text("s")),
            ]))
            .unwrap();
        let before = table.clone();
        let err = table.call(op).unwrap_err();
        assert!(err.message.contains(reason), "{err}");
        assert_eq!(table, before, "a malformed request changes nothing");
    }

    #[test]
    fn what_dynamodb_calls_malformed_is_malformed_here() {
        let update = Update::new(key("s"));
        check_refused(
            &Op::Update(Update {
                remove: vec!["SK".into()],
                ..update.clone()
            }),
            "primary key",
        );
        let twice = Update {
            add: vec![("n".into(), 1)],
            remove: vec!["n".into()],
            ..update.clone()
        };
        check_refused(&Op::Update(twice), "twice");
        let empty = Update {
            set: vec![("s".into(), Value::Ss(BTreeSet::new()))],
            ..update.clone()
        };
        check_refused(&Op::Update(empty), "empty set");
        check_refused(
            &Op::BatchGet {
                keys: vec![key("a"), key("a")],
                consistent: false,
            },
            "twice",
        );
        check_refused(
            &Op::Put(Put {
                item: Item::new(),
                condition: Condition::ALWAYS,
            }),
            "lacks its key PK",
        );
        let never = Condition::All(vec![Condition::Any(Vec::new())]);
        check_refused(
            &Op::Delete(Delete {
                key: key("s"),
                condition: never,
            }),
            "never hold",
        );
        let put = Part::Update(Update {
            add: vec![("n".into(), 1)],
            ..update
        });
        let bad = Part::Check(key("other"), Condition::ALWAYS);
        check_refused(&Op::Transact(vec![put, bad]), "must have a condition");
    }
}
