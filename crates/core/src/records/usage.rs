//! Usage snapshots: what an entity consumed of a resource in one window of time. Data model, section 9.
//!
//! The table's functions write them from the stream of bucket changes; clients read them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::name::{EntityId, NamespaceId, ResourceName};
use crate::schema::{entity_pk, resource_pk};
use crate::table::{Index, Item, Key, Query, Value};
use crate::units::{EpochMillis, stored_time};

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
    pub fn start(self, at: SystemTime) -> Option<SystemTime> {
        self.start_millis(at.into()).map(SystemTime::from)
    }

    /// When the next window starts, after the one that starts at `start`; `None` beyond the calendar.
    pub fn next(self, start: SystemTime) -> Option<SystemTime> {
        self.next_millis(start.into()).map(SystemTime::from)
    }

    /// [`start`](Self::start), in milliseconds.
    pub fn start_millis(self, at: EpochMillis) -> Option<EpochMillis> {
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

    /// [`next`](Self::next), in milliseconds.
    pub fn next_millis(self, start: EpochMillis) -> Option<EpochMillis> {
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

    /// The last second of the window that starts at `start`; `None` beyond the calendar.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use std::time::{Duration, SystemTime};
    /// use zae_limiter::Window;
    ///
    /// let noon = SystemTime::UNIX_EPOCH + Duration::from_hours(12);
    /// let day = Window::Daily.start(noon).expect("within the calendar");
    /// assert_eq!(day, SystemTime::UNIX_EPOCH);
    /// assert_eq!(Window::Daily.end(day), Some(day + Duration::from_secs(86_399)));
    /// assert_eq!(Window::Monthly.end(day), Some(day + Duration::from_secs(31 * 86_400 - 1)));
    /// ```
    pub fn end(self, start: SystemTime) -> Option<SystemTime> {
        let start = Timestamp::try_from(start).ok()?;
        let start: DateTime = start.to_zoned(TimeZone::UTC).datetime();
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
        let end = end.subsec_nanosecond(0).build().ok()?;
        Some(end.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UsageSnapshot {
    /// Who.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: String,
    /// Of what.
    pub resource: String,
    /// The kind of window, as stored; see [`Window::parse`].
    pub window: String,
    /// When the window starts.
    #[cfg_attr(feature = "serde", serde(with = "crate::serialized::time"))]
    pub window_start: SystemTime,
    /// How many changes of limits were counted.
    pub total_events: u64,
    /// Net tokens consumed, by limit. Negative if more was given back than taken in this window.
    pub counters: BTreeMap<String, i128>,
    /// How many debits of a soft limit left it in debt, by limit.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "BTreeMap::is_empty"))]
    pub overdrawn: BTreeMap<String, i128>,
}

/// Ends the name of a counter of overdrawn debits.
pub(crate) const OVERDRAWN: &str = "#od";

impl UsageSnapshot {
    /// Reads a snapshot; `None` if the item lacks the entity, the resource or the start of the window, or if that is not
    /// an instant.
    pub fn decode(item: &Item) -> Option<Self> {
        let text = |attr| item.get(attr).and_then(Value::as_text);
        let is_counter = |name: &str| !matches!(name, "total_events" | "ttl") && !name.ends_with(OVERDRAWN);
        Some(Self {
            entity: text("entity_id")?.to_owned(),
            resource: text("resource")?.to_owned(),
            window_start: stored_time(text("window_start")?)?,
            window: text("window").unwrap_or_default().to_owned(),
            total_events: item
                .get("total_events")
                .and_then(Value::as_int)
                .map_or(0, |events| u64::try_from(events.max(0)).unwrap_or(u64::MAX)),
            counters: item
                .iter()
                .filter(|(name, _)| is_counter(name))
                .filter_map(|(name, value)| Some((name.clone(), value.as_int()?)))
                .collect(),
            overdrawn: item
                .iter()
                .filter_map(|(name, value)| Some((name.strip_suffix(OVERDRAWN)?.to_owned(), value.as_int()?)))
                .collect(),
        })
    }

    /// The last second of its window; its start if the kind of window is not known.
    pub fn window_end(&self) -> SystemTime {
        Window::parse(&self.window)
            .and_then(|window| window.end(self.window_start))
            .unwrap_or(self.window_start)
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
    /// All of a namespace.
    All,
}

/// Which snapshots are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFilter {
    /// Whose usage, of what.
    pub of: UsageOf,
    /// Only windows of this kind.
    pub window: Option<Window>,
    /// Only windows that start in this second or later.
    pub start: Option<EpochMillis>,
    /// Only windows that start in this second or earlier.
    pub end: Option<EpochMillis>,
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

    /// The query whose answer holds what is wanted, latest first; `None` if nothing can match. Of [`UsageOf::All`] it
    /// holds the keys of all entities' items, see [`start_in`](Self::start_in).
    ///
    /// The time range is part of the query wherever keys are in order of time: a year of history does not
    /// make yesterday expensive to read.
    pub fn query(&self, namespace: &NamespaceId) -> Option<Query> {
        if let (Some(start), Some(end)) = (self.start, self.end)
            && start.secs() > end.secs()
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
            UsageOf::All => {
                let entities = format!("{namespace}/ENTITY#");
                return Some(Query::new(Index::Gsi4, namespace.as_str()).prefix(entities));
            }
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
        let first = self.start.map(EpochMillis::to_text).unwrap_or_default();
        let last = self.end.map_or_else(|| ":".to_owned(), EpochMillis::to_text);
        query.between(format!("{prefix}{first}"), format!("{prefix}{last}~"))
    }

    /// The start of the window in a snapshot's key, in its stored form, if the snapshot can be wanted. Later windows have
    /// greater ones.
    pub fn start_in<'a>(&self, key: &'a Key) -> Option<&'a str> {
        let (_, start) = key.sk.strip_prefix("#USAGE#")?.split_once('#')?;
        // Only keys of days and months that this project has written name the kind of the window.
        let (start, kind) = start
            .split_once('#')
            .map_or((start, None), |(start, kind)| (start, Some(kind)));
        let begin = EpochMillis::from(stored_time(start)?);
        let is_wanted = |window: Window| match kind {
            Some(kind) => kind == window.as_str(),
            None => window.start_millis(begin) == Some(begin),
        };
        let at = begin.secs();
        let is_within = self.start.is_none_or(|first| first.secs() <= at)
            && self.end.is_none_or(|last| at <= last.secs());
        (is_within && self.window.is_none_or(is_wanted)).then_some(start)
    }

    /// Whether a snapshot that the query found is wanted.
    pub fn wants(&self, snapshot: &UsageSnapshot) -> bool {
        let start = EpochMillis::from(snapshot.window_start).secs();
        self.window
            .is_none_or(|window| window.as_str() == snapshot.window)
            && self.start.is_none_or(|first| first.secs() <= start)
            && self.end.is_none_or(|last| start <= last.secs())
    }
}

/// Usage added up over windows of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UsageSummary {
    /// The kind of window, such as `hourly`; `None` without snapshots.
    #[cfg_attr(feature = "serde", serde(default))]
    pub window: Option<String>,
    /// Other kinds of windows that match, and count the same usage again.
    #[cfg_attr(feature = "serde", serde(default))]
    pub other_windows: Vec<String>,
    /// How many snapshots went in.
    pub snapshots: u64,
    /// By limit.
    pub limits: BTreeMap<String, UsageTotal>,
    /// The earliest start of a window.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "first_window_start", with = "crate::serialized::time_opt")
    )]
    pub first: Option<SystemTime>,
    /// The latest start of a window.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "last_window_start", with = "crate::serialized::time_opt")
    )]
    pub last: Option<SystemTime>,
}

