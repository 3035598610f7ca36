//! Requests to DynamoDB: its JSON protocol over HTTP, signed.
//!
//! [`DynamoClient`] does what the limiter needs of the SDK's client, for a fraction of the CPU. Configuration and providers of
//! credentials are the SDK's. `endpoint` finds the server, `identity` keeps the credentials, `sign` signs. `transport` sends
//! through `pool`, or through the HTTP client that a configuration brings. `request` and `answer` write and read bodies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE as CONTENT_TYPE_NAME, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;
use tokio::time::{Instant, timeout_at};
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use self::answer::ServiceError;
use self::endpoint::Place;
use self::identity::{Identity, Unsigned};
use self::sign::{CONTENT_TYPE, Signer};
use self::transport::{Answer, Transport, header, unsent};
use super::Timeouts;
use super::date::date_of;
#[cfg(feature = "embedded")]
use super::embedded::EmbeddedEngine;
use super::failure::{self, Access};
use crate::clock::TableOffset;

pub(super) mod answer;
mod endpoint;
mod identity;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod measured;
mod pool;
pub(super) mod request;
mod sign;
mod transport;

/// The version of the protocol, before the operation in `x-amz-target`.
const PROTOCOL: &str = "DynamoDB_20120810.";

const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const X_AMZ_TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// The name of this crate in `user-agent`.
const PRODUCT: &str = concat!("zae-limiter/", env!("CARGO_PKG_VERSION"));

/// A client of DynamoDB, of anything that speaks its protocol, or of the embedded engine.
///
/// Cheap to clone; clones share connections and credentials. It sends a request once. Only a request that was refused before
/// it was executed, because its credentials had expired or its signature had the time of a wrong clock, is sent again.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use zae_limiter::table::{Connection, DynamoTable};
///
/// let connection = Connection { region: Some("eu-west-1".into()), ..Connection::default() };
/// let table = DynamoTable::new(connection.client().await, "my-app");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct DynamoClient(Backend);

#[derive(Debug, Clone)]
enum Backend {
    Remote(Arc<Remote>),
    #[cfg(feature = "embedded")]
    Embedded(EmbeddedEngine),
}

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum Failed {
    /// The service answered with an error.
    Service(Box<ServiceError>),
    /// There is no answer, or none that can be read. For a request that only reads, `applied` is to be ignored.
    Lost(TableError),
}

impl Failed {
    /// What it means for a request of this kind.
    pub(super) fn into_error(self, access: Access) -> TableError {
        match self {
            Self::Service(err) => failure::of_service(*err, access),
            Self::Lost(err) => failure::for_access(err, access),
        }
    }
}

impl DynamoClient {
    /// A client of the region or endpoint of a configuration, with its credentials and HTTP client. Sends nothing yet.
    ///
    /// Retries and timeouts of the configuration do not apply: a write that is sent again after its answer was lost could be
    /// applied twice.
    pub fn new(config: &SdkConfig, timeouts: Timeouts) -> Self {
        Self(Backend::Remote(Arc::new(Remote::new(config, timeouts))))
    }

    #[cfg(feature = "embedded")]
    pub(super) fn embedded(engine: EmbeddedEngine) -> Self {
        Self(Backend::Embedded(engine))
    }

    /// Runs an operation that this crate has no type for, such as `DescribeTable`, and returns its answer.
    ///
    /// `access` says whether it writes.
    ///
    /// # Errors
    /// As for all requests to a table: [`TableError`] tells whether something may have been changed.
    pub async fn request(&self, operation: &str, access: Access, request: &Json) -> Result<Json, TableError> {
        let body = self.send(operation, request.to_string().into_bytes()).await;
        let body = body.map_err(|err| err.into_error(access))?;
        answer::read(operation, &body).map_err(|err| failure::for_access(err, access))
    }

    /// Whether a request can arrive twice, because its answer was lost on a network.
    pub(super) fn may_repeat(&self) -> bool {
        match &self.0 {
            Backend::Remote(_) => true,
            #[cfg(feature = "embedded")]
            Backend::Embedded(_) => false,
        }
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> Option<&str> {
        match &self.0 {
            Backend::Remote(remote) => remote.region.as_deref(),
            #[cfg(feature = "embedded")]
            Backend::Embedded(_) => None,
        }
    }

    /// The offset of this machine's clock from the service's.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(
            clippy::unnecessary_wraps,
            reason = "the embedded engine has no clock of its own"
        )
    )]
    pub(crate) fn offset(&self) -> Option<&Arc<TableOffset>> {
        match &self.0 {
            Backend::Remote(remote) => Some(&remote.offset),
            #[cfg(feature = "embedded")]
            Backend::Embedded(_) => None,
        }
    }

    /// Sends a request, and returns the body of the answer.
    pub(super) async fn send(&self, operation: &str, body: Vec<u8>) -> Result<Bytes, Failed> {
        match &self.0 {
            Backend::Remote(remote) => remote.send(operation, body.into()).await,
            #[cfg(feature = "embedded")]
            Backend::Embedded(engine) => {
                let reply = engine.ask(operation, body).await.map_err(Failed::Lost)?;
                if reply.status == 200 {
                    Ok(reply.body.into())
                } else {
                    Err(Failed::Service(Box::new(ServiceError::read(
                        reply.status,
                        None,
                        None,
                        reply.body.as_bytes(),
                    ))))
                }
            }
        }
    }
}

