//! A JSON text as `serde_json` reads it, with the order of members, and members that are given twice.

use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Whole(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Numbers from here on are not read as usage.
const TOO_LARGE: u64 = 10_u64.pow(18);

impl Tree {
    /// The number that is met last at each path.
    pub fn numbers(&self, paths: &[&str]) -> Vec<Option<u64>> {
        let mut found = vec![None; paths.len()];
        let rests: Vec<Option<&str>> = paths.iter().map(|path| Some(*path)).collect();
        self.walk(&rests, &mut found);
        found
    }

    /// Looks for what is left of each path, or for none.
    fn walk(&self, rests: &[Option<&str>], found: &mut [Option<u64>]) {
        match self {
            Self::List(items) => {
                for item in items {
                    item.walk(&vec![None; rests.len()], found);
                }
            }
            Self::Object(members) => {
                for (name, value) in members {
                    let step = |rest: &Option<&'_ str>| -> Option<String> {
                        let (first, rest) = rest.as_ref()?.split_once('.').unwrap_or((rest.as_ref()?, ""));
                        (first == name && !first.is_empty()).then(|| rest.to_owned())
                    };
                    let inner: Vec<Option<String>> = rests.iter().map(step).collect();
                    let inner: Vec<Option<&str>> = inner.iter().map(Option::as_deref).collect();
                    value.walk(&inner, found);
                }
            }
            Self::Whole(number) if *number < TOO_LARGE => {
                for (rest, found) in rests.iter().zip(found) {
                    if *rest == Some("") {
                        *found = Some(*number);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether there is a number that is not whole in it.
    pub fn has_float(&self) -> bool {
        match self {
            Self::Float(_) => true,
            Self::List(items) => items.iter().any(Self::has_float),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_float()),
            _ => false,
        }
    }

    /// The same value, written as differently as can be: members in reverse, texts in escapes, spaces everywhere.
    pub fn rewritten(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) {
        let escaped = |text: &str, to: &mut String| {
            to.push('"');
            for unit in text.encode_utf16() {
                let _ = write!(to, "\\u{unit:04X}");
            }
            to.push('"');
        };
        to.push_str(" \t");
        match self {
            Self::Null => to.push_str("null"),
            Self::Bool(value) => to.push_str(if *value { "true" } else { "false" }),
            Self::Whole(number) => to.push_str(&number.to_string()),
            Self::Negative(number) => to.push_str(&number.to_string()),
            Self::Float(number) => to.push_str(&format!("{number:?}")),
            Self::Text(text) => escaped(text, to),
            Self::List(items) => {
                to.push('[');
                for (index, item) in items.iter().enumerate() {
                    to.push_str(if index == 0 { "" } else { "\n," });
                    item.write(to);
                }
                to.push(']');
            }
            Self::Object(members) => {
                to.push('{');
                for (index, (name, value)) in members.iter().rev().enumerate() {
                    to.push_str(if index == 0 { "\r\n" } else { "\n," });
                    escaped(name, to);
                    to.push_str(" :");
                    value.write(to);
                }
                to.push('}');
            }
        }
        to.push('\n');
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Negative(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }
}
