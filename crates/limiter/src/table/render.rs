//! Conditions and changes as DynamoDB expressions.
//!
//! Attribute names hold `-`, `.` and spaces, and may be reserved words, so every name and value in an
//! expression is a positional alias: `#0`, `:0`. A name that recurs keeps its alias. All parts of a request
//! share one [`Renderer`], since they share one table of aliases on the wire.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::table::{
    Applied, Attr, Condition, FailureKind, Index, SortKeys, TableError, Update, Value,
};

/// Name of the partition key.
pub(super) const PK: &str = "PK";
/// Name of the sort key.
pub(super) const SK: &str = "SK";

/// The name of an index, and those of its keys.
pub(super) fn index_names(index: Index) -> (Option<&'static str>, &'static str, &'static str) {
    match index {
        Index::Primary => (None, PK, SK),
        Index::Gsi1 => (Some("GSI1"), "GSI1PK", "GSI1SK"),
        Index::Gsi2 => (Some("GSI2"), "GSI2PK", "GSI2SK"),
        Index::Gsi3 => (Some("GSI3"), "GSI3PK", "GSI3SK"),
        Index::Gsi4 => (Some("GSI4"), "GSI4PK", "GSI4SK"),
    }
}

/// What an expression's aliases stand for, by their numbers.
pub(super) struct Aliases {
    /// Attribute names: that of `#0` first.
    pub(super) names: Vec<Attr>,
    /// Values: that of `:0` first.
    pub(super) values: Vec<Value>,
}

/// Writes the expressions of one request and hands out their aliases.
#[derive(Debug)]
pub(super) struct Renderer {
    names: Vec<Attr>,
    /// The tag of each name.
    tags: Vec<u32>,
    values: Vec<Value>,
}

impl Default for Renderer {
    /// With room for a debit of two limits.
    fn default() -> Self {
        Self {
            names: Vec::with_capacity(16),
            tags: Vec::with_capacity(16),
            values: Vec::with_capacity(24),
        }
    }
}

impl Renderer {
    /// The change that an update makes, or `None` if it changes nothing but creates an absent item.
    ///
    /// Takes the parts out of the update, not its key and condition.
    pub(super) fn change(&mut self, update: &mut Update) -> Option<String> {
        let parts = update.set.len() + update.copy.len() + update.add.len() + update.add_to_set.len();
        let parts = parts + update.remove.len() + update.delete_from_set.len();
        if parts == 0 {
            return None;
        }
        // "SET " and the like once each, and about "#10 = :10, " a part.
        let mut text = String::with_capacity(24 + parts * 11);
        let mut section = Section {
            name: "SET ",
            open: false,
        };
        for (attr, value) in update.set.drain(..) {
            section.part(&mut text);
            self.name(&mut text, attr);
            text.push_str(" = ");
            self.value(&mut text, value);
        }
        for (attr, from) in update.copy.drain(..) {
            section.part(&mut text);
            self.name(&mut text, attr);
            text.push_str(" = if_not_exists(");
            self.name(&mut text, from);
            text.push_str(", ");
            self.value(&mut text, Value::int(0));
            text.push(')');
        }
        section = Section {
            name: "ADD ",
            open: false,
        };
        for (attr, delta) in update.add.drain(..) {
            section.part(&mut text);
            self.name(&mut text, attr);
            text.push(' ');
            self.value(&mut text, Value::int(delta));
        }
        for (attr, texts) in grouped(&mut update.add_to_set) {
            section.part(&mut text);
            self.name(&mut text, attr);
            text.push(' ');
            self.value(&mut text, texts);
        }
        section = Section {
            name: "DELETE ",
            open: false,
        };
        for (attr, texts) in grouped(&mut update.delete_from_set) {
            section.part(&mut text);
            self.name(&mut text, attr);
            text.push(' ');
            self.value(&mut text, texts);
        }
        section = Section {
            name: "REMOVE ",
            open: false,
        };
        for attr in update.remove.drain(..) {
            section.part(&mut text);
            self.name(&mut text, attr);
        }
        Some(text)
    }

    /// A condition, or `None` if it always holds.
    ///
    /// # Errors
    /// A condition that can never hold, such as "any of nothing", cannot be written as an expression.
    pub(super) fn condition(&mut self, condition: Condition) -> Result<Option<String>, TableError> {
        match verdict(&condition) {
            Verdict::Always => Ok(None),
            Verdict::Never => Err(TableError::new(
                FailureKind::BadRequest,
                Applied::No,
                "the condition can never hold: it asks for any of no alternatives",
            )),
            Verdict::Depends => {
                let mut text = String::with_capacity(leaves(&condition) * 24);
                self.depends(&mut text, condition, false);
                Ok(Some(text))
            }
        }
    }

