//! What clients and functions must honour before something is stored.
//!
//! Older clients do not see session limits, and refuse what a soft limit or a bypass would admit. Before it is written, the
//! version record must show that the table's functions honour it, and the oldest client that may use the table is raised to
//! the version that does.

use std::fmt;

use super::{FEATURE_LEVEL, Version, VersionRecord};
use crate::error::RecordError;
use crate::limit::Limit;
use crate::name::LimitName;
use crate::schema::version_key;
use crate::table::{Condition, Item, Update, Value};

/// A part of a limit or of a level, or of an entity, that older versions do not honour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Gated {
    /// A limit that is whole again some time after its first use.
    Session,
    /// A limit that counts and does not refuse.
    Soft,
    /// Whether children of an entity cascade, by resource.
    CascadePolicy,
    /// All requests are admitted for a time.
    Bypass,
    /// An entity gets another parent.
    Parent,
    /// Tokens are added to a quota, above what it is.
    TopUp,
}

impl Gated {
    /// Those of limits, in the order of their versions.
    const OF_LIMITS: [Self; 2] = [Self::Session, Self::Soft];

    /// The first version that honours it.
    pub const fn minimum(self) -> Version {
        match self {
            Self::Session => Version::new(0, 15, 0),
            Self::CascadePolicy => Version::new(0, 16, 0),
            Self::Soft | Self::Bypass | Self::Parent | Self::TopUp => Version::new(0, 17, 0),
        }
    }

    /// Whether a limit has it.
    pub fn is_of(self, limit: &Limit) -> bool {
        match self {
            Self::Session => limit.session_length().is_some(),
            Self::Soft => limit.is_soft(),
            Self::CascadePolicy | Self::Bypass | Self::Parent | Self::TopUp => false,
        }
    }

    /// The name of the part: `reset_after`, `soft`, `cascade`, `bypass`, `parent_id`, `top_up`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "reset_after",
            Self::Soft => "soft",
            Self::CascadePolicy => "cascade",
            Self::Bypass => "bypass",
            Self::Parent => "parent_id",
            Self::TopUp => "top_up",
        }
    }
}

/// What demands the highest version of all that a write adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    part: Gated,
    /// The limit, if it is part of one.
    limit: Option<LimitName>,
}

/// Why a limit must not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateClosed {
    gate: Gate,
    record: Option<Box<VersionRecord>>,
}

impl Gate {
    /// The gate for limits that replace `old` ones; `None` if clients and functions of all versions honour what they add. What
    /// is stored already has passed.
    ///
    /// ```
    /// use zae_limiter_core::Limit;
    /// use zae_limiter_core::version::Gate;
    ///
    /// let limits = [Limit::per_minute("rpm", 5).soft().build()?, Limit::per_minute("tpm", 5).build()?];
    /// assert_eq!(Gate::of(&limits, &[]).unwrap().minimum().to_string(), "0.17.0");
    /// assert_eq!(Gate::of(&limits, &limits), None);
    /// # Ok::<(), zae_limiter_core::InvalidInput>(())
    /// ```
    pub fn of(limits: &[Limit], old: &[Limit]) -> Option<Self> {
        let adds = |part: Gated, limit: &Limit| {
            let before = old.iter().find(|before| before.name() == limit.name());
            part.is_of(limit) && !before.is_some_and(|before| part.is_of(before))
        };
        let of_part = |part| {
            let limit = limits.iter().find(|limit| adds(part, limit))?;
            Some(Self {
                part,
                limit: Some(limit.name().clone()),
            })
        };
        Gated::OF_LIMITS.into_iter().rev().find_map(of_part)
    }

    /// The gate for something that is not part of a limit.
    pub fn of_part(part: Gated) -> Self {
        Self { part, limit: None }
    }

