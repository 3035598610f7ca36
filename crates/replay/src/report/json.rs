//! The report as JSON.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::{Comparison, KeyRow, LimitRow, Report, Run};
use crate::level::DeclaredAt;
use crate::options::OnRefusal;

/// A time with its milliseconds, as `2026-01-15T09:30:00.250Z`.
pub(crate) fn time(at_ms: i64) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// A number; beyond the numbers of JSON readers as text.
fn number(number: i128) -> Json {
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => number.into(),
        (_, Ok(number)) => number.into(),
        _ => number.to_string().into(),
    }
}

fn span(span: Option<(i64, i64)>) -> (Json, Json) {
    let time = |at: Option<i64>| at.map_or(Json::Null, |at_ms| time(at_ms).into());
    (
        time(span.map(|(first, _)| first)),
        time(span.map(|(_, last)| last)),
    )
}

impl Report {
    /// The report as JSON. Two replays with the same input and seed have the same.
    pub fn to_json(&self) -> Json {
        let (mode, retries) = match self.on_refusal {
            OnRefusal::Drop => ("drop", Json::Null),
            OnRefusal::Retry(most) => ("retry", most.into()),
        };
        json!({
            "trace": {
                "name": self.trace.name,
                "format": self.trace.format.as_str(),
                "amounts": self.trace.amounts,
                "requests": self.requests,
                "first": time(self.span_ms.0),
                "last": time(self.span_ms.1),
                "filtered": self.counts.filtered,
                "bad_rows": self.counts.bad,
                "first_bad_row": self.counts.first_bad,
                "notes": self.trace.notes,
            },
            "seed": self.seed,
            "on_refusal": mode,
            "retries": retries,
            "timeline_every_ms": self.every_ms,
            "timeline_begins": self.begins_ms.iter().map(|at_ms| time(*at_ms)).collect::<Vec<_>>(),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
            "comparison": self.comparison.as_ref().map(comparison),
        })
    }
}

fn run(run: &Run) -> Json {
    let totals = &run.totals;
    let numbers = |number: fn(&super::Part) -> u64| run.timeline.iter().map(number).collect::<Vec<_>>();
    json!({
        "manifest": run.manifest,
        "notes": run.notes,
        "admitted": totals.admitted,
        "admitted_later": totals.admitted_later,
        "refused": totals.refused,
        "never_possible": totals.never,
        "failed": totals.failed,
        "refusals": totals.refusals,
        "timeline": {
            "arrived": numbers(|part| part.arrived),
            "refusals": numbers(|part| part.refused),
            "failed": numbers(|part| part.failed),
        },
        "entities": run.keys.iter().map(key).collect::<Vec<_>>(),
        "limits": run.limits.iter().map(limit).collect::<Vec<_>>(),
    })
}

fn key(row: &KeyRow) -> Json {
    let (first, last) = span(row.refusals_ms);
    json!({
        "entity_id": row.entity.as_str(),
        "resource": row.resource.as_str(),
        "requests": row.requests,
        "admitted": row.admitted,
        "refused": row.refused,
        "failed": row.failed,
        "failure": row.failure,
        "first_refusal": first,
        "last_refusal": last,
    })
}

fn limit(row: &LimitRow) -> Json {
    let (first, last) = span(row.refusals_ms);
    json!({
        "entity_id": row.entity.as_str(),
        "resource": row.resource.as_str(),
        "limit": row.limit.as_str(),
        "level": row.level.map(DeclaredAt::as_str),
        "refusals": row.refusals,
        "never_possible": row.never,
        "tokens_refused": number(row.tokens_refused.try_into().unwrap_or(i128::MAX)),
        "first_refusal": first,
        "last_refusal": last,
        "longest_retry_after_ms": row.longest_wait_ms,
        "taken": number(row.taken),
        "peak_use_permille": row.peak_permille,
        "peak_use_at": row.peak_ms.map(time),
        "refusals_timeline": row.timeline,
    })
}

fn comparison(comparison: &Comparison) -> Json {
    let differences = comparison.differences.iter().map(|one| {
        let (first, last) = span(one.lost_ms);
        let by: Map<String, Json> = one
            .lost_by
            .iter()
            .map(|(limit, count)| (limit.clone(), (*count).into()))
            .collect();
        json!({
            "entity_id": one.entity.as_str(),
            "resource": one.resource.as_str(),
            "only_first_admits": one.lost,
            "only_second_admits": one.gained,
            "first_lost": first,
            "last_lost": last,
            "refused_by": by,
        })
    });
    json!({
        "both_admit": comparison.both_admit,
        "neither_admits": comparison.neither_admits,
        "only_first_admits": comparison.only_first_admits,
        "only_second_admits": comparison.only_second_admits,
        "differences": differences.collect::<Vec<_>>(),
    })
}
