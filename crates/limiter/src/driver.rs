//! Drives the state machines of the core: sends what they ask for, feeds what comes back.
//!
//! This is the only place where an acquire meets time, sleep, randomness and the table. A drive owns its
//! requests in flight; dropped before the end (a cancelled future, a deadline), it moves to the background,
//! tells the machine that nobody wants the tokens any more, and finishes there, so that whatever turns out
//! to have been taken is given back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use zae_limiter_core::acquire::{
    Acquire, Ask, Call, Decision, Found, Hint, Reply, Request, next_round_trip, refilled_by,
};
use zae_limiter_core::credit::{Credit, CreditEnd, Send};
use zae_limiter_core::random::Random;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::sync::Drift;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};
use zae_limiter_core::{Bucket, EntityId, ResourceName};

use crate::repository::Inner;

/// Random numbers for jitter, shard draws and marks.
pub(crate) struct FastRandom;

impl Random for FastRandom {
    fn bits(&mut self) -> u64 {
        fastrand::u64(..)
    }
}

/// How long one sending of a credit waits for its answer, if the table sets no limit of its own: a sending that
/// never ends would hold up the corrections that wait behind it.
const CREDIT_ANSWER: Duration = Duration::from_secs(10);

type InFlight = Pin<Box<dyn Future<Output = Reply> + std::marker::Send + 'static>>;

/// The requests of one machine that are in flight.
#[derive(Default)]
struct Flights(Vec<(usize, InFlight)>);

impl Flights {
    /// Waits for the next reply.
    async fn next(&mut self) -> Option<(usize, Reply)> {
        if self.0.is_empty() {
            return None;
        }
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Reply)>> {
        for i in 0..self.0.len() {
            if let Poll::Ready(reply) = self.0[i].1.as_mut().poll(cx) {
                let (id, _) = self.0.swap_remove(i);
                return Poll::Ready(Some((id, reply)));
            }
        }
        Poll::Pending
    }
}

/// An acquire on its way.
pub(crate) struct Drive {
    inner: Arc<Inner>,
    resource: ResourceName,
    /// Whether the call brought limits of its own.
    overridden: bool,
    /// `None` once it has ended.
    acquire: Option<Acquire>,
    flights: Flights,
    order: u64,
    /// Whether it runs in the background already: dropped there, the runtime is ending and it ends too.
    in_background: bool,
}

impl Drive {
    pub(crate) fn new(inner: &Arc<Inner>, request: Request) -> Self {
        Self {
            inner: Arc::clone(inner),
            resource: request.id.resource.clone(),
            overridden: request.limits.is_some(),
            acquire: Some(Acquire::new(request)),
            flights: Flights::default(),
            order: inner.next_order(),
            in_background: false,
        }
    }

    /// Runs to the decision.
    ///
    /// # Cancellation
    /// Dropping this future and the drive finishes in the background and gives back what was taken.
    pub(crate) async fn run(&mut self) -> Decision {
        if let Some(acquire) = &mut self.acquire {
            let calls = acquire.start(self.inner.clock.now(), &mut FastRandom);
            self.send(calls);
        }
        self.finish().await
    }

    async fn finish(&mut self) -> Decision {
        while let Some((id, reply)) = self.flights.next().await {
            self.feed(id, reply);
        }
        let Some(acquire) = self.acquire.take() else {
            return lost();
        };
        if acquire.is_local() && matches!(acquire.decision(), Some(Decision::Rejected(_))) {
            self.inner.count_local_rejection();
        }
        let (decision, refunds) = acquire.finish();
        for (id, shard, end) in refunds {
            log_credit(&id, shard, &end, "compensation");
        }
        decision.unwrap_or_else(lost)
    }

    fn feed(&mut self, id: usize, reply: Reply) {
        let Some(acquire) = &mut self.acquire else { return };
        let now = self.inner.clock.now();
        let calls = acquire.answer(id, reply, now, &mut FastRandom);
        for observation in acquire.take_observations() {
            self.inner.images.observe(&observation, self.order, now);
            if !self.overridden {
                self.inner.note_drift(&observation);
            }
        }
        self.send(calls);
    }

    /// Sends calls. Those that memory can answer are answered at once.
    fn send(&mut self, calls: Vec<Call>) {
        for call in calls {
            match call.ask {
                Ask::Config { entity, fresh } => {
                    let now = self.inner.clock.now();
                    let known = self
                        .inner
                        .config
                        .peek(&entity, &self.resource, now)
                        .filter(|_| !fresh);
                    if let Some(config) = known {
                        let hint = self.inner.hint(&entity, &self.resource, now);
                        self.feed(call.id, Reply::Config(Ok(Found { config, hint })));
                    } else {
                        let reply = fetch(Arc::clone(&self.inner), entity, self.resource.clone(), fresh);
                        self.flights.0.push((call.id, Box::pin(reply)));
                    }
                }
                Ask::Wait => {
                    let flight: InFlight = Box::pin(async move {
                        tokio::time::sleep(Duration::from_millis(call.delay_ms)).await;
                        Reply::Waited
                    });
                    self.flights.0.push((call.id, flight));
                }
                Ask::Table(op) => {
                    let inner = Arc::clone(&self.inner);
                    let flight: InFlight = if call.delay_ms == 0 {
                        Box::pin(inner.ask_table(op))
                    } else {
                        Box::pin(async move {
                            tokio::time::sleep(Duration::from_millis(call.delay_ms)).await;
                            inner.ask_table(op).await
                        })
                    };
                    self.flights.0.push((call.id, flight));
                }
            }
        }
    }
}

