//! Lambda's API over HTTP.

use hyper::{Method, StatusCode};
use serde_json::{Value as Json, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::Fields;
use super::functions::is_mapping_arn;
use super::names::{FunctionId, check_qualifier};
use super::{Invoked, Lambda, refusal};
use crate::wire::{Refusal, Reply, Request};

/// How many items a page has unless the caller says.
const PAGE: usize = 50;

/// The versions of the API that paths begin with.
const VERSIONS: [&str; 14] = [
    "2014-11-13",
    "2015-03-31",
    "2016-08-19",
    "2017-03-31",
    "2017-10-31",
    "2018-10-31",
    "2019-09-25",
    "2019-09-30",
    "2020-04-22",
    "2020-06-30",
    "2021-07-20",
    "2021-10-31",
    "2021-11-15",
    "2024-08-31",
];

impl Lambda {
    /// Whether a path is one of Lambda's.
    pub fn serves(path: &str) -> bool {
        let version = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        VERSIONS.contains(&version)
    }

    /// Serves a request.
    pub async fn serve(&self, request: Request) -> Reply {
        self.answer(&request).await.unwrap_or_else(|err| err.rest_json())
    }

    async fn answer(&self, request: &Request) -> Result<Reply, Refusal> {
        let region = request.region();
        let segments = request.segments();
        let mut path: Vec<&str> = segments.iter().map(String::as_str).collect();
        while path.last() == Some(&"") {
            path.pop();
        }
        let (Some(version), Some(kind)) = (path.first(), path.get(1)) else {
            return Err(unknown(request));
        };
        let rest = &path[2..];
        match (*version, *kind) {
            ("2015-03-31", "functions") => self.functions_call(request, &region, rest).await,
            ("2015-03-31", "event-source-mappings") => self.mappings_call(request, &region, rest).await,
            ("2017-03-31", "tags") => self.tags_call(request, &region, &rest.join("/")),
            _ => Err(unknown(request)),
        }
    }

    async fn functions_call(&self, request: &Request, region: &str, rest: &[&str]) -> Result<Reply, Refusal> {
        let ok = |body: &Json| Ok(Reply::rest_json(StatusCode::OK, body));
        if let Some(name) = rest.first() {
            check_qualifier(
                &FunctionId::read(region, name)?,
                request.query("Qualifier").as_deref(),
            )?;
        }
        match (&request.method, rest) {
            (&Method::GET, []) => {
                let (page, next) = paged(request, self.functions(region)?)?;
                ok(&with_marker(json!({"Functions": page}), next))
            }
            (&Method::POST, []) => {
                let made = self.create_function(region, &request.json()?).await?;
                Ok(Reply::rest_json(StatusCode::CREATED, &made))
            }
            (&Method::GET, [name]) => ok(&self.function(region, name)?),
            (&Method::DELETE, [name]) => {
                self.delete_function(region, name).await?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            (&Method::GET, [name, "configuration"]) => ok(&self.configuration(region, name)?),
            (&Method::PUT, [name, "configuration"]) => {
                ok(&self.update_configuration(region, name, &request.json()?).await?)
            }
            (&Method::PUT, [name, "code"]) => ok(&self.update_code(region, name, &request.json()?).await?),
            (&Method::POST, [name, "invocations"]) => self.invoke_call(request, region, name).await,
            _ => Err(unknown(request)),
        }
    }

    async fn invoke_call(&self, request: &Request, region: &str, name: &str) -> Result<Reply, Refusal> {
        let payload = request.body.clone();
        match request
            .header("x-amz-invocation-type")
            .unwrap_or("RequestResponse")
        {
            "RequestResponse" => {
                let invoked = self.invoke(region, name, payload).await?;
                Ok(invocation(
                    invoked,
                    request.header("x-amz-log-type") == Some("Tail"),
                ))
            }
            "Event" => {
                let id = self.invoke_event(region, name, payload)?;
                Ok(Reply::empty(StatusCode::ACCEPTED).with("x-amzn-requestid", &id))
            }
            other => Err(refusal(format!(
                "X-Amz-Invocation-Type is {other}; it must be RequestResponse or Event"
            ))),
        }
    }

    async fn mappings_call(&self, request: &Request, region: &str, rest: &[&str]) -> Result<Reply, Refusal> {
        let accepted = |body: &Json| Ok(Reply::rest_json(StatusCode::ACCEPTED, body));
        match (&request.method, rest) {
            (&Method::GET, []) => {
                let (source, function) = (request.query("EventSourceArn"), request.query("FunctionName"));
                let found = self.mappings(region, source.as_deref(), function.as_deref())?;
                let (page, next) = paged(request, found)?;
                let body = with_marker(json!({"EventSourceMappings": page}), next);
                Ok(Reply::rest_json(StatusCode::OK, &body))
            }
            (&Method::POST, []) => accepted(&self.create_mapping(region, &request.json()?).await?),
            (&Method::GET, [uuid]) => Ok(Reply::rest_json(StatusCode::OK, &self.mapping(region, uuid)?)),
            (&Method::PUT, [uuid]) => accepted(&self.update_mapping(region, uuid, &request.json()?)?),
            (&Method::DELETE, [uuid]) => accepted(&self.delete_mapping(region, uuid)?),
            _ => Err(unknown(request)),
        }
    }

    fn tags_call(&self, request: &Request, region: &str, arn: &str) -> Result<Reply, Refusal> {
        if is_mapping_arn(arn) {
            return Err(refusal(format!(
                "the local endpoint keeps tags of functions, not of {arn}"
            )));
        }
        match request.method {
            Method::GET => {
                let tags = self.tags(region, arn)?;
                Ok(Reply::rest_json(StatusCode::OK, &json!({"Tags": tags})))
            }
            Method::POST => {
                let body = request.json()?;
                let tags = Fields::read(&body, &["Tags", "Resource"])?
                    .tags()?
                    .unwrap_or_default();
                self.tag(region, arn, &tags)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            Method::DELETE => {
                let pairs = request.query_pairs().into_iter();
                let keys: Vec<String> = pairs
                    .filter_map(|(name, value)| (name == "tagKeys").then_some(value))
                    .collect();
                self.untag(region, arn, &keys)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(unknown(request)),
        }
    }
}

fn invocation(invoked: Invoked, tail: bool) -> Reply {
    let mut reply = Reply::new(StatusCode::OK, "application/json", invoked.payload)
        .with("x-amzn-requestid", &invoked.request_id)
        .with("x-amz-executed-version", "$LATEST");
    if invoked.error {
        reply = reply.with("x-amz-function-error", "Unhandled");
    }
    if tail {
        reply = reply.with("x-amz-log-result", &STANDARD.encode(invoked.tail));
    }
    reply
}

/// One page of a list, and where the next begins.
fn paged(request: &Request, items: Vec<Json>) -> Result<(Vec<Json>, Option<usize>), Refusal> {
    let number = |name: &str, default: usize| match request.query(name) {
        Some(text) => text.parse().map_err(|_| {
            refusal(format!(
                "{name} is '{text}'; it must be a number, as it was given out"
            ))
        }),
        None => Ok(default),
    };
    let start = number("Marker", 0)?;
    let count = number("MaxItems", PAGE)?.clamp(1, 10_000);
    let next = start.saturating_add(count);
    let next = (next < items.len()).then_some(next);
    Ok((items.into_iter().skip(start).take(count).collect(), next))
}

fn with_marker(mut body: Json, next: Option<usize>) -> Json {
    if let Some(next) = next {
        body["NextMarker"] = json!(next.to_string());
    }
    body
}

fn unknown(request: &Request) -> Refusal {
    Refusal::unsupported("Lambda", &format!("{} {}", request.method, request.path))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::HeaderMap;

    use super::*;

    #[test]
    fn paths_tell_whose_they_are() {
        assert!(Lambda::serves("/2015-03-31/functions/"));
        assert!(Lambda::serves("/2019-09-25/functions/f/event-invoke-config"));
        assert!(!Lambda::serves("/bucket/2015-03-31/functions"));
        assert!(!Lambda::serves("/"));
    }

    #[test]
    fn lists_come_in_pages() {
        let request = |query: &str| Request {
            method: Method::GET,
            path: "/".into(),
            query: query.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let items: Vec<Json> = (0..5).map(|item| json!(item)).collect();
        let (page, next) = paged(&request("MaxItems=2"), items.clone()).unwrap();
        assert_eq!((page, next), (items[..2].to_vec(), Some(2)));
        let (page, next) = paged(&request("MaxItems=3&Marker=2"), items.clone()).unwrap();
        assert_eq!((page, next), (items[2..].to_vec(), None));
        assert!(paged(&request("Marker=x"), items).is_err());
    }
}
