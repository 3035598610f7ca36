//! What traces look like.

use std::time::Duration;

use jiff::tz::TimeZone;
use zae_limiter_replay::Options;
use zae_limiter_replay::trace::{Format, TraceOptions};

use crate::{limit, manifest, options, sums, try_played};

const LIMITS: &str = "resources: {gpt-4: {limits: {rpm: {capacity: 2}, tpm: {capacity: 1000}}}}";

fn key_1() -> TraceOptions {
    let declared = [manifest("limits.yaml", LIMITS)];
    TraceOptions {
        entity: Some("key-1".try_into().unwrap()),
        ..options(&declared)
    }
}

#[track_caller]
fn played(text: impl AsRef<[u8]>, trace: TraceOptions) -> zae_limiter_replay::Report {
    let declared = [manifest("limits.yaml", LIMITS)];
    try_played(text, &declared, trace, &Options::default()).unwrap()
}

#[test]
fn an_azure_trace() {
    let text = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
        2023-11-16 18:17:03.9799600,480,10\r\n\
        2023-11-16 18:17:04.0319600,318,8\r\n\
        2023-11-16 18:17:04.1,1,1";
    let report = played(text, key_1());
    assert_eq!(
        report.trace.amounts,
        ["rpm: 1 for each request", "tpm: ContextTokens + GeneratedTokens"]
    );
    assert_eq!(sums(&report.runs[0]), (2, 1, 0));
    assert_eq!(limit(&report.runs[0], "key-1", "tpm").taken, 480 + 10 + 318 + 8);
    assert_eq!(report.span_ms, (1_700_158_623_979, 1_700_158_624_100));
    // An estimate of the answer is corrected at its end, 20 ms for each of its tokens later.
    let estimated = TraceOptions {
        answer_estimate: Some(520),
        ms_per_token: 20,
        ..key_1()
    };
    let report = played(text, estimated);
    // The second needs 838 of the 0 that are left.
    assert_eq!(sums(&report.runs[0]), (1, 2, 0));
    assert_eq!(limit(&report.runs[0], "key-1", "tpm").taken, 490);
}

#[test]
fn an_access_log() {
    let text = "192.0.2.1 - alice [15/Jan/2026:09:30:00 +0100] \"GET /a HTTP/1.1\" 200 512 \"-\" \"curl\"\n\
        192.0.2.1 - - [15/Jan/2026:08:30:00 +0000] \"POST /a HTTP/1.1\" 200 512\n\
        192.0.2.1 - - [15/Jan/2026:08:30:00 +0000] \"get /b HTTP/1.1\" 429 -\n\
        192.0.2.1 - - [15/Jan/2026:08:30:00 +0000] \"GET /b HTTP/1.1\" 503 -\n\
        192.0.2.1 - - [15/Jan/2026:08:30:00 +0000] \"GET /b HTTP/1.1\" 200 -\n";
    let trace = TraceOptions {
        skip_status: vec!["429".parse().unwrap()],
        methods: vec!["GET".to_owned()],
        ..options(&[manifest("limits.yaml", LIMITS)])
    };
    let report = played(text, trace);
    assert_eq!(
        (report.trace.format, report.requests, report.counts.filtered),
        (Format::Log, 3, 2)
    );
    let taken = |entity| limit(&report.runs[0], entity, "rpm").taken;
    assert_eq!((taken("alice"), taken("192.0.2.1")), (1, 2));
    assert_eq!(report.span_ms, (1_768_465_800_000, 1_768_465_800_000));
}

#[test]
fn a_log_with_a_pattern() {
    let text = "1768469400.250 key-1 gpt-4 cost=700\n\n1768469400.750 key-1 gpt-4 cost=400\n";
    let trace = TraceOptions {
        pattern: Some(r"^(?P<time>\S+) (?P<entity>\S+) (?P<resource>\S+) cost=(?P<cost>\d+)$".to_owned()),
        columns: vec![("tpm".to_owned(), "cost".to_owned())],
        ..options(&[manifest("limits.yaml", LIMITS)])
    };
    let report = played(text, trace);
    assert_eq!(
        report.trace.amounts,
        ["rpm: 1 for each request", "tpm: column cost"]
    );
    assert_eq!(sums(&report.runs[0]), (1, 1, 0));
}

#[test]
fn an_export_of_usage() {
    let text = serde_json::json!({ "snapshots": [{
        "entity_id": "key-1", "resource": "gpt-4", "window": "hourly", "window_start": "2026-01-15T09:00:00Z",
        "window_end": "2026-01-15T09:59:59Z", "total_events": 9, "counters": { "rpm": 60, "tpm": 6000, "wcu": 70 } }],
        "more": true });
    let report = played(text.to_string(), options(&[manifest("limits.yaml", LIMITS)]));
    assert_eq!((report.trace.format, report.requests), (Format::Usage, 60));
    assert_eq!(sums(&report.runs[0]).0 + sums(&report.runs[0]).1, 60);
    let notes = report.trace.notes.join("\n");
    for part in [
        "is not complete",
        "no manifest declares were left out: 'wcu'",
        "spread evenly",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn columns_can_have_other_names() {
    let text = "When;Who;Model;Total tokens\n15/Jan/2026:09:30:00 +0000;a;gpt-4;10\n";
    let column = |role: &str, name: &str| (role.to_owned(), name.to_owned());
    let trace = TraceOptions {
        columns: vec![
            column("time", "when"),
            column("entity", "Who"),
            column("resource", "Model"),
            column("tokens", "Total tokens"),
        ],
        ..options(&[manifest("limits.yaml", LIMITS)])
    };
    let report = played(text, trace);
    assert_eq!(limit(&report.runs[0], "a", "tpm").taken, 10);
}

#[test]
fn other_limits_for_requests_and_tokens() {
    let declared = [manifest(
        "limits.yaml",
        "system: {limits: {calls: {capacity: 5}, words: {capacity: 500}}}",
    )];
    let trace = TraceOptions {
        requests_limit: Some("calls".try_into().unwrap()),
        tokens_limit: Some("words".try_into().unwrap()),
        entity: Some("key-1".try_into().unwrap()),
        ..options(&declared)
    };
    let text = "time,tokens\n2026-01-15 09:30:00,7\n2026-01-15 09:30:00,8\n";
    let report = try_played(text, &declared, trace, &Options::default()).unwrap();
    let taken = |name| limit(&report.runs[0], "key-1", name).taken;
    assert_eq!((taken("calls"), taken("words")), (2, 15));
}

#[test]
fn times_without_an_offset_are_of_the_zone() {
    let trace = TraceOptions {
        zone: TimeZone::get("America/New_York").unwrap(),
        ..key_1()
    };
    let report = played("time\n2026-01-15 09:30:00\n", trace);
    assert_eq!(report.span_ms.0, 1_768_487_400_000);
}

#[test]
fn rows_may_be_a_little_out_of_order() {
    let text = "time\n2026-01-15 09:30:30\n2026-01-15 09:30:00\n2026-01-15 09:30:45\n";
    let report = played(text, key_1());
    assert_eq!(report.span_ms, (1_768_469_400_000, 1_768_469_445_000));
    let sorted = TraceOptions {
        disorder: Duration::ZERO,
        ..key_1()
    };
    let declared = [manifest("limits.yaml", LIMITS)];
    let err = try_played(text, &declared, sorted, &Options::default()).unwrap_err();
    let expected = "trace.csv:3: is 30s earlier than line 2, which was replayed already; sort the file by time, or pass a \
        larger --disorder";
    assert_eq!(err, expected);
}
