//! Calls about manifests.

use serde_json::{Value as Json, json};
use zae_limiter::{ApplyOptions, Error, Repository};
use zae_limiter_core::manifest::{Manifest, Problems};

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
