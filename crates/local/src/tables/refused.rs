//! Requests that DynamoDB refuses and the engine accepts.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::wire::Refusal;

/// How many values `IN` may have.
const MOST_OPERANDS: usize = 100;

/// The expressions that can have `IN`.
const CONDITIONS: [&str; 2] = ["ConditionExpression", "FilterExpression"];

/// Checks the body of a request for an operation on items.
///
/// # Errors
/// The `ValidationException` of DynamoDB.
pub(super) fn check(operation: &str, body: &[u8]) -> Result<(), Refusal> {
    let numbers = operation == "BatchGetItem" && contains(body, b"\"N\"");
    // The shortest list of more than a hundred values: a colon, a letter and a comma each.
    let lists =
        body.len() > 3 * MOST_OPERANDS && CONDITIONS.iter().any(|name| contains(body, name.as_bytes()));
    if !numbers && !lists {
        return Ok(());
    }
    // The engine says what is wrong with a body that is not JSON.
    let Ok(request) = serde_json::from_slice::<Json>(body) else {
        return Ok(());
    };
    if numbers {
        duplicates(&request)?;
    }
    if lists { operands(&request) } else { Ok(()) }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// Refuses the same key twice, also if its numbers are written differently.
fn duplicates(request: &Json) -> Result<(), Refusal> {
    let tables = request["RequestItems"].as_object();
    for table in tables.into_iter().flat_map(|tables| tables.values()) {
        let mut seen = BTreeSet::new();
        for key in table["Keys"].as_array().into_iter().flatten() {
            let mut key = key.clone();
            for value in key.as_object_mut().into_iter().flat_map(|key| key.values_mut()) {
                if let Some(number) = value["N"].as_str().and_then(canonical) {
                    value["N"] = number.into();
                }
            }
            if !seen.insert(key.to_string()) {
                return Err(invalid(
                    "Provided list of item keys contains duplicates".to_owned(),
                ));
            }
        }
    }
    Ok(())
}

/// A number as its digits without zeros at either end, and the power of ten of the last; `None` if it is not a number.
fn canonical(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let power = exponent
        .parse::<i64>()
        .ok()?
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(i64::try_from(all.len() - significant.len()).ok()?)?;
    Some(format!("{sign}{}E{power}", significant.trim_start_matches('0')))
}

/// Refuses `IN` with too many values, anywhere in a request.
fn operands(value: &Json) -> Result<(), Refusal> {
    match value {
        Json::Array(items) => items.iter().try_for_each(operands),
        Json::Object(map) => map.iter().try_for_each(|(name, value)| match value {
            Json::String(text) if CONDITIONS.contains(&name.as_str()) => match longest_list(text) {
                count if count > MOST_OPERANDS => Err(invalid(format!(
                    "Invalid {name}: The IN operator is provided with too many operands; number of operands: {count}"
                ))),
                _ => Ok(()),
            },
            _ => operands(value),
        }),
        _ => Ok(()),
    }
}

/// The most values of an `IN` in an expression.
fn longest_list(expression: &str) -> usize {
    let text = expression.to_ascii_uppercase();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_#:.".contains(byte);
    let mut longest = 0;
    for (at, _) in text.match_indices("IN") {
        let is_part = text.as_bytes()[..at].last().is_some_and(is_word);
        let Some(list) = text[at + 2..].trim_start().strip_prefix('(') else {
            continue;
        };
        if is_part {
            continue;
        }
        let mut depth = 0;
        let mut count = 1;
        for byte in list.bytes() {
            match byte {
                b'(' => depth += 1,
                b')' if depth == 0 => break,
                b')' => depth -= 1,
                b',' if depth == 0 => count += 1,
                _ => {}
            }
        }
        longest = longest.max(count);
    }
    longest
}

fn invalid(message: String) -> Refusal {
    Refusal::new("ValidationException", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(operation: &str, request: &Json) -> Option<String> {
        check(operation, request.to_string().as_bytes())
            .err()
            .map(|refusal| refusal.message)
    }

    #[test]
    fn a_number_is_the_same_in_all_its_forms() {
        for (number, expected) in [
            ("1", "1E0"),
            ("1.0", "1E0"),
            ("001", "1E0"),
            ("+1e0", "1E0"),
            ("10E-1", "1E0"),
            (".1e1", "1E0"),
            ("-0", "0"),
            ("0.000", "0"),
            ("-1200", "-12E2"),
            ("0.0120", "12E-3"),
        ] {
            assert_eq!(canonical(number).as_deref(), Some(expected), "{number}");
        }
        for wrong in ["", "-", ".", "1e", "x", "1 ", "1e99999999999999999999"] {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_asked_for_once() {
        let keys = |one: &str, other: &str| json!({"RequestItems": {"t": {"Keys": [{"p": {"N": one}}, {"p": {"N": other}}]}}});
        let expected = Some("Provided list of item keys contains duplicates".to_owned());
        assert_eq!(message("BatchGetItem", &keys("1", "1.0")), expected);
        assert_eq!(message("BatchGetItem", &keys("1", "10")), None);
        let texts = json!({"RequestItems": {"t": {"Keys": [{"p": {"S": "1"}, "s": {"N": "1"}}, {"p": {"S": "1.0"}, "s": {"N": "1"}}]}}});
        assert_eq!(message("BatchGetItem", &texts), None);
    }

    #[test]
    fn a_list_has_a_hundred_values() {
        let list = |count: usize| {
            let names: Vec<String> = (0..count).map(|n| format!(":v{n}")).collect();
            format!("attribute_exists(a) AND size(#in) in ({})", names.join(", "))
        };
        let filter = |count| json!({"FilterExpression": list(count), "Key": "a, b"});
        assert_eq!(message("Scan", &filter(100)), None);
        assert_eq!(
            message("Scan", &filter(101)).as_deref(),
            Some(
                "Invalid FilterExpression: The IN operator is provided with too many operands; number of operands: 101"
            )
        );
        let transaction = json!({"TransactItems": [{"Put": {"ConditionExpression": list(102)}}]});
        assert!(message("TransactWriteItems", &transaction).is_some());
        assert_eq!(longest_list("contains(#in, :a) AND margin (a, b)"), 0);
        assert_eq!(longest_list("a IN(size(b), c) OR b IN (:a, :b, :c)"), 3);
        assert_eq!(longest_list("a IN (:a"), 1);
    }
}
