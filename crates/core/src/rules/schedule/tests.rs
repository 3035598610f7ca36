//! Patterns, entries, boundaries, resets and the stored forms.

use std::time::Duration;

use super::*;

mod properties;

const DAY_MS: i64 = 86_400_000;

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}

fn at(text: &str) -> EpochMillis {
    EpochMillis::parse(text).unwrap()
}

fn daily(zone: &str, cron: &str) -> ResetSchedule {
    ResetSchedule::new([(cron, zone)]).unwrap()
}

/// Expression, field, value and reason.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    (
        "* * * *",
        "cron",
        "* * * *",
        "has 4 field(s), and must have 5: minute, hour, day of month, month, day of week",
    ),
    (
        "0 0 0 * * *",
        "cron",
        "0 0 0 * * *",
        "has 6 field(s), and must have 5: minute, hour, day of month, month, day of week; there is none for seconds",
    ),
    (
        "@daily",
        "cron",
        "@daily",
        "names of patterns are not supported; write the 5 fields, such as '0 0 * * *' for every day",
    ),
    ("60 * * * *", "cron.minute", "60", "'60' must be 0 to 59"),
    (
        "* 1,x * * *",
        "cron.hour",
        "1,x",
        "'x' is not a value; give '*', 0 to 23, or a list or range of these, with '/' and a step if wanted",
    ),
    ("* * 0 * *", "cron.day_of_month", "0", "'0' must be 1 to 31"),
    (
        "* * * 13 *",
        "cron.month",
        "13",
        "'13' must be 1 to 12 or JAN to DEC",
    ),
    (
        "* * * * 8",
        "cron.day_of_week",
        "8",
        "'8' must be 0 to 7 (0 and 7 are Sunday) or SUN to SAT",
    ),
    (
        "* * L * *",
        "cron.day_of_month",
        "L",
        "'L' is an extension that is not supported; give 1 to 31",
    ),
    (
        "* * * * 5#2",
        "cron.day_of_week",
        "5#2",
        "'5#2' is an extension that is not supported; give 0 to 7 (0 and 7 are Sunday) or SUN to SAT",
    ),
    (
        "* 22-6 * * *",
        "cron.hour",
        "22-6",
        "the range '22-6' must ascend; write '22-23,0-6'",
    ),
    (
        "* * * NOV-FEB *",
        "cron.month",
        "NOV-FEB",
        "the range 'NOV-FEB' must ascend; write '11-12,1-2'",
    ),
    (
        "* * * * FRI-MON",
        "cron.day_of_week",
        "FRI-MON",
        "the range 'FRI-MON' must ascend; write '5-6,0-1'",
    ),
    (
        "* * * * 7-3",
        "cron.day_of_week",
        "7-3",
        "the range '7-3' must ascend",
    ),
    (
        "* * * * FRI-SUN",
        "cron.day_of_week",
        "FRI-SUN",
        "a range cannot end on Sunday as 'SUN'; write '5-7'",
    ),
    (
        "*/0 * * * *",
        "cron.minute",
        "*/0",
        "the step '0' must be a whole number of 1 or more",
    ),
    (
        "0 0 30,31 FEB *",
        "cron.day_of_month",
        "30,31",
        "no month of 'FEB' has such a day",
    ),
    (
        "0 0 31 4,6 */2",
        "cron.day_of_month",
        "31",
        "no month of '4,6' has such a day",
    ),
];

#[test]
fn refused_expressions_are_explained() {
    for &(expression, field, value, reason) in REFUSED {
        let err = Cron::parse(expression).unwrap_err();
        assert_eq!((err.field(), err.value(), err.reason()), (field, value, reason));
    }
    let long = Cron::parse(&format!("{} * * * *", "JULY".repeat(1000))).unwrap_err();
    assert!(
        long.to_string().len() < 250 && !long.reason().contains("extension"),
        "{long}"
    );
    // What a reason proposes is accepted.
    for expression in [
        "* 22-23,0-6 * * *",
        "* * * 11-12,1-2 *",
        "* * * * 5-6,0-1",
        "* * * * 5-7",
    ] {
        Cron::parse(expression).unwrap();
    }
}

