//! Quotas, session limits and entries of schedules as they are given on the command line.

use std::time::Duration;

use zae_limiter_core::schedule::{Cron, ScheduleEntry, ScheduleEntryBuilder};
use zae_limiter_core::units::{MAX_PERIOD_SECS, MAX_TOKENS};
use zae_limiter_core::{InvalidInput, Limit};

use super::{Named, check_name, integer, period_secs};
use crate::text::literal::quoted;

/// The periods of the calendar, and when they begin.
const PERIODS: [(&str, &str); 4] = [
    ("hour", "0 * * * *"),
    ("day", "0 0 * * *"),
    ("week", "0 0 * * MON"),
    ("month", "0 0 1 * *"),
];

/// Reads a quota: `rpd:10000/day`, or `rpd:10000@0 6 * * *;0 18 * * *` with cron expressions.
pub(super) fn quota(text: &str, zone: &str) -> Result<Named, String> {
    const EXPECTED: &str = "expected NAME:AMOUNT/PERIOD with the period hour, day, week or month, or NAME:AMOUNT@CRON, such as \
                            rpd:10000/day or 'rpd:10000@0 6 * * *'";
    let (name, rest) = text.split_once(':').ok_or(EXPECTED)?;
    let at = rest.find(['/', '@']).ok_or(EXPECTED)?;
    let (digits, times) = rest.split_at(at);
    check_name(name).map_err(|reason| format!("the name {reason}"))?;
    let amount = number(digits, MAX_TOKENS)?;
    let crons: Vec<&str> = if let Some(crons) = times.strip_prefix('@') {
        crons.split(';').collect()
    } else {
        let known = PERIODS
            .iter()
            .find(|(period, _)| times.strip_prefix('/') == Some(period));
        let (_, cron) = known.ok_or_else(|| {
                format!(
                    "{} is not a period of the calendar: /hour, /day, /week or /month; write other times as @CRON, and a \
                     length of time with --session",
                    quoted(times)
                )
            })?;
        vec![cron]
    };
    for cron in &crons {
        Cron::parse(cron).map_err(|err| problem(&err))?;
    }
    let limit = Limit::quota(name, amount).resets_on(crons.into_iter().map(|cron| (cron, zone)));
    limit.clone().build().map_err(|err| problem(&err))?;
    Ok((name.to_owned(), limit))
}

/// Reads a session limit: `messages:50/5hour`.
pub(super) fn session(text: &str) -> Result<Named, String> {
    const EXPECTED: &str =
        "expected NAME:AMOUNT/LENGTH with the length in sec, min, hour or day, such as messages:50/5hour";
    let (name, rest) = text.split_once(':').ok_or(EXPECTED)?;
    let (digits, length) = rest.split_once('/').ok_or(EXPECTED)?;
    check_name(name).map_err(|reason| format!("the name {reason}"))?;
    let amount = number(digits, MAX_TOKENS)?;
    let secs = period(length)?;
    Ok((
        name.to_owned(),
        Limit::session(name, amount, Duration::from_secs(secs)),
    ))
}

/// An entry of a schedule.
#[derive(Debug, PartialEq)]
pub(super) struct Scheduled {
    /// The name of its limit.
    pub(super) name: String,
    pub(super) entry: ScheduleEntry,
}

impl Scheduled {
    /// Whether it changes how tokens come back over time, other than by a scale.
    pub(super) fn refills(&self) -> bool {
        self.entry.refill_amount().is_some() || self.entry.refill_period().is_some()
    }
}

