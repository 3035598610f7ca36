//! Reads a trace in a thread of its own, so that a slow file neither delays signals nor the replay.

use std::thread;

use tokio::sync::mpsc::{Receiver, channel};

use crate::trace::{Counts, Description, Request, Trace, TraceError};

/// How many requests are handed over at once.
const BATCH: usize = 1024;

/// How many batches may wait.
const WAITING: usize = 4;

/// What the thread hands over, in this order.
#[derive(Debug)]
pub(super) enum Fed {
    /// The trace is open.
    Open(Box<Description>),
    /// Its next requests.
    Batch(Vec<Request>),
    /// It has ended.
    End(Counts),
    /// It cannot be read further.
    Failed(TraceError),
}

/// Starts the thread. It ends if the receiver is dropped.
pub(super) fn feed(
    open: impl FnOnce() -> Result<Trace, TraceError> + Send + 'static,
) -> std::io::Result<Receiver<Fed>> {
    let (to, from) = channel(WAITING);
    thread::Builder::new().name("trace".to_owned()).spawn(move || {
        // A receiver that is gone needs nothing more.
        let send = |fed| to.blocking_send(fed).is_ok();
        match open() {
            Ok(trace) => read(trace, send),
            Err(err) => drop(send(Fed::Failed(err))),
        }
    })?;
    Ok(from)
}

fn read(mut trace: Trace, send: impl Fn(Fed) -> bool) {
    if !send(Fed::Open(Box::new(trace.description().clone()))) {
        return;
    }
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let next = trace.next_request();
        let has_ended = !matches!(next, Ok(Some(_)));
        let end = match next {
            Ok(Some(request)) => {
                batch.push(request);
                None
            }
            Ok(None) => Some(Fed::End(trace.counts().clone())),
            Err(err) => Some(Fed::Failed(err)),
        };
        if (has_ended || batch.len() == BATCH) && !send(Fed::Batch(std::mem::take(&mut batch))) {
            return;
        }
        if let Some(end) = end {
            send(end);
            return;
        }
    }
}
