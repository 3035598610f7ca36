//! Filter patterns of plain terms.

use super::invalid;
use crate::wire::Refusal;

/// The terms that a message must contain, or must not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    /// All of these.
    all: Vec<String>,
    /// One of these, if there are any.
    any: Vec<String>,
    /// None of these.
    none: Vec<String>,
}

impl Pattern {
    /// Reads a pattern. Those that look into JSON or columns, and regular expressions, are refused by name.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let mut pattern = Self::default();
        let mut rest = text.trim();
        if let Some(form) = match rest.chars().next() {
            Some('{') => Some("a pattern of JSON fields"),
            Some('[') => Some("a pattern of columns"),
            _ => None,
        } {
            return Err(Refusal::unsupported(
                "CloudWatch Logs",
                &format!("FilterLogEvents with {form} ({text})"),
            ));
        }
        while !rest.is_empty() {
            let (terms, after) = match rest.as_bytes()[0] {
                b'?' => (&mut pattern.any, &rest[1..]),
                b'-' => (&mut pattern.none, &rest[1..]),
                _ => (&mut pattern.all, rest),
            };
            let (term, after) = term(after, text)?;
            terms.push(term);
            rest = after.trim_start();
        }
        Ok(pattern)
    }

    /// Whether a message fits.
    pub(super) fn fits(&self, message: &str) -> bool {
        let has = |term: &String| message.contains(term.as_str());
        self.all.iter().all(has)
            && (self.any.is_empty() || self.any.iter().any(has))
            && !self.none.iter().any(has)
    }
}

/// Takes a term off: in quotes, or letters, digits and underscores.
fn term<'a>(rest: &'a str, pattern: &str) -> Result<(String, &'a str), Refusal> {
    let bad = |why: &str| Err(invalid(&format!("Invalid filter pattern {pattern:?}: {why}")));
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut term = String::new();
        let mut chars = quoted.char_indices();
        while let Some((index, char)) = chars.next() {
            match char {
                '"' => return Ok((term, &quoted[index + 1..])),
                '\\' => term.extend(chars.next().map(|(_, escaped)| escaped)),
                other => term.push(other),
            }
        }
        return bad("a quotation mark is not closed");
    }
    if rest.starts_with('%') {
        let what = format!("FilterLogEvents with a regular expression ({pattern})");
        return Err(Refusal::unsupported("CloudWatch Logs", &what));
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (term, after) = rest.split_at(end);
    if term.is_empty() || !term.chars().all(|char| char.is_alphanumeric() || char == '_') {
        return bad(&format!(
            "the term {term:?} has other characters than letters, digits and _; put it in quotes"
        ));
    }
    Ok((term.to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, message: &str, fits: bool) {
        assert_eq!(
            Pattern::read(pattern).unwrap().fits(message),
            fits,
            "{pattern} on {message}"
        );
    }

    #[test]
    fn terms_are_looked_for() {
        check("", "anything", true);
        check("ERROR", "an ERROR here", true);
        check("error", "an ERROR here", false);
        check("a b", "b and a", true);
        check("a zz", "b and a", false);
        check("\"b and\"", "b and a", true);
        check("\"a and\"", "b and a", false);
        check("?zz ?and", "b and a", true);
        check("?zz ?yy", "b and a", false);
        check("-and", "b and a", false);
        check("b -zz", "b and a", true);
        check(r#""say \"x\"""#, r#"say "x""#, true);
        check("-\"a-b\"", "a-b", false);
    }

    #[test]
    fn other_patterns_are_refused_by_name() {
        for (pattern, word) in [
            ("{ $.level = \"x\" }", "JSON"),
            ("[a, b]", "columns"),
            ("%a.b%", "regular expression"),
            ("\"open", "not closed"),
            ("a=b", "put it in quotes"),
            ("-", "quotes"),
        ] {
            let message = Pattern::read(pattern).unwrap_err().message;
            assert!(message.contains(word), "{pattern}: {message}");
        }
    }
}
