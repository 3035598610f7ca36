//! Asking an endpoint how it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use tokio::net::TcpStream;

use crate::world::HEALTH;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The health report of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its process.
    pub pid: u32,
    /// Its services.
    pub services: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    pid: u32,
    services: Map<String, Json>,
}

/// Asks the endpoint at an address of this machine.
///
/// # Errors
/// If it does not answer, or not as one of these endpoints does.
pub async fn ask(address: SocketAddr) -> io::Result<Health> {
    tokio::time::timeout(PATIENCE, asked(address)).await?
}

async fn asked(address: SocketAddr) -> io::Result<Health> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(HEALTH[0])
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let body = response.into_body().collect().await.map_err(io::Error::other)?;
    connection.abort();
    let answer: Answer = serde_json::from_slice(&body.to_bytes()).map_err(io::Error::other)?;
    Ok(Health {
        pid: answer.pid,
        services: answer.services.into_iter().map(|(name, _)| name).collect(),
    })
}
