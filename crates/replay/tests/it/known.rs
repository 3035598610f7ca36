//! Token buckets, computed by hand.

use std::fmt::Write as _;

use proptest::prelude::*;
use zae_limiter_replay::DeclaredAt;

use crate::{limit, played, sums};

/// When the traces begin: 2026-01-15 09:30:00 UTC.
const BEGIN: i64 = 1_768_469_400_000;

#[test]
fn a_bucket_refuses_until_it_holds_enough() {
    // 60 tokens that refill in a minute: one in a second.
    let text = "timestamp,entity,tpm\n\
        2026-01-15T09:30:00.000Z,key-1,50\n\
        2026-01-15T09:30:05.000Z,key-1,20\n\
        2026-01-15T09:30:09.999Z,key-1,20\n\
        2026-01-15T09:30:10.000Z,key-1,20\n\
        2026-01-15T09:30:10.500Z,key-1,61\n\
        2026-01-15T09:30:10.500Z,key-2,60\n";
    let report = played(text, "system: {limits: {tpm: {capacity: 60}}}");
    let run = &report.runs[0];
    assert_eq!((report.requests, sums(run)), (6, (3, 3, 0)));
    assert_eq!(run.totals.never, 1, "61 are never held");
    let row = limit(run, "key-1", "tpm");
    assert_eq!(
        (row.refusals, row.never, row.tokens_refused),
        (3, 1, 20 + 20 + 61)
    );
    // 15 of 20 were there at 09:30:05.
    assert_eq!(row.longest_wait_ms, 5_000);
    assert_eq!(row.refusals_ms, Some((BEGIN + 5_000, BEGIN + 10_500)));
    assert_eq!((row.taken, row.level), (70, Some(DeclaredAt::System)));
    // After 50 of 60, and after 60 of 60.
    assert_eq!((row.peak_permille, row.peak_ms), (1000, Some(BEGIN + 10_000)));
    assert_eq!(limit(run, "key-2", "tpm").refusals, 0);
    let key = &run.keys[0];
    assert_eq!(
        (key.entity.as_str(), key.requests, key.admitted, key.refused),
        ("key-1", 5, 2, 3)
    );
    assert_eq!(report.every_ms, 1000);
    assert_eq!(row.timeline, [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]);
    let part = run.timeline[10];
    assert_eq!((part.arrived, part.refused, part.failed), (3, 1, 0));
}

#[test]
fn the_level_of_a_limit_is_that_which_production_uses() {
    let yaml = "
system: {limits: {rpm: {capacity: 1}}}
resources: {gpt-4: {limits: {rpm: {capacity: 2}}}}
entities:
  key-1: {resources: {gpt-4: {limits: {rpm: {capacity: 3}}}, _default_: {limits: {rpm: {capacity: 4}}}}}";
    let mut text = "timestamp,entity,resource\n".to_owned();
    for _ in 0..5 {
        for of in ["key-1,gpt-4", "key-1,gpt-5", "key-2,gpt-4", "key-2,gpt-5"] {
            writeln!(text, "2026-01-15 09:30:00,{of}").unwrap();
        }
    }
    let report = played(&text, yaml);
    let found: Vec<_> = report.runs[0]
        .limits
        .iter()
        .map(|row| {
            (
                row.entity.as_str(),
                row.resource.as_str(),
                row.level.unwrap(),
                row.taken,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("key-2", "gpt-5", DeclaredAt::System, 1),
            ("key-2", "gpt-4", DeclaredAt::Resource, 2),
            ("key-1", "gpt-4", DeclaredAt::Entity, 3),
            ("key-1", "gpt-5", DeclaredAt::EntityDefault, 4),
        ]
    );
}

#[test]
fn soft_limits_count_and_do_not_refuse() {
    let text = "timestamp,entity\n2026-01-15 09:30:00,a\n2026-01-15 09:30:00,a\n";
    let report = played(text, "system: {limits: {rpm: {capacity: 1, soft: true}}}");
    assert_eq!(sums(&report.runs[0]), (2, 0, 0));
    assert_eq!(limit(&report.runs[0], "a", "rpm").taken, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A bucket of one token a second, in exact thousandths. It is not full after the first request: a full bucket is refilled
    /// some time after its first debit only, within the bound that the library states.
    #[test]
    fn every_decision_is_that_of_a_token_bucket(
        steps in proptest::collection::vec((0_i64..4_000, 0_u64..40), 1..60), left in 0_u64..60
    ) {
        let (mut text, mut at_ms) = (format!("time,entity,tpm\n{BEGIN},key-1,{}\n", 1000 - left), BEGIN);
        let (mut held, mut expected) = (i64::try_from(left).unwrap() * 1000, (1, 0, 0));
        for (step, amount) in steps {
            at_ms += step;
            writeln!(text, "{at_ms},key-1,{amount}").unwrap();
            held += step;
            let needed = i64::try_from(amount).unwrap() * 1000;
            if needed <= held {
                held -= needed;
                expected.0 += 1;
            } else {
                expected.1 += 1;
            }
        }
        let yaml = "system: {limits: {tpm: {capacity: 1000, refill_amount: 1, refill_period: 1}}}";
        prop_assert_eq!(sums(&played(&text, yaml).runs[0]), expected);
    }
}
