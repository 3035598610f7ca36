//! Messages on a connection: a length of four bytes, the most significant first, and as many bytes of JSON.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// The largest message, in bytes.
pub(super) const LARGEST: usize = 8 << 20;

/// The largest message of a peer that has not proved who it is, in bytes.
pub(super) const LARGEST_BEFORE_PROOF: usize = 1024;

/// Why a message was not read or written. The connection cannot be used any longer.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer has closed the connection, or its process has ended.
    #[error("the connection was closed")]
    Closed,
    /// No complete message came, or none could be sent, within the time for it.
    #[error("the peer was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// It is longer than allowed.
    #[error("a message of {length} bytes; at most {largest} are allowed")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The limit.
        largest: usize,
    },
    /// It is not a message of the protocol.
    #[error("not a message of the protocol: {0}")]
    Invalid(#[from] serde_json::Error),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a message of at most `largest` bytes. Not to be cancelled: what was read until then would be lost.
pub(super) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    largest: usize,
    within: Duration,
) -> Result<T, FrameError> {
    let body = timeout(within, read_body(from, largest)).await;
    let body = body.map_err(|_| FrameError::Silent(within))??;
    Ok(serde_json::from_slice(&body)?)
}

async fn read_body(from: &mut (impl AsyncRead + Unpin), largest: usize) -> Result<Vec<u8>, FrameError> {
    let closed = |err: io::Error| match err.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => FrameError::Closed,
        _ => FrameError::Io(err),
    };
    let length = from.read_u32().await.map_err(closed)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > largest {
        return Err(FrameError::TooLarge { length, largest });
    }
    // Memory is used as bytes come, not as the length says.
    let mut body = Vec::new();
    from.take(length as u64)
        .read_to_end(&mut body)
        .await
        .map_err(closed)?;
    if body.len() < length {
        return Err(FrameError::Closed);
    }
    Ok(body)
}

/// Writes a message.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
    within: Duration,
) -> Result<(), FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    let too_large = FrameError::TooLarge {
        length,
        largest: LARGEST,
    };
    let head = u32::try_from(length).ok().filter(|_| length <= LARGEST);
    let head = head.ok_or(too_large)?.to_be_bytes();
    for (place, byte) in bytes.iter_mut().zip(head) {
        *place = byte;
    }
    let written = timeout(within, async {
        to.write_all(&bytes).await?;
        to.flush().await
    });
    Ok(written.await.map_err(|_| FrameError::Silent(within))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    async fn sent(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        read(&mut &*bytes, 16, SOON).await
    }

    #[tokio::test]
    async fn a_message_comes_as_it_was_sent() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[1_u8, 2, 3], SOON).await.unwrap();
        assert_eq!(bytes, b"\0\0\0\x07[1,2,3]");
        assert_eq!(sent(&bytes).await.unwrap(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn anything_else_is_refused() {
        assert!(matches!(sent(b"").await, Err(FrameError::Closed)));
        assert!(matches!(sent(b"\0\0\0\x07[1,").await, Err(FrameError::Closed)));
        assert!(matches!(
            sent(b"\0\0\0\x03[1,").await,
            Err(FrameError::Invalid(_))
        ));
        assert!(matches!(
            sent(b"GET / HTTP/1.1\r\n\r\n").await,
            Err(FrameError::TooLarge { largest: 16, .. })
        ));
        let (mut ours, _theirs) = tokio::io::duplex(64);
        let silent = read::<u8>(&mut ours, 16, SOON).await;
        assert!(matches!(silent, Err(FrameError::Silent(_))), "{silent:?}");
        let long = "x".repeat(LARGEST);
        let refused = write(&mut ours, &long, SOON).await;
        assert!(matches!(refused, Err(FrameError::TooLarge { .. })));
        let stuck = write(&mut ours, &"x".repeat(100), SOON).await;
        assert!(matches!(stuck, Err(FrameError::Silent(_))), "{stuck:?}");
    }
}
