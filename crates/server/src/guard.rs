//! What every request passes before its handler: who asks, how many are in flight, and how long it takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Instrument as _;

use crate::auth::{Auth, HasCertificate};
use crate::connection::Port;
use crate::http::page;
use crate::options::Limits;
use crate::problem::problem;
use crate::unsent::Lasting;
use crate::{span, telemetry};

/// The guard of a port.
#[derive(Debug)]
pub(crate) struct Guard {
    port: Port,
    auth: Auth,
    places: Semaphore,
    /// For responses that have no end of their own, of which those of health checks need neither a place nor credentials.
    streams: Arc<Semaphore>,
    limits: Limits,
    /// Whether browsers of this machine only can reach the port.
    is_local: bool,
    draining: watch::Receiver<bool>,
}

impl Guard {
    pub(crate) fn new(
        (port, address): (Port, SocketAddr),
        auth: Auth,
        limits: Limits,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            port,
            is_local: address.ip().is_loopback(),
            auth,
            places: Semaphore::new(limits.requests),
            // One of each connection, more or less.
            streams: Arc::new(Semaphore::new(limits.connections)),
            limits,
            draining,
        }
    }

    /// The answer to a request that its handler does not see.
    fn refuse(&self, code: Code, status: StatusCode, why: &'static str) -> Response {
        if self.port == Port::Grpc {
            return Status::new(code, why).into_http();
        }
        let body = problem(error_code(status), why);
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(http::header::WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }

    /// Why a request can be one of a web page, which any site can send to loopback addresses of its reader. Browsers name the site in
    /// `Origin`, but not if the name of the site has become that of this machine (DNS rebinding): it is in `Host` then.
    fn is_of_page(&self, request: &Request) -> Option<&'static str> {
        if request.headers().contains_key(ORIGIN) {
            return Some("requests of web pages are not answered");
        }
        // Clients of gRPC put names of their own there, and no page sends it without `Origin`.
        let is_named = self.port == Port::Http && self.is_local && !names_this_machine(request);
        is_named.then_some("the field Host must be localhost or an IP address")
    }

    async fn answer(&self, request: Request, next: Next) -> Response {
        if self.port == Port::Grpc && !is_grpc(request.headers()) {
            let why = "the content-type of gRPC is application/grpc";
            let mut response = Status::invalid_argument(why).into_http();
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let path = request.uri().path();
        let is_public = is_health(path) || page::is_part(path);
        let is_stream = is_stream(path);
        let peer = request.extensions().get().copied();
        let peer = peer.unwrap_or(HasCertificate(false));
        if !is_public && let Err(why) = self.auth.check(request.headers(), peer) {
            return self.refuse(Code::Unauthenticated, StatusCode::UNAUTHORIZED, why);
        }
        if self.auth.is_open()
            && let Some(why) = self.is_of_page(&request)
        {
            return self.refuse(Code::PermissionDenied, StatusCode::FORBIDDEN, why);
        }
        // An operator must see what happens under load.
        let is_exempt = is_public || matches!(path, "/metrics" | "/v1/activity");
        let place = if is_exempt {
            None
        } else {
            let Ok(place) = self.places.try_acquire() else {
                telemetry::shed(self.port.as_str());
                let why = "too many requests are in flight";
                return self.refuse(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, why);
            };
            Some(place)
        };
        let stream = if is_stream {
            let Ok(stream) = Arc::clone(&self.streams).try_acquire_owned() else {
                telemetry::shed(self.port.as_str());
                let why = "too many streams are open";
                return self.refuse(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, why);
            };
            Some(stream)
        } else {
            None
        };
        let Ok(response) = tokio::time::timeout(self.limits.request_timeout, next.run(request)).await else {
            let why = "the request took too long";
            return self.refuse(Code::Unavailable, StatusCode::REQUEST_TIMEOUT, why);
        };
        drop(place);
        match stream {
            Some(stream) => lasting(response, stream, self.draining.clone()),
            None => response,
        }
    }
}

/// Whether a request is addressed to an IP address or to localhost, or does not say to which name.
fn names_this_machine(request: &Request) -> bool {
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let host = host.map(Authority::try_from).transpose();
    let Ok(host) = host else { return false };
    let Some(host) = request.uri().authority().or(host.as_ref()) else {
        return true;
    };
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// A word for programs.
fn error_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        _ => "overloaded",
    }
}

/// Whether a request says that its body has messages of gRPC, with this encoding of them or another one.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Probes have no credentials.
fn is_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz") || path.starts_with("/grpc.health.v1.Health/")
}

/// Calls whose response has no end of its own.
fn is_stream(path: &str) -> bool {
    path == "/grpc.health.v1.Health/Watch" || path.starts_with("/grpc.reflection.")
}

/// A response without an end: it keeps its place among those, and ends when the server is about to end, which would else wait for it.
fn lasting(
    mut response: Response,
    place: OwnedSemaphorePermit,
    mut draining: watch::Receiver<bool>,
) -> Response {
    response.extensions_mut().insert(Lasting);
    let drained = async move {
        // An error is the end of the server.
        let _ = draining.wait_for(|draining| *draining).await;
    };
    response.map(|body| {
        let frames = BodyStream::new(body.map_err(axum::Error::new)).take_until(Box::pin(drained));
        let mut trailers = HeaderMap::new();
        // A stream that has ended by itself has trailers already, and no client reads on.
        let _ = Status::unavailable("the server is about to end").add_header(&mut trailers);
        let last = stream::once(async move {
            drop(place);
            Ok(Frame::trailers(trailers))
        });
        Body::new(StreamBody::new(frames.chain(last)))
    })
}

/// The middleware.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let port = guard.port.as_str();
    let in_flight = InFlight::begin(port);
    let route = match request.extensions().get::<MatchedPath>() {
        // That of a service is one for all its methods.
        Some(_) if guard.port == Port::Grpc => request.uri().path(),
        Some(route) => route.as_str(),
        None => "",
    };
    let span = span::of_request(guard.port, request.method(), route, request.headers());
    let response = guard.answer(request, next).instrument(span.clone()).await;
    drop(in_flight);
    let (code, is_failure) = if guard.port == Port::Grpc {
        let status = Status::from_header_map(response.headers());
        let code = status.map_or(Code::Ok, |status| status.code());
        (i32::from(code) as u16, is_failure(code))
    } else {
        (response.status().as_u16(), response.status().is_server_error())
    };
    span::answered(&span, code, is_failure);
    telemetry::answered(port, code, began.elapsed().as_secs_f64());
    response
}

/// Whether the server has failed, and not its client.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A request that is counted, also if its client goes away.
struct InFlight(&'static str);

impl InFlight {
    fn begin(port: &'static str) -> Self {
        telemetry::in_flight(port, 1.0);
        Self(port)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        telemetry::in_flight(self.0, -1.0);
    }
}
