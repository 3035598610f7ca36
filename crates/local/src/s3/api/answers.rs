//! The XML of S3's answers, and of tags in requests.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};

use crate::s3::settings::NAMESPACE;
use crate::s3::xml::Element;
use crate::wire::{Refusal, Reply, Request, Xml, decoded, request_id};

/// A refusal in S3's form.
pub(crate) fn refused(refusal: &Refusal, request: &Request) -> Reply {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if request.method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Reply::empty(status);
    }
    let mut xml = Xml::default();
    xml.nest("Error", |error| {
        error
            .element("Code", &refusal.code)
            .element("Message", &refusal.message)
            .element("Resource", &decoded(&request.path))
            .element("RequestId", &request_id());
    });
    Reply::new(status, "application/xml", declared(xml.as_str()))
}

/// A document with its declaration.
pub(super) fn declared(xml: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{xml}")
}

/// The answer with a root and what is in it.
pub(super) fn document(root: &str, inner: &Xml) -> Reply {
    let xml = format!("<{root} xmlns=\"{NAMESPACE}\">{}</{root}>", inner.as_str());
    Reply::new(StatusCode::OK, "application/xml", declared(&xml))
}

/// Tags as S3 writes them.
pub(super) fn tagging(tags: &BTreeMap<String, String>) -> Reply {
    let mut xml = Xml::default();
    xml.nest("TagSet", |set| {
        for (key, value) in tags {
            set.nest("Tag", |tag| {
                tag.element("Key", key).element("Value", value);
            });
        }
    });
    document("Tagging", &xml)
}

/// Tags as S3 reads them.
pub(super) fn tags_of(body: &[u8], most: usize) -> Result<BTreeMap<String, String>, Refusal> {
    let root = Element::expect(body, "Tagging")?;
    let mut tags = BTreeMap::new();
    for tag in root.all("TagSet").flat_map(|set| set.all("Tag")) {
        let (key, value) = (tag.need("Key")?, tag.need("Value")?);
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Refusal::new(
                "InvalidTag",
                format!("Cannot provide multiple Tags with the same key: {key}"),
            ));
        }
    }
    if tags.len() > most {
        return Err(Refusal::new(
            "BadRequest",
            format!("There are {} tags; at most {most} may be", tags.len()),
        ));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_once_each() {
        let tag = |key: &str| format!("<Tag><Key>{key}</Key><Value>v</Value></Tag>");
        let body = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        assert_eq!(tags_of(body(&tag("a")).as_bytes(), 10).unwrap().len(), 1);
        let twice = body(&(tag("a") + &tag("a")));
        assert_eq!(tags_of(twice.as_bytes(), 10).unwrap_err().code, "InvalidTag");
        let many = body(&(tag("a") + &tag("b")));
        assert_eq!(tags_of(many.as_bytes(), 1).unwrap_err().code, "BadRequest");
    }
}
