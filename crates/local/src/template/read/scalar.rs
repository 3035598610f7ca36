//! What a plain YAML scalar means.
//!
//! Text is kept: a scalar becomes a number or a boolean only if that prints as the very same text. So `1.10`, `0123`,
//! `1_000`, `0x1F`, `12:30:00`, `2012-10-17`, `yes`, `off` and account numbers that begin with a zero stay text, and
//! `123456789012` loses nothing as a number. CloudFormation takes `true` and `false` in any of YAML's spellings for
//! booleans; `yes` and `on`, which YAML 1.1 counts as such, are text here, and a property that wants a boolean will
//! refuse them rather than guess.

use serde_json::{Number, Value};

pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::from(text), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return None;
    }
    let integer = text
        .parse::<i64>()
        .ok()
        .map(Number::from)
        .or_else(|| text.parse::<u64>().ok().map(Number::from));
    let number = integer.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::plain;

    #[test]
    fn what_prints_the_same_is_typed() {
        for (text, value) in [
            ("0", json!(0)),
            ("-5", json!(-5)),
            ("123456789012", json!(123_456_789_012_u64)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("", Value::Null),
            ("~", Value::Null),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }

    #[test]
    fn everything_else_stays_text() {
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
            "tRUE",
            "0123",
            "012345678901",
            "1.10",
            "1e3",
            "+5",
            "-0",
            "0x1F",
            "0o7",
            "1_000",
            "12:30:00",
            "2012-10-17",
            "2010-09-09",
            ".5",
            "5.",
            ".inf",
            "nan",
            "infinity",
            "-inf",
            "NaN",
            "99999999999999999999",
            "-",
            "--1",
            "=",
        ] {
            assert_eq!(plain(text), Value::from(text));
        }
    }
}
