//! The table's version record, and whether this client may use the table. Data model, section 5.

mod gate;

use std::fmt;
use std::time::SystemTime;

pub use gate::{Gate, GateClosed, Gated};

use crate::error::RecordError;
use crate::records::reader::Reader;
use crate::schema::{SCHEMA_VERSION, TABLE_PK, add_namespace_index, key_item, version_key};
use crate::table::{Condition, Item, Put, Update, Value};
use crate::units::{EpochMillis, stored_time};

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
/// This is the client's version for comparisons with the version record, independent of its release. A table
/// whose `client_min_version` is above it may hold what only newer clients can evaluate.
pub const FEATURE_LEVEL: Version = Version::new(0, 17, 0);

/// The version of this project's functions in the version record.
///
/// Above any release of the Python original: a client of it pushes its own code over functions whose stored
/// version is below its own, which would leave ours without anything they could run. It says nothing of the
/// release that deployed them, which is the stack's tag `zae-limiter:version`.
pub const FUNCTIONS_LEVEL: &str = "0.99.0";

/// The version of a table's format, and its requirements on clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// The version of its format.
    pub schema: String,
    /// The oldest client that may use it.
    pub client_minimum: String,
    /// The version of its functions; `None` if unknown, or if it has none.
    pub functions: Option<String>,
    /// When this was last written, to the second. `None` if the stored time is missing or cannot be read.
    pub updated_at: Option<SystemTime>,
    /// The writer.
    pub updated_by: Option<String>,
}

/// Whether this client may use a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compatibility {
    /// It may.
    Compatible,
    /// It may; the table's functions, of this version, are older than the client.
    FunctionsOutdated(String),
    /// The table demands clients of at least this version.
    ClientTooOld(String),
    /// The table's format has this version, of another major number.
    Schema(String),
    /// The version of the table's format is this text, which is not a version.
    Unreadable(String),
}

impl Compatibility {
    /// Why the client may not use the table, with versions; `None` if it may.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Compatible | Self::FunctionsOutdated(_) => None,
            Self::ClientTooOld(minimum) => Some(format!(
                "Client version {FEATURE_LEVEL} is below minimum required version {minimum}. Please upgrade."
            )),
            Self::Schema(schema) => {
                let major = |text| Version::parse(text).map_or(0, Version::major);
                Some(format!(
                    "Schema version mismatch: client major version {} != schema major version {}. Schema \
                     migration required.",
                    FEATURE_LEVEL.major(),
                    major(schema)
                ))
            }
            Self::Unreadable(schema) => Some(format!("Invalid schema version: {schema}")),
        }
    }
}

impl VersionRecord {
    /// Reads a version item. Missing parts read as schema `1.0.0` and minimum `0.0.0`.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("version", item);
        let text = |attr| Ok::<_, RecordError>(reader.text_opt(attr)?.map(str::to_owned));
        Ok(Self {
            schema: text("schema_version")?.unwrap_or_else(|| "1.0.0".into()),
            client_minimum: text("client_min_version")?.unwrap_or_else(|| "0.0.0".into()),
            functions: text("lambda_version")?,
            updated_at: reader.text_opt("updated_at")?.and_then(stored_time),
            updated_by: text("updated_by")?,
        })
    }

    /// Whether this client may use the table.
    pub fn compatibility(&self) -> Compatibility {
        let Some(schema) = Version::parse(&self.schema) else {
            return Compatibility::Unreadable(self.schema.clone());
        };
        // A minimum that is not a version demands nothing.
        if Version::parse(&self.client_minimum).is_some_and(|minimum| minimum > FEATURE_LEVEL) {
            return Compatibility::ClientTooOld(self.client_minimum.clone());
        }
        if schema.major() != FEATURE_LEVEL.major() {
            return Compatibility::Schema(self.schema.clone());
        }
        match &self.functions {
            Some(text) if Version::parse(text).is_none_or(|version| version.parts < FEATURE_LEVEL.parts) => {
                Compatibility::FunctionsOutdated(text.clone())
            }
            _ => Compatibility::Compatible,
        }
    }
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

/// The write of a deployment to the version record that it found; `functions` is the version of those it deployed,
/// if it did.
///
/// Lowers nothing: a schema or functions of a higher version stay, and so does the oldest client that may use the
/// table. Guards that these have not changed since.
pub fn deployed(
    found: Option<&Item>,
    functions: Option<&str>,
    updated_by: &str,
    now: EpochMillis,
) -> Result<DeploymentWrite, RecordError> {
    let Some(found) = found else {
        let mut put = first_version(updated_by, now);
        if let Some(version) = functions {
            put.item.insert("lambda_version".into(), Value::text(version));
        }
        return Ok(DeploymentWrite::First(put));
    };
    let record = VersionRecord::decode(found)?;
    let mut update = Update::new(version_key());
    let mut set = |name: &'static str, value| update.set.push((name.into(), value));
    if !is_above(Some(&record.schema), SCHEMA_VERSION) || !found.contains_key("schema_version") {
        set("schema_version", Value::text(SCHEMA_VERSION));
    }
    if !found.contains_key("client_min_version") {
        set("client_min_version", Value::text("0.0.0"));
    }
    match functions {
        Some(version) if !is_above(record.functions.as_deref(), version) => {
            set("lambda_version", Value::text(version));
        }
        None if !found.contains_key("lambda_version") => set("lambda_version", Value::Null),
        _ => {}
    }
    set("updated_at", Value::S(now.to_text()));
    set("updated_by", Value::text(updated_by));
    let mut index = Item::new();
    add_namespace_index(&mut index, "_", TABLE_PK);
    update
        .set
        .extend(index.into_iter().map(|(name, value)| (name.into(), value)));
    let same = |name: &str| Condition::same(name.into(), found.get(name).cloned());
    update.condition = Condition::All(
        ["schema_version", "client_min_version", "lambda_version"]
            .map(same)
            .to_vec(),
    );
    Ok(DeploymentWrite::Again(update))
}

