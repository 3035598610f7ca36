//! Event patterns: which records a mapping passes on to its function.

use serde_json::{Map, Value as Json};

use crate::lambda::refusal;
use crate::wire::Refusal;

/// How long a pattern may be.
const LONGEST: usize = 4096;

/// How deep a pattern may nest.
const DEEPEST: usize = 32;

/// A pattern, understood. An event passes if every field named does.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    fields: Vec<(String, Rule)>,
}

#[derive(Debug, Clone)]
enum Rule {
    /// The field is a structure, or a list with such a structure.
    Inside(Pattern),
    /// One of these holds for the field, or for one item of its list.
    Any(Vec<Test>),
}

#[derive(Debug, Clone)]
enum Test {
    Equals(Json),
    Prefix(String),
    Exists(bool),
}

impl Pattern {
    /// Reads a pattern.
    pub(crate) fn read(text: &str) -> Result<Self, Refusal> {
        let wrong = |why: String| {
            refusal(format!(
                "Invalid filter pattern definition. The pattern {text} {why}."
            ))
        };
        if text.len() > LONGEST {
            return Err(wrong(format!("has {} bytes; it may have {LONGEST}", text.len())));
        }
        let json = serde_json::from_str(text).map_err(|err| wrong(format!("is not JSON: {err}")))?;
        let Json::Object(fields) = json else {
            return Err(wrong("is not a structure".to_owned()));
        };
        Self::of(&fields, DEEPEST).map_err(wrong)
    }

    fn of(fields: &Map<String, Json>, deeper: usize) -> Result<Self, String> {
        if fields.is_empty() {
            return Err("has an empty structure, which nothing passes".to_owned());
        }
        if deeper == 0 {
            return Err(format!("nests deeper than {DEEPEST}"));
        }
        let mut rules = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            if name.starts_with('$') {
                return Err(format!("uses {name}, which the local endpoint does not have"));
            }
            let rule = match value {
                Json::Object(fields) => Rule::Inside(Self::of(fields, deeper - 1)?),
                Json::Array(tests) if !tests.is_empty() => {
                    Rule::Any(tests.iter().map(Test::read).collect::<Result<_, _>>()?)
                }
                _ => {
                    return Err(format!(
                        "has {value} for '{name}'; give a list of values or a structure"
                    ));
                }
            };
            rules.push((name.clone(), rule));
        }
        Ok(Self { fields: rules })
    }

    /// Whether an event passes.
    pub(crate) fn passes(&self, event: &Json) -> bool {
        self.inside(Some(event))
    }

    fn inside(&self, value: Option<&Json>) -> bool {
        if let Some(Json::Array(items)) = value {
            return items.iter().any(|item| self.inside(Some(item)));
        }
        self.fields.iter().all(|(name, rule)| {
            let field = value.and_then(|value| value.get(name));
            match rule {
                Rule::Inside(pattern) => pattern.inside(field),
                Rule::Any(tests) => tests.iter().any(|test| test.field(field)),
            }
        })
    }
}

impl Test {
    fn read(json: &Json) -> Result<Self, String> {
        let Json::Object(fields) = json else {
            return match json {
                Json::Array(_) => Err(format!("has the list {json} within a list")),
                _ => Ok(Self::Equals(json.clone())),
            };
        };
        let mut fields = fields.iter();
        let (Some((kind, value)), None) = (fields.next(), fields.next()) else {
            return Err(format!("has {json}, which must have exactly one name"));
        };
        match kind.as_str() {
            "prefix" => value
                .as_str()
                .map(|prefix| Self::Prefix(prefix.to_owned()))
                .ok_or_else(|| format!("has {value} for 'prefix', which must be text")),
            "exists" => value
                .as_bool()
                .map(Self::Exists)
                .ok_or_else(|| format!("has {value} for 'exists', which must be true or false")),
            other => Err(format!(
                "uses '{other}', which the local endpoint does not have (it has prefix and exists)"
            )),
        }
    }

    fn field(&self, value: Option<&Json>) -> bool {
        match (self, value) {
            // Only a value that is not an object can be said to exist.
            (Self::Exists(there), value) => *there == value.is_some_and(|value| !value.is_object()),
            (_, None) => false,
            (test, Some(Json::Array(items))) => items.iter().any(|item| test.value(item)),
            (test, Some(value)) => test.value(value),
        }
    }

    fn value(&self, value: &Json) -> bool {
        match self {
            Self::Equals(expected) => match (expected.as_f64(), value.as_f64()) {
                (Some(expected), Some(number)) => same(expected, number),
                _ => expected == value,
            },
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::Exists(there) => *there,
        }
    }
}

