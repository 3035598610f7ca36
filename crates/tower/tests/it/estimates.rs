//! Estimates of the tokens of requests, and what becomes of their bodies.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use serde_json::json;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _};
use zae_limiter_tower::estimate::{Estimate, EstimateLayer, Replayed};
use zae_limiter_tower::{RateLimitLayer, Rules, key, usage};

use crate::world::{KEY, World};

/// One byte is one token.
fn exact() -> EstimateLayer {
    EstimateLayer::new()
        .tokenizer(|text: &str| text.len() as u64)
        .default_output(50)
        .attachment(7)
}

/// A service that shows what it is given: the body, and in a field the estimate.
fn showing() -> impl Service<
    Request<Replayed<Body>>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    tower::service_fn(async |request: Request<Replayed<Body>>| {
        let (head, body) = request.into_parts();
        let estimate = head.extensions.get::<Estimate>().unwrap();
        let told = format!(
            "{} {} {:?} {}",
            estimate.input, estimate.output, estimate.model, estimate.is_stream
        );
        let whole = body.collect().await.unwrap();
        let has_trailers = whole.trailers().is_some();
        let mut response = Response::new(Body::from(whole.to_bytes()));
        response
            .headers_mut()
            .insert("x-estimate", HeaderValue::try_from(told).unwrap());
        response
            .headers_mut()
            .insert("x-trailers", HeaderValue::from(u16::from(has_trailers)));
        Ok(response)
    })
}

async fn estimate(layer: &EstimateLayer, body: impl Into<Body>) -> (StatusCode, String, Bytes) {
    let request = Request::post("/").body(body.into()).unwrap();
    let response = layer.layer(showing()).oneshot(request).await.unwrap();
    let told = response
        .headers()
        .get("x-estimate")
        .map_or("", |told| told.to_str().unwrap())
        .to_owned();
    let status = response.status();
    (
        status,
        told,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

async fn check(layer: &EstimateLayer, body: &serde_json::Value, expected: &str) {
    let text = body.to_string();
    let (status, told, passed) = estimate(layer, text.clone()).await;
    assert_eq!((status, &*told), (StatusCode::OK, expected), "{text}");
    assert_eq!(passed, text);
}

#[tokio::test]
async fn requests_of_open_ai_and_anthropic() {
    for (body, expected) in [
        (
            json!({ "model": "gpt-4o", "prompt": "12345", "max_tokens": 9 }),
            "5 9 Some(\"gpt-4o\") false",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "12345" }] }),
            "20 50 None false",
        ),
        (
            json!({ "messages": [{ "content": [{ "type": "text", "text": "123" }] }], "stream": true }),
            "22 50 None true",
        ),
        (
            json!({ "input": ["12", "34"], "max_output_tokens": 3 }),
            "4 3 None false",
        ),
        (json!({ "input": [1, 2, 3] }), "3 50 None false"),
        (
            json!({ "system": "12", "messages": [], "max_tokens": 5, "stream": false }),
            "2 5 None false",
        ),
        (
            json!({ "prompt": "1", "max_tokens": 5, "max_completion_tokens": 7, "n": 3 }),
            "1 21 None false",
        ),
        // Each prompt is answered, and tokens are one prompt.
        (
            json!({ "prompt": ["1", "2", "3"], "max_tokens": 5, "n": 2 }),
            "3 30 None false",
        ),
        (
            json!({ "prompt": [[1, 2], [3]], "max_tokens": 5 }),
            "3 10 None false",
        ),
        (json!({ "prompt": [1, 2, 3], "max_tokens": 5 }), "3 5 None false"),
        // Texts are input wherever they are.
        (
            json!({ "contents": [{ "parts": [{ "text": "123" }] }], "temperature": 0.5 }),
            "13 50 None false",
        ),
        (
            json!({ "max_tokens": 1e30, "n": 5 }),
            "0 18446744073709551615 None false",
        ),
        (json!({}), "0 50 None false"),
    ] {
        check(&exact(), &body, expected).await;
    }
}

