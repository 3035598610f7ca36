//! Names made of the values of a descriptor.

use std::fmt;

use zae_limiter_tower::key::hashed;

use super::Values;

/// A text with places for values: `{key}`, or `{sha256(key)}` for the hash of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { key: String, is_hashed: bool },
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            let Some((inside, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) else {
                return Err("has a brace without its other one; a value is written {key}".to_owned());
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(value(inside)?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The keys whose values it takes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value { key, .. } => Some(key.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Whether it has the hash of a value.
    pub(super) fn is_hashed(&self) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Value { is_hashed: true, .. }))
    }

    /// The text with a letter for each value, to check what is around them.
    pub(super) fn sample(&self) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Value { .. } => "a",
        });
        pieces.collect()
    }

    /// Puts values in. A key that is not among them counts as empty.
    pub(super) fn fill(&self, values: &Values<'_>) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value { key, is_hashed } => {
                    let value = values.get(key.as_str()).copied().unwrap_or_default();
                    if *is_hashed {
                        filled.push_str(&hashed(value));
                    } else {
                        filled.push_str(value);
                    }
                }
            }
        }
        filled
    }
}

fn value(inside: &str) -> Result<Piece, String> {
    let (key, is_hashed) = match inside.split_once('(') {
        None => (inside, false),
        Some(("sha256", rest)) if rest.ends_with(')') => (&rest[..rest.len() - 1], true),
        Some(_) => {
            return Err(format!(
                "has '{{{}}}': a value is written {{key}}, and its hash {{sha256(key)}}",
                inside.escape_debug()
            ));
        }
    };
    if key.is_empty() || key.contains(['{', '(', ')']) {
        return Err("has a place without a key; a value is written {key}".to_owned());
    }
    Ok(Piece::Value {
        key: key.to_owned(),
        is_hashed,
    })
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Value {
                    key,
                    is_hashed: false,
                } => write!(f, "{{{key}}}")?,
                Piece::Value { key, is_hashed: true } => {
                    write!(f, "{{sha256({key})}}")?;
                }
            }
        }
        Ok(())
    }
}
