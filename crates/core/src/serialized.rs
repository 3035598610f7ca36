//! The forms of values under the feature `serde`. The guide of the crate `zae-limiter` has them in a table.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{OnUnavailable, Percent};
use crate::limit::Limit;
use crate::manifest::DEFAULT_PERIOD_SECS;
use crate::name::{EntityId, LimitName, NamespaceId, NamespaceName, ResourceName, ResourceScope, StackName};
use crate::refill::Wait;
use crate::table::{Item, Value};
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

/// A limit, with the keys of a manifest.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Limit", deny_unknown_fields)]
struct LimitForm {
    name: LimitName,
    capacity: u64,
    #[serde(default, skip_serializing)]
    burst: Option<u64>,
    #[serde(default)]
    refill_amount: Option<u64>,
    #[serde(default)]
    refill_period: Option<u64>,
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = LimitForm {
            name: self.name().clone(),
            capacity: self.capacity(),
            burst: None,
            refill_amount: Some(self.refill_amount()),
            refill_period: Some(self.refill_period().as_secs()),
        };
        form.serialize(serializer)
    }
}

/// Checks as [`LimitBuilder::build`](crate::LimitBuilder::build) does. Omitted values are those of a manifest.
impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = LimitForm::deserialize(deserializer)?;
        let capacity = form.burst.unwrap_or(form.capacity);
        let refill = form.refill_amount.unwrap_or(capacity);
        let period = Duration::from_secs(form.refill_period.unwrap_or(DEFAULT_PERIOD_SECS));
        Self::custom(form.name, capacity, refill, period)
            .build()
            .map_err(D::Error::custom)
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
