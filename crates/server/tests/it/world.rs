//! A server for each test, with a table in memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use zae_limiter::{Limit, RateLimiter, Repository};
use zae_limiter_server::envoy::protocol::RateLimitDescriptor;
use zae_limiter_server::envoy::protocol::rate_limit_descriptor::Entry;
use zae_limiter_server::envoy::protocol::service::rate_limit_response::Code;
use zae_limiter_server::envoy::protocol::service::rate_limit_service_client::RateLimitServiceClient;
use zae_limiter_server::envoy::protocol::service::{RateLimitRequest, RateLimitResponse};
use zae_limiter_server::{App, Error, Options, Reload, Rules, Server, Stopped};

/// One rule: a key and a model take one of `rpm` for each hit.
pub(crate) const RULES: &str = r#"
version: 1
domains:
  gateway:
    rules:
      - match: {api_key: "*", model: "*"}
        entity: "{api_key}"
        resource: "{model}"
        consume: {rpm: 1}
"#;

pub(crate) type Client = RateLimitServiceClient<Channel>;

/// A server that runs.
pub(crate) struct World {
    pub(crate) repo: Repository,
    pub(crate) grpc: String,
    pub(crate) http: String,
    pub(crate) reload: Reload,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Stopped>,
}

/// Options with free ports and files that are looked at often.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.grpc.set_port(0);
    options.http.set_port(0);
    options.reload_every = Duration::from_millis(20);
    options.drain_timeout = Duration::from_secs(5);
    options
}

pub(crate) async fn repository() -> Repository {
    let repo = Repository::in_memory().await.unwrap();
    // Slow enough to gain nothing within a test.
    let limit = Limit::per_day("rpm", 5);
    repo.admin().set_system_defaults([limit], None).await.unwrap();
    repo
}

impl World {
    pub(crate) async fn new(rules: &str) -> Self {
        Self::with(rules, repository().await, options()).await.unwrap()
    }

    /// With a file of rules in this directory, which can be changed.
    pub(crate) async fn of_file(rules: &str, directory: &Path) -> (Self, PathBuf) {
        let path = directory.join("rules.yaml");
        std::fs::write(&path, rules).unwrap();
        let mut options = options();
        options.rules = Some(path.clone());
        let world = Self::with(rules, repository().await, options).await.unwrap();
        (world, path)
    }

    pub(crate) async fn with(rules: &str, repo: Repository, options: Options) -> Result<Self, Error> {
        let rules = Rules::from_yaml(rules.as_bytes()).unwrap();
        Self::of_app(App::new(RateLimiter::new(repo.clone()), rules), options).await
    }

    /// With an application of its own.
    pub(crate) async fn of_app(app: App, options: Options) -> Result<Self, Error> {
        let repo = app.limiter().repository().clone();
        let server = Server::bind(app, options).await?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            repo,
            grpc: server.grpc_address().to_string(),
            http: server.http_address().to_string(),
            reload: server.reload(),
            stop: Some(stop),
            running: tokio::spawn(server.run(async {
                let _ = stopped.await;
            })),
        })
    }

    pub(crate) async fn client(&self) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        RateLimitServiceClient::new(channel.connect().await.unwrap())
    }

    /// Lets the server end.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for its end.
    pub(crate) async fn stopped(self) -> Stopped {
        tokio::time::timeout(Duration::from_secs(20), self.running)
            .await
            .unwrap()
            .unwrap()
    }

    /// Tokens that are left.
    pub(crate) async fn left(&self, entity: &str, resource: &str) -> i64 {
        let limiter = RateLimiter::new(self.repo.clone());
        self.repo.invalidate_images();
        limiter.available(entity, resource).await.unwrap()["rpm"]
    }
}

pub(crate) fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        ..RateLimitDescriptor::default()
    }
}

pub(crate) fn request(descriptors: impl IntoIterator<Item = RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest {
        domain: "gateway".to_owned(),
        descriptors: descriptors.into_iter().collect(),
        hits_addend: 0,
    }
}

/// The request of a key for a model.
pub(crate) fn of_key(key: &str) -> RateLimitRequest {
    request([descriptor(&[("api_key", key), ("model", "gpt-4")])])
}

pub(crate) async fn ask(client: &mut Client, request: RateLimitRequest) -> RateLimitResponse {
    client.should_rate_limit(request).await.unwrap().into_inner()
}

pub(crate) fn is_over(response: &RateLimitResponse) -> bool {
    response.overall_code() == Code::OverLimit
}

/// The value of a header field that the response adds.
pub(crate) fn field<'r>(response: &'r RateLimitResponse, name: &str) -> Option<&'r str> {
    let mut fields = response.response_headers_to_add.iter();
    let found = fields.find(|field| field.key == name);
    found.map(|field| field.value.as_str())
}
