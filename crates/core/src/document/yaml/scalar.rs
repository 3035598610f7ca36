//! What scalars without quotes are, by the rules of YAML 1.1.

use super::Tree;

/// The type of a scalar without quotes.
pub(super) fn resolve(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Tree::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Tree::Bool(false);
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let starts = |c: char| unsigned.starts_with(c);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Tree::Text(text.to_owned());
    }
    let digits = unsigned.chars().all(|c| c.is_ascii_digit() || c == '_');
    if digits && (unsigned == "0" || !starts('0')) {
        // A number with more digits than a manifest can hold is still a number.
        return match text.replace('_', "").parse() {
            Ok(number) => Tree::Int(number),
            Err(_) => Tree::Odd(text.to_owned()),
        };
    }
    if is_odd(unsigned) {
        return Tree::Odd(text.to_owned());
    }
    Tree::Text(text.to_owned())
}

/// Whether a scalar that begins with a digit or a dot is a number or a date in some version of YAML, though not a
/// plain whole number.
fn is_odd(text: &str) -> bool {
    let all = |text: &str, allowed: fn(char) -> bool| !text.is_empty() && text.chars().all(allowed);
    let digit = |c: char| c.is_ascii_digit() || c == '_';
    let in_base = ["0x", "0o", "0b"].iter().any(|base| {
        text.strip_prefix(base)
            .is_some_and(|rest| all(rest, |c| c.is_ascii_hexdigit() || c == '_'))
    });
    let octal = text.starts_with('0') && all(text, digit);
    let special = matches!(text.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let float = mantissa.contains(|c: char| c.is_ascii_digit())
        && all(mantissa, |c| c.is_ascii_digit() || matches!(c, '_' | '.'))
        && mantissa.matches('.').count() <= 1
        && all(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), |c| {
            c.is_ascii_digit()
        });
    let sexagesimal = text.contains(':')
        && text
            .split(':')
            .all(|part| all(part, |c| c.is_ascii_digit() || matches!(c, '_' | '.')));
    let mut date = text.splitn(3, '-');
    let mut part = |most: usize, least: usize| {
        date.next().is_some_and(|part| {
            let digits = part.chars().take_while(char::is_ascii_digit).count();
            (least..=most).contains(&digits) && (digits == part.len() || least == 1)
        })
    };
    let dated = part(4, 4) && part(2, 1) && part(2, 1);
    in_base || octal || special || float || sexagesimal || dated
}
