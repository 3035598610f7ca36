//! A DynamoDB that always gives the same answer, to see what the client side alone costs.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

/// Answers every update with one item, and passes everything else on.
#[derive(Debug, Clone)]
pub(crate) struct Canned {
    /// The body of an update's answer.
    pub(crate) body: std::sync::Arc<str>,
}

impl HttpConnector for Canned {
    fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
        let body = SdkBody::from(self.body.to_string());
        let status = StatusCode::try_from(200);
        HttpConnectorFuture::new(async move {
            let status = status.map_err(|err| {
                aws_smithy_runtime_api::client::result::ConnectorError::other(err.into(), None)
            })?;
            Ok(HttpResponse::new(status, body))
        })
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
