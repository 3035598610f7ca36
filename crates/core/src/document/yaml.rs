//! YAML as a tree with places.
//!
//! Read from the parser's events rather than from a loaded document, so that a key that is given twice is seen, and
//! so that aliases cannot grow a small file into a large tree. Scalars are what YAML 1.1 makes of them, which is what
//! the Python original reads; where 1.1 and 1.2 differ (`0o17`, `1:30`, `yes` as a name) the value is refused with
//! advice to say it plainly.

mod scalar;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::problem::{Path, Position, Problem, cut};
use super::tree::{Entry, Node, Tree};
use scalar::resolve;

/// How deep a document may be nested. A manifest needs seven levels.
const DEEPEST: usize = 64;

/// How many values aliases and anchors may copy in all.
const MOST_ALIASED: usize = 1_000_000;

/// How many bytes of a text count as a value.
const BYTES: usize = 64;

/// What a document is, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name, such as `a manifest`.
    pub name: &'static str,
    /// What an empty one lacks, such as `it must at least name its namespace`.
    pub least: &'static str,
}

/// Reads a document; `None` if it is not one, or is so broken that its rest cannot be read.
pub fn read(bytes: &[u8], kind: &Kind) -> (Option<Node>, Vec<Problem>) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(err) => {
            let before = &bytes[..err.valid_up_to()];
            let before = String::from_utf8_lossy(before);
            let line = 1 + before.matches('\n').count();
            let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
            let at = Some(Position { line, column });
            let reason = "is not UTF-8 from here on; save the file as UTF-8";
            return (None, vec![Problem::new(at, &Path::default(), reason)]);
        }
    };
    let mut builder = Builder::of(kind.name);
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => {
                if !builder.event(event, position(span.start)) {
                    return (None, builder.problems);
                }
            }
            Err(err) => {
                // A cron expression without quotes.
                let hint = if err.info().contains("anchor") {
                    "; put a text that begins with '*' in quotes"
                } else {
                    ""
                };
                let reason = format!("is not valid YAML: {}{hint}", err.info());
                let problem = Problem::new(Some(position(*err.marker())), &builder.path(), reason);
                builder.problems.push(problem);
                return (None, builder.problems);
            }
        }
    }
    if builder.root.is_none() {
        let at = Some(Position { line: 1, column: 1 });
        let reason = format!("is empty; {}", kind.least);
        builder.problems.push(Problem::new(at, &Path::default(), reason));
    }
    (builder.root, builder.problems)
}

fn position(marker: Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// Puts events together to a tree.
struct Builder {
    /// What the document is, for messages.
    name: &'static str,
    open: Vec<Frame>,
    anchors: BTreeMap<usize, Anchored>,
    root: Option<Node>,
    documents: usize,
    aliased: usize,
    problems: Vec<Problem>,
}

/// The value of an anchor, and its [`size`].
struct Anchored {
    node: Node,
    size: usize,
}

/// A list or a map that is not complete yet.
struct Frame {
    at: Position,
    anchor: usize,
    items: Collected,
}

enum Collected {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// The names of the entries.
        names: BTreeSet<String>,
        merged: Vec<Entry>,
        next: Next,
    },
}

/// The next element of a map.
enum Next {
    /// A key.
    Key,
    /// The value of this key.
    ValueOf(String, Position),
    /// The value of a key that was refused.
    Dropped,
}

