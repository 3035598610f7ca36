//! Stored values shown as Python literals, which is the form an entity's metadata is shown in.

use std::collections::BTreeMap;

use zae_limiter_core::table::Value;

use crate::text::table::printable;

/// A map as a dict literal: `{'tier': 'premium'}`.
pub(crate) fn dict(map: &BTreeMap<String, Value>) -> String {
    let entries = map
        .iter()
        .map(|(key, value)| format!("{}: {}", quoted(key), literal(value)));
    format!("{{{}}}", joined(entries))
}

/// A text as a string literal: single quotes, or double ones if that saves escaping.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&escaped(c)),
        }
    }
    out.push(quote);
    out
}

/// A character by its number, in the shortest of the three forms.
fn escaped(c: char) -> String {
    match u32::from(c) {
        code @ ..=0xff => format!("\\x{code:02x}"),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// A value as a literal.
fn literal(value: &Value) -> String {
    match value {
        Value::S(text) => quoted(text),
        Value::N(digits) => printable(digits).into_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        Value::M(map) => dict(map),
        Value::L(list) => format!("[{}]", joined(list.iter().map(literal))),
        // Empty braces would be a dict.
        Value::Ss(set) if set.is_empty() => "set()".to_owned(),
        Value::Ss(set) => format!("{{{}}}", joined(set.iter().map(|text| quoted(text)))),
        Value::Other => "...".to_owned(),
    }
}

/// The parts of a literal, separated.
fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Whether Python shows the character as it is.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // Rust's debug form escapes the same Unicode categories, and marks that combine with what stands before
    // them: hence the letter in front.
    let text: String = ['a', c].iter().collect();
    text.escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check_text(text: &str, expected: &str) {
        assert_eq!(quoted(text), expected);
    }

    #[track_caller]
    fn check_value(value: &Value, expected: &str) {
        assert_eq!(literal(value), expected);
    }

    #[test]
    fn metadata_is_a_dict() {
        let metadata = BTreeMap::from([("tier".to_owned(), Value::text("premium"))]);
        assert_eq!(dict(&metadata), "{'tier': 'premium'}");
        assert_eq!(dict(&BTreeMap::new()), "{}");
    }

    #[test]
    fn quotes_are_chosen_to_avoid_escapes() {
        check_text("plain", "'plain'");
        check_text("it's", "\"it's\"");
        check_text("say \"hi\"", "'say \"hi\"'");
        check_text("it's \"hi\"", "'it\\'s \"hi\"'");
        check_text("", "''");
    }

    #[test]
    fn what_cannot_be_shown_is_escaped() {
        check_text("a\\b\n\r\t", r"'a\\b\n\r\t'");
        check_text("\0\u{1b}[2J\u{7f}", r"'\x00\x1b[2J\x7f'");
        check_text("\u{85}\u{a0}\u{ad}", r"'\x85\xa0\xad'");
        check_text("\u{200b}\u{2028}\u{202e}\u{feff}", r"'\u200b\u2028\u202e\ufeff'");
        check_text("\u{e000}\u{e0001}\u{10ffff}", r"'\ue000\U000e0001\U0010ffff'");
        check_text("né e\u{301} 雪 🦀", "'né e\u{301} 雪 🦀'");
        check_text("\u{301}", "'\u{301}'");
    }

    #[test]
    fn every_kind_of_value_has_a_form() {
        check_value(&Value::N("1.50".into()), "1.50");
        check_value(&Value::Bool(true), "True");
        check_value(&Value::Bool(false), "False");
        check_value(&Value::Null, "None");
        check_value(&Value::L(vec![Value::int(1), Value::text("a")]), "[1, 'a']");
        check_value(&Value::L(Vec::new()), "[]");
        check_value(
            &Value::Ss(BTreeSet::from(["b".to_owned(), "a".to_owned()])),
            "{'a', 'b'}",
        );
        check_value(&Value::Ss(BTreeSet::new()), "set()");
        let inner = BTreeMap::from([("k".to_owned(), Value::L(vec![Value::Null]))]);
        check_value(&Value::M(inner), "{'k': [None]}");
        check_value(&Value::Other, "...");
    }
}
