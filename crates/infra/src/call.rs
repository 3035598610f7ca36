//! Signed calls of services of which too little is used for their SDKs.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use serde_json::Value as Json;

use crate::aws::{ATTEMPT, CONNECT};
use crate::error::{AwsFailure, Error, refused, shown, unanswered, without_layers};

/// A service, and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Forms, answered in XML.
    Ec2,
    /// JSON.
    Ecs,
    /// JSON.
    DynamoDb,
}

impl Service {
    /// The name in host names and signatures.
    const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Ecs => "ecs",
            Self::DynamoDb => "dynamodb",
        }
    }

    /// The headers beside the usual ones.
    fn headers(self, operation: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Ec2 => vec![("content-type", "application/x-www-form-urlencoded".into())],
            Self::Ecs => vec![
                ("content-type", "application/x-amz-json-1.1".into()),
                (
                    "x-amz-target",
                    format!("AmazonEC2ContainerServiceV20141113.{operation}"),
                ),
            ],
            Self::DynamoDb => vec![
                ("content-type", "application/x-amz-json-1.0".into()),
                ("x-amz-target", format!("DynamoDB_20120810.{operation}")),
            ],
        }
    }

    /// The code and message of an error.
    fn refusal(self, body: &str) -> (String, String) {
        match self {
            Self::Ec2 => {
                let read: XmlErrors = quick_xml::de::from_str(body).unwrap_or_default();
                let first = read.errors.error.into_iter().next().or(read.error);
                first.map(|error| (error.code, error.message)).unwrap_or_default()
            }
            Self::Ecs | Self::DynamoDb => {
                let read: Json = serde_json::from_str(body).unwrap_or_default();
                let text = |name: &str| read.get(name).and_then(Json::as_str);
                let code = text("__type").unwrap_or_default();
                let code = code.rsplit('#').next().unwrap_or_default();
                let message = text("message").or_else(|| text("Message")).unwrap_or_default();
                (code.to_owned(), message.to_owned())
            }
        }
    }
}

/// EC2 answers with a list of errors, other services of its protocol with one.
#[derive(Default, serde::Deserialize)]
struct XmlErrors {
    #[serde(rename = "Errors", default)]
    errors: XmlErrorList,
    #[serde(rename = "Error")]
    error: Option<XmlError>,
}

#[derive(Default, serde::Deserialize)]
struct XmlErrorList {
    #[serde(rename = "Error", default)]
    error: Vec<XmlError>,
}

#[derive(serde::Deserialize)]
struct XmlError {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

/// An answer of any status.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
}

/// A status that a retry may change.
#[derive(Debug, thiserror::Error)]
#[error("HTTP status {}", .0.status)]
struct Busy(Answer);

/// Sends signed calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    config: SdkConfig,
}

impl Caller {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// The address of a service: the one that is configured, or that of AWS.
    fn endpoint(&self, service: Service, region: &str) -> String {
        let general = || self.config.endpoint_url().map(str::to_owned);
        let own = || {
            let key = ServiceConfigKey::builder()
                .service_id(match service {
                    Service::Ec2 => "EC2",
                    Service::Ecs => "ECS",
                    Service::DynamoDb => "DynamoDB",
                })
                .env("AWS_ENDPOINT_URL")
                .profile("endpoint_url")
                .build()
                .ok()?;
            self.config.service_config()?.load_config(key)
        };
        let configured = if self.config.get_origin("endpoint_url").is_client_config() {
            general()
        } else {
            own().or_else(general)
        };
        configured.unwrap_or_else(|| {
            let end = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            format!("https://{}.{region}.{end}", service.name())
        })
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let none = "Unable to locate credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                    AWS_SECRET_ACCESS_KEY, or log in.";
        let credentials = |message: String| Error::Aws {
            kind: AwsFailure::Credentials,
            code: String::new(),
            message,
        };
        let Some(provider) = self.config.credentials_provider() else {
            return Err(credentials(none.to_owned()));
        };
        provider.provide_credentials().await.map_err(|err| {
            if matches!(
                err,
                aws_credential_types::provider::error::CredentialsError::CredentialsNotLoaded(_)
            ) {
                return credentials(none.to_owned());
            }
            credentials(format!(
                "Unable to load credentials: {}",
                without_layers(&shown(&err))
            ))
        })
    }

