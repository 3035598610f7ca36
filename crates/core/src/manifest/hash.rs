//! The fingerprint of a manifest: SHA-256 over a JSON text that is the same for every client.
//!
//! Keys are sorted, items are separated by `, ` and keys from values by `: `, and everything beyond ASCII is
//! escaped, so that the text does not depend on who wrote it.

use std::fmt::Write as _;

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hexadecimal digits.
pub(super) fn fingerprint(value: &Json) -> String {
    let mut text = String::new();
    write(&mut text, value);
    let mut hash = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

fn write(out: &mut String, value: &Json) {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => {
            let _ = write!(out, "{value}");
        }
        Json::String(text) => write_text(out, text),
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(out, item);
            }
            out.push(']');
        }
        Json::Object(map) => {
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_text(out, name);
                out.push_str(": ");
                write(out, item);
            }
            out.push('}');
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='\u{7f}' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_sorted_spaced_and_ascii() {
        let mut text = String::new();
        let value = serde_json::json!({ "b": [1, "ä\u{1f600}\u{7f}\"\n"], "a": { "x": null } });
        write(&mut text, &value);
        assert_eq!(
            text,
            "{\"a\": {\"x\": null}, \"b\": [1, \"\\u00e4\\ud83d\\ude00\u{7f}\\\"\\n\"]}"
        );
    }
}
