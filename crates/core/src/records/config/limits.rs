//! The limits of a level, as attributes of its record.
//!
//! A limit has its parameters under the prefix `l_`, a session limit under `w_`, so that clients which do not know sessions do
//! not see it. Amounts are whole tokens, periods whole seconds. The time zone of all schedules is stored once.

use std::time::Duration;

use smol_str::format_smolstr;

use crate::error::{RecordError, UnsupportedFeature};
use crate::limit::{Limit, Recovery};
use crate::records::reader::Reader;
use crate::schedule::{ResetSchedule, Schedule, ScheduleError, Zone};
use crate::table::{Attr, Value};
use crate::units::{MAX_PERIOD_SECS, MAX_TOKENS};

/// The time zone of all schedules of a level; UTC if absent.
const ZONE: &str = "sched_tz";

/// The prefix of limits, and that of session limits.
const PREFIXES: [&str; 2] = ["l_", "w_"];

const UPGRADE: &str = "use a client that supports these limits for this entity and resource";

/// Whether an attribute of a configuration record belongs to its limits.
pub fn is_limit_attribute(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == ZONE
}

/// The name of the limit that an attribute of a configuration record stands for. Each limit has one such attribute.
pub fn limit_name_of(attribute: &str) -> Option<&str> {
    split(attribute).map(|(_, name)| name)
}

/// The prefix and the limit of an attribute that holds a capacity.
fn split(attribute: &str) -> Option<(&'static str, &str)> {
    let limit = |prefix: &'static str| {
        let name = attribute.strip_prefix(prefix)?.strip_suffix("_cp")?;
        Some((prefix, name))
    };
    PREFIXES.into_iter().find_map(limit)
}

fn attr(prefix: &str, limit: &str, part: &str) -> Attr {
    format_smolstr!("{prefix}{limit}_{part}")
}

fn prefix(limit: &Limit) -> &'static str {
    match limit.recovery() {
        Recovery::Session { .. } => "w_",
        Recovery::Refill { .. } | Recovery::Resets(_) => "l_",
    }
}

/// The attributes that store a set of limits, whose schedules must have one time zone.
pub fn limit_attributes(limits: &[Limit]) -> Vec<(Attr, Value)> {
    let mut attrs = Vec::with_capacity(3 * limits.len());
    for limit in limits {
        let mut set = |part, value| attrs.push((attr(prefix(limit), limit.name().as_str(), part), value));
        set("cp", Value::int(limit.capacity()));
        set("ra", Value::int(limit.refill_amount()));
        set("rp", Value::int(limit.refill_period().as_secs()));
        if let Some(schedule) = limit.schedule() {
            set("sched", Value::S(schedule.encode()));
        }
        match limit.recovery() {
            Recovery::Refill { .. } => {}
            Recovery::Resets(resets) => set("rsched", Value::S(resets.encode())),
            Recovery::Session { secs } => set("rsa", Value::int(*secs)),
        }
        if limit.is_soft() {
            set("soft", Value::Bool(true));
        }
    }
    if let Some(zone) = limits.iter().find_map(Limit::zone) {
        attrs.push((ZONE.into(), Value::text(zone.name())));
    }
    attrs
}

/// Reads the limits of a record. If some cannot be read because a newer client has written them, the reason is returned with
/// the others.
pub(super) fn decode(reader: &Reader<'_>) -> Result<(Vec<Limit>, Option<UnsupportedFeature>), RecordError> {
    let mut limits = Vec::new();
    let mut unsupported = None;
    for attribute in reader.item.keys() {
        let read = match split(attribute) {
            Some((prefix, name)) => Stored { reader, prefix, name }.decode().map(Some),
            None if is_known(reader, attribute) => Ok(None),
            None => Err(reader.unsupported(attribute, UPGRADE)),
        };
        match read {
            Ok(limit) => limits.extend(limit),
            Err(RecordError::Unsupported(feature)) => drop(unsupported.get_or_insert(feature)),
            Err(err) => return Err(err),
        }
    }
    Ok((limits, unsupported))
}

