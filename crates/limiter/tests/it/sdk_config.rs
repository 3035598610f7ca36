//! Repositories that are opened with an application's own AWS configuration.

use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::region::Region;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use zae_limiter::{Error, Repository, SdkConfig};

/// A server that answers each request with an error that nothing heals, and the heads of the requests it was sent.
async fn server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16 * 1024];
            let length = stream.read(&mut request).await.unwrap_or(0);
            heard
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&request[..length]).into_owned());
            let body = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no"}"#;
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, heads)
}

fn config(url: &str) -> SdkConfig {
    let credentials = Credentials::new("AKIDOFTHEAPP", "secret", None, None, "test");
    SdkConfig::builder()
        .region(Region::new("eu-central-1"))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .behavior_version(aws_config::BehaviorVersion::latest())
        .build()
}

#[tokio::test]
async fn requests_go_where_the_configuration_leads_and_are_signed_with_its_credentials() {
    let (url, heads) = server().await;
    let err = Repository::builder()
        .sdk_config(config(&url))
        .connect()
        .await
        .unwrap_err();
    assert!(matches!(err, Error::PermissionDenied { .. }), "{err:?}");
    let heads = heads.lock().unwrap();
    let head = heads.first().unwrap().to_lowercase();
    assert!(head.contains("credential=akidoftheapp/"), "{head}");
    assert!(head.contains("/eu-central-1/dynamodb/"), "{head}");
}

/// A client does not tell its credentials; the configuration beside it does, so that the stack can be deleted.
#[cfg(feature = "provision")]
#[tokio::test]
async fn a_client_with_its_configuration_can_delete_the_stack() {
    let (url, heads) = server().await;
    let config = config(&url);
    let client = aws_sdk_dynamodb::Client::new(&config);
    let bare = Repository::builder()
        .client(client.clone())
        .stack_handle()
        .await
        .unwrap();
    let err = bare.delete_stack().await.unwrap_err();
    assert!(matches!(&err, Error::NotAStack(_)), "{err:?}");
    assert!(err.to_string().contains("sdk_config"), "{err}");
    let stack = Repository::builder()
        .client(client)
        .sdk_config(config)
        .stack_handle()
        .await
        .unwrap();
    assert!(matches!(stack.delete_stack().await, Err(Error::Deployment(_))));
    let asked = heads
        .lock()
        .unwrap()
        .iter()
        .any(|head| head.contains("/cloudformation/"));
    assert!(asked);
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused_by_name() {
    let err = Repository::builder()
        .sdk_config(config("http://bad host"))
        .connect()
        .await
        .unwrap_err();
    let Error::InvalidInput(bad) = &err else {
        panic!("{err:?}")
    };
    assert_eq!(bad.field(), "sdk_config.endpoint_url");
}
