//! The forms of values under the feature `serde`. The guide of the crate `zae-limiter` has them in a table.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{OnUnavailable, Percent};
use crate::error::InvalidInput;
use crate::limit::Limit;
use crate::manifest::DEFAULT_PERIOD_SECS;
use crate::name::{EntityId, LimitName, NamespaceId, NamespaceName, ResourceName, ResourceScope, StackName};
use crate::refill::Wait;
use crate::schedule::{Cron, ScheduleEntry};
use crate::table::{Item, Value};
use crate::units::EpochMillis;
use crate::usage::Window;

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        /// Checks as `new` does.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(
    EntityId,
    LimitName,
    NamespaceId,
    NamespaceName,
    ResourceName,
    ResourceScope,
    StackName
);

/// Milliseconds since the epoch.
impl Serialize for EpochMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for EpochMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Self)
    }
}

/// A limit, with the keys of a manifest.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Limit", deny_unknown_fields)]
struct LimitForm {
    name: LimitName,
    capacity: u64,
    #[serde(default, skip_serializing)]
    burst: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refill_amount: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refill_period: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    schedule: Vec<EntryForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reset_schedule: Vec<ResetForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset_after_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    soft: bool,
}

/// An entry of a schedule.
#[derive(Serialize, Deserialize)]
#[serde(rename = "ScheduleEntry", deny_unknown_fields)]
struct EntryForm {
    cron: String,
    #[serde(default = "utc")]
    tz: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refill_amount: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refill_period_seconds: Option<u64>,
}

/// Times of reset.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Reset", deny_unknown_fields)]
struct ResetForm {
    cron: String,
    #[serde(default = "utc")]
    tz: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl LimitForm {
    fn build(self) -> Result<Limit, InvalidInput> {
        let capacity = self.burst.unwrap_or(self.capacity);
        let resets = self.reset_schedule.iter().map(|reset| (&reset.cron, &reset.tz));
        let is_quota = !self.reset_schedule.is_empty();
        let mut builder = match self.reset_after_seconds {
            Some(secs) if is_quota => {
                let reason = "cannot stand beside 'reset_schedule'; give it or that";
                let field = format!("{}.reset_after_seconds", self.name);
                return Err(InvalidInput::new(field, secs, reason));
            }
            Some(secs) => Limit::session(self.name.clone(), capacity, Duration::from_secs(secs)),
            None if is_quota => Limit::quota(self.name.clone(), capacity).resets_on(resets),
            None => {
                let refill = self.refill_amount.unwrap_or(capacity);
                let period = Duration::from_secs(self.refill_period.unwrap_or(DEFAULT_PERIOD_SECS));
                Limit::custom(self.name.clone(), capacity, refill, period)
            }
        };
        if let (Some(amount @ 1..), true) =
            (self.refill_amount, is_quota || self.reset_after_seconds.is_some())
        {
            let reason = "must be 0 or absent for a limit that is not refilled over time";
            return Err(InvalidInput::new(
                format!("{}.refill_amount", self.name),
                amount,
                reason,
            ));
        }
        let entries = self.schedule.into_iter().map(EntryForm::build);
        builder = builder.scheduled(entries.collect::<Result<Vec<_>, _>>()?);
        if self.soft {
            builder = builder.soft();
        }
        builder.build()
    }
}

impl EntryForm {
    fn of(entry: &ScheduleEntry) -> Self {
        Self {
            cron: entry.cron().to_string(),
            tz: entry.zone().name().to_owned(),
            scale: entry.scale(),
            capacity: entry.capacity(),
            refill_amount: entry.refill_amount(),
            refill_period_seconds: entry.refill_period().map(|period| period.as_secs()),
        }
    }

    fn build(self) -> Result<ScheduleEntry, InvalidInput> {
        let mut entry = ScheduleEntry::on(self.cron).zone(self.tz);
        if let Some(scale) = self.scale {
            entry = entry.scale(scale);
        }
        if let Some(tokens) = self.capacity {
            entry = entry.capacity(tokens);
        }
        if let Some(tokens) = self.refill_amount {
            entry = entry.refill_amount(tokens);
        }
        if let Some(secs) = self.refill_period_seconds {
            entry = entry.refill_period(Duration::from_secs(secs));
        }
        entry.build()
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = LimitForm {
            name: self.name().clone(),
            capacity: self.capacity(),
            burst: None,
            refill_amount: (!self.is_quota()).then(|| self.refill_amount()),
            refill_period: (!self.is_quota()).then(|| self.refill_period().as_secs()),
            schedule: self.schedule().map_or_else(Vec::new, |schedule| {
                schedule.entries().iter().map(EntryForm::of).collect()
            }),
            reset_schedule: self.reset_schedule().map_or_else(Vec::new, |resets| {
                let form = |cron: &Cron| ResetForm {
                    cron: cron.to_string(),
                    tz: resets.zone().name().to_owned(),
                };
                resets.crons().iter().map(form).collect()
            }),
            reset_after_seconds: self.session_length().map(|length| length.as_secs()),
            soft: self.is_soft(),
        };
        form.serialize(serializer)
    }
}

/// Checks as [`LimitBuilder::build`](crate::LimitBuilder::build) does. Omitted values are those of a manifest.
impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = LimitForm::deserialize(deserializer)?;
        form.build().map_err(D::Error::custom)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.get())
    }
}

/// Checks as [`Percent::new`] does.
impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u8::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "OnUnavailable", rename_all = "snake_case")]
enum PolicyForm {
    Block,
    Allow,
    Degrade(Percent),
}

