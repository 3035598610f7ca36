//! Limits as they are shown.

use std::fmt::Write as _;

use zae_limiter_core::schedule::{Cron, Schedule, ScheduleEntry};
use zae_limiter_core::{Limit, Recovery};

use super::UNITS;

/// Shows a limit on one line: `rpm: 1000/min`, and its capacity if that is not the rate: `rpm: 10/5min (burst: 50)`. Entries of
/// a schedule follow, separated by commas.
pub(crate) fn describe(limit: &Limit) -> String {
    lines(limit).join(", ")
}

/// Shows a limit, and each entry of its schedule on a line of its own: `rpd: 10000 quota (resets '0 0 * * *' UTC) (soft)`,
/// `'* 0-6 * * *' UTC: x0.5`.
pub(crate) fn lines(limit: &Limit) -> Vec<String> {
    let soft = if limit.is_soft() { " (soft)" } else { "" };
    let mut lines = vec![format!("{}: {}{soft}", limit.name(), amount(limit))];
    for entry in limit.schedule().map_or(&[][..], Schedule::entries) {
        lines.push(format!("'{}' {}:{}", entry.cron(), entry.zone(), effect(entry)));
    }
    lines
}

fn amount(limit: &Limit) -> String {
    let (rate, capacity) = (limit.refill_amount(), limit.capacity());
    match limit.recovery() {
        Recovery::Resets(resets) => {
            let crons: Vec<String> = resets.crons().iter().map(Cron::to_string).collect();
            let zone = resets.zone();
            return format!("{capacity} quota (resets '{}' {zone})", crons.join("', '"));
        }
        Recovery::Session { secs } => {
            return format!("{capacity} quota (resets {} after first use)", in_parts(*secs));
        }
        Recovery::Refill { .. } => {}
    }
    let (times, unit) = in_units(limit.refill_period().as_secs());
    let times = if times == 1 {
        String::new()
    } else {
        times.to_string()
    };
    let burst = if capacity == rate {
        String::new()
    } else {
        format!(" (burst: {capacity})")
    };
    format!("{rate}/{times}{unit}{burst}")
}

/// What an entry of a schedule changes, each after a blank, as it can be given on the command line.
fn effect(entry: &ScheduleEntry) -> String {
    let parts = [
        entry.scale().map(|scale| format!(" x{scale}")),
        entry.capacity().map(|tokens| format!(" capacity {tokens}")),
        entry.refill_amount().map(|tokens| format!(" refill {tokens}")),
        entry.refill_period().map(|period| {
            let (times, unit) = in_units(period.as_secs());
            format!(" every {times}{unit}")
        }),
    ];
    parts.into_iter().flatten().collect()
}

/// Seconds in the largest unit of which they are a multiple.
fn in_units(secs: u64) -> (u64, &'static str) {
    let mut units = UNITS.into_iter();
    let found = units.find(|(_, of_unit)| secs.is_multiple_of(*of_unit));
    found.map_or((secs, "sec"), |(unit, of_unit)| (secs / of_unit, unit))
}

/// Seconds in days, hours, minutes and seconds, without those of which there are 0: `5h30m`.
fn in_parts(secs: u64) -> String {
    let mut text = String::new();
    let mut rest = secs;
    for (unit, of_unit) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        let times = rest / of_unit;
        rest %= of_unit;
        if times > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, "{times}{unit}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zae_limiter_core::LimitBuilder;

    use super::*;

    #[track_caller]
    fn check(limit: LimitBuilder, expected: &str) {
        assert_eq!(describe(&limit.build().unwrap()), expected);
    }

    #[test]
    fn shapes_are_shown_after_the_amount() {
        check(
            Limit::quota("rpd", 10_000)
                .resets("0 0 * * mon", "Europe/Berlin")
                .soft(),
            "rpd: 10000 quota (resets '0 0 * * MON' Europe/Berlin) (soft)",
        );
        check(
            Limit::quota("rpd", 5).resets_on([("0 8 * * *", "UTC"), ("0 20 * * *", "UTC")]),
            "rpd: 5 quota (resets '0 8 * * *', '0 20 * * *' UTC)",
        );
        check(
            Limit::session("s", 50, Duration::from_hours(5)),
            "s: 50 quota (resets 5h after first use)",
        );
        check(
            Limit::session("s", 50, Duration::from_secs(90_061)),
            "s: 50 quota (resets 1d1h1m1s after first use)",
        );
        check(
            Limit::per_minute("rpm", 5).burst(9).soft(),
            "rpm: 5/min (burst: 9) (soft)",
        );
        let minute = Duration::from_mins(1);
        check(
            Limit::per_minute("rpm", 100).scheduled([
                ScheduleEntry::on("* 9-17 * * MON-FRI").scale(0.5),
                ScheduleEntry::on("* 0-6 * * *")
                    .capacity(200)
                    .refill_amount(20)
                    .refill_period(minute),
            ]),
            "rpm: 100/min, '* 9-17 * * MON-FRI' UTC: x0.5, '* 0-6 * * *' UTC: capacity 200 refill 20 every 1min",
        );
    }
}
