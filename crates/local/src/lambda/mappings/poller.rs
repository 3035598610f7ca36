//! A mapping at work: one task that reads a stream and runs a function, in order.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::batch::{Batch, Step, Verdict};
use super::delivery::{GivenUp, event, verdict};
use super::reader::{Parcel, Reader};
use super::record::{KIND, Mapping, PLACE, Place};
use crate::clock::now_ms;
use crate::lambda::names::FunctionId;
use crate::lambda::{Inner, Lambda, becomes};
use crate::wire::{Refusal, uuid};

/// How often a message for a queue is tried before it is only logged.
const SENDS: u32 = 3;

/// A running poller. It stops, after the invocation under way, when this goes.
#[derive(Debug)]
pub(crate) struct Poller {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Poller {
    /// Starts one for a mapping; it begins when the one before it has ended.
    pub(crate) fn start(lambda: &Lambda, mapping: Mapping, before: Option<Self>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let work = Work {
            lambda: Arc::downgrade(&lambda.inner),
            function: mapping.function_id(),
            mapping: Arc::new(mapping),
            stopped,
        };
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                before.end().await;
            }
            if let Err(err) = work.run().await {
                tracing::error!(error = %err, "an event source mapping cannot work");
            }
        });
        Self { stop, task }
    }

    /// Stops it after the invocation under way.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops it, and waits for the invocation under way.
    pub(crate) async fn end(self) {
        self.stop();
        if let Err(err) = self.task.await {
            tracing::error!(error = %err, "an event source mapping broke off");
        }
    }

    /// Stops it at once.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

/// The state of the task.
#[derive(Debug)]
struct Work {
    lambda: Weak<Inner>,
    mapping: Arc<Mapping>,
    function: FunctionId,
    stopped: watch::Receiver<bool>,
}

