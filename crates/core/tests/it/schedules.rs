//! Schedules against what the original makes of the same: `interop/schedule_vectors.py` describes the rows and makes them again.
//!
//! `ZAE_LIMITER_SCHEDULE_VECTORS` names another file, with rows of another seed.

use std::time::Duration;

use zae_limiter_core::EpochMillis;
use zae_limiter_core::limit::Params;
use zae_limiter_core::schedule::{
    Cron, ResetSchedule, Schedule, ScheduleEntry, ScheduleError, Zone, valid_until,
};

#[test]
fn schedules_are_those_of_the_original() {
    let text = std::env::var("ZAE_LIMITER_SCHEDULE_VECTORS").map_or_else(
        |_| include_str!("../data/schedules.tsv").to_owned(),
        |path| std::fs::read_to_string(path).unwrap(),
    );
    let mut rows = 0;
    let mut wrong = Vec::new();
    for row in text.lines().filter(|row| !row.starts_with('#')) {
        let columns: Vec<&str> = row.split('\t').collect();
        let result = match columns.as_slice() {
            ["P", zone, base, entries, compact, samples] => parameters(zone, base, entries, compact, samples),
            ["R", zone, crons, compact, samples] => resets(zone, crons, compact, samples),
            ["X", expression, field] => refused(expression, field),
            ["D", text, why] => unreadable(Schedule::decode(text, &Zone::UTC), why),
            ["E", text, why] => unreadable(ResetSchedule::decode(text, &Zone::UTC), why),
            _ => Err("is not a row".to_owned()),
        };
        rows += 1;
        if let Err(problem) = result {
            wrong.push(format!("{row}\n    {problem}"));
        }
    }
    assert!(rows >= 1500, "{rows} rows");
    assert!(
        wrong.is_empty(),
        "{} rows of {rows}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn same<T: Copy + PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    Err(format!("{what}: ours {ours:?}, theirs {theirs:?}"))
}

fn parameters(zone: &str, base: &str, entries: &str, compact: &str, samples: &str) -> Result<(), String> {
    let entries = entries.split(';').map(|entry| {
        let (cron, effect) = entry.split_once('|').unwrap();
        let mut builder = ScheduleEntry::on(cron).zone(zone);
        if let Some(scale) = effect.strip_prefix('s') {
            builder = builder.scale(scale.parse().unwrap());
        } else {
            let tags = effect.char_indices().filter(|(_, c)| c.is_ascii_alphabetic());
            for (at, tag) in tags {
                let digits: String = effect[at + 1..]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                let number = digits.parse().unwrap();
                builder = match tag {
                    'c' => builder.capacity(number),
                    'a' => builder.refill_amount(number),
                    _ => builder.refill_period(Duration::from_secs(number)),
                };
            }
        }
        builder.build().unwrap()
    });
    let schedule = Schedule::new(entries).unwrap();
    same("compact form", schedule.encode().as_str(), compact)?;
    let read = Schedule::decode(compact, schedule.zone()).unwrap();
    same("compact form, read and written", read.encode().as_str(), compact)?;
    let base = params(base);
    for sample in samples.split(' ') {
        let [now, active, until, effective] = columns(sample);
        let now = EpochMillis(now.parse().unwrap());
        same(sample, schedule.active(now), active.parse().ok())?;
        same(sample, read.active(now), active.parse().ok())?;
        same(sample, valid_until(Some(&schedule), None, now), instant(until))?;
        same(sample, schedule.params(base, now), params(effective))?;
    }
    Ok(())
}

fn resets(zone: &str, crons: &str, compact: &str, samples: &str) -> Result<(), String> {
    let schedule = ResetSchedule::new(crons.split(';').map(|cron| (cron, zone))).unwrap();
    same("compact form", schedule.encode().as_str(), compact)?;
    let read = ResetSchedule::decode(compact, schedule.zone()).unwrap();
    same("compact form, read", &read, &schedule)?;
    for sample in samples.split(' ') {
        let [now, matches, last, next, until] = columns(sample);
        let now = EpochMillis(now.parse().unwrap());
        let first = &schedule.crons()[0];
        same(sample, first.matches(schedule.zone(), now), matches == "1")?;
        same(sample, schedule.last_edge(now), instant(last))?;
        same(sample, schedule.next_edge(now), instant(next))?;
        same(sample, valid_until(None, Some(&schedule), now), instant(until))?;
    }
    Ok(())
}

fn refused(expression: &str, field: &str) -> Result<(), String> {
    let err = Cron::parse(expression).err().ok_or("is not refused")?;
    same("field", err.field(), field)
}

fn unreadable<T: std::fmt::Debug>(read: Result<T, ScheduleError>, why: &str) -> Result<(), String> {
    match (read, why) {
        (Err(ScheduleError::Version { .. }), "version") | (Err(ScheduleError::Malformed(_)), "malformed") => {
            Ok(())
        }
        (other, _) => Err(format!("theirs {why}, ours {other:?}")),
    }
}

fn columns<const N: usize>(sample: &str) -> [&str; N] {
    sample.split('=').collect::<Vec<_>>().try_into().unwrap()
}

fn instant(text: &str) -> Option<EpochMillis> {
    text.parse().ok().map(EpochMillis)
}

fn params(text: &str) -> Params {
    let numbers: Vec<i128> = text.split('/').map(|number| number.parse().unwrap()).collect();
    Params {
        capacity: numbers[0],
        refill: numbers[1],
        period_ms: numbers[2],
    }
}
