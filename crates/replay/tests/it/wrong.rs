//! Traces that cannot be replayed.

use proptest::prelude::*;
use zae_limiter_replay::Options;
use zae_limiter_replay::trace::TraceOptions;

use crate::{manifest, options, try_played};

const LIMITS: &str = "resources: {gpt-4: {limits: {rpm: {capacity: 2}, tpm: {capacity: 1000}}}}";

fn failed(text: impl AsRef<[u8]>, change: impl Fn(&mut TraceOptions)) -> String {
    let declared = [manifest("limits.yaml", LIMITS)];
    let mut trace = options(&declared);
    change(&mut trace);
    try_played(text, &declared, trace, &Options::default()).unwrap_err()
}

#[track_caller]
fn check(text: impl AsRef<[u8]>, expected: &str) {
    let err = failed(text, |_| {});
    assert!(err.starts_with(expected), "{err}\n{expected}");
}

#[test]
fn files_without_requests() {
    for text in ["", "\n \r\n", "\u{feff}"] {
        check(text, "trace.csv: has no requests");
    }
    check("time,entity\n", "trace.csv: has no requests to replay");
    check(
        "{\"snapshots\": []}",
        "trace.csv: has no usage of the limits of the manifest, which are rpm, tpm",
    );
    check("{", "trace.csv: is not JSON: ");
    let bad = failed("time,entity\nx,a\n", |trace| trace.skip_bad = true);
    assert!(
        bad.contains(
            "has no request that can be replayed; the first row that cannot: trace.csv:2: column 'time'"
        ),
        "{bad}"
    );
}

#[test]
fn first_lines_that_lack_something() {
    check(
        "entity,rpm\na,1\n",
        "trace.csv:1: the first line has no column for the time. Name it with --column time=NAME; there are 'entity', 'rpm'",
    );
    check(
        "time,rpm\n",
        "trace.csv:1: the first line has no column for the entity. Name it with --column entity=NAME, or pass --entity",
    );
    check(
        "time,entity,time\n",
        "trace.csv:1: the first line column 3 is named 'time' like one before it",
    );
    let err = failed("time,entity\n2026-01-15 09:30:00,a\n", |trace| {
        trace.resource = None;
    });
    assert!(err.contains("has no column for the resource"), "{err}");
    check(
        &b"\x00\xff\xfe\n"[..],
        "trace.csv:1: the first line has no column for the time",
    );
    check("\"time\n", "trace.csv:1: a quoted cell has no closing quote");
    let err = failed("when,entity\n", |trace| {
        trace.columns = vec![("time".into(), "then".into())];
    });
    assert_eq!(
        err,
        "trace.csv:1: the first line --column time=then names no column; there are 'when', 'entity'"
    );
    let err = failed("time,entity\n", |trace| {
        trace.columns = vec![("tine".into(), "time".into())];
    });
    assert!(
        err.contains("--column tine=time: 'tine' must be one of time, entity, "),
        "{err}"
    );
    let err = failed("time,entity\n", |trace| {
        trace.skip_status = vec!["429".parse().unwrap()];
    });
    assert!(
        err.contains("--skip-status needs a column for the status"),
        "{err}"
    );
}

#[test]
fn options_that_contradict_the_manifest() {
    let err = failed("time,entity\n", |trace| {
        trace.requests_limit = Some("rps".try_into().unwrap());
    });
    assert_eq!(
        err,
        "trace.csv: --requests-limit is 'rps', which the manifest does not declare; it declares rpm, tpm"
    );
    let err = failed("time,entity\n", |trace| trace.limits.clear());
    assert_eq!(
        err,
        "trace.csv: cannot be replayed: the manifest declares no limits"
    );
    let declared = [manifest("limits.yaml", "system: {limits: {rps: {capacity: 5}}}")];
    let err = try_played(
        "time,entity\n",
        &declared,
        options(&declared),
        &Options::default(),
    )
    .unwrap_err();
    assert!(
        err.contains("says nothing about the limits of the manifest, which are rps. Name the one"),
        "{err}"
    );
    let err = failed("", |trace| trace.pattern = Some("(".into()));
    assert!(err.starts_with("trace.csv: has no requests"), "{err}");
    let err = failed("a\n", |trace| trace.pattern = Some("(".into()));
    assert!(
        err.starts_with("trace.csv: --pattern is not a regular expression"),
        "{err}"
    );
}

