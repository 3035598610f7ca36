//! The endpoint: its address, the requests that it answers, and its shutdown.

use std::io::{Cursor, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zae_limiter_local::endpoint::{Data, Endpoint, Options, StartError};
use zae_limiter_local::lambda::Python;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::client::{Running, signed};

#[tokio::test]
async fn what_others_have_of_localhost_is_not_shared_with_them() {
    let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        // Without IPv6 there is nothing to share.
        return;
    };
    let port = other.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        python: Python::none(),
        address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        data: Data::Ephemeral(directory.path().join("scratch")),
    };
    let refused = Endpoint::start(options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, StartError::PortInUse(used) if used == port),
        "{refused}"
    );
    drop(other);
    assert_eq!(Endpoint::start(options).await.unwrap().port(), port);
}

#[tokio::test]
async fn web_pages_are_refused() {
    let endpoint = Running::ephemeral().await;
    let scope = "X-Amz-Credential=a%2F20261121%2Fus-east-1%2Fcloudformation%2Faws4_request";
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = hyper::Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        endpoint
            .send(request.body(Full::new(Bytes::new())).unwrap())
            .await
    };
    let local = ("host", "localhost:4566");
    let functions = "/2015-03-31/functions";
    assert_eq!(ask(functions, &[local]).await.status, StatusCode::OK);
    for headers in [
        [local, ("sec-fetch-site", "cross-site")],
        [local, ("origin", "http://evil.example")],
        [("host", "evil.example:4566"), ("accept", "*/*")],
    ] {
        let refused = ask(functions, &headers).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{headers:?}");
    }
    let listed = ask(&format!("/?Action=ListStacks&{scope}"), &[local]).await;
    assert_eq!(listed.status, StatusCode::OK, "{listed:?}");
    let created = ask(&format!("/?Action=CreateStack&StackName=q&{scope}"), &[local]).await;
    assert_eq!(created.status, StatusCode::FORBIDDEN, "{created:?}");
    endpoint.stop().await;
}

#[tokio::test]
async fn too_large_an_object_is_refused_in_s3s_form() {
    let endpoint = Running::ephemeral().await;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint.port()))
        .await
        .unwrap();
    // It waits to be asked for the body, as SDKs do.
    let head = format!(
        "PUT /bucket/key HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        zae_limiter_local::upload::LARGEST + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("<Code>EntityTooLarge</Code>"), "{answer}");
    endpoint.stop().await;
}

#[tokio::test]
async fn operations_that_there_are_not_are_unknown() {
    let endpoint = Running::ephemeral().await;
    for operation in ["DescribeLimits", "ExecuteStatement", "ListBackups"] {
        let refused = endpoint.dynamodb(operation, &json!({})).await;
        assert_eq!(
            refused["__type"], "com.amazon.coral.service#UnknownOperationException",
            "{refused}"
        );
        assert!(
            refused["message"].as_str().unwrap().contains(operation),
            "{refused}"
        );
    }
    endpoint.stop().await;
}