#[test]
fn days_match_either_field_or_both() {
    // Of February 2026, the 1st is a Sunday; the 1st of June is a Monday.
    let matches = |expression: &str, day: &str| Cron::parse(expression).unwrap().matches(&Zone::UTC, at(day));
    let (first, monday, second) = (
        "2026-02-01T00:00:00Z",
        "2026-02-09T00:00:00Z",
        "2026-06-01T00:00:00Z",
    );
    assert!(matches("* * 1 * MON", first) && matches("* * 1 * MON", monday));
    assert!(!matches("* * */31 * MON", first) && matches("* * */31 * MON", second));
    assert!(!matches("* * 1 * */8", monday) && matches("* * 1 * */8", first));
    // Such a day exists only as a day of the week.
    assert!(matches("* * 30 FEB MON", monday) && !matches("* * 30 FEB MON", first));
}

#[test]
fn expressions_are_shown_with_names() {
    for (expression, shown) in [
        ("*/15  9-17 1,15 3-10/2 1-5", "*/15 9-17 1,15 MAR-OCT/2 MON-FRI"),
        ("0 0 * * 0", "0 0 * * SUN"),
        ("0 0 * * 7,00", "0 0 * * SUN,SUN"),
        // A range or steps that begin or end with 7 have no name that is read as the same.
        ("0 0 * * 5-7", "0 0 * * FRI-7"),
        ("0 0 * * 7/2", "0 0 * * 7/2"),
        ("0 0 * * sun/2", "0 0 * * SUN/2"),
        ("05 0 * 01 *,1", "05 0 * JAN *,MON"),
    ] {
        let cron: Cron = expression.parse().unwrap();
        assert_eq!(cron.to_string(), shown);
        let again = Cron::parse(shown).unwrap();
        for day in 0..14 {
            let moment = EpochMillis(day * DAY_MS);
            assert_eq!(
                cron.matches(&Zone::UTC, moment),
                again.matches(&Zone::UTC, moment)
            );
        }
    }
}

#[test]
fn zones_are_those_of_the_database_by_their_exact_names() {
    assert_eq!(Zone::named("UTC").unwrap(), Zone::UTC);
    for (name, reason) in [
        ("europe/berlin", "is spelled 'Europe/Berlin'"),
        ("utc", "is spelled 'UTC'"),
        ("", "is not in the IANA"),
        ("Etc/Unknown", "is not in the IANA"),
        ("+01:00", "is not in the IANA"),
        ("/etc/localtime", "is not in the IANA"),
    ] {
        let err = Zone::named(name).unwrap_err();
        assert_eq!((err.field(), err.value()), ("tz", name));
        assert!(err.reason().starts_with(reason), "{err}");
    }
    let mut count = 0;
    for name in jiff::tz::TimeZoneDatabase::bundled().available() {
        assert_eq!(zone(name.as_str()).name(), name.as_str());
        count += 1;
    }
    assert!(count > 500);
}

