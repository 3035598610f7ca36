//! Answers that are ready, and that a client does not read.
//!
//! A client of HTTP/2 can read from its socket and nevertheless take no answer, because it opens no window for it. No write waits
//! then, so that a timeout of writes does not see it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// Marks a response that may last as long as its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasting;

/// The answers of one connection that are not sent completely, and since when. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unsent(Arc<Mutex<Begun>>);

#[derive(Debug, Default)]
struct Begun {
    count: u64,
    /// By number, and so in the order of time.
    since: BTreeMap<u64, Instant>,
}

impl Unsent {
    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer as unsent until its body has been taken.
    pub(crate) fn begin(&self, response: Response<Body>) -> Response<Sending> {
        let place = response.extensions().get::<Lasting>().is_none().then(|| {
            let mut begun = self.lock();
            begun.count += 1;
            let number = begun.count;
            begun.since.insert(number, Instant::now());
            Place {
                unsent: self.clone(),
                number,
            }
        });
        response.map(|body| Sending { body, _place: place })
    }

    /// Since when the oldest of them waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.lock().since.first_key_value().map(|(_, since)| *since)
    }
}

#[derive(Debug)]
struct Place {
    unsent: Unsent,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unsent.lock().since.remove(&self.number);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Sending {
    body: Body,
    _place: Option<Place>,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
