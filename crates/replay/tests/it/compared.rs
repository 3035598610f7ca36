//! Two manifests on one trace.

use zae_limiter_replay::{OnRefusal, Options, Report};

use crate::{manifest, options, sums, try_played};

/// Ten requests of each of two keys, one in each second.
fn text() -> String {
    let row = |i: u32| format!("2026-01-15 09:30:{:02},key-{}\n", i / 2, i % 2);
    format!("time,entity\n{}", (0..20).map(row).collect::<String>())
}

fn compared(first: &str, second: &str, choices: Options) -> Report {
    let declared = [manifest("old.yaml", first), manifest("new.yaml", second)];
    try_played(text(), &declared, options(&declared), &choices).unwrap()
}

const WIDE: &str = "system: {limits: {rpm: {capacity: 100}}}";
const NARROW: &str = "
system: {limits: {rpm: {capacity: 100}}}
entities: {key-0: {resources: {_default_: {limits: {rpm: {capacity: 4, refill_amount: 1, refill_period: 3600}}}}}}";

#[test]
fn what_the_second_refuses_more() {
    let report = compared(WIDE, NARROW, Options::default());
    assert_eq!(
        (sums(&report.runs[0]), sums(&report.runs[1])),
        ((20, 0, 0), (14, 6, 0))
    );
    let comparison = report.comparison.unwrap();
    let counts = (
        comparison.both_admit,
        comparison.only_first_admits,
        comparison.only_second_admits,
    );
    assert_eq!((counts, comparison.neither_admits), ((14, 6, 0), 0));
    let [difference] = &comparison.differences[..] else {
        panic!("{comparison:?}")
    };
    assert_eq!(
        (difference.entity.as_str(), difference.lost, difference.gained),
        ("key-0", 6, 0)
    );
    assert_eq!(difference.lost_ms, Some((1_768_469_404_000, 1_768_469_409_000)));
    assert_eq!(
        difference.lost_by.iter().collect::<Vec<_>>(),
        [(&"rpm of key-0".to_owned(), &6)]
    );
}

#[test]
fn what_the_second_refuses_less() {
    let report = compared(NARROW, WIDE, Options::default());
    let comparison = report.comparison.unwrap();
    assert_eq!((comparison.both_admit, comparison.only_second_admits), (14, 6));
    assert_eq!(
        (
            comparison.differences[0].gained,
            comparison.differences[0].lost_ms
        ),
        (6, None)
    );
}

#[test]
fn a_manifest_does_not_differ_from_itself() {
    let report = compared(NARROW, NARROW, Options::default());
    let comparison = report.comparison.unwrap();
    assert_eq!((comparison.both_admit, comparison.neither_admits), (14, 6));
    assert!(comparison.differences.is_empty());
}

#[test]
fn outcomes_of_requests_that_come_back_are_compared_at_their_end() {
    let choices = Options {
        on_refusal: OnRefusal::Retry(1),
        ..Options::default()
    };
    // Each of the six comes back after what it waits for. The first is admitted, and the others are refused again.
    let report = compared(WIDE, NARROW, choices);
    assert_eq!(sums(&report.runs[1]), (15, 5, 0));
    assert_eq!(report.comparison.unwrap().only_first_admits, 5);
}

#[test]
fn limits_that_a_manifest_lacks_are_failures() {
    let report = compared(
        WIDE,
        "system: {limits: {tpm: {capacity: 100}}}",
        Options::default(),
    );
    assert_eq!(sums(&report.runs[1]), (0, 0, 20));
    let comparison = report.comparison.unwrap();
    assert_eq!(
        comparison.differences[0].lost_by.iter().collect::<Vec<_>>(),
        [(&"a failure".to_owned(), &10)]
    );
}