    /// The stricter of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if other.part.minimum() > self.part.minimum() {
            other
        } else {
            self
        }
    }

    /// The part that demands it.
    pub fn part(&self) -> Gated {
        self.part
    }

    /// The limit that demands it, if one does.
    pub fn limit(&self) -> Option<&LimitName> {
        self.limit.as_ref()
    }

    /// The first version that honours it.
    pub fn minimum(&self) -> Version {
        self.part.minimum()
    }

    /// Checks the version record, as read consistently before the write. `has_functions` is whether the table can have any.
    ///
    /// Returns the write that raises the oldest client which may use the table, or `None` if it is recent enough. The write is
    /// refused if the record has changed since it was read.
    ///
    /// # Errors
    /// [`GateClosed`] if there is no record, or if its functions are older or not known. A pre-release counts as the release.
    pub fn pass(
        &self,
        found: Option<&Item>,
        has_functions: bool,
    ) -> Result<Result<Option<Update>, GateClosed>, RecordError> {
        let record = found.map(VersionRecord::decode).transpose()?.map(Box::new);
        let functions = record.as_ref().and_then(|record| record.functions.as_deref());
        let honours = match functions.map(Version::parse) {
            Some(Some(functions)) => functions.parts >= self.minimum().parts,
            Some(None) => false,
            None => !has_functions,
        };
        let (Some(found), Some(record), true) = (found, &record, honours) else {
            let gate = self.clone();
            return Ok(Err(GateClosed { gate, record }));
        };
        if Version::parse(&record.client_minimum).is_some_and(|minimum| minimum >= self.minimum()) {
            return Ok(Ok(None));
        }
        let mut raise = Update::new(version_key());
        let minimum = Value::S(self.minimum().to_string());
        raise.set.push(("client_min_version".into(), minimum));
        let same = |name: &str| Condition::same(name.into(), found.get(name).cloned());
        raise.condition = Condition::All(["client_min_version", "lambda_version"].map(same).to_vec());
        Ok(Ok(Some(raise)))
    }
}

impl fmt::Display for GateClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gate, record } = self;
        let schema = record.as_ref().map_or("unknown", |record| record.schema.as_str());
        let functions = record.as_ref().and_then(|record| record.functions.as_deref());
        write!(
            f,
            "Version mismatch: client={FEATURE_LEVEL}, schema={schema}, lambda={}. Refusing to store '{}'",
            functions.unwrap_or("unknown"),
            gate.part.as_str(),
        )?;
        if let Some(limit) = &gate.limit {
            write!(f, " of the limit '{limit}'")?;
        }
        f.write_str(": ")?;
        let minimum = gate.minimum();
        match (record, functions) {
            (None, _) => f.write_str("the table has no version record")?,
            (_, None) => f.write_str("the version of the stack's functions is not recorded")?,
            (_, Some(_)) => write!(f, "the deployed functions predate {minimum}")?,
        }
        write!(
            f,
            ". Run 'zae-limiter upgrade' first; it needs functions of {minimum} or later."
        )
    }
}

impl std::error::Error for GateClosed {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::version::{FUNCTIONS_LEVEL, first_version};
    use crate::units::EpochMillis;

    fn soft() -> Limit {
        Limit::per_minute("rpm", 5).soft().build().unwrap()
    }

    fn session() -> Limit {
        Limit::session("s", 5, Duration::from_mins(1)).build().unwrap()
    }

    fn record(functions: Option<&str>, client: Option<&str>) -> Item {
        let mut item = first_version("test", EpochMillis(0)).item;
        for (name, text) in [("lambda_version", functions), ("client_min_version", client)] {
            match text {
                Some(text) => item.insert(name.into(), Value::text(text)),
                None => item.remove(name),
            };
        }
        item
    }

