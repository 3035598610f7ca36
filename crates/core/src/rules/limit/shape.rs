//! The parts of a limit beyond its numbers, as JSON.

use serde_json::{Map, Value as Json, json};

use super::{Limit, Recovery};
use crate::schedule::ScheduleEntry;

/// The parts of a limit beyond capacity and refill, by the names that manifests and audit events give them: `schedule`,
/// `reset_schedule`, `reset_after_seconds` and `soft`. Empty for a limit that has none.
///
/// ```
/// use serde_json::json;
/// use zae_limiter_core::limit::{Limit, shape};
///
/// let limit = Limit::quota("rpd", 10_000).resets("0 0 * * *", "Europe/Berlin").soft().build()?;
/// let expected = json!({ "reset_schedule": [{ "cron": "0 0 * * *", "tz": "Europe/Berlin" }], "soft": true });
/// assert_eq!(json!(shape(&limit)), expected);
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
pub fn shape(limit: &Limit) -> Map<String, Json> {
    let mut parts = Map::new();
    if let Some(schedule) = limit.schedule() {
        parts.insert("schedule".into(), schedule.entries().iter().map(entry).collect());
    }
    match limit.recovery() {
        Recovery::Refill { .. } => {}
        Recovery::Resets(resets) => {
            let reset = |cron: &crate::schedule::Cron| json!({ "cron": cron.to_string(), "tz": resets.zone().name() });
            parts.insert(
                "reset_schedule".into(),
                resets.crons().iter().map(reset).collect(),
            );
        }
        Recovery::Session { secs } => drop(parts.insert("reset_after_seconds".into(), json!(secs))),
    }
    if limit.is_soft() {
        parts.insert("soft".into(), json!(true));
    }
    parts
}

fn entry(entry: &ScheduleEntry) -> Json {
    let mut parts = Map::new();
    parts.insert("cron".into(), json!(entry.cron().to_string()));
    parts.insert("tz".into(), json!(entry.zone().name()));
    // Whole factors without a fraction, as other clients log them.
    let scale = entry.scale().map(|scale| {
        if scale.fract() == 0.0 {
            json!(scale as u64)
        } else {
            json!(scale)
        }
    });
    let period = entry.refill_period().map(|period| json!(period.as_secs()));
    for (name, value) in [
        ("scale", scale),
        ("capacity", entry.capacity().map(Json::from)),
        ("refill_amount", entry.refill_amount().map(Json::from)),
        ("refill_period_seconds", period),
    ] {
        if let Some(value) = value {
            parts.insert(name.into(), value);
        }
    }
    Json::Object(parts)
}