/// Numbers of JSON are the same if they are written alike, whatever their type here.
fn same(one: f64, other: f64) -> bool {
    one.total_cmp(&other).is_eq()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_pass_as_they_do_on_aws() {
        let event = json!({
            "eventName": "MODIFY",
            "dynamodb": {
                "NewImage": {"SK": {"S": "#STATE"}, "n": {"N": "5"}, "none": {"NULL": true}},
                "SizeBytes": 120, "Empty": "", "Nothing": null, "On": true,
                "List": ["a", "b"], "Items": [{"k": "x"}, {"k": "y"}],
            },
        });
        let cases = [
            (json!({"eventName": ["INSERT", "MODIFY"]}), true),
            (json!({"eventName": ["INSERT"]}), false),
            (
                json!({"eventName": ["MODIFY"], "dynamodb": {"NewImage": {"SK": {"S": ["#STATE"]}}}}),
                true,
            ),
            (
                json!({"eventName": ["INSERT"], "dynamodb": {"NewImage": {"SK": {"S": ["#STATE"]}}}}),
                false,
            ),
            (
                json!({"dynamodb": {"NewImage": {"SK": {"S": [{"prefix": "#ST"}]}}}}),
                true,
            ),
            (
                json!({"dynamodb": {"NewImage": {"SK": {"S": [{"prefix": "#AUDIT#"}]}}}}),
                false,
            ),
            (json!({"dynamodb": {"SizeBytes": [120]}}), true),
            (json!({"dynamodb": {"SizeBytes": [120.0]}}), true),
            (json!({"dynamodb": {"SizeBytes": ["120"]}}), false),
            (json!({"dynamodb": {"Empty": [""]}}), true),
            (json!({"dynamodb": {"Nothing": [null]}}), true),
            (json!({"dynamodb": {"Absent": [null]}}), false),
            (json!({"dynamodb": {"On": [true]}}), true),
            (json!({"dynamodb": {"On": [{"exists": true}]}}), true),
            (json!({"dynamodb": {"On": [{"exists": false}]}}), false),
            (
                json!({"dynamodb": {"OldImage": {"SK": {"S": [{"exists": false}]}}}}),
                true,
            ),
            (
                json!({"dynamodb": {"OldImage": {"SK": {"S": [{"exists": true}]}}}}),
                false,
            ),
            (json!({"dynamodb": {"NewImage": [{"exists": true}]}}), false),
            (json!({"eventName": ["x", {"prefix": "M"}]}), true),
            (json!({"dynamodb": {"List": ["b"]}}), true),
            (json!({"dynamodb": {"List": ["c"]}}), false),
            (json!({"dynamodb": {"Items": {"k": ["y"]}}}), true),
            (json!({"dynamodb": {"Items": {"k": ["z"]}}}), false),
            (json!({"eventName": {"deeper": ["x"]}}), false),
        ];
        for (pattern, passes) in cases {
            let read = Pattern::read(&pattern.to_string()).unwrap();
            assert_eq!(read.passes(&event), passes, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (pattern, said) in [
            ("", "JSON"),
            ("[]", "structure"),
            ("{}", "empty"),
            (r#"{"a": {}}"#, "empty"),
            (r#"{"a": "x"}"#, "'a'"),
            (r#"{"a": []}"#, "'a'"),
            (r#"{"a": [["x"]]}"#, "within a list"),
            (r#"{"a": [{"wildcard": "x*"}]}"#, "wildcard"),
            (r#"{"a": [{"cidr": "10.0.0.0/8"}]}"#, "cidr"),
            (r#"{"$or": [{"a": ["x"]}]}"#, "$or"),
            (r#"{"a": [{"prefix": "x", "suffix": "y"}]}"#, "exactly one"),
            (r#"{"a": [{"prefix": 1}]}"#, "prefix"),
            (r#"{"a": [{"numeric": [">", 1]}]}"#, "numeric"),
            (r#"{"a": [{"exists": "yes"}]}"#, "exists"),
            (r#"{"a": [{"anything-but": ["x"]}]}"#, "anything-but"),
        ] {
            let err = Pattern::read(pattern).unwrap_err();
            assert!(err.message.starts_with("Invalid filter pattern definition."));
            assert!(err.message.contains(said), "{pattern}: {}", err.message);
        }
        let deep = format!("{}[1]{}", r#"{"a":"#.repeat(40), "}".repeat(40));
        assert!(Pattern::read(&deep).unwrap_err().message.contains("deeper"));
        assert!(
            Pattern::read(&" ".repeat(5_000))
                .unwrap_err()
                .message
                .contains("5000")
        );
    }
}
