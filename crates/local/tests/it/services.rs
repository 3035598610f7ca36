//! S3, SQS, CloudWatch Logs and tagging over HTTP, as clients ask for them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use zae_limiter::table::EmbeddedEngine;
use zae_limiter_local::lambda::Python;
use zae_limiter_local::server;
use zae_limiter_local::store::Store;
use zae_limiter_local::tables::Tables;
use zae_limiter_local::world::World;

/// An endpoint on a port of its own.
struct Endpoint {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Endpoint {
    async fn start(directory: &Path) -> Self {
        let listener = server::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tables = Tables::new(EmbeddedEngine::memory().unwrap()).unwrap();
        let store = Store::open(&directory.join("records.sqlite")).unwrap();
        let world = World::new(
            tables,
            store,
            directory.to_owned(),
            format!("http://{address}"),
            Python::none(),
        )
        .unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server::serve(Arc::new(world), listener, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            stop,
            served,
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }

    /// Sends a request on a connection of its own.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Full::new(body.into())).unwrap())
            .await
            .unwrap();
        Answer::of(response).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    async fn put(&self, path: &str, body: &'static str) -> Answer {
        self.send(Method::PUT, path, &[], body).await
    }

    /// Calls an operation of a protocol that names it in a header.
    async fn call(&self, target: &str, body: &Json) -> (u16, Json) {
        let headers = [("x-amz-target", target), ("authorization", AUTHORIZATION)];
        let answer = self.send(Method::POST, "/", &headers, body.to_string()).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }
}

const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=AKID/20261122/eu-west-1/any/aws4_request, SignedHeaders=host, Signature=0";

struct Answer {
    status: u16,
    headers: hyper::HeaderMap,
    body: String,
}

impl Answer {
    async fn of(response: Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The text of the first element of that name.
    fn element(&self, name: &str) -> &str {
        let (_, rest) = self.body.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.element("Code")),
            (status, code),
            "{}",
            self.body
        );
    }
}

#[tokio::test]
async fn objects_outlive_the_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(directory.path()).await;
    endpoint.put("/bucket/key", "").await.refused(404, "NoSuchBucket");
    assert_eq!(endpoint.put("/bucket", "").await.status, 200);
    assert_eq!(endpoint.put("/bucket", "").await.status, 200);
    let path = "/bucket/a%20b+%C3%BC/..%2F/%2e%2e//x";
    let headers = [("x-amz-meta-k", "v"), ("content-type", "text/plain")];
    let put = endpoint.send(Method::PUT, path, &headers, "hello").await;
    assert_eq!(
        (put.status, put.header("etag")),
        (200, "\"5d41402abc4b2a76b9719d911017c592\"")
    );
    endpoint.stop().await;

    let endpoint = Endpoint::start(directory.path()).await;
    let got = endpoint.get(path).await;
    assert_eq!((got.status, &*got.body), (200, "hello"));
    assert_eq!(
        (got.header("x-amz-meta-k"), got.header("content-type")),
        ("v", "text/plain")
    );
    let head = endpoint
        .send(Method::HEAD, path, &[("x-amz-checksum-mode", "ENABLED")], "")
        .await;
    assert_eq!(
        (head.status, head.header("content-length"), &*head.body),
        (200, "5", "")
    );
    assert_eq!(head.header("x-amz-checksum-crc64nvme").len(), 12);
    let part = endpoint
        .send(Method::GET, path, &[("range", "bytes=1-2")], "")
        .await;
    assert_eq!(
        (part.status, &*part.body, part.header("content-range")),
        (206, "el", "bytes 1-2/5")
    );
    let host = [("host", "bucket.s3.localhost:1")];
    assert_eq!(
        endpoint.send(Method::GET, &path[7..], &host, "").await.body,
        "hello"
    );
    let listed = endpoint.get("/bucket?list-type=2&prefix=a").await;
    assert_eq!(
        (listed.element("Key"), listed.element("KeyCount")),
        ("a b+ü/..//..//x", "1")
    );
    endpoint
        .send(Method::DELETE, "/bucket", &[], "")
        .await
        .refused(409, "BucketNotEmpty");
    assert_eq!(endpoint.send(Method::DELETE, path, &[], "").await.status, 204);
    assert_eq!(
        endpoint.send(Method::DELETE, "/bucket", &[], "").await.status,
        204
    );
    endpoint.stop().await;
}

