//! Bodies of requests, written in one pass from the values of the core.

use zae_limiter_core::table::{Applied, Attr, FailureKind, Item, Key, TableError, Value};

use crate::table::render::{Aliases, PK, SK, push_alias};

/// An object of JSON that is being written.
#[derive(Debug)]
pub(in crate::table) struct Body {
    text: Vec<u8>,
    /// Whether the innermost object or array has a member.
    begun: bool,
}

impl Body {
    /// The body of a request.
    pub(in crate::table) fn new() -> Self {
        // A debit of two limits has some 1,800 bytes.
        let mut text = Vec::with_capacity(2048);
        text.push(b'{');
        Self { text, begun: false }
    }

    /// The finished body.
    pub(in crate::table) fn finish(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }

    /// A member whose value is text.
    pub(in crate::table) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        string(&mut self.text, value);
        self
    }

    /// A member whose value is a text of this program, which needs no escapes.
    pub(in crate::table) fn word(&mut self, name: &str, value: &'static str) -> &mut Self {
        self.name(name);
        self.raw("\"");
        self.raw(value);
        self.raw("\"")
    }

    /// A member whose value is text, if there is any.
    pub(in crate::table) fn text_if(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// A member that is true or false.
    pub(in crate::table) fn truth(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.raw(if value { "true" } else { "false" })
    }

    /// A member that is a whole number.
    pub(in crate::table) fn number(&mut self, name: &str, value: u32) -> &mut Self {
        self.name(name);
        self.raw(&value.to_string())
    }

    /// A member that is a primary key.
    pub(in crate::table) fn key(&mut self, name: &str, key: &Key) -> &mut Self {
        self.name(name);
        write_key(&mut self.text, key);
        self
    }

    /// A member that is a list of primary keys.
    pub(in crate::table) fn keys(&mut self, name: &str, keys: &[Key]) -> &mut Self {
        self.name(name);
        self.raw("[");
        for (i, key) in keys.iter().enumerate() {
            if i > 0 {
                self.raw(",");
            }
            write_key(&mut self.text, key);
        }
        self.raw("]")
    }

    /// A member that is an item.
    ///
    /// # Errors
    /// A value of a type that the core does not model was read from somewhere and cannot be written back.
    pub(in crate::table) fn item(&mut self, name: &str, item: &Item) -> Result<&mut Self, TableError> {
        self.name(name);
        attributes(&mut self.text, item)?;
        Ok(self)
    }

    /// The names and values of expressions.
    ///
    /// # Errors
    /// As [`item`](Self::item).
    pub(in crate::table) fn aliases(&mut self, aliases: &Aliases) -> Result<&mut Self, TableError> {
        let mut text = String::with_capacity(8);
        let mut alias = |out: &mut Vec<u8>, sigil: char, i: usize| {
            text.clear();
            text.push_str(if i == 0 { "\"" } else { ",\"" });
            push_alias(&mut text, sigil, i);
            text.push_str("\":");
            out.extend_from_slice(text.as_bytes());
        };
        if !aliases.names.is_empty() {
            self.name("ExpressionAttributeNames");
            self.raw("{");
            for (i, name) in aliases.names.iter().enumerate() {
                alias(&mut self.text, '#', i);
                string(&mut self.text, Attr::as_str(name));
            }
            self.raw("}");
        }
        if !aliases.values.is_empty() {
            self.name("ExpressionAttributeValues");
            self.raw("{");
            for (i, value) in aliases.values.iter().enumerate() {
                alias(&mut self.text, ':', i);
                attribute(&mut self.text, value)?;
            }
            self.raw("}");
        }
        Ok(self)
    }

    /// A member that is an object.
    pub(in crate::table) fn object<E>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<&mut Self, E> {
        self.name(name);
        self.braced(fill)
    }

    /// A member that is an array of objects.
    pub(in crate::table) fn objects<T, E>(
        &mut self,
        name: &str,
        of: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T) -> Result<(), E>,
    ) -> Result<&mut Self, E> {
        self.name(name);
        self.raw("[");
        for (i, each) in of.into_iter().enumerate() {
            if i > 0 {
                self.raw(",");
            }
            self.braced(|body| fill(body, each))?;
        }
        Ok(self.raw("]"))
    }

    fn braced<E>(&mut self, fill: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<&mut Self, E> {
        self.raw("{");
        self.begun = false;
        fill(self)?;
        self.begun = true;
        Ok(self.raw("}"))
    }

    fn name(&mut self, name: &str) {
        if self.begun {
            self.text.push(b',');
        }
        self.begun = true;
        string(&mut self.text, name);
        self.text.push(b':');
    }

    fn raw(&mut self, text: &str) -> &mut Self {
        self.text.extend_from_slice(text.as_bytes());
        self
    }
}

