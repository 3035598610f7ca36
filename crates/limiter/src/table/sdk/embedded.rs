//! An SDK client whose HTTP layer hands each request to the embedded engine.

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::config::auth::{Params as AuthParams, ResolveAuthScheme};
use aws_sdk_dynamodb::config::endpoint::{
    Endpoint, EndpointFuture, Params as EndpointParams, ResolveEndpoint,
};
use aws_sdk_dynamodb::config::{
    ConfigBag, IdentityCache, Region, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_runtime_api::client::auth::{AuthSchemeId, AuthSchemeOption, AuthSchemeOptionsFuture};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::table::EmbeddedEngine;
use crate::table::config::LOCAL_REGION;

/// The SDK's id of "no signature"; see `aws_smithy_runtime::client::auth::no_auth`.
const NO_AUTH: AuthSchemeId = AuthSchemeId::new("noAuth");

/// Where requests seem to go. They never do.
const ENDPOINT: &str = "http://embedded.invalid";

impl EmbeddedEngine {
    /// A client of the AWS SDK for this engine. It may be used as any other, streams aside, which have a client type of
    /// their own: give that one [`http_client`](Self::http_client).
    pub fn sdk_client(&self) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static(LOCAL_REGION))
            .http_client(self.http_client())
            // Signing, endpoint rules and cached credentials are most of what the SDK does for a request.
            .allow_no_auth()
            .auth_scheme_resolver(Unsigned::default())
            .endpoint_resolver(Nowhere::default())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Client::from_conf(config.build())
    }

    /// The HTTP client that hands requests to this engine, for clients of `DynamoDB` and its streams.
    pub fn http_client(&self) -> impl HttpClient + Clone + 'static {
        EngineHttp {
            connector: SharedHttpConnector::new(EngineConnector { engine: self.clone() }),
        }
    }
}

/// The HTTP layer of a client of the engine.
#[derive(Debug, Clone)]
struct EngineHttp {
    connector: SharedHttpConnector,
}

impl HttpClient for EngineHttp {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        self.connector.clone()
    }
}

#[derive(Debug)]
struct EngineConnector {
    engine: EmbeddedEngine,
}

impl HttpConnector for EngineConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let engine = self.engine.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let body = request.body().bytes().unwrap_or_default().to_vec();
            let reply = engine.ask(target, body).await;
            let reply = reply.map_err(|err| ConnectorError::other(err.into(), None))?;
            match StatusCode::try_from(reply.status) {
                Ok(status) => Ok(HttpResponse::new(status, SdkBody::from(reply.body))),
                Err(err) => Err(ConnectorError::other(err.into(), None)),
            }
        })
    }
}

/// Picks "no signature" for every request.
#[derive(Debug)]
struct Unsigned {
    options: Vec<AuthSchemeOption>,
}

impl Default for Unsigned {
    fn default() -> Self {
        Self {
            options: vec![AuthSchemeOption::from(NO_AUTH)],
        }
    }
}

impl ResolveAuthScheme for Unsigned {
    fn resolve_auth_scheme<'a>(
        &'a self,
        _: &'a AuthParams,
        _: &'a ConfigBag,
        _: &'a RuntimeComponents,
    ) -> AuthSchemeOptionsFuture<'a> {
        AuthSchemeOptionsFuture::ready(Ok(self.options.clone()))
    }
}

/// Sends every request to the same place.
#[derive(Debug)]
struct Nowhere {
    endpoint: Endpoint,
}

impl Default for Nowhere {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::builder().url(ENDPOINT).build(),
        }
    }
}

impl ResolveEndpoint for Nowhere {
    fn resolve_endpoint<'a>(&'a self, _: &'a EndpointParams) -> EndpointFuture<'a> {
        EndpointFuture::ready(Ok(self.endpoint.clone()))
    }
}
