//! XML bodies of requests, as trees.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use crate::wire::Refusal;

/// How deep elements may lie in each other: S3's own lie less deep.
const DEEPEST: usize = 16;

/// An element, without its namespace and attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The elements in it.
    pub children: Vec<Element>,
}

impl Element {
    /// Reads a document.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|err| malformed(&err))?;
        let mut reader = Reader::from_str(text);
        // The first is the document itself, which holds the root.
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().map_err(|err| malformed(&err))? {
                Event::Start(start) if open.len() <= DEEPEST => {
                    open.push(Self::named(start.local_name().as_ref()));
                }
                Event::Start(_) => return Err(malformed(&format!("it is deeper than {DEEPEST} elements"))),
                Event::Empty(empty) => add(&mut open, Self::named(empty.local_name().as_ref()))?,
                Event::End(_) => {
                    let Some(done) = open.pop() else {
                        return Err(malformed(&"an element ends that did not begin"));
                    };
                    add(&mut open, done)?;
                }
                Event::Text(text) => push_text(&mut open, &text),
                Event::CData(text) => push_text(&mut open, &text),
                Event::GeneralRef(reference) => {
                    match reference.resolve_char_ref().map_err(|err| malformed(&err))? {
                        Some(char) => push_text(&mut open, char.encode_utf8(&mut [0; 4])),
                        None => match resolve_xml_entity(&reference) {
                            Some(text) => push_text(&mut open, text),
                            None => return Err(malformed(&format!("the entity &{};", &*reference))),
                        },
                    }
                }
                Event::Eof => break,
                Event::DocType(_) => return Err(malformed(&"it has a document type")),
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            }
        }
        match (open.len(), open.pop()) {
            (1, Some(document)) if document.children.len() == 1 => document
                .children
                .into_iter()
                .next()
                .ok_or_else(|| malformed(&"it is empty")),
            _ => Err(malformed(&"it is not one element that begins and ends")),
        }
    }

    /// Reads a document whose root has that name.
    pub(super) fn expect(body: &[u8], root: &str) -> Result<Self, Refusal> {
        let element = Self::read(body)?;
        if element.name == root {
            return Ok(element);
        }
        Err(malformed(&format!("its root is {}, not {root}", element.name)))
    }

    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// The elements of that name in this one.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of an element in this one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.children.iter().find(|child| child.name == name);
        found.map(|child| child.text.as_str())
    }

    /// The text of an element that must be in this one.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name)
            .ok_or_else(|| malformed(&format!("{} has no {name}", self.name)))
    }
}

fn add(open: &mut [Element], done: Element) -> Result<(), Refusal> {
    match open.last_mut() {
        Some(parent) => {
            parent.children.push(done);
            Ok(())
        }
        None => Err(malformed(&"an element ends that did not begin")),
    }
}

fn push_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn malformed(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        "MalformedXML",
        format!(
            "The XML you provided was not well-formed or did not validate against our published schema: {why}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_text_and_children() {
        let xml = b"<?xml version=\"1.0\"?><s:Delete xmlns:s=\"x\"><s:Quiet/>\n <Object><Key>a&amp;&#x62;<![CDATA[<c>]]> </Key></Object></s:Delete>";
        let delete = Element::expect(xml, "Delete").unwrap();
        assert_eq!(delete.get("Quiet"), Some(""));
        let keys: Vec<&str> = delete
            .all("Object")
            .map(|object| object.need("Key").unwrap())
            .collect();
        assert_eq!(keys, ["a&b<c> "]);
        assert!(
            delete
                .need("Other")
                .unwrap_err()
                .message
                .contains("Delete has no Other")
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        for bad in [
            "",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a>&unknown;</a>",
            "<!DOCTYPE a><a/>",
            "\u{1}",
            &deep,
            "<a>&#0;</a>",
            "<a",
            "<a>]]",
        ] {
            let refused = Element::read(bad.as_bytes()).unwrap_err();
            assert_eq!(refused.code, "MalformedXML", "{bad}");
        }
        assert!(Element::read(&[0xff, 0xfe]).is_err());
        assert!(
            Element::expect(b"<a/>", "b")
                .unwrap_err()
                .message
                .contains("its root is a, not b")
        );
    }
}
