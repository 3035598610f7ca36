//! Configuration records: limits at four levels, and which level answers.
//!
//! The first level that defines any limit wins as a whole; levels are never merged. Flags (`disabled`,
//! `cascade`) are resolved on their own, over the levels that can carry them. Data model, sections 7 and 15.7.

mod limits;

use smol_str::SmolStr;
use std::fmt;

use crate::bucket::Owner;
use crate::depth::CascadeDepth;
use crate::error::{InvalidInput, RecordError, UnsupportedFeature};
use crate::limit::Limit;
use crate::name::{EntityId, LimitName};
use crate::records::reader::Reader;
use crate::table::{Item, Value};
use crate::units::EpochMillis;

pub use self::limits::{is_limit_attribute, limit_attributes, limit_name_of};

/// Where limits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Given with the call.
    Override,
    /// The entity's configuration for the resource.
    Entity,
    /// The entity's configuration for all resources.
    EntityDefault,
    /// The resource's configuration.
    Resource,
    /// The namespace's configuration.
    System,
}

impl Level {
    /// Whether buckets under this level's limits never expire: limits given to one entity are kept with its balance.
    pub fn keeps_bucket(self) -> bool {
        matches!(self, Self::Entity | Self::EntityDefault)
    }

    /// The level's name in messages and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Entity => "entity",
            Self::EntityDefault => "entity_default",
            Self::Resource => "resource",
            Self::System => "system",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The decision about requests while the table cannot be used.
///
/// ```
/// # use zae_limiter_core as zae_limiter;
/// use zae_limiter::{OnUnavailable, Percent};
///
/// // Three processes, each with a third of the limit.
/// let policy = OnUnavailable::Degrade(Percent::new(100 / 3)?);
/// assert_eq!(policy, OnUnavailable::Degrade(Percent::new(33)?));
/// assert!(Percent::new(0).is_err(), "use `Block` to admit nothing");
/// # Ok::<(), zae_limiter::InvalidInput>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnavailable {
    /// Refuse them. The default.
    #[default]
    Block,
    /// Admit them without any limit.
    Allow,
    /// Admit them against a bucket in this process's memory, holding and gaining this percentage of each
    /// limit. With `N` processes, set it to at most `100 / N` to stay within the limit as a whole.
    Degrade(Percent),
}

/// A percentage from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// Checks a percentage.
    pub fn new(percent: u8) -> Result<Self, InvalidInput> {
        if (1..=100).contains(&percent) {
            Ok(Self(percent))
        } else {
            Err(InvalidInput::new(
                "degrade_percent",
                percent,
                "must be between 1 and 100",
            ))
        }
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// What a level says about access, beside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Limits are enforced, even if a level further away says otherwise.
    Enabled,
    /// Every request is refused.
    Disabled,
    /// Every request is admitted and counted, and no balance changes.
    Bypass,
}

impl Access {
    /// Reads the stored form. Unknown texts read as enabled: enforcing is what every client may do.
    pub fn read(value: &Value) -> Self {
        match value {
            Value::Bool(true) => Self::Disabled,
            Value::S(text) if text == "bypass" => Self::Bypass,
            _ => Self::Enabled,
        }
    }

    /// The stored form: `true`, `false` or `"bypass"`.
    pub fn value(self) -> Value {
        match self {
            Self::Enabled => Value::Bool(false),
            Self::Disabled => Value::Bool(true),
            Self::Bypass => Value::text("bypass"),
        }
    }

    /// The form in manifests and answers: `true`, `false` or `"bypass"`.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Enabled => false.into(),
            Self::Disabled => true.into(),
            Self::Bypass => "bypass".into(),
        }
    }
}

/// One level's configuration as stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The limits; none means that the level does not answer.
    pub limits: Vec<Limit>,
    /// What it says about access; `None` leaves that to the levels further away.
    pub access: Option<Access>,
    /// Explicit cascade policy.
    pub cascade: Option<bool>,
    /// The stored policy for outages. System level only.
    pub on_unavailable: Option<OnUnavailable>,
    /// How long audit events are kept, in days. System level only.
    pub audit_retention_days: Option<i64>,
    /// Why not all of its limits could be read, if they use a feature that is not understood.
    pub unsupported: Option<UnsupportedFeature>,
}