/// Reads an entry of a schedule: `rpm@* 0-6 * * *:x0.5`, `rpm@* 0-6 * * *:capacity 200 refill 20 every 1min`.
pub(super) fn entry(text: &str, zone: &str) -> Result<Scheduled, String> {
    const EXPECTED: &str = "expected NAME@CRON:EFFECT, such as 'rpm@* 0-6 * * *:x0.5'";
    let (name, rest) = text.split_once('@').ok_or(EXPECTED)?;
    let (cron, effect) = rest.split_once(':').ok_or(EXPECTED)?;
    check_name(name).map_err(|reason| format!("the name {reason}"))?;
    let entry = with_effect(ScheduleEntry::on(cron).zone(zone), effect.trim())?;
    let entry = entry.build().map_err(|err| problem(&err))?;
    let name = name.to_owned();
    Ok(Scheduled { name, entry })
}

fn with_effect(mut entry: ScheduleEntryBuilder, effect: &str) -> Result<ScheduleEntryBuilder, String> {
    const EXPECTED: &str =
        "expected a factor such as x0.5, or one or more of 'capacity N', 'refill N' and 'every PERIOD'";
    if let Some(factor) = effect.strip_prefix('x') {
        let scale = factor
            .parse()
            .map_err(|_| format!("{} is not a factor; {EXPECTED}", quoted(effect)))?;
        return Ok(entry.scale(scale));
    }
    let mut words = effect.split_whitespace();
    let mut seen = Vec::new();
    while let Some(word) = words.next() {
        if !["capacity", "refill", "every"].contains(&word) {
            return Err(format!("{} is not an effect; {EXPECTED}", quoted(word)));
        }
        if seen.contains(&word) {
            return Err(format!("'{word}' is given twice"));
        }
        seen.push(word);
        let value = words
            .next()
            .ok_or_else(|| format!("'{word}' lacks its value; {EXPECTED}"))?;
        entry = match word {
            "capacity" => entry.capacity(number(value, MAX_TOKENS)?),
            "refill" => entry.refill_amount(number(value, MAX_TOKENS)?),
            _ => entry.refill_period(Duration::from_secs(period(value)?)),
        };
    }
    if seen.is_empty() {
        return Err(format!("the effect is missing; {EXPECTED}"));
    }
    Ok(entry)
}

fn number(digits: &str, max: u64) -> Result<u64, String> {
    let number = integer(digits).and_then(|number| u64::try_from(number).ok());
    let number = number.filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("{} is not a whole number from 1 to {max}", quoted(digits)))
}

fn period(text: &str) -> Result<u64, String> {
    let secs = period_secs(text).and_then(|secs| u64::try_from(secs).ok());
    let secs = secs.filter(|secs| (1..=MAX_PERIOD_SECS).contains(secs));
    secs.ok_or_else(|| {
        format!(
            "{} is not a length of time: [N]sec, [N]min, [N]hour or [N]day, up to {MAX_PERIOD_SECS} seconds",
            quoted(text)
        )
    })
}

