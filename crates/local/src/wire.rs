//! What goes over the wire: requests as services read them, replies, and how each of AWS's protocols says no.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use quick_xml::escape::escape;
use serde::Serialize;
use serde_json::Value as Json;

/// The account that everything here belongs to.
pub const ACCOUNT: &str = "000000000000";

/// The region of a request that names none.
pub const REGION: &str = "us-east-1";

/// A request, read to its end.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The path as it was sent, percent-encoded.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, in the encoding it was sent in.
    pub body: Bytes,
}

impl Request {
    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The query's pairs, decoded, in their order. A name without `=` has an empty value.
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.query.as_bytes())
            .into_owned()
            .collect()
    }

    /// One parameter of the query.
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_pairs()
            .into_iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The segments of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        self.path
            .trim_start_matches('/')
            .split('/')
            .map(decoded)
            .collect()
    }

    /// The body as JSON; an empty one is an empty object.
    pub fn json(&self) -> Result<Json, Refusal> {
        if self.body.is_empty() {
            return Ok(Json::Object(serde_json::Map::new()));
        }
        serde_json::from_slice(&self.body)
            .map_err(|err| Refusal::new("SerializationException", format!("the body is not JSON: {err}")))
    }

    /// `region` and `service` that the request was signed for, if it was.
    pub fn scope(&self) -> Option<(String, String)> {
        let credential = match self.header(AUTHORIZATION.as_str()) {
            Some(header) => {
                let start = header.find("Credential=")? + "Credential=".len();
                header[start..].split([',', ' ']).next()?.to_owned()
            }
            None => self.query("X-Amz-Credential")?,
        };
        // The key's id may hold slashes, as those of some other servers do.
        let mut parts = credential.rsplit('/').skip(1);
        let service = parts.next()?.to_owned();
        let region = parts.next()?.to_owned();
        Some((region, service))
    }

    /// The region that the request was signed for.
    pub fn region(&self) -> String {
        self.scope()
            .map(|(region, _)| region)
            .filter(|region| !region.is_empty())
            .unwrap_or_else(|| REGION.to_owned())
    }
}

/// Text without its percent-encoding.
pub fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Its headers; length and request id are added on the way out.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// A reply with a body of some type.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers,
            body: body.into(),
        }
    }

    /// A reply without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// JSON of the protocols that name their operation in `X-Amz-Target`, in version 1.0 or 1.1.
    pub fn amz_json(body: &impl Serialize) -> Self {
        Self::new(StatusCode::OK, "application/x-amz-json-1.0", to_json(body))
    }

    /// JSON of the protocols that name their operation by method and path.
    pub fn rest_json(status: StatusCode, body: &impl Serialize) -> Self {
        Self::new(status, "application/json", to_json(body))
    }

    /// The answer of a query protocol's action: `inner` is the XML inside its result element.
    pub fn query_xml(action: &str, namespace: &str, inner: &Xml) -> Self {
        let id = request_id();
        let body = format!(
            "<{action}Response xmlns=\"{namespace}\"><{action}Result>{}</{action}Result>\
             <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>",
            inner.text
        );
        Self::new(StatusCode::OK, "text/xml", body)
    }

    /// The same reply with one more header; left out if the value cannot be one.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    // What is serialised here are values and plain structures with string keys.
    serde_json::to_vec(body).unwrap_or_default()
}

/// A new id for a request.
pub fn request_id() -> String {
    uuid()
}

/// A new random id in the form of a UUID.
pub fn uuid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A refused request: each protocol writes it in its own form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// AWS's code, such as `ValidationError`.
    pub code: Cow<'static, str>,
    /// The problem.
    pub message: String,
}

impl Refusal {
    /// The caller's mistake, with status 400.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: code.into(),
            message: message.into(),
        }
    }

    /// The same with another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// A failure of this endpoint itself.
    pub fn internal(err: &dyn std::fmt::Display) -> Self {
        Self::new("InternalFailure", err.to_string()).status(500)
    }

    /// An operation that this endpoint does not have.
    pub fn unsupported(service: &str, operation: &str) -> Self {
        Self::new(
            "NotImplemented",
            format!("the local endpoint of zae-limiter does not serve {service}'s operation {operation}"),
        )
        .status(501)
    }

    fn code_status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// As protocols that name their operation in `X-Amz-Target` say it.
    pub fn amz_json(&self) -> Reply {
        let body = serde_json::json!({"__type": self.code, "message": self.message});
        Reply::new(self.code_status(), "application/x-amz-json-1.0", body.to_string())
    }

    /// As Lambda says it.
    pub fn rest_json(&self) -> Reply {
        let side = if self.status < 500 { "User" } else { "Service" };
        let body = serde_json::json!({"Type": side, "Message": self.message, "message": self.message});
        Reply::new(self.code_status(), "application/json", body.to_string())
            .with("x-amzn-errortype", &self.code)
    }

    /// As query protocols say it.
    pub fn query_xml(&self, namespace: &str) -> Reply {
        let side = if self.status < 500 { "Sender" } else { "Receiver" };
        let mut xml = Xml::default();
        xml.element("Type", side)
            .element("Code", &self.code)
            .element("Message", &self.message);
        let body = format!(
            "<ErrorResponse xmlns=\"{namespace}\"><Error>{}</Error><RequestId>{}</RequestId></ErrorResponse>",
            xml.text,
            request_id()
        );
        Reply::new(self.code_status(), "text/xml", body)
    }
}