#[tokio::test]
async fn conditions_and_owners_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(directory.path()).await;
    let place = "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    let s3 = AUTHORIZATION.replace("/any/", "/s3/");
    let signed = [("authorization", s3.as_str())];
    let create = |body: &'static str| endpoint.send(Method::PUT, "/bucket", &signed, body);
    create("")
        .await
        .refused(400, "IllegalLocationConstraintException");
    assert_eq!(create(place).await.status, 200);
    create(place).await.refused(409, "BucketAlreadyOwnedByYou");
    let head = endpoint.send(Method::HEAD, "/bucket", &[], "").await;
    assert_eq!(
        (head.status, head.header("x-amz-bucket-region")),
        (200, "eu-west-1")
    );
    let other = [("x-amz-expected-bucket-owner", "111111111111")];
    let refused = endpoint.send(Method::HEAD, "/bucket", &other, "").await;
    assert_eq!((refused.status, &*refused.body), (403, ""));
    let absent = [("if-none-match", "*")];
    assert_eq!(
        endpoint.send(Method::PUT, "/bucket/k", &absent, "a").await.status,
        200
    );
    endpoint
        .send(Method::PUT, "/bucket/k", &absent, "b")
        .await
        .refused(412, "PreconditionFailed");
    let etag = endpoint.get("/bucket/k").await.header("etag").to_owned();
    let same = endpoint
        .send(Method::GET, "/bucket/k", &[("if-none-match", &etag)], "")
        .await;
    assert_eq!((same.status, &*same.body), (304, ""));
    let past = endpoint
        .send(Method::GET, "/bucket/k", &[("range", "bytes=5-")], "")
        .await;
    past.refused(416, "InvalidRange");
    let wrong = [("x-amz-checksum-crc32", "AAAAAA==")];
    endpoint
        .send(Method::PUT, "/bucket/k", &wrong, "b")
        .await
        .refused(400, "BadDigest");
    let versioning = endpoint
        .put("/bucket?versioning", "<VersioningConfiguration/>")
        .await;
    versioning.refused(501, "NotImplemented");
    assert_eq!(endpoint.get("/bucket/k").await.body, "a");
    endpoint.stop().await;
}

#[tokio::test]
async fn chunked_uploads_and_parts_arrive() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(directory.path()).await;
    endpoint.put("/bucket", "").await;
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "9"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    let body = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
    assert_eq!(
        endpoint
            .send(Method::PUT, "/bucket/k", &headers, body)
            .await
            .status,
        200
    );
    let got = endpoint.get("/bucket/k").await;
    assert_eq!(got.body, "123456789");
    assert!(!got.headers.contains_key("content-encoding"));
    let copied = [("x-amz-copy-source", "bucket/k")];
    assert_eq!(
        endpoint
            .send(Method::PUT, "/bucket/copy", &copied, "")
            .await
            .status,
        200
    );

    let started = endpoint
        .send(Method::POST, "/bucket/large?uploads", &[], "")
        .await;
    let id = started.element("UploadId").to_owned();
    let mut parts = String::new();
    for (number, size) in [(1, 5 * 1024 * 1024), (2, 3)] {
        let path = format!("/bucket/large?partNumber={number}&uploadId={id}");
        let part = endpoint.send(Method::PUT, &path, &[], vec![b'x'; size]).await;
        let tag = part.header("etag");
        write!(
            parts,
            "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
        )
        .unwrap();
    }
    let complete = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let path = format!("/bucket/large?uploadId={id}");
    let done = endpoint.send(Method::POST, &path, &[], complete).await;
    assert!(done.element("ETag").ends_with("-2&quot;"), "{}", done.body);
    assert_eq!(
        endpoint.get("/bucket/large").await.body.len(),
        5 * 1024 * 1024 + 3
    );
    let aborted = endpoint.send(Method::DELETE, &path, &[], "").await;
    aborted.refused(404, "NoSuchUpload");

    let delete = "<Delete><Object><Key>k</Key></Object><Object><Key>none</Key></Object></Delete>";
    let deleted = endpoint.send(Method::POST, "/bucket?delete", &[], delete).await;
    assert_eq!(deleted.body.matches("<Deleted>").count(), 2);
    let left = endpoint.get("/bucket").await;
    assert_eq!(left.body.matches("<Contents>").count(), 2, "{}", left.body);
    endpoint.stop().await;
}