#[test]
fn entries_have_a_scale_or_other_values() {
    let entry = || ScheduleEntry::on("* 0-6 * * *");
    for (builder, field) in [
        (entry(), "scale"),
        (entry().scale(0.0), "scale"),
        (entry().scale(f64::NAN), "scale"),
        (entry().scale(f64::INFINITY), "scale"),
        (entry().scale(MAX_SCALE * 1.000_001), "scale"),
        (entry().scale(1.0).capacity(1), "scale"),
        (entry().capacity(0), "capacity"),
        (entry().refill_amount(1_000_000_000_000_001), "refill_amount"),
        (
            entry().refill_period(Duration::from_millis(1500)),
            "refill_period",
        ),
        (
            entry().refill_period(Duration::from_secs(1_000_000_001)),
            "refill_period",
        ),
        (entry().scale(1.0).zone("Mars"), "tz"),
        (ScheduleEntry::on("x * * * *").scale(1.0), "cron.minute"),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
    let entry = entry()
        .capacity(5)
        .refill_period(Duration::from_mins(1))
        .build()
        .unwrap();
    assert_eq!(
        (entry.capacity(), entry.refill_amount(), entry.scale()),
        (Some(5), None, None)
    );
    assert_eq!(entry.refill_period(), Some(Duration::from_mins(1)));
}

#[test]
fn scaled_parameters_are_those_of_doubles() {
    let scaled = |capacity, refill, scale| {
        let entry = ScheduleEntry::on("* * * * *").scale(scale).build().unwrap();
        let params = entry.params(Params {
            capacity,
            refill,
            period_ms: 7,
        });
        assert_eq!(params.period_ms, 7);
        (params.capacity, params.refill)
    };
    assert_eq!(scaled(100_000, 100_000, 1.15), (114_999, 114_999));
    assert_eq!(scaled(1000, 0, 1e-9), (1, 0));
    let most = 1_000_000_000_000_000_000;
    assert_eq!(scaled(most, most, MAX_SCALE).0, 999_999_999_999_999_983_222_784);
    assert_eq!(
        scaled(most - 1, 123_456_789_012_345_678, 1.1),
        (1_100_000_000_000_000_128, 135_802_467_913_580_256)
    );
    let _ = scaled(i128::MAX, i128::MIN, MAX_SCALE);
}

#[test]
fn schedules_have_entries_of_one_zone() {
    let entry = |zone: &str| {
        ScheduleEntry::on("* 0-6 * * *")
            .zone(zone)
            .scale(2.0)
            .build()
            .unwrap()
    };
    assert_eq!(Schedule::new([]).unwrap_err().field(), "schedule");
    let err = Schedule::new([entry("UTC"), entry("Europe/Berlin")]).unwrap_err();
    assert_eq!((err.field(), err.value()), ("tz", "Europe/Berlin"));
    let none: [(&str, &str); 0] = [];
    assert_eq!(ResetSchedule::new(none).unwrap_err().field(), "reset_schedule");
    assert_eq!(
        ResetSchedule::new([("* * * * *", "UTC")]).unwrap_err().field(),
        "reset_schedule"
    );
    assert!(ResetSchedule::new([("0 0 * * *", "UTC"), ("0 1 * * *", "Asia/Tokyo")]).is_err());
    assert_eq!(valid_until(None, None, EpochMillis(0)), None);
}

#[test]
fn stored_forms_of_newer_clients_are_told_from_malformed_ones() {
    for text in ["2m0s5", "10s5", "99999999999999999999999s5"] {
        assert!(matches!(
            Schedule::decode(text, &Zone::UTC),
            Err(ScheduleError::Version { .. })
        ));
        assert!(matches!(
            ResetSchedule::decode(text, &Zone::UTC),
            Err(ScheduleError::Version { .. })
        ));
    }
    let err = Schedule::decode("2m0s5", &Zone::UTC).unwrap_err();
    assert_eq!(
        err.to_string(),
        "schedule '2m0s5' is of version 2 of the stored form, and this client reads up to version 1"
    );
    for text in [
        "",
        "-",
        "1",
        "0s5",
        "s5",
        "1m5",
        "1s5;",
        "1;s5",
        "1s5s6",
        "1ms5",
        "1x5s5",
        "1s5c5",
        "1s0",
        "1s1000000001",
        "1c0",
        "1s+5",
        "1s5_0",
        "1s5 ",
        "1c99999999999999999999999999999999999999",
        "1m60s5",
        "1m5-1s5",
        "1m 5s5",
        "1é5s5",
        "1m5é",
        "1D30M2s5",
    ] {
        assert!(
            matches!(
                Schedule::decode(text, &Zone::UTC),
                Err(ScheduleError::Malformed(_))
            ),
            "{text}"
        );
    }
    for text in ["", "1", "1s5", "1m0c5", "1m0m0"] {
        assert!(
            matches!(
                ResetSchedule::decode(text, &Zone::UTC),
                Err(ScheduleError::Malformed(_))
            ),
            "{text}"
        );
    }
    // As other clients read it: an entry without constraints never begins to match.
    assert_eq!(
        ResetSchedule::decode("01m0h0;", &Zone::UTC)
            .unwrap()
            .crons()
            .len(),
        2
    );
}

#[test]
fn resets_follow_the_clocks_of_the_zone() {
    // At 2:00 in Berlin clocks are set to 3:00 on March 29th, and at 3:00 to 2:00 on October 25th.
    let skipped = daily("Europe/Berlin", "30 2 * * *");
    assert_eq!(
        skipped.next_edge(at("2026-03-28T12:00:00Z")),
        Some(at("2026-03-30T00:30:00Z"))
    );
    assert_eq!(
        skipped.last_edge(at("2026-03-29T12:00:00Z")),
        Some(at("2026-03-28T01:30:00Z"))
    );
    let first = skipped.next_edge(at("2026-10-24T12:00:00Z")).unwrap();
    assert_eq!(first, at("2026-10-25T00:30:00Z"));
    assert_eq!(skipped.next_edge(first), Some(at("2026-10-25T01:30:00Z")));
    assert_eq!(
        skipped.last_edge(first.plus(-1)),
        Some(at("2026-10-24T00:30:00Z"))
    );
    // 23:59 is followed by 1:00 in Cairo, so that the day begins there.
    let first_minute = daily("Africa/Cairo", "0 0 * * *");
    assert_eq!(
        first_minute.next_edge(at("2026-04-23T12:00:00Z")),
        Some(at("2026-04-24T21:00:00Z"))
    );
    let whole_day = daily("Africa/Cairo", "* * 24 4 *");
    assert_eq!(
        whole_day.next_edge(at("2026-04-23T12:00:00Z")),
        Some(at("2026-04-23T22:00:00Z"))
    );
    // The 30th of December 2011 did not exist in Apia.
    let lost = daily("Pacific/Apia", "0 0 30 12 *");
    assert_eq!(lost.last_edge(at("2012-06-01T00:00:00Z")), None);
    // Months end on the local day.
    let monthly = daily("Pacific/Kiritimati", "0 0 1 * *");
    assert_eq!(
        monthly.next_edge(at("2028-02-28T10:00:00Z")),
        Some(at("2028-02-29T10:00:00Z"))
    );
    assert_eq!(monthly.shortest_cycle(), Duration::from_hours(31 * 24));
}

/// The original misses these edges, or searches for them without end.
#[test]
fn clocks_that_are_set_beside_the_full_hour_or_by_two_hours() {
    // 3:00 is followed by 1:00 in Troll, so that 1:30 comes twice.
    let repeated = daily("Antarctica/Troll", "30 1 * * SUN");
    assert_eq!(
        repeated.next_edge(at("2035-10-28T00:31:12Z")),
        Some(at("2035-10-28T01:30:00Z"))
    );
    // 2:44 is followed by 3:45 in the Chatham Islands.
    let noon = daily("Pacific/Chatham", "0 12 * * *");
    assert_eq!(
        noon.last_edge(at("2026-09-26T20:00:00Z")),
        Some(at("2026-09-25T23:15:00Z"))
    );
    // 0:00 was followed by 1:01 in Newfoundland.
    let hours = daily("America/St_Johns", "* 1,3 * * *");
    assert_eq!(
        hours.next_edge(at("1987-04-04T20:00:00Z")),
        Some(at("1987-04-05T03:31:00Z"))
    );
    // 0:00 on Sunday was followed by 23:01 on Saturday there.
    let sundays = daily("America/St_Johns", "* * * * SUN");
    assert_eq!(
        sundays.last_edge(at("2002-10-27T03:18:00Z")),
        Some(at("2002-10-27T02:30:00Z"))
    );
    // The offset of Liberia had seconds.
    let seconds = daily("Africa/Monrovia", "0 5 * * *");
    assert_eq!(
        seconds.last_edge(at("1972-01-06T12:00:00Z")),
        Some(at("1972-01-06T05:44:30Z"))
    );
}

#[test]
fn searches_end_where_they_find_nothing() {
    let now = at("2026-03-02T00:00:00.001Z");
    let leap = daily("UTC", "0 0 29 2 *");
    assert_eq!((leap.last_edge(now), leap.next_edge(now)), (None, None));
    assert_eq!(leap.valid_until(now), now.plus(366 * DAY_MS));
    let until = |cron: &str| {
        let entry = ScheduleEntry::on(cron).scale(2.0).build().unwrap();
        Schedule::new([entry]).unwrap().valid_until(now).since(now)
    };
    assert_eq!(until("0 0 29 2 *"), 7 * DAY_MS);
    assert_eq!(until("* 0 29 2 *"), 31 * DAY_MS);
    assert_eq!(until("* * 29 2 *"), 366 * DAY_MS);
    assert_eq!(until("0-59 0-23 1-31 1-12 0-6"), 366 * DAY_MS);
}
