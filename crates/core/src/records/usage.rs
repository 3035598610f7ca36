//! Usage snapshots: what an entity consumed of a resource in one window of time. Data model, section 9.
//!
//! The table's functions write them from the stream of bucket changes; clients read them.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::name::{EntityId, NamespaceId, ResourceName};
use crate::schema::{entity_pk, resource_pk};
use crate::table::{Index, Item, Query, Value};
use crate::units::EpochMillis;

/// The kind of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// A clock hour, UTC.
    Hourly,
    /// A calendar day, UTC.
    Daily,
    /// A calendar month, UTC.
    Monthly,
}

impl Window {
    /// The kind as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Monthly => "monthly",
        }
    }

    /// Reads a stored kind.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hourly, Self::Daily, Self::Monthly]
            .into_iter()
            .find(|window| window.as_str() == text)
    }

    /// When the window starts that an instant falls in; `None` beyond the calendar.
    pub fn start(self, at: EpochMillis) -> Option<EpochMillis> {
        let secs = at.secs();
        let aligned = |to: i64| {
            let start = secs.checked_sub(secs.rem_euclid(to))?.checked_mul(1000)?;
            Some(EpochMillis(start))
        };
        match self {
            Self::Hourly => aligned(3600),
            Self::Daily => aligned(86_400),
            Self::Monthly => {
                let day = Timestamp::from_second(secs).ok()?.to_zoned(TimeZone::UTC).date();
                midnight(day.first_of_month())
            }
        }
    }

    /// When the next window starts, after the one that starts at `start`; `None` beyond the calendar.
    pub fn next(self, start: EpochMillis) -> Option<EpochMillis> {
        match self {
            Self::Hourly => Some(start.plus(3_600_000)),
            Self::Daily => Some(start.plus(86_400_000)),
            Self::Monthly => {
                let day = Timestamp::from_second(start.secs())
                    .ok()?
                    .to_zoned(TimeZone::UTC)
                    .date();
                midnight(day.last_of_month().tomorrow().ok()?)
            }
        }
    }

    /// The last second of the window that starts at `start`; `None` if that is not an instant.
    pub fn end(self, start: &str) -> Option<String> {
        let start: DateTime = start.strip_suffix('Z')?.parse().ok()?;
        let end = match self {
            Self::Hourly => start.with().minute(59).second(59),
            Self::Daily => start.with().hour(23).minute(59).second(59),
            Self::Monthly => start
                .with()
                .day(start.days_in_month())
                .hour(23)
                .minute(59)
                .second(59),
        };
        Some(end.build().ok()?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}

fn midnight(day: Date) -> Option<EpochMillis> {
    let start = day.to_zoned(TimeZone::UTC).ok()?;
    Some(EpochMillis(start.timestamp().as_millisecond()))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The consumption of an entity on a resource in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSnapshot {
    /// Who.
    pub entity: String,
    /// Of what.
    pub resource: String,
    /// The kind of window, as stored; see [`Window::parse`].
    pub window: String,
    /// When the window starts, as `YYYY-MM-DDTHH:MM:SSZ`.
    pub window_start: String,
    /// How many changes of limits were counted.
    pub total_events: i128,
    /// Net tokens consumed, by limit. Negative if more was given back than taken in this window.
    pub counters: BTreeMap<String, i128>,
}

impl UsageSnapshot {
    /// Reads a snapshot; `None` if the item lacks the entity, the resource or the window.
    pub fn decode(item: &Item) -> Option<Self> {
        let text = |attr| item.get(attr).and_then(Value::as_text);
        let is_counter = |name: &str| !matches!(name, "total_events" | "ttl") && !name.ends_with("#od");
        Some(Self {
            entity: text("entity_id")?.to_owned(),
            resource: text("resource")?.to_owned(),
            window_start: text("window_start")?.to_owned(),
            window: text("window").unwrap_or_default().to_owned(),
            total_events: item.get("total_events").and_then(Value::as_int).unwrap_or(0),
            counters: item
                .iter()
                .filter(|(name, _)| is_counter(name))
                .filter_map(|(name, value)| Some((name.clone(), value.as_int()?)))
                .collect(),
        })
    }

    /// The last second of its window; its start if the kind of window is not known.
    pub fn window_end(&self) -> String {
        Window::parse(&self.window)
            .and_then(|window| window.end(&self.window_start))
            .unwrap_or_else(|| self.window_start.clone())
    }
}

/// Whose usage, of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageOf {
    /// Everything an entity consumed, by resource.
    Entity(EntityId),
    /// The consumption of an entity on one resource.
    Both(EntityId, ResourceName),
    /// The consumption of all entities on a resource.
    Resource(ResourceName),
}

/// Which snapshots are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFilter {
    /// Whose usage, of what.
    pub of: UsageOf,
    /// Only windows of this kind.
    pub window: Option<Window>,
    /// Only windows that start at or after this instant, as `YYYY-MM-DDTHH:MM:SSZ`.
    pub start: Option<String>,
    /// Only windows that start at or before this instant.
    pub end: Option<String>,
}