/// Whether an attribute that holds another thing than a capacity has no meaning for the limits, or belongs to one that exists.
fn is_known(reader: &Reader<'_>, attribute: &str) -> bool {
    let belongs = |prefix: &str, parts: &[&str]| {
        let Some(rest) = attribute.strip_prefix(prefix) else {
            return false;
        };
        let limit = rest.rsplit_once('_').filter(|(_, part)| parts.contains(part));
        limit.is_some_and(|(name, _)| reader.get(&attr(prefix, name, "cp")).is_some())
    };
    let schedule = ["sched", "rsched"];
    let is_schedule = |(_, part): (&str, &str)| schedule.contains(&part);
    match attribute.get(..2) {
        Some("l_") => !attribute.rsplit_once('_').is_some_and(is_schedule) || belongs("l_", &schedule),
        Some("w_") => belongs("w_", &["ra", "rp", "rsa", "sched", "soft"]),
        _ => true,
    }
}

/// A limit on a record.
struct Stored<'a> {
    reader: &'a Reader<'a>,
    prefix: &'static str,
    name: &'a str,
}

impl Stored<'_> {
    fn attr(&self, part: &str) -> Attr {
        attr(self.prefix, self.name, part)
    }

    fn corrupt(&self, part: &str, problem: impl Into<String>) -> RecordError {
        self.reader.corrupt(&self.attr(part), problem)
    }

    fn number(&self, part: &str, min: u64, max: u64) -> Result<u64, RecordError> {
        let value = self.reader.int_within(&self.attr(part), min.into(), max.into())?;
        value
            .map(|n| n as u64)
            .ok_or_else(|| self.corrupt(part, "is missing"))
    }

    fn decode(&self) -> Result<Limit, RecordError> {
        let is_session = self.prefix == "w_";
        if is_session && self.reader.get(&attr("l_", self.name, "cp")).is_some() {
            return Err(self.corrupt("cp", "stands beside a limit of the same name"));
        }
        let capacity = self.number("cp", 1, MAX_TOKENS)?;
        let amount = self.number("ra", 0, MAX_TOKENS)?;
        let resets = self.schedule("rsched", ResetSchedule::decode)?;
        let builder = if is_session {
            if amount > 0 {
                return Err(self.corrupt("ra", "is not 0, and a session limit gains nothing over time"));
            }
            let secs = self.number("rsa", 1, MAX_PERIOD_SECS)?;
            Limit::session(self.name, capacity, Duration::from_secs(secs))
        } else {
            match (amount, resets) {
                (0, Some(resets)) => Limit::quota(self.name, capacity).resets_by(Ok(resets)),
                (0, None) => return Err(self.corrupt("ra", "is 0, and the limit is never reset")),
                (_, Some(_)) => {
                    return Err(self.corrupt(
                        "ra",
                        "is not 0, and a limit that is reset gains nothing over time",
                    ));
                }
                (amount, None) => {
                    let secs = self.number("rp", 1, MAX_PERIOD_SECS)?;
                    Limit::custom(self.name, capacity, amount, Duration::from_secs(secs))
                }
            }
        };
        let schedule = self.schedule("sched", Schedule::decode)?;
        let entries = schedule.iter().flat_map(Schedule::entries).cloned();
        let mut builder = builder.scheduled(entries).stored();
        if self.reader.bool_opt(&self.attr("soft"))? == Some(true) {
            builder = builder.soft();
        }
        builder.build().map_err(|err| self.corrupt("cp", err.to_string()))
    }

    fn schedule<T>(
        &self,
        part: &str,
        decode: impl FnOnce(&str, &Zone) -> Result<T, ScheduleError>,
    ) -> Result<Option<T>, RecordError> {
        let Some(text) = self.reader.text_opt(&self.attr(part))? else {
            return Ok(None);
        };
        let zone = self.reader.text_opt(ZONE)?.map_or(Ok(Zone::UTC), Zone::named);
        // A newer client may know a zone that was introduced later.
        let zone = zone.map_err(|_| self.reader.unsupported(ZONE, UPGRADE))?;
        match decode(text, &zone) {
            Ok(schedule) => Ok(Some(schedule)),
            Err(ScheduleError::Version { .. }) => Err(self.reader.unsupported(&self.attr(part), UPGRADE)),
            Err(ScheduleError::Malformed(err)) => Err(self.corrupt(part, err.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::table::Item;

    fn decode(attrs: &[(&str, Value)]) -> Result<Config, RecordError> {
        let attrs = attrs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Config::decode(&attrs.collect::<Item>())
    }

    fn limit(prefix: &str, amount: i64) -> [(String, Value); 3] {
        [("cp", 5), ("ra", amount), ("rp", 60)].map(|(part, n)| (format!("{prefix}x_{part}"), Value::int(n)))
    }

    #[track_caller]
    fn read(prefix: &str, amount: i64, more: &[(&str, Value)]) -> Result<Config, RecordError> {
        let limit = limit(prefix, amount);
        let limit = limit.iter().map(|(name, value)| (name.as_str(), value.clone()));
        decode(&limit.chain(more.iter().cloned()).collect::<Vec<_>>())
    }

    #[test]
    fn shapes_are_read() {
        for (prefix, amount, more, part) in [
            ("l_", 5, ("l_x_sched", Value::text("1h0s500")), "l_x_sched"),
            ("l_", 0, ("l_x_rsched", Value::text("1m0h0")), "l_x_rsched"),
            ("w_", 0, ("w_x_rsa", Value::int(60)), "w_x_rsa"),
        ] {
            let config = read(prefix, amount, &[more]).unwrap();
            assert_eq!((config.limits.len(), &config.unsupported), (1, &None));
            assert!(!config.limits[0].is_plain(), "{part}");
        }
        let soft = read("l_", 5, &[("l_x_soft", Value::Bool(true))]).unwrap();
        assert!(soft.limits[0].is_soft());
    }

    #[test]
    fn what_only_newer_clients_read_is_said_and_the_rest_is_read() {
        for (attr, value) in [
            ("l_y_sched", Value::text("1h0s500")),
            ("w_y_rsa", Value::int(5)),
            ("l_x_sched", Value::text("2h0s500")),
            ("w_x_kind", Value::text("rolling")),
        ] {
            let config = read("l_", 5, &[(attr, value)]).unwrap();
            assert_eq!(config.unsupported.unwrap().attribute, attr);
        }
        let zone = [
            ("l_x_sched", Value::text("1h0s500")),
            ("sched_tz", Value::text("Mars/Olympus")),
        ];
        assert_eq!(read("l_", 5, &zone).unwrap().unsupported.unwrap().attribute, ZONE);
    }

    #[test]
    fn limits_that_contradict_themselves_are_corrupt() {
        for (prefix, amount, more, attribute) in [
            ("l_", 0, ("disabled", Value::Bool(true)), "l_x_ra"),
            ("l_", 5, ("l_x_rsched", Value::text("1m0h0")), "l_x_ra"),
            ("l_", 5, ("l_x_sched", Value::text("1h0")), "l_x_sched"),
            ("l_", 5, ("l_x_soft", Value::int(1)), "l_x_soft"),
            ("l_", 0, ("l_x_rsched", Value::text("1h0s500")), "l_x_rsched"),
            ("w_", 0, ("sched_tz", Value::text("UTC")), "w_x_rsa"),
            ("w_", 5, ("w_x_rsa", Value::int(60)), "w_x_ra"),
            ("w_", 0, ("l_x_cp", Value::int(60)), "l_x_ra"),
        ] {
            match read(prefix, amount, &[more]) {
                Err(RecordError::Corrupt(err)) => assert_eq!(err.attribute, attribute),
                other => panic!("{other:?}"),
            }
        }
        let both = [limit("l_", 5), limit("w_", 0)].concat();
        let both: Vec<_> = both
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        assert!(matches!(decode(&both), Err(RecordError::Corrupt(err)) if err.attribute == "w_x_cp"));
    }
}
