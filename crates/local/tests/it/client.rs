//! An endpoint of a test's own, and a client of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zae_limiter_local::endpoint::{Data, Endpoint, Options};
use zae_limiter_local::lambda::Python;

/// An endpoint that runs.
pub(crate) struct Running {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _directory: Option<TempDir>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

impl Running {
    /// One that forgets everything.
    pub(crate) async fn ephemeral() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::Ephemeral(directory.path().join("scratch"));
        Self::start(data, Some(directory)).await
    }

    /// One on a directory.
    pub(crate) async fn on(path: &Path) -> Self {
        Self::start(Data::Directory(path.to_path_buf()), None).await
    }

    async fn start(data: Data, directory: Option<TempDir>) -> Self {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let endpoint = Endpoint::start(Options {
            address,
            data,
            python: Python::none(),
        })
        .await
        .unwrap();
        let port = endpoint.port();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            endpoint.run(stopped).await.unwrap();
        });
        Self {
            port,
            stop: Some(stop),
            task,
            _directory: directory,
        }
    }

    /// Ends it as a signal would.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        Self::send_to(self.port, request).await
    }

    /// Sends a request to the one at a port.
    pub(crate) async fn send_to(port: u16, request: Request<Full<Bytes>>) -> Answer {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer {
            status,
            // Where a test looks at XML, it looks for what was meant.
            body: body.replace("&apos;", "'").replace("&quot;", "\""),
        }
    }

    /// Calls CloudFormation.
    pub(crate) async fn cloudformation(&self, action: &str, parameters: &[(&str, &str)]) -> Answer {
        self.cloudformation_as("a test", action, parameters).await
    }

    /// Calls CloudFormation as a client of this name.
    pub(crate) async fn cloudformation_as(
        &self,
        agent: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action)
            .append_pair("Version", "2010-05-15");
        form.extend_pairs(parameters);
        let request = signed("cloudformation")
            .header("user-agent", agent)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form.finish())))
            .unwrap();
        self.send(request).await
    }

    /// Calls DynamoDB.
    pub(crate) async fn dynamodb(&self, operation: &str, body: &Json) -> Json {
        self.json("dynamodb", &format!("DynamoDB_20120810.{operation}"), body)
            .await
    }

    /// Calls a service that takes JSON.
    pub(crate) async fn json(&self, service: &str, target: &str, body: &Json) -> Json {
        let request = signed(service)
            .header("x-amz-target", target)
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        serde_json::from_str(&self.send(request).await.body).unwrap()
    }
}

/// A request that looks signed for a service.
pub(crate) fn signed(service: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri("/")
        .header("host", "localhost")
        .header(
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential=test/20261122/eu-west-1/{service}/aws4_request, Signature=0"
            ),
        )
}

impl Answer {
    /// The text of the first element of a name.
    #[track_caller]
    pub(crate) fn element(&self, name: &str) -> &str {
        self.elements(name)
            .first()
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The texts of all elements of a name, in their order.
    pub(crate) fn elements(&self, name: &str) -> Vec<&str> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        self.body
            .split(&open)
            .skip(1)
            .filter_map(|rest| rest.split(&close).next())
            .collect()
    }
}