/// A function that reports its invocation, waits for a signal, and calls the endpoint. It answers with the
/// status that it got.
const CALLER: &str = r#"#!/bin/bash
api=/dev/tcp/${AWS_LAMBDA_RUNTIME_API%:*}/${AWS_LAMBDA_RUNTIME_API##*:}
while exec 3<>$api; do
    printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n' >&3
    id=
    while IFS= read -r line <&3; do
        line=${line%$'\r'}
        case ${line,,} in
            lambda-runtime-aws-request-id:*) id=${line#*: } ;;
            '') break ;;
        esac
    done
    exec 3>&-
    : > "$CALLED"
    until [ -e "$GO" ]; do sleep 0.02; done
    endpoint=${AWS_ENDPOINT_URL#http://}
    status=none
    if exec 4<>"/dev/tcp/${endpoint%:*}/${endpoint##*:}"; then
        printf 'GET /_zae-limiter/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' >&4
        read -r _ status _ <&4
        exec 4>&-
    fi
    exec 3<>$api
    printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s' \
        "$id" "${#status}" "$status" >&3
    read -r line <&3
    exec 3>&-
done
"#;

fn packed(bootstrap: &str) -> String {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .unix_permissions(0o755);
    zip.start_file("bootstrap", options).unwrap();
    zip.write_all(bootstrap.as_bytes()).unwrap();
    STANDARD.encode(zip.finish().unwrap().into_inner())
}

async fn appears(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_invocation_is_finished_before_the_end() {
    if !Path::new("/bin/bash").exists() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (called, go) = (directory.path().join("called"), directory.path().join("go"));
    let endpoint = Running::ephemeral().await;
    let create = json!({
        "FunctionName": "caller",
        "Runtime": "provided.al2023",
        "Handler": "x",
        "Role": "arn:aws:iam::000000000000:role/x",
        "Timeout": 60,
        "Architectures": [if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }],
        "Code": {"ZipFile": packed(CALLER)},
        "Environment": {"Variables": {"CALLED": called, "GO": go}},
    });
    let call = |path: &str, body: String| {
        signed("lambda")
            .method(Method::POST)
            .uri(path)
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    };
    let made = endpoint
        .send(call("/2015-03-31/functions", create.to_string()))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let invocation = call("/2015-03-31/functions/caller/invocations", "{}".to_owned());
    let port = endpoint.port();
    let invoked = tokio::spawn(async move { Running::send_to(port, invocation).await });
    appears(&called).await;
    let stopped = tokio::spawn(endpoint.stop());
    // Time to hear of it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!stopped.is_finished());
    std::fs::write(&go, "").unwrap();
    assert_eq!(invoked.await.unwrap().body, "200");
    stopped.await.unwrap();
}

/// Creates a table with a short name and a stream, and returns the stream.
async fn stream_of_a_short_table(endpoint: &Running, view: &str) -> Json {
    let table = json!({
        "TableName": "abc", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": view},
    });
    let made = endpoint.dynamodb("CreateTable", &table).await;
    made["TableDescription"]["LatestStreamArn"].clone()
}

/// The shard of a stream, and all its records.
async fn read_stream(endpoint: &Running, stream: &Json) -> (String, Json) {
    let ask = async |operation: &str, request| {
        let target = format!("DynamoDBStreams_20120810.{operation}");
        endpoint.json("dynamodb", &target, &request).await
    };
    let described = ask("DescribeStream", json!({"StreamArn": stream})).await;
    let shard = described["StreamDescription"]["Shards"][0]["ShardId"]
        .as_str()
        .unwrap();
    let request = json!({"StreamArn": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = ask("GetShardIterator", request).await;
    let answer = ask("GetRecords", json!({"ShardIterator": iterator["ShardIterator"]})).await;
    (shard.to_owned(), answer)
}

/// Clients of AWS refuse ids of shards that are shorter than AWS's.
#[tokio::test]
async fn a_short_tables_stream_has_a_shard_that_clients_accept() {
    let endpoint = Running::ephemeral().await;
    let stream = stream_of_a_short_table(&endpoint, "NEW_IMAGE").await;
    let (shard, answer) = read_stream(&endpoint, &stream).await;
    assert!((28..=65).contains(&shard.len()), "{shard}");
    assert_eq!(answer["Records"], json!([]), "{answer}");
    endpoint.stop().await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_not_in_the_stream() {
    let endpoint = Running::ephemeral().await;
    let stream = stream_of_a_short_table(&endpoint, "NEW_AND_OLD_IMAGES").await;
    for count in ["1", "1", "2", "2"] {
        let map = json!({"M": {"a": {"N": count}, "b": {"S": "x"}, "c": {"L": []}}});
        let item = json!({"PK": {"S": "k"}, "map": map, "more": {"S": "y"}});
        endpoint
            .dynamodb("PutItem", &json!({"TableName": "abc", "Item": item}))
            .await;
    }
    let (_, answer) = read_stream(&endpoint, &stream).await;
    let records = answer["Records"].as_array().unwrap();
    let events: Vec<_> = records.iter().map(|record| &record["eventName"]).collect();
    assert_eq!(events, ["INSERT", "MODIFY"], "{answer}");
    assert!(answer["NextShardIterator"].is_string());
    endpoint.stop().await;
}

#[tokio::test]
async fn a_transaction_is_not_executed_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let table = json!({
        "TableName": "abc", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
    });
    let key = json!({"PK": {"S": "k"}});
    let add = |token: &str, amount: &str| {
        json!({"ClientRequestToken": token, "TransactItems": [{"Update": {
            "TableName": "abc", "Key": key, "UpdateExpression": "ADD n :o",
            "ExpressionAttributeValues": {":o": {"N": amount}},
        }}]})
    };
    let endpoint = Running::on(directory.path()).await;
    endpoint.dynamodb("CreateTable", &table).await;
    for _ in 0..2 {
        endpoint.dynamodb("TransactWriteItems", &add("t1", "1")).await;
    }
    endpoint.stop().await;
    let endpoint = Running::on(directory.path()).await;
    endpoint.dynamodb("TransactWriteItems", &add("t1", "1")).await;
    endpoint.dynamodb("TransactWriteItems", &add("t2", "1")).await;
    let read = json!({"TableName": "abc", "Key": key});
    let answer = endpoint.dynamodb("GetItem", &read).await;
    assert_eq!(answer["Item"]["n"]["N"], "2", "{answer}");
    let other = crate::client::signed("dynamodb")
        .header("x-amz-target", "DynamoDB_20120810.TransactWriteItems")
        .method("POST")
        .uri("/")
        .body(Full::new(Bytes::from(add("t1", "5").to_string())))
        .unwrap();
    let refused = endpoint.send(other).await;
    assert!(
        refused.body.contains("IdempotentParameterMismatchException"),
        "{refused:?}"
    );
    endpoint.stop().await;
}

#[tokio::test]
async fn expired_items_can_be_deleted_at_once() {
    let endpoint = Running::ephemeral().await;
    let request = crate::client::signed("dynamodb")
        .method("DELETE")
        .uri("/_aws/dynamodb/expired")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let answer = endpoint.send(request).await;
    assert_eq!(
        (answer.status, &*answer.body),
        (StatusCode::OK, r#"{"ExpiredItems":0}"#)
    );
    endpoint.stop().await;
}