/// Whether a stored version is above another. One that cannot be read is not.
fn is_above(stored: Option<&str>, other: &str) -> bool {
    match (stored.and_then(Version::parse), Version::parse(other)) {
        (Some(stored), Some(other)) => stored > other,
        _ => false,
    }
}

/// A write of the version record.
#[derive(Debug, Clone, PartialEq)]
pub enum DeploymentWrite {
    /// Of a table that had none.
    First(Put),
    /// Over what is there.
    Again(Update),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_lowers_nothing() {
        let again = |changes: &[(&str, Option<&str>)], functions| {
            let mut item = first_version("test", EpochMillis(0)).item;
            for (attr, text) in changes {
                match text {
                    Some(text) => item.insert((*attr).into(), Value::text(*text)),
                    None => item.remove(*attr),
                };
            }
            let now = EpochMillis(1_795_290_198_000);
            let DeploymentWrite::Again(update) = deployed(Some(&item), functions, "cli:1", now).unwrap()
            else {
                panic!("there is a record");
            };
            assert!(update.condition.holds(Some(&item)));
            update.apply(&mut item);
            assert_eq!(item["updated_by"], Value::text("cli:1"));
            assert_eq!(item["GSI4PK"], Value::text("_"));
            VersionRecord::decode(&item).unwrap()
        };
        let record = again(&[("client_min_version", Some("0.15.0"))], Some(FUNCTIONS_LEVEL));
        assert_eq!(record.client_minimum, "0.15.0");
        assert_eq!(record.functions.as_deref(), Some(FUNCTIONS_LEVEL));
        assert_eq!(record.updated_at, stored_time("2026-11-21T19:43:18Z"));
        let record = again(
            &[("lambda_version", Some("0.17.0")), ("client_min_version", None)],
            None,
        );
        assert_eq!(
            (record.functions.as_deref(), &*record.client_minimum),
            (Some("0.17.0"), "0.0.0")
        );
        let record = again(&[("lambda_version", Some("1.0.0"))], Some(FUNCTIONS_LEVEL));
        assert_eq!(record.functions.as_deref(), Some("1.0.0"));
        let record = again(&[("schema_version", Some("2.0.0"))], None);
        assert_eq!(record.schema, "2.0.0");
        let record = again(
            &[("schema_version", None), ("lambda_version", Some("odd"))],
            Some("0.99.0"),
        );
        assert_eq!(
            (&*record.schema, record.functions.as_deref()),
            ("0.10.0", Some("0.99.0"))
        );
    }

    #[test]
    fn a_first_deployment_writes_the_whole_record() {
        let write = deployed(None, Some(FUNCTIONS_LEVEL), "cli:1", EpochMillis(0)).unwrap();
        let DeploymentWrite::First(put) = write else {
            panic!("there was no record");
        };
        let record = VersionRecord::decode(&put.item).unwrap();
        assert_eq!(record.functions.as_deref(), Some(FUNCTIONS_LEVEL));
        assert_eq!(record.compatibility(), Compatibility::Compatible);
        assert!(!put.condition.holds(Some(&put.item)));
    }

    #[test]
    fn our_functions_are_above_any_release_of_the_original() {
        assert!(Version::parse(FUNCTIONS_LEVEL).unwrap() > Version::new(0, 17, 0));
    }

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

    #[track_caller]
    fn check(changes: &[(&str, &str)], expected: &Compatibility) {
        let mut item = first_version("test", EpochMillis(0)).item;
        for (attr, text) in changes {
            item.insert((*attr).into(), Value::text(*text));
        }
        let found = VersionRecord::decode(&item).unwrap().compatibility();
        assert_eq!(found.refusal().is_some(), expected.refusal().is_some());
        assert_eq!(&found, expected);
    }

    #[test]
    fn what_a_table_demands_decides() {
        check(&[], &Compatibility::Compatible);
        check(
            &[("client_min_version", "0.17.1")],
            &Compatibility::ClientTooOld("0.17.1".into()),
        );
        check(&[("client_min_version", "0.17.0")], &Compatibility::Compatible);
        check(&[("client_min_version", "soon")], &Compatibility::Compatible);
        check(
            &[("schema_version", "1.0.0")],
            &Compatibility::Schema("1.0.0".into()),
        );
        check(&[("schema_version", "x")], &Compatibility::Unreadable("x".into()));
        check(&[("lambda_version", "0.17.0")], &Compatibility::Compatible);
        check(
            &[("lambda_version", "0.9.0")],
            &Compatibility::FunctionsOutdated("0.9.0".into()),
        );
        check(
            &[("lambda_version", "new")],
            &Compatibility::FunctionsOutdated("new".into()),
        );
        // Of two reasons, the one that upgrading the client would mend.
        check(
            &[("client_min_version", "1.5.0"), ("schema_version", "1.0.0")],
            &Compatibility::ClientTooOld("1.5.0".into()),
        );
    }
}