/// The part of a value that is wrong, and why.
fn problem(err: &InvalidInput) -> String {
    match err.field() {
        field @ ("scale" | "capacity" | "refill_amount" | "refill_period") => {
            format!("{field} {} {}", quoted(err.value()), err.reason())
        }
        field => {
            let field = field.find("cron").map_or(field, |at| &field[at..]);
            format!("{field}: {}", err.reason())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zae_limiter_core::Recovery;

    use super::*;
    use crate::text::limit::{describe, lines};

    const TOKYO: &str = "Asia/Tokyo";

    #[track_caller]
    fn check_shown(read: Result<Named, String>, expected: &str) {
        let (name, limit) = read.unwrap();
        let limit = limit.build().unwrap();
        assert_eq!(limit.name(), &*name);
        assert_eq!(describe(&limit), expected);
    }

    #[test]
    fn quotas_have_a_period_of_the_calendar_or_patterns() {
        for (text, expected) in [
            ("rph:5/hour", "rph: 5 quota (resets '0 * * * *' Asia/Tokyo)"),
            (
                "rpd:10_000/day",
                "rpd: 10000 quota (resets '0 0 * * *' Asia/Tokyo)",
            ),
            ("rpw:5/week", "rpw: 5 quota (resets '0 0 * * MON' Asia/Tokyo)"),
            ("a.b-c:5/month", "a.b-c: 5 quota (resets '0 0 1 * *' Asia/Tokyo)"),
            (
                "rpd:5@0 6 * * mon-fri",
                "rpd: 5 quota (resets '0 6 * * MON-FRI' Asia/Tokyo)",
            ),
            (
                "rpd: 5 @0 8 * * *; 0 20 * * *",
                "rpd: 5 quota (resets '0 8 * * *', '0 20 * * *' Asia/Tokyo)",
            ),
        ] {
            check_shown(quota(text, TOKYO), expected);
        }
        let expected = "expected NAME:AMOUNT/PERIOD with the period hour, day, week or month, or NAME:AMOUNT@CRON, such as \
                        rpd:10000/day or 'rpd:10000@0 6 * * *'";
        for (text, expected) in [
            ("", expected),
            ("rpd", expected),
            ("rpd:5", expected),
            (":5/day", "the name cannot be empty"),
            ("wcu:5/day", "the name 'wcu' is a reserved limit name"),
            ("rpd:/day", "'' is not a whole number from 1 to 1000000000000000"),
            (
                "rpd:0/day",
                "'0' is not a whole number from 1 to 1000000000000000",
            ),
            (
                "rpd:5:6/day",
                "'5:6' is not a whole number from 1 to 1000000000000000",
            ),
            (
                "rpd:5/7day",
                "'/7day' is not a period of the calendar: /hour, /day, /week or /month; write other times as @CRON, and a length \
                 of time with --session",
            ),
            ("rpd:5@0 24 * * *", "cron.hour: '24' must be 0 to 23"),
            (
                "rpd:5@0 0 * *",
                "cron: has 4 field(s), and must have 5: minute, hour, day of month, month, day of week",
            ),
            (
                "rpd:5@* * * * *",
                "rpd.reset_schedule: matches always, so that the quota would never be reset; give a time, such as '0 0 * * *'",
            ),
        ] {
            assert_eq!(quota(text, TOKYO).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn sessions_have_a_length() {
        check_shown(
            session("messages:50/5hour"),
            "messages: 50 quota (resets 5h after first use)",
        );
        check_shown(
            session("m:1_000/day"),
            "m: 1000 quota (resets 1d after first use)",
        );
        let expected =
            "expected NAME:AMOUNT/LENGTH with the length in sec, min, hour or day, such as messages:50/5hour";
        for (text, expected) in [
            ("m", expected),
            ("m:50", expected),
            (
                "9:5/day",
                "the name must start with a letter and contain only alphanumeric, underscore, hyphen, or dot characters",
            ),
            ("m:x/day", "'x' is not a whole number from 1 to 1000000000000000"),
            (
                "m:5/week",
                "'week' is not a length of time: [N]sec, [N]min, [N]hour or [N]day, up to 1000000000 seconds",
            ),
            (
                "m:5/0day",
                "'0day' is not a length of time: [N]sec, [N]min, [N]hour or [N]day, up to 1000000000 seconds",
            ),
        ] {
            assert_eq!(session(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn entries_have_a_pattern_and_an_effect() {
        for (text, expected) in [
            (
                "rpm@* 9-17 * * MON-FRI:x0.5",
                "'* 9-17 * * MON-FRI' Asia/Tokyo: x0.5",
            ),
            ("rpm@* 0-6 * * *: x2", "'* 0-6 * * *' Asia/Tokyo: x2"),
            (
                "rpm@* 0-6 * * *:capacity 200",
                "'* 0-6 * * *' Asia/Tokyo: capacity 200",
            ),
            (
                "rpm@* 0-6 * * *:every 1min  refill 2_0 capacity 200",
                "'* 0-6 * * *' Asia/Tokyo: capacity 200 refill 20 every 1min",
            ),
        ] {
            let Scheduled { name, entry } = entry(text, TOKYO).unwrap();
            let limit = Limit::per_minute(name, 5).scheduled([entry]).build().unwrap();
            assert_eq!(lines(&limit)[1], expected);
        }
        let effects =
            "expected a factor such as x0.5, or one or more of 'capacity N', 'refill N' and 'every PERIOD'";
        let form = "expected NAME@CRON:EFFECT, such as 'rpm@* 0-6 * * *:x0.5'";
        for (text, expected) in [
            ("rpm", form.to_owned()),
            ("rpm:* 0-6 * * *:x2", form.to_owned()),
            ("rpm@* 0-6 * * *", form.to_owned()),
            ("@* 0-6 * * *:x2", "the name cannot be empty".to_owned()),
            ("rpm@* 0-6 * * *:", format!("the effect is missing; {effects}")),
            (
                "rpm@* 0-6 * * *:50%",
                format!("'50%' is not an effect; {effects}"),
            ),
            (
                "rpm@* 0-6 * * *:xfast",
                format!("'xfast' is not a factor; {effects}"),
            ),
            (
                "rpm@* 0-6 * * *:x0",
                "scale '0' must be above 0 and at most 1000000".to_owned(),
            ),
            (
                "rpm@* 0-6 * * *:xinf",
                "scale 'inf' must be above 0 and at most 1000000".to_owned(),
            ),
            (
                "rpm@* 0-6 * * *:capacity",
                format!("'capacity' lacks its value; {effects}"),
            ),
            (
                "rpm@* 0-6 * * *:capacity 5 capacity 6",
                "'capacity' is given twice".to_owned(),
            ),
            (
                "rpm@* 0-6 * * *:refill -5",
                "'-5' is not a whole number from 1 to 1000000000000000".to_owned(),
            ),
            (
                "rpm@* 0-6 * * *:every week",
                "'week' is not a length of time: [N]sec, [N]min, [N]hour or [N]day, up to 1000000000 seconds"
                    .to_owned(),
            ),
            (
                "rpm@* 22-6 * * *:x2",
                "cron.hour: the range '22-6' must ascend; write '22-23,0-6'".to_owned(),
            ),
        ] {
            assert_eq!(entry(text, TOKYO).unwrap_err(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            hour in 0..24u8,
            factor in 1..=1_000_000u64,
            values in (1..=MAX_TOKENS, 1..=MAX_TOKENS, 1..=MAX_PERIOD_SECS),
            parts in 0..8u8,
        ) {
            let mut builder = ScheduleEntry::on(format!("*/5 {hour} * JAN *")).zone(TOKYO);
            if parts == 0 {
                builder = builder.scale(factor as f64 / 1000.0);
            }
            if parts & 1 != 0 {
                builder = builder.capacity(values.0);
            }
            if parts & 2 != 0 {
                builder = builder.refill_amount(values.1);
            }
            if parts & 4 != 0 {
                builder = builder.refill_period(Duration::from_secs(values.2));
            }
            let limit = Limit::per_minute("rpm", 5).scheduled([builder]).build().unwrap();
            let shown = &lines(&limit)[1];
            let written = format!("rpm@{}", shown.trim_start_matches('\'').replace("' Asia/Tokyo", ""));
            let read = entry(&written, TOKYO).unwrap();
            prop_assert_eq!(&read.entry, &limit.schedule().unwrap().entries()[0]);
        }

        #[test]
        fn nothing_panics(text in "\\PC*", tail in "[-+_0-9/:;@a-z *]*") {
            for text in [&text, &format!("rpd:5@{tail}"), &format!("rpd@* 1 * * *:{tail}"), &format!("rpd:5{tail}")] {
                if let Ok((_, limit)) = quota(text, "UTC") {
                    prop_assert!(matches!(limit.build().unwrap().recovery(), Recovery::Resets(_)));
                }
                if let Ok((_, limit)) = session(text) {
                    prop_assert!(limit.build().unwrap().session_length().is_some());
                }
                let _ = entry(text, "UTC");
            }
        }
    }
}
