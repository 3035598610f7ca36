//! gRPC calls: statuses in trailers, and refusals that clients of gRPC understand.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::Code;
use tonic_types::StatusExt as _;
use tower::{Layer as _, ServiceExt as _};

use crate::world::{KEY, World, answering};

fn grpc_call(key: &str) -> Request<Body> {
    let head = Request::post("/pkg.Service/Method").header("content-type", "application/grpc+proto");
    head.header(KEY, key).body(Body::empty()).unwrap()
}

/// An answer with this status in its trailers.
fn ending_with(code: &'static str) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))),
        Ok(Frame::trailers(trailers)),
    ];
    Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))))
}

#[tokio::test]
async fn the_status_in_the_trailers_decides() {
    let w = World::new().await;
    for (code, left) in [
        ("0", (9, 900)),
        ("3", (9, 900)),
        ("14", (10, 1000)),
        ("13", (10, 1000)),
        ("x", (9, 900)),
    ] {
        let key = format!("in-trailers-{code}");
        let response = w
            .layer()
            .layer(answering(move || ending_with(code)))
            .oneshot(grpc_call(&key))
            .await
            .unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(w.left(&key).await, left, "{code}");
        let key = format!("in-head-{code}");
        let head_only = move || {
            Response::builder()
                .header("grpc-status", code)
                .body(Body::empty())
                .unwrap()
        };
        w.layer()
            .layer(answering(head_only))
            .oneshot(grpc_call(&key))
            .await
            .unwrap();
        assert_eq!(w.left(&key).await, left, "{code}");
    }
}

#[tokio::test]
async fn refusals_have_a_status_and_a_wait() {
    let w = World::new().await;
    let service = w.layer().layer(answering(|| ending_with("0")));
    for _ in 0..10 {
        let response = service.clone().oneshot(grpc_call("a")).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    for (key, code) in [
        ("a", Code::ResourceExhausted),
        ("", Code::Unauthenticated),
        ("a#b", Code::InvalidArgument),
    ] {
        let response = service.clone().oneshot(grpc_call(key)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), code, "{status:?}");
        let details = status.get_error_details();
        if code == Code::ResourceExhausted {
            let wait = details.retry_info().unwrap().retry_delay.unwrap();
            assert!((8000..=8640).contains(&wait.as_secs()), "{wait:?}");
            assert_eq!(details.quota_failure().unwrap().violations.len(), 2);
        } else {
            assert!(details.retry_info().is_none());
        }
    }
}
