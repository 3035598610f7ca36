//! How to reach DynamoDB, and how long to wait for it.
//!
//! The configuration is that of every AWS tool. Retries are not: a debit or a refund that was applied although its answer
//! got lost must not be sent again, so the limiter decides that request by request.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::region::Region;
use aws_types::service_config::ServiceConfigKey;
use zae_limiter_core::InvalidInput;

use super::client::DynamoClient;
use super::past_proxies;

/// The region for a local endpoint when none is configured; any value works.
pub const LOCAL_REGION: &str = "us-east-1";

/// Access key and secret for a local endpoint when none are configured; any value works.
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
    pub async fn client(&self) -> DynamoClient {
        self.client_of(&self.sdk_config().await)
    }

    /// [`client`](Self::client), from a configuration that was read before.
    pub fn client_of(&self, config: &SdkConfig) -> DynamoClient {
        DynamoClient::new(config, self.timeouts)
    }

    /// As [`client`](Self::client), but the configuration all AWS clients share, for other services. Retries
    /// are left on in it.
    pub async fn sdk_config(&self) -> SdkConfig {
        let config = self.configured().await;
        self.completed(config).await
    }

    /// [`sdk_config`](Self::sdk_config), if what leads to the table can be used.
    ///
    /// # Errors
    /// Names the option, environment variable or file, and its value: an endpoint that is not the URL of a server,
    /// wherever it is configured; or a profile that does not exist. One that only `AWS_PROFILE` names is not needed if
    /// the environment has credentials (keys, a web identity, a container's agent) or the endpoint is local.
    /// The SDK would ask the metadata service for credentials instead, which takes seconds where there is none.
    pub async fn checked_config(&self) -> Result<SdkConfig, InvalidInput> {
        if let Some(url) = &self.endpoint_url {
            check_endpoint(url)?;
        }
        let config = self.configured().await;
        if self.endpoint_url.is_none()
            && let Some(url) = endpoint(&config)
        {
            check_endpoint(&url).map_err(|err| err.in_field(origin_of_endpoint()))?;
        }
        self.check_profile(&config).await?;
        if let Some(region) = config.region() {
            check_region(region.as_ref())?;
        }
        Ok(self.completed(config).await)
    }

    /// The configuration from the options, the environment and the shared AWS files.
    async fn configured(&self) -> SdkConfig {
        let mut region = ProfileFileRegionProvider::builder();
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(profile) = &self.profile {
            region = region.profile_name(profile);
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(client) = past_proxies::client() {
            loader = loader.http_client(client);
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        // Without the metadata service, which ends the SDK's own chain: whether to ask it depends on the
        // endpoint, and that is known only once the files are read.
        let chain = RegionProviderChain::first_try(self.region.clone().map(Region::new));
        // An empty variable is not set.
        let is_set = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(std::env::var_os)
            .is_some_and(|value| !value.is_empty());
        let chain = if is_set {
            chain.or_else(EnvironmentVariableRegionProvider::new())
        } else {
            chain
        };
        loader.region(chain.or_else(region.build())).load().await
    }

    /// Adds what is missing.
    async fn completed(&self, config: SdkConfig) -> SdkConfig {
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

    /// Refuses a profile that was chosen and does not exist, where credentials or a region would come from it.
    async fn check_profile(&self, config: &SdkConfig) -> Result<(), InvalidInput> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (field, name) = match (&self.profile, set("AWS_PROFILE")) {
            (Some(name), _) => ("profile", name.clone()),
            (None, Some(name)) => ("AWS_PROFILE", name),
            (None, None) => return Ok(()),
        };
        let local = endpoint(config).is_some_and(|url| is_local(&url));
        let others = [
            "AWS_ACCESS_KEY_ID",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        let needless = local || self.credentials.is_some() || others.iter().any(|name| set(name).is_some());
        if self.profile.is_none() && needless {
            return Ok(());
        }
        let chosen = Some(Cow::Owned(name.clone()));
        #[expect(
            clippy::default_trait_access,
            reason = "the public name of the type is deprecated"
        )]
        let files = Default::default();
        // Files that cannot be read are reported with the credentials.
        let Ok(profiles) = aws_config::profile::load(&Fs::real(), &Env::real(), &files, chosen).await else {
            return Ok(());
        };
        if profiles.get_profile(&name).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = profiles.profiles().collect();
        let known = if known.is_empty() {
            "they have no profiles".to_owned()
        } else {
            format!("they have: {}", known.join(", "))
        };
        let reason = format!(
            "there is no such profile in the shared AWS files (~/.aws/config and ~/.aws/credentials, or AWS_CONFIG_FILE \
             and AWS_SHARED_CREDENTIALS_FILE); {known}"
        );
        Err(InvalidInput::new(field, name, reason))
    }

    /// The configured credentials, else dummies. Loaded at the first request.
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

/// Where the endpoint comes from that no option names, in the order of the SDK.
fn origin_of_endpoint() -> &'static str {
    ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()))
        .unwrap_or("endpoint_url of the profile")
}

/// Refuses a text that cannot be part of the name of a host.
fn check_region(region: &str) -> Result<(), InvalidInput> {
    if !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    let field = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find(|name| std::env::var(name).is_ok_and(|value| value == region))
        .unwrap_or("region");
    let reason = "must consist of letters, digits and hyphens, such as us-east-1";
    Err(InvalidInput::new(field, region, reason))
}

