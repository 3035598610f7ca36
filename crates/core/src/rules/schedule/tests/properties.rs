use proptest::prelude::*;

use super::*;

const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "America/St_Johns",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

fn field(place: usize) -> impl Strategy<Value = String> {
    let (low, high) = [(0_u8, 59_u8), (0, 23), (1, 31), (1, 12), (0, 7)][place];
    let item = prop_oneof![
        (low..=high).prop_map(|value| value.to_string()),
        (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        (low..=high, 1_u8..20).prop_map(|(value, step)| format!("{value}/{step}")),
        (1_u8..20).prop_map(|step| format!("*/{step}")),
    ];
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    (field(0), field(1), field(2), field(3), field(4))
        .prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
        .prop_filter("no such day", |expression| Cron::parse(expression).is_ok())
}

/// Around a change of the clocks, in spring or in autumn, of one of some years.
fn moment() -> impl Strategy<Value = EpochMillis> {
    (
        2007_i64..2035,
        prop_oneof![58_i64..120, 240_i64..330, 0_i64..366],
        0..DAY_MS,
    )
        .prop_map(|(year, day, ms)| {
            EpochMillis(((year - 1970) * 365 + (year - 1969) / 4 + day) * DAY_MS + ms)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Minute by minute, what is said of the minutes in between is correct.
    #[test]
    fn searches_agree_with_a_look_at_every_minute(
        expressions in prop::collection::vec(expression(), 1..4),
        zone in prop::sample::select(&ZONES[..]),
        now in moment(),
    ) {
        let entries = expressions.iter().map(|cron| ScheduleEntry::on(cron).zone(zone).scale(2.0).build().unwrap());
        let schedule = Schedule::new(entries).unwrap();
        let until = schedule.valid_until(now);
        prop_assert!(until > now);
        let before = schedule.active(now);
        let minutes = |from: i64| (from..).map(|minute| EpochMillis(minute * 60_000)).take(3 * 1440);
        let first = now.0.div_euclid(60_000) + 1;
        match minutes(first).find(|&minute| schedule.active(minute) != before) {
            Some(change) => prop_assert_eq!(until, change),
            None => prop_assert!(until.since(now) > 3 * DAY_MS - 60_000),
        }

        let cron = &expressions[0];
        prop_assume!(cron != "* * * * *");
        let resets = ResetSchedule::new([(cron, zone)]).unwrap();
        let matches = |minute: EpochMillis| resets.crons()[0].matches(resets.zone(), minute);
        let begins = |minute: &EpochMillis| matches(*minute) && !matches(minute.plus(-60_000));
        let edge = minutes(first).find(begins);
        let found = resets.next_edge(now);
        prop_assert!(edge.is_none() || found == edge);
        prop_assert!(edge.is_some() || found.is_none_or(|found| found.since(now) > 3 * DAY_MS - 60_000));
        let last = (1..3 * 1440).map(|back| EpochMillis((first - back) * 60_000)).find(begins);
        prop_assert!(last.is_none() || resets.last_edge(now) == last);
    }

    #[test]
    fn what_is_written_is_read_as_the_same(
        expressions in prop::collection::vec(expression(), 1..4),
        thousandths in 1_u64..=1_000_000_000,
        capacity in prop::option::of(1_u64..=1_000_000_000_000_000),
    ) {
        let entries = expressions.iter().map(|cron| {
            let entry = ScheduleEntry::on(cron).zone("Asia/Tokyo");
            match capacity {
                Some(capacity) => entry.capacity(capacity),
                None => entry.scale(thousandths as f64 / 1000.0),
            }.build().unwrap()
        });
        let schedule = Schedule::new(entries).unwrap();
        prop_assert_eq!(Schedule::decode(&schedule.encode(), schedule.zone()).unwrap(), schedule);
        for expression in expressions {
            let cron = Cron::parse(&expression).unwrap();
            let shown = Cron::parse(&cron.to_string()).unwrap();
            for minute in (0..400 * 1440).step_by(151) {
                let minute = EpochMillis(minute * 60_000);
                prop_assert_eq!(cron.matches(&Zone::UTC, minute), shown.matches(&Zone::UTC, minute));
            }
        }
    }

    #[test]
    fn no_text_and_no_instant_panics(
        text in "1?[-0-9mhDMwscap;*/,é ]{0,24}",
        any in any::<String>(),
        zone in prop::sample::select(&ZONES[..]),
        now in prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -400_000_000_000_000..400_000_000_000_000_i64],
    ) {
        let (zone, now) = (Zone::named(zone).unwrap(), EpochMillis(now));
        let _ = (Cron::parse(&any), Zone::named(&any), Cron::parse(&text));
        for text in [text, any] {
            if let Ok(schedule) = Schedule::decode(&text, &zone) {
                let _ = (schedule.active(now), schedule.valid_until(now));
                prop_assert!(Schedule::decode(&schedule.encode(), &zone).is_ok());
            }
            if let Ok(resets) = ResetSchedule::decode(&text, &zone) {
                let _ = (resets.last_edge(now), resets.next_edge(now), resets.valid_until(now));
            }
        }
        let yearly = daily(zone.name(), "59 23 31 12 *");
        let _ = (yearly.last_edge(now), yearly.next_edge(now), yearly.valid_until(now));
    }
}
