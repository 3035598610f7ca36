//! The master's port: connections of workers, and what they say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::frame::{self, FrameError, LARGEST};
use super::handshake::{Secret, admit};
use super::message::{ToMaster, ToWorker, WorkerId};

/// The most connections that have not proved who they are.
const GREETINGS: usize = 64;

/// How many messages can wait for a worker.
pub(super) const WAITING: usize = 8;

/// How many messages of workers can wait for the master.
const UNHEARD: usize = 16;

/// The pause after a failure to accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What comes from the port.
#[derive(Debug)]
pub(super) enum Event {
    /// A worker has connected. Its connection is closed when `out` is dropped.
    Joined {
        worker: WorkerId,
        name: String,
        out: mpsc::Sender<ToWorker>,
    },
    /// A worker has sent something.
    Said { worker: WorkerId, message: ToMaster },
    /// A connection has ended.
    Gone { worker: WorkerId, why: String },
}

/// What all connections share.
struct Door {
    secret: Secret,
    /// How long a worker may be silent.
    silence: Duration,
    greetings: Semaphore,
    workers: Semaphore,
    next: AtomicU32,
    events: mpsc::Sender<Event>,
}

/// Accepts workers, until what is returned is dropped.
pub(super) fn listen(
    listener: TcpListener,
    secret: Secret,
    most_workers: usize,
    silence: Duration,
) -> (JoinSet<()>, mpsc::Receiver<Event>) {
    let (events, heard) = mpsc::channel(UNHEARD);
    let door = Arc::new(Door {
        secret,
        silence,
        greetings: Semaphore::new(GREETINGS),
        workers: Semaphore::new(most_workers.min(Semaphore::MAX_PERMITS)),
        next: AtomicU32::new(1),
        events,
    });
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(listener, door));
    (accepting, heard)
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    // Dropped with this task, so that connections end with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&door)));
            }
            Err(err) => {
                tracing::warn!(error = %err, "a worker's connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(mut stream: TcpStream, door: Arc<Door>) {
    // Small messages must not wait for more.
    let _ = stream.set_nodelay(true);
    let name = {
        let Ok(_greeting) = door.greetings.try_acquire() else {
            tracing::warn!("too many connections wait for their proof; one more was closed");
            return;
        };
        match admit(&mut stream, &door.secret).await {
            Ok(name) => name,
            Err(err) => {
                tracing::warn!(error = %err, "a connection was refused");
                return;
            }
        }
    };
    let Ok(_place) = door.workers.try_acquire() else {
        let why = "the master has as many workers as it takes".to_owned();
        let _ = frame::write(&mut stream, &ToWorker::Refused { why }, door.silence).await;
        return;
    };
    let worker = door.next.fetch_add(1, Ordering::Relaxed);
    let (out, messages) = mpsc::channel(WAITING);
    // There is room for it.
    let _ = out.try_send(ToWorker::Welcome { worker });
    let joined = Event::Joined { worker, name, out };
    if door.events.send(joined).await.is_err() {
        return;
    }
    let (from, to) = stream.into_split();
    let ended = tokio::select! {
        ended = hear(from, worker, &door) => ended,
        ended = send(to, messages, door.silence) => ended,
    };
    let why = ended
        .err()
        .map_or_else(|| "it was dismissed".to_owned(), |err| err.to_string());
    let _ = door.events.send(Event::Gone { worker, why }).await;
}

/// Passes on what a worker says, until it is silent for too long.
async fn hear(mut from: OwnedReadHalf, worker: WorkerId, door: &Door) -> Result<(), FrameError> {
    loop {
        let message = frame::read(&mut from, LARGEST, door.silence).await?;
        if door.events.send(Event::Said { worker, message }).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends messages until there are no more.
async fn send(
    mut to: OwnedWriteHalf,
    mut messages: mpsc::Receiver<ToWorker>,
    within: Duration,
) -> Result<(), FrameError> {
    while let Some(message) = messages.recv().await {
        frame::write(&mut to, &message, within).await?;
    }
    to.shutdown().await?;
    Ok(())
}

/// The ways to workers.
pub(super) type Outs = BTreeMap<WorkerId, mpsc::Sender<ToWorker>>;
