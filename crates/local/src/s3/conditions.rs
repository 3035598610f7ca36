//! Requests that depend on what an object is now.

use crate::clock;
use crate::wire::{Refusal, Request};

/// When a write is to happen.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteConditions {
    /// There must be no object.
    absent: bool,
    /// The object must have this entity tag.
    matching: Option<String>,
}

impl WriteConditions {
    /// The conditions of a request.
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let absent = match request.header("if-none-match") {
            None => false,
            Some("*") => true,
            Some(other) => {
                return Err(Refusal::new(
                    "NotImplemented",
                    format!("If-None-Match of a write must be *, not {other}"),
                )
                .status(501));
            }
        };
        let matching = request.header("if-match").map(|tag| unquoted(tag).to_owned());
        Ok(Self { absent, matching })
    }

    /// Checks them against the entity tag of what there is.
    pub(super) fn check(&self, old: Option<&str>) -> Result<(), Refusal> {
        if self.absent && old.is_some() {
            return Err(failed("If-None-Match"));
        }
        match (&self.matching, old) {
            (Some(_), None) => {
                Err(Refusal::new("NoSuchKey", "The specified key does not exist.").status(404))
            }
            (Some(tag), Some(old)) if tag != old && tag != "*" => Err(failed("If-Match")),
            _ => Ok(()),
        }
    }
}

/// Checks the conditions of a read, whose headers have some prefix, against an object's entity tag and time. An error
/// with status 304 means: not modified.
pub(super) fn check_read(
    request: &Request,
    prefix: &str,
    etag: &str,
    modified_ms: i64,
) -> Result<(), Refusal> {
    let header = |name: &str| request.header(&format!("{prefix}{name}"));
    let tagged = |tags: &str| {
        tags.split(',')
            .any(|tag| matches!(unquoted(tag), tag if tag == "*" || tag == etag))
    };
    let since = |name: &str| header(name).and_then(clock::from_http);
    // Headers have whole seconds.
    let modified = modified_ms.div_euclid(1000) * 1000;
    match (header("if-match"), since("if-unmodified-since")) {
        (Some(tags), _) if !tagged(tags) => return Err(failed("If-Match")),
        (None, Some(time)) if modified > time => return Err(failed("If-Unmodified-Since")),
        _ => {}
    }
    let same = match (header("if-none-match"), since("if-modified-since")) {
        (Some(tags), _) => tagged(tags),
        (None, Some(time)) => modified <= time,
        (None, None) => false,
    };
    match same {
        true if prefix.is_empty() => Err(Refusal::new("NotModified", "Not Modified").status(304)),
        true => Err(failed("If-None-Match")),
        false => Ok(()),
    }
}

fn unquoted(tag: &str) -> &str {
    tag.trim().trim_start_matches("W/").trim_matches('"')
}

fn failed(condition: &str) -> Refusal {
    Refusal::new(
        "PreconditionFailed",
        format!("At least one of the pre-conditions you specified did not hold: {condition}"),
    )
    .status(412)
}
