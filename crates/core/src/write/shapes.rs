//! The shapes of limits on bucket items.
//!
//! An item has the schedule of its first limit that has one, for all of its limits. A limit with another schedule has it
//! itself, and one without is marked as having none. The same holds for times of reset.

use smol_str::SmolStr;

use super::earlier;
use crate::bucket::{Bucket, BucketLimit, NO_SCHEDULE, PERIOD_PARTS, limit_attr};
use crate::config::{Level, Resolved};
use crate::limit::{Limit, Recovery};
use crate::schedule::{ResetSchedule, Schedule};
use crate::table::{Attr, Condition, Item, Key, Update, Value};
use crate::terms::{Regain, Terms, Turn, secs_to_millis};
use crate::units::EpochMillis;

/// Everything that a bucket item holds of a limit.
pub(super) const PARTS: [&str; 15] = [
    "tk", "cp", "ra", "rp", "tc", "sched", "rsched", "soft", "rsa", "gc", "tu", "rn", "ws", "wa", "wtc",
];

/// Writes the shapes of some limits, of which `all` are those of the item. Soft limits have a stamp that has passed: by it, clients
/// that honour stamps look at the configuration, where without one they would enforce the limit.
pub(super) fn set_shapes(update: &mut Update, limits: &[Limit], all: &[Limit], at: EpochMillis) {
    set_schedules(update, limits, all, "sched", |limit| {
        limit.schedule().map(Schedule::encode)
    });
    set_schedules(update, limits, all, "rsched", |limit| {
        limit.reset_schedule().map(ResetSchedule::encode)
    });
    match all.iter().find_map(Limit::zone) {
        Some(zone) => update.set.push(("sched_tz".into(), Value::text(zone.name()))),
        None => update.remove.push("sched_tz".into()),
    }
    for limit in limits {
        let attr = |part| limit_attr(limit.name().as_str(), part);
        match soft_mark(limit, at) {
            Some(mark) => update.set.push(mark),
            None => update.remove.push(attr("soft")),
        }
        match limit.recovery() {
            Recovery::Session { secs } => update.set.push((attr("rsa"), Value::int(*secs))),
            Recovery::Resets(_) => update.remove.push(attr("rsa")),
            Recovery::Refill { .. } => {
                update.remove.push(attr("rsa"));
                update.remove.extend(PERIOD_PARTS.map(attr));
            }
        }
    }
}

/// The shapes of the limits of a new item, one of so many shards, and until when its balances may be spent as they stand.
pub(crate) fn shapes_of_new(limits: &[Limit], shards: u32, at: EpochMillis) -> Vec<(Attr, Value)> {
    let marks = limits.iter().filter_map(|limit| soft_mark(limit, at));
    if limits.iter().all(Limit::is_plain) {
        return marks.collect();
    }
    let mut update = Update::new(Key {
        pk: String::new(),
        sk: SmolStr::default(),
    });
    set_shapes(&mut update, limits, limits, at);
    let mut valid_until = None;
    for limit in limits {
        update.set.extend(first_period(limit, shards, at));
        valid_until = earlier(valid_until, first_valid_until(limit, at));
    }
    update
        .set
        .extend(valid_until.map(|until| ("vu".into(), Value::int(until.0))));
    update.set
}

/// The shape of a limit that an item gains. What the item has for all of its limits stays.
pub(super) fn first_parts(limit: &Limit, shards: u32, at: EpochMillis) -> Vec<(Attr, Value)> {
    let own = |part: &str, encoded: Option<String>| {
        let value = encoded.map_or_else(|| Value::text(NO_SCHEDULE), Value::S);
        (limit_attr(limit.name().as_str(), part), value)
    };
    let mut parts = vec![
        own("sched", limit.schedule().map(Schedule::encode)),
        own("rsched", limit.reset_schedule().map(ResetSchedule::encode)),
    ];
    if let Recovery::Session { secs } = limit.recovery() {
        parts.push((limit_attr(limit.name().as_str(), "rsa"), Value::int(*secs)));
    }
    parts.extend(first_period(limit, shards, at));
    parts
}

/// The period in which a quota or a session limit begins.
fn first_period(limit: &Limit, shards: u32, at: EpochMillis) -> Vec<(Attr, Value)> {
    let attr = |part| limit_attr(limit.name().as_str(), part);
    let mut parts = Vec::new();
    if limit.is_quota() {
        parts.push((attr("gc"), Value::int(shards)));
    }
    if limit.session_length().is_some() {
        parts.push((attr("ws"), Value::int(at.0)));
        parts.push((attr("wa"), Value::int(at.0)));
    }
    parts
}

/// Until when the balance of a new limit may be spent as it stands; a session begins at `at`.
pub(super) fn first_valid_until(limit: &Limit, at: EpochMillis) -> Option<EpochMillis> {
    let session = match limit.recovery() {
        Recovery::Session { secs } => Some(at.plus(secs_to_millis(*secs))),
        Recovery::Refill { .. } | Recovery::Resets(_) => None,
    };
    earlier(Terms::of(limit, 1).valid_until(at), session)
}

