//! Manifests as properties of the custom resource `Custom::ZaeLimiterLimits`.

use serde_json::{Map, Value as Json, json};

use super::{DEFAULT_PERIOD_SECS, Manifest, Parts, Setting, policy_text};
use crate::document::{Node, Path, Problem, Problems};
use crate::limit::{Limit, shape};

impl Manifest {
    /// The manifest as properties of a custom resource: `Namespace`, `System`, `Resources` and `Entities`, without
    /// what is a default anyway.
    pub fn to_properties(&self) -> Json {
        write(self)
    }
}

fn write(manifest: &Manifest) -> Json {
    let level = |(level, concurrency): Parts<'_>| {
        let mut json = json!({});
        if let Some(level) = level {
            json["Limits"] = limits_of(&level.limits);
            if let Some(access) = level.access {
                json["Disabled"] = access.to_json();
            }
            if let Some(cascade) = level.cascade {
                json["Cascade"] = json!(cascade);
            }
        }
        if let Some(limit) = concurrency {
            json["Concurrency"] = json!(limit);
        }
        json
    };
    let mut properties = Map::new();
    properties.insert("Namespace".into(), json!(manifest.namespace.as_str()));
    let mut of_system = Map::new();
    if let Some(system) = &manifest.system {
        if let Some(policy) = policy_text(system.on_unavailable) {
            of_system.insert("OnUnavailable".into(), json!(policy));
        }
        if !system.limits.is_empty() {
            of_system.insert("Limits".into(), limits_of(&system.limits));
        }
    }
    for (setting, value) in manifest.of_system() {
        // Beside settings, only limits or a policy make it a declared level.
        if manifest.system.is_some() && of_system.is_empty() {
            of_system.insert("Limits".into(), json!({}));
        }
        let name = match setting {
            Setting::Concurrency(_) => "Concurrency",
            Setting::CascadeDepth => "CascadeDepth",
        };
        of_system.insert(name.into(), json!(value));
    }
    if manifest.system.is_some() || !of_system.is_empty() {
        properties.insert("System".into(), of_system.into());
    }
    let resources = manifest.of_resources();
    if !resources.is_empty() {
        let levels = resources.into_iter();
        let levels: Map<_, _> = levels
            .map(|(name, parts)| (name.to_string(), level(parts)))
            .collect();
        properties.insert("Resources".into(), levels.into());
    }
    let declared = manifest.of_entities();
    if !declared.is_empty() {
        let mut entities = Map::new();
        for (id, levels) in declared {
            let levels = levels.into_iter();
            let levels: Map<_, _> = levels
                .map(|(name, parts)| (name.to_string(), level(parts)))
                .collect();
            entities.insert(id.to_string(), json!({ "Resources": levels }));
        }
        properties.insert("Entities".into(), entities.into());
    }
    properties.into()
}

fn limits_of(limits: &[Limit]) -> Json {
    let mut map = Map::new();
    for limit in limits {
        let mut parts = Map::new();
        parts.insert("Capacity".into(), json!(limit.capacity()));
        if !limit.is_quota() {
            if limit.refill_amount() != limit.capacity() {
                parts.insert("RefillAmount".into(), json!(limit.refill_amount()));
            }
            let period = limit.refill_period().as_secs();
            if period != DEFAULT_PERIOD_SECS {
                parts.insert("RefillPeriod".into(), json!(period));
            }
        }
        parts.extend(capitalised(shape(limit)));
        map.insert(limit.name().to_string(), parts.into());
    }
    map.into()
}

/// The same with names as properties have them: `ResetAfterSeconds` for `reset_after_seconds`.
fn capitalised(parts: Map<String, Json>) -> Map<String, Json> {
    let name = |name: &str| -> String {
        let words = name.split('_').map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        });
        words.collect()
    };
    let value = |value| match value {
        Json::Array(items) => {
            let item = |item| match item {
                Json::Object(parts) => Json::Object(capitalised(parts)),
                other => other,
            };
            items.into_iter().map(item).collect()
        }
        other => other,
    };
    parts
        .into_iter()
        .map(|(key, item)| (name(&key), value(item)))
        .collect()
}

/// A truth value among the properties: `true` or `false`, or their names in any case, since CloudFormation delivers
/// every scalar as text. Absent is `None`.
///
/// # Errors
/// Anything else, by the property's name.
pub fn flag(properties: &Json, name: &str) -> Result<Option<bool>, Problems> {
    let value = match properties.get(name) {
        None => return Ok(None),
        Some(Json::Bool(value)) => Some(*value),
        Some(Json::String(text)) if text.eq_ignore_ascii_case("true") => Some(true),
        Some(Json::String(text)) if text.eq_ignore_ascii_case("false") => Some(false),
        Some(_) => None,
    };
    value.map(Some).ok_or_else(|| {
        let problem = Problem::new(None, &Path::of(&[name]), "must be true or false");
        let shown = Node::from_json(&properties[name]).shown();
        Problems::new(vec![problem.with_value(shown)])
    })
}
