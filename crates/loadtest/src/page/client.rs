//! A program that asks what the page's script asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::view::Sample;
use super::web::{Refusal, Wish};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer, in bytes.
const LARGEST: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers there, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// The master refuses.
    #[error("{} (HTTP status {})", .0.why, .0.status)]
    Refused(Refusal),
    /// Something else answers there.
    #[error("the answer is not one of a master: {0}")]
    Unreadable(String),
}

/// Asks a page on this machine, or at the other end of a tunnel from here.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
}

#[derive(Deserialize)]
struct Told {
    error: String,
}

impl Client {
    /// The page on this port of the loopback address.
    pub fn new(port: u16) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
        }
    }

    /// The state of the test, and what it has measured.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sample(&self) -> Result<Sample, ClientError> {
        let body = self.ask(Method::GET, "/report", Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|err| ClientError::Unreadable(err.to_string()))
    }

    /// Begins a test.
    ///
    /// # Errors
    /// [`ClientError`]: [`Refused`](ClientError::Refused) if one runs.
    pub async fn start(&self, wish: &Wish) -> Result<(), ClientError> {
        let body = serde_json::to_vec(wish).map_err(|err| ClientError::Unreadable(err.to_string()))?;
        self.ask(Method::POST, "/start", body.into()).await.map(drop)
    }

    /// Ends the test.
    ///
    /// # Errors
    /// [`ClientError`]: [`Refused`](ClientError::Refused) if none runs.
    pub async fn stop(&self) -> Result<(), ClientError> {
        self.ask(Method::POST, "/stop", "{}".into()).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let answered = timeout(PATIENCE, self.exchange(method, path, body)).await;
        answered.unwrap_or_else(|_| {
            Err(ClientError::Unreachable(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            )))
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let unreachable = |err: &dyn std::fmt::Display| ClientError::Unreachable(err.to_string());
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|err| unreachable(&err))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|err| unreachable(&err))?;
        // Ends with this call.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("localhost:{}", self.address.port()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|err| unreachable(&err))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|err| unreachable(&err))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        let body = body.map_err(|err| unreachable(&err))?.to_bytes();
        if status == 200 {
            return Ok(body);
        }
        match serde_json::from_slice::<Told>(&body) {
            Ok(told) => Err(ClientError::Refused(Refusal::new(status, told.error))),
            Err(_) => Err(ClientError::Unreadable(format!("HTTP status {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::server::{Page, Request as Asked};
    use super::super::view::{Defaults, State, View};
    use super::*;

    fn wish() -> Wish {
        Wish {
            users: 3,
            spawn_rate: 2,
            seconds: Some(5),
            classes: vec!["One".to_owned()],
            stages: Vec::new(),
            seed: Some(7),
            rate: None,
        }
    }

    #[tokio::test]
    async fn a_program_starts_and_stops_tests() {
        let defaults = Defaults {
            users: 1,
            spawn_rate: 1,
            seconds: None,
        };
        let view = View::new("limits".into(), "mine".into(), vec!["One".into()], defaults);
        let (page, mut asked) = Page::serve(0, view).await.unwrap();
        let client = Client::new(page.address().port());
        let sample = client.sample().await.unwrap();
        assert_eq!((sample.state, sample.is_complete), (State::Ready, false));
        assert_eq!(
            client.stop().await.unwrap_err().to_string(),
            "no test runs (HTTP status 409)"
        );
        client.start(&wish()).await.unwrap();
        assert_eq!(asked.recv().await, Some(Asked::Start(wish())));
        assert_eq!(client.sample().await.unwrap().state, State::Starting);
        assert!(
            matches!(client.start(&wish()).await, Err(ClientError::Refused(refusal)) if refusal.status == 409)
        );
        client.stop().await.unwrap();
        drop(page);
        // The port is closed now.
        assert!(matches!(client.sample().await, Err(ClientError::Unreachable(_))));
    }

    #[tokio::test]
    async fn other_servers_are_noticed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = Client::new(listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
                "HTTP/1.1 502 Bad\r\n\r\n",
                "SSH-2.0\r\n",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert!(matches!(client.sample().await, Err(ClientError::Unreadable(_))));
        let err = client.sample().await.unwrap_err().to_string();
        assert_eq!(err, "the answer is not one of a master: HTTP status 502");
        assert!(matches!(client.sample().await, Err(ClientError::Unreachable(_))));
    }
}