impl Config {
    /// Reads a configuration item.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] if a limit is out of range or badly named, or its parts contradict each other.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("config", item);
        let mut config = Self {
            access: reader.get("disabled").map(Access::read),
            cascade: reader.bool_opt("cascade")?,
            on_unavailable: match reader.get("on_unavailable").and_then(Value::as_text) {
                Some("allow") => Some(OnUnavailable::Allow),
                // An unknown policy must not read as "admit everything".
                Some(_) => Some(OnUnavailable::Block),
                None => None,
            },
            audit_retention_days: reader.int64("audit_retention_days")?,
            ..Self::default()
        };
        (config.limits, config.unsupported) = limits::decode(&reader)?;
        Ok(config)
    }

    /// Whether this level answers for limits.
    pub fn answers(&self) -> bool {
        !self.limits.is_empty() || self.unsupported.is_some()
    }
}

/// The configuration of one entity and resource at all levels, as stored at one time.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    /// The entity's configuration for the resource.
    pub entity: Option<Config>,
    /// The entity's configuration for all resources.
    pub entity_default: Option<Config>,
    /// The resource's configuration.
    pub resource: Option<Config>,
    /// The namespace's configuration.
    pub system: Option<Config>,
}

impl Levels {
    fn in_order(&self) -> [(Level, Option<&Config>); 4] {
        [
            (Level::Entity, self.entity.as_ref()),
            (Level::EntityDefault, self.entity_default.as_ref()),
            (Level::Resource, self.resource.as_ref()),
            (Level::System, self.system.as_ref()),
        ]
    }

    /// The level whose limits are in force; `None` if nothing is configured.
    ///
    /// It may use a feature that is not understood, or that cannot be enforced here. Dropping just that limit, or going on to the
    /// next level, would leave it unenforced.
    pub fn answer(&self) -> Option<(Level, &Config)> {
        let mut levels = self.in_order().into_iter();
        levels.find_map(|(level, config)| Some((level, config.filter(|config| config.answers())?)))
    }

    /// The first level that says something about access, and what. The system level has no say.
    pub fn access(&self) -> Option<(Level, Access)> {
        let mut flags = self.in_order().into_iter().take(3);
        flags.find_map(|(level, config)| Some((level, config?.access?)))
    }

    /// The explicit cascade policy, if a level has one. The system level has no say.
    pub fn cascade(&self) -> Option<bool> {
        self.in_order()
            .into_iter()
            .take(3)
            .find_map(|(_, config)| config?.cascade)
    }

    /// The stored policy for outages.
    pub fn on_unavailable(&self) -> Option<OnUnavailable> {
        self.system.as_ref().and_then(|config| config.on_unavailable)
    }
}

/// Everything stored that an acquire of one entity and resource depends on, besides the bucket.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The entity asked about.
    pub entity: EntityId,
    /// The limits in force; none if no level defines any, or if not all of them could be read.
    pub limits: Vec<Limit>,
    /// Where they come from.
    pub level: Level,
    /// Why the limits in force cannot be enforced here.
    pub unsupported: Option<UnsupportedFeature>,
    /// The entity's META, if it has one, with the effective cascade policy.
    pub owner: Option<Owner>,
    /// The exact condition that META is still as read; goes into the transaction that creates a bucket.
    pub meta_unchanged: crate::table::Condition,
    /// The level that says something about access, and what.
    pub access: Option<(Level, Access)>,
    /// The stored policy for outages.
    pub on_unavailable: Option<OnUnavailable>,
    /// How many entities a request debits at most.
    pub depth: CascadeDepth,
    /// Whether a request goes by it that no limit refuses.
    pub overdraws: bool,
    /// When this was read.
    pub read_at: EpochMillis,
}

impl Resolved {
    /// The limit of this name.
    pub fn limit(&self, name: &LimitName) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.name() == name)
    }

    /// Whether the limit of this name does not refuse a request that goes by this configuration.
    pub fn is_soft(&self, name: &str) -> bool {
        let mut limits = self.limits.iter();
        limits.any(|limit| (self.overdraws || limit.is_soft()) && limit.name().as_str() == name)
    }

    /// Whether requests of entities below this one debit the entity above it, too.
    pub fn leads_above(&self) -> bool {
        let above = self.owner.as_ref().and_then(Owner::cascade_parent);
        above.is_some() && self.depth > CascadeDepth::MIN
    }

    /// The level that disables the entity or resource, if one does.
    pub fn disabled(&self) -> Option<Level> {
        let (level, access) = self.access?;
        (access == Access::Disabled).then_some(level)
    }

    /// Whether every request is to be admitted.
    pub fn is_bypassed(&self) -> bool {
        matches!(self.access, Some((_, Access::Bypass)))
    }

    /// How long an idle bucket is kept, in seconds; `None` if it never expires.
    pub fn bucket_ttl_secs(&self, multiplier: u32) -> Option<i64> {
        (!self.level.keeps_bucket()).then(|| bucket_ttl_secs(&self.limits, multiplier))
    }
}