impl Work {
    async fn run(mut self) -> Result<(), Refusal> {
        let Some(lambda) = self.lambda() else {
            return Ok(());
        };
        let store = lambda.inner.store.clone();
        let place: Place = store.get(PLACE, &self.mapping.uuid)?.unwrap_or_default();
        let reader = Reader::new(
            lambda.inner.tables.clone(),
            Arc::clone(&self.mapping),
            lambda.inner.pace,
            place.read.clone(),
        )?;
        drop(lambda);
        let (parcels, mut parcel) = mpsc::channel(1);
        let (uuid, before) = (self.mapping.uuid.clone(), place.result.clone());
        let troubles = self.lambda.clone();
        let trouble = move |err: Option<&Refusal>| {
            let result = match err {
                Some(err) => {
                    tracing::warn!(mapping = uuid, error = %err, "the stream of an event source mapping cannot be read");
                    format!("PROBLEM: {}", err.message)
                }
                None => before.clone(),
            };
            if let Some(inner) = troubles.upgrade() {
                (Lambda { inner }).set_place(&uuid, None, &result);
            }
        };
        let reading = reader.run(parcels, trouble);
        let working = async {
            let mut stopped = self.stopped.clone();
            loop {
                tokio::select! {
                    biased;
                    // Also if the poller was dropped.
                    _ = becomes(&mut stopped, |stopped| *stopped) => return,
                    taken = parcel.recv() => match taken {
                        Some(taken) => self.deliver(taken).await,
                        None => return,
                    },
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = working => {}
        }
        Ok(())
    }

    fn lambda(&self) -> Option<Lambda> {
        self.lambda.upgrade().map(|inner| Lambda { inner })
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    /// Brings a parcel to its end, or to the next stop.
    async fn deliver(&mut self, parcel: Parcel) {
        let Some(pace) = self.lambda().map(|lambda| lambda.inner.pace) else {
            return;
        };
        let made = parcel.records.iter().map(|record| record.made_ms).collect();
        let rules = self.mapping.rules(pace.retry, pace.longest_retry);
        let mut batch = Batch::new(rules, made);
        let mut settled = 0;
        let mut last = Last::default();
        loop {
            match batch.next(now_ms()) {
                Step::Done => break,
                Step::Wait(wait) => {
                    let mut stopped = self.stopped.clone();
                    tokio::select! {
                        _ = becomes(&mut stopped, |stopped| *stopped) => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                Step::Invoke(places) => {
                    let records = &parcel.records[places.clone()];
                    let verdict = self.invoke(records, places.start, &mut last).await;
                    batch.report(verdict);
                }
                Step::GiveUp {
                    records,
                    condition,
                    invocations,
                } => {
                    self.give_up(&GivenUp {
                        function_arn: &self.function.arn(),
                        source: &self.mapping.source,
                        shard: &parcel.shard,
                        records: &parcel.records[records],
                        condition,
                        invocations,
                        request_id: last.request_id.as_deref().filter(|_| invocations > 0),
                        failed: last.failed,
                    })
                    .await;
                }
            }
            let Some(lambda) = self.lambda() else {
                return;
            };
            if batch.settled() > settled && batch.settled() < parcel.records.len() {
                settled = batch.settled();
                let read = &parcel.records[settled - 1].sequence;
                lambda.set_place(&self.mapping.uuid, Some(read), &last.result);
            }
            if self.is_stopped() && batch.settled() < parcel.records.len() {
                return;
            }
        }
        if let Some(lambda) = self.lambda() {
            lambda.set_place(&self.mapping.uuid, Some(&parcel.up_to), &last.result);
        }
    }

    async fn invoke(&self, records: &[super::delivery::Record], start: usize, last: &mut Last) -> Verdict {
        let Some(lambda) = self.lambda() else {
            return Verdict::NotRun;
        };
        match lambda.run(&self.function, uuid(), event(records).into()).await {
            Ok(finished) => {
                let verdict = verdict(&finished, records, start, self.mapping.partial);
                last.failed = finished.failed;
                last.request_id = Some(finished.request_id);
                last.result = match verdict {
                    Verdict::Done => "OK".to_owned(),
                    _ => "PROBLEM: Function call failed".to_owned(),
                };
                verdict
            }
            Err(err) => {
                last.result = format!("PROBLEM: {}", err.message);
                tracing::warn!(function = self.function.name, error = %err, "a function could not be invoked");
                lambda.set_place(&self.mapping.uuid, None, &last.result);
                Verdict::NotRun
            }
        }
    }

    async fn give_up(&self, given_up: &GivenUp<'_>) {
        tracing::warn!(
            function = self.function.name,
            records = given_up.records.len(),
            condition = given_up.condition.as_str(),
            "records of a stream are given up"
        );
        let Some(queue) = &self.mapping.on_failure else {
            return;
        };
        let message = given_up.message().to_string();
        for attempt in 1..=SENDS {
            let Some(lambda) = self.lambda() else {
                return;
            };
            let (services, queue_arn, body) =
                (Arc::clone(&lambda.inner.services), queue.clone(), message.clone());
            let sent = tokio::task::spawn_blocking(move || services.send(&queue_arn, &body)).await;
            match sent {
                Ok(Ok(())) => return,
                Ok(Err(err)) if attempt == SENDS => {
                    tracing::error!(queue, message, error = %err, "what became of given-up records could not be sent");
                }
                _ => tokio::time::sleep(lambda.inner.pace.retry).await,
            }
        }
    }
}

/// How the last invocation of a parcel went.
#[derive(Debug)]
struct Last {
    request_id: Option<String>,
    failed: bool,
    result: String,
}

impl Default for Last {
    fn default() -> Self {
        Self {
            request_id: None,
            failed: false,
            result: "OK".to_owned(),
        }
    }
}

impl Lambda {
    /// Notes how far a mapping has come, and how it goes. A mapping that was deleted meanwhile is left alone.
    pub(crate) fn set_place(&self, uuid: &str, read: Option<&str>, result: &str) {
        let store = &self.inner.store;
        let set = || -> Result<(), Refusal> {
            let _changes = self.changes();
            if store.get::<Mapping>(KIND, uuid)?.is_none() {
                return Ok(());
            }
            let mut place: Place = store.get(PLACE, uuid)?.unwrap_or_default();
            if let Some(read) = read {
                place.read = Some(read.to_owned());
            }
            result.clone_into(&mut place.result);
            store.put(PLACE, uuid, &place)?;
            Ok(())
        };
        if let Err(err) = set() {
            tracing::error!(mapping = uuid, error = %err, "how far a mapping has come could not be noted");
        }
    }
}
