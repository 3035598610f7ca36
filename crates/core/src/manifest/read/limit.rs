//! One limit of a manifest: its numbers, and its shape.

use std::time::Duration;

use super::{
    BURST, CAPACITY, CRON, Dialect, Key, REFILL_AMOUNT, REFILL_PERIOD, REFILL_PERIOD_SECONDS, RESET_AFTER,
    RESET_SCHEDULE, Rules, SCALE, SCHEDULE, SOFT, TZ,
};
use crate::document::{Entry, Node, Path, Problem, Tree};
use crate::limit::Limit;
use crate::manifest::DEFAULT_PERIOD_SECS;
use crate::schedule::{Cron, MAX_SCALE, ResetSchedule, ScheduleEntry, Zone};
use crate::units::{MAX_PERIOD_SECS, MAX_TOKENS};

/// Why an entry's refill is refused for such a limit.
const NO_REFILL_IN_ENTRY: &str =
    "cannot be given for a limit that is not refilled over time; give a capacity or a scale";

/// The zone of the schedules of a level, and the first limit that has one.
#[derive(Default)]
pub(super) struct LevelZone(Option<(Zone, String)>);

/// An entry of a list, its way and its keys.
type Item<'n> = (Path, &'n Node, &'n [Entry]);

/// What a limit is refilled by.
enum Refill {
    Time { amount: u64, period: Duration },
    Resets(ResetSchedule),
    Session(Duration),
}

impl Rules {
    /// Reads a limit; `None` if it has problems, which are reported.
    pub(super) fn limit(
        &mut self,
        path: &Path,
        name: &str,
        node: &Node,
        zone: &mut LevelZone,
    ) -> Option<Limit> {
        let entries = self.map(path, node)?;
        let numbers = match self.dialect {
            Dialect::File => &[CAPACITY, BURST, REFILL_AMOUNT, REFILL_PERIOD][..],
            Dialect::Stack => &[CAPACITY, REFILL_AMOUNT, REFILL_PERIOD],
        };
        let shape = [SCHEDULE, RESET_SCHEDULE, RESET_AFTER, SOFT];
        self.known(path, entries, &[numbers, &shape].concat(), &[]);
        let problems = self.problems.len();

        let mut number = |key, max| self.number(path, entries, key, 1..=max);
        let capacity = number(CAPACITY, MAX_TOKENS);
        let burst = number(BURST, MAX_TOKENS);
        let period = number(REFILL_PERIOD, MAX_PERIOD_SECS);
        let session = number(RESET_AFTER, MAX_PERIOD_SECS);
        let scheduled = self.items(path, entries, SCHEDULE);
        let resets = self.items(path, entries, RESET_SCHEDULE);
        let soft = self.truth(path, entries, SOFT);

        let has_resets = self.is_given(entries, RESET_SCHEDULE);
        let is_reset = has_resets || self.is_given(entries, RESET_AFTER);
        if has_resets && session.is_some() {
            let reason = format!(
                "cannot stand beside '{}'; give it or that",
                self.key(RESET_SCHEDULE)
            );
            self.wrong_key(path, entries, RESET_AFTER, &reason);
        }
        if is_reset && burst.is_some() {
            let reason =
                "cannot be given for a limit that is not refilled over time; give the amount as its capacity";
            self.wrong_key(path, entries, BURST, reason);
        }
        let least = u64::from(!is_reset);
        let refill = self.number(path, entries, REFILL_AMOUNT, least..=MAX_TOKENS);
        if is_reset && refill.is_some_and(|refill| refill > 0) {
            let (resets, after) = (self.key(RESET_SCHEDULE), self.key(RESET_AFTER));
            let reason =
                format!("must be 0 or absent: a limit with '{resets}' or '{after}' gains nothing over time");
            self.wrong_key(path, entries, REFILL_AMOUNT, &reason);
        }
        let schedule: Vec<ScheduleEntry> = scheduled
            .iter()
            .filter_map(|item| self.schedule_entry(item, name, zone, is_reset))
            .collect();
        let resets = self.resets(path, entries, &resets, name, zone);

        if self.problems.len() > problems {
            return None;
        }
        let Some(capacity) = capacity else {
            let reason = format!("must be given: a whole number from 1 to {MAX_TOKENS}");
            let path = self.path(path, CAPACITY);
            self.problem(Problem::new(node.at, &path, reason));
            return None;
        };
        let capacity = burst.unwrap_or(capacity);
        let refill = match (resets, session) {
            (Some(resets), _) => Refill::Resets(resets),
            (None, Some(secs)) => Refill::Session(Duration::from_secs(secs)),
            (None, None) => Refill::Time {
                amount: refill.unwrap_or(capacity),
                period: Duration::from_secs(period.unwrap_or(DEFAULT_PERIOD_SECS)),
            },
        };
        let builder = match refill {
            Refill::Resets(resets) => Limit::quota(name, capacity).resets_by(Ok(resets)),
            Refill::Session(length) => Limit::session(name, capacity, length),
            Refill::Time { amount, period } => Limit::custom(name, capacity, amount, period),
        };
        let builder = builder.scheduled(schedule);
        let builder = if soft { builder.soft() } else { builder };
        match builder.build() {
            Ok(limit) => Some(limit),
            // A wrong name has been reported already.
            Err(err) => {
                if err.field() != "limit_name" {
                    self.problem(Problem::new(node.at, path, err.to_string()));
                }
                None
            }
        }
    }

