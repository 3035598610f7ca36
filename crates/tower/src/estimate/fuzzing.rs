//! The readers of requests, for the targets in `fuzz/`.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::body::Replayed;
use super::count::Terms;
use super::{BytesPerToken, Estimate};

/// Three bytes to a token, 1,024 tokens of output, and 1,500 for an attachment, as a layer has them.
fn terms() -> Terms<'static> {
    Terms {
        tokenizer: const { &BytesPerToken(std::num::NonZeroU32::new(3).expect("3 is not 0")) },
        default_output: 1024,
        attachment: 1500,
    }
}

/// The estimate of a body that must be a JSON object.
pub fn estimate(body: &[u8]) -> Option<Estimate> {
    terms().of(body)
}

/// The estimate of any body.
pub fn estimate_of_bytes(body: &[u8]) -> Estimate {
    terms().of_bytes(body)
}

/// A body that arrives in pieces, as it is read and passed on; `None` if it is larger than the bound.
pub fn joined(pieces: &[&[u8]], max: usize) -> Option<Vec<u8>> {
    let body = Pieces(
        pieces
            .iter()
            .rev()
            .map(|piece| Bytes::copy_from_slice(piece))
            .collect(),
    );
    let cx = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(read) = pin!(Replayed::read(body, max)).poll(cx) else {
        panic!("a body that is there is waited for");
    };
    let mut body = pin!(read.ok()?);
    let told = body.bytes().to_vec();
    let mut passed = Vec::new();
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(cx) {
        passed.extend_from_slice(frame.data_ref().expect("there are no trailers"));
    }
    assert!(body.is_end_stream());
    assert_eq!(told, passed);
    Some(passed)
}

/// The pieces, the last one first.
struct Pieces(Vec<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }
}
