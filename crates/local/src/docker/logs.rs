//! The container's log.

use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};

use super::Docker;
use super::contract::CONTAINER;
use super::error::{self, Error};

impl Docker {
    /// Reads the last lines that the container wrote to its standard output and standard error, in the order in which
    /// the daemon has them, as they are. With `follow`, what it writes from then on follows, until the container ends.
    ///
    /// A piece may end anywhere, also within a character ([`LossyText`](super::LossyText)). The first error ends the stream: [`Error::Removed`] if the
    /// container was removed meanwhile, [`Error::Lost`] if the daemon is no longer there.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is no container; [`Error::Lost`] if the daemon does not answer.
    pub async fn logs(
        &self,
        tail: u64,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        let found = self.inspect().await.map_err(|err| Error::lost(&err))?;
        if found.is_none() {
            return Err(Error::NotRunning);
        }
        let pieces = self.log_pieces(tail, follow);
        let docker = self.clone();
        let reading = Some((pieces, docker));
        Ok(Box::pin(stream::unfold(reading, move |reading| async move {
            let (mut pieces, docker) = reading?;
            match pieces.next().await {
                Some(Ok(piece)) => Some((Ok(piece), Some((pieces, docker)))),
                Some(Err(err)) => Some((Err(read_error(&err)), None)),
                // The log of a removed container just ends.
                None if follow => match docker.inspect().await {
                    Ok(Some(_)) => None,
                    Ok(None) => Some((Err(Error::Removed), None)),
                    Err(err) => Some((Err(Error::lost(&err)), None)),
                },
                None => None,
            }
        })))
    }

    /// The last lines as text, for a container that is not expected to write more.
    pub(super) async fn last_lines(&self, tail: u64) -> Result<Vec<String>, bollard::errors::Error> {
        let log = self
            .log_pieces(tail, false)
            .try_fold(Vec::new(), |mut log, piece| async move {
                log.extend_from_slice(&piece);
                Ok(log)
            })
            .await?;
        Ok(String::from_utf8_lossy(&log).lines().map(str::to_owned).collect())
    }

    fn log_pieces(
        &self,
        tail: u64,
        follow: bool,
    ) -> impl Stream<Item = Result<Bytes, bollard::errors::Error>> + Send + Unpin + use<> {
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            tail: tail.to_string(),
            ..LogsOptions::default()
        };
        self.client
            .logs(CONTAINER, Some(options))
            .map_ok(bollard::container::LogOutput::into_bytes)
    }
}

/// A container that is being removed has no log any more.
fn read_error(err: &bollard::errors::Error) -> Error {
    if error::is_status(err, 404) || error::says(err, 409, "marked for removal") {
        Error::Removed
    } else {
        Error::lost(err)
    }
}
