//! The HTTP layer: connections of this client, or the HTTP client that the configuration brings.

use std::time::Duration;

use aws_smithy_async::rt::sleep::default_async_sleep;
use aws_smithy_runtime::client::auth::no_auth::{NO_AUTH_SCHEME_ID, NoAuthScheme};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::identity::no_auth::NoAuthIdentityResolver;
use aws_smithy_runtime::client::orchestrator::endpoints::StaticUriEndpointResolver;
use aws_smithy_runtime::client::retries::strategy::NeverRetryStrategy;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{
    BuildError, RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::SdkConfig;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::Full;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use super::pool::{self, Pool};
use crate::table::{failure, past_proxies};

/// The way to a server.
#[derive(Debug)]
pub(super) enum Transport {
    Own(Pool),
    /// An HTTP client of the application, or one for the proxy that the environment names.
    Foreign(SharedHttpConnector),
    /// A foreign client that cannot be used.
    Unusable(String),
}

/// An answer of a server.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Transport {
    pub(super) fn new(config: &SdkConfig, connect: Duration) -> Self {
        let Some(client) = config.http_client().or_else(past_proxies::client) else {
            return Self::Own(Pool::new(connect));
        };
        let settings = HttpConnectorSettings::builder().connect_timeout(connect).build();
        match components(config, &client) {
            Ok(components) => Self::Foreign(client.http_connector(&settings, &components)),
            Err(err) => Self::Unusable(err.to_string()),
        }
    }

    /// Sends a request by `POST`.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub(super) async fn send(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, TableError> {
        match self {
            Self::Own(pool) => own(pool, uri, headers, body).await,
            Self::Foreign(connector) => foreign(connector, uri, headers, body).await,
            Self::Unusable(err) => Err(unsent(&format!("the HTTP client cannot be used: {err}"))),
        }
    }
}

async fn own(pool: &Pool, uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, TableError> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = http::Method::POST;
    // A server, unlike a proxy, is sent the path alone.
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path
        .parse()
        .map_err(|_| unsent("the endpoint's path is not valid"))?;
    *request.headers_mut() = headers;
    match pool.exchange(uri, request).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            })
        }
        Err(pool::Failure::Unconnected(err)) => Err(failure::unconnected(&*err)),
        Err(pool::Failure::Lost(err)) => Err(failure::lost(err)),
        Err(pool::Failure::CutOff(err)) => Err(failure::cut_off(&*err)),
    }
}

async fn foreign(
    connector: &SharedHttpConnector,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, TableError> {
    let length = body.len();
    let mut request = Request::new(SdkBody::from(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    request.headers_mut().insert(CONTENT_LENGTH, length.into());
    let request = HttpRequest::try_from(request).map_err(|err| unsent(&failure::chain(&err)))?;
    let answer = connector.call(request).await.map_err(failure::of_connector)?;
    let answer = answer.try_into_http1x();
    let answer = answer.map_err(|err| failure::of_connector(ConnectorError::other(err.into(), None)))?;
    let (head, body) = answer.into_parts();
    let body = ByteStream::new(body).collect().await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.map_err(|err| failure::cut_off(&err))?.into_bytes(),
    })
}

/// A request that was not sent.
pub(super) fn unsent(reason: &str) -> TableError {
    let message = format!("the request cannot be sent: {reason}");
    TableError::new(FailureKind::BadRequest, Applied::No, message)
}

/// A header's value.
pub(super) fn header(name: &str, value: &str) -> Result<HeaderValue, TableError> {
    // The value may be secret.
    let refused = |_| {
        unsent(&format!(
            "the header {name} has a character that headers cannot have"
        ))
    };
    HeaderValue::from_str(value).map_err(refused)
}

/// What an HTTP client may ask for: how to sleep, and the time. The rest must be there and is not used.
fn components(config: &SdkConfig, client: &SharedHttpClient) -> Result<RuntimeComponents, BuildError> {
    RuntimeComponentsBuilder::new("zae-limiter")
        .with_http_client(Some(client.clone()))
        .with_sleep_impl(config.sleep_impl().or_else(default_async_sleep))
        .with_time_source(Some(config.time_source().unwrap_or_default()))
        .with_auth_scheme(NoAuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![NO_AUTH_SCHEME_ID])))
        .with_endpoint_resolver(Some(StaticUriEndpointResolver::http_localhost(0)))
        .with_identity_cache(Some(IdentityCache::no_cache()))
        .with_identity_resolver(NO_AUTH_SCHEME_ID, NoAuthIdentityResolver::new())
        .with_retry_strategy(Some(NeverRetryStrategy::new()))
        .build()
}