/// Writes what becomes of a limit's period by a refill that is dated `at`. Returns until when its balance may then be spent as
/// it stands.
pub(super) fn apply_turn(
    update: &mut Update,
    image: &Bucket,
    limit: &BucketLimit,
    turn: Turn,
    at: EpochMillis,
) -> Option<EpochMillis> {
    let terms = image.terms(limit);
    let until = terms.valid_until(at);
    let Some(shape) = limit.shape.as_ref().filter(|_| turn != Turn::None) else {
        return until;
    };
    let attr = |part| limit_attr(&limit.name, part);
    update.set.push((attr("gc"), Value::int(image.shard_count)));
    if shape.has("tu") {
        update.remove.push(attr("tu"));
    }
    let Regain::Session(session, _) = terms.regain() else {
        return until;
    };
    if let (Turn::Joins, Some(start)) = (turn, session.start) {
        update.set.push((attr("wa"), Value::int(start.0)));
        return until;
    }
    update.set.push((attr("ws"), Value::int(at.0)));
    update.set.push((attr("wa"), Value::int(at.0)));
    if shape.has("wtc") {
        update.remove.push(attr("wtc"));
    }
    earlier(until, Some(at.plus(session.millis)))
}

/// Tells a shard of a session that another shard's use has begun, unless its own is not over. What is taken from then on, until it
/// applies the session, counts for that. So it does for a shard that lacks the limit, which joins the
/// session when it gains the limit. `None` if the limit has no session.
pub(crate) fn announce(key: Key, image: &Bucket, limit: &BucketLimit, start: EpochMillis) -> Option<Update> {
    let Regain::Session(session, _) = image.terms(limit).regain() else {
        return None;
    };
    let attr = |part| limit_attr(&limit.name, part);
    let mut update = Update::new(key);
    update.set.push((attr("ws"), Value::int(start.0)));
    update.set.push((attr("rsa"), Value::int(session.millis / 1000)));
    update.set.push(("vu".into(), Value::int(0)));
    update.copy.push((attr("wtc"), attr("tc")));
    let last = i128::from(start.0) - i128::from(session.millis);
    update.condition = Condition::All(vec![
        Condition::Exists("PK".into()),
        // It may be a rate there still.
        Condition::Any(vec![
            Condition::Absent(attr("ra")),
            Condition::Is(attr("ra"), Value::int(0)),
        ]),
        Condition::Any(vec![
            Condition::Exists(attr("wa")),
            Condition::AtMost("rf".into(), i128::from(start.0) - 1),
        ]),
        Condition::Any(vec![
            Condition::Absent(attr("ws")),
            Condition::AtMost(attr("ws"), last),
        ]),
    ]);
    Some(update)
}

/// Removes a quota or a session limit that is not configured any more, when it would be whole again. If it stayed, `rf` would lie in
/// a period that its balance is not of, and a client that still knows the limit, or knows it again, would spend the balance of
/// one period in the next. An item that gains the limit gains it whole.
///
/// The balance need not be the one that was seen: what was taken meanwhile was of the period that is over.
pub(super) fn remove(update: &mut Update, limit: &BucketLimit) {
    let has = |part: &str| match part {
        "sched" => limit.marks[0].is_some(),
        "rsched" => limit.marks[1].is_some(),
        "soft" => limit.is_soft,
        _ => !PERIOD_PARTS.contains(&part) || limit.shape.as_ref().is_some_and(|shape| shape.has(part)),
    };
    let held = PARTS.into_iter().filter(|part| has(part));
    update
        .remove
        .extend(held.map(|part| limit_attr(&limit.name, part)));
}

/// Marks a limit of an item as soft, or not, as it is configured. The mark is a deadline, which other clients go by until it has
/// passed. This one has passed: it tells the table's functions what the limit is, and makes other clients look for themselves.
pub(super) fn mark_soft(
    update: &mut Update,
    limit: &BucketLimit,
    config: Option<&Resolved>,
    at: EpochMillis,
) {
    // Those of a call say nothing about the bucket.
    let config = config.filter(|config| config.level != Level::Override);
    let configured = config.and_then(|config| {
        config
            .limits
            .iter()
            .find(|known| known.name().as_str() == limit.name)
    });
    match configured.map(Limit::is_soft) {
        Some(true) if !limit.is_soft => {
            update
                .set
                .push((limit_attr(&limit.name, "soft"), Value::int(at.0)));
        }
        Some(false) if limit.is_soft => update.remove.push(limit_attr(&limit.name, "soft")),
        _ => {}
    }
}

