//! Replays of small traces whose answers are known.
//!
//! - `known`: buckets, computed by hand;
//! - `shapes`: quotas, sessions and schedules, by the time of the trace;
//! - `course`: corrections, failures, retries, entities above each other, flags;
//! - `formats`: Azure traces, logs, exports, columns;
//! - `wrong`: traces that cannot be replayed, and what is said about them;
//! - `compared`: two manifests; `output`: JSON and the page.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

mod compared;
mod course;
mod formats;
mod known;
mod output;
mod shapes;
mod wrong;

use zae_limiter_core::manifest::Manifest;
use zae_limiter_replay::report::{LimitRow, Run};
use zae_limiter_replay::trace::{Trace, TraceOptions};
use zae_limiter_replay::{Declared, Options, Report, limits_of, only_resource, replay};

/// A manifest for the namespace `default`, of its other keys.
fn manifest(name: &str, yaml: &str) -> Declared {
    let text = format!("namespace: default\n{yaml}");
    Declared::new(name, Manifest::from_yaml(text.as_bytes()).unwrap())
}

/// The options for manifests that the command chooses, too.
fn options(declared: &[Declared]) -> TraceOptions {
    TraceOptions {
        limits: limits_of(declared),
        resource: only_resource(declared).or_else(|| Some("api".try_into().unwrap())),
        ..TraceOptions::default()
    }
}

/// Replays a text.
fn try_played(
    text: impl AsRef<[u8]>,
    declared: &[Declared],
    trace: TraceOptions,
    options: &Options,
) -> Result<Report, String> {
    let text = text.as_ref().to_vec();
    let open = move || Trace::open("trace.csv", std::io::Cursor::new(text), trace);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(replay(open, declared, options))
        .map_err(|err| err.to_string())
}

/// Replays a text against limits of the system level.
fn played(text: &str, yaml: &str) -> Report {
    let declared = [manifest("limits.yaml", yaml)];
    try_played(text, &declared, options(&declared), &Options::default()).unwrap()
}

/// The row of a limit.
#[track_caller]
fn limit<'a>(run: &'a Run, entity: &str, name: &str) -> &'a LimitRow {
    let is_it = |row: &&LimitRow| row.entity.as_str() == entity && row.limit.as_str() == name;
    run.limits
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("{name} of {entity} in {:#?}", run.limits))
}

/// How many requests were admitted, refused and failed.
fn sums(run: &Run) -> (u64, u64, u64) {
    (run.totals.admitted, run.totals.refused, run.totals.failed)
}