#[tokio::test]
async fn queues_logs_and_tags_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(directory.path()).await;
    let create = json!({"QueueName": "dlq", "tags": {"Application": "zae-limiter"}});
    let (_, made) = endpoint.call("AmazonSQS.CreateQueue", &create).await;
    let url = made["QueueUrl"].as_str().unwrap();
    assert_eq!(url, format!("http://{}/000000000000/dlq", endpoint.address));
    let message = json!({"QueueUrl": url, "MessageBody": "gone"});
    assert_eq!(endpoint.call("AmazonSQS.SendMessage", &message).await.0, 200);
    let receive = json!({"QueueUrl": url});
    let (_, got) = endpoint.call("AmazonSQS.ReceiveMessage", &receive).await;
    assert_eq!(got["Messages"][0]["Body"], "gone");
    // The query protocol, which goes to the queue's own address, is refused by name.
    let sqs = AUTHORIZATION.replace("/any/", "/sqs/");
    let headers = [
        ("authorization", &*sqs),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let got = endpoint
        .send(
            Method::POST,
            "/000000000000/dlq",
            &headers,
            "Action=ReceiveMessage",
        )
        .await;
    assert_eq!(got.status, 501);
    assert!(got.element("Message").contains("query protocol"), "{}", got.body);
    let (status, refused) = endpoint
        .call("AmazonSQS.GetQueueUrl", &json!({"QueueName": "none"}))
        .await;
    assert_eq!(
        (status, &refused["__type"]),
        (400, &json!("com.amazonaws.sqs#QueueDoesNotExist"))
    );

    let group = json!({"logGroupName": "/aws/lambda/f"});
    assert_eq!(endpoint.call("Logs_20140328.CreateLogGroup", &group).await.0, 200);
    let (status, again) = endpoint.call("Logs_20140328.CreateLogGroup", &group).await;
    assert_eq!(
        (status, &again["__type"]),
        (400, &json!("ResourceAlreadyExistsException"))
    );
    let (_, events) = endpoint.call("Logs_20140328.FilterLogEvents", &group).await;
    assert_eq!(events["events"], json!([]));

    let filter = json!({"TagFilters": [{"Key": "Application", "Values": ["zae-limiter"]}]});
    let (_, tagged) = endpoint
        .call("ResourceGroupsTaggingAPI_20170126.GetResources", &filter)
        .await;
    let arn = &tagged["ResourceTagMappingList"][0]["ResourceARN"];
    assert_eq!(arn, "arn:aws:sqs:eu-west-1:000000000000:dlq");
    endpoint.stop().await;
}

#[tokio::test]
async fn tagged_tables_and_functions_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(directory.path()).await;
    for name in ["plain", "tagged"] {
        let mut table = json!({
            "TableName": name, "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        });
        if name == "tagged" {
            table["Tags"] = json!([{"Key": "owner", "Value": "me"}]);
        }
        let (status, answer) = endpoint.call("DynamoDB_20120810.CreateTable", &table).await;
        assert_eq!(status, 200, "{answer}");
    }
    let function = json!({
        "FunctionName": "f", "Runtime": "python3.12", "Handler": "h", "Role": "r", "Tags": {"owner": "me"},
        "Code": {"ZipFile": "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="},
    });
    let headers = [(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AKID/20261122/eu-west-1/lambda/aws4_request, SignedHeaders=host, Signature=0",
    )];
    let made = endpoint
        .send(
            Method::POST,
            "/2015-03-31/functions",
            &headers,
            function.to_string(),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let target = "ResourceGroupsTaggingAPI_20170126.GetResources";
    let filter = json!({"TagFilters": [{"Key": "owner", "Values": ["me"]}]});
    let (_, found) = endpoint.call(target, &filter).await;
    let tags = json!([{"Key": "owner", "Value": "me"}]);
    assert_eq!(
        found["ResourceTagMappingList"],
        json!([
            {"ResourceARN": "arn:aws:dynamodb:eu-west-1:000000000000:table/tagged", "Tags": tags},
            {"ResourceARN": "arn:aws:lambda:eu-west-1:000000000000:function:f", "Tags": tags},
        ])
    );
    let (_, of_tables) = endpoint
        .call(target, &json!({"ResourceTypeFilters": ["dynamodb:table"]}))
        .await;
    assert_eq!(of_tables["ResourceTagMappingList"].as_array().unwrap().len(), 1);
    endpoint.stop().await;
}
