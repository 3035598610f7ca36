//! Accepts connections, up to a number, until the server is about to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::connection::{self, Setup};
use crate::telemetry;

/// The pause after an error of the listener, such as too many open files: another attempt at once would fail as well.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `draining` is true. Returns those that are left, which are being shut down.
pub(crate) async fn accept(
    tcp: TcpListener,
    setup: Arc<Setup>,
    mut draining: watch::Receiver<bool>,
) -> JoinSet<()> {
    let places = Arc::new(Semaphore::new(setup.limits.connections));
    let port = setup.port.as_str();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return connections,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = tcp.accept() => accepted,
        };
        let (stream, peer): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            telemetry::rejected(port);
            tracing::debug!(%peer, "a connection was closed: there are too many");
            continue;
        };
        let setup = Arc::clone(&setup);
        let draining = draining.clone();
        connections.spawn(async move {
            telemetry::connections(port, 1.0);
            connection::serve(stream, peer, &setup, draining).await;
            telemetry::connections(port, -1.0);
            drop(place);
        });
    }
}
