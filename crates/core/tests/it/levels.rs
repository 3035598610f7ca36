//! Levels whose limits have shapes, as the original stores and logs them; see `interop/level_vectors.py`.

use serde_json::Value as Json;
use zae_limiter_core::audit::limits_detail;
use zae_limiter_core::config::{Config, limit_attributes};
use zae_limiter_core::schedule::Cron;
use zae_limiter_core::table::{Item, Value};

const ROWS: &str = include_str!("../data/levels.jsonl");

/// A value in DynamoDB's typed form.
fn value(json: &Json) -> Value {
    let (kind, content) = json.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "S" => Value::text(content.as_str().unwrap()),
        "N" => Value::N(content.as_str().unwrap().into()),
        "BOOL" => Value::Bool(content.as_bool().unwrap()),
        "L" => Value::L(content.as_array().unwrap().iter().map(value).collect()),
        "M" => Value::M(item(content)),
        other => panic!("{other}"),
    }
}

fn item(json: &Json) -> Item {
    let attributes = json.as_object().unwrap().iter();
    attributes
        .map(|(name, json)| (name.clone(), value(json)))
        .collect()
}

/// The limits of an audit event with patterns and scales as they are stored: the original logs them as they were given.
fn as_stored(value: &Value) -> Value {
    match value {
        Value::L(values) => Value::L(values.iter().map(as_stored).collect()),
        Value::M(values) => {
            let stored = |(name, part): (&String, &Value)| {
                let part = match (name.as_str(), part) {
                    ("cron", Value::S(text)) => Value::S(Cron::parse(text).unwrap().to_string()),
                    ("scale", Value::N(digits)) => {
                        let thousandths = (digits.parse::<f64>().unwrap() * 1000.0)
                            .round_ties_even()
                            .max(1.0);
                        Value::N((thousandths / 1000.0).to_string().into())
                    }
                    (_, part) => as_stored(part),
                };
                (name.clone(), part)
            };
            Value::M(values.iter().map(stored).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn levels_are_stored_and_logged_as_by_the_original() {
    let mut count = 0;
    for row in ROWS.lines().filter(|row| !row.starts_with('#')) {
        let row: Json = serde_json::from_str(row).unwrap();
        let stored = item(&row["item"]);
        let config = Config::decode(&stored).unwrap();
        assert_eq!(config.unsupported, None, "{row}");
        let written: Item = limit_attributes(&config.limits)
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect();
        assert_eq!(written, stored);

        let by_name = |limits: &Value| {
            let Value::L(limits) = limits else { panic!("{row}") };
            let mut limits = limits.clone();
            limits.sort_by_key(|limit| match limit {
                Value::M(parts) => parts["name"].as_text().unwrap().to_owned(),
                _ => panic!("{row}"),
            });
            limits
        };
        let logged = as_stored(&value(&row["audit"]));
        assert_eq!(by_name(&limits_detail(&config.limits)), by_name(&logged));
        count += 1;
    }
    assert_eq!(count, 200);
}