/// A server.
struct Remote {
    transport: Transport,
    identity: Identity,
    region: Option<String>,
    user_agent: HeaderValue,
    attempt: Duration,
    operation: Duration,
    offset: Arc<TableOffset>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("identity", &self.identity)
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

impl Remote {
    fn new(config: &SdkConfig, timeouts: Timeouts) -> Self {
        let app = config.app_name().map(|name| format!(" app/{name}"));
        Self {
            transport: Transport::new(config, timeouts.connect),
            identity: Identity::new(config.credentials_provider(), Place::of(config)),
            region: config.region().map(ToString::to_string),
            user_agent: HeaderValue::from_str(&format!("{PRODUCT}{}", app.unwrap_or_default()))
                .unwrap_or(HeaderValue::from_static(PRODUCT)),
            attempt: timeouts.attempt,
            operation: timeouts.operation,
            offset: Arc::new(TableOffset::of_this_machine()),
        }
    }

    async fn send(&self, operation: &str, body: Bytes) -> Result<Bytes, Failed> {
        let deadline = after(self.operation);
        let doubtful = self.offset.doubtful_signature();
        let signer = self.signer(deadline).await?;
        let first = self.attempt(&signer, operation, body.clone(), deadline).await;
        let Err(Failed::Service(err)) = &first else {
            return first;
        };
        if !failure::is_refused(&err.code, err.status) {
            return first;
        }
        let is_worth_another = if err.are_credentials_expired() {
            self.identity.forget(&signer, self.offset.signing_seconds())
        } else {
            doubtful.is_some_and(|signed| self.offset.was_too_far_off(signed))
        };
        if !is_worth_another {
            return first;
        }
        // It was not executed.
        let signer = self.signer(deadline).await?;
        let mut second = self.attempt(&signer, operation, body, deadline).await;
        if let Err(Failed::Service(err)) = &mut second
            && failure::is_refused(&err.code, err.status)
            && let Some(clock) = self.offset.too_far_off()
        {
            err.add(&clock);
        }
        second
    }

    /// The signer. Nothing is sent to the table before it is there.
    async fn signer(&self, deadline: Instant) -> Result<Arc<Signer>, Failed> {
        let now = self.offset.signing_seconds();
        if let Some(signer) = self.identity.ready(now) {
            return Ok(signer);
        }
        let unsent = |kind, message: String| Failed::Lost(TableError::new(kind, Applied::No, message));
        match timeout_at(deadline, self.identity.signer(now)).await {
            Ok(Ok(signer)) => Ok(signer),
            Ok(Err(Unsigned::Credentials(err))) => Err(Failed::Lost(failure::of_credentials(&err))),
            Ok(Err(Unsigned::Endpoint(reason))) => Err(unsent(
                FailureKind::BadRequest,
                format!("there is no endpoint: {reason}"),
            )),
            Err(_) => Err(unsent(
                FailureKind::Unreachable,
                "credentials were not loaded in time".to_owned(),
            )),
        }
    }

    /// Sends a request once.
    async fn attempt(
        &self,
        signer: &Signer,
        operation: &str,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Failed> {
        let headers = self.headers(signer, operation, &body).map_err(Failed::Lost)?;
        let uri = signer.endpoint().uri.as_ref();
        let uri = uri.ok_or_else(|| Failed::Lost(unsent("the endpoint is not a URL")))?;
        let deadline = deadline.min(after(self.attempt));
        let sent = self.offset.read();
        match timeout_at(deadline, self.transport.send(uri, headers, body)).await {
            Ok(Ok(answer)) => {
                if let Some(date) = date_of(|name| answer.header(name)) {
                    self.offset.answered(sent, date);
                }
                read(&answer)
            }
            Ok(Err(err)) => Err(Failed::Lost(err)),
            Err(_) => {
                let message = format!("no answer within {:?}", self.operation.min(self.attempt));
                let err = TableError::new(FailureKind::Timeout, Applied::Unknown, message);
                Err(Failed::Lost(err))
            }
        }
    }

    fn headers(&self, signer: &Signer, operation: &str, body: &[u8]) -> Result<HeaderMap, TableError> {
        let target = [PROTOCOL, operation].concat();
        let signature = signer.sign(&target, body, self.offset.signing_seconds());
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE_NAME, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(HOST, header("host", &signer.endpoint().host)?);
        headers.insert(X_AMZ_TARGET, header("x-amz-target", &target)?);
        headers.insert(X_AMZ_DATE, header("x-amz-date", &signature.date)?);
        if let Some(token) = signer.token() {
            headers.insert(
                X_AMZ_SECURITY_TOKEN,
                secret(header("x-amz-security-token", token)?),
            );
        }
        headers.insert(
            AUTHORIZATION,
            secret(header("authorization", &signature.authorization)?),
        );
        Ok(headers)
    }
}

/// A header's value that is not to be printed.
fn secret(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// The end of a time that begins now.
fn after(time: Duration) -> Instant {
    // Some years stand for "no limit" where the time is too long to be added.
    let now = Instant::now();
    now.checked_add(time)
        .unwrap_or_else(|| now + Duration::from_secs(1 << 30))
}

/// Reads an answer.
fn read(answer: &Answer) -> Result<Bytes, Failed> {
    let lost = |message: &str| Err(Failed::Lost(failure::damaged(message.to_owned())));
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let body = &answer.body;
    if let Some(told) = answer
        .header("x-amz-crc32")
        .and_then(|text| text.parse::<u32>().ok())
        && crc32fast::hash(body) != told
    {
        return lost("the answer was damaged on its way: its checksum does not match");
    }
    if !(200..300).contains(&answer.status) {
        let (id, code) = (header("x-amzn-requestid"), header("x-amzn-errortype"));
        let mut err = ServiceError::read(answer.status, id, code, body);
        if let Some(location) = answer.header("location") {
            err.add(&format!("redirected to {location}"));
        }
        return Err(Failed::Service(Box::new(err)));
    }
    if body.is_empty() {
        return lost(failure::EMPTY);
    }
    Ok(body.clone())
}