/// Removes the soft stamps of limits that are configured as hard, so that no client admits by them any more. `None` if there are none.
pub fn harden(key: Key, bucket: &Item, config: &Resolved) -> Option<Update> {
    let hard = config.limits.iter().filter(|limit| !limit.is_soft());
    let stamps = hard.map(|limit| limit_attr(limit.name().as_str(), "soft"));
    let mut update = Update::new(key);
    update.remove = stamps
        .filter(|stamp| bucket.contains_key(stamp.as_str()))
        .collect();
    update.condition = Condition::Exists("PK".into());
    (!update.remove.is_empty()).then_some(update)
}

/// The mark of a new limit, if it is soft.
pub(super) fn soft_mark(limit: &Limit, at: EpochMillis) -> Option<(Attr, Value)> {
    let attr = || limit_attr(limit.name().as_str(), "soft");
    limit.is_soft().then(|| (attr(), Value::int(at.0)))
}

/// What an item has for all of its limits is as it was seen.
pub(super) fn shared_pins(image: &Bucket) -> impl Iterator<Item = Condition> {
    let names = ["sched", "rsched", "sched_tz"];
    // Without schedules, the zone has no meaning.
    let count = if image.schedules.iter().all(Option::is_none) {
        2
    } else {
        3
    };
    let pinned = names.into_iter().zip(&image.schedules).take(count);
    pinned.map(|(name, value)| Condition::same(name.into(), value.as_deref().map(Value::text)))
}

fn set_schedules(
    update: &mut Update,
    limits: &[Limit],
    all: &[Limit],
    part: &'static str,
    encode: impl Fn(&Limit) -> Option<String>,
) {
    let shared = all.iter().find_map(&encode);
    for limit in limits {
        let attr = limit_attr(limit.name().as_str(), part);
        match encode(limit) {
            own if own == shared => update.remove.push(attr),
            Some(own) => update.set.push((attr, Value::S(own))),
            None => update.set.push((attr, Value::text(NO_SCHEDULE))),
        }
    }
    let attr = SmolStr::new_static(part);
    match shared {
        Some(shared) => update.set.push((attr, Value::S(shared))),
        None => update.remove.push(attr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::LimitBuilder;
    use crate::schedule::ScheduleEntry;
    use crate::table::Key;
    use std::time::Duration;

    fn stamp(limits: &[LimitBuilder]) -> Update {
        let key = Key {
            pk: "p".into(),
            sk: "s".into(),
        };
        let mut update = Update::new(key);
        let limits: Vec<_> = limits
            .iter()
            .map(|limit| limit.clone().build().unwrap())
            .collect();
        set_shapes(&mut update, &limits, &limits, EpochMillis(7));
        update
    }

    fn scheduled(name: &str, cron: &str) -> LimitBuilder {
        let entry = ScheduleEntry::on(cron).zone("Europe/Berlin").scale(0.5);
        Limit::per_minute(name, 100).scheduled([entry])
    }

    /// As the original stamps the same limits.
    #[test]
    fn the_first_schedule_is_that_of_the_item() {
        let update = stamp(&[
            scheduled("rpm", "* 9-17 * * MON-FRI"),
            Limit::per_hour("plain", 7),
            scheduled("other", "* 1 * * *"),
            Limit::quota("rpd", 10_000).resets("0 0 * * *", "Europe/Berlin"),
        ]);
        let mut set: Vec<_> = update
            .set
            .iter()
            .map(|(attr, value)| (attr.as_str(), value.as_text().unwrap()))
            .collect();
        set.sort_unstable();
        assert_eq!(
            set,
            [
                ("b_other_rsched", "-"),
                ("b_other_sched", "1h1s500"),
                ("b_plain_rsched", "-"),
                ("b_plain_sched", "-"),
                ("b_rpd_sched", "-"),
                ("b_rpm_rsched", "-"),
                ("rsched", "1m0h0"),
                ("sched", "1h9-17w1-5s500"),
                ("sched_tz", "Europe/Berlin"),
            ]
        );
        let removed = |attr: &str| update.remove.iter().any(|removed| removed == attr);
        assert!(removed("b_rpm_sched") && removed("b_rpd_rsched") && removed("b_plain_gc"));
        assert!(!removed("b_rpd_gc"));
    }

    #[test]
    fn limits_without_shapes_leave_none_behind() {
        let update = stamp(&[Limit::per_hour("plain", 7), Limit::per_hour("other", 7)]);
        assert!(update.set.is_empty());
        let removed = |attr: &str| update.remove.iter().any(|removed| removed == attr);
        for attr in [
            "sched",
            "rsched",
            "sched_tz",
            "b_plain_sched",
            "b_other_rsa",
            "b_plain_ws",
        ] {
            assert!(removed(attr), "{attr}");
        }
    }

    #[test]
    fn a_session_has_its_length() {
        let update = stamp(&[Limit::session("s", 5, Duration::from_mins(1))]);
        assert_eq!(update.set, [("b_s_rsa".into(), Value::int(60))]);
        assert!(!update.remove.iter().any(|attr| attr == "b_s_ws"));
    }
}
