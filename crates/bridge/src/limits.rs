//! Limits in calls, and calls about manifests.

use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::{ApplyOptions, Error, IntoLimit, InvalidInput, Limit, LimitBuilder, Repository};
use zae_limiter_core::manifest::{Manifest, Problems};

/// A limit of a call.
pub(crate) enum Described {
    /// Of four values, to be checked by the library's call.
    Plain(LimitBuilder),
    /// Of any shape.
    Shaped(Limit),
}

impl IntoLimit for Described {
    fn into_limit(self) -> Result<Limit, InvalidInput> {
        match self {
            Self::Plain(limit) => limit.into_limit(),
            Self::Shaped(limit) => limit.into_limit(),
        }
    }
}

/// Reads a list of limits. Each is `[name, capacity, refill amount, refill period in seconds]`, or an object of `name`, `capacity`,
/// `refill_amount`, `refill_period`, `schedule`, `reset_schedule`, `reset_after_seconds` and `soft`, as the library serialises
/// limits.
pub(crate) fn described(limits: &Json) -> Result<Vec<Described>, String> {
    let bad = || "'limits' must be a list of [name, capacity, refill, seconds] or of objects".to_owned();
    let limit = |limit: &Json| {
        if limit.is_object() {
            let limit = serde_json::from_value(limit.clone());
            return limit.map(Described::Shaped).map_err(|err| err.to_string());
        }
        let part = |index: usize| limit[index].as_u64().ok_or_else(bad);
        let name = limit[0].as_str().ok_or_else(bad)?;
        let period = Duration::from_secs(part(3)?);
        Ok(Described::Plain(Limit::custom(name, part(1)?, part(2)?, period)))
    };
    limits.as_array().ok_or_else(bad)?.iter().map(limit).collect()
}

/// Limits as [`described`] reads them: four values for one without a shape.
pub(crate) fn show(limits: &[Limit]) -> Json {
    let limit = |limit: &Limit| {
        if !zae_limiter_core::limit::shape(limit).is_empty() {
            return json!(limit);
        }
        json!([
            limit.name().as_str(),
            limit.capacity(),
            limit.refill_amount(),
            limit.refill_period().as_secs()
        ])
    };
    limits.iter().map(limit).collect()
}

/// A manifest as it is understood, or what is wrong with it: from `manifest` (JSON), `yaml` or `properties`.
pub(crate) fn check(call: &Json) -> Json {
    let read = if let Some(yaml) = call["yaml"].as_str() {
        Manifest::from_yaml(yaml.as_bytes())
    } else if call.get("properties").is_some() {
        Manifest::from_properties(&call["properties"])
    } else {
        Manifest::from_json(&call["manifest"])
    };
    match read {
        Ok(manifest) => json!({
            "manifest": manifest.to_json(),
            "properties": manifest.to_properties(),
            "hash": manifest.hash(),
        }),
        Err(problems) => json!({ "problems": lines(&problems) }),
    }
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The JSON Schema of a manifest.
pub(crate) fn schema() -> Json {
    serde_json::from_str(Manifest::SCHEMA).unwrap_or_default()
}

/// Plans or applies a manifest, or lists what was made by hand: `action` is `plan`, `apply` or `hand_made`.
pub(crate) async fn serve(repo: &Repository, call: &Json) -> Result<Json, Result<Error, String>> {
    let manifest = Manifest::from_json(&call["manifest"]).map_err(|err| Err(err.to_string()))?;
    let options = ApplyOptions {
        full: call["full"] == true,
        ..ApplyOptions::default()
    };
    match call["action"].as_str() {
        Some("plan") => Ok(repo
            .admin()
            .plan_limits(&manifest, options)
            .await
            .map_err(Ok)?
            .to_json()),
        Some("apply") => Ok(repo
            .admin()
            .apply_limits(&manifest, options)
            .await
            .map_err(Ok)?
            .to_json()),
        Some("hand_made") => {
            let found = repo.admin().hand_made_limits(&manifest).await.map_err(Ok)?;
            Ok(found
                .iter()
                .map(|target| json!([target.level(), target.name()]))
                .collect())
        }
        other => Err(Err(format!("'action' is {other:?}"))),
    }
}
