//! A part of the path as a key.

use std::borrow::Cow;

use http::StatusCode;
use http::request::Parts;

use super::Key;
use crate::rejection::Rejection;

/// A segment of the path: see [`segment`].
#[derive(Debug, Clone, Copy)]
pub struct Segment(usize);

/// The segment of the path at an index, from 0: of `/v1/models/gpt-4`, the one at 2 is `gpt-4`. As it is sent, so that a name
/// with escapes is refused. A path that is shorter is answered with status 404.
///
/// As a resource, it lets clients name any resource. Where the system level has limits, each new one is a bucket that is full.
pub fn segment(index: usize) -> Segment {
    Segment(index)
}

impl Key for Segment {
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        let path = request.uri.path().trim_start_matches('/');
        let mut segments = path.split('/');
        let segment = segments.nth(self.0).filter(|segment| !segment.is_empty());
        segment.map(Cow::Borrowed).ok_or_else(|| {
            let message = format!("the path has no segment {}", self.0);
            Rejection::new(StatusCode::NOT_FOUND, "not_found", message)
        })
    }
}
