//! Requests to this machine, and to the metadata service of a cloud, go past the proxies of the environment.

use std::net::IpAddr;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use super::config::{host, is_this_machine, proxy_variable};

/// The HTTP client, if the environment names a proxy. Without one, the SDK's own does the same.
pub(super) fn client() -> Option<SharedHttpClient> {
    proxy_variable().map(|_| {
        SharedHttpClient::new(PastProxies {
            direct: built(ProxyConfig::disabled),
            proxied: built(ProxyConfig::from_env),
        })
    })
}

/// A client as the SDK makes it by default.
fn built(proxy: fn() -> ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.set_proxy_config(Some(proxy()));
        connector.build()
    })
}

#[derive(Debug)]
struct PastProxies {
    direct: SharedHttpClient,
    proxied: SharedHttpClient,
}

impl HttpClient for PastProxies {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            direct: self.direct.http_connector(settings, components),
            proxied: self.proxied.http_connector(settings, components),
        })
    }
}

#[derive(Debug)]
struct Connector {
    direct: SharedHttpConnector,
    proxied: SharedHttpConnector,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if is_near(request.uri()) {
            self.direct.call(request)
        } else {
            self.proxied.call(request)
        }
    }
}

/// Whether the host of a URL is this machine, or has an address that is valid only on its link.
fn is_near(url: &str) -> bool {
    let host = host(url);
    let is_on_link = |address| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0xec2],
    };
    is_this_machine(host) || host.parse().is_ok_and(is_on_link)
}

#[cfg(test)]
mod tests {
    use super::is_near;

    #[test]
    fn only_addresses_of_this_machine_and_its_link_are_near() {
        for url in [
            "http://localhost:4566/",
            "https://LOCALHOST/x",
            "http://127.0.0.1:8000",
            "http://user@127.1.2.3/",
            "http://[::1]:4566/a?b",
            "http://169.254.169.254/latest/api/token",
            "http://169.254.170.2/v2/credentials",
            "http://[fd00:ec2::254]/latest",
        ] {
            assert!(is_near(url), "{url}");
        }
        for url in [
            "https://dynamodb.us-east-1.amazonaws.com/",
            "http://localhost.example.com/",
            "http://10.0.0.1/",
            "http://[2001:db8::1]/",
            "http://127.0.0.1.example.com/",
            "localhost",
            "",
        ] {
            assert!(!is_near(url), "{url}");
        }
    }
}