/// Refuses a text that is not the URL of a server, such as `localhost:8000`, `ftp://host`, `http://` or
/// `http://host:99999`.
///
/// # Errors
/// Names the field `endpoint_url`, the value without a user and password in it, and what is wrong with it.
pub fn check_endpoint(url: &str) -> Result<(), InvalidInput> {
    match fault_of_endpoint(url) {
        None => Ok(()),
        Some(reason) => Err(InvalidInput::new("endpoint_url", without_user(url), reason)),
    }
}

fn fault_of_endpoint(url: &str) -> Option<&'static str> {
    let rest = match url.split_once("://") {
        Some((scheme, rest))
            if ["http", "https"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            rest
        }
        _ => return Some("must begin with http:// or https://"),
    };
    if !url
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
    {
        return Some("must consist of ASCII characters that a URL may have, without spaces");
    }
    if rest.contains(['?', '#']) {
        return Some("must have no query and no fragment");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    // Requests would not use it, and messages would print it.
    if authority.contains('@') {
        return Some("must not have a user or a password: requests are signed with AWS credentials");
    }
    let host_and_port = authority;
    if !host_and_port.starts_with('[') && host_and_port.parse::<Ipv6Addr>().is_ok() {
        return Some("must have brackets around an IPv6 address");
    }
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => (host, port),
            _ => return Some("must have an IPv6 address between the brackets"),
        },
        None => match host_and_port.find(':') {
            Some(at) => host_and_port.split_at(at),
            None => (host_and_port, ""),
        },
    };
    if host.is_empty() {
        return Some("must name a host");
    }
    let is_name = |host: &str| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if !host_and_port.starts_with('[') && !is_name(host) {
        return Some("must name a host by letters, digits, '-' and '.', or by an address");
    }
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Some("must have a port from 1 to 65535, or none");
    }
    None
}

/// A URL without a user and password, for messages.
fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://***@{host}{path}"),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    }
}

/// Whether a URL is `http://` with a loopback host, such as `localhost`, `127.0.0.1` or `[::1]`.
pub fn is_local(url: &str) -> bool {
    let is_http = url
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    is_http && is_this_machine(host(url))
}

/// Whether a host is `localhost` or a loopback address.
pub(super) fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The environment variable that names a proxy, if one does: the first of `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`, in
/// upper or lower case, that is not empty.
pub fn proxy_variable() -> Option<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let variables = [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    variables.into_iter().find(is_set)
}

/// The host of a URL, without the brackets of an IPv6 address; empty if it is not a URL.
pub(super) fn host(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else {
        return "";
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_region_that_is_no_name_is_refused() {
        for good in ["us-east-1", "local", "eu-west-1"] {
            check_region(good).unwrap();
        }
        for bad in ["", "us east", "us-east-1 ", "EU_WEST", "a.b"] {
            let err = check_region(bad).unwrap_err();
            assert_eq!((err.field(), err.value()), ("region", bad));
        }
    }

    #[test]
    fn an_endpoint_that_is_no_url_of_a_server_is_refused_with_its_value_and_what_is_wrong() {
        for good in [
            "http://localhost:8000",
            "HTTPS://dynamodb.eu-west-1.amazonaws.com",
            "http://[::1]:8000/",
            "http://10.0.0.1:1/path/below",
            "http://my_host.internal.:65535",
        ] {
            check_endpoint(good).unwrap();
        }
        let port = "must have a port from 1 to 65535, or none";
        let scheme = "must begin with http:// or https://";
        for (bad, reason) in [
            ("", scheme),
            ("localhost:4566", scheme),
            ("ftp://x", scheme),
            ("http:/x", scheme),
            ("http://", "must name a host"),
            ("http://:80", "must name a host"),
            ("http:///path", "must name a host"),
            (
                "http://bad host",
                "must consist of ASCII characters that a URL may have, without spaces",
            ),
            (
                "http://bücher",
                "must consist of ASCII characters that a URL may have, without spaces",
            ),
            (
                "http://a,b",
                "must name a host by letters, digits, '-' and '.', or by an address",
            ),
            ("http://h:99999", port),
            ("http://h:", port),
            ("http://h:0", port),
            ("http://h:-1", port),
            ("http://h:80:80", port),
            ("http://::1", "must have brackets around an IPv6 address"),
            ("http://[::1", "must have an IPv6 address between the brackets"),
            ("http://[h]:80", "must have an IPv6 address between the brackets"),
            ("http://[::1]8000", port),
            ("http://h?a=b", "must have no query and no fragment"),
        ] {
            let err = check_endpoint(bad).unwrap_err();
            assert_eq!(
                (err.field(), err.value(), err.reason()),
                ("endpoint_url", bad, reason)
            );
        }
        let err = check_endpoint("http://user:word@host/p").unwrap_err();
        assert_eq!(err.value(), "http://***@host/p");
        assert!(
            err.reason().starts_with("must not have a user or a password"),
            "{err}"
        );
    }

    #[tokio::test]
    async fn a_profile_that_does_not_exist_is_named() {
        let connection = Connection {
            profile: Some("nosuch-profile".to_owned()),
            region: Some("eu-west-1".to_owned()),
            ..Connection::default()
        };
        let err = connection.checked_config().await.unwrap_err();
        assert_eq!((err.field(), err.value()), ("profile", "nosuch-profile"));
        assert!(err.reason().starts_with("there is no such profile"), "{err}");
    }
}