    /// The key condition of a query: a partition key's value, and which sort keys.
    pub(super) fn key_range(
        &mut self,
        hash: (&'static str, String),
        range: (&'static str, SortKeys),
    ) -> String {
        let mut text = String::with_capacity(32);
        self.name(&mut text, Attr::new_static(hash.0));
        text.push_str(" = ");
        self.value(&mut text, Value::S(hash.1));
        match range.1 {
            SortKeys::All => {}
            // Nothing begins with less than one character; a key is never empty.
            SortKeys::Prefix(prefix) if prefix.is_empty() => {}
            SortKeys::Prefix(prefix) => {
                text.push_str(" AND begins_with(");
                self.name(&mut text, Attr::new_static(range.0));
                text.push_str(", ");
                self.value(&mut text, Value::S(prefix));
                text.push(')');
            }
            SortKeys::Between(first, last) => {
                text.push_str(" AND ");
                self.name(&mut text, Attr::new_static(range.0));
                text.push_str(" BETWEEN ");
                self.value(&mut text, Value::S(first));
                text.push_str(" AND ");
                self.value(&mut text, Value::S(last));
            }
        }
        text
    }

    /// What the aliases so far stand for.
    pub(super) fn finish(self) -> Aliases {
        Aliases {
            names: self.names,
            values: self.values,
        }
    }

    /// Writes a condition whose verdict is [`Verdict::Depends`]. `inner` asks for brackets around parts.
    fn depends(&mut self, text: &mut String, condition: Condition, inner: bool) {
        match condition {
            Condition::All(parts) => self.joined(text, parts, " AND ", inner),
            Condition::Any(parts) => self.joined(text, parts, " OR ", inner),
            Condition::Exists(attr) => self.call(text, "attribute_exists(", attr),
            Condition::Absent(attr) => self.call(text, "attribute_not_exists(", attr),
            Condition::Is(attr, value) => self.compared(text, attr, " = ", value),
            // `<>` alone leaves it to the engine what holds of an absent attribute, so both halves are said.
            Condition::IsNot(attr, value) => {
                text.push('(');
                self.call(text, "attribute_not_exists(", attr.clone());
                text.push_str(" OR ");
                self.compared(text, attr, " <> ", value);
                text.push(')');
            }
            Condition::AtLeast(attr, bound) => {
                self.compared(text, attr, " >= ", Value::int(bound));
            }
            Condition::AtMost(attr, bound) => {
                self.compared(text, attr, " <= ", Value::int(bound));
            }
        }
    }

    /// Parts that are always or never true have no say here: `verdict` has settled that the rest decides.
    fn joined(&mut self, text: &mut String, parts: Vec<Condition>, by: &str, inner: bool) {
        if inner {
            text.push('(');
        }
        let mut first = true;
        for part in parts.into_iter().filter(|part| verdict(part) == Verdict::Depends) {
            if !first {
                text.push_str(by);
            }
            first = false;
            self.depends(text, part, true);
        }
        if inner {
            text.push(')');
        }
    }

    fn call(&mut self, text: &mut String, function: &str, attr: Attr) {
        text.push_str(function);
        self.name(text, attr);
        text.push(')');
    }

    fn compared(&mut self, text: &mut String, attr: Attr, by: &str, value: Value) {
        self.name(text, attr);
        text.push_str(by);
        self.value(text, value);
    }

    /// A request names a few dozen attributes at most, for which looking them up one by one is the fastest.
    fn name(&mut self, text: &mut String, attr: Attr) {
        let wanted = tag(&attr);
        let mut known = self.tags.iter().zip(&self.names);
        let at = known.position(|(tag, name)| *tag == wanted && *name == attr);
        let at = at.unwrap_or_else(|| {
            self.tags.push(wanted);
            self.names.push(attr);
            self.names.len() - 1
        });
        push_alias(text, '#', at);
    }

    fn value(&mut self, text: &mut String, value: Value) {
        push_alias(text, ':', self.values.len());
        self.values.push(value);
    }
}

/// One section of a change, whose name is written before its first part.
struct Section {
    name: &'static str,
    open: bool,
}

impl Section {
    fn part(&mut self, text: &mut String) {
        if self.open {
            text.push_str(", ");
        } else {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(self.name);
            self.open = true;
        }
    }
}

/// The result of a condition that does not depend on the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Always,
    Never,
    Depends,
}

fn verdict(condition: &Condition) -> Verdict {
    let (parts, neutral, decisive) = match condition {
        Condition::All(parts) => (parts, Verdict::Always, Verdict::Never),
        Condition::Any(parts) => (parts, Verdict::Never, Verdict::Always),
        _ => return Verdict::Depends,
    };
    let mut result = neutral;
    for part in parts {
        let part = verdict(part);
        if part == decisive {
            return decisive;
        }
        if part == Verdict::Depends {
            result = Verdict::Depends;
        }
    }
    result
}

fn leaves(condition: &Condition) -> usize {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// The texts by attribute: an expression may name an attribute once only.
fn grouped(texts: &mut Vec<(Attr, String)>) -> impl Iterator<Item = (Attr, Value)> + use<> {
    let mut by_attr = BTreeMap::<Attr, BTreeSet<String>>::new();
    for (attr, text) in texts.drain(..) {
        by_attr.entry(attr).or_default().insert(text);
    }
    by_attr.into_iter().map(|(attr, texts)| (attr, Value::Ss(texts)))
}

/// Formatting machinery costs more than the digits; nearly every index has one or two.
pub(super) fn push_alias(text: &mut String, sigil: char, index: usize) {
    let digit = |number: usize| char::from(b'0' + (number % 10) as u8);
    text.push(sigil);
    if index >= 100 {
        return text.push_str(&index.to_string());
    }
    if index >= 10 {
        text.push(digit(index / 10));
    }
    text.push(digit(index));
}

/// A number that is rarely the same for two names, so that most comparisons of names are of numbers.
fn tag(name: &str) -> u32 {
    let add = |tag: u32, byte: u8| tag.wrapping_mul(31).wrapping_add(byte.into());
    name.bytes().fold(0, add)
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
