//! A DynamoDB that always gives the same answer, but for the key, to see what the client side alone costs.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

/// How the partition key begins in a request.
const PK: &[u8] = br#""PK":{"S":""#;

/// Answers every update with the item of its key.
#[derive(Debug, Clone)]
pub(crate) struct Canned {
    /// The body of an update's answer, before and after the partition key.
    pub(crate) body: std::sync::Arc<(String, String)>,
}

/// The partition key of a request, which needs no escapes here.
fn partition_key(body: &[u8]) -> &str {
    let begin = body.windows(PK.len()).position(|part| part == PK);
    let rest = begin.map_or(&[][..], |begin| &body[begin + PK.len()..]);
    let end = rest.iter().position(|byte| *byte == b'"').unwrap_or_default();
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let pk = partition_key(request.body().bytes().unwrap_or_default());
        let body = SdkBody::from([&*self.body.0, pk, &*self.body.1].concat());
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