    /// Calls an operation, and returns the body of a success.
    ///
    /// # Errors
    /// [`Error::Aws`] with the service's code.
    pub(crate) async fn call(
        &self,
        service: Service,
        region: &str,
        operation: &'static str,
        body: String,
    ) -> Result<String, Error> {
        let endpoint = self.endpoint(service, region);
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let aws = |kind, code: &str, message| Error::Aws {
            kind,
            code: code.to_owned(),
            message,
        };
        let credentials = self.credentials().await?;
        let time = self
            .config
            .time_source()
            .map(|source| source.now())
            .ok_or_else(|| aws(AwsFailure::Other, "", "There is no clock to sign with".into()))?;
        let request = signed(service, operation, (&url, region), body, credentials, time);
        let request =
            request.map_err(|why| aws(AwsFailure::Other, "", format!("Calling {operation}: {why}")))?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .build();
        let mut builder = Operation::builder()
            .service_name(service.name())
            .operation_name(operation)
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&endpoint)
            .no_auth()
            .standard_retry(&RetryConfig::standard())
            .retry_classifier(TransientErrorClassifier::<Busy>::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .timeout_config(timeouts);
        if let Some(client) = self.config.http_client() {
            builder = builder.http_client(client);
        }
        let sent = builder
            .serializer(Ok)
            .deserializer(read)
            .build()
            .invoke(request)
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(SdkError::ServiceError(err)) => err.into_err().0,
            Err(err) => return Err(unanswered(operation, &err)),
        };
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let (code, text) = service.refusal(&answer.body);
        if code.is_empty() {
            let message = format!("Calling {operation}: HTTP status {}", answer.status);
            return Err(aws(AwsFailure::Other, "", message));
        }
        Err(refused(operation, &code, &text))
    }
}

/// A request with its signature.
fn signed(
    service: Service,
    operation: &str,
    place: (&str, &str),
    body: String,
    credentials: Credentials,
    time: SystemTime,
) -> Result<HttpRequest, Box<dyn std::error::Error + Send + Sync>> {
    let (url, region) = place;
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service.name())
        .time(time)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let headers = service.headers(operation);
    let borrowed = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let signable = SignableRequest::new("POST", url, borrowed, SignableBody::Bytes(body.as_bytes()))?;
    let (instructions, _) = sign(signable, &parameters)?.into_parts();
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("POST")?;
    // The endpoint comes before it.
    request.set_uri("/")?;
    for (name, value) in instructions.headers() {
        request
            .headers_mut()
            .try_insert(name.to_owned(), value.to_owned())?;
    }
    for (name, value) in headers {
        request.headers_mut().try_insert(name, value)?;
    }
    Ok(request)
}

/// Every answer is read as one; those that a retry may change are errors until retries end.
fn read(response: &HttpResponse) -> Result<Answer, OrchestratorError<Busy>> {
    let body = response.body().bytes().unwrap_or_default();
    let answer = Answer {
        status: response.status().as_u16(),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    if answer.status >= 500 {
        return Err(OrchestratorError::operation(Busy(answer)));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_services_are_read() {
        let xml = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>InvalidVpcID.NotFound</Code>\
                   <Message>no vpc-1</Message></Error></Errors><RequestID>x</RequestID></Response>";
        assert_eq!(
            Service::Ec2.refusal(xml),
            ("InvalidVpcID.NotFound".into(), "no vpc-1".into())
        );
        let one = "<ErrorResponse><Error><Type>Sender</Type><Code>NotImplemented</Code>\
                   <Message>not here</Message></Error><RequestId>x</RequestId></ErrorResponse>";
        assert_eq!(
            Service::Ec2.refusal(one),
            ("NotImplemented".into(), "not here".into())
        );
        assert_eq!(Service::Ec2.refusal("<html>"), Default::default());
        let json =
            r#"{"__type":"com.amazonaws.ecs#ClusterNotFoundException","message":"Cluster not found."}"#;
        assert_eq!(
            Service::Ecs.refusal(json),
            ("ClusterNotFoundException".into(), "Cluster not found.".into())
        );
        assert_eq!(Service::Ecs.refusal("busy"), Default::default());
    }
}