impl UsageFilter {
    /// All snapshots of these.
    pub fn new(of: UsageOf) -> Self {
        Self {
            of,
            window: None,
            start: None,
            end: None,
        }
    }

    /// The query whose answer holds what is wanted, latest first; `None` if nothing can match.
    ///
    /// The time range is part of the query wherever keys are in order of time: a year of history does not
    /// make yesterday expensive to read.
    pub fn query(&self, namespace: &NamespaceId) -> Option<Query> {
        if let (Some(start), Some(end)) = (&self.start, &self.end)
            && start > end
        {
            return None;
        }
        let query = match &self.of {
            UsageOf::Entity(entity) => {
                return Some(
                    Query::new(Index::Primary, entity_pk(namespace, entity))
                        .prefix("#USAGE#")
                        .descending(),
                );
            }
            UsageOf::Both(entity, resource) => self.range(
                Query::new(Index::Primary, entity_pk(namespace, entity)),
                &format!("#USAGE#{resource}#"),
            ),
            UsageOf::Resource(resource) => self.range(
                Query::new(Index::Gsi2, resource_pk(namespace, resource)),
                "USAGE#",
            ),
        };
        Some(query.descending())
    }

    fn range(&self, query: Query, prefix: &str) -> Query {
        if self.start.is_none() && self.end.is_none() {
            return query.prefix(prefix);
        }
        // What follows the instant in a key sorts below `~`; instants themselves sort below `:`.
        let first = self.start.as_deref().unwrap_or_default();
        let last = self.end.as_deref().unwrap_or(":");
        query.between(format!("{prefix}{first}"), format!("{prefix}{last}~"))
    }

    /// Whether a snapshot that the query found is wanted.
    pub fn wants(&self, snapshot: &UsageSnapshot) -> bool {
        let start = &snapshot.window_start;
        self.window
            .is_none_or(|window| window.as_str() == snapshot.window)
            && self.start.as_ref().is_none_or(|first| first <= start)
            && self.end.as_ref().is_none_or(|last| start <= last)
    }
}

/// Usage added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageSummary {
    /// How many snapshots went in.
    pub snapshots: u64,
    /// By limit.
    pub limits: BTreeMap<String, UsageTotal>,
    /// The earliest start of a window.
    pub first: Option<String>,
    /// The latest start of a window.
    pub last: Option<String>,
}

/// One limit's usage added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotal {
    /// Net tokens consumed.
    pub total: i128,
    /// How many snapshots know the limit; the average is the total divided by these.
    pub snapshots: u64,
}

