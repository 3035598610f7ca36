//! Which requests are answered, and what a test may be asked for.

use std::net::IpAddr;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use serde::{Deserialize, Serialize};

/// The header in which a browser says which page a request is from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The largest number of users, and of users that start in a second.
const MOST: u64 = 1_000_000;

/// The lowest rate, in tasks per second.
const SLOWEST: f64 = 0.001;

/// The longest test, in seconds.
const LONGEST: u64 = 604_800;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// A line for the user.
    pub why: String,
}

impl Refusal {
    pub(super) fn new(status: u16, why: impl Into<String>) -> Self {
        Self {
            status,
            why: why.into(),
        }
    }
}

/// A number of users for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WishedStage {
    /// How many users.
    pub users: u64,
    /// For how many milliseconds.
    pub millis: u64,
}

/// A test that the page asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with users, spawn_rate and seconds"
)]
pub struct Wish {
    /// How many users. With `stages`, it has no effect.
    pub users: u64,
    /// Users that start in a second.
    pub spawn_rate: u64,
    /// The length in seconds; `None` for a test that runs until it is stopped. With `stages`, it has no effect.
    pub seconds: Option<u64>,
    /// The classes that take part; all, if there is none.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Users over time.
    #[serde(default)]
    pub stages: Vec<WishedStage>,
    /// The seed of random choices; `None` for another one each time.
    #[serde(default)]
    pub seed: Option<u64>,
    /// For an open loop: how many tasks are due in a second, with all users from the start. Not for several `stages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// The most stages of a test.
const STAGES: usize = 1000;

impl Wish {
    /// Reads and checks a wish.
    pub(super) fn read(body: &[u8], known: &[String]) -> Result<Self, Refusal> {
        let bad = |why: String| Refusal::new(400, why);
        let wish: Self =
            serde_json::from_slice(body).map_err(|err| bad(format!("invalid request: {err}")))?;
        let numbers = [
            ("users", Some(wish.users), MOST),
            ("spawn_rate", Some(wish.spawn_rate), MOST),
            ("seconds", wish.seconds, LONGEST),
        ];
        if wish.stages.len() > STAGES {
            return Err(bad(format!(
                "invalid stages: there are {}, at most {STAGES} are allowed",
                wish.stages.len()
            )));
        }
        if let Some(stage) = wish.stages.iter().find(|stage| stage.users > MOST) {
            return Err(bad(format!(
                "invalid stages.users '{}': expected 0 to {MOST}",
                stage.users
            )));
        }
        let lengths = wish
            .stages
            .iter()
            .map(|stage| ("stages.millis", Some(stage.millis), LONGEST * 1000));
        for (field, value, most) in numbers.into_iter().chain(lengths) {
            if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
                return Err(bad(format!("invalid {field} '{value}': expected 1 to {most}")));
            }
        }
        if let Some(rate) = wish.rate {
            if !(SLOWEST..=MOST as f64).contains(&rate) {
                return Err(bad(format!(
                    "invalid rate '{rate}': expected {SLOWEST} to {MOST}"
                )));
            }
            if wish.stages.len() > 1 {
                return Err(bad(format!(
                    "invalid rate '{rate}': stages set the number of users over time; leave one of them out"
                )));
            }
        }
        if let Some(class) = wish.classes.iter().find(|class| !known.contains(class)) {
            return Err(bad(format!(
                "invalid class '{class}': expected one of {}",
                known.join(", ")
            )));
        }
        Ok(wish)
    }
}

/// Refuses requests of other web pages, and of names that are not this machine's.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &HeaderName| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let host = text(&HOST).unwrap_or_default();
    if !is_own(&host) {
        return Err(Refusal::new(
            403,
            format!("the host '{host}' is not a name of this machine: use localhost"),
        ));
    }
    if let Some(origin) = text(&ORIGIN)
        && origin != format!("http://{host}")
    {
        return Err(Refusal::new(403, format!("requests of {origin} are refused")));
    }
    if let Some(site) = text(&FETCH_SITE)
        && !["none", "same-origin"].contains(&&*site)
    {
        return Err(Refusal::new(
            403,
            format!("{site} requests of web pages are refused"),
        ));
    }
    if method == Method::POST {
        let kind = text(&CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // Forms of other pages cannot have it.
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::new(415, "the content type must be application/json"));
        }
    }
    Ok(())
}