    /// The entries of a list of mappings; none if it is absent or wrong.
    fn items<'n>(&mut self, path: &Path, entries: &'n [Entry], key: Key) -> Vec<Item<'n>> {
        let Some(node) = self.find(entries, key) else {
            return Vec::new();
        };
        let path = self.path(path, key);
        let list = match &node.value {
            Tree::Null => return Vec::new(),
            Tree::Text(text) if self.dialect == Dialect::Stack && text.is_empty() => return Vec::new(),
            Tree::List(list) => list,
            _ => {
                let cron = self.key(CRON);
                self.wrong(&path, node, &format!("must be a list of mappings with '{cron}'"));
                return Vec::new();
            }
        };
        let mut items = Vec::with_capacity(list.len());
        for (index, node) in list.iter().enumerate() {
            let path = path.to(&index.to_string());
            if let Tree::Map(entries) = &node.value {
                items.push((path, node, entries.as_slice()));
            } else {
                let cron = self.key(CRON);
                self.wrong(&path, node, &format!("must be a mapping with '{cron}'"));
            }
        }
        items
    }

    /// An entry of a schedule.
    fn schedule_entry(
        &mut self,
        (path, node, entries): &Item<'_>,
        name: &str,
        zone: &mut LevelZone,
        is_reset: bool,
    ) -> Option<ScheduleEntry> {
        let values = [SCALE, CAPACITY, REFILL_AMOUNT, REFILL_PERIOD_SECONDS];
        self.known(path, entries, &[&[CRON, TZ][..], &values].concat(), &[]);
        let problems = self.problems.len();
        let cron = self.cron(path, node, entries);
        let zone = self.zone(path, node, entries, name, zone);
        let scale = self.scale(path, entries);
        let mut number = |key, max| {
            let is_given = self.is_given(entries, key);
            is_given
                .then(|| self.number(path, entries, key, 1..=max))
                .flatten()
        };
        let capacity = number(CAPACITY, MAX_TOKENS);
        let amount = number(REFILL_AMOUNT, MAX_TOKENS);
        let period = number(REFILL_PERIOD_SECONDS, MAX_PERIOD_SECS);
        if is_reset {
            for key in [REFILL_AMOUNT, REFILL_PERIOD_SECONDS] {
                if self.is_given(entries, key) {
                    self.wrong_key(path, entries, key, NO_REFILL_IN_ENTRY);
                }
            }
        }
        let replaced = values[1..].iter().map(|key| self.key(*key)).collect::<Vec<_>>();
        let replaced = replaced.join("', '");
        let is_replaced = values[1..].iter().any(|key| self.is_given(entries, *key));
        if is_replaced && self.is_given(entries, SCALE) {
            let reason = format!("cannot stand beside '{replaced}'; give it or these");
            self.wrong_key(path, entries, SCALE, &reason);
        } else if !is_replaced && !self.is_given(entries, SCALE) {
            let reason = format!("must be given, or at least one of '{replaced}'");
            let path = self.path(path, SCALE);
            self.problem(Problem::new(node.at, &path, reason));
        }
        if self.problems.len() > problems {
            return None;
        }
        let mut entry = ScheduleEntry::on(cron?.to_string()).zone(zone?.name());
        if let Some(scale) = scale {
            entry = entry.scale(scale);
        }
        if let Some(tokens) = capacity {
            entry = entry.capacity(tokens);
        }
        if let Some(tokens) = amount {
            entry = entry.refill_amount(tokens);
        }
        if let Some(secs) = period {
            entry = entry.refill_period(Duration::from_secs(secs));
        }
        match entry.build() {
            Ok(entry) => Some(entry),
            Err(err) => {
                self.problem(Problem::new(node.at, path, err.to_string()));
                None
            }
        }
    }

    /// The times of reset; `None` if there are none, or if they are wrong.
    fn resets(
        &mut self,
        path: &Path,
        entries: &[Entry],
        items: &[Item<'_>],
        name: &str,
        zone: &mut LevelZone,
    ) -> Option<ResetSchedule> {
        let problems = self.problems.len();
        let mut read = Vec::with_capacity(items.len());
        for (path, node, entries) in items {
            self.known(path, entries, &[CRON, TZ], &[]);
            let cron = self.cron(path, node, entries);
            let zone = self.zone(path, node, entries, name, zone);
            read.extend(
                cron.zip(zone)
                    .map(|(cron, zone)| (cron.to_string(), zone.name().to_owned())),
            );
        }
        if items.is_empty() || self.problems.len() > problems {
            return None;
        }
        match ResetSchedule::new(read) {
            Ok(resets) => Some(resets),
            Err(err) => {
                self.wrong_key(path, entries, RESET_SCHEDULE, err.reason());
                None
            }
        }
    }

    fn cron(&mut self, path: &Path, node: &Node, entries: &[Entry]) -> Option<Cron> {
        let own = self.path(path, CRON);
        let Some(found) = self.find(entries, CRON) else {
            let reason = "must be given: 5 fields in quotes, such as '0 0 * * *' for midnight";
            self.problem(Problem::new(node.at, &own, reason));
            return None;
        };
        let Tree::Text(text) = &found.value else {
            self.wrong(
                &own,
                found,
                "must be a text of 5 fields in quotes, such as '0 0 * * *'",
            );
            return None;
        };
        match Cron::parse(text) {
            Ok(cron) => Some(cron),
            Err(err) => {
                // The field of the expression, such as `hour`.
                let field = err.field().strip_prefix("cron.");
                let own = field.map_or_else(|| own.clone(), |field| own.to(field));
                let shown = Node {
                    at: found.at,
                    value: Tree::Text(err.value().to_owned()),
                };
                let reason = format!("is {}: {}", shown.shown(), err.reason());
                self.problem(Problem::new(found.at, &own, reason));
                None
            }
        }
    }

    /// The zone of an entry, which must be that of all schedules of the level.
    fn zone(
        &mut self,
        path: &Path,
        node: &Node,
        entries: &[Entry],
        name: &str,
        of_level: &mut LevelZone,
    ) -> Option<Zone> {
        let own = self.path(path, TZ);
        let found = self.find(entries, TZ).filter(|_| self.is_given(entries, TZ));
        let zone = match found.map(|found| (found, &found.value)) {
            None => Zone::UTC,
            Some((found, Tree::Text(text))) => self.checked(&own, found, Zone::named(text))?,
            Some((found, _)) => {
                self.wrong(
                    &own,
                    found,
                    "must be the name of a time zone, such as 'Europe/Berlin'",
                );
                return None;
            }
        };
        let (first, of) = of_level.0.get_or_insert_with(|| (zone.clone(), name.to_owned()));
        if *first == zone {
            return Some(zone);
        }
        let why =
            format!("must be '{first}', as that of '{of}': the schedules of a level have one time zone");
        if let Some(found) = found {
            self.wrong(&own, found, &why);
        } else {
            let reason = format!("is not given, which stands for UTC; it {why}");
            self.problem(Problem::new(node.at, &own, reason));
        }
        None
    }

    /// A factor above 0.
    fn scale(&mut self, path: &Path, entries: &[Entry]) -> Option<f64> {
        let node = self
            .find(entries, SCALE)
            .filter(|_| self.is_given(entries, SCALE))?;
        let scale = match &node.value {
            Tree::Int(number) => Some(*number as f64),
            Tree::Odd(text) => text.parse().ok(),
            Tree::Text(text) if self.dialect == Dialect::Stack => text.trim().parse().ok(),
            _ => None,
        };
        let scale = scale.filter(|scale| *scale > 0.0 && *scale <= MAX_SCALE);
        if scale.is_none() {
            let path = self.path(path, SCALE);
            self.wrong(
                &path,
                node,
                &format!("must be a number above 0 and at most {MAX_SCALE}"),
            );
        }
        scale
    }

    /// A truth value; `false` if it is absent or wrong.
    fn truth(&mut self, path: &Path, entries: &[Entry], key: Key) -> bool {
        self.flag(path, entries, key, "must be true or false")
            .unwrap_or(false)
    }

    /// A truth value; `None` if it is absent or wrong.
    pub(super) fn flag(&mut self, path: &Path, entries: &[Entry], key: Key, reason: &str) -> Option<bool> {
        let node = self.find(entries, key).filter(|_| self.is_given(entries, key))?;
        let in_stack = self.dialect == Dialect::Stack;
        match &node.value {
            Tree::Bool(value) => Some(*value),
            Tree::Text(text) if in_stack && text.eq_ignore_ascii_case("true") => Some(true),
            Tree::Text(text) if in_stack && text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                let path = self.path(path, key);
                self.wrong(&path, node, reason);
                None
            }
        }
    }

    /// Whether a key has a value, which an empty list is not.
    fn is_given(&self, entries: &[Entry], key: Key) -> bool {
        self.find(entries, key).is_some_and(|node| match &node.value {
            Tree::Null => false,
            Tree::Text(text) => self.dialect == Dialect::File || !text.is_empty(),
            Tree::List(items) => !items.is_empty(),
            _ => true,
        })
    }

    fn key(&self, key: Key) -> &'static str {
        key.in_dialect(self.dialect)
    }

    /// Reports the value of a key as wrong.
    fn wrong_key(&mut self, path: &Path, entries: &[Entry], key: Key, reason: &str) {
        if let Some(node) = self.find(entries, key) {
            let path = self.path(path, key);
            self.wrong(&path, node, reason);
        }
    }
}
