//! The shape of a limit on an item, read plainly, and what it earns: written from the description of the format, without the
//! code under test.
//!
//! Only patterns of minutes are read, and only the zones that plans use, so that a pattern is a set of minutes of the hour in
//! UTC.

use zae_limiter_core::table::{Item, Value};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// A millitoken has so many parts: all periods in plans divide it.
pub const PARTS: i128 = 86_400_000;

/// Minutes of the hour, in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minutes(u64);

impl Minutes {
    fn read(field: &str, offset: u32) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("no minute: {field:?}"));
        let mut local = 0_u64;
        for item in field.split(',') {
            let (span, step) = match item.split_once('/') {
                Some((span, step)) => (span, number(step)?),
                None => (item, 1),
            };
            let (from, to) = match span.split_once('-') {
                _ if span == "*" => (0, 59),
                Some((from, to)) => (number(from)?, number(to)?),
                None => (number(span)?, number(span)?),
            };
            for minute in (from..=to.min(59)).step_by(step.max(1) as usize) {
                local |= 1 << minute;
            }
        }
        // Local time is ahead of UTC by the offset.
        let utc = (0..60).filter(|minute| local & 1 << ((minute + offset) % 60) != 0);
        Ok(Self(utc.fold(0, |set, minute| set | 1 << minute)))
    }

    fn has(self, at: i64) -> bool {
        self.0 & 1 << (at.rem_euclid(HOUR_MS) / MINUTE_MS) != 0
    }

    /// The last instant up to this one at which it began to match, if it does at all.
    pub fn last_edge(self, at: i64) -> Option<i64> {
        let begun = at - at.rem_euclid(MINUTE_MS);
        let is_edge = |edge: &i64| self.has(*edge) && !self.has(edge - MINUTE_MS);
        (0..60).map(|minutes| begun - minutes * MINUTE_MS).find(is_edge)
    }

    /// Whether it begins to match in the time after one instant and up to another.
    pub fn begins_in(self, after: i64, until: i64) -> bool {
        self.last_edge(until).is_some_and(|edge| edge > after)
    }
}

/// What a window changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Scale(u32),
    Replace {
        cp: Option<i128>,
        ra: Option<i128>,
        rp: Option<i128>,
    },
}

/// A part of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    minutes: Minutes,
    change: Change,
}

/// How a balance comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Regain {
    /// By the rate.
    #[default]
    Rate,
    /// At the beginning of these minutes.
    Resets(Minutes),
    /// By the first use after a session of so many milliseconds, which has begun at this instant.
    Session(i64, Option<i64>),
    /// Never: the times of reset are gone.
    Never,
}

/// Capacity and refill in millitokens, and the period in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Capacity.
    pub cp: i128,
    /// Refill.
    pub ra: i128,
    /// Period.
    pub rp: i128,
}

/// A schedule and a way of coming back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    windows: [Option<Window>; 2],
    /// How it comes back.
    pub regain: Regain,
}

impl Terms {
    /// Whether it is of a quota or a session limit with a schedule.
    pub fn has_windows_and_periods(&self) -> bool {
        self.windows.iter().any(Option::is_some) && self.regain != Regain::Rate
    }

    /// Reads those of a limit from its item.
    ///
    /// # Errors
    /// A pattern or a zone that plans do not use.
    pub fn read(item: &Item, name: &str, ra: i128) -> Result<Self, String> {
        let text = |attr: &str| item.get(attr).and_then(Value::as_text);
        let number = |attr: &str| item.get(attr).and_then(Value::as_int).map(|n| n as i64);
        let own = |part: &str| match text(&format!("b_{name}_{part}")) {
            Some("-") => None,
            Some(own) => Some(own),
            None => text(part),
        };
        let offset = match text("sched_tz") {
            None | Some("UTC") => 0,
            Some("Asia/Kolkata") => 30,
            Some("Asia/Kathmandu") => 45,
            Some(other) => return Err(format!("the zone {other:?}")),
        };
        let mut windows = [None; 2];
        if let Some(schedule) = own("sched") {
            let entries = schedule.strip_prefix('1').unwrap_or_default().split(';');
            for (at, entry) in entries.enumerate() {
                let window = windows.get_mut(at).ok_or("a schedule of three entries")?;
                *window = Some(Window::read(entry, offset)?);
            }
        }
        let session = number(&format!("b_{name}_rsa"));
        let regain = match (session, own("rsched")) {
            _ if ra > 0 => Regain::Rate,
            (Some(secs), _) => Regain::Session(secs * 1000, number(&format!("b_{name}_ws"))),
            (None, Some(resets)) => {
                let field = resets
                    .strip_prefix("1m")
                    .ok_or("times of reset without minutes")?;
                Regain::Resets(Minutes::read(field, offset)?)
            }
            (None, None) => Regain::Never,
        };
        Ok(Self { windows, regain })
    }