impl Serialize for OnUnavailable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match self {
            Self::Block => PolicyForm::Block,
            Self::Allow => PolicyForm::Allow,
            Self::Degrade(part) => PolicyForm::Degrade(*part),
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OnUnavailable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match PolicyForm::deserialize(deserializer)? {
            PolicyForm::Block => Self::Block,
            PolicyForm::Allow => Self::Allow,
            PolicyForm::Degrade(part) => Self::Degrade(part),
        })
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::unknown_variant(&text, &["hourly", "daily", "monthly"]))
    }
}

/// Milliseconds, or nothing for never.
impl Serialize for Wait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Millis(millis) => Some((*millis).max(0)),
            Self::Never => None,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::<u64>::deserialize(deserializer)? {
            Some(millis) => Self::Millis(i64::try_from(millis).unwrap_or(i64::MAX)),
            None => Self::Never,
        })
    }
}

/// A stored value in the types of JSON. A set of texts is a list, and an integer beyond 64 bits is a text.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::S(text) => serializer.serialize_str(text),
            Self::N(digits) => match (digits.parse::<i64>(), digits.parse::<u64>()) {
                (Ok(number), _) => serializer.serialize_i64(number),
                (_, Ok(number)) => serializer.serialize_u64(number),
                _ => match (self.as_int(), digits.parse::<f64>()) {
                    (None, Ok(number)) if number.is_finite() => serializer.serialize_f64(number),
                    _ => serializer.serialize_str(digits),
                },
            },
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Null | Self::Other => serializer.serialize_unit(),
            Self::M(values) => values.serialize(serializer),
            Self::L(values) => values.serialize(serializer),
            Self::Ss(texts) => texts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfJson;

        impl<'de> Visitor<'de> for OfJson {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::int(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::int(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::N(number.to_string().into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::text(text))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::L(values))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut values = Item::new();
                while let Some((name, value)) = map.next_entry()? {
                    values.insert(name, value);
                }
                Ok(Value::M(values))
            }
        }

        deserializer.deserialize_any(OfJson)
    }
}

/// An instant as a text of RFC 3339, such as `2026-11-21T19:43:18Z`.
pub mod time {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes the instant.
    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let instant = jiff::Timestamp::try_from(*time).map_err(S::Error::custom)?;
        serializer.collect_str(&instant)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let instant: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(instant.into())
    }
}

/// An instant as [`time`] has it, or null.
pub mod time_opt {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Instant(#[serde(with = "super::time")] SystemTime);

    /// Writes the instant.
    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(Instant).serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let instant = Option::<Instant>::deserialize(deserializer)?;
        Ok(instant.map(|Instant(time)| time))
    }
}

/// A period in seconds, whole unless another client has stored one that is not.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(period: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match period.subsec_nanos() {
            0 => serializer.serialize_u64(period.as_secs()),
            _ => serializer.serialize_f64(period.as_secs_f64()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Seconds {
            Whole(u64),
            Fraction(f64),
        }
        match Seconds::deserialize(deserializer)? {
            Seconds::Whole(secs) => Ok(Duration::from_secs(secs)),
            Seconds::Fraction(secs) => Duration::try_from_secs_f64(secs).map_err(D::Error::custom),
        }
    }
}

/// A short text.
pub(crate) mod text {
    use std::borrow::Cow;

    use serde::{Deserialize as _, Deserializer, Serializer};
    use smol_str::SmolStr;

    pub(crate) fn serialize<S: Serializer>(text: &SmolStr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SmolStr, D::Error> {
        Ok(SmolStr::new(Cow::<'de, str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::LimitBuilder;

    #[track_caller]
    fn check(limit: LimitBuilder, expected: &str) {
        let limit = limit.build().unwrap();
        assert_eq!(serde_json::to_string(&limit).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Limit>(expected).unwrap(), limit);
    }

    #[test]
    fn limits_have_the_keys_of_manifests() {
        check(
            Limit::per_minute("rpm", 100).scheduled([ScheduleEntry::on("* 9-17 * * *").scale(0.5)]),
            r#"{"name":"rpm","capacity":100,"refill_amount":100,"refill_period":60,"schedule":[{"cron":"* 9-17 * * *","tz":"UTC","scale":0.5}]}"#,
        );
        check(
            Limit::quota("rpd", 100)
                .resets("0 0 * * *", "Europe/Berlin")
                .soft(),
            r#"{"name":"rpd","capacity":100,"reset_schedule":[{"cron":"0 0 * * *","tz":"Europe/Berlin"}],"soft":true}"#,
        );
        check(
            Limit::session("s", 50, Duration::from_hours(5)),
            r#"{"name":"s","capacity":50,"reset_after_seconds":18000}"#,
        );
    }

    #[test]
    fn limits_that_contradict_themselves_are_refused() {
        for (text, error) in [
            (
                r#"{"name":"x","capacity":1,"reset_after_seconds":5,"reset_schedule":[{"cron":"0 0 * * *"}]}"#,
                "invalid x.reset_after_seconds '5'",
            ),
            (
                r#"{"name":"x","capacity":1,"refill_amount":1,"reset_after_seconds":5}"#,
                "invalid x.refill_amount '1'",
            ),
            (
                r#"{"name":"x","capacity":1,"schedule":[{"cron":"0 0 * * *"}]}"#,
                "invalid scale ",
            ),
        ] {
            let err = serde_json::from_str::<Limit>(text).unwrap_err().to_string();
            assert!(err.starts_with(error), "{err}");
        }
    }
}
