//! Namespace records and the table's version record. Data model, sections 4 and 5.

use std::fmt;

use crate::error::RecordError;
use crate::name::{NamespaceId, NamespaceName};
use crate::record::Reader;
use crate::schema::{
    SCHEMA_VERSION, TABLE_PK, add_namespace_index, key_item, namespace_id_key, namespace_key, version_key,
};
use crate::table::{Condition, Item, Part, Put, Value};
use crate::units::EpochMillis;

/// The two records of a new namespace, to be written in one transaction: each only if its key is free.
pub fn register(name: &NamespaceName, id: &NamespaceId, now: EpochMillis) -> Vec<Part> {
    let record = |key| {
        let mut item = key_item(&key);
        item.insert("namespace_id".into(), Value::text(id.as_str()));
        item.insert("namespace_name".into(), Value::text(name.as_str()));
        item.insert("status".into(), Value::text("active"));
        item.insert("created_at".into(), Value::S(now.to_text()));
        add_namespace_index(&mut item, "_", TABLE_PK);
        Part::Put(Put {
            item,
            condition: Condition::Absent("PK".into()),
        })
    };
    vec![record(namespace_key(name)), record(namespace_id_key(id))]
}

/// The id in a forward record, unless the namespace is deleted or being purged.
pub fn active_id(item: &Item) -> Result<Option<NamespaceId>, RecordError> {
    let reader = Reader::new("namespace", item);
    if matches!(reader.text_opt("status")?, Some("deleted" | "purging")) {
        return Ok(None);
    }
    crate::config::stored_name(&reader, "namespace_id", |text| NamespaceId::new(text)).map(Some)
}

/// A version `a.b.c`; anything behind it is a prerelease and comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    parts: [u32; 3],
    released: bool,
}

impl Version {
    /// A released version.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            parts: [major, minor, patch],
            released: true,
        }
    }

    /// Reads `1.2.3`, `v1.2.3`, `1.2.3-rc1` or `1.2.3.dev4`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().strip_prefix('v').unwrap_or(text.trim());
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (release, rest) = text.split_at(end);
        let numbers: Vec<u32> = release
            .trim_end_matches('.')
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let parts = <[u32; 3]>::try_from(numbers).ok()?;
        Some(Self {
            parts,
            released: rest.is_empty(),
        })
    }

    /// The first number.
    pub const fn major(self) -> u32 {
        self.parts[0]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.parts;
        write!(
            f,
            "{major}.{minor}.{patch}{}",
            if self.released { "" } else { "-pre" }
        )
    }
}

/// The features of the shared format that this client honours, as the release that introduced them.
///
/// A table whose `client_min_version` is above this may hold what only newer clients can evaluate.
pub const FEATURE_LEVEL: Version = Version::new(0, 14, 0);

/// Why a table cannot be used by this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incompatible {
    /// The table demands clients of at least this version.
    ClientTooOld(String),
    /// The table has another schema.
    Schema(String),
}

/// Checks a version record.
pub fn check_version(item: &Item) -> Result<Option<Incompatible>, RecordError> {
    let reader = Reader::new("version", item);
    let schema = reader.text_opt("schema_version")?.unwrap_or("1.0.0");
    let ours = Version::parse(SCHEMA_VERSION).map(Version::major);
    if Version::parse(schema).map(Version::major) != ours {
        return Ok(Some(Incompatible::Schema(schema.to_owned())));
    }
    let minimum = reader.text_opt("client_min_version")?.unwrap_or("0.0.0");
    let too_old = Version::parse(minimum).is_some_and(|minimum| minimum > FEATURE_LEVEL);
    Ok(too_old.then(|| Incompatible::ClientTooOld(minimum.to_owned())))
}

/// The version record of a table that has none. Written only if absent: its minimum is never lowered.
pub fn first_version(updated_by: &str, now: EpochMillis) -> Put {
    let mut item = key_item(&version_key());
    item.insert("schema_version".into(), Value::text(SCHEMA_VERSION));
    item.insert("client_min_version".into(), Value::text("0.0.0"));
    item.insert("lambda_version".into(), Value::Null);
    item.insert("updated_at".into(), Value::S(now.to_text()));
    item.insert("updated_by".into(), Value::text(updated_by));
    add_namespace_index(&mut item, "_", TABLE_PK);
    Put {
        item,
        condition: Condition::Absent("PK".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_prereleases_come_first() {
        let parse = |text| Version::parse(text).unwrap();
        assert!(parse("0.9.0") < parse("0.10.0"));
        assert!(parse("0.15.0.dev3") < parse("0.15.0"));
        assert_eq!(parse("v1.2.3"), Version::new(1, 2, 3));
        for bad in ["", "1.2", "one.two.three", "1.2.3.4", "99999999999.0.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_table_that_demands_more_is_refused() {
        let mut item = first_version("test", EpochMillis(0)).item;
        assert_eq!(check_version(&item), Ok(None));
        item.insert("client_min_version".into(), Value::text("0.15.0"));
        assert_eq!(
            check_version(&item),
            Ok(Some(Incompatible::ClientTooOld("0.15.0".into())))
        );
        item.insert("schema_version".into(), Value::text("1.0.0"));
        assert_eq!(
            check_version(&item),
            Ok(Some(Incompatible::Schema("1.0.0".into())))
        );
    }
}
