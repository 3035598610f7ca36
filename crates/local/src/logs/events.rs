//! Reading events: of one stream in both directions, and of a group by time and pattern.

use rusqlite::{Row, ToSql};

use super::pattern::Pattern;
use super::{Logs, failed, group_key};
use crate::wire::Refusal;

/// The most bytes of messages in one answer.
const MOST_BYTES: usize = 1024 * 1024;

/// How many events are looked at for one page that filters.
const MOST_LOOKED_AT: usize = 50_000;

/// Where an event stands: its time, and its place among those of that time.
pub(super) type Place = (i64, i64);

/// An event that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub id: i64,
    pub stream: String,
    pub at: i64,
    pub ingested: i64,
    pub message: String,
}

impl Event {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            stream: row.get(1)?,
            at: row.get(2)?,
            ingested: row.get(3)?,
            message: row.get(4)?,
        })
    }

    pub(super) fn place(&self) -> Place {
        (self.at, self.id)
    }
}

/// Which of a stream's events to read.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    /// From a place on, towards newer ones.
    After(Place),
    /// Up to a place, the newest of them.
    Before(Place),
}

/// Times from one, inclusive, to another, exclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub start: i64,
    pub end: i64,
}

/// Some events, and where to continue if there may be more.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub events: Vec<Event>,
    pub next: Option<Place>,
}

impl Logs {
    /// Events of a stream, oldest first.
    pub(super) fn stream_events(
        &self,
        region: &str,
        group: &str,
        stream: &str,
        span: Span,
        from: From,
        limit: usize,
    ) -> Result<Vec<Event>, Refusal> {
        let key = group_key(region, group);
        let (compared, direction, (at, id)) = match from {
            From::After(place) => (">", "ASC", place),
            From::Before(place) => ("<", "DESC", place),
        };
        let sql = format!(
            "SELECT id, stream, at, ingested, message FROM log_events
             WHERE log_group = ?1 AND stream = ?2 AND at >= ?3 AND at < ?4 AND (at, id) {compared} (?5, ?6)
             ORDER BY at {direction}, id {direction} LIMIT ?7"
        );
        let mut bytes = 0;
        let mut events = Vec::new();
        self.read(
            &sql,
            &[&key, &stream, &span.start, &span.end, &at, &id, &limit],
            |event| {
                bytes += event.message.len();
                let room = bytes <= MOST_BYTES || events.is_empty();
                if room {
                    events.push(event);
                }
                room
            },
        )?;
        if direction == "DESC" {
            events.reverse();
        }
        Ok(events)
    }

    /// Events of a group that fit, oldest first, after a place.
    pub(super) fn group_events(
        &self,
        region: &str,
        group: &str,
        span: Span,
        after: Place,
        limit: usize,
        wanted: impl Fn(&str) -> bool,
        pattern: &Pattern,
    ) -> Result<Found, Refusal> {
        let key = group_key(region, group);
        let mut found = Found::default();
        let (mut bytes, mut looked_at) = (0, 0);
        let mut last = after;
        self.read(
            "SELECT id, stream, at, ingested, message FROM log_events
             WHERE log_group = ?1 AND at >= ?2 AND at < ?3 AND (at, id) > (?4, ?5) ORDER BY at, id",
            &[&key, &span.start, &span.end, &after.0, &after.1],
            |event| {
                let fits = wanted(&event.stream) && pattern.fits(&event.message);
                let length = event.message.len();
                let full = fits && (found.events.len() >= limit || bytes + length > MOST_BYTES && bytes > 0);
                if full || looked_at >= MOST_LOOKED_AT {
                    found.next = Some(last);
                    return false;
                }
                looked_at += 1;
                last = event.place();
                if fits {
                    bytes += length;
                    found.events.push(event);
                }
                true
            },
        )?;
        Ok(found)
    }

    /// The first and the last time of a stream's events, and when the last was written.
    pub(super) fn extent(
        &self,
        region: &str,
        group: &str,
        stream: &str,
    ) -> Result<Option<(i64, i64, i64)>, Refusal> {
        let database = self.store.database();
        database
            .prepare_cached(
                "SELECT min(at), max(at), max(ingested) FROM log_events WHERE log_group = ?1 AND stream = ?2",
            )
            .and_then(|mut statement| {
                statement.query_row([&group_key(region, group), stream], |row| {
                    let first: Option<i64> = row.get(0)?;
                    let (last, ingested): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
                    Ok(first
                        .zip(last)
                        .zip(ingested)
                        .map(|((first, last), ingested)| (first, last, ingested)))
                })
            })
            .map_err(|err| failed(&err))
    }

    /// How many bytes of messages a group has.
    pub(super) fn bytes(&self, region: &str, group: &str) -> Result<i64, Refusal> {
        let database = self.store.database();
        database
            .prepare_cached("SELECT coalesce(sum(length(message)), 0) FROM log_events WHERE log_group = ?1")
            .and_then(|mut statement| statement.query_row([group_key(region, group)], |row| row.get(0)))
            .map_err(|err| failed(&err))
    }

    /// Reads events until `take` has enough.
    fn read(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        mut take: impl FnMut(Event) -> bool,
    ) -> Result<(), Refusal> {
        let database = self.store.database();
        let mut statement = database.prepare_cached(sql).map_err(|err| failed(&err))?;
        let events = statement
            .query_map(params, Event::of)
            .map_err(|err| failed(&err))?;
        for event in events {
            if !take(event.map_err(|err| failed(&err))?) {
                break;
            }
        }
        Ok(())
    }
}
