//! A document as a tree, independent of its syntax. Nodes of a file have their place.

use serde_json::Value as Json;

use super::problem::{Position, cut};

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it is; `None` if it is not from a file.
    pub at: Option<Position>,
    /// The value.
    pub value: Tree,
}

/// A value.
#[derive(Debug, Clone)]
pub enum Tree {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A value that no document here uses: a fraction, a date, a number in another base. As written.
    Odd(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map. No name occurs twice.
    Map(Vec<Entry>),
}

/// A name in a map, its place, and what it names. No name occurs twice.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Where the name is.
    pub at: Option<Position>,
    /// What it names.
    pub node: Node,
}

impl Node {
    /// A tree without places.
    pub fn from_json(value: &Json) -> Self {
        let value = match value {
            Json::Null => Tree::Null,
            Json::Bool(value) => Tree::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Tree::Int(number.into()),
                (None, Some(number)) => Tree::Int(number.into()),
                (None, None) => Tree::Odd(number.to_string()),
            },
            Json::String(text) => Tree::Text(text.clone()),
            Json::Array(items) => Tree::List(items.iter().map(Self::from_json).collect()),
            Json::Object(map) => Tree::Map(
                map.iter()
                    .map(|(name, value)| Entry {
                        name: name.clone(),
                        at: None,
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { at: None, value }
    }

    /// The value in messages.
    pub fn shown(&self) -> String {
        match &self.value {
            Tree::Null => "empty".into(),
            Tree::Bool(value) => value.to_string(),
            Tree::Int(number) => number.to_string(),
            Tree::Odd(text) => cut(text),
            Tree::Text(text) => format!("'{}'", cut(&text.escape_debug().to_string())),
            Tree::List(items) => format!("a list of {}", items.len()),
            Tree::Map(entries) => format!("a mapping of {}", entries.len()),
        }
    }
}
