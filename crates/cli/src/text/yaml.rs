//! Values as YAML that readers of version 1.1 and of version 1.2 understand alike.
//!
//! Block style throughout. Text that any reader could take for something else is quoted.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// A document, with a line break at its end.
pub(crate) fn document(value: &Json) -> String {
    let mut text = String::new();
    match value {
        Json::Object(map) if !map.is_empty() => block(&mut text, value, 0),
        Json::Array(list) if !list.is_empty() => block(&mut text, value, 0),
        _ => {
            text += &scalar(value);
            text.push('\n');
        }
    }
    text
}

/// A map or a list that holds something, a line for each of its entries.
fn block(text: &mut String, value: &Json, indent: usize) {
    let margin = "  ".repeat(indent);
    match value {
        Json::Object(map) => {
            for (key, value) in map {
                *text += &margin;
                *text += &string(key);
                text.push(':');
                // The items of a list stand below its key's first letter.
                let deeper = if value.is_array() { indent } else { indent + 1 };
                nested(text, value, deeper);
            }
        }
        Json::Array(list) => {
            for value in list {
                *text += &margin;
                text.push('-');
                match value {
                    Json::Object(map) if !map.is_empty() => {
                        let mut item = String::new();
                        block(&mut item, value, indent + 1);
                        // The first entry stands behind the dash.
                        text.push(' ');
                        *text += item.trim_start();
                    }
                    _ => nested(text, value, indent + 1),
                }
            }
        }
        _ => {}
    }
}

fn nested(text: &mut String, value: &Json, indent: usize) {
    let is_empty = match value {
        Json::Object(map) => map.is_empty(),
        Json::Array(list) => list.is_empty(),
        _ => true,
    };
    if is_empty {
        text.push(' ');
        *text += &scalar(value);
        text.push('\n');
    } else {
        text.push('\n');
        block(text, value, indent);
    }
}

/// A value on one line.
fn scalar(value: &Json) -> String {
    match value {
        Json::String(text) => string(text),
        Json::Object(_) => "{}".to_owned(),
        Json::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// Words that YAML 1.1 takes for truth values or for nothing, in any case.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

fn string(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let is_simple = |c: char| c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric());
    if text.chars().all(is_simple) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            c if is_simple(c) => quoted.push(c),
            c => {
                let code = u32::from(c);
                let (letter, digits) = match code {
                    0..=0xff => ('x', 2),
                    0x100..=0xffff => ('u', 4),
                    _ => ('U', 8),
                };
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\{letter}{code:0digits$x}");
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whether every parser reads the unquoted text as a string: it begins with a letter or `_`, is not a reserved word,
/// and has no special character.
fn is_plain(text: &str) -> bool {
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "_-./ :'@".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(is_harmless)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks() {
        let value = json!({
            "a": { "b": 1, "empty": {}, "none": null },
            "list": ["x", { "k": true, "l": [1, [2]] }, [], {}],
            "12": "Custom::Thing",
            "text": "for namespace 'default'",
        });
        let expected = "\
a:
  b: 1
  empty: {}
  none: null
list:
- x
- k: true
  l:
  - 1
  -
    - 2
- []
- {}
'12': Custom::Thing
text: for namespace 'default'
";
        assert_eq!(document(&value), expected);
        assert_eq!(document(&json!({})), "{}\n");
        assert_eq!(read(expected), value);
    }

    #[test]
    fn what_is_quoted() {
        for (text, expected) in [
            ("gpt-4", "gpt-4"),
            ("gpt-3.5-turbo", "gpt-3.5-turbo"),
            ("org/model:v1", "org/model:v1"),
            ("user@example.com", "user@example.com"),
            ("2010-09-09", "'2010-09-09'"),
            ("2024-01-01", "'2024-01-01'"),
            ("on", "'on'"),
            ("OFF", "'OFF'"),
            ("y", "'y'"),
            ("Null", "'Null'"),
            ("1e5", "'1e5'"),
            ("0x10", "'0x10'"),
            ("012", "'012'"),
            ("1:30", "'1:30'"),
            ("1_000", "'1_000'"),
            ("~", "'~'"),
            ("", "''"),
            ("_default_", "_default_"),
            ("_1", "_1"),
            ("=", "'='"),
            ("<<", "'<<'"),
            ("a: b", "'a: b'"),
            ("a:", "'a:'"),
            ("a #b", "'a #b'"),
            ("a ", "'a '"),
            ("it's #1", "'it''s #1'"),
            ("größe", "'größe'"),
            ("a\u{2028}b", "\"a\\u2028b\""),
            ("\u{85}\u{feff}😀\"", "\"\\x85\\ufeff\\U0001f600\\\"\""),
            ("tab\there\n", "\"tab\\there\\n\""),
        ] {
            assert_eq!(string(text), expected, "{text:?}");
            assert_eq!(read(&format!("- {expected}\n")), json!([text]), "{text:?}");
        }
    }

    fn read(text: &str) -> Json {
        serde_saphyr::from_str(text).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            keys in proptest::collection::vec("\\PC{0,12}|[a-z0-9.:#'_ -]{0,8}", 1..6),
            number in any::<i64>(),
        ) {
            let inner: serde_json::Map<_, _> =
                keys.iter().map(|key| (key.clone(), Json::String(key.clone()))).collect();
            let value = json!({ "map": inner, "list": keys, "number": number });
            prop_assert_eq!(read(&document(&value)), value);
        }
    }
}
