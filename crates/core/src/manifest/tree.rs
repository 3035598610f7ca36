//! A document as a tree, independent of its syntax. Nodes of a file have their place.

use serde_json::Value as Json;

use super::problem::{Position, cut};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Option<Position>,
    pub(super) value: Tree,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i128),
    /// A value that no manifest uses: a fraction, a date, a number in another base. As written.
    Odd(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A name in a map, its place, and what it names. No name occurs twice.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) at: Option<Position>,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn from_json(value: &Json) -> Self {
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

    /// How messages show it.
    pub(super) fn shown(&self) -> String {
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
