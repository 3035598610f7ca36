//! Tokens and certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use zae_limiter_server::envoy::protocol::service::rate_limit_service_client::RateLimitServiceClient;
use zae_limiter_server::{Error, Options, TlsFiles};
use zae_limiter_tower::key::hashed;

use crate::hostile::exchange;
use crate::reload::{get, until};
use crate::world::{Client, RULES, World, of_key, options, repository};

async fn start(options: Options) -> Result<World, Error> {
    World::with(RULES, repository().await, options).await
}

#[tokio::test]
async fn addresses_other_than_loopback_need_authentication() {
    for change in [
        |options: &mut Options| options.grpc = ([0, 0, 0, 0], 0).into(),
        |options: &mut Options| options.http = ([0, 0, 0, 0], 0).into(),
    ] {
        let mut options = options();
        change(&mut options);
        let refused = start(options.clone()).await.err().unwrap();
        assert!(matches!(refused, Error::Unprotected { .. }), "{refused}");
        options.insecure = true;
        start(options).await.unwrap();
    }
}

#[tokio::test]
async fn web_pages_cannot_ask_where_no_token_is_needed() {
    let world = World::new(RULES).await;
    let of_page =
        b"GET /v1/rules HTTP/1.1\r\nhost: localhost\r\norigin: https://example.com\r\nconnection: close\r\n\r\n";
    assert!(exchange(&world.http, of_page).await.starts_with("HTTP/1.1 403"));
    assert!(get(&world.http, "/v1/rules").await.starts_with("HTTP/1.1 200"));
}

/// A request with this token.
fn with_token(field: &str) -> Request<zae_limiter_server::envoy::protocol::service::RateLimitRequest> {
    let mut request = Request::new(of_key("key-1"));
    request
        .metadata_mut()
        .insert("authorization", field.parse().unwrap());
    request
}