/// As other parsers may read them.
#[tokio::test]
async fn the_larger_reading_counts() {
    for (body, expected) in [
        (
            json!({ "MAX_TOKENS": 9, "Prompt": ["1", "2"], "N": 2 }),
            "2 36 None false",
        ),
        (json!({ "max_tokens": "9", "n": " 8" }), "0 72 None false"),
        (json!({ "max_tokens": 0 }), "0 50 None false"),
        (json!({ "max_tokens": -1, "n": -1 }), "0 50 None false"),
        (json!({ "max_tokens": null }), "0 50 None false"),
    ] {
        check(&exact(), &body, expected).await;
    }
    for (text, expected) in [
        (
            r#"{"max_tokens":1,"max_tokens":9,"max_tokens":2}"#,
            "0 9 None false",
        ),
        (r#"{"messages":"123","messages":"45"}"#, "5 50 None false"),
        (r#"{"m\u006fdel":"a","model":"a"}"#, "0 50 Some(\"a\") false"),
    ] {
        assert_eq!(estimate(&exact(), text).await.1, expected, "{text}");
    }
}

#[tokio::test]
async fn attachments_count_by_themselves_and_hide_nothing() {
    let data = "A".repeat(6400);
    let url = format!("data:image/png;base64,{data}");
    let about = |value: serde_json::Value| json!({ "messages": [{ "content": value }], "max_tokens": 1 });
    for (value, expected) in [
        // 7 for the picture, a 64th of its bytes, and the names.
        (json!([{ "image_url": { "url": url } }]), 7 + 9 + 3 + 7 + 100),
        (
            json!([{ "image_url": url }, { "image_url": url }]),
            7 + 2 * (9 + 7 + 100),
        ),
        (
            json!([{ "source": { "media_type": "image/png", "data": data } }]),
            7 + 6 + 10 + 9 + 4 + 7 + 100,
        ),
        // A document that is text.
        (
            json!([{ "source": { "data": data, "type": "text" } }]),
            7 + 6 + 4 + 6400 + 4 + 4,
        ),
        (
            json!([{ "source": { "data": data, "media_type": "text/plain" } }]),
            7 + 6 + 4 + 6400 + 10 + 10,
        ),
        (
            json!([{ "source": { "data": "plain words", "media_type": "x" } }]),
            7 + 6 + 4 + 11 + 10 + 1,
        ),
        // A name that is not one of a picture.
        (json!([{ "image": data }]), 7 + 5 + 6400),
    ] {
        let expected = format!("{expected} 1 None false");
        // The byte count of the prefix is in the encoded text, too.
        let told = estimate(&exact(), about(value.clone()).to_string()).await.1;
        assert_eq!(told, expected, "{value}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_understood_are_refused_or_all_input() {
    for (body, expected) in [
        (&b"12345"[..], "5 50 None false"),
        (b"[1,2]", "5 50 None false"),
        (b"{\"prompt\":\"12\"", "14 50 None false"),
        (b"{\"prompt\":\"12\"} x", "17 50 None false"),
        (b"{\"prompt\":\"\\ud800\",\"max_tokens\":9}", "34 50 None false"),
        (b"{\"model\":\"a\",\"model\":\"b\"}", "25 50 None false"),
        (b"{\"model\":null,\"model\":\"b\"}", "26 50 None false"),
        (b"\xef\xbb\xbf{}", "5 50 None false"),
        (b"\xff\xfe123", "5 50 None false"),
    ] {
        assert_eq!(
            estimate(&exact(), Bytes::from_static(body)).await.0,
            StatusCode::BAD_REQUEST
        );
        let (status, told, passed) = estimate(&exact().any_body(), Bytes::from_static(body)).await;
        assert_eq!((status, &*told, &passed[..]), (StatusCode::OK, expected, body));
    }
    assert_eq!(estimate(&exact(), "").await.1, "0 0 None false");
    let deep = format!("{{\"prompt\":{}", "[".repeat(100_000));
    assert_eq!(estimate(&exact(), deep).await.0, StatusCode::BAD_REQUEST);
}

/// A body of which nothing may be read.
fn untouched() -> Body {
    let frames = stream::once(async { Err::<Frame<Bytes>, _>("the body was read") });
    Body::new(StreamBody::new(frames))
}

#[tokio::test]
async fn keys_are_checked_before_bodies_are_read() {
    let w = World::new().await;
    let rules = || {
        Rules::new(key::header(KEY), "api")
            .consume("rpd", 1)
            .consume_estimate("tpd")
            .unless(|request| request.uri.path() == "/upload")
    };
    let layer = RateLimitLayer::new(w.limiter.clone(), rules())
        .unwrap()
        .correct("tpd", usage::openai())
        .unwrap()
        .body_shape(zae_limiter_tower::BodyShape::Empty)
        .estimated(exact());
    let model = tower::service_fn(async |request: Request<Replayed<Body>>| {
        let has_estimate = request.extensions().get::<Estimate>().is_some();
        let read = request.into_body().collect().await;
        let text = match read {
            Ok(body) => format!("{{\"usage\":{{\"total_tokens\":{}}}}}", body.to_bytes().len()),
            Err(error) => error.to_string(),
        };
        let head = Response::builder().header("content-type", "application/json");
        let head = head.header("x-estimate", u16::from(has_estimate));
        Ok::<_, Infallible>(head.body(Body::from(text)).unwrap())
    });
    let service = layer.layer(model);
    let post = |path: &str, key: &str, body: Body| {
        let head = Request::post(path).header(KEY, key);
        service.clone().oneshot(head.body(body).unwrap())
    };
    for (path, key, body, status) in [
        ("/", "", untouched(), StatusCode::UNAUTHORIZED),
        ("/", "bad#name", untouched(), StatusCode::BAD_REQUEST),
        ("/", "a", untouched(), StatusCode::BAD_REQUEST),
        ("/", "a", Body::from("no JSON"), StatusCode::BAD_REQUEST),
        (
            "/",
            "a",
            Body::from("{\"prompt\":\"1234567890\"}"),
            StatusCode::OK,
        ),
        ("/upload", "", Body::from("no JSON"), StatusCode::OK),
    ] {
        let response = post(path, key, body).await.unwrap();
        assert_eq!(response.status(), status, "{path} {key}");
        let told = response.headers().get("x-estimate").cloned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status == StatusCode::OK {
            assert_eq!(told.unwrap(), if path == "/" { "1" } else { "0" });
        } else {
            // As the limiting layer answers, and not as the other one.
            assert!(body.is_empty(), "{body:?}");
        }
    }
    // The estimate of 60 was corrected to the 23 bytes of the body.
    assert_eq!(w.left("a").await, (9, 977));
}

#[tokio::test]
async fn the_default_counts_three_bytes() {
    let body = json!({ "prompt": "1234567", "max_tokens": 1 }).to_string();
    assert_eq!(estimate(&EstimateLayer::new(), body).await.1, "3 1 None false");
}

fn in_pieces(pieces: Vec<&'static [u8]>, trailers: bool) -> Body {
    let data = pieces
        .into_iter()
        .map(|piece| Frame::data(Bytes::from_static(piece)));
    let mut frames: Vec<_> = data.map(Ok::<_, Infallible>).collect();
    if trailers {
        frames.push(Ok(Frame::trailers(HeaderMap::new())));
    }
    Body::new(StreamBody::new(stream::iter(frames)))
}

#[tokio::test]
async fn a_body_in_pieces_is_passed_on_whole() {
    let layer = exact();
    let body = in_pieces(vec![b"{\"pro", b"", b"mpt\":\"1", b"2\"}"], true);
    let request = Request::post("/").body(body).unwrap();
    let response = layer.layer(showing()).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-estimate"], "2 50 None false");
    assert_eq!(response.headers()["x-trailers"], "1");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{\"prompt\":\"12\"}");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let layer = exact().any_body().max_body(10);
    for (body, status) in [
        (in_pieces(vec![b"0123456789"], false), StatusCode::OK),
        (in_pieces(vec![b"01234", b"56789"], false), StatusCode::OK),
        (
            in_pieces(vec![b"01234", b"567890"], false),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (Body::from("01234567890"), StatusCode::PAYLOAD_TOO_LARGE),
        (Body::from("0123456789"), StatusCode::OK),
    ] {
        assert_eq!(estimate(&layer, body).await.0, status);
    }
    // Without an end.
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))));
    let (status, _, body) = estimate(&layer, Body::new(StreamBody::new(endless))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["message"], "the body is larger than 10 bytes");
}

#[tokio::test(start_paused = true)]
async fn slow_broken_and_encoded_bodies() {
    let layer = exact().body_timeout(Duration::from_secs(3));
    let never = stream::pending::<Result<Frame<Bytes>, Infallible>>();
    assert_eq!(
        estimate(&layer, Body::new(StreamBody::new(never))).await.0,
        StatusCode::REQUEST_TIMEOUT
    );
    let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"x"))), Err("gone")]);
    assert_eq!(
        estimate(&layer, Body::new(StreamBody::new(broken))).await.0,
        StatusCode::BAD_REQUEST
    );
    for (encoding, status) in [
        ("gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("identity", StatusCode::OK),
    ] {
        let request = Request::post("/")
            .header("content-encoding", "identity")
            .header("content-encoding", encoding)
            .body("{}".into())
            .unwrap();
        assert_eq!(
            layer.layer(showing()).oneshot(request).await.unwrap().status(),
            status
        );
    }
}