impl UsageSummary {
    /// Adds a snapshot.
    pub fn add(&mut self, snapshot: &UsageSnapshot) {
        self.snapshots += 1;
        for (name, tokens) in &snapshot.counters {
            let limit = self.limits.entry(name.clone()).or_default();
            limit.total = limit.total.saturating_add(*tokens);
            limit.snapshots += 1;
        }
        let start = &snapshot.window_start;
        if self.first.as_ref().is_none_or(|first| start < first) {
            self.first = Some(start.clone());
        }
        if self.last.as_ref().is_none_or(|last| start > last) {
            self.last = Some(start.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_with_their_last_second() {
        let check = |window: Window, start, end: &str| {
            assert_eq!(window.end(start).as_deref(), Some(end));
        };
        check(Window::Hourly, "2026-11-21T19:00:00Z", "2026-11-21T19:59:59Z");
        check(Window::Daily, "2026-11-21T00:00:00Z", "2026-11-21T23:59:59Z");
        check(Window::Monthly, "2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z");
        assert_eq!(Window::Daily.end("yesterday"), None);
    }

    #[test]
    fn there_are_no_windows_beyond_the_calendar() {
        for window in [Window::Hourly, Window::Daily, Window::Monthly] {
            assert_eq!(window.start(EpochMillis(i64::MIN)), None, "{window}");
        }
        assert_eq!(Window::Monthly.start(EpochMillis(i64::MAX)), None);
    }

    #[test]
    fn an_instant_falls_in_one_window_of_each_kind() {
        let at: Timestamp = "2024-02-29T23:59:59.999Z".parse().unwrap();
        let at = EpochMillis(at.as_millisecond());
        let check = |window: Window, start: &str, next: &str| {
            let found = window.start(at).unwrap();
            assert_eq!(found.to_text(), start);
            assert_eq!(window.next(found).unwrap().to_text(), next);
        };
        check(Window::Hourly, "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z");
        check(Window::Daily, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z");
        check(Window::Monthly, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        assert_eq!(
            Window::Hourly.start(EpochMillis(-1)),
            Some(EpochMillis(-3_600_000))
        );
        assert_eq!(Window::Monthly.start(EpochMillis(i64::MAX)), None);
    }

    fn snapshot(start: &str, counters: &[(&str, i128)]) -> UsageSnapshot {
        UsageSnapshot {
            entity: "u".into(),
            resource: "gpt-4".into(),
            window: "hourly".into(),
            window_start: start.into(),
            total_events: 1,
            counters: counters
                .iter()
                .map(|(name, tokens)| ((*name).to_owned(), *tokens))
                .collect(),
        }
    }

    #[test]
    fn counters_are_the_numbers_that_are_nothing_else() {
        let item = Item::from([
            ("entity_id".into(), Value::text("u")),
            ("resource".into(), Value::text("gpt-4")),
            ("window".into(), Value::text("hourly")),
            ("window_start".into(), Value::text("2026-11-21T19:00:00Z")),
            ("rpm".into(), Value::int(3)),
            ("rpm#od".into(), Value::int(1)),
            ("total_events".into(), Value::int(1)),
            ("ttl".into(), Value::int(1_803_066_424)),
        ]);
        assert_eq!(
            UsageSnapshot::decode(&item),
            Some(snapshot("2026-11-21T19:00:00Z", &[("rpm", 3)]))
        );
        assert_eq!(UsageSnapshot::decode(&Item::new()), None);
    }

    #[test]
    fn an_average_counts_the_snapshots_that_know_the_limit() {
        let mut summary = UsageSummary::default();
        summary.add(&snapshot("2026-01-02T00:00:00Z", &[("rpm", 3), ("tpm", -5)]));
        summary.add(&snapshot("2026-01-01T00:00:00Z", &[("rpm", 4)]));
        assert_eq!(summary.snapshots, 2);
        assert_eq!(
            summary.limits["rpm"],
            UsageTotal {
                total: 7,
                snapshots: 2
            }
        );
        assert_eq!(
            summary.limits["tpm"],
            UsageTotal {
                total: -5,
                snapshots: 1
            }
        );
        assert_eq!(summary.first.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(summary.last.as_deref(), Some("2026-01-02T00:00:00Z"));
    }

    #[test]
    fn the_time_range_is_part_of_the_query() {
        let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
        let resource = ResourceName::new("gpt-4").unwrap();
        let mut filter = UsageFilter::new(UsageOf::Both(EntityId::new("u").unwrap(), resource));
        filter.start = Some("2026-01-02T00:00:00Z".into());
        let query = filter.query(&namespace).unwrap();
        let key = |start: &str| format!("#USAGE#gpt-4#{start}");
        assert!(query.sort.contains(&key("2026-01-02T00:00:00Z")));
        assert!(query.sort.contains(&key("9999-12-31T23:00:00Z")));
        assert!(!query.sort.contains(&key("2026-01-01T23:00:00Z")));
        filter.end = Some("2026-01-03T00:00:00Z".into());
        let query = filter.query(&namespace).unwrap();
        // A key may say more after the instant.
        assert!(query.sort.contains(&key("2026-01-03T00:00:00Z#daily")));
        assert!(!query.sort.contains(&key("2026-01-03T01:00:00Z")));
        filter.end = Some("2026-01-01T00:00:00Z".into());
        assert_eq!(filter.query(&namespace), None);
    }
}