impl From<crate::store::StoreError> for Refusal {
    fn from(err: crate::store::StoreError) -> Self {
        Self::internal(&err)
    }
}

/// XML as it grows.
#[derive(Debug, Clone, Default)]
pub struct Xml {
    text: String,
}

impl Xml {
    /// Adds an element with text, escaped.
    pub fn element(&mut self, name: &str, text: &str) -> &mut Self {
        // Writing to a string does not fail.
        let _ = write!(self.text, "<{name}>{}</{name}>", escape(text));
        self
    }

    /// Adds an element with text, if there is one.
    pub fn optional(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.element(name, text);
        }
        self
    }

    /// Adds text, escaped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.text.push_str(&escape(text));
        self
    }

    /// Adds an element with others inside.
    pub fn nest(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let _ = write!(self.text, "<{name}>");
        fill(self);
        let _ = write!(self.text, "</{name}>");
        self
    }

    /// Adds an element with XML that was made apart.
    pub fn raw(&mut self, name: &str, inner: &Self) -> &mut Self {
        self.nest(name, |xml| xml.text.push_str(&inner.text))
    }

    /// Adds a list in the query protocols' form: `<name><member>…</member>…</name>`.
    pub fn members<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.nest(name, |list| {
            for item in items {
                list.nest("member", |member| fill(member, item));
            }
        })
    }

    /// The XML so far.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The parameters of a query protocol's request.
#[derive(Debug, Clone)]
pub struct Form {
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Reads a body, and the query of the address.
    pub fn read(request: &Request) -> Self {
        let mut pairs = request.query_pairs();
        pairs.extend(form_urlencoded::parse(&request.body).into_owned());
        Self { pairs }
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// All parameters in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A parameter that must be there and hold something.
    pub fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Refusal::new(
                "ValidationError",
                format!("the parameter {name} is missing; give it a value"),
            )
        })
    }

    /// The texts of a list, `Name.member.1`, `Name.member.2`, and so on.
    pub fn list(&self, name: &str) -> Vec<&str> {
        (1..)
            .map_while(|index| self.get(&format!("{name}.member.{index}")))
            .collect()
    }

    /// The structures of a list: of each, the parameters named, in that order.
    pub fn structures<const N: usize>(&self, name: &str, fields: [&str; N]) -> Vec<[Option<&str>; N]> {
        (1..)
            .map_while(|index| {
                let found = fields.map(|field| self.get(&format!("{name}.member.{index}.{field}")));
                found.iter().any(Option::is_some).then_some(found)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(credential: &str) -> Request {
        let mut headers = HeaderMap::new();
        let header = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&header).unwrap());
        Request {
            method: Method::POST,
            path: "/a%20b/c".into(),
            query: "list-type=2&prefix=x%2Fy&uploads".into(),
            headers,
            body: Bytes::from_static(b"Action=X&Tags.member.1.Key=k&Tags.member.1.Value=v&Names.member.1=a"),
        }
    }

    #[test]
    fn the_scope_says_region_and_service() {
        let request = signed("AKID/20261121/eu-west-1/s3/aws4_request");
        assert_eq!(request.scope(), Some(("eu-west-1".into(), "s3".into())));
        assert_eq!(request.region(), "eu-west-1");
        let odd = signed("a/b/20261121/eu-west-1/sts/aws4_request");
        assert_eq!(odd.scope(), Some(("eu-west-1".into(), "sts".into())));
        assert_eq!(signed("nothing").region(), REGION);
    }

    #[test]
    fn paths_and_queries_are_decoded() {
        let request = signed("");
        assert_eq!(request.segments(), ["a b", "c"]);
        assert_eq!(request.query("prefix").as_deref(), Some("x/y"));
        assert_eq!(request.query("uploads").as_deref(), Some(""));
        assert_eq!(request.query("none"), None);
    }

    #[test]
    fn forms_have_lists_and_structures() {
        let form = Form::read(&signed(""));
        assert_eq!(form.need("Action").unwrap(), "X");
        assert_eq!(form.list("Names"), ["a"]);
        assert_eq!(
            form.structures("Tags", ["Key", "Value"]),
            [[Some("k"), Some("v")]]
        );
        assert!(form.need("StackName").unwrap_err().message.contains("StackName"));
    }

    #[test]
    fn xml_is_escaped() {
        let mut xml = Xml::default();
        xml.members("Outputs", ["a<b&c"], |xml, text| {
            xml.element("Value", text);
        });
        assert_eq!(
            xml.as_str(),
            "<Outputs><member><Value>a&lt;b&amp;c</Value></member></Outputs>"
        );
    }

    #[test]
    fn ids_have_the_form_of_a_uuid() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }
}