fn lost() -> Decision {
    Decision::Failed(zae_limiter_core::acquire::AcquireError::Abandoned)
}

async fn fetch(inner: Arc<Inner>, entity: EntityId, resource: ResourceName, fresh: bool) -> Reply {
    let config = inner
        .config
        .fetch(&*inner.table, &*inner.clock, &entity, &resource, fresh)
        .await;
    let hint = inner.hint(&entity, &resource, inner.clock.now());
    Reply::Config(config.map(|config| {
        inner.remember_policy(config.on_unavailable);
        Found { config, hint }
    }))
}

impl Drop for Drive {
    fn drop(&mut self) {
        let Some(mut acquire) = self.acquire.take() else {
            return;
        };
        acquire.abandon();
        let flights = std::mem::take(&mut self.flights);
        if flights.0.is_empty() {
            return;
        }
        if self.in_background {
            tracing::error!(
                "the runtime ended before an abandoned acquire did; its tokens may stay consumed"
            );
            return;
        }
        let mut rest = Self {
            inner: Arc::clone(&self.inner),
            resource: self.resource.clone(),
            overridden: self.overridden,
            acquire: Some(acquire),
            flights,
            order: self.order,
            in_background: true,
        };
        self.inner.background.spawn("abandoned acquire", async move {
            rest.finish().await;
        });
    }
}

impl Inner {
    /// What may be used of the memory of a bucket.
    pub(crate) fn hint(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        now: zae_limiter_core::EpochMillis,
    ) -> Hint {
        Hint {
            round_trip_ms: self.round_trip_ms.load(Ordering::Relaxed),
            ..self.images.hint(&self.bucket_id(entity, resource), now)
        }
    }

    /// Sends a request of an acquire, and learns from its answer how long the table takes.
    async fn ask_table(self: Arc<Self>, op: Op) -> Reply {
        let sent = self.clock.now();
        if let Some((id, shard)) = refilled_by(&op) {
            let wait_ms = 2 * self.round_trip_ms.load(Ordering::Relaxed) + 10;
            self.images.refilling(&id, shard, sent.plus(wait_ms));
        }
        let answer = self.table.call(op).await;
        if answer.is_ok() {
            self.answered_after(self.clock.now().since(sent));
        }
        Reply::Table(answer)
    }

    fn answered_after(&self, millis: i64) {
        let next = next_round_trip(self.round_trip_ms.load(Ordering::Relaxed), millis);
        self.round_trip_ms.store(next, Ordering::Relaxed);
    }

    /// Sends a correction to its shard, again where that is safe, until it has ended.
    pub(crate) async fn drive_credit(self: Arc<Self>, mut credit: Credit) -> CreditEnd {
        let mut next = credit.start(self.clock.now());
        while let Some(Send { delay_ms, op }) = next {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            let answer = match tokio::time::timeout(CREDIT_ANSWER, self.table.call(op)).await {
                Ok(answer) => answer,
                Err(_) => Err(TableError::new(
                    FailureKind::Timeout,
                    Applied::Unknown,
                    format!("no answer to a credit within {} s", CREDIT_ANSWER.as_secs()),
                )),
            };
            // Numbered by its arrival: the next credit needs the mark that this answer shows, and requests that were
            // sent earlier may have been executed before.
            self.observe_answer(&credit, &answer, self.next_order());
            next = credit.answer(answer, self.clock.now(), &mut FastRandom);
        }
        credit.end().cloned().unwrap_or(CreditEnd::Applied)
    }

    fn observe_answer(&self, credit: &Credit, answer: &Result<Answer, TableError>, order: u64) {
        if let Ok(Answer::Applied(Some(item)) | Answer::Refused(Some(item))) = answer
            && let Ok(image) = Bucket::decode(item)
        {
            let observation = zae_limiter_core::acquire::Observation {
                id: credit.id().clone(),
                shard: credit.shard(),
                image: Arc::new(image),
            };
            self.images.observe(&observation, order, self.clock.now());
        }
    }

    /// Looks whether an image is behind the configuration, and if so brings it up to date in the background.
    fn note_drift(self: &Arc<Self>, observation: &zae_limiter_core::acquire::Observation) {
        let id = &observation.id;
        let Some(config) = self.config.stale(&id.entity, &id.resource) else {
            return;
        };
        if Drift::between(&observation.image, &config, self.clock.now()).is_some() {
            self.reconcile_soon(id.clone(), observation.shard);
        }
    }

    pub(crate) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }
}

/// Says in the log how a correction went that nobody waits for.
pub(crate) fn log_credit(id: &BucketId, shard: u32, end: &CreditEnd, what: &str) {
    let resource = id.resource.as_str();
    match end {
        CreditEnd::Applied => {
            tracing::debug!(entity = %id.entity, resource, shard, what, "tokens given back");
        }
        CreditEnd::Gone => tracing::debug!(entity = %id.entity, resource, shard, what, "bucket is gone"),
        CreditEnd::InDoubt(error) => {
            tracing::warn!(resource, shard, what, %error, "refund in doubt; its tokens count as consumed");
        }
        CreditEnd::Failed(error) => {
            tracing::error!(resource, shard, what, %error, "refund failed; its tokens stay consumed");
        }
        CreditEnd::Refused(error) => {
            tracing::warn!(resource, shard, what, %error, "refund dropped");
        }
    }
}
