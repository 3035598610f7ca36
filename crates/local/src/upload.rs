//! A request's body, read to its end, if the client does its part.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest body that is kept: a package of functions may have 250 MB unpacked, and is far smaller packed.
pub const LARGEST: usize = 300 * 1024 * 1024;

/// From this many bytes on a body waits for [`Room`].
const SMALL: usize = 8 * 1024 * 1024;

/// How many larger bodies are in memory at once.
const LARGE_AT_ONCE: usize = 2;

/// How long a larger body waits until others have been dealt with.
const TURN: Duration = Duration::from_mins(1);

/// Room for larger bodies, which bounds the memory that they take together.
#[derive(Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_AT_ONCE)))
    }
}

/// A body, and the room that it takes up as long as this lives.
#[derive(Debug)]
pub struct Kept {
    /// The body.
    pub bytes: Bytes,
    /// Taken by a larger body.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The most that is read of a larger one. A client that is still sending does not see an answer, so the rest is thrown away
/// first. `S3` has no larger bodies.
const THROWN_AWAY: u64 = 5 * 1024 * 1024 * 1024;

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is larger than [`LARGEST`].
    #[error(
        "Your proposed upload exceeds the maximum allowed size: the local endpoint takes at most {LARGEST} bytes in one \
         request; send a larger object in parts"
    )]
    TooLarge,
    /// Others take up the room.
    #[error("Please reduce your request rate: other large uploads are under way")]
    Busy,
    /// The client did not continue.
    #[error("the body was not sent: nothing more of it came in time")]
    Silent,
    /// The connection or the client's encoding broke.
    #[error("the body could not be read: {0}")]
    Broken(String),
}

/// Reads a body. `awaits` tells that the client sends nothing of it until it is asked to; `patience` is how long each piece
/// may take.
///
/// # Errors
/// See [`Unread`].
pub async fn read<B>(body: B, awaits: bool, patience: Duration, room: &Room) -> Result<Kept, Unread>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = pin!(body);
    let announced = body.size_hint().lower();
    let mut is_large = announced > LARGEST as u64;
    if is_large && awaits {
        return Err(Unread::TooLarge);
    }
    let mut count: u64 = 0;
    let mut taken = None;
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(patience, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(err))) => return Err(Unread::Broken(err.to_string())),
            Err(_) => return Err(Unread::Silent),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        count += data.len() as u64;
        is_large |= count > LARGEST as u64;
        if count > SMALL as u64 && taken.is_none() && !is_large {
            let turn = tokio::time::timeout(TURN, Arc::clone(&room.0).acquire_owned()).await;
            taken = Some(turn.map_err(|_| Unread::Busy)?.map_err(|_| Unread::Busy)?);
        }
        if is_large {
            first = None;
            (all, taken) = (BytesMut::new(), None);
            if count > THROWN_AWAY {
                break;
            }
        } else if all.is_empty() && first.is_none() {
            // Most bodies are one piece, which need not be copied.
            first = Some(data);
        } else {
            if let Some(first) = first.take() {
                // What is announced may never come: room for the next pieces alone.
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    if is_large {
        return Err(Unread::TooLarge);
    }
    Ok(Kept {
        bytes: first.unwrap_or_else(|| all.freeze()),
        room: taken,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn read<B>(body: B, awaits: bool) -> Result<Bytes, Unread>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let kept = super::read(body, awaits, PATIENCE, &Room::default()).await;
        kept.map(|kept| kept.bytes)
    }

    type Piece = Result<Frame<Bytes>, Infallible>;

    #[expect(clippy::unnecessary_wraps, reason = "a body is made of results")]
    fn frame(data: &'static str) -> Piece {
        Ok(Frame::data(Bytes::from_static(data.as_bytes())))
    }

    #[tokio::test]
    async fn pieces_are_put_together() {
        for pieces in [
            vec![],
            vec!["one"],
            vec!["", "one"],
            vec!["one", "two", "", "three"],
        ] {
            let body = StreamBody::new(stream::iter(pieces.clone()).map(frame));
            assert_eq!(read(body, false).await.unwrap(), pieces.concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_falls_silent_is_not_waited_for() {
        let body = StreamBody::new(stream::iter([frame("half")]).chain(stream::pending()));
        assert_eq!(read(body, false).await, Err(Unread::Silent));
        // Slow is not silent.
        let slow = stream::iter(["a", "b", "c"]).then(|piece| async move {
            tokio::time::sleep(PATIENCE / 2).await;
            frame(piece)
        });
        assert_eq!(read(StreamBody::new(slow), false).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn too_large_a_body_is_read_but_not_kept() {
        let piece = Bytes::from(vec![0; 1024 * 1024]);
        let pieces = LARGEST / piece.len() + 2;
        let mut taken = 0;
        let counted = stream::iter(0..pieces).map(|_| {
            taken += 1;
            Piece::Ok(Frame::data(piece.clone()))
        });
        assert_eq!(read(StreamBody::new(counted), false).await, Err(Unread::TooLarge));
        assert_eq!(taken, pieces);
    }

    #[tokio::test]
    async fn a_client_that_awaits_is_told_at_once() {
        struct Announced;
        impl Body for Announced {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                panic!("it was asked to send")
            }
            fn size_hint(&self) -> hyper::body::SizeHint {
                hyper::body::SizeHint::with_exact(LARGEST as u64 + 1)
            }
        }
        assert_eq!(read(Announced, true).await, Err(Unread::TooLarge));
        assert_eq!(read(Full::new(Bytes::from("a")), true).await.unwrap(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn larger_bodies_wait_for_each_other() {
        let room = Room::default();
        let body = |size: usize| Full::new(Bytes::from(vec![0; size]));
        let read = async |size| super::read(body(size), false, PATIENCE, &room).await;
        let mut kept = Vec::new();
        for _ in 0..LARGE_AT_ONCE {
            kept.push(read(SMALL + 1).await.unwrap());
        }
        assert_eq!(read(SMALL + 1).await.unwrap_err(), Unread::Busy);
        assert!(read(SMALL).await.unwrap().room.is_none());
        kept.pop();
        assert!(read(SMALL + 1).await.unwrap().room.is_some());
    }
}
