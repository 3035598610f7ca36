//! What functions and mappings need of the other services of the endpoint.

use std::fmt::Debug;

use bytes::Bytes;

use crate::logs::LogLine;
use crate::wire::Refusal;

/// The services beside Lambda. Calls block for a moment; an object may be of some megabytes.
pub trait Services: Debug + Send + Sync {
    /// Gets an object of S3.
    ///
    /// # Errors
    /// Such as `NoSuchKey`.
    fn object(&self, bucket: &str, key: &str) -> Result<Bytes, Refusal>;

    /// Sends a message to the queue of an ARN.
    ///
    /// # Errors
    /// If there is no such queue.
    fn send(&self, queue_arn: &str, body: &str) -> Result<(), Refusal>;

    /// Appends lines to a log, which is created if need be.
    ///
    /// # Errors
    /// If they could not be written.
    fn log(&self, region: &str, group: &str, stream: &str, lines: &[LogLine]) -> Result<(), Refusal>;
}
