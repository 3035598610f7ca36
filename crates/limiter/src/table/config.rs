//! SDK clients: how to reach DynamoDB, and how long to wait for it.
//!
//! Two things differ from what the SDK does by itself. It never retries, because a debit or a refund that
//! was applied although its answer got lost must not be sent again; the limiter decides that request by
//! request. And it does not wait forever, because the SDK has no timeouts of its own.

use std::net::IpAddr;
use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Region, StalledStreamProtectionConfig};
use aws_smithy_types::retry::RetryConfig;
use aws_types::service_config::ServiceConfigKey;

/// The region that a local endpoint is told when none is configured; any would do.
pub const LOCAL_REGION: &str = "us-east-1";

/// Access key and secret that a local endpoint is told when none are configured; any would do.
const LOCAL_SECRET: &str = "local";

/// How long to wait for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection. One second by default.
    pub connect: Duration,
    /// For one attempt at a request, connection and credentials included. Two seconds by default.
    pub attempt: Duration,
    /// For the whole request. Two seconds by default; as there is one attempt, a shorter one of the two wins.
    pub operation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            attempt: Duration::from_secs(2),
            operation: Duration::from_secs(2),
        }
    }
}

impl Timeouts {
    /// The SDK starts a timer for each timeout it is given, so two that say the same are given as one.
    fn to_config(self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_timeout(self.operation.min(self.attempt))
            .build()
    }
}

/// How to reach DynamoDB. What is left out comes from the environment and the shared AWS files, as with
/// every AWS tool.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The region, such as `eu-west-1`.
    pub region: Option<String>,
    /// Another endpoint than the region's own, such as `http://localhost:8000`.
    pub endpoint_url: Option<String>,
    /// The profile in the shared AWS files.
    pub profile: Option<String>,
    /// Where credentials come from.
    pub credentials: Option<SharedCredentialsProvider>,
    /// How long to wait.
    pub timeouts: Timeouts,
}

impl Connection {
    /// Reads the configuration and makes a client. Sends nothing, but for one case: on an AWS machine
    /// without any configured region, the instance metadata service is asked for it.
    ///
    /// Against a local endpoint (`http://` and a loopback address) missing credentials and a missing region
    /// are replaced by dummies, and no metadata service is asked for them, which would take seconds.
    pub async fn client(&self) -> Client {
        self.client_of(&self.sdk_config().await)
    }

    /// [`client`](Self::client), from a configuration that was read before.
    pub fn client_of(&self, config: &SdkConfig) -> Client {
        let config = aws_sdk_dynamodb::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.timeouts.to_config())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Client::from_conf(config.build())
    }

    /// As [`client`](Self::client), but the configuration all AWS clients share, for other services. Retries
    /// are left on in it.
    pub async fn sdk_config(&self) -> SdkConfig {
        let mut region = ProfileFileRegionProvider::builder();
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(profile) = &self.profile {
            region = region.profile_name(profile);
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        // Without the metadata service, which ends the SDK's own chain: whether to ask it depends on the
        // endpoint, and that is known only once the files are read.
        let region = RegionProviderChain::first_try(self.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(region.build());
        let config = loader.region(region).load().await;
        let local = endpoint(&config).is_some_and(|url| is_local(&url));
        if !local && config.region().is_some() {
            return config;
        }
        let region = match config.region() {
            Some(region) => Some(region.clone()),
            None if local => Some(Region::from_static(LOCAL_REGION)),
            None => ImdsRegionProvider::builder().build().region().await,
        };
        let mut builder = config.into_builder().region(region);
        if local && self.credentials.is_none() {
            builder = builder.credentials_provider(SharedCredentialsProvider::new(self.local_credentials()));
        }
        builder.build()
    }

    /// What is configured, else dummies. Asked for at the first request, as ever.
    fn local_credentials(&self) -> CredentialsProviderChain {
        let mut profile = ProfileFileCredentialsProvider::builder();
        if let Some(name) = &self.profile {
            profile = profile.profile_name(name);
        }
        CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
            .or_else("Profile", profile.build())
            .or_else(
                "Local",
                Credentials::new(LOCAL_SECRET, LOCAL_SECRET, None, None, "zae-limiter-local"),
            )
    }
}

/// A client like the given one that does not retry, and has timeouts where it had none.
///
/// The caller's own HTTP client, credentials and other settings are kept.
pub fn prepared(client: &Client, timeouts: Timeouts) -> Client {
    let config = client.config();
    let own = config.timeout_config();
    let bounded =
        own.is_some_and(|own| own.operation_timeout().is_some() || own.operation_attempt_timeout().is_some());
    let mut builder = config.to_builder().retry_config(RetryConfig::disabled());
    if !bounded {
        let mut all = timeouts.to_config();
        if let Some(own) = own {
            all = TimeoutConfig::to_builder(own)
                .operation_timeout(timeouts.operation.min(timeouts.attempt))
                .connect_timeout(own.connect_timeout().unwrap_or(timeouts.connect))
                .build();
        }
        builder = builder.timeout_config(all);
    }
    Client::from_conf(builder.build())
}

/// The client itself if it does not retry, else one like it that does not.
pub(super) fn without_retries(client: Client) -> Client {
    // Overriding it for each request would do as well, but costs a layer of configuration each time.
    if client
        .config()
        .retry_config()
        .is_some_and(|retries| retries.max_attempts() == 1)
    {
        return client;
    }
    Client::from_conf(
        client
            .config()
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .build(),
    )
}

/// The endpoint that the DynamoDB client will use, if it is not the region's own. The order is the SDK's.
pub(crate) fn endpoint(config: &SdkConfig) -> Option<String> {
    let general = || config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return general();
    }
    let key = ServiceConfigKey::builder()
        .service_id("DynamoDB")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|files| files.load_config(key))
        .or_else(general)
}

/// Whether a URL is `http://` with a loopback host, such as `localhost`, `127.0.0.1` or `[::1]`.
pub fn is_local(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Config;

    use super::*;

    #[track_caller]
    fn check_local(url: &str, local: bool) {
        assert_eq!(is_local(url), local, "{url}");
    }

    #[test]
    fn only_plain_http_on_a_loopback_address_is_local() {
        check_local("http://localhost:8000", true);
        check_local("http://LOCALHOST", true);
        check_local("http://127.0.0.2:4566/path", true);
        check_local("http://[::1]:8000", true);
        check_local("https://localhost:8000", false);
        check_local("http://localhost.example.com", false);
        check_local("http://127.0.0.1@example.com", false);
        check_local("http://10.0.0.1:8000", false);
        check_local("localhost:8000", false);
    }

    #[test]
    fn a_client_given_by_the_caller_keeps_its_timeouts_and_loses_its_retries() {
        let config = Config::builder().behavior_version(BehaviorVersion::latest());
        let given = Client::from_conf(config.region(Region::from_static("eu-west-1")).build());
        let ours = prepared(&given, Timeouts::default());
        assert_eq!(
            ours.config().retry_config().map(RetryConfig::max_attempts),
            Some(1)
        );
        let timeouts = ours
            .config()
            .timeout_config()
            .and_then(TimeoutConfig::operation_timeout);
        assert_eq!(timeouts, Some(Duration::from_secs(2)));

        let own = TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_secs(9))
            .build();
        let given = Client::from_conf(given.config().to_builder().timeout_config(own).build());
        let ours = prepared(&given, Timeouts::default());
        let timeouts = ours.config().timeout_config().cloned();
        assert_eq!(
            timeouts.and_then(|own| own.operation_attempt_timeout()),
            Some(Duration::from_secs(9))
        );
    }
}