impl Builder {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            root: None,
            documents: 0,
            aliased: 0,
            problems: Vec::new(),
        }
    }

    /// Takes an event; returns whether to continue.
    fn event(&mut self, event: Event<'_>, at: Position) -> bool {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let reason = format!("has a second document here; {} is one document", self.name);
                    self.tell(at, &reason);
                    return false;
                }
                true
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), at);
                if anchor > 0 && !self.remember(anchor, &node, at) {
                    return false;
                }
                self.take(node, style == ScalarStyle::Plain && tag.is_none(), &text)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], at);
                self.push(at, anchor, Collected::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], at);
                let map = Collected::Map {
                    entries: Vec::new(),
                    names: BTreeSet::new(),
                    merged: Vec::new(),
                    next: Next::Key,
                };
                self.push(at, anchor, map)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
        }
    }

    fn push(&mut self, at: Position, anchor: usize, items: Collected) -> bool {
        if self.open.len() >= DEEPEST {
            self.tell(at, &format!("is nested deeper than {DEEPEST} levels"));
            return false;
        }
        self.open.push(Frame { at, anchor, items });
        true
    }

    fn close(&mut self) -> bool {
        let Some(frame) = self.open.pop() else {
            return true;
        };
        let value = match frame.items {
            Collected::List(items) => Tree::List(items),
            Collected::Map {
                mut entries,
                mut names,
                merged,
                ..
            } => {
                // What is written here is stronger than what is merged in, and the first merged than the next.
                for entry in merged {
                    if names.insert(entry.name.clone()) {
                        entries.push(entry);
                    }
                }
                Tree::Map(entries)
            }
        };
        let node = Node {
            at: Some(frame.at),
            value,
        };
        if frame.anchor > 0 && !self.remember(frame.anchor, &node, frame.at) {
            return false;
        }
        self.take(node, false, "")
    }

    fn alias(&mut self, anchor: usize, at: Position) -> bool {
        let Some(Anchored { node, size }) = self.anchors.get(&anchor) else {
            self.tell(at, "contains itself by an alias");
            return false;
        };
        // Counted before it is copied.
        if self.aliased + size > MOST_ALIASED {
            return self.refuse_growth(at);
        }
        self.aliased += size;
        let node = node.clone();
        self.take(node, false, "")
    }

    /// Keeps a copy of an anchor's value. Returns whether to continue.
    fn remember(&mut self, anchor: usize, node: &Node, at: Position) -> bool {
        let size = size(node);
        // Anchors inside of anchors are copied at each level.
        if self.aliased + size > MOST_ALIASED {
            return self.refuse_growth(at);
        }
        self.aliased += size;
        let node = node.clone();
        self.anchors.insert(anchor, Anchored { node, size });
        true
    }

    fn refuse_growth(&mut self, at: Position) -> bool {
        let reason = format!("grows beyond {MOST_ALIASED} values of {BYTES} bytes by aliases");
        self.tell(at, &reason);
        false
    }

    /// Puts a complete value where it belongs. `plain` is one that was written without quotes, as `text`.
    fn take(&mut self, node: Node, plain: bool, text: &str) -> bool {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return true;
        };
        let (entries, names, merged, next) = match &mut frame.items {
            Collected::List(items) => {
                items.push(node);
                return true;
            }
            Collected::Map {
                entries,
                names,
                merged,
                next,
            } => (entries, names, merged, next),
        };
        match std::mem::replace(next, Next::Key) {
            Next::Key => {
                let at = node.at.unwrap_or(frame.at);
                let problem = match key_name(&node.value, plain, text) {
                    Ok(name) if name == MERGE || names.insert(name.clone()) => {
                        *next = Next::ValueOf(name, at);
                        return true;
                    }
                    Ok(name) => {
                        let reason = "is given twice; one of them must go";
                        *next = Next::Dropped;
                        Problem::new(Some(at), &self.path().to(&name), reason)
                    }
                    Err(reason) => {
                        *next = Next::Dropped;
                        let reason = format!("has a key that {reason}");
                        Problem::new(Some(at), &self.path(), reason).with_value(node.shown())
                    }
                };
                self.problems.push(problem);
            }
            Next::Dropped => {}
            Next::ValueOf(name, at) if name == MERGE => {
                if let Err(reason) = merge(node, merged) {
                    self.tell(at, &format!("has a merge key that {reason}"));
                }
            }
            Next::ValueOf(name, at) => {
                let at = Some(at);
                entries.push(Entry { name, at, node });
            }
        }
        true
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Node {
        let plain = match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) => {
                self.check_tag(Some(tag), &["str", "int", "bool", "null", "float"], at);
                tag.is_yaml_core_schema() && tag.suffix != "str"
            }
        };
        let value = if plain {
            resolve(text)
        } else {
            Tree::Text(text.to_owned())
        };
        Node { at: Some(at), value }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], at: Position) {
        let Some(tag) = tag else { return };
        if !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str())) {
            let tag = cut(&tag.to_string().escape_debug().to_string());
            let name = self.name;
            self.tell(at, &format!("has the tag {tag}, for which {name} has no use"));
        }
    }

    fn tell(&mut self, at: Position, reason: &str) {
        let path = self.path();
        self.problems.push(Problem::new(Some(at), &path, reason));
    }

    /// The way to the value that is being read.
    fn path(&self) -> Path {
        let mut path = Path::default();
        for frame in &self.open {
            path = match &frame.items {
                Collected::List(items) => path.to(&items.len().to_string()),
                Collected::Map {
                    next: Next::ValueOf(name, _),
                    ..
                } => path.to(name),
                Collected::Map { .. } => path,
            };
        }
        path
    }
}

/// How many values a tree consists of. Long texts and names count as several.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Tree::List(items) => items.iter().map(size).sum(),
        Tree::Map(entries) => entries
            .iter()
            .map(|entry| entry.name.len() / BYTES + size(&entry.node))
            .sum(),
        Tree::Text(text) | Tree::Odd(text) => text.len() / BYTES,
        _ => 0,
    }
}

/// The key that merges other maps in. No name of a manifest contains it.
const MERGE: &str = "<<";

/// Adds the entries of a map, or of a list of maps, to those that are merged in.
fn merge(node: Node, merged: &mut Vec<Entry>) -> Result<(), &'static str> {
    match node.value {
        Tree::Map(entries) => {
            merged.extend(entries);
            Ok(())
        }
        Tree::List(items) => items.into_iter().try_for_each(|item| match item.value {
            Tree::Map(_) => merge(item, merged),
            _ => Err("lists an element that is not a mapping"),
        }),
        _ => Err("names no mapping"),
    }
}

/// The name that a key gives. A key that reads as a number is its digits.
fn key_name(value: &Tree, plain: bool, text: &str) -> Result<String, &'static str> {
    match value {
        Tree::Text(name) => Ok(name.clone()),
        Tree::Int(number) if plain && number.to_string() == text => Ok(text.to_owned()),
        Tree::Int(_) | Tree::Bool(_) | Tree::Null | Tree::Odd(_) => {
            Err("reads as something else than a name; put it in quotes")
        }
        Tree::List(_) | Tree::Map(_) => Err("must be a name"),
    }
}
