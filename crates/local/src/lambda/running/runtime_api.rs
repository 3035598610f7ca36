//! Lambda's Runtime API: where a function's process asks for events and hands in its answers.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// The largest event and the largest answer.
pub(crate) const LARGEST: usize = 6 * 1024 * 1024;

/// The additional size of an answer that Lambda allows for its envelope.
const ENVELOPE: usize = 100;

const PREFIX: &str = "/2018-06-01/runtime/";

/// An event for the function.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) request_id: String,
    pub(crate) deadline_ms: i64,
    pub(crate) function_arn: String,
    pub(crate) trace_id: String,
    pub(crate) payload: Bytes,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The function's answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its result.
    Response(Bytes),
    /// An error of its own.
    Error(Bytes),
    /// A result that is too large to be passed on.
    TooLarge,
}

/// The runtime API of one instance.
#[derive(Debug)]
pub(crate) struct RuntimeApi {
    work: tokio::sync::Mutex<mpsc::Receiver<Work>>,
    current: Mutex<Option<(String, oneshot::Sender<Answer>)>>,
    /// Whether the process has asked for its first event.
    ready: watch::Sender<bool>,
    /// Its error if it could not start.
    init_error: Mutex<Option<Bytes>>,
}

impl RuntimeApi {
    /// A runtime API that gives out this work. The receiver is notified when the process is ready.
    pub(crate) fn new(work: mpsc::Receiver<Work>) -> (Arc<Self>, watch::Receiver<bool>) {
        let (ready, is_ready) = watch::channel(false);
        let api = Self {
            work: tokio::sync::Mutex::new(work),
            current: Mutex::default(),
            ready,
            init_error: Mutex::default(),
        };
        (Arc::new(api), is_ready)
    }

    /// The process's error if it could not start.
    pub(crate) fn init_error(&self) -> Option<Bytes> {
        self.init_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Serves until `stop` ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let api = Arc::clone(&self);
            let service = service_fn(move |request| {
                let api = Arc::clone(&api);
                async move { Ok::<_, Infallible>(api.respond(request).await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                // A process that is killed hangs up.
                let _ = connection.await;
            });
        }
    }

    async fn respond(&self, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Some(path) = head.uri.path().strip_prefix(PREFIX) else {
            return refused(StatusCode::NOT_FOUND, "InvalidPath", head.uri.path());
        };
        let path: Vec<&str> = path.split('/').collect();
        match (&head.method, path.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, kind @ ("response" | "error")]) => {
                let body = Limited::new(body, LARGEST + ENVELOPE).collect().await;
                let answer = match (body, *kind) {
                    (Ok(body), "response") => Answer::Response(body.to_bytes()),
                    (Ok(body), _) => Answer::Error(body.to_bytes()),
                    (Err(err), _) if err.is::<http_body_util::LengthLimitError>() => Answer::TooLarge,
                    (Err(err), _) => {
                        return refused(StatusCode::BAD_REQUEST, "InvalidBody", &err.to_string());
                    }
                };
                self.answered(id, answer)
            }
            (&Method::POST, ["init", "error"]) => match Limited::new(body, LARGEST).collect().await {
                Ok(body) => {
                    *self.init_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(body.to_bytes());
                    accepted()
                }
                Err(err) => refused(StatusCode::BAD_REQUEST, "InvalidBody", &err.to_string()),
            },
            (method, _) => {
                let what = format!("{method} {}", head.uri.path());
                refused(StatusCode::NOT_FOUND, "InvalidPath", &what)
            }
        }
    }

    async fn next(&self) -> Response<Full<Bytes>> {
        // Whatever was given out before and not answered will not be any more.
        self.current().take();
        self.ready.send_replace(true);
        // If the process hangs up meanwhile, nothing is taken.
        let Some(work) = self.work.lock().await.recv().await else {
            return refused(StatusCode::GONE, "Ended", "there is no more work");
        };
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", &work.request_id)
            .header("lambda-runtime-deadline-ms", work.deadline_ms)
            .header("lambda-runtime-invoked-function-arn", &work.function_arn)
            .header("lambda-runtime-trace-id", &work.trace_id)
            .body(Full::new(work.payload));
        match response {
            Ok(response) => {
                *self.current() = Some((work.request_id, work.answer));
                response
            }
            Err(err) => refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal", &err.to_string()),
        }
    }

    fn answered(&self, id: &str, answer: Answer) -> Response<Full<Bytes>> {
        let taken = self.current().take_if(|(current, _)| current == id);
        let Some((_, sender)) = taken else {
            return refused(StatusCode::BAD_REQUEST, "InvalidRequestID", id);
        };
        let large = answer == Answer::TooLarge;
        // Who waited may have gone.
        let _ = sender.send(answer);
        if large {
            return refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                "the answer has more than 6 MB",
            );
        }
        accepted()
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<(String, oneshot::Sender<Answer>)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(br#"{"status":"OK"}"#)));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn refused(status: StatusCode, kind: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"errorType": kind, "errorMessage": message}).to_string();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