    /// Whether it is refilled at one rate.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it has a schedule.
    pub fn is_scheduled(&self) -> bool {
        self.windows != [None; 2]
    }

    /// The same, apart from when a session has begun.
    pub fn is_same_rule(&self, other: &Self) -> bool {
        let rule = |terms: &Self| match terms.regain {
            Regain::Session(millis, _) => (terms.windows, Regain::Session(millis, None)),
            regain => (terms.windows, regain),
        };
        rule(self) == rule(other)
    }

    fn window(&self, at: i64) -> Option<usize> {
        let is_in_force = |window: &Option<Window>| window.is_some_and(|window| window.minutes.has(at));
        self.windows.iter().position(is_in_force)
    }

    /// The parameters in force at an instant, of all shards together.
    pub fn in_force(&self, base: Params, at: i64) -> Params {
        let window = self.window(at).and_then(|index| self.windows[index]);
        match window.map(|window| window.change) {
            None => base,
            Some(Change::Scale(thousandths)) => {
                let factor = f64::from(thousandths) / 1000.0;
                let scaled = |number: i128| ((number as f64 * factor) as i128).max(1);
                Params {
                    cp: scaled(base.cp),
                    ra: if base.ra == 0 { 0 } else { scaled(base.ra) },
                    rp: base.rp,
                }
            }
            Some(Change::Replace { cp, ra, rp }) => Params {
                cp: cp.unwrap_or(base.cp),
                ra: ra.unwrap_or(base.ra),
                rp: rp.unwrap_or(base.rp),
            },
        }
    }

    /// Whether other parameters come into force in the time after one instant and up to another.
    pub fn changes_in(&self, after: i64, until: i64) -> bool {
        self.changes(after, until) > 0
    }

    /// How often other parameters come into force in that time.
    pub fn changes(&self, after: i64, until: i64) -> usize {
        if !self.is_scheduled() {
            return 0;
        }
        let mut minute = after - after.rem_euclid(MINUTE_MS) + MINUTE_MS;
        let mut changes = 0;
        while minute <= until {
            changes += usize::from(self.window(minute) != self.window(minute - 1));
            minute += MINUTE_MS;
        }
        changes
    }

    /// The largest capacity and rate, the latter in parts of a millitoken for each millisecond, that are in force at any time
    /// between two instants.
    pub fn most(&self, base: Params, from: i64, to: i64) -> (i128, i128) {
        let of = |at: i64| {
            let params = self.in_force(base, at);
            (params.cp, params.ra * (PARTS / params.rp))
        };
        let (mut cp, mut rate) = of(from);
        let mut minute = from - from.rem_euclid(MINUTE_MS) + MINUTE_MS;
        while self.is_scheduled() && minute <= to {
            let (other_cp, other_rate) = of(minute);
            (cp, rate) = (cp.max(other_cp), rate.max(other_rate));
            minute += MINUTE_MS;
        }
        (cp, rate)
    }

    /// The first instant after this one at which other parameters come into force, or the balance is whole again. A search that
    /// finds nothing within an hour ends where it has looked; `None` if there is nothing to look for.
    pub fn valid_until(&self, at: i64) -> Option<i64> {
        let resets = match self.regain {
            Regain::Resets(minutes) => Some(minutes),
            _ => None,
        };
        let session = match self.regain {
            Regain::Session(millis, Some(start)) => Some(start + millis).filter(|end| *end > at),
            _ => None,
        };
        let first = at - at.rem_euclid(MINUTE_MS) + MINUTE_MS;
        let mut minutes = (0..60).map(|minute| first + minute * MINUTE_MS);
        let is_boundary = |minute: &i64| {
            self.window(*minute) != self.window(minute - 1)
                || resets.is_some_and(|resets| resets.last_edge(*minute) == Some(*minute))
        };
        let by_clock = minutes.find(is_boundary).unwrap_or(at + HOUR_MS);
        let has_clock = self.is_scheduled() || resets.is_some();
        Some(by_clock)
            .filter(|_| has_clock)
            .into_iter()
            .chain(session)
            .min()
    }

    /// The smallest capacity in force between two instants.
    pub fn least(&self, base: Params, from: i64, to: i64) -> i128 {
        let mut least = self.in_force(base, from).cp;
        let mut minute = from - from.rem_euclid(MINUTE_MS) + MINUTE_MS;
        while self.is_scheduled() && minute <= to {
            least = least.min(self.in_force(base, minute).cp);
            minute += MINUTE_MS;
        }
        least
    }