/// One limit's usage added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UsageTotal {
    /// Net tokens consumed.
    pub total: i128,
    /// How many snapshots know the limit; the average is the total divided by these.
    pub snapshots: u64,
}

impl UsageSummary {
    /// Of summaries of different kinds of windows, the one of the shortest windows, which names the others.
    pub fn shortest(summaries: impl IntoIterator<Item = Self>) -> Self {
        let mut all: Vec<Self> = summaries.into_iter().collect();
        let rank = |summary: &Self| match summary.window.as_deref() {
            Some("hourly") => 0,
            Some("daily") => 1,
            Some("monthly") => 2,
            _ => 3,
        };
        all.sort_by_key(rank);
        let mut all = all.into_iter();
        let mut first = all.next().unwrap_or_default();
        first.other_windows = all.filter_map(|other| other.window).collect();
        first
    }

    /// Adds a snapshot, which must be of the same kind of window as those before.
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use std::time::SystemTime;
    /// use zae_limiter::{UsageSnapshot, UsageSummary};
    ///
    /// // As `usage_snapshots` of a deployed stack returns it.
    /// let snapshot = UsageSnapshot {
    ///     entity: "key-1".to_owned(),
    ///     resource: "gpt-4".to_owned(),
    ///     window: "hourly".to_owned(),
    ///     window_start: SystemTime::UNIX_EPOCH,
    ///     total_events: 2,
    ///     counters: [("tpm".to_owned(), 1_250)].into(),
    ///     overdrawn: [].into(),
    /// };
    /// let mut summary = UsageSummary::default();
    /// summary.add(&snapshot);
    /// assert_eq!(summary.limits["tpm"].total, 1_250);
    /// assert_eq!(summary.last, Some(SystemTime::UNIX_EPOCH));
    /// ```
    pub fn add(&mut self, snapshot: &UsageSnapshot) {
        self.window.get_or_insert_with(|| snapshot.window.clone());
        self.snapshots += 1;
        for (name, tokens) in &snapshot.counters {
            let limit = self.limits.entry(name.clone()).or_default();
            limit.total = limit.total.saturating_add(*tokens);
            limit.snapshots += 1;
        }
        let start = snapshot.window_start;
        self.first = Some(self.first.map_or(start, |first| first.min(start)));
        self.last = Some(self.last.map_or(start, |last| last.max(start)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> SystemTime {
        stored_time(text).unwrap()
    }

    #[test]
    fn windows_end_with_their_last_second() {
        let check = |window: Window, start, end: &str| {
            assert_eq!(window.end(time(start)), Some(time(end)));
        };
        check(Window::Hourly, "2026-11-21T19:00:00Z", "2026-11-21T19:59:59Z");
        check(Window::Daily, "2026-11-21T00:00:00Z", "2026-11-21T23:59:59Z");
        check(Window::Monthly, "2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z");
    }

    #[test]
    fn there_are_no_windows_beyond_the_calendar() {
        for window in [Window::Hourly, Window::Daily, Window::Monthly] {
            assert_eq!(window.start_millis(EpochMillis(i64::MIN)), None, "{window}");
        }
        assert_eq!(Window::Monthly.start_millis(EpochMillis(i64::MAX)), None);
    }

    #[test]
    fn an_instant_falls_in_one_window_of_each_kind() {
        let at: Timestamp = "2024-02-29T23:59:59.999Z".parse().unwrap();
        let at = EpochMillis(at.as_millisecond());
        let check = |window: Window, start: &str, next: &str| {
            let found = window.start_millis(at).unwrap();
            assert_eq!(found.to_text(), start);
            assert_eq!(window.start(at.into()), Some(found.into()));
            assert_eq!(window.next_millis(found).unwrap().to_text(), next);
        };
        check(Window::Hourly, "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z");
        check(Window::Daily, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z");
        check(Window::Monthly, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        assert_eq!(
            Window::Hourly.start_millis(EpochMillis(-1)),
            Some(EpochMillis(-3_600_000))
        );
        assert_eq!(Window::Monthly.start_millis(EpochMillis(i64::MAX)), None);
    }

    fn snapshot(start: &str, counters: &[(&str, i128)]) -> UsageSnapshot {
        UsageSnapshot {
            entity: "u".into(),
            resource: "gpt-4".into(),
            window: "hourly".into(),
            window_start: time(start),
            total_events: 1,
            counters: counters
                .iter()
                .map(|(name, tokens)| ((*name).to_owned(), *tokens))
                .collect(),
            overdrawn: BTreeMap::new(),
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
        let expected = UsageSnapshot {
            overdrawn: [("rpm".to_owned(), 1)].into(),
            ..snapshot("2026-11-21T19:00:00Z", &[("rpm", 3)])
        };
        assert_eq!(UsageSnapshot::decode(&item), Some(expected));
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
        assert_eq!(summary.first, Some(time("2026-01-01T00:00:00Z")));
        assert_eq!(summary.last, Some(time("2026-01-02T00:00:00Z")));
    }

    #[test]
    fn the_time_range_is_part_of_the_query() {
        let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
        let resource = ResourceName::new("gpt-4").unwrap();
        let mut filter = UsageFilter::new(UsageOf::Both(EntityId::new("u").unwrap(), resource));
        filter.start = EpochMillis::parse("2026-01-02T00:00:00Z");
        let query = filter.query(&namespace).unwrap();
        let key = |start: &str| format!("#USAGE#gpt-4#{start}");
        assert!(query.sort.contains(&key("2026-01-02T00:00:00Z")));
        assert!(query.sort.contains(&key("9999-12-31T23:00:00Z")));
        assert!(!query.sort.contains(&key("2026-01-01T23:00:00Z")));
        filter.end = EpochMillis::parse("2026-01-03T00:00:00Z");
        let query = filter.query(&namespace).unwrap();
        // A key may say more after the instant.
        assert!(query.sort.contains(&key("2026-01-03T00:00:00Z#daily")));
        assert!(!query.sort.contains(&key("2026-01-03T01:00:00Z")));
        filter.end = EpochMillis::parse("2026-01-01T00:00:00Z");
        assert_eq!(filter.query(&namespace), None);
    }
}