    #[test]
    fn only_what_a_write_adds_needs_a_version() {
        let plain = Limit::per_minute("rpm", 5).build().unwrap();
        let quota = Limit::quota("q", 5).resets("0 0 * * *", "UTC").build().unwrap();
        assert_eq!(Gate::of(&[plain.clone(), quota], &[]), None);
        let part = |limits: &[Limit], old: &[Limit]| Gate::of(limits, old).map(|gate| gate.part());
        assert_eq!(part(&[session()], &[]), Some(Gated::Session));
        assert_eq!(part(&[session(), soft()], &[]), Some(Gated::Soft));
        assert_eq!(part(&[session(), soft()], &[soft()]), Some(Gated::Session));
        assert_eq!(part(&[session(), soft()], &[soft(), session()]), None);
        assert_eq!(part(&[soft()], &[plain]), Some(Gated::Soft));
        let of = |limit: Limit| Gate::of(&[limit], &[]).unwrap();
        assert_eq!(of(soft()).and(of(session())), of(soft()));
        assert_eq!(of(session()).and(of(soft())), of(soft()));
        let parts = [
            Gated::Session,
            Gated::CascadePolicy,
            Gated::Soft,
            Gated::Bypass,
            Gated::Parent,
            Gated::TopUp,
        ];
        assert!(
            parts.into_iter().all(|part| part.minimum() <= FEATURE_LEVEL),
            "this client would shut itself out"
        );
    }

    #[test]
    fn functions_must_honour_it() {
        let pass = |limit: Limit, item: Option<&Item>, has_functions| {
            let gate = Gate::of(&[limit], &[]).unwrap();
            gate.pass(item, has_functions).unwrap()
        };
        let why = |limit, functions| {
            let closed = pass(limit, Some(&record(functions, None)), true).unwrap_err();
            closed.to_string()
        };
        for functions in ["0.17.0", "0.17.0.dev3", "0.18.1", FUNCTIONS_LEVEL] {
            assert!(
                pass(soft(), Some(&record(Some(functions), None)), true).is_ok(),
                "{functions}"
            );
        }
        for functions in ["0.16.9", "0.15.0", "new", ""] {
            assert!(
                why(soft(), Some(functions)).contains("the deployed functions predate 0.17.0"),
                "{functions}"
            );
        }
        assert!(pass(session(), Some(&record(Some("0.15.0"), None)), true).is_ok());
        assert!(why(session(), Some("0.14.0")).contains("predate 0.15.0"));
        assert!(why(soft(), None).contains("is not recorded"));
        assert_eq!(
            pass(soft(), None, true).unwrap_err().to_string(),
            format!(
                "Version mismatch: client={FEATURE_LEVEL}, schema=unknown, lambda=unknown. Refusing to store 'soft' of the \
                 limit 'rpm': the table has no version record. Run 'zae-limiter upgrade' first; it needs functions of 0.17.0 or \
                 later."
            )
        );
        // A table that cannot have functions.
        assert!(pass(soft(), Some(&record(None, None)), false).is_ok());
        assert!(pass(soft(), Some(&first_version("test", EpochMillis(0)).item), false).is_ok());
        assert!(pass(soft(), Some(&record(Some("0.9.0"), None)), false).is_err());
        assert!(pass(soft(), None, false).is_err());
    }

    #[test]
    fn the_oldest_client_is_raised_and_never_lowered() {
        let gate = Gate::of(&[session()], &[]).unwrap();
        let mut same = None;
        for (client, raised) in [
            (None, true),
            (Some("0.0.0"), true),
            (Some("0.14.0"), true),
            (Some("0.15.0.dev1"), true),
            (Some("soon"), true),
            (Some("0.15.0"), false),
            (Some("0.17.0"), false),
        ] {
            let mut item = record(Some(FUNCTIONS_LEVEL), client);
            let raise = gate.pass(Some(&item), true).unwrap().unwrap();
            assert_eq!(raise.is_some(), raised, "{client:?}");
            let Some(raise) = raise else { continue };
            assert!(raise.condition.holds(Some(&item)));
            for changed in ["client_min_version", "lambda_version"] {
                let mut other = item.clone();
                other.insert(changed.into(), Value::text("0.20.0"));
                assert!(!raise.condition.holds(Some(&other)), "{changed}");
            }
            assert!(!raise.condition.holds(None));
            raise.apply(&mut item);
            let record = VersionRecord::decode(&item).unwrap();
            assert_eq!(record.client_minimum, "0.15.0");
            same = gate.pass(Some(&item), true).unwrap().unwrap();
        }
        assert_eq!(same, None);
    }
}
