//! The shapes of limits on bucket items.
//!
//! An item has the schedule of its first limit that has one, for all of its limits. A limit with another schedule has it
//! itself, and one without is marked as having none. The same holds for times of reset.

use smol_str::SmolStr;

use crate::bucket::{NO_SCHEDULE, limit_attr};
use crate::limit::{Limit, Recovery};
use crate::schedule::{ResetSchedule, Schedule};
use crate::table::{Update, Value};

/// The parts that only limits have that are not refilled over time.
const QUOTA_PARTS: [&str; 6] = ["gc", "tu", "rn", "ws", "wa", "wtc"];

/// Everything that a bucket item holds of a limit.
pub(super) const PARTS: [&str; 15] = [
    "tk", "cp", "ra", "rp", "tc", "sched", "rsched", "soft", "rsa", "gc", "tu", "rn", "ws", "wa", "wtc",
];

/// Writes the shapes of some limits, of which `all` are those of the item. Soft limits lose their stamp: clients that honour it
/// renew it in the next forced pass.
pub(super) fn set_shapes(update: &mut Update, limits: &[Limit], all: &[Limit]) {
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
        update.remove.push(attr("soft"));
        match limit.recovery() {
            Recovery::Session { secs } => update.set.push((attr("rsa"), Value::int(*secs))),
            Recovery::Resets(_) => update.remove.push(attr("rsa")),
            Recovery::Refill { .. } => {
                update.remove.push(attr("rsa"));
                update.remove.extend(QUOTA_PARTS.map(attr));
            }
        }
    }
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
        set_shapes(&mut update, &limits, &limits);
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
