//! [`ResponseBody`]: the body of a response, which ends a lease.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::settle::Held;

pin_project! {
    /// The body of a response of [`RateLimit`](crate::RateLimit): that of the service, passed on piece by piece as it comes, or that of a
    /// refusal.
    ///
    /// When the body has ended, the lease of the request ends. A body that is dropped before is one whose client has gone.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Passed { #[pin] body: B },
        Held { #[pin] body: B, tail: Tail },
        Full { bytes: Option<Bytes> },
    }
}

/// What is left of a request while its response is sent.
struct Tail {
    /// `None` once the lease has ended.
    held: Option<Held>,
    /// How many bytes are to come, if that is known. A server can stop asking after them, and drops the body.
    left: Option<u64>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        if self.left == Some(0) {
            self.finish();
        }
    }
}

impl Tail {
    fn data(&mut self, data: &Bytes) {
        if let Some(held) = &mut self.held {
            held.read(data);
        }
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
    }

    fn finish(&mut self) {
        if let Some(mut held) = self.held.take() {
            held.finish();
        }
    }
}

impl<B> ResponseBody<B> {
    /// A body that nothing hangs on.
    pub(crate) fn passed(body: B) -> Self {
        Self {
            kind: Kind::Passed { body },
        }
    }

    /// The body of a refusal.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Full {
                bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
            },
        }
    }
}

impl<B: Body> ResponseBody<B> {
    /// A body at whose end a lease ends. A server goes by the field `content-length`, if the response has one.
    pub(crate) fn held(body: B, content_length: Option<u64>, mut held: Held) -> Self {
        let left = content_length.or_else(|| body.size_hint().exact());
        if body.is_end_stream() {
            held.finish();
            return Self::passed(body);
        }
        let tail = Tail {
            held: Some(held),
            left,
        };
        Self {
            kind: Kind::Held { body, tail },
        }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Passed { body } => body.poll_frame(cx),
            KindProjection::Full { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            KindProjection::Held { mut body, tail } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                match &frame {
                    None => tail.finish(),
                    // It has not ended: the lease ends when this is dropped.
                    Some(Err(_)) => {}
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            tail.data(data);
                        }
                        if let (Some(trailers), Some(held)) = (frame.trailers_ref(), &mut tail.held) {
                            held.trailers(trailers);
                        }
                        if frame.is_trailers() || body.is_end_stream() {
                            tail.finish();
                        }
                    }
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } | Kind::Held { body, .. } => body.is_end_stream(),
            Kind::Full { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } | Kind::Held { body, .. } => body.size_hint(),
            Kind::Full { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::passed(B::default())
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