    /// What one of `count` shards holds at `to`, in parts of a millitoken, if it holds `level` at `from`: earned at the rates in
    /// force, and cut to the capacities in force on the way.
    pub fn refilled(&self, base: Params, count: i128, level: i128, (from, to): (i64, i64)) -> i128 {
        let (mut level, mut at) = (level, from);
        while at < to {
            let until = (at - at.rem_euclid(MINUTE_MS) + MINUTE_MS).min(to);
            let params = self.in_force(base, at);
            let earned = i128::from(until - at) * (params.ra / count) * (PARTS / params.rp);
            level = (level + earned).min(params.cp / count * PARTS);
            at = until;
        }
        level.min(self.in_force(base, to.max(from)).cp / count * PARTS)
    }

    /// What one of `count` shards earns from one instant to another, in millitokens, if nothing is cut.
    pub fn earned(&self, base: Params, count: i128, from: i64, to: i64) -> i128 {
        let (mut parts, mut at) = (0, from);
        while at < to {
            let until = (at - at.rem_euclid(MINUTE_MS) + MINUTE_MS).min(to);
            let until = if self.is_scheduled() { until } else { to };
            let params = self.in_force(base, at);
            parts += i128::from(until - at) * (params.ra / count) * (PARTS / params.rp);
            at = until;
        }
        parts / PARTS
    }
}

impl Window {
    /// `m41-43s500`, `m*/2c5`, `m0,30a7p60`.
    fn read(entry: &str, offset: u32) -> Result<Self, String> {
        let rest = entry
            .strip_prefix('m')
            .ok_or_else(|| format!("a window without minutes: {entry:?}"))?;
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (field, mut rest) = rest.split_at(end);
        let minutes = Minutes::read(field, offset)?;
        let (mut cp, mut ra, mut rp, mut scale) = (None, None, None, None);
        while let Some(tag) = rest.chars().next() {
            let end = rest[1..]
                .find(|c: char| c.is_ascii_alphabetic())
                .map_or(rest.len(), |end| end + 1);
            let number: i128 = rest[1..end].parse().map_err(|_| format!("a window: {entry:?}"))?;
            match tag {
                's' => scale = u32::try_from(number).ok(),
                'c' => cp = Some(number * 1000),
                'a' => ra = Some(number * 1000),
                'p' => rp = Some(number * 1000),
                _ => return Err(format!("a window: {entry:?}")),
            }
            rest = &rest[end..];
        }
        let change = scale.map_or(Change::Replace { cp, ra, rp }, Change::Scale);
        Ok(Self { minutes, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EPOCH_MS;

    const BASE: Params = Params {
        cp: 600_000,
        ra: 600_000,
        rp: 60_000,
    };

    fn terms(sched: &str, rsched: &str, zone: &str, ra: i128) -> Terms {
        let item = Item::from([
            ("sched".into(), Value::text(sched)),
            ("rsched".into(), Value::text(rsched)),
            ("sched_tz".into(), Value::text(zone)),
        ]);
        Terms::read(&item, "x", ra).unwrap()
    }

    /// Runs begin at minute 40.
    #[test]
    fn patterns_are_minutes_of_the_zone() {
        let resets = |text: &str, zone: &str| match terms("1m0s1", text, zone, 0).regain {
            Regain::Resets(minutes) => minutes,
            other => panic!("{other:?}"),
        };
        let utc = resets("1m41-43,50", "UTC");
        let edge = EPOCH_MS + 60_000;
        assert_eq!(utc.last_edge(edge), Some(edge));
        assert_eq!(utc.last_edge(edge + 300_000), Some(edge));
        assert_eq!(utc.last_edge(edge + 600_000), Some(edge + 540_000));
        assert!(!utc.begins_in(edge, edge + 539_999) && utc.begins_in(edge - 1, edge));
        let other = resets("1m11-13,20", "Asia/Kolkata");
        assert_eq!(utc, other);
        assert_eq!(utc, resets("1m26-28,35", "Asia/Kathmandu"));
    }

    #[test]
    fn each_minute_earns_at_its_rate() {
        let half = terms("1m41s500;m42a1p1", "-", "UTC", 600_000);
        let at = |secs: i64| EPOCH_MS + secs * 1000;
        assert_eq!(half.in_force(BASE, at(60)).cp, 300_000);
        assert_eq!(
            half.in_force(BASE, at(120)),
            Params {
                ra: 1000,
                rp: 1000,
                ..BASE
            }
        );
        assert_eq!(half.changes(at(0), at(180)), 3);
        assert_eq!(half.earned(BASE, 1, at(59), at(121)), 10_000 + 300_000 + 1000);
        let level = half.refilled(BASE, 1, 600_000 * PARTS, (at(59), at(121)));
        assert_eq!(level, 301_000 * PARTS);
        assert_eq!(
            half.refilled(BASE, 2, 600_000 * PARTS, (at(60), at(60))),
            150_000 * PARTS
        );
    }
}
