//! Who may ask: programs, and not the web pages that a browser on this machine shows.
//!
//! Signatures are not checked, so any page could send requests that need no special headers. Most requests of browsers
//! have their origin. The others still have the host name that the page used, and a page whose own domain resolves to
//! this machine cannot use another name.

use std::net::{IpAddr, Ipv6Addr};

use hyper::Method;
use hyper::header::{HOST, ORIGIN};

use crate::wire::{Refusal, Request};

/// The headers in which a browser sends the origin of a request.
const FETCH_SITE: &str = "sec-fetch-site";

/// The names that always resolve to the own machine; names below them do, too.
const OWN_NAMES: [&str; 3] = ["localhost", "localhost.localstack.cloud", "host.docker.internal"];

/// The prefixes of actions that change nothing.
const READS: [&str; 4] = ["Describe", "Get", "List", "Validate"];

/// Checks that a request does not come from a web page. `is_local` tells that it came in at a loopback address.
///
/// # Errors
/// Why it is refused.
pub fn check(request: &Request, is_local: bool) -> Result<(), Refusal> {
    if let Some(origin) = request.headers.get(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        return Err(denied(format!(
            "requests of web pages are refused: this one comes from {origin}"
        )));
    }
    if let Some(site) = request.headers.get(FETCH_SITE) {
        let site = String::from_utf8_lossy(site.as_bytes());
        // An address that was typed, and what the endpoint's own objects refer to.
        if !["none", "same-origin"].contains(&&*site) {
            return Err(denied(format!(
                "requests of web pages are refused: the browser says that this one is {site}"
            )));
        }
    }
    if let Some(host) = request.headers.get(HOST)
        && is_local
    {
        let host = String::from_utf8_lossy(host.as_bytes());
        if !is_own(&host) {
            return Err(denied(format!(
                "the host {host} is not a name of this machine: the endpoint listens on loopback only, as \
                 localhost, a name below it, or the address that it listens on; 'local up --host' chooses another address"
            )));
        }
    }
    if let Some(action) = changing_action(request) {
        return Err(denied(format!(
            "{action} may change something, so it must be sent by POST, not by {}",
            request.method
        )));
    }
    Ok(())
}

fn denied(message: String) -> Refusal {
    Refusal::new("AccessDenied", message).status(403)
}

/// Whether a host, with or without a port, is this machine as seen by itself.
fn is_own(host: &str) -> bool {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let address = address.parse::<Ipv6Addr>();
        return address.is_ok_and(|ip| IpAddr::V6(ip).to_canonical().is_loopback());
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if let Ok(ip) = name.parse::<IpAddr>() {
        return ip.to_canonical().is_loopback();
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    OWN_NAMES.iter().any(|own| {
        name.strip_suffix(own)
            .is_some_and(|below| below.is_empty() || below.ends_with('.'))
    })
}

/// The action that a query protocol's address names, if it may change something and the method says that it does not.
fn changing_action(request: &Request) -> Option<String> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return None;
    }
    let action = request.query("Action").filter(|action| !action.is_empty())?;
    let scope = request.scope().map(|(_, service)| service).unwrap_or_default();
    // The other services do not look at it.
    let is_looked_at = !matches!(scope.as_str(), "s3" | "lambda");
    (is_looked_at && !READS.iter().any(|read| action.starts_with(read))).then_some(action)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn request(method: Method, query: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Request {
            method,
            path: "/".into(),
            query: query.into(),
            headers,
            body: Bytes::new(),
        }
    }

    #[test]
    fn web_pages_are_refused_whatever_they_send() {
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let refused = check(&request(Method::GET, "", &[(name, value)]), false).unwrap_err();
            assert_eq!(refused.status, 403, "{name}: {value}");
            assert!(refused.message.contains(value), "{refused}");
        }
        for site in ["none", "same-origin"] {
            let asked = request(
                Method::GET,
                "",
                &[("sec-fetch-site", site), ("host", "localhost:4566")],
            );
            assert_eq!(check(&asked, true), Ok(()), "{site}");
        }
        assert_eq!(check(&request(Method::POST, "", &[]), true), Ok(()));
    }

    #[test]
    fn names_of_others_are_refused_on_loopback() {
        for host in [
            "localhost",
            "LocalHost:4566",
            "localhost.:4566",
            "bucket.localhost:4566",
            "a.b.s3.localhost",
            "bucket.s3.localhost.localstack.cloud:4566",
            "host.docker.internal:4566",
            "127.0.0.1:4566",
            "127.1.2.3",
            "[::1]:4566",
            "[::ffff:127.0.0.1]:4566",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "",
            "evil.example:4566",
            "notlocalhost",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.5:4566",
            "0.0.0.0:4566",
            "[2001:db8::1]:4566",
            "[::1",
        ] {
            assert!(!is_own(host), "{host}");
        }
        let named = request(Method::GET, "", &[("host", "evil.example")]);
        assert!(check(&named, true).unwrap_err().message.contains("evil.example"));
        assert_eq!(check(&named, false), Ok(()), "others reach it by names of theirs");
    }

    #[test]
    fn addresses_that_change_something_are_refused() {
        let credential =
            |service: &str| format!("X-Amz-Credential=a%2F20261121%2Fus-east-1%2F{service}%2Faws4_request");
        for (service, action, is_refused) in [
            ("sqs", "DeleteQueue", true),
            ("sqs", "ReceiveMessage", true),
            ("cloudformation", "UpdateTerminationProtection", true),
            ("cloudformation", "describeStacks", true),
            ("cloudformation", "DescribeStacks", false),
            ("sts", "GetCallerIdentity", false),
            ("s3", "DeleteQueue", false),
        ] {
            let query = format!("Action={action}&{}", credential(service));
            for method in [Method::GET, Method::HEAD] {
                let answer = check(&request(method, &query, &[]), true);
                assert_eq!(answer.is_err(), is_refused, "{service} {action}");
            }
            assert_eq!(check(&request(Method::POST, &query, &[]), true), Ok(()));
        }
    }
}
