//! The course of requests: corrections, failures, retries, entities above, flags.

use zae_limiter_replay::{OnRefusal, Options};

use crate::{limit, manifest, options, played, sums, try_played};

#[test]
fn an_estimate_is_corrected_at_the_end_of_the_request() {
    let text = "timestamp,entity,duration_ms,tpm_estimate,tpm\n\
        2026-01-15T09:30:00Z,key-1,1000,60,10\n\
        2026-01-15T09:30:00.500Z,key-1,0,10,10\n\
        2026-01-15T09:30:01Z,key-1,0,50,50\n\
        2026-01-15T09:30:01Z,key-1,0,1,1\n";
    // The bucket gains one token in an hour.
    let yaml = "system: {limits: {tpm: {capacity: 60, refill_amount: 1, refill_period: 3600}}}";
    let report = played(text, yaml);
    // The second comes before the correction, the third at the same time as it: leases end first.
    assert_eq!(sums(&report.runs[0]), (2, 2, 0));
    assert_eq!(limit(&report.runs[0], "key-1", "tpm").taken, 60);
    assert_eq!(
        report.trace.amounts,
        ["tpm: column tpm_estimate, corrected to tpm"]
    );
}

#[test]
fn a_correction_can_lead_to_debt() {
    let text = "timestamp,entity,tpm_estimate,tpm\n\
        2026-01-15T09:30:00Z,key-1,10,100\n\
        2026-01-15T09:30:39Z,key-1,0,0\n\
        2026-01-15T09:30:40Z,key-1,1,1\n\
        2026-01-15T09:30:41Z,key-1,1,1\n";
    // The bucket holds -40 tokens after the first request, and gains one in a second.
    let report = played(text, "system: {limits: {tpm: {capacity: 60}}}");
    assert_eq!(sums(&report.runs[0]), (2, 2, 0));
    let row = limit(&report.runs[0], "key-1", "tpm");
    assert_eq!((row.taken, row.refusals, row.longest_wait_ms), (101, 2, 1_000));
}

#[test]
fn a_failed_request_gives_its_tokens_back() {
    let text = "timestamp,entity,tpm,failed\n\
        2026-01-15T09:30:00Z,key-1,60,true\n\
        2026-01-15T09:30:00Z,key-1,60,false\n\
        2026-01-15T09:30:00Z,key-1,60,no\n";
    let report = played(text, "system: {limits: {tpm: {capacity: 60}}}");
    assert_eq!(sums(&report.runs[0]), (2, 1, 0));
    assert_eq!(limit(&report.runs[0], "key-1", "tpm").taken, 60);
}

#[test]
fn refused_requests_come_back_after_the_wait() {
    let text = "timestamp,entity,tpm\n\
        2026-01-15T09:30:00Z,key-1,60\n\
        2026-01-15T09:30:00Z,key-1,10\n\
        2026-01-15T09:30:00Z,key-1,60\n\
        2026-01-15T09:30:00Z,key-1,61\n";
    let declared = [manifest("limits.yaml", "system: {limits: {tpm: {capacity: 60}}}")];
    let played = |most| {
        let choices = Options {
            on_refusal: OnRefusal::Retry(most),
            ..Options::default()
        };
        try_played(text, &declared, options(&declared), &choices)
            .unwrap()
            .runs
            .remove(0)
    };
    // After 10 s the first comes back and takes 10 tokens; the second finds 50 of 60 after a minute.
    let run = played(1);
    assert_eq!(
        (sums(&run), run.totals.admitted_later, run.totals.refusals),
        ((2, 2, 0), 1, 4)
    );
    assert_eq!(
        run.totals.never, 1,
        "a request above the capacity does not come back"
    );
    let run = played(2);
    assert_eq!(
        (sums(&run), run.totals.admitted_later, run.totals.refusals),
        ((3, 1, 0), 2, 4)
    );
}

#[test]
fn requests_are_debited_from_the_entities_above() {
    let text = "timestamp,entity,parent,rpm\n\
        2026-01-15T09:30:00Z,key-1,project,1\n\
        2026-01-15T09:30:00Z,key-2,project,1\n\
        2026-01-15T09:30:00Z,key-2,,1\n\
        2026-01-15T09:30:00Z,project,org,1\n\
        2026-01-15T09:30:00Z,key-3,,1\n";
    let yaml = "
system: {limits: {rpm: {capacity: 5}}, cascade_depth: 3}
entities: {project: {resources: {_default_: {limits: {rpm: {capacity: 2}}}}}}";
    let report = played(text, yaml);
    // An entity that was below another one stays there.
    assert_eq!(sums(&report.runs[0]), (3, 2, 0));
    let row = limit(&report.runs[0], "project", "rpm");
    assert_eq!((row.refusals, row.taken), (2, 2));
    let taken = |entity| limit(&report.runs[0], entity, "rpm").taken;
    assert_eq!((taken("key-1"), taken("key-2"), taken("key-3")), (1, 1, 1));
}

#[test]
fn an_entity_is_put_below_another_one_later() {
    let text = "timestamp,entity,parent,rpm\n\
        2026-01-15T09:30:00Z,key-1,project,1\n\
        2026-01-15T09:30:01Z,project,org,1\n\
        2026-01-15T09:30:02Z,key-1,project,1\n";
    let report = played(text, "system: {limits: {rpm: {capacity: 5}}, cascade_depth: 3}");
    assert_eq!(sums(&report.runs[0]), (3, 0, 0));
    let taken = |entity| limit(&report.runs[0], entity, "rpm").taken;
    assert_eq!((taken("key-1"), taken("project"), taken("org")), (2, 3, 2));
}

#[test]
fn flags_and_missing_limits_are_failures() {
    let yaml = "
system: {limits: {rpm: {capacity: 5}}}
resources: {closed: {disabled: true}, other: {limits: {tpm: {capacity: 5}}}}
entities: {free: {resources: {_default_: {disabled: bypass}}}}";
    let text = "timestamp,entity,resource\n\
        2026-01-15T09:30:00Z,key-1,closed\n\
        2026-01-15T09:30:00Z,key-1,other\n\
        2026-01-15T09:30:00Z,free,gpt-4\n";
    let report = played(text, yaml);
    let run = &report.runs[0];
    assert_eq!(sums(run), (1, 0, 2));
    let failures: Vec<_> = run.keys.iter().filter_map(|row| row.failure.as_deref()).collect();
    assert!(
        failures[0].contains("closed is disabled for entity 'key-1'"),
        "{failures:?}"
    );
    assert!(
        failures[1].contains("no limit of this name is configured"),
        "{failures:?}"
    );
    assert_eq!(run.notes, ["1 requests passed under a bypass"]);
}