#[test]
fn bad_rows_are_named_with_line_and_column() {
    let good = "time,entity,rpm,tpm,parent,duration_ms,failed\n2026-01-15 09:30:00,a,1,2,,,\n";
    for (row, expected) in [
        (
            "yesterday,a,1,2,,,",
            "column 'time' is 'yesterday': must be a time of 1970 or later",
        ),
        (",a,1,2,,,", "column 'time' is '': must be a time"),
        (
            "1960-01-01 00:00:00,a,1,2,,,",
            "column 'time' is '1960-01-01 00:00:00': must be a time of 1970",
        ),
        (
            "2026-01-15 09:30:00,,1,2,,,",
            "column 'entity': is empty; name an entity for such rows with --entity",
        ),
        ("2026-01-15 09:30:00,a b,1,2,,,", "column 'entity' is 'a b': "),
        (
            "2026-01-15 09:30:00,a,-1,2,,,",
            "column 'rpm' is '-1': must be a whole number from 0 to 1000000000000000",
        ),
        (
            "2026-01-15 09:30:00,a,1.5,2,,,",
            "column 'rpm' is '1.5': must be a whole number",
        ),
        (
            "2026-01-15 09:30:00,a,1,9007199254740993,,,",
            "column 'tpm' is '9007199254740993': must be a whole number",
        ),
        (
            "2026-01-15 09:30:00,a,1,99999999999999999999999,,,",
            "column 'tpm' is '99999999999999999999999': must be",
        ),
        (
            "2026-01-15 09:30:00,a,,,,,",
            "takes nothing: all columns of limits are empty",
        ),
        ("2026-01-15 09:30:00,a,1,2,x#y,,", "column 'parent' is 'x#y': "),
        (
            "2026-01-15 09:30:00,a,1,2,,-5,",
            "column 'duration_ms' is '-5': must be a whole number of milliseconds",
        ),
        (
            "2026-01-15 09:30:00,a,1,2,,,maybe",
            "column 'failed' is 'maybe': must be true or false",
        ),
        ("2026-01-15 09:30:00,a,1", "has 3 cells; the first line has 7"),
        (
            "2026-01-15 09:30:00,a,1,2,,,,8",
            "has 8 cells; the first line has 7",
        ),
        ("\"x\"y,a,1,2,,,", "text follows the closing quote of a cell"),
    ] {
        let text = format!("{good}{row}\n2026-01-15 09:30:01,a,1,2,,,\n");
        check(&text, &format!("trace.csv:3: {expected}"));
        // The others can be replayed without it.
        let declared = [manifest("limits.yaml", LIMITS)];
        let mut trace = options(&declared);
        trace.skip_bad = true;
        let report = try_played(&text, &declared, trace, &Options::default()).unwrap();
        assert_eq!((report.requests, report.counts.bad), (2, 1), "{row}");
        assert!(report.counts.first_bad.unwrap().contains(expected), "{row}");
    }
    let text = [good.as_bytes(), b"2026-01-15 09:30:00,\xff,1,2,,,\n"].concat();
    check(text, "trace.csv:3: column 'entity': is not UTF-8");
}

#[test]
fn a_log_that_is_not_one_throughout() {
    let good = "192.0.2.1 - - [15/Jan/2026:09:30:00 +0000] \"GET / HTTP/1.1\" 200 1\n";
    let text = format!("{good}\n{good}### rotated ###\n{good}");
    check(
        &text,
        "trace.csv:4: is not a line of the Common or Combined Log Format, such as 192.0.2.1 - alice",
    );
    check(
        good.replace("15/Jan", "45/Jan"),
        "trace.csv:1: column 'time' is '45/Jan/2026:09:30:00 +0000': must be",
    );
}

#[test]
fn entities_have_one_parent_and_no_circle() {
    let rows = |rows: &str| {
        format!(
            "time,entity,parent,rpm\n{}",
            rows.replace('_', "2026-01-15 09:30:00")
        )
    };
    check(
        rows("_,a,b,1\n_,a,c,1\n"),
        "trace.csv:3: the parent of 'a' is 'c', but was 'b' before; an entity has one parent",
    );
    check(
        rows("_,a,b,1\n_,b,c,1\n_,c,a,1\n"),
        "trace.csv:4: the parent of 'c' is 'a', which is below it",
    );
    let long: String = (0..12).map(|i| format!("_,e{i},e{},1\n", i + 1)).rev().collect();
    let err = failed(rows(&long), |_| {});
    assert!(err.contains("which has more above it than the 8 levels"), "{err}");
}

#[test]
fn a_line_of_many_megabytes_is_not_kept() {
    let mut text = b"time,entity\n2026-01-15 09:30:00,a\n".to_vec();
    text.resize(text.len() + (40 << 20), b'x');
    check(&text, "trace.csv:3: the line is longer than 1048576 bytes");
    let mut text = b"\"".to_vec();
    text.extend(b"x\n".repeat(1 << 20));
    check(
        &text,
        "trace.csv:1: a quoted cell makes the record longer than 1048576 bytes",
    );
}

#[test]
fn a_length_of_parts_that_is_too_short_is_refused() {
    let declared = [manifest("limits.yaml", LIMITS)];
    let choices = Options {
        every_ms: Some(1),
        ..Options::default()
    };
    let text = "time,entity\n2026-01-15 09:30:00,a\n2026-01-15 10:30:00,a\n";
    let err = try_played(text, &declared, options(&declared), &choices).unwrap_err();
    assert!(
        err.contains("every '1 ms'") && err.contains("choose a longer time"),
        "{err}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_file_makes_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        rows in proptest::collection::vec("[0-9a-zA-Z ,:\"./+{}\\[\\]-]{0,40}", 0..8),
        first in prop_oneof![Just("time,entity,rpm"), Just("{\"snapshots\":["), Just("")],
    ) {
        let declared = [manifest("limits.yaml", LIMITS)];
        let text = format!("{first}\n{}", rows.join("\n"));
        for text in [bytes.as_slice(), text.as_bytes()] {
            for skip_bad in [false, true] {
                let trace = TraceOptions { skip_bad, ..options(&declared) };
                drop(try_played(text, &declared, trace, &Options::default()));
            }
        }
    }
}