/// Writing to memory does not fail, and a text can always be written.
fn string(out: &mut Vec<u8>, text: &str) {
    // Nearly every text needs no escapes, which is seen faster for all bytes together than for one after the other.
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok());
}

fn write_key(out: &mut Vec<u8>, key: &Key) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(PK.as_bytes());
    out.extend_from_slice(b"\":{\"S\":");
    string(out, &key.pk);
    out.extend_from_slice(b"},\"");
    out.extend_from_slice(SK.as_bytes());
    out.extend_from_slice(b"\":{\"S\":");
    string(out, &key.sk);
    out.extend_from_slice(b"}}");
}

fn attributes(out: &mut Vec<u8>, item: &Item) -> Result<(), TableError> {
    out.push(b'{');
    for (i, (name, value)) in item.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        attribute(out, value)?;
    }
    out.push(b'}');
    Ok(())
}

fn attribute(out: &mut Vec<u8>, value: &Value) -> Result<(), TableError> {
    let mut tagged = |tag: &str| out.extend_from_slice(tag.as_bytes());
    match value {
        Value::S(text) => {
            tagged("{\"S\":");
            string(out, text);
        }
        Value::N(digits) => {
            tagged("{\"N\":");
            string(out, digits);
        }
        Value::Bool(true) => tagged("{\"BOOL\":true"),
        Value::Bool(false) => tagged("{\"BOOL\":false"),
        Value::Null => tagged("{\"NULL\":true"),
        Value::M(map) => {
            tagged("{\"M\":");
            attributes(out, map)?;
        }
        Value::L(list) => {
            tagged("{\"L\":[");
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                attribute(out, value)?;
            }
            out.push(b']');
        }
        Value::Ss(set) => {
            tagged("{\"SS\":[");
            for (i, text) in set.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(out, text);
            }
            out.push(b']');
        }
        Value::Other => {
            return Err(TableError::new(
                FailureKind::BadRequest,
                Applied::No,
                "a value of a type that this library does not read cannot be written or compared",
            ));
        }
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::client::answer::{Attributes, read};

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::S),
            any::<i64>().prop_map(Value::int),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
            proptest::collection::btree_set(any::<String>(), 0..4).prop_map(Value::Ss),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::btree_map(any::<String>(), inner.clone(), 0..4).prop_map(Value::M),
                proptest::collection::vec(inner, 0..4).prop_map(Value::L),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(item in proptest::collection::btree_map(any::<String>(), value(), 0..6)) {
            let mut text = Vec::new();
            attributes(&mut text, &item).unwrap();
            let back: Attributes = read("GetItem", &text).unwrap();
            prop_assert_eq!(back.0, item);
        }
    }

    #[test]
    fn members_are_separated_in_objects_of_every_depth() {
        let mut body = Body::new();
        let outcome: Result<(), TableError> = (|| {
            body.text("a", "x\"y").truth("b", false).number("c", 7);
            body.object("d", |body| {
                body.objects("e", [1, 2], |body, n| {
                    body.number("n", n).truth("t", true);
                    Ok::<_, TableError>(())
                })?;
                body.word("f", "F");
                Ok::<_, TableError>(())
            })?;
            body.text_if("g", None).text_if("h", Some(""));
            Ok(())
        })();
        outcome.unwrap();
        assert_eq!(
            String::from_utf8(body.finish()).unwrap(),
            r#"{"a":"x\"y","b":false,"c":7,"d":{"e":[{"n":1,"t":true},{"n":2,"t":true}],"f":"F"},"h":""}"#
        );
    }

    #[test]
    fn what_the_core_does_not_model_cannot_be_written() {
        let err = attribute(&mut Vec::new(), &Value::L(vec![Value::Other])).unwrap_err();
        assert_eq!((err.kind, err.applied), (FailureKind::BadRequest, Applied::No));
    }
}