#[tokio::test]
async fn the_estimate_is_taken_and_corrected() {
    let w = World::new().await;
    let rules = Rules::new(key::header(KEY), "api")
        .consume("rpd", 1)
        .consume_estimate("tpd");
    let limits = RateLimitLayer::new(w.limiter.clone(), rules)
        .unwrap()
        .correct("tpd", usage::openai())
        .unwrap();
    let model = tower::service_fn(async |_: Request<Replayed<Body>>| {
        let head = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(head.body(Body::from(r#"{"usage":{"total_tokens":12}}"#)).unwrap())
    });
    let service = ServiceBuilder::new()
        .layer(exact())
        .layer(limits.clone())
        .service(model);
    let call = |max: u64| {
        let body = json!({ "prompt": "12345", "max_tokens": max }).to_string();
        service
            .clone()
            .oneshot(Request::post("/").header(KEY, "a").body(body.into()).unwrap())
    };
    let response = call(895).await.unwrap();
    assert_eq!(w.limiter.available("a", "api").await.unwrap()["tpd"], 100);
    assert_eq!(call(100).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(call(1000).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    // More than any limit can hold.
    assert_eq!(call(u64::MAX).await.unwrap().status(), StatusCode::BAD_REQUEST);
    response.into_body().collect().await.unwrap();
    assert_eq!(w.left("a").await, (9, 988));
    // Without the layer in front, that is a fault of the service.
    let alone = limits.layer(tower::service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let response = alone.oneshot(crate::world::request("a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

/// What hostile bodies are made of.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\\",
    b"1",
    b"\"messages\":",
    b"\"max_tokens\":",
    b"\"n\":",
    b"\"content\"",
    b"null",
    b"\xff",
    b"\"image_url\"",
    b"1e999",
    b"-5",
];

proptest! {
    #[test]
    fn no_body_panics(body in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        let body = body.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (status, _, passed) = runtime.block_on(estimate(&exact().any_body(), body.clone()));
        prop_assert_eq!(status, StatusCode::OK);
        prop_assert_eq!(passed, body);
    }
}