/// Whether a host, with or without a port, is this machine as seen by itself.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = address.unwrap_or(name).parse::<IpAddr>();
    address.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn checked(method: &Method, headers: &[(&'static str, &'static str)]) -> Option<u16> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        check(method, &headers).err().map(|refusal| refusal.status)
    }

    #[test]
    fn only_the_page_itself_and_programs_may_ask() {
        let own = ("host", "localhost:8089");
        let get = |more: &[(&'static str, &'static str)]| checked(&Method::GET, &[&[own], more].concat());
        assert_eq!(get(&[]), None);
        assert_eq!(get(&[("origin", "http://localhost:8089")]), None);
        assert_eq!(get(&[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(get(&[("sec-fetch-site", "none")]), None);
        for header in [
            ("origin", "http://localhost:9000"),
            ("origin", "https://localhost:8089"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert_eq!(get(&[header]), Some(403), "{header:?}");
        }
        for host in ["127.0.0.1:8089", "[::1]:8089", "LOCALHOST", "127.8.8.8"] {
            assert_eq!(checked(&Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example:8089",
            "localhost.evil.example",
            "192.168.0.4",
            "",
            "0.0.0.0",
        ] {
            assert_eq!(checked(&Method::GET, &[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(checked(&Method::GET, &[]), Some(403), "a request names its host");
        let post = |kind| checked(&Method::POST, &[own, ("content-type", kind)]);
        assert_eq!(post("application/json; charset=utf-8"), None);
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
        ] {
            assert_eq!(post(kind), Some(415), "{kind}");
        }
        assert_eq!(checked(&Method::POST, &[own]), Some(415));
    }

    #[test]
    fn wishes_are_checked_before_anything_is_made() {
        let known = ["A".to_owned(), "B".to_owned()];
        let read = |body: &str| Wish::read(body.as_bytes(), &known).map_err(|refusal| refusal.why);
        let wish = read(r#"{"users": 5, "spawn_rate": 2, "seconds": null, "classes": ["B"]}"#).unwrap();
        assert_eq!((wish.users, wish.spawn_rate, wish.seconds), (5, 2, None));
        assert_eq!(wish.classes, ["B"]);
        for (body, why) in [
            (
                r#"{"users": 0, "spawn_rate": 1, "seconds": 5}"#,
                "invalid users '0': expected 1 to 1000000",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1000001, "seconds": 5}"#,
                "invalid spawn_rate '1000001'",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1, "seconds": 0}"#,
                "invalid seconds '0': expected 1 to 604800",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1, "seconds": 1, "classes": ["C"]}"#,
                "invalid class 'C': expected one of A, B",
            ),
            (
                r#"{"users": -1, "spawn_rate": 1, "seconds": 1}"#,
                "invalid request: ",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1, "seconds": 1, "x": 1}"#,
                "invalid request: unknown field `x`",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1, "seconds": 1, "stages": [{"users": 0, "millis": 0}]}"#,
                "invalid stages.millis '0': expected 1 to 604800000",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1, "seconds": 1, "rate": 0}"#,
                "invalid rate '0': expected 0.001 to 1000000",
            ),
            (
                r#"{"users": 1, "spawn_rate": 1, "seconds": 1, "rate": 1,
                    "stages": [{"users": 1, "millis": 1}, {"users": 2, "millis": 1}]}"#,
                "invalid rate '1': stages set",
            ),
            ("", "invalid request: "),
        ] {
            let refused = read(body).unwrap_err();
            assert!(refused.starts_with(why), "{body}: {refused}");
        }
    }
}
