//! Where two values differ.

use serde_json::Value;

use super::super::known::is_unknown;
use super::super::text::same;

/// A place where two values differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// A JSON pointer.
    pub(super) path: String,
    /// Whether both values are known there.
    pub(super) certain: bool,
}

/// The places where two values differ, the deepest that tell it. Lists of different lengths differ as a whole.
pub(super) fn differences(before: Option<&Value>, after: Option<&Value>, path: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    match (before, after) {
        (None, None) => {}
        (Some(before), Some(after)) => compare(before, after, path, &mut found),
        // Something that comes or goes is a difference, whatever its value will be.
        _ => found.push(Difference {
            path: path.to_owned(),
            certain: true,
        }),
    }
    found
}

fn compare(before: &Value, after: &Value, path: &str, found: &mut Vec<Difference>) {
    if same(before, after) {
        return;
    }
    match (before, after) {
        _ if is_unknown(before) || is_unknown(after) => {
            found.push(Difference {
                path: path.to_owned(),
                certain: false,
            });
        }
        (Value::Object(before), Value::Object(after)) => {
            for name in after
                .keys()
                .chain(before.keys().filter(|name| !after.contains_key(*name)))
            {
                let path = format!("{path}/{}", escaped(name));
                found.append(&mut differences(before.get(name), after.get(name), &path));
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(before, after, &format!("{path}/{index}"), found);
            }
        }
        _ => {
            found.push(Difference {
                path: path.to_owned(),
                certain: true,
            });
        }
    }
}

/// A name within a JSON pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
