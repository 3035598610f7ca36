//! Quotas, sessions and schedules go by the time of the trace.

use crate::{limit, played, sums};

fn requests(times: &[&str]) -> String {
    let rows: Vec<String> = times.iter().map(|time| format!("{time},key-1,1\n")).collect();
    format!("timestamp,entity,n\n{}", rows.concat())
}

#[test]
fn a_quota_is_whole_again_at_local_midnight() {
    let yaml =
        "system: {limits: {n: {capacity: 1, reset_schedule: [{cron: '0 0 * * *', tz: Europe/Berlin}]}}}";
    // Midnight in Berlin is 22:00 UTC in summer and 23:00 in winter.
    let text = requests(&[
        "2026-07-01T21:59:58Z",
        "2026-07-01T21:59:59Z",
        "2026-07-01T22:00:00Z",
        "2026-07-01T23:30:00Z",
        "2026-12-01T22:59:00Z",
        "2026-12-01T22:59:59Z",
        "2026-12-01T23:00:00Z",
    ]);
    let report = played(&text, yaml);
    assert_eq!(sums(&report.runs[0]), (4, 3, 0));
    // From 23:30 UTC until 22:00 UTC of the next day.
    assert_eq!(
        limit(&report.runs[0], "key-1", "n").longest_wait_ms,
        22 * 3_600_000 + 1_800_000
    );
}

#[test]
fn a_session_begins_with_the_first_use() {
    let yaml = "system: {limits: {n: {capacity: 2, reset_after_seconds: 3600}}}";
    let text = requests(&[
        "2026-07-01T10:10:00Z",
        "2026-07-01T10:50:00Z",
        "2026-07-01T11:09:59Z",
        "2026-07-01T11:10:00Z",
        "2026-07-01T12:09:59Z",
        "2026-07-01T12:10:00Z",
    ]);
    let report = played(&text, yaml);
    assert_eq!(sums(&report.runs[0]), (5, 1, 0));
    assert_eq!(limit(&report.runs[0], "key-1", "n").longest_wait_ms, 1_000);
}

#[test]
fn a_schedule_changes_the_capacity_by_local_time() {
    let yaml = "system: {limits: {n: {capacity: 4, refill_amount: 4, refill_period: 1, \
        schedule: [{cron: '* 0-5 * * *', tz: UTC, scale: 0.5}]}}}";
    let burst = |time: &str| vec![time.to_owned(); 5];
    let times: Vec<String> = [burst("2026-07-01T03:00:00Z"), burst("2026-07-01T12:00:00Z")].concat();
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let report = played(&requests(&times), yaml);
    assert_eq!(sums(&report.runs[0]), (2 + 4, 3 + 1, 0));
}

#[test]
fn years_without_requests_are_skipped() {
    let text = requests(&[
        "1970-01-01T00:00:00Z",
        "2026-07-01T12:00:00Z",
        "9999-12-30T00:00:00Z",
    ]);
    let report = played(
        &text,
        "system: {limits: {n: {capacity: 1, refill_amount: 1, refill_period: 86400}}}",
    );
    assert_eq!(sums(&report.runs[0]), (3, 0, 0));
    assert!(report.begins_ms.len() <= 72, "{}", report.begins_ms.len());
}