/// How long an idle bucket of these limits is kept: the time the slowest takes to be whole again, times `multiplier`.
///
/// Rounded down from a floating point product, as every client of the table does it.
pub fn bucket_ttl_secs(limits: &[Limit], multiplier: u32) -> i64 {
    let slowest = limits
        .iter()
        .map(Limit::seconds_to_recover)
        .fold(0.0_f64, f64::max);
    (slowest * f64::from(multiplier)).floor() as i64
}

/// Reads the text of a stored name that should be valid.
pub(crate) fn stored_name<T>(
    reader: &Reader<'_>,
    attr: &str,
    parse: impl FnOnce(&str) -> Result<T, InvalidInput>,
) -> Result<T, RecordError> {
    parse(reader.text(attr)?).map_err(|err| reader.corrupt(attr, err.to_string()))
}

/// An entity's incarnation according to its META: its own mark, else its creation time, else `-`.
pub(crate) fn incarnation(pinc: Option<&str>, created_at: Option<&str>) -> SmolStr {
    SmolStr::new(pinc.or(created_at).unwrap_or("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MAX_TOKENS;
    use std::time::Duration;

    fn config(attrs: &[(&str, Value)]) -> Config {
        Config::decode(
            &attrs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        )
        .unwrap()
    }

    fn with_limit(name: &str) -> Config {
        Config {
            limits: vec![Limit::per_minute(name, 5).build().unwrap()],
            ..Config::default()
        }
    }

    #[test]
    fn limits_round_trip_with_odd_names() {
        let limits = vec![
            Limit::per_minute("a_cp", 5).build().unwrap(),
            Limit::per_day("x.y-z", MAX_TOKENS).build().unwrap(),
        ];
        let item = limit_attributes(&limits)
            .into_iter()
            .map(|(k, v)| (k.to_string(), v))
            .collect();
        assert_eq!(Config::decode(&item).unwrap().limits, limits);
    }

    #[test]
    fn the_first_level_that_defines_limits_wins_as_a_whole() {
        let levels = Levels {
            entity: Some(Config {
                access: Some(Access::Enabled),
                ..Config::default()
            }),
            entity_default: None,
            resource: Some(with_limit("rpm")),
            system: Some(with_limit("tpm")),
        };
        let (level, config) = levels.answer().unwrap();
        assert_eq!(
            (level, config.limits[0].name().as_str()),
            (Level::Resource, "rpm")
        );
    }

    #[test]
    fn flags_are_resolved_apart_from_limits() {
        let flag = |access| {
            Some(Config {
                access: Some(access),
                ..Config::default()
            })
        };
        let levels = Levels {
            resource: flag(Access::Disabled),
            ..Levels::default()
        };
        assert_eq!(levels.access(), Some((Level::Resource, Access::Disabled)));
        let carved_out = Levels {
            entity: flag(Access::Enabled),
            resource: flag(Access::Disabled),
            ..Levels::default()
        };
        assert_eq!(carved_out.access(), Some((Level::Entity, Access::Enabled)));
        let system = Levels {
            system: flag(Access::Disabled),
            ..Levels::default()
        };
        assert_eq!(system.access(), None);
    }

    #[test]
    fn what_is_not_known_of_access_enforces() {
        let access = |value| config(&[("disabled", value)]).access;
        assert_eq!(config(&[]).access, None);
        for known in [Access::Enabled, Access::Disabled, Access::Bypass] {
            assert_eq!(access(known.value()), Some(known));
        }
        for unknown in [Value::text("shrug"), Value::text(""), Value::int(1), Value::Null] {
            assert_eq!(access(unknown), Some(Access::Enabled));
        }
    }

    #[test]
    fn an_unknown_outage_policy_blocks() {
        assert_eq!(
            config(&[("on_unavailable", Value::text("shrug"))]).on_unavailable,
            Some(OnUnavailable::Block)
        );
    }

    #[test]
    fn bucket_lifetimes_match_the_shared_examples() {
        let check = |capacity, amount, period, expected| {
            let limit = Limit::custom("x", capacity, amount, Duration::from_secs(period))
                .build()
                .unwrap();
            assert_eq!(bucket_ttl_secs(&[limit], 7), expected);
        };
        check(100, 100, 60, 420);
        check(15_000, 10_000, 60, 630);
        check(1000, 10, 60, 42_000);
        check(7, 3, 1, 16);
        check(5, 5, 86_400, 604_800);
    }
}
