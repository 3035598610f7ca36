//! From text to one tree: JSON or YAML in, long-form intrinsic functions out.
//!
//! Both readers refuse duplicate keys, null values and too deep nesting, so that nothing behind them has to: the tree
//! may be walked by recursion.

mod json;
mod scalar;
mod yaml;

use serde_json::Value;

use super::error::TemplateError;

/// How deep mappings and lists may lie within each other, counted in the tree with long-form functions.
pub(super) const MAX_DEPTH: usize = 100;

/// Reads a template's text into its tree.
pub(super) fn tree(text: &str) -> Result<Value, TemplateError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = if text.trim_start().starts_with('{') {
        json::read(text)?
    } else {
        yaml::read(text)?
    };
    if !tree.is_object() {
        return Err(TemplateError::format("unsupported structure"));
    }
    refuse_null(&tree, &mut String::new())?;
    Ok(tree)
}

/// CloudFormation knows no null: what is to be left out says so with `AWS::NoValue`.
fn refuse_null(value: &Value, path: &mut String) -> Result<(), TemplateError> {
    let length = path.len();
    match value {
        Value::Null => {
            return Err(TemplateError::format(format_args!(
                "[{path}] 'null' values are not allowed in templates"
            )));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push('/');
                path.push_str(&index.to_string());
                refuse_null(item, path)?;
                path.truncate(length);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push('/');
                path.push_str(key);
                refuse_null(item, path)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}