#[tokio::test]
async fn tokens_are_checked_and_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let line = |token: &str| format!("{} of a proxy\n", hashed(token).strip_prefix("sha256:").unwrap());
    std::fs::write(&path, format!("# tokens\n\n{}", line("first"))).unwrap();
    let mut options = options();
    options.tokens = Some(path.clone());
    options.grpc = ([0, 0, 0, 0], 0).into();
    let mut world = start(options).await.unwrap();
    world.grpc = world.grpc.replace("0.0.0.0", "127.0.0.1");
    let mut client = world.client().await;
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer second",
        "Basic first",
        "first",
        "Bearer first first",
    ] {
        let failed = client.should_rate_limit(with_token(wrong)).await.unwrap_err();
        assert_eq!(failed.code(), Code::Unauthenticated, "{wrong}");
        assert!(!failed.message().contains("first"));
    }
    assert_eq!(
        client
            .should_rate_limit(of_key("key-1"))
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
    let mut twice = with_token("Bearer first");
    twice
        .metadata_mut()
        .append("authorization", "Bearer other".parse().unwrap());
    assert_eq!(
        client.should_rate_limit(twice).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    client
        .should_rate_limit(with_token("Bearer first"))
        .await
        .unwrap();
    client
        .should_rate_limit(with_token("bearer first"))
        .await
        .unwrap();

    // The other port, too, but for probes.
    let answer = get(&world.http, "/v1/rules").await;
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"),
        "{answer}"
    );
    assert!(get(&world.http, "/metrics").await.starts_with("HTTP/1.1 401"));
    assert!(get(&world.http, "/unknown").await.starts_with("HTTP/1.1 401"));
    assert!(get(&world.http, "/healthz").await.starts_with("HTTP/1.1 200"));
    let asked =
        b"GET /v1/rules HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer first\r\nconnection: close\r\n\r\n";
    assert!(exchange(&world.http, asked).await.starts_with("HTTP/1.1 200"));

    // A bad file changes nothing; a good one does.
    std::fs::write(&path, "not a hash\n").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    client
        .should_rate_limit(with_token("Bearer first"))
        .await
        .unwrap();
    std::fs::write(&path, line("second")).unwrap();
    until("the new token", async || {
        client
            .should_rate_limit(with_token("Bearer second"))
            .await
            .is_ok()
    })
    .await;
    let failed = client
        .should_rate_limit(with_token("Bearer first"))
        .await
        .unwrap_err();
    assert_eq!(failed.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn files_without_tokens_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let mut options = options();
    options.tokens = Some(path.clone());
    for (text, reason) in [
        ("# none\n", "no token"),
        ("abc secret\n", "line 1"),
        ("", "no token"),
    ] {
        std::fs::write(&path, text).unwrap();
        let refused = start(options.clone()).await.err().unwrap().to_string();
        assert!(
            refused.contains(reason) && !refused.contains("secret"),
            "{refused}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    let refused = start(options).await.err().unwrap().to_string();
    assert!(
        refused.contains("--token-file") && refused.contains("No such file"),
        "{refused}"
    );
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, in PEM.
fn certificate(authority: &Issuer, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(directory: &Path, certificates: &(String, String)) -> (std::path::PathBuf, std::path::PathBuf) {
    let paths = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&paths.0, &certificates.0).unwrap();
    std::fs::write(&paths.1, &certificates.1).unwrap();
    paths
}

async fn connect(world: &World, authority: &Issuer, identity: Option<&(String, String)>) -> Option<Channel> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("localhost");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Channel::from_shared(format!("https://{}", world.grpc)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.ok()
}

#[tokio::test]
async fn clients_with_a_certificate_are_admitted_and_others_are_not() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (of_server, of_clients, other) = (authority(), authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let server = certificate(&of_server, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let (certificates, key) = write(directory.path(), &server);
    let authorities = directory.path().join("ca.pem");
    std::fs::write(&authorities, of_clients.pem()).unwrap();
    let mut options = options();
    options.tls = Some(TlsFiles {
        certificates,
        key,
        client_authorities: Some(authorities),
    });
    let world = start(options).await.unwrap();
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let right = certificate(&of_clients, "proxy", usage.clone());
    let channel = connect(&world, &of_server, Some(&right)).await.unwrap();
    RateLimitServiceClient::new(channel)
        .should_rate_limit(of_key("key-1"))
        .await
        .unwrap();

    // Without one, only health checks are answered.
    let channel = connect(&world, &of_server, None).await.unwrap();
    let failed = RateLimitServiceClient::new(channel.clone())
        .should_rate_limit(of_key("key-1"))
        .await;
    assert_eq!(failed.unwrap_err().code(), Code::Unauthenticated);
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();

    // One of another authority ends the handshake.
    let wrong = certificate(&other, "proxy", usage);
    if let Some(channel) = connect(&world, &of_server, Some(&wrong)).await {
        let failed = RateLimitServiceClient::new(channel)
            .should_rate_limit(of_key("key-1"))
            .await;
        assert!(failed.is_err());
    }
    // Plain text is not spoken.
    exchange(&world.grpc, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(world.left("key-1", "gpt-4").await, 4);
}

#[tokio::test]
async fn certificates_are_read_again() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (old, new) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (certificates, key) = write(directory.path(), &certificate(&old, "localhost", usage.clone()));
    let mut options = options();
    options.tls = Some(TlsFiles {
        certificates: certificates.clone(),
        key,
        client_authorities: None,
    });
    let world = Arc::new(start(options).await.unwrap());
    let channel = connect(&world, &old, None).await.unwrap();
    let mut client: Client = RateLimitServiceClient::new(channel);
    client.should_rate_limit(of_key("key-1")).await.unwrap();

    // Half of the change does not fit the other half, and is not put in force.
    let renewed = certificate(&new, "localhost", usage);
    std::fs::write(&certificates, &renewed.0).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(connect(&world, &old, None).await.is_some());
    write(directory.path(), &renewed);
    until("the new certificate", async || {
        connect(&world, &new, None).await.is_some()
    })
    .await;
    // Connections stay.
    client.should_rate_limit(of_key("key-1")).await.unwrap();
}
