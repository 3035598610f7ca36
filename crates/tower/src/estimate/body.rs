//! Reads a body up to a bound, and passes on what was read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a request that was read to estimate its tokens, once more.
    pub struct Replayed<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Passed { #[pin] body: B },
        Read { bytes: Option<Bytes>, trailers: Option<HeaderMap> },
    }
}

/// Why a body was not read.
pub(super) enum Unread {
    TooLarge,
    /// The client has gone, or sends malformed HTTP.
    Broken,
}

impl<B> Replayed<B> {
    /// A body that nothing was read of.
    pub(crate) fn passed(body: B) -> Self {
        Self {
            kind: Kind::Passed { body },
        }
    }

    /// The bytes that were read.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.kind {
            Kind::Read {
                bytes: Some(bytes), ..
            } => bytes,
            _ => &[],
        }
    }
}

impl<B: Body> Replayed<B> {
    /// Reads a body of up to `max` bytes.
    pub(super) async fn read(body: B, max: usize) -> Result<Self, Unread> {
        let expected = body.size_hint().lower();
        if expected > max as u64 {
            return Err(Unread::TooLarge);
        }
        // Pieces are joined as they come: kept apart, each would take 32 bytes, also if it has one.
        let mut body = std::pin::pin!(body);
        let (mut first, mut all): (Option<Bytes>, BytesMut) = (None, BytesMut::new());
        let mut trailers = None;
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(|_| Unread::Broken)?;
            match frame.into_data() {
                Ok(mut data) => {
                    let read = first.as_ref().map_or(0, Bytes::len) + all.len();
                    if data.remaining() > max - read {
                        return Err(Unread::TooLarge);
                    }
                    if read == 0 {
                        // Most come in one piece, of which no copy is made.
                        first = Some(data.copy_to_bytes(data.remaining()));
                        continue;
                    }
                    if let Some(first) = first.take() {
                        all.reserve(
                            usize::try_from(expected)
                                .unwrap_or(0)
                                .max(first.len() + data.remaining()),
                        );
                        all.extend_from_slice(&first);
                    }
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        all.extend_from_slice(chunk);
                        let read = chunk.len();
                        data.advance(read);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let bytes = first.unwrap_or_else(|| all.freeze());
        Ok(Self {
            kind: Kind::Read {
                bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
                trailers,
            },
        })
    }
}

impl<B: Body<Data = Bytes>> Body for Replayed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Passed { body } => body.poll_frame(cx),
            KindProjection::Read { bytes, trailers } => {
                let data = bytes.take().map(Frame::data);
                let frame = data.or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Read { bytes, trailers } => bytes.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Read { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl<B> fmt::Debug for Replayed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayed").finish_non_exhaustive()
    }
}
